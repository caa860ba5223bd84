"""Records of sweeps that never ran, with effects known beforehand."""

import base64
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from yosinski_jax.base.files import sealed, write_json
from yosinski_jax.study import records
from yosinski_jax.study.treatments import TREATMENTS, grid

#: Accuracy minus the base's by treatment at n = 1, 2, 3.
EFFECTS = {
    "BnB": (-0.002, -0.02, -0.004),
    "BnB+": (0.0, 0.0, 0.001),
    "AnB": (-0.002, -0.03, -0.074),
    "AnB+": (0.001, 0.001, 0.002),
    "RnB": (-0.01, -0.09, -0.35),
}
BASE = 0.9


def study(
    seeds: int = 4,
    *,
    treatments=TREATMENTS,
    layers=(1, 2, 3),
    noise: float = 0.002,
    effects=None,
    base: float = BASE,
    test_images: int = 10000,
    bits: bool = False,
    train_accuracy: bool = False,
    pairs_of_tasks: int | None = None,
    split: str = "random",
    rng_seed: int = 0,
    digest: str = "abc123def456",
    rates: Mapping[str, tuple] | None = None,
) -> list[dict]:
    """Records in the form of `records.read_all`; without noise every number is exact.

    Args:
      seeds: number of split seeds.
      treatments: those trained.
      layers: the values of n.
      noise: standard deviation of a network's accuracy.
      split: its name.
      rng_seed: of the noise.
      digest: of the settings.
      effects: like `EFFECTS`.
      base: true accuracy of the bases.
      test_images: of each task.
      bits: whether records keep which test images were right; the accuracy is then theirs.
      train_accuracy: whether records tell it: halfway between the test accuracy and 1.
      rates: by treatment the learning rates that its networks chose from; the smallest diverges.
      pairs_of_tasks: number of different pairs of tasks; by default one for each seed of random
        halves, one for all seeds of other splits.
    """
    effects = effects or EFFECTS
    pairs_of_tasks = pairs_of_tasks or (seeds if split == "random" else 1)
    rng = np.random.RandomState(rng_seed)
    out = []
    for seed in range(seeds):
        hard = {t: rng.randn() * noise for t in "AB"}
        hardness = {t: rng.rand(test_images) for t in "AB"} if bits else {}
        order = np.random.RandomState(seed % pairs_of_tasks).permutation(10)
        classes = {"A": sorted(map(str, order[:5])), "B": sorted(map(str, order[5:]))}
        for network in grid(treatments, layers):
            value = base + hard[network.target] + rng.randn() * noise
            if network.n:
                value += effects[network.treatment][network.n - 1]
            value = float(np.clip(value, 0, 1))
            kept = {}
            if bits:
                # The same images are hard for all networks, up to some of their own.
                right = hardness[network.target] + 0.1 * rng.rand(test_images) < 1.05 * value
                value = float(right.mean())
                kept["correct"] = base64.b64encode(np.packbits(right).tobytes()).decode()
            if network.treatment in (rates or {}):
                tried = sorted((rates or {})[network.treatment], reverse=True)
                at = rng.randint(len(tried) - 1)
                accuracies = [value - 0.01 * abs(i - at) for i in range(len(tried) - 1)]
                kept["tried"] = {
                    "learning_rate": tried, "accuracy": [*accuracies, None],
                    "validation_accuracy": [*accuracies, None],
                }  # fmt: skip
                kept["learning_rate"] = tried[at]
            curve = [value - 0.5 / 2**i for i in range(12)] + [value]
            out.append(
                {
                    "schema": 2,
                    "name": network.name,
                    "treatment": network.treatment,
                    "n": network.n,
                    "source": network.source,
                    "target": network.target,
                    "preserve": 0,
                    "split": split,
                    "split_seed": seed,
                    "dataset": "digits",
                    "network": "digits4",
                    "recipe": "digits",
                    "seed": 0,
                    "layers": ["conv1", "conv2", "fc3", "fc4"],
                    "classes": classes[network.target],
                    "images_per_class": None,
                    "train_images": 650,
                    "test_images": test_images,
                    "status": "finished",
                    "diverged_at_step": None,
                    "accuracy": value,
                    "accuracy_best": max(curve),
                    "accuracy_mean_of_ten_best": float(np.mean(sorted(curve)[-10:])),
                    "curve": {
                        "step": [10 * i for i in range(13)],
                        "epoch": list(range(13)),
                        "loss": [1.0 / (i + 1) for i in range(13)],
                        "accuracy": curve,
                    }
                    | ({"train_accuracy": [(1 + v) / 2 for v in curve]} if train_accuracy else {}),
                    "steps": 120,
                    "seconds": 1.5,
                    "images_per_second": 50000.0,
                    "parameters_trained": 1000,
                    "parameters_frozen": 10 * network.frozen,
                    "settings_digest": digest,
                    "params_sha256": "00ff",
                    "environment": {"jax": "0.10.2", "device": "cpu", "git": "3c35799"},
                    "layer_change": {"conv1": 0.1, "conv2": 0.2, "fc3": 0.3, "fc4": 1.1},
                }
                | kept
            )
    return out


def write(folder: Path, record: Mapping) -> None:
    """Writes a record unchecked, so that one that nobody would write can be read."""
    path = records.path_of(folder, f"{record['split']}-{record['split_seed']}/{record['name']}")
    write_json(path, sealed(record))


def plan(found) -> dict:
    """The plan.json of these records."""
    keys = ("name", "treatment", "n", "source", "target", "split", "split_seed")
    return {"networks": [{k: r[k] for k in keys} for r in found]}


#: Gains of copies over training from scratch in `several_bases`, by base dataset.
LEADS = {"near": 0.10, "far": 0.02, "noise": -0.05}


def several_bases(
    seeds: int = 4,
    *,
    leads: Mapping[str, float] = LEADS,
    noise: float = 0.001,
    bits: bool = False,
) -> list[dict]:
    """Records of bases of several datasets, copied to one target; gains are equal at every n."""
    out = []
    for i, (base, lead) in enumerate(leads.items()):
        effects = {t: (lead, lead) for t in ("AnB", "AnB+")}
        out += study(
            seeds, treatments=("base", "AnB", "AnB+"), layers=(1, 2), split=f"from_{base}", effects=effects, base=0.6,
            rng_seed=i, noise=noise, bits=bits, test_images=400,
        )  # fmt: skip
    return out
