"""Surgical fine-tuning: accuracy on the other task when one layer alone is fine-tuned.

The whole base is copied but for its last layer, which has the other task's classes and is trained anew; one
more layer is trained with it, all others stay frozen (Lee et al. 2022, arXiv 2210.11466, who keep the classes
and so the last layer too). At the last layer: nothing is trained but that. With the sweep's recipe and
whole budget. `rgn` is meant to rank the layers without training.
"""

from yosinski_jax.measures.registry import EACH, measure
from yosinski_jax.measures.subject import Subject
from yosinski_jax.measures.training import train
from yosinski_jax.training.jobs import Job


@measure("surgical", layers=EACH, trains=True)
def of_layer(subject: Subject) -> float:
    """Test accuracy, 0 … 1, on all test images of the other task."""
    names = subject.network.layer_names
    job = Job(
        key=f"{subject.base.key}/surgical/{subject.layer}",
        task=subject.task("other"),
        frozen=tuple(name for name in names[:-1] if name != subject.layer),
        copied=names[:-1],
        base=subject.final,
    )
    result = train(subject.bench, job)
    return result.accuracy[-1] if result.diverged_at_step is None else float("nan")
