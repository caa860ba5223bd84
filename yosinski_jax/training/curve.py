"""The evaluations of a population, kept on the devices until they are needed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from yosinski_jax.training import multihost
from yosinski_jax.training.step import PARTS, Metrics

_FIELDS = Metrics._fields
# On the host; of streams the mean is taken there, in float64.
_KINDS = Metrics(np.float32, np.int32, np.int32, np.float64)


class Curve:
    """All evaluations so far.

    Args:
      replicas: number of networks.

    Attributes:
      steps: training step of each evaluation.
    """

    def __init__(self, replicas: int):
        self._replicas = replicas
        self.steps: list[int] = []
        self._found: list[Metrics] = []

    @property
    def last(self) -> int:
        """Step of the last evaluation; 0 before the first."""
        return self.steps[-1] if self.steps else 0

    def add(self, steps: Sequence[int], metrics: Metrics) -> None:
        """Appends evaluations made after these steps, without blocking."""
        self.steps += steps
        self._found.append(metrics)

    def columns(self, before: int | None = None) -> Metrics:
        """Evaluations on the host, [replicas, evaluations, …]. Waits for the devices; collective.

        Args:
          before: leaves out what was not dispatched before this step; None for all.
        """
        found, count = [], 0
        for one in self._found:
            count += one.losses.shape[1] if one.losses.ndim > 1 else 1
            if before is None or self.steps[count - 1] < before:
                found.append(one)
        whole = [Metrics(*(multihost.whole(x) for x in one)) for one in found]
        return Metrics(*(np.asarray(self._joined(i, whole)) for i in range(len(_KINDS))))

    def snapshot(self) -> dict[str, Any]:
        """Array-likes by name, for a checkpoint. Collective; with a single process it does not wait."""
        if not self.steps:  # checkpoints cannot hold empty arrays
            return {}
        whole = [Metrics(*(multihost.whole(x) for x in found)) for found in self._found]
        columns = {f"curve_{name}": self._joined(i, whole) for i, name in enumerate(_FIELDS)}
        return columns | {"curve_step": np.asarray(self.steps, np.int32)}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Restores the evaluations of a snapshot.

        Raises:
          ValueError: it is from a different population.
        """
        steps = np.asarray(snapshot.get("curve_step", ())).tolist()
        found = Metrics(*(np.asarray(snapshot.get(f"curve_{name}", ())) for name in _FIELDS))
        if steps and [x.shape for x in found] != [x.shape for x in self._blank(len(steps))]:
            raise ValueError("the snapshot is of another kind of population")
        self.steps, self._found = steps, [found] if steps else []

    def synchronize(self) -> None:
        """Copies the evaluations of process 0 to all processes."""
        count = int(multihost.broadcast(np.asarray(len(self.steps), np.int32)))
        found = self.columns() if multihost.leader() else self._blank(count)
        steps = self.steps if multihost.leader() else [0] * count
        steps, found = multihost.broadcast((np.asarray(steps, np.int32), found))
        self.steps, self._found = steps.tolist(), [found]

    def _blank(self, count: int) -> Metrics:
        shapes = [(), (len(PARTS),), (len(PARTS),), ()]
        blank = lambda tail, kind: np.zeros((self._replicas, count, *tail), kind)
        return Metrics(*map(blank, shapes, _KINDS))

    def _joined(self, i: int, whole: Sequence[Metrics]) -> "_Joined":
        return _Joined([found[i] for found in whole], self._blank(0)[i])


class _Joined:
    """Arrays of one or several evaluations, [replicas, …] or [replicas, evaluations, …], concatenated on demand."""

    def __init__(self, parts: Sequence[Any], empty: np.ndarray):
        self._parts, self._empty = parts, empty

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy
        tail = self._empty.shape[2:]
        parts = [np.asarray(x).reshape(len(self._empty), -1, *tail) for x in self._parts]
        return np.concatenate([self._empty, *parts], axis=1, dtype=dtype or self._empty.dtype)
