"""Speed of learning: training steps until a copy reaches a given fraction of the base's accuracy.

With the first n layers copied from the other task's base and fine-tuned (AnB⁺): steps to the first
evaluation at or above 95 % of the target base's last accuracy (Raghu et al. 2019, arXiv 1902.07208: much of
what transfer brings is speed). `speed_gain` is the base's own number of steps divided by it. Curves that
never get there count with all their steps. Read from the records; nothing is recomputed.
"""

from collections.abc import Mapping, Sequence

from yosinski_jax.measures.registry import measure
from yosinski_jax.measures.subject import Subject

SHARE = 0.95


def steps_to(steps: Sequence[float], accuracies: Sequence[float], goal: float) -> float:
    """The first of `steps` at which the accuracy is at least `goal`; the last one if it never is.

    Raises:
      ValueError: there is no evaluation.
    """
    if not len(steps) or len(steps) != len(accuracies):
        raise ValueError("a curve needs as many accuracies as steps, and at least one")
    reached = (
        s for s, a in zip(steps, accuracies, strict=True) if a is not None and a >= goal - 1e-12
    )
    return float(next(reached, steps[-1]))


def _steps(record: Mapping, goal: float) -> float:
    return steps_to(record["curve"]["step"], record["curve"]["accuracy"], goal)


@measure("speed", suffixes=("", "gain"), needs=("AnB+",))
def of_layer(subject: Subject) -> dict[str, float]:
    """Of the copy of this base's first k layers, fine-tuned on the other task."""
    copy = subject.copy("AnB+")
    goal = SHARE * subject.other.record["accuracy"]
    steps = _steps(copy, goal)
    return {"": steps, "gain": _steps(subject.other.record, goal) / steps}
