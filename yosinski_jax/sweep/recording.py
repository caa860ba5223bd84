"""From a trained network to its record, and which of several learning rates is recorded."""

import math
from collections.abc import Sequence
from typing import Any

from yosinski_jax.study import records, tuning
from yosinski_jax.training.jobs import Result


def choose(results: Sequence[Result], rates: Sequence[float]) -> tuple[Result, dict[str, Any]]:
    """The result with the best learning rate, and the fields of its record about the choice.

    Args:
      results: one for each rate, or a single one.
      rates: the learning rates tried; empty if the recipe's was used.
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
    # Only evaluations before a network diverged: later ones are of NaN weights.
    kept = [i for i, step in enumerate(result.step) if bad is None or step <= bad]
    series = {name: getattr(result, name) for name in records.CURVE}
    curve = {name: [values[i] for i in kept] for name, values in series.items() if values}
    best = sorted(curve["accuracy"], reverse=True)[:10]
    sound = result.test_accuracy if bad is None else None
    return {
        "status": "finished" if bad is None else "diverged",
        "diverged_at_step": bad,
        "accuracy": (curve["accuracy"][-1] if sound is None else sound) if kept else None,
        "accuracy_best": best[0] if kept else None,
        # The paper's statistic, which selects on the test images.
        "accuracy_mean_of_ten_best": math.fsum(best) / len(best) if kept else None,
        "curve": curve,
        "steps": result.step[-1],
        "parameters_trained": result.trained,
        "parameters_frozen": result.frozen,
        "layer_change": result.layer_change,
        "correct": records.pack(result.correct) if bad is None else None,
        "train_accuracy_images": result.train_accuracy_images,
        "validation_images": result.validation_images or None,
        # A diverged network has no best weights.
        "chosen_step": result.chosen_step if bad is None else None,
        "stopped_at_step": result.stopped_at_step if bad is None else None,
    }
