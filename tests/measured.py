"""Records and measures of a study that never ran, in which one measure knows every drop."""

import numpy as np

from yosinski_jax.analysis import predictors as p

LAYERS = ["conv1", "conv2", "conv3", "conv4", "fc5"]


def study(pairs=6, seed=0, slope=6.0, noise=0.3):
    """Records of both directions, and a measure `good` that knows each drop, beside `noise` and `deep`."""
    rng = np.random.default_rng(seed)
    records, values = [], []
    for s in range(pairs):

        def record(treatment, target, n, accuracy, s=s):
            records.append({
                "split": "random", "split_seed": s, "treatment": treatment, "target": target, "n": n,
                "name": f"{treatment}{n}{target}", "status": "finished", "accuracy": accuracy, "layers": LAYERS, "seconds": 2.0,
            })  # fmt: skip

        def value(network, layer, measure, x, s=s):
            values.append(p.Value(f"random-{s}/{network}", layer, measure, x, 0.5))

        for target, source in (("A", "B"), ("B", "A")):
            record("base", target, 0, 0.9)
            for n in range(1, 5):
                own = rng.normal()  # of this pair, direction and layer
                drop = 2 * n + own
                record("BnB", target, n, 0.88)
                record("AnB", target, n, 0.88 - drop / 100)
                value(f"base{source}", LAYERS[n - 1], "good", -slope * own + noise * rng.normal())
                value(f"base{source}", LAYERS[n - 1], "noise", rng.normal())
                value(f"base{source}", LAYERS[n - 1], "deep", -n + 0.01 * rng.normal())
    return records, values
