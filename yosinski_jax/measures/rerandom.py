"""Re-randomization: test accuracy after one layer takes fresh initial values, not those it started from.

Mean of three draws (Zhang, Bengio and Singer 2019, arXiv 1902.01996). A layer that tolerates this as well
as `reinit` was never needed; one that tolerates only `reinit` stayed near its initial values.
"""

import numpy as np

from yosinski_jax.measures.registry import EACH, measure
from yosinski_jax.measures.reinit import reinitialized
from yosinski_jax.measures.subject import Subject

DRAWS = 3


@measure("rerandom", layers=EACH)
def of_layer(subject: Subject) -> float:
    """Accuracy on the base's own task, 0 … 1."""
    trees = (reinitialized(subject.final, subject.random(i), subject.paths) for i in range(DRAWS))
    return float(np.mean([subject.accuracy(tree) for tree in trees]))
