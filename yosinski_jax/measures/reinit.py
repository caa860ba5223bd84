"""Re-initialization: test accuracy after one layer is reset to the values it had before training.

Layers that tolerate this are "ambient", others "critical" (Zhang, Bengio and Singer 2019, arXiv
1902.01996). The initial values derive from the network's key, so they need not be stored.
"""

from typing import Any

from yosinski_jax.measures.registry import EACH, measure
from yosinski_jax.measures.subject import Subject
from yosinski_jax.splicing import Layers, splice


def reinitialized(final: Any, values: Any, layers: Layers) -> Any:
    """A trained tree with the named layers taken from `values`, its initial or other fresh ones; see `splice`."""
    return splice(values, final, layers)


@measure("reinit", layers=EACH)
def of_layer(subject: Subject) -> float:
    """Accuracy on the base's own task, 0 … 1."""
    return subject.accuracy(reinitialized(subject.final, subject.initial, subject.paths))
