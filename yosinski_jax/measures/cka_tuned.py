"""CKA of a base and its fine-tuned copy: how much of a layer fine-tuning on the other task keeps.

Between the base and AnB⁺, which began with this base's first n layers, at layer n, on test images of the task
that it was fine-tuned on (Neyshabur, Sedghi and Zhang 2020, arXiv 2008.11687, section 3.2). Needs the copies'
parameters.
"""

from yosinski_jax.measures.cka import cka
from yosinski_jax.measures.registry import measure
from yosinski_jax.measures.subject import Subject


@measure("cka_tuned", needs=("AnB+",), copies=True)
def of_layer(subject: Subject) -> float:
    """On test images of the other task."""
    return cka(subject.features("other"), subject.peer.features_with(subject.copied("AnB+")))
