import math

import numpy as np
import pytest

from yosinski_jax.analysis import target_size


def records(freeze, tune, scratch, *, seeds=4, noise=0.001, sizes=(1, 25, None)):
    """Networks with n = 1 whose accuracies by size are known; pairs share a common offset."""
    rng = np.random.default_rng(0)
    out = []
    for seed in range(seeds):
        for target in "AB":
            hard = 0.1 * rng.standard_normal()  # shared by all three, so it must not count
            for i, images in enumerate(sizes):
                for treatment, n, means in (
                    ("AnB", 1, freeze),
                    ("AnB+", 1, tune),
                    ("base", 0, scratch),
                ):
                    value = means[i] + hard + noise * rng.standard_normal()
                    out.append(
                        {
                            "treatment": treatment, "n": n, "target": target, "split_seed": seed, "preserve": 0,
                            "images_per_class": images, "accuracy": value, "status": "finished",
                            "parameters_trained": 1000, "train_images": 5 * (images or 100),
                        }
                    )  # fmt: skip
    return out


def test_the_best_way_by_size_and_its_boundaries():
    rows = target_size.cells(records((0.5, 0.6, 0.6), (0.4, 0.7, 0.7), (0.3, 0.5, 0.8)))
    assert [(c.images, c.best, c.told) for c in rows] == [
        (1, "freeze", True), (25, "fine-tune", True), (math.inf, "train from scratch", True)
    ]  # fmt: skip
    assert rows[0].leads["fine-tune"].value == pytest.approx(0.1, abs=0.003)
    assert rows[0].ratio["freeze"] == 200
    first, second = target_size.boundaries(rows)
    assert (first.first, first.then, first.between, first.told) == (
        "freeze",
        "fine-tune",
        (1, 25),
        (1, 25),
    )
    assert second.between == (25, math.inf)
    assert target_size.answer(rows) == [
        "Freeze: n = 1 at 1 image per class.",
        "Fine-tune: n = 1 at 25 images per class.",
        "Train from scratch: n = 1 at all images.",
    ]


def test_a_way_that_is_told_not_to_be_best_is_named():
    rows = target_size.cells(
        records((0.2, 0.9), (0.7, 0.9), (0.7, 0.9), sizes=(1, 25), noise=0.002)
    )
    assert not any(c.told for c in rows)
    lines = target_size.answer(rows)
    assert (
        lines[0]
        == "Do not freeze: n = 1 at 1 image per class (significantly behind the best mean)."
    )
    assert lines[1].startswith(
        "In every combination of n and target size, no way is significantly ahead"
    )


def test_equal_ways_and_single_seeds_cannot_be_told():
    same = (0.5, 0.6, 0.7)
    rows = target_size.cells(records(same, same, same, noise=0.01))
    assert not any(c.told for c in rows)
    (line,) = target_size.answer(rows)
    assert line.startswith(
        "In every combination of n and target size, no way is significantly ahead"
    )
    assert "4 split seeds" in line
    rows = target_size.cells(records((0.9,), (0.5,), (0.1,), seeds=1, sizes=(1,)))
    assert rows[0].best == "freeze" and not rows[0].told and rows[0].leads["fine-tune"].low is None
    assert "one split seed" in target_size.answer(rows)[0]


def test_incomplete_cells_are_left_out():
    some = [r for r in records((0.5,), (0.4,), (0.3,), sizes=(5,)) if r["treatment"] != "AnB+"]
    assert target_size.cells(some) == [] and target_size.answer([]) == []


def test_intervals_of_leads_agree_with_what_is_called_significant():
    """Uncorrected intervals would exclude 0 beside leads that Holm's procedure does not accept."""
    rng = np.random.default_rng(1)
    disagreed = 0
    for _ in range(20):
        means = (0.5 + 0.01 * rng.standard_normal((3, 3))).tolist()
        rows = target_size.cells(records(*means, noise=0.006))
        for lead in (lead for c in rows for lead in c.leads.values()):
            assert lead.significant == (lead.low > 0 or lead.high < 0)
            disagreed += lead.p_holm >= 0.05 > lead.p_holm / (2 * len(rows))
    assert disagreed > 10


def test_few_seeds_that_agree_by_chance_are_not_certain():
    rows = target_size.cells(
        [
            r | {"test_images": 220}
            for r in records((0.5,), (0.5,), (0.5 - 1 / 220,), seeds=2, noise=0, sizes=(5,))
        ]
    )
    assert not rows[0].told


@pytest.mark.parametrize(
    ("added", "words"),
    [
        (
            0.2,
            "Fine-tuning widens the train–test gap compared with freezing: n = 1 at 5 images per class, by 20.0 points",
        ),
        (
            -0.2,
            "Fine-tuning narrows the train–test gap compared with freezing: n = 1 at 5 images per class, by 20.0 points",
        ),
        (0.0, "In every combination of n and target size, the train–test gap is inconclusive"),
    ],
)
def test_overfitting_by_target_size(added, words):
    rng = np.random.default_rng(2)
    found = records((0.5,), (0.6,), (0.3,), sizes=(5,))
    assert target_size.overfitting(target_size.cells(found)) == []
    for r in found:
        gap = 0.1 + (added if r["treatment"] == "AnB+" else 0.0) + 0.0001 * rng.standard_normal()
        r["curve"] = {"train_accuracy": [r["accuracy"] + gap]}
    (row,) = target_size.cells(found)
    assert row.gap["freeze"] == pytest.approx(0.1, abs=0.001)
    assert row.wider.value == pytest.approx(added, abs=0.001)
    (line,) = target_size.overfitting([row])
    assert words in line


def test_cells_of_fewer_seeds_are_not_said_of_the_others():
    found = records((0.5, 0.5), (0.5, 0.5), (0.5, 0.5), noise=0.01, sizes=(5, 25))
    for r in found:
        r["curve"] = {"train_accuracy": [0.9]}
    rows = target_size.cells(
        [r for r in found if r["images_per_class"] == 5 or not r["split_seed"]]
    )
    for line in (*target_size.answer(rows), *target_size.overfitting(rows)):
        assert (
            "1 to 4 split seeds, Holm-corrected over the map; one alone gives no interval" in line
        )
    alone = target_size.cells([r for r in found if not r["split_seed"]])
    assert "(one split seed gives no interval)" in target_size.overfitting(alone)[0]
