"""NCE: negative conditional entropy of the target's labels given the source's predicted labels.

−H(Y | Z) = Σ_{y,z} P(y, z) log(P(y, z) / P(z)), with Z the class that the source network predicts for an
image of the target (Tran, Nguyen and Hassner 2019, arXiv 1908.08142). At most 0; higher predicts better
transfer. Below the last layer Z comes from a probe, as in `leep`.
"""

import numpy as np

from yosinski_jax.measures.leep import source_predictions
from yosinski_jax.measures.linear import one_hot
from yosinski_jax.measures.registry import EACH, measure
from yosinski_jax.measures.subject import Subject


def nce(source: np.ndarray, target: np.ndarray) -> float:
    """Negative conditional entropy, in nats, of labels `target` given labels `source`, integers [images]."""
    y, z = (one_hot(x, int(np.max(x)) + 1) for x in (target, source))
    joint = y.T @ z / len(y)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.nansum(joint * np.log(joint / joint.sum(0))))


@measure("nce", layers=EACH)
def of_layer(subject: Subject) -> float:
    """Predicted own classes at this layer, labels of the other task, training images."""
    return nce(source_predictions(subject).argmax(1), subject.labels("other", "train"))
