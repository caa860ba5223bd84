"""What all groups of a sweep share, wherever they train: tasks, recipes, trainers, bases."""

import contextlib
import functools
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import Damaged
from yosinski_jax.data import validation
from yosinski_jax.data.dataset import Dataset, Task, few_images, make_task
from yosinski_jax.networks.network import Network, shapes
from yosinski_jax.networks.pretrained import convert
from yosinski_jax.splicing import TreeMismatch
from yosinski_jax.study import records
from yosinski_jax.study.plan import Planned
from yosinski_jax.study.recipes import Recipe
from yosinski_jax.study.settings import Settings
from yosinski_jax.sweep import identity, programs
from yosinski_jax.training import checkpoints, multihost
from yosinski_jax.training.trainer import Trainer

#: Bytes of bases kept in memory between the groups that copy them.
_BASE_BYTES = 2**30


class DamagedBase(Exception):
    """A base that a group copies is unusable and must be trained again.

    Attributes:
      base: its id.
    """

    def __init__(self, base: str, line: str):
        self.base = base
        super().__init__(base, line)

    def __str__(self) -> str:
        return self.args[1]


class Work:
    """Everything `train_group` needs besides the group. Can be pickled.

    Args:
      settings: the request.
      dataset: the data.
      network: maps a number of classes to a network; must be defined in a module for pickling.
      trainer: called as `trainer(network, recipe, dataset, seed=…)`, returns a `Trainer`.
      checkpoint_seconds: time between two checkpoints of a group in training.
      pretrained: weights that PnB and PnB+ copy: a path that every process sees, or a tree.
      keep: "bases", or "all" to keep the parameters of the other networks as well.

    Attributes:
      described: everything the results depend on; see `identity.describe`.
    """

    def __init__(
        self,
        settings: Settings,
        dataset: Dataset,
        network: Callable[[int], Network],
        trainer: Callable[..., Trainer],
        checkpoint_seconds: float = 300.0,
        pretrained: Any = None,
        keep: str = "bases",
    ):
        self.settings, self.dataset = settings, dataset
        self.checkpoint_seconds, self.pretrained, self.keep = checkpoint_seconds, pretrained, keep
        self._network, self._make = network, trainer
        #: Shared by all copies of this work, so that a process finds the programs it has compiled.
        self.token = uuid.uuid4().hex
        self._cpu_devices = jax.local_device_count() if jax.default_backend() == "cpu" else None
        self._cache = programs.folder()
        self._forget()

    def _forget(self) -> None:
        self._tasks: dict[tuple, Task] = {}
        self._trainers: dict[Recipe, Trainer] = {}
        self.bases: dict[str, tuple[str, Any]] = {}
        self._pretrained: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        self.digest  # noqa: B018 (computed once, by the planner)
        left_out = ("_tasks", "_trainers", "bases", "votes", "_pretrained")
        return {k: v for k, v in self.__dict__.items() if k not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def prepare_process(self) -> None:
        """Sets up a fresh process: the planner's number of devices and its compilation cache."""
        with contextlib.suppress(RuntimeError):  # jax is initialized: this is the planner's process
            if self._cpu_devices is not None:
                jax.config.update("jax_num_cpu_devices", self._cpu_devices)
        if self._cache and not programs.folder():
            programs.cache(self._cache)

    def task(self, planned: Planned) -> Task:
        """The task a network is trained on."""
        split, target, images = planned.split, planned.run.target, planned.images_per_class
        name = (split.name, split.seed, target, images)
        if name not in self._tasks:
            share = self.settings.recipe_of(planned.run).validation
            if planned.on_small_target:
                whole, few = self.task(planned.whole(self.settings)), images or 0
                task = (
                    validation.carve_few(whole, few, share, split.seed)
                    if share
                    else few_images(whole, few, split.seed)
                )
            else:
                task = make_task(self.dataset, split.half(target), images)
                task = validation.carve(task, share, split.seed) if share else task
            self._tasks[name] = task
        return self._tasks[name]

    def recipe(self, planned: Planned) -> Recipe:
        """The recipe of a network."""
        recipe = self.settings.recipe_of(planned.run)
        if not planned.on_small_target:
            return recipe
        part, whole = (self.task(p) for p in (planned, planned.whole(self.settings)))
        return recipe.on_few(len(part.train_index), len(whole.train_index))

    def trainer(self, planned: Planned) -> Trainer:
        """The trainer of a network."""
        recipe = self.recipe(planned)
        if recipe not in self._trainers:
            seed = self.settings.seed
            self._trainers[recipe] = self._make(self._network, recipe, self.dataset, seed=seed)
        return self._trainers[recipe]

    def network(self, planned: Planned) -> Network:
        """The architecture of a network."""
        return self.trainer(planned).network(len(self.task(planned).classes))

    def describe(self, planned: Sequence[Planned]) -> None:
        """Sets `described` for these networks."""
        first = planned[0]
        networks = {len(self.task(p).classes): self.network(p) for p in planned}
        trainer = self.trainer(first)
        self.described = identity.describe(
            self.settings, self.dataset, networks, trainer.input, trainer.fed_shape
        )
        if self.pretrained is not None:
            self.described["pretrained"] = checkpoints.checksum(self.weights(first))

    @functools.cached_property
    def digest(self) -> str:
        """The digest of `described` that records carry."""
        return identity.digest(self.described)

    @functools.cached_property
    def votes(self) -> multihost.Votes:
        """Makes all processes stop and save at the same step."""
        return multihost.Votes()

    def base(self, planned: Planned, workdir: Path) -> Any:
        """The layers that a network copies from its base, read from the workdir; None if it copies none.

        Raises:
          DamagedBase: it is not the network of its record, or cannot be read.
        """
        if planned.run.pretrained:
            return self.weights(planned)
        base = planned.waits_for
        if base is None:
            return None
        path = workdir / "checkpoints" / base
        try:
            written = checked_base(workdir, planned)
            kept = self.bases.get(base)
            if kept is None or kept[0] != written:
                network = self.network(planned)
                names = network.layer_names[: self.settings.most_copied]
                kept = written, checkpoints.load_layers(path, network.paths(*names))
                self._keep(base, kept)
        except checkpoints.DamagedCheckpoint as e:
            raise DamagedBase(base, str(e)) from e
        return kept[1]

    def weights(self, planned: Planned) -> Any:
        """The pretrained weights as variables of a network; the last layer may have another width.

        Raises:
          UserError: they cannot be read or do not fit the network; lists every leaf that does not.
        """
        classes = len(self.task(planned).classes)
        if classes not in self._pretrained:
            network = self.network(planned)
            like = shapes(network, self.trainer(planned).input)
            head = network.paths(network.layer_names[-1])
            given = self.pretrained
            try:
                if isinstance(given, Mapping):
                    found = convert(given, network.module, like, head)
                else:
                    found = checkpoints.load_pretrained(given, network.module, like, head)
            except TreeMismatch as e:
                what = "weights" if isinstance(given, Mapping) else given
                raise UserError(
                    f"base={what}: does not fit {type(network.module).__name__}: {'; '.join(e.mismatches)}"
                ) from e
            self._pretrained = {classes: found}
        return self._pretrained[classes]

    def _keep(self, base: str, kept: tuple[str, Any]) -> None:
        self.bases[base] = kept
        size = lambda tree: sum(x.nbytes for x in jax.tree.leaves(tree))
        while len(self.bases) > 2 and sum(size(t) for _, t in self.bases.values()) > _BASE_BYTES:
            del self.bases[next(iter(self.bases))]


def checked_base(workdir: Path, planned: Planned) -> str:
    """Checks the base of a network without reading arrays; returns the checksum of its parameters.

    Raises:
      DamagedBase: its record or checkpoint is missing or damaged, or they do not match.
    """
    base = planned.waits_for
    assert base is not None
    path = workdir / "checkpoints" / base
    try:
        record = records.read(records.path_of(workdir, base))
        written = checkpoints.noted_checksum(path)
    except (FileNotFoundError, Damaged, checkpoints.DamagedCheckpoint) as e:
        raise DamagedBase(base, str(e)) from e
    if written is None or written != record.params_sha256:
        raise DamagedBase(base, f"{path}: is not the network of its record")
    return written
