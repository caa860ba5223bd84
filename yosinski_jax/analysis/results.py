"""The input of a report: the validated records of one workdir or of the published study."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from yosinski_jax.analysis import published
from yosinski_jax.analysis.series import layer_names
from yosinski_jax.analysis.statistics import MARGIN
from yosinski_jax.analysis.tables import check_records, check_statistic, missing, order_kinds
from yosinski_jax.analysis.wording import dataset_name
from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import Damaged, as_path, read_sealed, reading
from yosinski_jax.study.pairs import EQUAL
from yosinski_jax.study.records import read_all
from yosinski_jax.study.splits import FROM
from yosinski_jax.study.treatments import HALVES, other

SPLITS = {
    "random": "random halves",
    "manmade_natural": "man-made / natural",
    f"manmade_natural{EQUAL}": "man-made / natural, equally many classes",
    "all": "all classes",
    "paper": "the paper's splits",
}
#: Splits whose task A is natural and whose task B is man-made.
_KINDS = ("manmade_natural", f"manmade_natural{EQUAL}")


@dataclasses.dataclass(frozen=True)
class Study:
    """The records, plan and settings of one study.

    Attributes:
      label: short name for legends, such as "digits" or "published".
      title: what the page is about.
      records: the sound ones.
      plan: every network of the sweep, finished or not.
      settings: those of settings.json.
      damaged: one line for each record that could not be used.
      statistic: one of `analysis.STATISTICS`.
      folder: the workdir; None for the published study.
      margin: differences of accuracy smaller than this count as equivalence, 0..1.
    """

    label: str
    title: str
    records: tuple[dict, ...]
    plan: tuple[dict, ...]
    settings: dict
    damaged: tuple[str, ...]
    statistic: str
    folder: Path | None
    margin: float = MARGIN

    @property
    def missing(self) -> list[Mapping]:
        """Networks of the plan without a sound record."""
        return missing(self.records, self.plan)

    @property
    def diverged(self) -> list[dict]:
        """Networks that diverged."""
        return [r for r in self.records if r["status"] == "diverged"]

    @property
    def splits(self) -> list[str]:
        """The splits into tasks A and B among the records and the plan, the random one first."""
        names = {r["split"] for r in (*self.records, *self.plan)} - {"all"}
        return sorted(names, key=lambda s: (s != "random", s))

    @property
    def first(self) -> str:
        """The split reported first; "all" if there is none into A and B."""
        return (self.splits or ["all"])[0]

    def of(self, split: str) -> list[dict]:
        """The records of one split; of "all", only those with the most training images."""
        return most_images([r for r in self.records if r["split"] == split])

    def continues(self, other: "Study") -> bool:
        """Whether it has the same data and network as another study, so that amounts of data of both make one series."""
        networks = ({r.get("network") for r in study.records} for study in (self, other))
        return self.label == other.label and next(networks) == next(networks)

    @property
    def kinds(self) -> list[str]:
        """The treatments of the records and the plan."""
        return order_kinds(r["treatment"] for r in (*self.records, *self.plan))


def most_images(records: Sequence[dict]) -> list[dict]:
    """Returns the networks on the most training images, of those on different amounts of data."""
    amounts = [r.get("images_per_class") or math.inf for r in records]
    most = max(amounts, default=None)
    return [r for r, n in zip(records, amounts, strict=True) if n == most]


def split_title(split: str) -> str:
    """Returns the name of a split in words."""
    if split.startswith(FROM):
        return f"base on {dataset_name(split.removeprefix(FROM))}"
    return SPLITS.get(split, split)


def direction_title(split: str, target: str) -> str:
    """Returns the networks with one target in words."""
    if target not in HALVES:
        return "all classes"
    if split in _KINDS or split.startswith(FROM):
        return f"{task_title(split, other(target))} → {task_title(split, target)}"
    return f"target {target} (from {other(target)})"


def task_title(split: str, target: str) -> str:
    """Returns task A or B of a split in words."""
    if split in _KINDS:
        return "natural" if target == "A" else "man-made"
    if split.startswith(FROM):
        return "target" if target == "B" else dataset_name(split.removeprefix(FROM))
    return f"target {target}"


def read(workdir: Path | str, statistic: str = "last", argument: str = "workdir") -> Study:
    """Reads a workdir; `argument` is the one that named it, for errors.

    Raises:
      UserError: it is missing, is no folder, holds nothing of a sweep, or mixes settings.
    """
    workdir = as_path(workdir, argument)
    check_statistic(statistic)
    with reading(workdir, argument):
        there = workdir.is_dir()
    if not there:
        state = "is a file" if workdir.exists() else "does not exist"
        raise UserError(
            f"{argument}={workdir}: {state}; expected the folder of a sweep: give the one that "
            "python -m experiments.sweep wrote, or run that first"
        )
    found, damaged = read_all(workdir)
    plan = _plan(workdir)
    try:
        settings = read_sealed(workdir / "settings.json")
    except FileNotFoundError:
        settings = {}
    except Damaged as e:
        settings, _ = {}, damaged.append(str(e))
    if not found and not damaged and not plan:
        raise UserError(
            f"{argument}={workdir}: holds no records and no plan.json, so there is nothing to report; "
            "give the folder of a sweep"
        )
    sound = [dict(record) for record in found]
    try:
        check_records(sound)
    except UserError as e:
        raise UserError(f"{argument}={workdir}: {e}") from e
    dataset = str(settings.get("dataset") or next((r.get("dataset") for r in sound), "") or workdir)
    names = {r["split"] for r in (*sound, *plan)}
    split = next(iter(names), "") if len(names) < 2 else str(settings.get("split") or "")
    label = dataset_name(Path(dataset).name)
    return Study(
        label=label,
        title=f"{label}, {split_title(split)}",
        records=tuple(sound),
        plan=tuple(plan),
        settings=settings,
        damaged=tuple(damaged),
        statistic=statistic,
        folder=workdir,
    )


def _plan(workdir: Path) -> list[dict]:
    path = workdir / "plan.json"
    advice = "start the sweep again in this folder, or remove it"
    try:
        networks = read_sealed(path).get("networks")
    except FileNotFoundError:
        return []
    except Damaged as e:
        raise UserError(f"{e}; {advice}") from e
    wanted = {"name": str, "treatment": str, "n": int, "split": str, "split_seed": int}
    if not isinstance(networks, list) or not all(
        isinstance(p, dict) and all(isinstance(p.get(k), t) for k, t in wanted.items())
        for p in networks
    ):
        raise UserError(f"{path}: not the plan of a sweep; {advice}")
    return networks


def read_published(statistic: str = published.STATISTIC) -> Study:
    """The published study, by default with the paper's statistic."""
    return Study(
        label="published",
        title="the published study (ImageNet, CaffeNet)",
        records=tuple(published.records()),
        plan=(),
        settings={"dataset": "imagenet2012", "network": "caffenet", "source": published.SOURCE},
        damaged=(),
        statistic=check_statistic(statistic),
        folder=None,
    )


def check_comparable(ours: Study, theirs: Study, argument: str) -> None:
    """Checks that two studies can be compared layer by layer.

    Raises:
      UserError: the networks have different layers, or one of the studies has no record.
    """
    depth = [layer_names(s.records) for s in (ours, theirs)]
    if not all(depth):
        empty = ours if not depth[0] else theirs
        raise UserError(f"{argument}: {empty.title} has no finished network to compare")
    if len(depth[0]) != len(depth[1]):
        raise UserError(
            f"{argument}: networks of {len(depth[0])} and {len(depth[1])} layers cannot be compared "
            f"cut by cut ({ours.label}: {', '.join(depth[0])}; {theirs.label}: "
            f"{', '.join(depth[1])}); compare sweeps of networks with equally many layers"
        )
