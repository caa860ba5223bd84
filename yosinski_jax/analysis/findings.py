"""Answers the paper's questions in sentences built from the numbers, each backed by its test.

What the corrected test of a gap does not support is not claimed: neither a difference nor, without
an equivalence test, the lack of one. "Inconclusive" is an answer; so is "cannot be computed".
"""

from collections.abc import Mapping, Sequence

from yosinski_jax.analysis import effects, scores, tuned
from yosinski_jax.analysis.effects import of_effect, pick, significant
from yosinski_jax.analysis.series import layer_names
from yosinski_jax.analysis.tables import accuracy
from yosinski_jax.analysis.verdicts import (
    WORDS,
    missing,
    needed,
    phrase,
    told,
    unanswerable,
    values,
    verdicts,
)
from yosinski_jax.analysis.wording import (
    Answer,
    Finding,
    at,
    dataset_name,
    gap_text,
    interval,
    layer,
    margin_text,
    number,
    p_text,
    per_cent,
    plural,
    points,
)
from yosinski_jax.study.pairs import EQUAL

#: Bases nearer than this to 100 %, or to chance, are reported to be at it (accuracy, 0..1).
NEAR = 0.02


def gap_answer(question: str, rows, key: str, words: Mapping[str, str]) -> Answer:
    """Answers a question from one gap at each n."""
    mine = of_effect(rows, key)
    if all(r["value"] is None for r in mine):
        return unanswerable(question, missing(key))
    return Answer(question, verdicts(mine, words), (values(mine), *needed(mine)))


def how_general(records, rows, statistic) -> Answer:
    """Question 1: can the generality of a layer be quantified?"""
    words = told("specific", "better than the task’s own") | {
        "equivalent": "general within ±{margin}"
    }
    answer = gap_answer("How general is each layer?", rows, "specificity_drop", words)
    if not answer.answerable:
        return answer
    found = scores.generality(records, None, statistic)
    known = [g for g in found if g.estimate is not None]
    more = []
    if known:
        floor = "untrained features" if known[0].floor == "random" else "chance"
        each = ", ".join(f"{score_text(g)} at n = {g.n}" for g in known)
        text = f"Generality score, 1 for features as good as the task’s own, 0 for ones no better than {floor}: {each}."
        more.append(Finding("score", text, {"scores": tuple(known)}))
    unknown = [g for g in found if g.estimate is None]
    if unknown and known:
        text = "The score is undefined at " + "; ".join(f"n = {g.n} ({g.reason})" for g in unknown)
        more.append(Finding("score_undefined", f"{text}.", {"scores": tuple(unknown)}))
    return Answer(answer.question, answer.short, (*answer.findings, *more))


def score_text(g: scores.Generality) -> str:
    """A generality score with its 95 % interval: "0.83 [0.79, 0.87]"."""
    if g.estimate is None:
        return "–"
    return number(g.estimate.value, 2) + interval(g.estimate, 2, 1.0)


def how_sudden(records, statistic, names) -> Answer:
    """Question 2: is the change from general to specific sudden or spread out?"""
    question = "Is the change from general to specific sudden or spread over the layers?"
    found = scores.suddenness(records, statistic)
    facts = {"found": found}
    if found.estimate is None:
        reason = Finding("no_share", f"The largest-step share has no value: {found.reason}.", facts)
        if found.total is None:
            return unanswerable(question, reason)
        total = f"The whole drop is {gap_text(found.total)}."
        return Answer(
            question,
            Finding("no_drop", "no significant drop to judge", facts),
            (reason, Finding("total", total, facts)),
        )
    share, even, observed = found.estimate, found.even, found.observed
    assert found.step is not None and observed is not None
    text = (
        f"The largest step, at {layer(found.step, names)}, makes up {per_cent(observed, 0)} % of the whole drop from "
        f"specificity; an even spread would give {per_cent(even, 0)} %."
    )
    first = Finding("share_observed", text, facts)
    if share.low is None or share.high is None:
        text = "With one split seed the step is chosen and measured on the same networks, which biases its share upward."
        short = "not testable with one split seed"
        if len({r["split_seed"] for r in records}) > 1:
            text = f"Only one split seed has BnB and AnB at every n: {text[0].lower()}{text[1:]}"
            short = "not testable: only one split seed has BnB and AnB at every n"
        return Answer(
            question,
            Finding("untested_share", short, facts),
            (first, Finding("untested_share", text, facts)),
        )
    text = (
        f"Chosen on the other split seeds and measured on the held-out one, which avoids selection bias, it "
        f"makes up {per_cent(share.value, 0)} %, 95 % interval {per_cent(share.low, 0)} to {per_cent(share.high, 0)} %."
    )
    second = Finding("share", text, facts)
    # As the rounded numbers read, so that no sentence contradicts the interval beside it.
    low, high, level = (round(100 * v) for v in (share.low, share.high, even))
    if low >= 95:
        short = "all at one layer, or nearly so"
    elif high < level:
        short = "less concentrated than an even spread: the largest step is not at the same layer in all split seeds"
    else:
        short = (
            "more concentrated than an even spread"
            if low > level
            else "not distinguishable from an even spread"
        )
        short += "" if high >= 100 else ", but not all at one layer"
    return Answer(question, Finding("sudden", short, facts), (first, second))


def where(rows, names) -> Answer:
    """Question 3: where does the change take place?"""
    question = "Where does the change take place?"
    keys = [("specificity_drop", "specificity"), ("co_adaptation_drop", "lost co-adaptation")]
    if not pick(rows, "specificity_drop") and pick(rows, "total_drop"):
        keys = [("total_drop", "both together (base − AnB)")]
    known = [(key, what) for key, what in keys if pick(rows, key)]
    if not known:
        return unanswerable(question, missing("specificity_drop"))
    shorts, found, all_rows = [], [], []
    for key, what in known:
        mine = pick(rows, key)
        above = [r for r in mine if significant(r)]
        every = of_effect(rows, key)
        largest = max(mine, key=lambda r: r["value"])
        tests = sum(r["p_holm"] is not None for r in mine)
        shorts.append(f"{what}: {_place(every, above, names)}")
        all_rows.append((what, tuple(every)))
        text = f"The drop from {what} is "
        if above:
            first = above[0]
            text += (
                f"first significant at {layer(first['n'], names)}: {gap_text(first)}, "
                f"{p_text(first['p_holm'])}, corrected over {plural(tests, 'test')}"
            )
            text += "; it is largest " if largest["n"] != first["n"] else ""
        else:
            text += "not significant at any n" if tests else "not tested"
            if below := [r for r in mine if r["verdict"] == "below"]:
                text += f" (at {at(below)} it is significantly below 0)"
            text += "; it is largest "
        if not above or largest["n"] != above[0]["n"]:
            text += f"at n = {largest['n']}: {gap_text(largest)}"
        found.append(Finding("first_drop", f"{text}.", {"rows": tuple(mine), "largest": largest}))
    short = Finding("where", "; ".join(shorts), {"by_drop": tuple(all_rows)})
    return Answer(question, short, tuple(found))


def _place(rows: Sequence[Mapping], above: Sequence[Mapping], names: Sequence[str]) -> str:
    if above:
        first = above[0]
        tail = [r["n"] for r in rows if r["n"] >= first["n"]]
        if len(above) > 1 and tail == [r["n"] for r in above]:
            text = f"from n = {first['n']} on"
        else:
            text = f"at {at(above)}"
        return f"{text} ({names[first['n'] - 1]})" if first["n"] <= len(names) else text
    kinds = {r["verdict"] for r in rows}
    if "unclear" in kinds:
        return "inconclusive"
    if "untested" in kinds:
        return "not testable"
    return f"no drop of {margin_text(rows[0]['margin'])} or more at any n tested"


def does_it_help(rows) -> Answer:
    """Does having seen the other task help after fine-tuning?"""
    question = "Does a network that has seen the other task end up better after fine-tuning?"
    found: list[Finding] = []
    short = None
    words = told("better", "worse") | {"equivalent": "no difference of {margin} or more"}
    for key, against in (("boost_over_base", "the base"), ("boost_over_selffer", "BnB⁺")):
        mine = of_effect(rows, key)
        if all(r["value"] is None for r in mine):
            found.append(missing(key))
            continue
        whole = (r for r in rows if (r["effect"], r["direction"], r["n"]) == (key, "pooled", None))
        average = next((r for r in whole if r["value"] is not None), None)
        best = by_layer = verdicts(mine, words)
        if average:
            found.append(_average(average, against))
        if average and average["verdict"] != "untested":
            text = f"Layer by layer, against {against}: {by_layer.text}."
            found.append(Finding("verdicts", text, by_layer.facts))
            text = f"{phrase(average, WORDS | words)}, on average over layers {average['layers']}"
            best = Finding("average", text, {"row": average, "against": against, "words": words})
        found += [values(mine), *needed(mine)]
        short = best if key == "boost_over_base" else short
    return Answer(question, short, tuple(found)) if short else unanswerable(question, *found)


def _average(row: Mapping, against: str) -> Finding:
    text = f"Against {against}, layers {row['layers']} on average: {gap_text(row, 2)}"
    text += (
        f", {p_text(row['p_holm'])}" if row["p_holm"] is not None else ", one split seed: no test"
    )
    text += f" ({plural(row['pairs'], 'pair')}, {plural(row['seeds'], 'seed')})."
    return Finding("average", text, {"row": row, "against": against})


def overfitting(rows) -> Answer:
    """Would fine-tuning on so little data overfit? From the train-test gap and the test accuracy."""
    question = "Does fine-tuning the transferred layers overfit?"
    gap = of_effect(rows, "overfitting_transfer")
    if not gap or all(r["value"] is None for r in gap):
        text = "It needs AnB⁺ and AnB networks whose records hold their training accuracy."
        return unanswerable(question, Finding("no_training_accuracy", text, {"rows": tuple(gap)}))
    benefit = {r["n"]: r for r in pick(rows, "classroom_fine_tuning_benefit")}
    harm = "yes, and it costs test accuracy,"
    none = "a wider train–test gap, but no loss of test accuracy"
    unclear = "a wider train–test gap, with an inconclusive effect on test accuracy,"
    by_verdict = {"below": harm, "above": none, "equivalent": none}
    parts: dict[str, list[Mapping]] = {harm: [], none: [], unclear: []}
    for r in filter(significant, gap):
        parts[by_verdict.get(benefit.get(r["n"], {}).get("verdict", ""), unclear)].append(r)
    shorts = [f"{text} at {at(found)}" for text, found in parts.items() if found]
    rest = [r for r in gap if not significant(r) and r["value"] is not None]
    facts = {"rows": tuple(gap), "benefit": tuple(benefit.values())}
    if rest:
        words = {"below": "a narrower gap", "equivalent": "no wider gap by {margin} or more"}
        shorts.append(verdicts(rest, words, complete=len(rest) == len(gap)).text)
    both = [r for r in benefit.values() if r["n"] in {g["n"] for g in gap}]
    return Answer(
        question,
        Finding("overfitting", "; ".join(shorts), facts),
        (values(gap), values(both, "test accuracy, "), *needed(gap)),
    )


def answers(records: Sequence[Mapping], statistic: str, rows: Sequence[Mapping]) -> list[Answer]:
    """Answers all questions from the records of one split.

    Args:
      records: of one split.
      statistic: one of `tables.STATISTICS`.
      rows: those of `effects.all_rows`.
    """
    names = layer_names(records)
    recovered = {
        "above": "yes", "above_small": "yes, by less than {margin}", "below": "no, worse",
        "below_small": "no, worse by less than {margin}", "equivalent": "no difference of {margin} or more",
    }  # fmt: skip
    return [
        how_general(records, rows, statistic),
        how_sudden(records, statistic, names),
        where(rows, names),
        gap_answer("Does fine-tuning recover what cutting a network loses?", rows, "recovery", recovered),
        does_it_help(rows),
        tuned.with_tuning(
            gap_answer("Are features of the other task better than random ones?", rows, "gain_over_random", recovered), records
        ),
        overfitting(rows),
    ]  # fmt: skip


def notes(records: Sequence[Mapping], rows: Sequence[Mapping], statistic: str) -> list[Finding]:
    """Returns the notes above the answers: scope of inference, ceiling, bases at chance."""
    found = [scope(records, rows)]
    # The mean of a task at its ceiling and another at chance is at neither; random halves are alike.
    alike = all(r["split"] == "random" for r in records)
    for target in [""] if alike else sorted({r["target"] for r in records}):
        mine = [r for r in records if target in ("", r["target"])]
        found += _extremes(mine, target, statistic, rows[0]["margin"]) if rows else []
    return found


def _extremes(
    records: Sequence[Mapping], target: str, statistic: str, margin: float
) -> list[Finding]:
    """Notes on bases at the ceiling or at chance, of one target or of both ("")."""
    bases = [r for r in records if r["treatment"] == "base" and accuracy(r, statistic) is not None]
    if not bases:
        return []
    found = []
    level = sum(accuracy(r, statistic) or 0 for r in bases) / len(bases)
    which = f"bases with target {target}" if target else "bases"
    facts = {"bases": len(bases), "level": level, "room": 1 - level, "margin": margin, "target": target}  # fmt: skip
    if 1 - level <= max(margin, NEAR):
        text = (
            f"Ceiling: the {which} reach {per_cent(level)} % on average, so an average gain can be {points(1 - level)} at "
            "most, and layers that would differ on a harder task may look alike here."
        )
        found.append(Finding("ceiling", text, facts))
    chances = [1 / c for r in bases if (c := effects.class_count(r))]
    if chances and level - (chance := sum(chances) / len(chances)) <= max(margin, NEAR):
        text = (
            f"The {which} reach {per_cent(level)} % on average and chance is {per_cent(chance)} %: they learned next to "
            "nothing, so there is nothing to transfer."
        )
        found.append(Finding("floor", text, facts | {"chance": chance}))
    return found


def scope(records: Sequence[Mapping], rows: Sequence[Mapping]) -> Finding:
    """States in one sentence what the intervals of a split generalize to."""
    seeds = len({r["split_seed"] for r in records})
    pairs = effects.task_pairs(records)
    data = next(
        (dataset_name(str(r["dataset"])) for r in records if r.get("dataset")), "this data set"
    )
    scopes = {r["scope"] for r in rows}
    facts = {"seeds": seeds, "pairs": pairs, "scopes": tuple(scopes)}
    if seeds > 1 and "seeds" not in scopes and any(r["value"] is not None for r in rows):
        text = f"{seeds} split seeds, but no gap has pairs of networks from more than one of them"
        over_images = (
            ": tests are exact ones over test images (McNemar) and hold for these networks only."
        )
        text += over_images if "images" in scopes else "."
    elif seeds > 1 and pairs > 1:
        # Of halves made equal, each split seed draws anew which classes the larger one keeps.
        equal = any(r["split"].endswith(EQUAL) for r in records)
        others = (
            f"classes drawn from the larger half of {data}" if equal else f"random halves of {data}"
        )
        text = (
            f"{seeds} split seeds: intervals hold for other {others} and other initial values, given this network, "
            "recipe and test set."
        )
    elif seeds > 1:
        text = (
            f"One pair of tasks, trained {seeds} times: intervals hold for other initial values and orders of the "
            "images, not for other tasks."
        )
    elif "images" in facts["scopes"]:
        text = (
            "One split seed: intervals and tests are exact ones over test images (McNemar) and hold for these networks "
            "only; they say nothing about other tasks or other initial values."
        )
        images = {r["target"]: r.get("test_images") or 0 for r in records}
        if len(set(images.values())) > 1:
            most = max(images, key=lambda target: images[target])
            text += (
                f" Gaps are over the test images of both targets together, of which target {most} has more; mean accuracies "
                "count both targets alike."
            )
    else:
        text = "One split seed, and no pair of networks with results for each test image: neither intervals nor tests."
    return Finding("scope", text, facts)
