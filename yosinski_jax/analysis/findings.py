"""The paper's questions answered in sentences made from the numbers, each hedged by its test.

"Not distinguishable with these seeds" is an answer; so is "cannot be computed", with the reason.
Nothing is claimed that the corrected test of its gap does not support.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from yosinski_jax.analysis import effects
from yosinski_jax.analysis.effects import pick, significant
from yosinski_jax.analysis.statistics import LEVEL

#: The short answer to a question for which networks are lacking.
NOT_COMPUTABLE = "cannot be computed"


@dataclasses.dataclass(frozen=True)
class Answer:
    """One question with its answer.

    Attributes:
      question: as the page prints it.
      short: the answer in a few words; `NOT_COMPUTABLE` if networks are lacking.
      sentences: the answer with its numbers.
    """

    question: str
    short: str
    sentences: tuple[str, ...]


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


def points(value: float, digits: int = 1) -> str:
    """A difference of accuracies in percentage points: "4.3 points"."""
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    rounded = round(100 * value, digits) + 0.0
    text = f"{rounded:.{digits}f} point{'' if abs(rounded) == 1 else 's'}"
    return text.replace("-", "−")


def interval(row: Mapping, digits: int = 1) -> str:
    """The interval of a row in percentage points: " [3.1, 5.4]", or nothing where there is none."""
    if row["low"] is None:
        return ""
    low, high = (round(100 * row[k], digits) + 0.0 for k in ("low", "high"))
    return f" [{low:.{digits}f}, {high:.{digits}f}]".replace("-", "−")


def p_text(p: float | None) -> str:
    """A p value in words that fit a sentence."""
    if p is None:
        return "no test"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def verdict(row: Mapping) -> str:
    """What the corrected test of an effect says: one of five words for tables."""
    if row["value"] is None:
        return "not computable"
    p = row["p_holm"]
    if p is None:
        return "no interval"
    if p >= LEVEL:
        return "not distinguishable from 0"
    return "above 0" if row["value"] > 0 else "below 0"


def layer(n: int, names: Sequence[str]) -> str:
    """A layer in words: "layer 3 (fc3)"."""
    return f"layer {n} ({names[n - 1]})" if n <= len(names) else f"layer {n}"


def seeds_text(rows: Sequence[Mapping]) -> str:
    """How many split seeds stand behind some rows: "these 4 split seeds"."""
    counts = sorted({r["seeds"] for r in rows if r["seeds"]})
    if not counts:
        return "these networks"
    if counts == [1]:
        return "one split seed"
    most = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return f"these {most} split seeds"


def _listing(items: Sequence[str]) -> str:
    items = list(items)
    return "".join(items) if len(items) < 2 else ", ".join(items[:-1]) + " and " + items[-1]


def _missing(effect_key: str) -> str:
    effect = next(e for e in effects.ALL_EFFECTS if e.key == effect_key)
    a, b = (t.replace("+", "⁺") for t in (effect.minuend, effect.subtrahend))
    return (
        f"cannot be computed: no {a} network has its {b} partner (same split seed, same target) "
        "among the finished ones."
    )


def _where(rows: list[dict], what: str, names: Sequence[str]) -> tuple[str, str]:
    """The first layer with a significant drop, in a few words and in a sentence."""
    made = [r for r in rows if r["value"] is not None]
    if not made:
        return NOT_COMPUTABLE, ""
    largest = max(made, key=lambda r: r["value"])
    most = f"{points(largest['value'])}{interval(largest)} at n = {largest['n']}"
    if all(r["p_holm"] is None for r in made):
        return (
            "no test with one split seed",
            f"With one split seed no interval can be given, so no drop from {what} can be told "
            f"from zero; the largest observed is {most}.",
        )
    found = [r for r in made if significant(r)]
    gained = _listing([str(r["n"]) for r in made if verdict(r) == "below 0"])
    gained = f" At n = {gained} it is a gain: significantly below zero." if gained else ""
    if not found:
        return (
            "nowhere that these seeds could tell",
            f"No n has a drop from {what} distinguishable from zero with {seeds_text(made)}; "
            f"the largest is {most}.{gained}",
        )
    first = found[0]
    where = f"from n = {first['n']} on" if len(found) > 1 else f"at n = {first['n']}"
    later = [r for r in made if r["n"] > first["n"] and not significant(r)]
    unclear = [str(r["n"]) for r in later if verdict(r) != "below 0"]
    if later and len(found) > 1:
        where = f"at n = {_listing([str(r['n']) for r in found])}"
    short = f"{where} ({names[first['n'] - 1]})" if first["n"] <= len(names) else where
    sentence = (
        f"The drop from {what} is first significant at {layer(first['n'], names)}: "
        f"{points(first['value'])}{interval(first)}, {p_text(first['p_holm'])} after Holm's "
        f"correction over {sum(r['p'] is not None for r in made)} layers."
    )
    if first["n"] != largest["n"]:
        sentence += f" It is largest, {most}."
    if unclear:
        sentence += f" At n = {_listing(unclear)} it is not distinguishable from zero."
    return short, sentence + gained


def how_general(records, rows, statistic, names) -> Answer:
    """Question 1: can the generality of a layer be quantified?"""
    question = "How general is each layer?"
    drops = [r for r in pick(rows, "specificity_drop") if r["value"] is not None]
    if not drops:
        return Answer(question, NOT_COMPUTABLE, (_missing("specificity_drop"),))
    sentences = []
    general = []
    for r in drops:
        if significant(r):
            break
        general.append(r)
    tested = any(r["p_holm"] is not None for r in drops)
    if not tested:
        short = "a score for each layer, without intervals"
    elif len(general) == len(drops):
        short = "no layer is distinguishable from general with these seeds"
    elif general:
        first = drops[len(general)]["n"]
        short = f"not distinguishable from general up to n = {general[-1]['n']}, "
        short += f"specific at n = {first}"
    else:
        short = "specific at the first layer already"
    if tested and general:
        last = general[-1]["n"]
        span = "at n = 1" if last == 1 else f"up to n = {last}"
        worst = max(general, key=lambda r: r["value"])
        sentences.append(
            f"{span[0].upper() + span[1:]} features from the other task are not distinguishable "
            f"from the network's own, cut at the same place, with {seeds_text(general)} (largest "
            f"drop {points(worst['value'])}{interval(worst)}, {p_text(worst['p_holm'])} after "
            "Holm's correction)."
        )
    for floor, words in (("random", "untrained features"), ("chance", "chance")):
        scores = effects.generality(records, floor, statistic)
        known = [g for g in scores if g.estimate is not None]
        if not known:
            continue
        text = ", ".join(f"{_score(g)} at n = {g.n}" for g in known)
        sentences.append(
            f"Generality score, 1 for features as good as the task's own and 0 for ones no better "
            f"than {words}: {text}."
        )
        unknown = [g for g in scores if g.estimate is None]
        if unknown:
            n = _listing([str(g.n) for g in unknown])
            sentences.append(f"Undefined at n = {n}: {unknown[0].reason}.")
    return Answer(question, short, tuple(sentences))


def _score(g: effects.Generality) -> str:
    assert g.estimate is not None and g.score is not None
    text = f"{g.score:.2f}"
    if g.estimate.low is not None and g.estimate.high is not None:
        low, high = (min(max(v, 0.0), 1.0) for v in (g.estimate.low, g.estimate.high))
        text += f" [{low:.2f}, {high:.2f}]"
    return text


def how_sudden(records, statistic, names) -> Answer:
    """Question 2: is the change from general to specific sudden or spread out?"""
    question = "Is the change from general to specific sudden or spread over the layers?"
    found = effects.suddenness(records, statistic)
    if found.estimate is None:
        text = f"the largest-step share cannot be computed: {found.reason}."
        if found.total is not None:
            total = dataclasses.asdict(found.total)
            text += f" The whole drop is {points(total['value'])}{interval(total)}."
        short = "no drop to judge" if found.total is not None else NOT_COMPUTABLE
        return Answer(question, short, (text,))
    share, even = found.estimate, found.even
    assert found.step is not None and found.total is not None and found.observed is not None
    what = (
        f"The largest step, at {layer(found.step, names)}, makes {100 * found.observed:.0f} % of the "
        f"whole drop from specificity"
    )
    spread = f"an even spread would give {100 * even:.0f} %"
    if share.low is None or share.high is None:
        text = f"{what} ({spread}); with one split seed no interval can be given, and the step was "
        text += "picked on the same seed, which flatters it."
        return Answer(question, "not testable with one split seed", (text,))
    text = (
        f"{what} ({spread}). The choice of the largest flatters it: chosen on the other split seeds and measured on "
        f"the one left out, it makes {100 * share.value:.0f} %, interval {100 * share.low:.0f} to {100 * share.high:.0f} %."
    )
    if share.low > even:
        short = "more sudden than an even spread"
        if share.high < 1:
            short += ", but not all at one layer"
            text += " So it is concentrated, yet other layers have their part in it."
        else:
            text += " That all of it falls on this one layer cannot be excluded."
    elif share.high < 1:
        short = "not distinguishable from an even spread; not all at one layer"
    else:
        short = "not distinguishable with these seeds"
        text += " Both a sudden and an even change agree with these seeds."
    return Answer(question, short, (text,))


def where(rows, names) -> Answer:
    """Question 3: where does the change take place?"""
    question = "Where does it happen?"
    texts, shorts = [], []
    for key, what in (
        ("specificity_drop", "specificity"),
        ("co_adaptation_drop", "lost co-adaptation"),
    ):
        short, sentence = _where(pick(rows, key), what, names)
        shorts.append(f"{what}: {short}")
        texts.append(sentence or f"Drop from {what}: {_missing(key)}")
    total = [r for r in pick(rows, "total_drop") if r["value"] is not None]
    if total and all(r["value"] is None for r in pick(rows, "specificity_drop")):
        short, sentence = _where(total, "both together (base − AnB)", names)
        shorts, texts = [f"both drops together: {short}"], [sentence]
        texts.append("Without BnB networks the two drops cannot be told apart.")
    if all(short.endswith(NOT_COMPUTABLE) for short in shorts):
        return Answer(question, NOT_COMPUTABLE, (texts[0],))
    return Answer(question, "; ".join(shorts), tuple(texts))


def does_it_help(rows) -> Answer:
    """Does having seen the other task help after fine-tuning?"""
    question = "Does a network that has seen the other task end up better after fine-tuning?"
    sentences, short = [], NOT_COMPUTABLE
    for key, against in (("boost_over_base", "the base"), ("boost_over_selffer", "BnB⁺")):
        mine = [r for r in rows if r["effect"] == key and r["direction"] == "pooled"]
        made = [r for r in mine if r["value"] is not None]
        if not made:
            sentences.append(f"Against {against}: {_missing(key)}")
            continue
        averages = [r for r in made if r["n"] is None]
        main = averages[0] if averages else max(made, key=lambda r: r["value"])
        name = f"layers {main['layers']} on average" if averages else f"n = {main['layers']}"
        text = f"Against {against}, {name}: {points(main['value'], 2)}{interval(main, 2)}"
        state = verdict(main)
        text += {
            "no interval": ", one split seed, so no interval can be given",
            "above 0": f", better than {against} ({p_text(main['p_holm'])})",
            "below 0": f", worse than {against} ({p_text(main['p_holm'])})",
        }.get(state, f", not distinguishable from {against} with {seeds_text([main])}")
        above = [r["layers"] for r in made if r["n"] is not None and significant(r)]
        singles = [r for r in made if r["n"] is not None and r["p_holm"] is not None]
        if above:
            text += f"; significant by itself at n = {_listing(above)}"
        elif singles:
            text += "; at no single n significant after correction"
        sentences.append(text + ".")
        if key == "boost_over_base":
            short = {
                "no interval": "not testable with one split seed",
                "above 0": "yes, on average",
                "below 0": "no, it ends up worse",
            }.get(state, "not distinguishable with these seeds")
    return Answer(question, short, tuple(sentences))


def co_adaptation(rows) -> Answer:
    """Is what cutting loses recovered by fine-tuning?"""
    question = "Does fine-tuning recover what cutting a network loses?"
    made = [r for r in pick(rows, "recovery") if r["value"] is not None]
    if not made:
        return Answer(question, NOT_COMPUTABLE, (_missing("recovery"),))
    found = [r for r in made if significant(r)]
    best = max(made, key=lambda r: r["value"])
    most = f"{points(best['value'])}{interval(best)} at n = {best['n']}"
    if all(r["p_holm"] is None for r in made):
        text = f"BnB⁺ lies above BnB by {most} at most; one split seed gives no interval."
        return Answer(question, "not testable with one split seed", (text,))
    if not found:
        worse = [str(r["n"]) for r in made if verdict(r) == "below 0"]
        if worse:
            text = f"BnB⁺ is below BnB at n = {_listing(worse)} and nowhere above it; most: {most}."
            return Answer(question, f"no; worse at n = {_listing(worse)}", (text,))
        text = f"BnB⁺ is nowhere distinguishable from BnB with {seeds_text(made)}; most: {most}."
        return Answer(question, "not distinguishable with these seeds", (text,))
    where_ = _listing([str(r["n"]) for r in found])
    text = f"BnB⁺ is above BnB at n = {where_}, most at n = {best['n']}: "
    text += f"{points(best['value'])}{interval(best)}, {p_text(best['p_holm'])}."
    return Answer(question, f"yes, at n = {where_}", (text,))


def beats_random(rows) -> Answer:
    """Are features of another task worth more than untrained ones?"""
    question = "Are features of the other task better than random ones?"
    made = [r for r in pick(rows, "gain_over_random") if r["value"] is not None]
    if not made:
        return Answer(question, NOT_COMPUTABLE, (_missing("gain_over_random"),))
    text = "; ".join(f"n = {r['n']}: {points(r['value'])}{interval(r)}, {verdict(r)}" for r in made)
    found = [str(r["n"]) for r in made if significant(r)]
    worse = [str(r["n"]) for r in made if verdict(r) == "below 0"]
    parts = [f"yes, at n = {_listing(found)}"] if found else []
    parts += [f"worse at n = {_listing(worse)}"] if worse else []
    short = "; ".join(parts) or "not distinguishable with these seeds"
    if all(r["p_holm"] is None for r in made):
        short = "not testable with one split seed"
    return Answer(question, short, (f"AnB − RnB at {text}.",))


def answers(
    records: Sequence[Mapping], statistic: str = "last", rows: Sequence[Mapping] | None = None
) -> list[Answer]:
    """The answers that the records of one split give.

    Args:
      records: of one split.
      statistic: one of `analysis.STATISTICS`.
      rows: those of `effects.all_rows`, where at hand.
    """
    rows = effects.all_rows(records, statistic) if rows is None else rows
    names = next((r["layers"] for r in records if r.get("layers")), ())
    return [
        how_general(records, rows, statistic, names),
        how_sudden(records, statistic, names),
        where(rows, names),
        co_adaptation(rows),
        does_it_help(rows),
        beats_random(rows),
    ]


def readings(
    records: Sequence[Mapping], statistic: str = "last", whole: Sequence[Mapping] = ()
) -> list[Reading]:
    """The paper's five readings of Figure 2, those only that these records support.

    Args:
      records: of one split into halves.
      statistic: one of `analysis.STATISTICS`.
      whole: records of networks on all classes, for reading 1.
    """
    found = []
    half = [v for c in effects.cells(records, statistic).values() if (v := c.get(("base", 0)))]
    all_ = [v for c in effects.cells(whole, statistic).values() if (v := c.get(("base", 0)))]
    if half and all_ and min(half) > max(all_):
        gap = points(sum(half) / len(half) - sum(all_) / len(all_))
        found.append(Reading(1, f"half the classes are easier by {gap}", 0, ("base", "base")))
    for number, key, kinds, text in (
        (2, "co_adaptation_drop", ("base", "BnB"), "fragile co-adaptation lost by cutting"),
        (3, "recovery", ("BnB+", "BnB"), "fine-tuning recovers it"),
        (4, "specificity_drop", ("BnB", "AnB"), "features specific to the other task"),
        (5, "boost_over_base", ("AnB+", "base"), "transfer + fine-tuning beats the base"),
    ):
        effect = next(e for e in effects.EFFECTS if e.key == key)
        rows = [r for r in effects.effect_rows(records, effect, statistic) if significant(r)]
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
