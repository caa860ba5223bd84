"""The evaluations of a population, kept where they were computed until they are asked for."""

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
      replicas: networks of the population.

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
        """Appends evaluations after these steps, without blocking."""
        self.steps += steps
        self._found.append(metrics)

    def columns(self) -> Metrics:
        """All evaluations on the host, [replicas, evaluations, …]. Blocks on the devices; every process must call it."""
        whole = [Metrics(*(multihost.whole(x) for x in found)) for found in self._found]
        return Metrics(*(np.asarray(self._joined(i, whole)) for i in range(len(_KINDS))))

    def snapshot(self) -> dict[str, Any]:
        """What `numpy.asarray` makes arrays of, by name. Every process must call it; in one it waits for nothing."""
        if not self.steps:  # a checkpoint cannot hold empty arrays
            return {}
        whole = [Metrics(*(multihost.whole(x) for x in found)) for found in self._found]
        columns = {f"curve_{name}": self._joined(i, whole) for i, name in enumerate(_FIELDS)}
        return columns | {"curve_step": np.asarray(self.steps, np.int32)}

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Takes over the evaluations of a snapshot.

        Raises:
          ValueError: it is of another population.
        """
        steps = np.asarray(snapshot.get("curve_step", ())).tolist()
        found = Metrics(*(np.asarray(snapshot.get(f"curve_{name}", ())) for name in _FIELDS))
        if steps and [x.shape for x in found] != [x.shape for x in self._blank(len(steps))]:
            raise ValueError("the snapshot is of a population of another kind")
        self.steps, self._found = steps, [found] if steps else []

    def synchronize(self) -> None:
        """Takes over, in every process, what process 0 has."""
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
    """Arrays [replicas, …] of one evaluation each, or [replicas, evaluations, …], as one when it is asked for."""

    def __init__(self, parts: Sequence[Any], empty: np.ndarray):
        self._parts, self._empty = parts, empty

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy
        tail = self._empty.shape[2:]
        parts = [np.asarray(x).reshape(len(self._empty), -1, *tail) for x in self._parts]
        return np.concatenate([self._empty, *parts], axis=1, dtype=dtype or self._empty.dtype)
