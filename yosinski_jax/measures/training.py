"""Training runs made by measures: jobs of the sweep's own trainer, and one layer between two networks."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from yosinski_jax.base import machine
from yosinski_jax.measures.subject import Base, Bench, Subject
from yosinski_jax.training import checkpoints
from yosinski_jax.training.jobs import Job, Result
from yosinski_jax.training.trainer import Trainer


def train(bench: Bench, jobs: Sequence[Job]) -> list[Result]:
    """Trains networks with the sweep's recipe, together where one program can train them."""
    size = machine.memory() // jax.local_device_count() // 4
    parts = (bench.network, bench.recipe, bench.dataset)
    make = lambda: Trainer(*parts, seed=bench.seed, feature_bytes=size)
    trainer = bench.once("trainer", make)
    alike: dict[tuple, list[Job]] = {}
    for job in jobs:
        sizes = (len(job.task.classes), len(job.task.train_index), len(job.task.test_index))
        alike.setdefault((job.frozen, *sizes), []).append(job)
    results = {}
    for group in alike.values():
        population = trainer.start(group)
        while not population.finished:
            population.advance()
        keys = [job.key for job in group]
        results |= zip(keys, population.results(), strict=True)
    return [results[job.key] for job in jobs]


def again(subject: Subject) -> Any:
    """Variables of a base of the subject's task from another seed; trained once and kept beside the measures."""
    bases = (subject.base, subject.other)  # both together: the other will be needed too
    missing = [base for base in bases if not _remembers(subject.bench, base)]
    jobs = [Job(f"{base.key}/again", base.task) for base in missing]
    for base, result in zip(missing, train(subject.bench, jobs) if jobs else (), strict=True):
        base.memory["again"] = result.variables
        path = _path(subject.bench, base)
        if path is not None:
            checkpoints.save(path, result.variables)
    return subject.base.memory["again"]


def _path(bench: Bench, base: Base) -> Path | None:
    return bench.folder / "measures" / f"{base.name}-again" if bench.folder else None


def _remembers(bench: Bench, base: Base) -> bool:
    path = _path(bench, base)
    if "again" not in base.memory and path is not None:
        with contextlib.suppress(checkpoints.DamagedCheckpoint):
            base.memory["again"] = checkpoints.load(path)
    return "again" in base.memory


#: Kernel [channels, channels] and bias [channels].
Linear = tuple[Any, Any]


def least_squares(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The affine map of the last axis of `x` that is closest to `y`: kernel [c, d] and bias [d], float32.

    Args:
      x: [..., c].
      y: [..., d], other axes as those of `x`.
    """
    a, b = (np.asarray(z, np.float64).reshape(-1, z.shape[-1]) for z in (x, y))
    at, to = a.mean(0), b.mean(0)
    a, b = a - at, b - to
    gram = a.T @ a
    # A small ridge penalty, relative to the mean variance, so that dead channels do no harm.
    penalty = 1e-6 * max(float(np.trace(gram)) / len(gram), 1e-30)
    kernel = np.linalg.solve(gram + penalty * np.eye(len(gram)), a.T @ b)
    return kernel.astype(np.float32), (to - at @ kernel).astype(np.float32)


def fit_between(
    top: Callable[[Any, jax.Array], jax.Array],
    variables: Any,
    start: Linear,
    x: np.ndarray,
    labels: np.ndarray,
    *,
    steps: int,
) -> Linear:
    """Trains an affine map in front of a frozen network with Adam on the cross-entropy, in batches of 64 with replacement.

    Args:
      top: the frozen network, (variables, features) → logits; the same function each time, or it is recompiled.
      variables: its variables.
      start: the map to begin with.
      x: features [images, ..., channels].
      labels: integers [images].
      steps: number of training steps; 0 returns `start`.
    """
    draws = np.random.RandomState(0).randint(len(x), size=(steps, min(64, len(x))))
    return _fit(top, variables, start, x, labels, draws)


@functools.partial(jax.jit, static_argnums=0)
def _fit(top, variables, start, x, labels, draws) -> Linear:
    optimizer = optax.adam(1e-3)

    def loss(linear, index):
        logits = top(variables, x[index] @ linear[0] + linear[1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[index]).mean()

    def step(carry, index):
        linear, state = carry
        updates, state = optimizer.update(jax.grad(loss)(linear, index), state)
        moved: Any = optax.apply_updates(linear, updates)
        return (moved, state), None

    start = jax.tree.map(jnp.asarray, start)
    (linear, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), draws)
    return linear
