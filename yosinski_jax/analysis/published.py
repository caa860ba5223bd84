"""The authors' own networks as records: 148 accuracies of the 2014 study in the format of a sweep.

The numbers are in published_networks.csv and published_curves.csv beside this file, whose headers give
their sources. 148 of the paper's 163 networks have a log in the authors' repository; most fine-tuned
cells have only one or two.
"""

import csv
import statistics
from collections.abc import Mapping, Sequence
from importlib import resources

from yosinski_jax.analysis import effects
from yosinski_jax.analysis.tables import accuracy, summary_table

SOURCE = (
    "Yosinski, Clune, Bengio, Lipson: How transferable are features in deep neural networks? "
    "(NIPS 2014), training logs in github.com/yosinski/convnet_transfer"
)
#: The statistic that the paper reports for a network.
STATISTIC = "mean_of_ten_best"
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
#: The paper's Table 1: mean boost of AnB+ over baseB in accuracy, by the layers averaged over.
TABLE_1 = {(1, 7): 0.016, (3, 7): 0.018, (5, 7): 0.021}
_SPLITS = {"natural-manmade": ("manmade_natural", 0), "all-1000": ("all", 0)}
_TREATMENTS = {"random": "RnB"}
#: Classes by split and target: halves of 500; 449 natural (A) and 551 man-made (B) classes.
_CLASSES = {("manmade_natural", "A"): 449, ("manmade_natural", "B"): 551, ("all", "all"): 1000}
VALIDATION_IMAGES_PER_CLASS = 50


def _rows(name: str) -> list[dict[str, str]]:
    text = resources.files("yosinski_jax.analysis").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def records() -> list[dict]:
    """Returns the published networks in the form of `records.read_all`.

    Splits are "random" (seeds 0-3), "manmade_natural" (A natural, B man-made) and "all": networks
    on all 1000 classes, whose target is "all". Fields missing from the logs are None.
    """
    curves = {row.pop("directory"): row for row in _rows("published_curves.csv")}
    out = []
    for row in _rows("published_networks.csv"):
        split, seed = _SPLITS.get(row["split"], ("random", 0))
        if split == "random":
            seed = int(row["split"].removeprefix("random"))
        treatment = _TREATMENTS.get(row["treatment"], row["treatment"])
        target = row["target"] or "all"
        classes = _CLASSES.get((split, target), 500)
        n = int(row["n"])
        images = int(row["images_per_class"]) if row["images_per_class"] else None
        name = row["name"]
        if split == "all":
            name = f"R{n}all" if treatment == "RnB" else "baseAll"
        if images is not None:
            name = f"baseAll-{images:04d}"
        curve = [(int(i), float(a)) for i, a in curves[row["directory"]].items() if a]
        out.append(
            {
                "schema": 2,
                "name": name,
                "treatment": treatment,
                "n": n,
                "source": row["source"] or None,
                "target": target,
                "preserve": 0,
                "split": split,
                "split_seed": seed,
                "dataset": "imagenet2012",
                "network": "caffenet",
                "recipe": "paper",
                "layers": list(LAYERS),
                "classes": [],
                "class_count": classes,
                "images_per_class": images,
                "test_images": classes * VALIDATION_IMAGES_PER_CLASS,
                "status": "finished",
                "accuracy": float(row["last"]),
                "accuracy_best": float(row["best"]),
                "accuracy_mean_of_ten_best": float(row["mean_of_ten_best"]),
                "curve": {"step": [i for i, _ in curve], "accuracy": [a for _, a in curve]},
                "steps": int(row["last_iteration"]),
                "settings_digest": "published",
                "environment": {"source": SOURCE, "log": row["directory"]},
                "evaluations": int(row["evaluations"]),
            }
        )
    return out


def table_1(records_: Sequence[Mapping], statistic: str = STATISTIC) -> list[dict]:
    """Returns the paper's Table 1 next to two estimates from the published logs.

    The paper subtracts the mean of the bases from the mean of the AnB+ networks. Paired with the
    base of the same half the boost is smaller: the halves for which logs of AnB+ exist are B of
    splits 0 and 1, and B of split 0 is easier than the average half.

    Args:
      records_: records of the random halves.
      statistic: one of `analysis.STATISTICS`.

    Returns:
      Rows with `layers`, `paper`, `means` (unpaired, as the paper), `paired` (the average over
      layers of `effects.effect_rows`: pairs with logs at every one of them; None without any),
      `pairs` behind that and `logs`, the number of AnB+ networks.
    """
    half = [r for r in records_ if r["split"] == "random" and not r["images_per_class"]]
    cells = {(r["treatment"], r["n"]): r["mean"] for r in summary_table(half, statistic)}
    boost = effects.effect_rows(half, effects.BY_KEY["boost_over_base"], statistic)
    paired = {r["layers"]: r for r in boost if r["n"] is None}
    rows = []
    for (first, last), paper in TABLE_1.items():
        layers = range(first, last + 1)
        means = [cells[("AnB+", n)] - cells[("base", 0)] for n in layers if ("AnB+", n) in cells]
        mine = paired.get(f"{first}–{last}")
        rows.append(
            {
                "layers": f"{first}–{last}",
                "paper": paper,
                "means": statistics.fmean(means) if len(means) == len(layers) else None,
                "paired": mine and mine["value"],
                "pairs": mine["pairs"] if mine else 0,
                "logs": sum(
                    r["treatment"] == "AnB+" and r["n"] in layers and accuracy(r) is not None
                    for r in half
                ),
            }
        )
    return rows
