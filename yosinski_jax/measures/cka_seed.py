"""CKA of two bases of one task from different seeds: how similar the same layer is when only the seed differs.

The reference for `cka`: bases of two tasks cannot be expected to be more similar than this. The second base is
trained once for this purpose and shared with `stitch`.
"""

from yosinski_jax.measures.cka import cka
from yosinski_jax.measures.registry import measure
from yosinski_jax.measures.subject import Subject
from yosinski_jax.measures.training import again


@measure("cka_seed", trains=True)
def of_layer(subject: Subject) -> float:
    """On test images of the base's own task."""
    return cka(subject.features(), subject.features_with(again(subject)))
