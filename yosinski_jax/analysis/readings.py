"""The paper's five readings of Figure 2, restricted to those that a test supports."""

import dataclasses
from collections.abc import Mapping, Sequence

from yosinski_jax.analysis import effects, statistics
from yosinski_jax.analysis.effects import BY_KEY, significant
from yosinski_jax.analysis.wording import points

#: The numbers of the readings as they stand in words.
BADGES = "❶❷❸❹❺"


@dataclasses.dataclass(frozen=True)
class Reading:
    """One of the paper's five readings of Figure 2, found in these records.

    Attributes:
      number: the paper's number, 1 to 5.
      text: what it says.
      n: where on the horizontal axis it is drawn.
      kinds: the two treatments between which it is drawn.
    """

    number: int
    text: str
    n: int
    kinds: tuple[str, str]


def readings(
    records: Sequence[Mapping], statistic: str = "last", whole: Sequence[Mapping] = ()
) -> list[Reading]:
    """Returns those of the paper's five readings of Figure 2 that the records support.

    Args:
      records: of one split into halves.
      statistic: one of `tables.STATISTICS`.
      whole: records of networks on all classes, for reading 1.
    """
    found = []
    halves, all_ = effects.bases(records, statistic), effects.bases(whole, statistic)
    if halves and all_:
        level = sum(all_.values()) / len(all_)
        gap = statistics.mean([v - level for v in halves.values()], [p[0] for p in halves])
        if gap.low is not None and gap.low > 0:
            random = all(r["split"] == "random" for r in records)
            what = "half the classes are" if random else "each part of the classes is, on average,"
            text = f"{what} easier by {points(gap.value)}"
            found.append(Reading(1, text, 0, ("base", "base")))
    for number, key, kinds, text in (
        (2, "co_adaptation_drop", ("base", "BnB"), "fragile co-adaptation lost by cutting"),
        (3, "recovery", ("BnB+", "BnB"), "fine-tuning recovers it"),
        (4, "specificity_drop", ("BnB", "AnB"), "features specific to the other task"),
        (5, "boost_over_base", ("AnB+", "base"), "transfer + fine-tuning beats the base"),
    ):
        rows = effects.effect_rows(records, BY_KEY[key], statistic)
        # Tests over the images of one split seed do not carry a reading of the whole study.
        rows = [r for r in rows if significant(r) and r["scope"] == "seeds"]
        single = [r for r in rows if r["n"] is not None]
        if single:
            best = max(single, key=lambda r: r["value"])
            ns = ", ".join(str(r["n"]) for r in single)
            text = f"{text}: {points(best['value'])} at n = {best['n']}"
            text += f" (significant at n = {ns})" if len(single) > 1 else ""
            found.append(Reading(number, text, best["n"], kinds))
        elif rows:
            text = f"{text}: {points(rows[0]['value'], 2)} over layers {rows[0]['layers']}"
            found.append(Reading(number, text, effects.cuts(records)[-1], kinds))
    return found
