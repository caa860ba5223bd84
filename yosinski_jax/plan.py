"""What a sweep consists of: its settings, its networks, and the groups they are trained in."""

import dataclasses
import hashlib
import json
from typing import Any

from yosinski_jax import treatments
from yosinski_jax.errors import UserError
from yosinski_jax.recipes import Recipe
from yosinski_jax.splits import Split


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a sweep is asked for; all that its records depend on. Checks itself.

    Attributes:
      dataset: name of the data.
      split: "random", "manmade_natural", or the path of a JSON file with the classes of A and B.
      network: name of the network.
      recipe: how every network is trained.
      depth: number of layers of the network.
      seeds: the split seeds; one pair of tasks each.
      treatments: among `treatments.TREATMENTS`, base among them.
      layers: the values of n, 1 … depth − 1.
      preserve: values of p (1, 2) for networks with preserved layers.
      images_per_class: training images of each class; None for all.
      seed: changes every random number of the sweep but the splits'.
      halves: the classes of A and of B if `split` is a file; filled in by `Sweep`, so that a
        changed file is noticed.
    """

    dataset: str
    split: str
    network: str
    recipe: Recipe
    depth: int
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    treatments: tuple[str, ...] = treatments.TREATMENTS
    layers: tuple[int, ...] = ()
    preserve: tuple[int, ...] = ()
    images_per_class: int | None = None
    seed: int = 0
    halves: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self):
        if not self.seeds:
            raise UserError("--seeds=0: must be at least 1")
        if not self.layers:
            object.__setattr__(self, "layers", tuple(range(1, self.depth)))
        wrong = [n for n in self.layers if not 1 <= n < self.depth]
        if wrong:
            raise UserError(
                f"--layers={','.join(map(str, self.layers))}: {', '.join(map(str, wrong))} is out of range; "
                f"{self.network} has {self.depth} layers, so n is 1 to {self.depth - 1}"
            )
        if any(p not in (1, 2) for p in self.preserve):
            raise UserError(f"--preserve={','.join(map(str, self.preserve))}: must be 1, 2 or 1,2")
        if self.images_per_class is not None and self.images_per_class < 1:
            raise UserError(f"--images_per_class={self.images_per_class}: must be at least 1")

    def identity(self) -> dict[str, Any]:
        """The settings that every record shares; the grid (seeds, treatments, layers) is not among them."""
        fields = dataclasses.asdict(self)
        for name in ("seeds", "treatments", "layers", "preserve"):
            del fields[name]
        return fields

    @property
    def digest(self) -> str:
        """Twelve hex digits that stand for `identity`."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:12]


GRID = ("seeds", "treatments", "layers", "preserve")


@dataclasses.dataclass(frozen=True)
class Planned:
    """One network of a sweep: a run on one pair of tasks."""

    run: treatments.Run
    split: Split

    @property
    def id(self) -> str:
        """Where its record stands: "random-0/A3B+"."""
        return f"{self.split.name}-{self.split.seed}/{self.run.name}"

    @property
    def waits_for(self) -> str | None:
        """The id of the base it copies from, or None."""
        base = self.run.waits_for
        return None if base is None else f"{self.split.name}-{self.split.seed}/{base}"

    def as_json(self) -> dict[str, Any]:
        """What plan.json says of it."""
        return {
            "name": self.run.name, "treatment": self.run.treatment, "n": self.run.n, "preserve": self.run.preserve,
            "source": self.run.source, "target": self.run.target,
            "split": self.split.name, "split_seed": self.split.seed,
        }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Group:
    """Networks trained together by one program; `replicas` is the size of the population, at least their number."""

    members: tuple[Planned, ...]
    replicas: int

    @property
    def frozen(self) -> int:
        """Number k of frozen layers."""
        return self.members[0].run.frozen

    @property
    def id(self) -> str:
        """A short name for files, the same whenever the same group is planned."""
        text = "\n".join([*(m.id for m in self.members), str(self.replicas)])
        return f"k{self.frozen}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
