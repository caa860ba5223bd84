"""Relative gradient norm: how far the other task would move each layer, before any training on it.

‖∂loss/∂θ‖ / ‖θ‖ of each layer, mean over up to five batches (Lee et al. 2022, arXiv 2210.11466, who fine-tune
most where it is largest). The loss is the other task's, of the base under a fresh last layer, as A(L−1)B⁺
begins; `rgn_own` is that of the base as it is, on its own task.
"""

from typing import Any

import jax
import numpy as np
import optax

from yosinski_jax.measures.registry import EACH, measure
from yosinski_jax.measures.subject import Subject
from yosinski_jax.splicing import splice

BATCHES = 5


def relative_norm(gradients: Any, parameters: Any) -> float:
    """‖gradients‖ / ‖parameters‖ over all leaves of two trees of the same structure."""
    norm = lambda tree: np.sqrt(sum(float(np.vdot(x, x)) for x in jax.tree.leaves(tree)))
    return norm(gradients) / norm(parameters)


@measure("rgn", suffixes=("", "own"), layers=EACH)
def of_layer(subject: Subject) -> dict[str, float]:
    """On training images; all layers are computed at once."""
    norms = lambda task: subject.once(f"rgn {task}", lambda: _of_network(subject, task))
    return {"": norms("other")[subject.layer], "own": norms("own")[subject.layer]}


def _of_network(subject: Subject, task: str) -> dict[str, float]:
    bench, images = subject.bench, subject.bench.images(subject.task(task), "train")
    network, variables = subject.network, subject.final
    if task == "other":
        network = subject.peer.network  # its last layer has the other task's classes
        fresh = bench.fresh(network, subject.task(task), f"{subject.base.key}/rgn")
        variables = splice(variables, fresh, network.paths(*network.layer_names[:-1]))

    def loss(params, variables, x, labels):
        logits, _ = network.apply({**variables, "params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    gradient = bench.once((network, "gradient"), lambda: jax.jit(jax.grad(loss)))
    size = min(bench.recipe.batch_size, len(images.labels))
    # Datasets may be sorted by class.
    order = np.random.RandomState(0).permutation(len(images.labels))
    norms: dict[str, list[float]] = {name: [] for name in network.layer_names}
    for batch in range(min(BATCHES, len(order) // size)):
        chosen = order[batch * size : (batch + 1) * size]
        x = bench.inputs(subject.task(task), "train", chosen)
        params = variables["params"]
        g = jax.device_get(gradient(params, variables, x, images.labels[chosen]))
        for name, found in norms.items():
            trees = (network.subtree({"params": tree}, name) for tree in (g, params))
            found.append(relative_norm(*trees))
    return {name: float(np.mean(found)) for name, found in norms.items()}
