"""The input of a measure: one layer of a base network, its features and parameters, and the pair's other base.

Features are computed once for each network, layer, task and part, in batches, and shared by all
measures; those of one layer of one pair are held at a time.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from yosinski_jax.base.errors import UserError
from yosinski_jax.data.dataset import Dataset, Task, rank_in_class
from yosinski_jax.networks.network import Network
from yosinski_jax.study.recipes import Recipe
from yosinski_jax.study.treatments import Run
from yosinski_jax.training import checkpoints
from yosinski_jax.training.jobs import initial_variables
from yosinski_jax.training.step import network_input, preprocess

BATCH = 250  # images
#: Suffix of a measure's values → the task that they are of.
TASKS = {"": "own", "other": "other"}


@dataclasses.dataclass(frozen=True, eq=False)
class Base:
    """A trained base.

    Attributes:
      name: "random-0/baseA".
      key: the string from which its random numbers derive.
      task: the task it was trained on, with all its images.
      variables: its parameters.
      record: its record.
      memory: what measures computed once for all layers, or share.
    """

    name: str
    key: str
    task: Task
    variables: Mapping[str, Any]
    record: Mapping[str, Any]
    memory: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Images:
    """Some images of a task, as they are stored, with their labels in the task."""

    pixels: np.ndarray
    labels: np.ndarray


class Bench:
    """Runs networks on the images of tasks, in batches, and keeps the features of one layer.

    Args:
      dataset: the data.
      network: maps a number of classes to a network.
      recipe: the preprocessing, and how networks are trained that a measure needs.
      seed: the sweep's seed.
      images: the most images of each task and part to use; spread evenly over the task's.
      width: the most features per image; a layer with more is averaged over blocks of pixels.
      folder: the workdir, where networks that measures train are kept and copies are looked for; None for neither.
    """

    def __init__(
        self,
        dataset: Dataset,
        network: Callable[[int], Network],
        recipe: Recipe,
        *,
        seed: int = 0,
        images: int = 1000,
        width: int = 8192,
        folder: Path | None = None,
    ):
        self.folder = folder
        self.dataset, self.recipe, self.seed = dataset, recipe.resolved(), seed
        self.count, self.width = images, width
        self.network = functools.cache(network)
        self.feature_seconds = 0.0
        self._images: dict[tuple[int, str], tuple[Task, Images, np.ndarray | None]] = {}
        self._features: dict[tuple, np.ndarray] = {}
        self._layer: object = None
        self._made: dict[Hashable, Any] = {}

    def images(self, task: Task, part: str) -> Images:
        """The images of a task that measures use."""
        return self._read(task, part)[1]

    def _read(self, task: Task, part: str) -> tuple[Task, Images, np.ndarray | None]:
        name = (id(task), part)
        if name not in self._images:
            source = getattr(self.dataset, part)
            index, labels = getattr(task, f"{part}_index"), getattr(task, f"{part}_labels")
            chosen = evenly(labels, self.count)
            pixels = np.stack([source.image(int(i)) for i in index[chosen]])
            mean = None
            if self.recipe.subtract_mean:
                mean = self.dataset.train.mean_image(task.train_index)
            self._images[name] = task, Images(pixels, labels[chosen]), mean
        return self._images[name]

    def input(self, task: Task) -> jax.ShapeDtypeStruct:
        """Shape and dtype of one image as the network gets it."""
        pixels = self.images(task, "test").pixels
        return network_input(self.recipe, pixels.shape[1:], pixels.dtype)

    def inputs(self, task: Task, part: str, chosen: Any) -> jax.Array:
        """Some of the images, by slice or positions, as inputs of the network."""
        _, images, mean = self._read(task, part)
        run = lambda pixels, mean: preprocess(self.recipe, pixels, mean, None)
        return self.once("preprocess", lambda: jax.jit(run))(images.pixels[chosen], mean)

    def once(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """The result of `make`, usually something compiled; made once."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def _in_batches(self, run: Callable, task: Task, part: str) -> np.ndarray:
        """`run` on the inputs of a task's images, float32 [images, ...]; every batch but the last has one size."""
        count = len(self.images(task, part).labels)
        starts = range(0, count, BATCH)
        return np.concatenate([run(self.inputs(task, part, slice(i, i + BATCH))) for i in starts])

    def run(self, network: Network, stop: int | None = None, start: int = 0) -> Callable:
        """Layers start + 1 … stop in evaluation, compiled: (variables, inputs) → outputs."""
        apply = lambda variables, x: network.apply(variables, x, start=start, stop=stop)[0]
        return self.once((network, start, stop), lambda: jax.jit(apply))

    def features(self, base: Base, network: Network, task: Task, part: str, k: int) -> np.ndarray:
        """Output of the first k layers, float32 [images, features]; kept until another layer is asked for."""
        if self._layer != k:
            self._layer = k
            self._features.clear()
        name = (base.name, id(task), part)
        if name not in self._features:
            began = time.perf_counter()
            pool = lambda maps: pooled(maps, self.width)
            self._features[name] = self.outputs(network, base.variables, task, part, k, pool)
            self.feature_seconds += time.perf_counter() - began
        return self._features[name]

    def outputs(
        self,
        network: Network,
        variables: Any,
        task: Task,
        part: str,
        k: int,
        then: Callable[[np.ndarray], np.ndarray] = lambda maps: maps,
    ) -> np.ndarray:
        """Output of the first k layers for a task's images, float32 [images, ...]; `then` is applied to each batch.

        Raises:
          UserError: the network cannot be cut.
        """
        if not network.supports_partial_apply:
            raise UserError(
                f"{type(network.module).__name__} cannot be applied up to a layer, which measures of features need; give its "
                "__call__ the arguments start and stop, or choose only measures of parameters"
            )
        run = self.run(network, k)
        return self._in_batches(
            lambda x: then(np.asarray(run(variables, x), np.float32)), task, part
        )

    def right(self, network: Network, variables: Any, task: Task, part: str = "test") -> np.ndarray:
        """Which images a network classifies correctly, bool [images]."""
        run = self.run(network)
        logits = self._in_batches(lambda x: np.asarray(run(variables, x)), task, part)
        return logits.argmax(-1) == self.images(task, part).labels

    def fresh(self, network: Network, task: Task, key: str) -> Any:
        """The initial variables of a job with this key."""
        return initial_variables(network, self.input(task), key, self.seed)


def evenly(labels: np.ndarray, count: int) -> np.ndarray:
    """Positions of at most `count` images, in order, balanced over classes as far as possible."""
    if len(labels) <= count:
        return np.arange(len(labels))
    return np.sort(np.lexsort((labels, rank_in_class(labels)))[:count])


def pooled(features: np.ndarray, width: int) -> np.ndarray:
    """Features [images, ...] as [images, at most `width`]; maps [H, W, C] that are larger are averaged over blocks.

    Blocks have the smallest sufficient side; those at the border may be smaller. Features that are
    not maps, or have more channels than `width`, are unchanged.
    """
    if features.ndim == 4:
        _, height, wide, channels = features.shape
        side = 1
        while -(-height // side) * -(-wide // side) * channels > width and side < max(height, wide):
            side += 1
        if side > 1:
            rows, columns = np.arange(0, height, side), np.arange(0, wide, side)
            sums = np.add.reduceat(np.add.reduceat(features, rows, 1), columns, 2)
            sizes = np.diff([*rows, height])[:, None] * np.diff([*columns, wide])[None, :]
            features = sums / sizes[:, :, None].astype(np.float32)
    return features.reshape(len(features), -1)


@dataclasses.dataclass(eq=False)
class Subject:
    """One layer of one base.

    Attributes:
      bench: runs networks.
      base: the network.
      other: the other base of its pair of tasks.
      k: number of the layer, from 1; 0 for the network as a whole.
      records: those of the pair of tasks, by name ("A3B+").
    """

    bench: Bench
    base: Base
    other: Base
    k: int
    records: Mapping[str, Mapping[str, Any]]

    @property
    def network(self) -> Network:
        """The network."""
        return self.bench.network(len(self.base.task.classes))

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.network.layer_names)

    @property
    def layer(self) -> str:
        """Name of the layer; "all" for the network as a whole."""
        return self.network.layer_names[self.k - 1] if self.k else "all"

    @property
    def paths(self) -> tuple[str, ...]:
        """The subtrees of the layer; of all layers for the network as a whole."""
        return self.network.paths(*([self.layer] if self.k else self.network.layer_names))

    @property
    def peer(self) -> "Subject":
        """The same layer of the other base."""
        return dataclasses.replace(self, base=self.other, other=self.base)

    def features_of_both(self, task: str) -> tuple[np.ndarray, np.ndarray]:
        """The layer's features of this base and of the other, for the same test images of a task."""
        seen_by_peer = {"own": "other", "other": "own"}[task]
        return self.features(task), self.peer.features(seen_by_peer)

    def task(self, task: str = "own") -> Task:
        """The task that the base was trained on ("own"), or the other base's ("other")."""
        return (self.base if task == "own" else self.other).task

    def classes(self, task: str = "own") -> int:
        """Number of classes of a task."""
        return len(self.task(task).classes)

    def features(self, task: str = "own", part: str = "test") -> np.ndarray:
        """The layer's output for images of a task, float32 [images, features]."""
        return self.bench.features(self.base, self.network, self.task(task), part, self.k)

    def features_with(self, variables: Any, task: str = "own", part: str = "test") -> np.ndarray:
        """The same of the network with other variables; not kept."""
        return pooled(self.maps(variables, task, part), self.bench.width)

    def maps(self, variables: Any, task: str = "own", part: str = "test") -> np.ndarray:
        """The layer's output as it is, float32 [images, ..., channels], of the network with these variables; not kept."""
        return self.bench.outputs(self.network, variables, self.task(task), part, self.k)

    def top(self) -> Callable[[Any, jax.Array], jax.Array]:
        """The layers above: (variables, output of this layer) → logits; the same function each time."""
        network, k = self.network, self.k
        make = lambda: lambda variables, x: network.apply(variables, x, start=k)[0]
        return self.bench.once(("top", network, k), make)

    def labels(self, task: str = "own", part: str = "test") -> np.ndarray:
        """Labels of the same images, integers [images]."""
        return self.bench.images(self.task(task), part).labels

    @property
    def final(self) -> Any:
        """The base's parameters."""
        return self.base.variables

    @property
    def initial(self) -> Any:
        """The base's initial variables, derived again from its key.

        Raises:
          UserError: its record's layer changes show that it was not trained from these values.
        """
        return self.once("initial", self._initial)

    def _initial(self) -> Any:
        network = self.network
        initial = self.bench.fresh(network, self.base.task, self.base.key)
        for name, change in (self.base.record.get("layer_change") or {}).items():
            trees = (network.subtree({"params": v["params"]}, name) for v in (initial, self.final))
            found = relative_change(*trees)
            if change is not None and abs(found - change) > 1e-3 * max(change, 1e-3):
                raise UserError(
                    f"{self.base.name}: its initial values cannot be reproduced (layer {name} would have changed by "
                    f"{found:.4g} of its norm, its record says {change:.4g}); measure it with the versions that trained it, "
                    "or leave out reinit and interpolation"
                )
        return initial

    def random(self, draw: int) -> Any:
        """Fresh initial values, from a different key."""
        return self.bench.fresh(self.network, self.base.task, f"{self.base.key}/rerandom{draw}")

    def accuracy(self, variables: Any, task: str = "own") -> float:
        """Test accuracy, 0 … 1, of the network with other parameters."""
        return float(self.bench.right(self.network, variables, self.task(task)).mean())

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """The result of `compute`; computed once for this base, whatever the layer."""
        if name not in self.base.memory:
            self.base.memory[name] = compute()
        return self.base.memory[name]

    def copy(self, treatment: str) -> Mapping[str, Any]:
        """The record of the network with this base's first k layers, trained on the other task.

        Args:
          treatment: "AnB", "AnB+".
        """
        run = Run(treatment, self.other.record["target"], self.k)
        return self.records[run.name]

    def copied(self, treatment: str) -> Any:
        """The variables of the network with the same name, if the sweep kept them; see `copy`.

        Raises:
          UserError: there is no workdir, or the checkpoint cannot be read.
        """
        if self.bench.folder is None:
            raise UserError(
                f"{self.base.name}: copies are read from a workdir; give the bench a folder"
            )
        pair, name = self.base.name.rpartition("/")[0], self.copy(treatment)["name"]
        return load_kept(self.bench.folder, f"{pair}/{name}")


def load_kept(folder: Path, network: str) -> Any:
    """Variables of a network ("random-0/baseA") from its checkpoint in a workdir.

    Raises:
      UserError: the checkpoint is damaged.
    """
    try:
        return checkpoints.load(folder / "checkpoints" / network)
    except checkpoints.DamagedCheckpoint as e:
        raise UserError(
            f"{e}; move the record of {network} away and start the sweep again in {folder}"
        ) from e


def relative_change(before: Any, after: Any) -> float:
    """‖after − before‖ / ‖before‖ over all leaves of two trees of one structure."""
    old, new = (
        np.concatenate([np.ravel(x).astype(np.float64) for x in jax.tree.leaves(t)])
        for t in (before, after)
    )
    norm = float(np.linalg.norm(old))
    return float(np.linalg.norm(new - old)) / norm if norm else 0.0
