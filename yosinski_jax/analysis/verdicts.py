"""Verdicts on gaps in words: which holds at which n, with what values, and what would settle the others."""

from collections.abc import Mapping, Sequence

from yosinski_jax.analysis.effects import BY_KEY, within_margin
from yosinski_jax.analysis.statistics import MOST_SEEDS
from yosinski_jax.analysis.wording import (
    Answer,
    Finding,
    at,
    gap_text,
    margin_text,
    plural,
    symbol,
)

#: Words for the verdicts on a gap; questions bring their own.
WORDS = {
    "above": "above 0",
    "below": "below 0",
    "equivalent": "less than {margin} either way",
    "unclear": "inconclusive",
    "untested": "not testable",
    "none": "cannot be computed",
}


#: What a verdict over test images, not split seeds, holds for.
ON_IMAGES = " (for these networks only, tested over test images)"


def told(above: str, below: str) -> dict[str, str]:
    """Returns the words for a gap on either side of 0, with those for one smaller than the margin."""
    small = ", but by less than {margin}"
    return {
        "above": above,
        "above_small": above + small,
        "below": below,
        "below_small": below + small,
    }


def phrase(row: Mapping, words: Mapping[str, str]) -> str:
    """Returns the words for the verdict of one row."""
    verdict = row["verdict"]
    if verdict in ("above", "below") and within_margin(row) and f"{verdict}_small" in words:
        verdict += "_small"
    return words[verdict].format(margin=margin_text(row["margin"]))


def verdicts(
    rows: Sequence[Mapping], words: Mapping[str, str], *, complete: bool = True
) -> Finding:
    """Summarizes which verdict holds at which n: "general at n = 1; specific at n = 2 and 3".

    Args:
      rows: of one gap, at single layers.
      words: for verdicts, instead of those of `WORDS`.
      complete: whether no n of the study is missing among the rows; only then may the words be
        "at every n".
    """
    words = {**WORDS, **words}
    groups: dict[tuple[str, bool], list[Mapping]] = {}
    for row in sorted(rows, key=lambda r: r["verdict"] in ("unclear", "untested", "none")):
        groups.setdefault((phrase(row, words), row["scope"] == "images"), []).append(row)
    all_images = all(images for _, images in groups)
    parts = []
    for (what, images), found in groups.items():
        one = len(groups) == 1 and len(rows) > 1 and complete
        part = f"{what}{_seeds_short(found)} at {_every(found, what) if one else at(found)}"
        parts.append(part + (ON_IMAGES if images and not all_images else ""))
    text = "; ".join(parts) + (ON_IMAGES if all_images else "")
    return Finding("verdicts", text, {"rows": tuple(rows), "words": words})


def _every(rows: Sequence[Mapping], what: str) -> str:
    """How all n are named: "every n", or "any n" after words that deny something."""
    denied = rows[0]["verdict"] in ("untested", "none") or what.startswith("no ")
    return "any n" if denied else "every n"


def _seeds_short(rows: Sequence[Mapping]) -> str:
    """After "inconclusive": how many split seeds would settle it, or nothing."""
    if any(r["verdict"] != "unclear" or r["scope"] != "seeds" for r in rows):
        return ""
    counts = {r["needed"] for r in rows}
    known = counts - {None}
    if not known:
        text = f"more than {MOST_SEEDS}"
    elif len(known) < len(counts):
        text = f"{min(known)} or more"
    else:
        text = f"about {min(known)}" + (f" to {max(known)}" if len(known) > 1 else "")
    return f" with these seeds (would need {text})"


def values(rows: Sequence[Mapping], what: str = "") -> Finding:
    """Lists every value of a gap with its interval and number of pairs, after the words `what`."""
    known = [r for r in rows if r["value"] is not None]
    counts = {(r["pairs"], r["seeds"]) for r in known}
    text = f"{what}{BY_KEY[known[0]['effect']].formula}: "
    parts = []
    for r in known:
        part = f"{gap_text(r)} at n = {r['n']}"
        if len(counts) > 1:
            part += f" ({plural(r['pairs'], 'pair')}, {plural(r['seeds'], 'seed')})"
        parts.append(part)
    text += "; ".join(parts)
    if len(counts) == 1:
        pairs, seeds = counts.pop()
        text += f"; {plural(pairs, 'pair')} from {plural(seeds, 'split seed')}"
        text += " at each n" if len(known) > 1 else ""
    targets = {r["targets"] for r in known}
    if len(targets) == 1 and (target := targets.pop()) in ("A", "B"):
        text += f", all with target {target}"
    return Finding("values", f"{text}.", {"rows": tuple(known)})


def needed(rows: Sequence[Mapping]) -> list[Finding]:
    """States how many split seeds would settle an inconclusive test."""
    unclear = [r for r in rows if r["verdict"] == "unclear" and r["scope"] == "seeds"]
    if not unclear:
        return []
    parts = [
        f"{'about ' + str(r['needed']) if r['needed'] else f'more than {MOST_SEEDS}'} at n = {r['n']}"
        for r in unclear
    ]
    text = (
        f"Split seeds needed to show that the difference is not 0, or that it is within "
        f"±{margin_text(unclear[0]['margin'])}, if mean and spread stay as they are: {', '.join(parts)}."
    )
    return [Finding("needed", text, {"rows": tuple(unclear)})]


def missing(key: str) -> Finding:
    """States why a gap cannot be computed."""
    effect = BY_KEY[key]
    a, b = symbol(effect.minuend), symbol(effect.subtrahend)
    text = f"No {a} network has its {b} partner (same split seed, same target)."
    return Finding("missing", text, {"minuend": effect.minuend, "subtrahend": effect.subtrahend})


def unanswerable(question: str, *reasons: Finding) -> Answer:
    """Returns the answer to a question whose networks are missing."""
    return Answer(question, Finding("not_computable", "cannot be computed", {}), reasons, False)
