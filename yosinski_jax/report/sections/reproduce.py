"""How to run the study again, and how its numbers are made."""

from collections.abc import Mapping

from yosinski_jax.analysis.tables import STATISTIC_IN_WORDS
from yosinski_jax.analysis.wording import margin_text
from yosinski_jax.report.page import Part
from yosinski_jax.report.sections.report import Report


def reproduce(report: Report) -> Part:
    """Command, versions, devices, revision, seeds, time."""
    study = report.study
    environments: dict[str, set[str]] = {}
    for r in study.records:
        for name, value in (r.get("environment") or {}).items():
            environments.setdefault(name, set())
            environments[name] |= {_plain(value)} if value is not None else set()
    seconds = [r["seconds"] for r in study.records if r.get("seconds") is not None]
    rates = sorted(r["images_per_second"] for r in study.records if r.get("images_per_second"))
    command = study.settings.get("command") or (
        "python -m experiments.report --published" if study.folder is None else None
    )
    seeds = sorted({r["split_seed"] for r in (*study.records, *study.plan)})
    of = f" of {len(study.plan)}" if study.plan else ""
    facts = [
        ("split seeds", ", ".join(map(str, seeds))),
        ("networks", f"{len(study.records)}{of}"),
        (
            "wall time",
            seconds and f"{sum(seconds):,.1f} s in all groups, each since its last start",
        ),
        ("images/s", rates and f"{rates[len(rates) // 2]:,.0f} (median over networks)"),
        ("settings digest", ", ".join(sorted({str(r["settings_digest"]) for r in study.records}))),
        *((name, ", ".join(sorted(values))) for name, values in environments.items()),
    ]
    settings = [
        (name, _plain(value))
        for name, value in study.settings.items()
        if name not in ("command", "classes")
    ]
    values = {"command": command, "facts": [(k, v or None) for k, v in facts], "settings": settings}
    return Part("reproduce", "How to reproduce this", values)


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{k} = {_plain(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return str(value)


def method(report: Report) -> Part | None:
    """How the numbers are made, in words that can be checked against the code."""
    study = report.study
    margin = margin_text(study.margin)
    items = [
        ("Names", "base: all layers trained. BnB: the first n layers copied from the base of the "
         "same task and frozen. AnB: copied from the base of the other task. ⁺: copied layers are "
         "trained as well. RnB: the first n layers keep their random initial values, frozen."),
        ("Pairs", "A gap is the mean difference between networks of the same split seed and the "
         "same target, hence the same classes, test images and base. A network without its partner "
         "enters no gap; pairs, split seeds and targets are counted beside each."),
        ("Intervals", "Split seeds are the clusters, for the networks of a seed share bases, classes "
         "and test images. The standard error is the cluster-robust one (CR2, closed form), times "
         "Student’s t with Satterthwaite’s degrees of freedom; with equally many networks in each of "
         "k seeds this is the t interval of the k seed means, k − 1 degrees of freedom."),
        ("Tests", "Two-sided t tests from the same standard error, corrected by Holm’s method over "
         "the n of one gap (its averages over layers by themselves), level 0.05. The interval beside "
         "a test is taken at the level at which Holm’s procedure makes it, so it excludes 0 exactly "
         "where the verdict says so; its own coverage is 95 % or more."),
        ("Equivalence", f"“Less than {margin} either way” and “general” rest on two one-sided t tests "
         f"against ±{margin} (--margin), corrected by Holm’s method over n. Without them the lack of a "
         "difference is not claimed. The split seeds that would be needed assume that value and "
         "spread stay as they are."),
        ("One split seed", "Gaps are tested on the test images: McNemar’s exact test of the images "
         "that only one of the two networks gets right, with Clopper and Pearson’s interval for their "
         "share, given how many there are. That holds for these networks only."),
        ("Generality score", "(AnB − floor) / (BnB − floor) for the first n layers, means over the "
         "same pairs; the floor is RnB where the study has it, else chance. Not clipped. Undefined "
         "where BnB is less than 2 points, or not significantly, above the floor."),
        ("Largest-step share", "The steps of the drop from specificity from one n to the next; the "
         "share of the largest in the whole. The layer is picked on the other split seeds and "
         "measured in the one left out, so that picking does not flatter it."),
        ("Dissimilar tasks", "Mean and slope over n of the drop base − AnB. Man-made / natural is one "
         "pair of tasks; it is tested against the spread of the random halves (t test of one "
         "observation against a sample, Holm over the two)."),
        ("Statistic", f"The accuracy of a network is {STATISTIC_IN_WORDS[study.statistic]}."),
    ]  # fmt: skip
    return Part("method", "How the numbers are made", {"facts": items}) if study.records else None
