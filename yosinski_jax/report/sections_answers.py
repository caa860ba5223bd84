"""The answers at the top of the report page, and what the published logs say of Table 1."""

import re
from collections.abc import Mapping, Sequence

from yosinski_jax.analysis import effects, published
from yosinski_jax.analysis import findings as words
from yosinski_jax.analysis.results import Study, split_title
from yosinski_jax.analysis.tables import STATISTIC_IN_WORDS
from yosinski_jax.report.figures import per_cent
from yosinski_jax.report.page import Markup, details, element, join, section, table


def answer_cards(study: Study, split: str, rows: Sequence[Mapping]) -> list[Markup]:
    """The paper's questions answered for one split; those that lack networks in one list."""
    found = words.answers(study.of(split), study.statistic, rows)
    cards = [_card(a) for a in found if a.short != words.NOT_COMPUTABLE]
    parts = [element("div", *cards, class_="answers")] if cards else []
    absent = [a for a in found if a.short == words.NOT_COMPUTABLE]
    if absent:
        listed = [element("li", a.question, " ", _sentence(" ".join(a.sentences))) for a in absent]
        parts.append(
            details(
                f"{len(absent)} question{'s' * (len(absent) > 1)} not answerable with these "
                f"networks ({split_title(split)})",
                element("ul", *listed),
            )
        )
    return parts


def _card(answer: words.Answer) -> Markup:
    return element(
        "div",
        element("h3", answer.question),
        element("p", _tied(answer.short), class_="short"),
        *(element("p", _sentence(s)) for s in answer.sentences),
        class_="answer",
    )


def _sentence(text: str) -> str:
    return _tied(text[:1].upper() + text[1:])


def _tied(text: str) -> str:
    """Keeps "n = 3", "p = 0.02" and "[0.1, 0.2]" on one line."""
    for loose in (" = ", " < "):
        text = text.replace(loose, loose.replace(" ", "\u00a0"))
    return re.sub(r"\[([^\[\], ]+), ([^\[\], ]+)\]", "[\\1,\u00a0\\2]", text)


def answers(study: Study, rows: Mapping[str, Sequence[Mapping]]) -> Markup:
    """The answers of every split."""
    parts: list[object] = [
        element(
            "p",
            f"Reported for each network: {STATISTIC_IN_WORDS[study.statistic]}. Brackets are "
            "95 % intervals over split seeds, p values are corrected by Holm’s method, 1 point is "
            "one hundredth of the test images.",
            class_="lead",
        )
    ]
    for split in study.splits:
        if len(study.splits) > 1:
            parts.append(element("h3", _sentence(split_title(split))))
        if any(r["seeds"] for r in rows[split]) and max(r["seeds"] for r in rows[split]) < 2:
            more = (
                "Run more seeds to know what of this is more than chance." if study.folder else ""
            )
            parts.append(
                element(
                    "p",
                    f"One split seed: no interval and no test can be given, and none is. {more}",
                    class_="notice",
                )
            )
        parts += answer_cards(study, split, rows[split])
    parts += similarity(study, rows)
    if study.folder is None:
        parts.append(table_1(study))
    return section("answers", "Answers", *parts)


def similarity(study: Study, rows: Mapping[str, Sequence[Mapping]]) -> list[Markup]:
    """What transfer costs between similar and dissimilar tasks, where the study has both."""
    if not {"random", "manmade_natural"} <= set(study.splits):
        return []
    near, far = (
        {r["n"]: r for r in effects.pick(rows[s], "total_drop") if r["value"] is not None}
        for s in ("random", "manmade_natural")
    )
    both = sorted(near.keys() & far.keys())
    if not both:
        return []
    a, b = near[both[-1]], far[both[-1]]
    text = (
        f"At n = {both[-1]} frozen features of the other task cost {words.points(b['value'])}"
        f"{words.interval(b)} between man-made and natural classes and "
        f"{words.points(a['value'])}{words.interval(a)} between random halves, against the base."
    )
    if len(both) > 1:
        c, d = near[both[0]], far[both[0]]
        text += (
            f" At n = {both[0]} the two are {words.points(d['value'])}{words.interval(d)} and "
            f"{words.points(c['value'])}{words.interval(c)}."
        )
    if b["low"] is None or a["low"] is None:
        text += " One of the splits exists once, so no test compares them."
        short = f"{'more' if b['value'] > a['value'] else 'not more'} is lost here; not testable"
    else:
        apart = b["low"] > a["high"] or a["low"] > b["high"]
        more = "more" if b["value"] > a["value"] else "less"
        short = f"{more} is lost" if apart else "not distinguishable"
        text += " The intervals are those of each split by itself."
    answer = words.Answer("Do dissimilar tasks transfer worse?", short, (text,))
    return [element("div", _card(answer), class_="answers")]


def table_1(study: Study) -> Markup:
    """The paper's Table 1 beside what the logs give."""
    rows = [
        [
            r["layers"],
            per_cent(r["paper"]),
            per_cent(r["means"], 2),
            per_cent(r["paired"], 2),
            r["logs"],
        ]
        for r in published.table_1(study.records, study.statistic)
    ]
    return join(
        [
            element("h3", "The paper’s Table 1: boost of AnB⁺ over the base"),
            table(
                ["layers", "paper (points)", "means, as the paper", "paired", "logs of AnB⁺"],
                rows,
                label="Table 1 of the paper",
            ),
            element(
                "p",
                "Logs of AnB⁺ exist for target B of split 0 (every n) and of split 1 (n = 2, 3, 4) "
                "only. Subtracting the mean of all eight bases gives the paper’s figures; but half "
                "B of split 0 is easier than the average half, and against the bases of the very "
                "same halves the boost is about one point.",
            ),
        ]
    )
