"""Which dataset to learn the first layers on: bases from several datasets, ranked by their gain on one target.

With `base_dataset=a,b` every split seed has one half B of the target's classes, and a base on half A of each
dataset ("from_a", "from_b"). Copies of all of them are tested on the same images, so two bases are compared
by the differences within a split seed; split seeds are independent and give the intervals.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from yosinski_jax.analysis import effects, statistics
from yosinski_jax.analysis.results import most_images
from yosinski_jax.analysis.statistics import Estimate, Tested
from yosinski_jax.analysis.tables import accuracy
from yosinski_jax.analysis.wording import at, interval, listing, number, p_text, symbol
from yosinski_jax.study.splits import FROM

#: Treatments that copy layers of the other dataset.
COPIES = ("AnB", "AnB+")


@dataclasses.dataclass(frozen=True)
class Order:
    """The bases at one n, best mean first.

    Attributes:
      treatment: "AnB" or "AnB+".
      n: layers copied.
      gains: mean accuracy of each base's copies minus that of networks from scratch of the same split seed.
      accuracy: mean accuracy of each base's copies on the target, 0..1.
      leads: by how much the better base of each pair is ahead on the same test images, by (ahead, behind);
        tested in one family over all pairs and all n of the treatment.
      seeds: number of split seeds in which all bases have copies.
    """

    treatment: str
    n: int
    gains: Mapping[str, Estimate]
    accuracy: Mapping[str, float]
    leads: Mapping[tuple[str, str], Tested]
    seeds: int

    @property
    def best(self) -> str:
        """The base with the highest mean."""
        return next(iter(self.gains))

    def behind(self, base: str) -> list[str]:
        """The bases that a base is significantly ahead of."""
        return [b for (a, b), lead in self.leads.items() if a == base and lead.significant]

    @property
    def told(self) -> bool:
        """Whether the best base is significantly ahead of all others."""
        return len(self.behind(self.best)) == len(self.gains) - 1


def orders(records: Iterable[dict], statistic: str = "last") -> list[Order]:
    """Orders the bases at each n, for frozen and for fine-tuned copies.

    Only networks on all images of the target count, and only split seeds in which every base has its copy.

    Args:
      records: of a sweep with several base datasets; those of other splits are passed over.
      statistic: one of `tables.STATISTICS`.

    Returns:
      Orders by treatment, then n; none for an n that fewer than two bases have.
    """
    mine = [r for r in records if r["split"].startswith(FROM) and r["target"] == "B"]
    mine = [r for r in mine if not r.get("preserve")]
    mine = most_images(mine)
    scratch: dict[int, list[float]] = {}
    copies: dict[tuple[str, int], dict[int, dict[str, Mapping]]] = {}
    for r in mine:
        value = accuracy(r, statistic)
        if value is not None and r["treatment"] == "base":
            scratch.setdefault(r["split_seed"], []).append(value)
        elif value is not None and r["treatment"] in COPIES:
            by_seed = copies.setdefault((r["treatment"], r["n"]), {})
            by_seed.setdefault(r["split_seed"], {})[r["split"].removeprefix(FROM)] = r
    step = effects.resolution(mine)
    found = []
    for treatment in COPIES:
        drafts: list[tuple[Order, dict[tuple[str, str], Estimate]]] = []
        for n in sorted(n for t, n in copies if t == treatment):
            by_seed = copies[treatment, n]
            bases = sorted({base for found_ in by_seed.values() for base in found_})
            full = {s: c for s, c in by_seed.items() if len(c) == len(bases) and s in scratch}
            if len(bases) > 1 and full:
                drafts.append(_order(treatment, n, bases, full, scratch, statistic, step))
        tests = iter(statistics.tested([e for _, leads in drafts for e in leads.values()]))
        for order, leads in drafts:
            tested = {pair: next(tests) for pair in leads}
            found.append(dataclasses.replace(order, leads=tested))
    return found


def _order(
    treatment: str,
    n: int,
    bases: Sequence[str],
    by_seed: Mapping[int, Mapping[str, Mapping]],
    scratch: Mapping[int, Sequence[float]],
    statistic: str,
    step: float,
) -> tuple[Order, dict[tuple[str, str], Estimate]]:
    """An order without its leads, and the leads' estimates, the better base first."""
    seeds = sorted(by_seed)
    values = {
        base: np.array([accuracy(by_seed[s][base], statistic) for s in seeds], float)
        for base in bases
    }
    own = np.array([np.mean(scratch[s]) for s in seeds])
    accuracies = {
        b: float(values[b].mean()) for b in sorted(bases, key=lambda b: -values[b].mean())
    }
    gains = {b: statistics.mean(list(values[b] - own), seeds, resolution=step) for b in accuracies}
    leads = {}
    for ahead, behind in itertools.combinations(accuracies, 2):
        e = statistics.mean(list(values[ahead] - values[behind]), seeds, resolution=step)
        if len(seeds) == 1 and statistic == "last":
            pair = by_seed[seeds[0]]
            e = effects.on_images([(pair[ahead], pair[behind])]) or e
        leads[ahead, behind] = e
    return Order(treatment, n, gains, accuracies, {}, len(seeds)), leads


def answer(found: Sequence[Order]) -> list[str]:
    """States which base transfers best in sentences, none beyond what the tests support."""
    lines = []
    for treatment in COPIES:
        mine = [o for o in found if o.treatment == treatment]
        if not mine:
            continue
        how = "frozen" if treatment == "AnB" else "fine-tuned"
        places: dict[str, list[dict]] = {}
        for o in sorted(mine, key=lambda o: not o.told):
            what = o.best if o.told else "inconclusive"
            places.setdefault(what, []).append({"n": o.n})
        parts = [f"{what} at {at(rows)}" for what, rows in places.items()]
        lines.append(f"Best base for {how} copies ({symbol(treatment)}): {'; '.join(parts)}.")
        lines += [_in_order(o) for o in mine]
    if found:
        lines.append(_scope(found))
    return lines


def _in_order(order: Order) -> str:
    gains = ", ".join(
        f"{b} {number(100 * g.value, 1)}{interval(g)}" for b, g in order.gains.items()
    )
    leads = [
        f"{ahead} leads {behind} by {number(100 * lead.value, 1)}{interval(lead)}, {p_text(lead.p_holm)}"
        for (ahead, behind), lead in order.leads.items()
        if lead.significant
    ]
    sure = "; ".join(leads) if leads else "no significant difference between any two"
    return (
        f"{symbol(order.treatment)}, n = {order.n}, by the means, in points against training from scratch: {gains} "
        f"({sure})."
    )


def _scope(found: Sequence[Order]) -> str:
    scopes = {lead.scope for o in found for lead in o.leads.values()}
    if "seeds" in scopes:
        least, most = min(o.seeds for o in found), max(o.seeds for o in found)
        seeds = str(most) if least == most else f"{least} to {most}"
        text = (
            f"{seeds} split seeds: intervals hold for other halves and initial values; leads are Holm-corrected over all "
            "pairs of bases and all n."
        )
        alone = " Where there is only one, leads are over test images, if tested, and hold for these networks only."
        return text + alone * (least < 2)
    if "images" in scopes:
        return (
            "One split seed: leads are tested over test images (McNemar) and hold for these networks only; they say "
            "nothing about other halves or other initial values."
        )
    return "One split seed, and no results for each test image: the order is that of the numbers, without a test."


def table(found: Sequence[Order]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the table behind the figure, accuracies and gains in percent, best base first."""
    gain, ahead = "against scratch (points)", "significantly ahead of"
    headings = ["treatment", "n", "place", "base", "accuracy (%)", gain, ahead]
    rows = [
        [
            o.treatment, str(o.n), str(place), base, number(100 * o.accuracy[base], 1),
            number(100 * g.value, 1) + interval(g),
            listing(o.behind(base)) or "–",
        ]
        for o in found
        for place, (base, g) in enumerate(o.gains.items(), 1)
    ]  # fmt: skip
    return headings, rows
