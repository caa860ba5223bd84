"""Early stopping: each network of a population keeps its best evaluation and stops independently.

Only validation accuracy decides; test results are stored but never consulted. The outcome depends only on
the evaluations, not on when the host sees them: networks that have stopped keep running with the others
until all have stopped, without effect.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from yosinski_jax.training.step import State


class Kept(NamedTuple):
    """The best evaluation so far; with a leading replica axis in a population.

    Attributes:
      variables: parameters and running statistics at that evaluation; the initial ones before the first.
      validation: validation accuracy at that evaluation, float32; −1 before the first.
      step: its step, int32.
      waited: evaluations since then, int32.
      stopped_at: step of the evaluation at which the network stopped, int32; −1 while it goes on.
      correct: which test images the best evaluation classified correctly, bool [test images].
    """

    variables: Any
    validation: Any
    step: Any
    waited: Any
    stopped_at: Any
    correct: Any


def begin(variables: Any, replicas: int, test_images: int) -> Kept:
    """The initial `Kept`, before the first evaluation, on the host.

    Args:
      variables: the initial variables, [replicas, ...].
      replicas: number of replicas.
      test_images: number of test images of the task.
    """
    zeros, correct = np.zeros(replicas, np.int32), np.zeros((replicas, test_images), bool)
    return Kept(variables, zeros.astype(np.float32) - 1, zeros, zeros, zeros - 1, correct)


def judge(patience: int, kept: Kept, state: "State", evaluation: Any) -> Kept:
    """Updates one network's `Kept` after an evaluation.

    It stops after `patience` consecutive evaluations without improvement, or when it has diverged.

    Args:
      patience: number of evaluations, at least 1.
      kept: the best so far.
      state: the training state at this evaluation.
      evaluation: "right" and "evaluated" of the validation images, int32, and "correct" of the test
        images, bool [test images or more].
    """
    share = evaluation["right"] / jnp.maximum(evaluation["evaluated"], 1).astype(jnp.float32)
    going, sound = kept.stopped_at < 0, state.diverged_at < 0
    better = going & sound & (share > kept.validation)
    waited = jnp.where(better, 0, kept.waited + going)
    correct = evaluation["correct"][: kept.correct.shape[0]]
    best = Kept(
        state.variables, share.astype(jnp.float32), state.step, waited, kept.stopped_at, correct
    )
    chosen = jax.tree.map(lambda new, old: jnp.where(better, new, old), best, kept)
    stops = going & ((waited >= patience) | ~sound)
    return chosen._replace(
        waited=waited.astype(jnp.int32), stopped_at=jnp.where(stops, state.step, kept.stopped_at)
    )


def ended(
    i: int, kept: Kept, steps: Sequence[int], state: "State", total: int
) -> tuple[list[int], "State", dict[str, int | None]]:
    """The outcome of network i of a population, without anything computed after it stopped.

    Args:
      i: its place.
      kept: the `Kept` of all networks, on the host.
      steps: the step of each evaluation.
      state: its own state, on the host.
      total: total number of steps.

    Returns:
      The steps up to where it stopped, its state, and the fields of `Result` about stopping.
    """
    stopped = int(kept.stopped_at[i])
    if stopped >= 0:
        steps = [step for step in steps if step <= stopped]
        if state.diverged_at >= stopped:
            state = state._replace(diverged_at=np.full((), -1, np.int32))  # pyright: ignore[reportArgumentType]
    early = stopped if 0 <= stopped < total else None
    return list(steps), state, {"chosen_step": int(kept.step[i]), "stopped_at_step": early}
