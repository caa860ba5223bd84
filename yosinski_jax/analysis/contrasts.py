"""Questions that compare two sets of networks: dissimilar tasks, few training images."""

import statistics as stdlib
from collections.abc import Mapping, Sequence

import numpy as np

from yosinski_jax.analysis import effects, statistics
from yosinski_jax.analysis.effects import BY_KEY, Effect
from yosinski_jax.analysis.verdicts import told, unanswerable, verdicts
from yosinski_jax.analysis.wording import Answer, Finding, gap_text, p_text, plural, points


def dissimilar_tasks(
    near: Sequence[Mapping], far: Sequence[Mapping], statistic: str
) -> Answer | None:
    """Answers whether dissimilar tasks transfer worse, increasingly so for higher layers.

    The man-made / natural split is one pair of tasks, however often it is trained; random halves
    are a sample of pairs. So that one pair is tested against the spread of the random halves.

    Args:
      near: records of random halves.
      far: records of the other split.
      statistic: one of `tables.STATISTICS`.
    """
    question = "Do dissimilar tasks transfer worse?"
    tables = [_drops(records, statistic) for records in (near, far)]
    layers = sorted(set.intersection(*({n for d in t.values() for n in d} for t in tables)))
    a, b = ([[d[n] for n in layers] for d in t.values() if d.keys() >= {*layers}] for t in tables)
    if not layers or not a or not b:
        return None
    x = np.array(layers, float)
    slope = lambda drops: float(np.polyfit(x, drops, 1)[0])
    measures = [("level", stdlib.fmean)] + ([("slope", slope)] if len(layers) > 1 else [])
    found = {}
    for name, measure in measures:
        others = [measure(d) for d in a]
        mine = stdlib.fmean(measure(d) for d in b)
        found[name] = (mine, stdlib.fmean(others), statistics.one_against(mine, others))
    # No equivalence: one pair of tasks has no spread of its own.
    rows = effects.family([e for *_, e in found.values()], margin=0.0)
    facts = {
        "layers": tuple(layers), "near": tuple(map(tuple, a)), "far": tuple(map(tuple, b)),
        "rows": {name: row | {"far": f[0], "near": f[1]} for (name, f), row in zip(found.items(), rows, strict=True)},
    }  # fmt: skip
    return Answer(
        question, Finding("dissimilar", _dissimilar_short(facts["rows"]), facts),
        (Finding("dissimilar_values", _dissimilar_text(facts), facts),),
    )  # fmt: skip


def _drops(records: Sequence[Mapping], statistic: str) -> dict[int, dict[int, float]]:
    """The mean drop base - AnB over both directions, by split seed and n; without an n that lacks one."""
    table = effects.cells(records, statistic)
    found: dict[int, dict[int, list[float]]] = {}
    for n in effects.cuts(records):
        for pair, d in effects.differences(table, BY_KEY["total_drop"], n):
            found.setdefault(pair[0], {}).setdefault(n, []).append(d)
    # One direction may be much harder than the other, so a mean of one is not comparable with that of both.
    both = max((len(v) for drops in found.values() for v in drops.values()), default=0)
    return {
        s: {n: stdlib.fmean(v) for n, v in drops.items() if len(v) == both}
        for s, drops in found.items()
    }


def _dissimilar_short(rows: Mapping[str, Mapping]) -> str:
    short = {
        "above": "yes, more is lost",
        "below": "no, less is lost",
        "unclear": "it is inconclusive whether more is lost",
    }.get(rows["level"]["verdict"], "not testable with one pair of random halves")
    return short + {
        "above": "; the loss grows faster with n",
        "below": "; the loss grows more slowly with n",
        "unclear": "; it is inconclusive whether the loss grows faster with n",
    }.get(rows.get("slope", {}).get("verdict", ""), "")


def _dissimilar_text(facts: Mapping) -> str:
    layers = facts["layers"]
    parts = []
    for name, row in facts["rows"].items():
        over = f"n = {layers[0]} to {layers[-1]}" if len(layers) > 1 else f"n = {layers[0]}"
        what = f"drop against the base, mean of {over}" if name == "level" else "drop per layer"
        text = f"{what}: {points(row['far'])} here, {points(row['near'])} between random halves"
        text += f", difference {gap_text(row)}"
        text += "" if row["p_holm"] is None else f", {p_text(row['p_holm'])}"
        parts.append(text)
    text = "; ".join(parts) + f". One pair of tasks (trained {plural(len(facts['far']), 'time')})"
    text += f" against {plural(len(facts['near']), 'pair')} of random halves"
    tested = facts["rows"]["level"]["p_holm"] is not None
    return text + (", assuming equal variances." if tested else ": no test.")


def few_images(records: Sequence[Mapping], statistic: str) -> Answer | None:
    """Answers whether random features come closer to the base with few training images.

    Args:
      records: of one data set, with several amounts of images per class.
      statistic: one of `tables.STATISTICS`.

    Returns:
      None where there are fewer than two amounts with bases and random features.
    """
    question = "Do random features come closer when training images are few?"
    known = [r for r in records if r.get("images_per_class") and r.get("target")]
    effect = Effect("", "", "base", "RnB", "")
    by_amount: dict[int, dict[tuple, float]] = {}
    table = effects.cells(known, statistic)
    for n in effects.cuts(known):
        for (seed, target, amount), d in effects.differences(table, effect, n):
            by_amount.setdefault(amount, {})[n, seed, target] = d
    if len(by_amount) < 2:
        return None
    few, many = min(by_amount), max(by_amount)
    shared = sorted(by_amount[few].keys() & by_amount[many].keys(), key=str)
    layers = sorted({n for n, *_ in shared})
    if not layers:
        return unanswerable(question, Finding("no_amounts", "No pair has both amounts.", {}))
    estimates, means = [], []
    step = effects.resolution(known)
    for n in layers:
        mine = [key for key in shared if key[0] == n]
        gaps = {amount: [by_amount[amount][key] for key in mine] for amount in (few, many)}
        closer = [b - a for a, b in zip(gaps[few], gaps[many], strict=True)]
        estimates.append(statistics.mean(closer, [key[1] for key in mine], resolution=step))
        means.append({"n": n, "few": stdlib.fmean(gaps[few]), "many": stdlib.fmean(gaps[many])})
    margin = statistics.MARGIN
    tested = zip(effects.family(estimates, margin), means, strict=True)
    rows = [row | mean | {"margin": margin} for row, mean in tested]
    text = "; ".join(
        f"{points(r['few'])} with {few}, {points(r['many'])} with {many}: closer by "
        f"{gap_text(r)} at n = {r['n']}"
        for r in rows
    )
    facts = {"rows": tuple(rows), "amounts": (few, many)}
    words = told("yes", "no, they fall further behind")
    words["equivalent"] = "no closer by {margin} or more"
    found = (Finding("few_images", f"base − RnB by images per class: {text}.", facts),)
    return Answer(question, verdicts(rows, words), found)
