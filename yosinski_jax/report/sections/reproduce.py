"""How to run the study again, and how its numbers are computed."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from yosinski_jax.analysis import sequential
from yosinski_jax.analysis.effects import task_pairs
from yosinski_jax.analysis.results import Study
from yosinski_jax.analysis.tables import STATISTIC_IN_WORDS
from yosinski_jax.analysis.wording import margin_text
from yosinski_jax.base.files import Damaged
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
            seconds and f"{sum(seconds):,.1f} s over all groups, each since its last start",
        ),
        ("images/s", rates and f"{rates[len(rates) // 2]:,.0f} (median over networks)"),
        ("settings digest", ", ".join(sorted({str(r["settings_digest"]) for r in study.records}))),
        *((name, ", ".join(sorted(values))) for name, values in environments.items()),
    ]
    settings = [
        (name.replace("_", " "), _shown(value))
        for name, value in study.settings.items()
        if name not in ("command", "classes", "digest")
    ]
    values = {"command": command, "facts": [(k, v or None) for k, v in facts], "settings": settings}
    return Part("reproduce", "Reproducing this study", values)


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{k} = {_plain(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return "none" if value is None else str(value)


def _shown(value: object) -> object:
    """A setting as the page prints it: nested values on lines of their own."""
    if isinstance(value, Mapping) and value:
        return Markup("<pre>{}</pre>").format("\n".join(_lines(value)))
    return _plain(value)


def _lines(values: Mapping, indent: str = "") -> list[str]:
    lines = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        else:
            text = _plain(value).replace("\n", f"\n{indent}  ")
            lines.append(f"{indent}{name}: {text}")
    return lines


def method(report: Report) -> Part | None:
    """How the numbers are computed, in words that can be checked against the code."""
    study = report.study
    margin = margin_text(study.margin)
    items = [
        ("Names", "base: every layer is trained. BnB: the first n layers are copied from the base of the same task "
         "and frozen. AnB: they are copied from the base of the other task. ⁺: the copied layers are fine-tuned. RnB: "
         "the first n layers are frozen at their random initial values."),
        ("Pairs", "A gap is the mean difference between networks with the same split seed and the same target, and "
         "thus the same classes, test images and base. Networks without a partner are left out. The numbers of pairs, "
         "split seeds and targets are given for each gap."),
        ("Intervals", "Networks of one split seed share bases, classes and test images, so split seeds are the "
         "clusters. Standard errors are cluster-robust (CR2, in closed form) with Student’s t and Satterthwaite’s "
         "degrees of freedom. For a balanced design with k seeds this is the t interval of the k seed means with k − 1 "
         f"degrees of freedom.{_repeated(study)}"),
        ("Tests", "Two-sided t tests with the same standard errors at level 0.05, Holm-corrected over all n of a gap; "
         "averages over layers are a family of their own. An interval next to a test has the level at which Holm’s "
         "procedure runs that test, so it excludes 0 exactly where the test is significant; its coverage is at least "
         "95 %."),
        ("Equivalence", f"“Less than {margin} either way”, “general” and “no difference” rest on two one-sided t tests "
         f"against ±{margin} (--margin), Holm-corrected over n. One-sided tests at level 0.05 correspond to a 90 % interval, so "
         f"the printed one may reach a little beyond ±{margin}. A difference that is not significant is never taken "
         "for equality. The number of split seeds that would settle a question assumes that mean and spread stay as "
         "they are."),
        ("One split seed", "Gaps are tested over the test images: McNemar’s exact test on the images that only one of "
         "the two networks classifies correctly; the interval combines the Clopper–Pearson intervals of their rate and of "
         "the share that favors the first network. The images of both targets count alike, so where one half has more of "
         "them the gap is not the mean of the two directions. The result holds for these networks only."),
        ("Generality score", "(AnB − floor) / (BnB − floor) for the first n layers, each a mean over the same pairs. "
         "The floor is RnB where the study has it, otherwise chance. The score is not clipped, and is undefined where "
         "BnB is less than 2 points, or not significantly, above the floor."),
        ("Largest-step share", "The share of the largest step of the drop from specificity, from one n to the next, in "
         "the whole drop. The layer is chosen on the other split seeds and its step is measured on the held-out seed, "
         "which avoids selection bias."),
        ("Dissimilar tasks", "Mean over n and slope in n of the drop base − AnB. Man-made / natural is a single pair "
         "of tasks, so it is tested against the spread of the random halves (t test of one observation against a "
         "sample, Holm-corrected over the two)."),
        ("Accuracy", f"Reported for each network: {STATISTIC_IN_WORDS[study.statistic]}."),
    ]  # fmt: skip
    if not {"random", "manmade_natural"} <= set(study.splits):
        items = [item for item in items if item[0] != "Dissimilar tasks"]
    items += [("Validation", line) for line in _validation(study.records)]
    items += [("Split seeds", line) for line in _added_seeds(study)]
    return Part("method", "Methods", {"facts": items}) if study.records else None


def _repeated(study: Study) -> str:
    """What split seeds share where they train one pair of tasks again, if they do."""
    found = [study.of(split) for split in study.splits]
    if not any(task_pairs(r) == 1 < len({one["split_seed"] for one in r}) for r in found):
        return ""
    return (
        " Where all seeds train one pair of tasks, they share classes and test images as well, and intervals hold for "
        "that pair."
    )


def _validation(records: Sequence[Mapping]) -> list[str]:
    """What was held out of training, and the choices made on it."""
    sizes = sorted({r["validation_images"] for r in records if r.get("validation_images")})
    if not sizes:
        return []
    span = f"{sizes[0]:,}" + (f" to {sizes[-1]:,}" if len(sizes) > 1 else "")
    lines = [
        f"{span} training images of each task are held out, drawn by split seed; no network is trained on them."
    ]
    stopping = [r for r in records if r.get("chosen_step") is not None]
    early = sum(r.get("stopped_at_step") is not None for r in stopping)
    if stopping:
        lines.append(
            f"Each network goes back to its first evaluation with the best accuracy on them, and {early} of "
            f"{len(stopping)} stopped before the end of their training: “the last evaluation” means that one. Test "
            "images are never used to choose."
        )
    if any(r.get("tried") for r in records):
        lines.append(
            "Where a learning rate was chosen, the network with the best accuracy on them is the one recorded; it is not "
            "retrained on all images."
        )
    return [" ".join(lines)]


def _added_seeds(study: Study) -> list[str]:
    """The outcome of the stopping rule for the number of split seeds, if one was used."""
    try:
        found = sequential.read(study.folder) if study.folder else None
    except Damaged as e:
        return [f"{e}; run the sweep again to rewrite it."]
    if found is None:
        return []
    more = len({r["split_seed"] for r in study.records}) - found.seeds
    later = f" {more} more were added by hand afterwards." if more > 0 else ""
    return [
        f"Added one at a time by a stopping rule (alpha spending, Lan and DeMets). {found.in_words()}{later} All other tests on "
        "this page take the number of split seeds as fixed; after a stopping rule their levels are approximate."
    ]
