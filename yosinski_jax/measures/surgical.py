"""Surgical fine-tuning: accuracy on the other task when only one layer is fine-tuned.

The base is copied except for its last layer, which is trained from scratch on the other task's classes; one
more layer is fine-tuned with it, all others stay frozen (Lee et al. 2022, arXiv 2210.11466, who keep the
classes and so the last layer too). At the last layer, only that is trained. With the sweep's recipe and its
full budget. `rgn` is meant to rank the layers without training.
"""

from yosinski_jax.measures.registry import EACH, measure
from yosinski_jax.measures.subject import Subject
from yosinski_jax.measures.training import train
from yosinski_jax.training.jobs import Job


def job(subject: Subject) -> Job:
    """The network with this layer and the last one to be trained."""
    names = subject.network.layer_names
    return Job(
        key=f"{subject.base.key}/surgical/{subject.layer}",
        task=subject.task("other"),
        frozen=tuple(name for name in names[:-1] if name != subject.layer),
        copied=names[:-1],
        base=subject.final,
    )


@measure("surgical", layers=EACH, trains=True)
def of_layer(subject: Subject) -> float:
    """Test accuracy, 0 … 1, on all test images of the other task."""
    name = f"surgical {subject.layer}"
    if name not in subject.base.memory:  # both bases at once, because they share a program
        both = (subject, subject.peer)
        for one, result in zip(both, train(subject.bench, [job(one) for one in both]), strict=True):
            diverged = result.diverged_at_step is not None
            one.base.memory[name] = float("nan") if diverged else result.test_accuracy
    return subject.base.memory[name]
