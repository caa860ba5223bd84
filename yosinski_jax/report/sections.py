"""The parts of the report page, each from a study to markup."""

from collections.abc import Iterable, Mapping, Sequence

from yosinski_jax.analysis import effects
from yosinski_jax.analysis import findings as words
from yosinski_jax.analysis.results import Study, direction_title, split_title
from yosinski_jax.analysis.statistics import LEVEL
from yosinski_jax.analysis.tables import (
    STATISTIC_IN_WORDS,
    networks_table,
    summary_table,
    table_cells,
    where,
)
from yosinski_jax.report.figures import Item, per_cent
from yosinski_jax.report.page import (
    Markup,
    definitions,
    details,
    element,
    inline_svg,
    join,
    section,
    sparkline,
    table,
)


def status(study: Study, running: bool) -> Markup:
    """What is missing, broken or diverged, before anything else is read."""
    notes: list[object] = []
    planned, done = len(study.plan), len(study.records)
    if running:
        notes.append(
            f"The sweep is running: {done} of {planned or '?'} networks are finished. "
            "This page renews itself every minute."
        )
    elif study.missing:
        notes.append(
            f"{len(study.missing)} of the {planned} planned networks are missing; the same command "
            "started again trains them. Everything below is from the others."
        )
    if study.diverged:
        names = ", ".join(where(r) for r in study.diverged[:6])
        more = f" and {len(study.diverged) - 6} more" if len(study.diverged) > 6 else ""
        notes.append(
            f"{len(study.diverged)} diverged ({names}{more}): counted in the tables, crosses in "
            "the figures, in no mean."
        )
    if study.damaged:
        notes.append(
            join(
                [
                    f"{len(study.damaged)} records could not be used and are left out:",
                    element("ul", *(element("li", line) for line in study.damaged)),
                ]
            )
        )
    if not study.records:
        notes.append("No network has finished, so there is nothing to compute yet.")
    targets = {r["target"] for r in study.records}
    if study.records and study.folder and len(targets) == 1:
        only = next(iter(targets))
        notes.append(f"Only networks with target {only} are here: no pooled result holds both.")
    if not notes:
        return Markup("")
    return element("div", *(element("p", n) for n in notes), class_="notice", role="status")


def figure(item: Item, number: int, svg: str) -> Markup:
    """A figure with caption, text alternative and the table behind it."""
    return element(
        "figure",
        inline_svg(svg, f"f{number}", item.title, item.alternative),
        element("figcaption", element("strong", item.title), " ", item.caption),
        details("The numbers", table(item.headings, item.rows, label=f"Numbers: {item.title}")),
        id=item.name,
    )


def figures(items: Sequence[Item], svgs: Sequence[str], reasons: Sequence[str]) -> Markup:
    """All figures, given as SVG text, and why some are absent."""
    body = [figure(item, i, svg) for i, (item, svg) in enumerate(zip(items, svgs, strict=True))]
    absent = (
        element("p", "Not drawn: " + "; ".join(reasons) + ".", class_="lead") if reasons else ""
    )
    return section("figures", "Figures", element("div", *body, class_="figures"), absent)


def _effect_table(rows: Sequence[Mapping], caption: str) -> Markup:
    cells: list[list] = []
    classes: list[str | None] = []
    absent: set[str] = set()
    before = None
    for r in rows:
        if r["effect"] != before:
            effect = next(e for e in effects.ALL_EFFECTS if e.key == r["effect"])
            formula = f"{effect.minuend} − {effect.subtrahend}".replace("+", "⁺")
            cells.append([join([element("strong", r["label"]), f", {formula}"])])
            classes.append("group")
            before = r["effect"]
            if all(o["value"] is None for o in rows if o["effect"] == before):
                cells[-1] = [join([*cells[-1], ": not computable, no network has its partner"])]
                absent.add(before)
        if before in absent:
            continue
        known = r["value"] is not None
        p = r["p_holm"]
        cells.append(
            [
                r["layers"],
                words.points(r["value"], 2).split(" ")[0] if known else "–",
                words.interval(r, 2).strip() if known else "",
                "" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001",
                f"{r['pairs']} / {r['seeds']}",
                words.verdict(r),
            ]
        )
        classes.append("sure" if p is not None and p < LEVEL else None)
    return table(
        ["n", "points", "95 % interval", "p", "pairs / seeds", "verdict"],
        cells,
        caption=caption,
        label=caption,
        left=(0, 5),
        classes=classes,
    )


def _effects_of(rows: Iterable[Mapping], direction: str, chosen) -> list[Mapping]:
    keys = {e.key for e in chosen}
    return [r for r in rows if r["direction"] == direction and r["effect"] in keys]


def tables(study: Study, rows: Mapping[str, Sequence[Mapping]]) -> Markup:
    """Means, gaps pooled and by direction, classroom measures, generality."""
    parts: list[object] = []
    for split in [*study.splits, "all"]:
        mine = study.of(split)
        if not mine:
            continue
        parts.append(element("h3", f"Accuracy, {split_title(split)}"))
        heading, *body = table_cells(summary_table(mine, study.statistic), 2)
        parts.append(
            table(
                heading,
                body,
                caption="Top-1 accuracy in per cent: mean ± standard error over networks (number "
                "of networks).",
                label=f"Accuracy, {split_title(split)}",
            )
        )
        if split == "all":
            continue
        parts.append(element("h3", f"Gaps between treatments, {split_title(split)}"))
        parts.append(
            _effect_table(
                _effects_of(rows[split], "pooled", effects.EFFECTS),
                "Both directions pooled. Bold: significant after Holm’s correction over the n of "
                "a gap, and over its averages.",
            )
        )
        for target in sorted({r["direction"] for r in rows[split]} - {"pooled"}):
            title = direction_title(split, target)
            parts.append(
                details(
                    f"The same for {title}",
                    _effect_table(
                        _effects_of(rows[split], target, effects.EFFECTS), f"Gaps, {title}"
                    ),
                )
            )
        parts.append(
            details(
                "The measures of the classroom replication",
                element(
                    "p",
                    "Its co-adaptation gap is base − BnB⁺; the paper reads base − BnB, above.",
                ),
                _effect_table(
                    _effects_of(rows[split], "pooled", effects.CLASSROOM), "Classroom measures"
                ),
            )
        )
        parts.append(_generality_table(study, split))
    return section("tables", "Tables", *parts)


def _generality_table(study: Study, split: str) -> Markup:
    mine = study.of(split)
    by_floor = [effects.generality(mine, f, study.statistic) for f in ("random", "chance")]
    rows = []
    for scores in zip(*by_floor, strict=True):
        row = [scores[0].n]
        for g in scores:
            if g.estimate is None or g.score is None:
                row += ["–", g.reason]
                continue
            e = g.estimate
            known = e.low is not None and e.high is not None
            ends = f"[{e.low:.3f}, {e.high:.3f}]".replace("-", "−") if known else "no interval"
            row += [f"{g.score:.3f}", ends]
        rows.append(row)
    if not rows:
        return Markup("")
    return table(
        ["n", "over random features", "interval", "over chance", "interval"],
        rows,
        caption="Generality score of the first n layers: (AnB − floor) / (BnB − floor), 1 for "
        "features as good as the task’s own. The floor is RnB or chance.",
        label="Generality score",
        left=(2, 4),
    )


def compare_table(title: str, rows: Sequence[Mapping]) -> Markup:
    """Differences to another study."""
    cells = [
        [
            f"{r['treatment']}, n = {r['n']}" if r["n"] else r["treatment"],
            per_cent(r["ours"], 2),
            per_cent(r["theirs"], 2),
            words.points(r["value"], 2).split(" ")[0],
            words.interval(r, 2).strip() or "none",
            "–" if r["drop_ours"] is None else words.points(r["drop_ours"], 2).split(" ")[0],
            "–" if r["drop_theirs"] is None else words.points(r["drop_theirs"], 2).split(" ")[0],
        ]
        for r in rows
    ]
    kind = (
        "paired by split seed and target: both have the same tasks"
        if any(r["pairs"] for r in rows)
        else "not paired: the tasks differ (Welch’s interval over split seeds)"
    )
    return table(
        ["networks", "here (%)", "there (%)", "difference", "95 % interval", "here − base",
         "there − base"],
        cells,
        caption=f"Against {title}; {kind}.",
        label=f"Against {title}",
    )  # fmt: skip


def networks(study: Study) -> Markup:
    """Every network, finished or not, with its curve."""
    by_address = {where(r): r for r in study.records}
    rows, classes = [], []
    for r in networks_table(study.records, study.plan):
        record = by_address.get(where(r), {})
        curve = [v for v in record.get("curve", {}).get("accuracy", []) if v is not None]
        about = f"{r['name']}: {len(curve)} evaluations"
        if curve:
            about += f", from {100 * curve[0]:.1f} % to {100 * curve[-1]:.1f} %"
        state = r["status"]
        if state == "diverged":
            state = record.get("cause") or f"diverged at step {r['diverged_at_step']}"
        rows.append(
            [
                where(r),
                r["treatment"],
                r["n"],
                r["source"] or "–",
                r["target"],
                *(
                    per_cent(r[f], 2)
                    for f in ("accuracy", "accuracy_best", "accuracy_mean_of_ten_best")
                ),
                sparkline(curve, about),
                state,
                r["steps"],
                None if r["seconds"] is None else f"{r['seconds']:.1f}",
                None if r["images_per_second"] is None else f"{r['images_per_second']:,.0f}",
                r["parameters_trained"],
                r["parameters_frozen"],
                r["train_images"],
                r["test_images"],
            ]
        )
        classes.append("bad" if r["status"] != "finished" else None)
    grid = table(
        ["network", "treatment", "n", "from", "on", "last (%)", "best (%)", "ten best (%)",
         "curve", "status", "steps", "seconds", "images/s", "trained", "frozen", "train images",
         "test images"],
        rows,
        caption="Best and mean of ten best are chosen on the test images themselves. Trained and "
        "frozen count parameters; seconds are a network’s share of its group’s time.",
        label="Every network",
        left=(0, 1, 9),
        classes=classes,
    )  # fmt: skip
    return section("networks", "Every network", details(f"{len(rows)} networks", grid))


def reproduce(study: Study) -> Markup:
    """Command, versions, devices, revision, seeds, time."""
    records = study.records
    environments: dict[str, list] = {}
    for r in records:
        for name, value in (r.get("environment") or {}).items():
            if study.folder is not None or name != "log":
                environments.setdefault(name, []).append(value)
    seconds = [r["seconds"] for r in records if r.get("seconds") is not None]
    rates = sorted(r["images_per_second"] for r in records if r.get("images_per_second"))
    middle = f"{rates[len(rates) // 2]:,.0f} (median over networks)" if rates else None
    command = study.settings.get("command") or (
        "python -m experiments.report --published" if study.folder is None else None
    )
    seeds = sorted({r["split_seed"] for r in (*records, *study.plan)})
    settings = [
        (name, _plain(value))
        for name, value in study.settings.items()
        if name not in ("command", "classes")
    ]
    digests = sorted({str(r["settings_digest"]) for r in records})
    return section(
        "reproduce",
        "How to reproduce this",
        element("pre", command) if command else "",
        definitions(
            [
                ("split seeds", ", ".join(map(str, seeds))),
                ("networks", f"{len(records)}" + (f" of {len(study.plan)}" if study.plan else "")),
                (
                    "wall time",
                    f"{sum(seconds):,.1f} s in all groups, each since its last start"
                    if seconds
                    else None,
                ),
                ("images/s", middle),
                ("settings digest", ", ".join(digests)),
                *(
                    (name, ", ".join(sorted({_plain(v) for v in values if v is not None})))
                    for name, values in environments.items()
                ),
            ]
        ),
        details("Settings", definitions(settings)) if settings else "",
    )


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{k} = {_plain(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return str(value)


def method(study: Study) -> Markup:
    """How the numbers are made, in words that can be checked against the code."""
    items = [
        ("Names", "base: all layers trained. BnB: the first n layers copied from the base of the "
         "same task and frozen. AnB: copied from the base of the other task. ⁺: copied layers are "
         "trained as well. RnB: the first n layers keep their random initial values, frozen."),
        ("Pairs", "A gap is the mean difference between networks of the same split seed and the "
         "same target, hence the same classes, test images and base. A network without partner "
         "enters no gap."),
        ("Intervals", "Hierarchical bootstrap: split seeds are drawn with replacement and bring "
         "all their networks along, for the networks of a seed share bases and classes. Its "
         "standard error, enlarged by √(k/(k−1)), times Student’s t with k − 1 degrees of freedom "
         "for k seeds. One seed gives no interval."),
        ("Tests", "Two-sided t tests from the same standard error, corrected by Holm’s method over "
         "the n of one gap (its averages over layers by themselves), level 0.05."),
        ("Generality score", "(AnB − floor) / (BnB − floor) for the first n layers, means over the "
         "same pairs, cut to 0 … 1 for display; undefined where BnB is less than 2 points, or not "
         "significantly, above the floor."),
        ("Largest-step share", "The steps of the drop from specificity from one n to the next; the "
         "share of the largest in the whole. The layer is picked on the other split seeds and "
         "measured in the one left out, so that picking does not flatter it."),
        ("Statistic", f"{STATISTIC_IN_WORDS[study.statistic]}."),
    ]  # fmt: skip
    return section("method", "How the numbers are made", definitions(items))
