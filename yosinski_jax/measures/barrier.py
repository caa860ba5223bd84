"""Barrier between two fine-tuned networks: how far accuracy falls on the straight line between them.

Between AnB⁺ and BnB⁺ of the same task and n, all layers together: networks in one basin have no barrier
(Neyshabur, Sedghi and Zhang 2020, arXiv 2008.11687, section 3.3). In accuracy, 0 … 1, below the line between the
two ends. Needs the copies' parameters.
"""

from yosinski_jax.measures.interpolation import along, barrier
from yosinski_jax.measures.registry import measure
from yosinski_jax.measures.subject import Subject


@measure("barrier", needs=("AnB+", "BnB+"), copies=True)
def of_layer(subject: Subject) -> float:
    """Between the copies of this base's and the other base's first k layers, on the other base's task."""
    ends = subject.copied("AnB+"), subject.copied("BnB+")
    layers = subject.network.paths(*subject.network.layer_names)
    return barrier(along(subject.peer.accuracy, *ends, layers))
