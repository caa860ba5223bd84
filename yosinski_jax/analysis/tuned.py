"""Random features at their best learning rate: what was tried, what was chosen, what that gained."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from yosinski_jax.analysis.wording import Answer, Finding, listing, per_cent, plural, symbol


def chosen(records: Sequence[Mapping], treatment: str = "RnB") -> list[dict]:
    """What tuning gained, by n.

    Args:
      records: of one split.
      treatment: whose.

    Returns:
      For each n whose networks chose among rates: "n", "networks", "accuracy" (mean on the test images at
      the rates chosen), "at" (the same at each one rate for all, by rate; of rates at which all of them
      trained to the end), "counts" (how often each rate was chosen).
    """
    by_n: dict[int, list[Mapping]] = {}
    for r in records:
        if r["treatment"] == treatment and r["status"] == "finished" and r.get("tried"):
            by_n.setdefault(r["n"], []).append(r)
    rows = []
    for n, mine in sorted(by_n.items()):
        at: dict[float, list[float]] = {}
        for r in mine:
            tried = zip(r["tried"]["learning_rate"], r["tried"]["accuracy"], strict=True)
            for rate, value in tried:
                at.setdefault(rate, []).extend([] if value is None else [value])
        rows.append(
            {
                "n": n,
                "networks": len(mine),
                "accuracy": sum(r["accuracy"] for r in mine) / len(mine),
                "at": {rate: sum(v) / len(v) for rate, v in at.items() if len(v) == len(mine)},
                "counts": Counter(r["learning_rate"] for r in mine),
            }
        )
    return rows


def finding(records: Sequence[Mapping]) -> Finding | None:
    """How the rates of random features were chosen, and their accuracy by n; None if they were not."""
    rows = chosen(records)
    if not rows:
        return None
    counts: Counter[float] = sum((row["counts"] for row in rows), Counter())
    picked = [f"{rate:g} for {plural(count, 'network')}" for rate, count in sorted(counts.items())]
    by_n = []
    for row in rows:
        fixed = [f"{per_cent(mean)} % at {rate:g}" for rate, mean in sorted(row["at"].items())]
        against = f" ({', '.join(fixed)} for all)" if fixed else ""
        by_n.append(f"{per_cent(row['accuracy'])} %{against} at n = {row['n']}")
    transferred = [r for r in records if r["treatment"] == "AnB"]
    tuned = any(r.get("tried") for r in transferred)
    how = "had theirs chosen in the same way" if tuned else "all took the recipe’s rate"
    against = f" {symbol('AnB')} networks {how}." if transferred else ""
    text = (
        f"The learning rate of each {symbol('RnB')} network was chosen by its accuracy on held-out training images: "
        f"{listing(picked)}. Mean test accuracy of {symbol('RnB')}: {'; '.join(by_n)}.{against}"
    )
    return Finding("tuning", text, {"rows": tuple(rows), "counts": counts})


def with_tuning(answer: Answer, records: Sequence[Mapping]) -> Answer:
    """An answer about random features, with how their rate was chosen if it was."""
    found = finding(records)
    if found is None:
        return answer
    question = f"{answer.question.removesuffix('?')}, whose learning rate is tuned?"
    return dataclasses.replace(answer, question=question, findings=(*answer.findings, found))
