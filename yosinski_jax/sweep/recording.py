"""From a trained network to its record; among training runs that differ in learning rate, which one is recorded."""

import math
from collections.abc import Sequence
from typing import Any

from yosinski_jax.study import records, tuning
from yosinski_jax.training.jobs import Result


def choose(results: Sequence[Result], rates: Sequence[float]) -> tuple[Result, dict[str, Any]]:
    """The network among trainings at several learning rates, and what its record says of the choice.

    Args:
      results: one for each rate, or one alone.
      rates: to choose from; none if the recipe's was not in question.
    """
    if not rates:
        return results[0], {}
    sound = [r.diverged_at_step is None for r in results]
    validation = [r.chosen_validation if ok else None for r, ok in zip(results, sound, strict=True)]
    at = tuning.best(validation)
    tried = {
        "learning_rate": list(rates),
        "validation_accuracy": validation,
        "accuracy": [r.test_accuracy if ok else None for r, ok in zip(results, sound, strict=True)],
    }
    return results[at], {"learning_rate": rates[at], "tried": tried}


def measured(result: Result) -> dict[str, Any]:
    """The fields of a record that describe a trained network."""
    bad = result.diverged_at_step
    # Of a diverged network only what was evaluated before: later numbers are those of NaN weights.
    kept = [i for i, step in enumerate(result.step) if bad is None or step <= bad]
    series = {name: getattr(result, name, None) for name in records.CURVE}
    curve = {name: [values[i] for i in kept] for name, values in series.items() if values}
    best = sorted(curve["accuracy"], reverse=True)[:10]
    correct = getattr(result, "correct", None)
    sound = result.test_accuracy if bad is None else None
    return {
        "status": "finished" if bad is None else "diverged",
        "diverged_at_step": bad,
        "accuracy": (curve["accuracy"][-1] if sound is None else sound) if kept else None,
        "accuracy_best": best[0] if kept else None,
        # The paper's statistic: chosen on the images it is measured on.
        "accuracy_mean_of_ten_best": math.fsum(best) / len(best) if kept else None,
        "curve": curve,
        "steps": result.step[-1],
        "parameters_trained": result.trained,
        "parameters_frozen": result.frozen,
        "layer_change": result.layer_change,
        "correct": None if bad is not None or correct is None else records.pack(correct),
        "train_accuracy_images": getattr(result, "train_accuracy_images", None),
        "validation_images": result.validation_images or None,
        # A diverged network has no weights worth choosing.
        "chosen_step": result.chosen_step if bad is None else None,
        "stopped_at_step": result.stopped_at_step if bad is None else None,
    }
