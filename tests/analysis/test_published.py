import csv
import gzip

import pytest
from places import SHARED

from yosinski_jax.analysis import published, tables

FILES = SHARED / "published"

#: Mean accuracies by n of the published networks, as the study's notes give them.
BASES = {"random": 0.6251, "A": 0.6534, "B": 0.5372, "all": 0.5763}
TABLE = {
    "BnB": [0.6267, 0.6235, 0.6211, 0.6048, 0.5935, 0.6188, 0.6232],
    "BnB+": [0.6177, 0.6215, 0.6313, 0.6287, 0.6301, 0.6276, 0.6266],
    "AnB": [0.6282, 0.6239, 0.6189, 0.5998, 0.5780, 0.5806, 0.5425],
    "AnB+": [0.6373, 0.6358, 0.6426, 0.6398, 0.6446, 0.6460, 0.6465],
}
TO_MANMADE = [0.5392, 0.5214, 0.5008, 0.4616, 0.4098, 0.3742, 0.2914]
TO_NATURAL = [0.6571, 0.6506, 0.6250, 0.5824, 0.5219, 0.4851, 0.3990]
RANDOM = [0.4917, 0.4026, 0.0011, 0.0191, 0.0499, 0.0145, 0.0146]


def means(split, target=None):
    records = [
        r
        for r in published.records()
        if r["split"] == split and not r["images_per_class"] and target in (None, r["target"])
    ]
    table = tables.summary_table(records, published.STATISTIC)
    return {(r["treatment"], r["n"]): r["mean"] for r in table}


def test_means_equal_the_published_table():
    deviations = []

    def compare(found, treatment, values):
        for n, value in enumerate(values, 1):
            deviations.append(abs(found[treatment, n] - value))

    half = means("random")
    for treatment, values in TABLE.items():
        compare(half, treatment, values)
    for target, values in (("B", TO_MANMADE), ("A", TO_NATURAL)):
        found = means("manmade_natural", target)
        compare(found, "AnB", values)
        deviations.append(abs(found["base", 0] - BASES[target]))
    whole = means("all")
    compare(whole, "RnB", RANDOM)
    deviations += [abs(half["base", 0] - BASES["random"]), abs(whole["base", 0] - BASES["all"])]
    assert len(deviations) == 53
    assert max(deviations) < 1e-4


def test_boosts_equal_table_1_and_pairs_tell_another_story():
    rows = published.table_1(published.records())
    assert [r["layers"] for r in rows] == ["1–7", "3–7", "5–7"]
    for row in rows:
        assert abs(row["means"] - row["paper"]) < 0.002
        assert 0.009 < row["paired"] < 0.012
    assert [r["logs"] for r in rows] == [10, 7, 3]


def test_counts_of_networks():
    records = published.records()
    tables.check_records(records)
    assert len(records) == 148
    half = [r for r in records if r["split"] == "random"]
    assert {r["split_seed"] for r in half} == {0, 1, 2, 3}
    counts = {
        (r["treatment"], r["n"]): r["count"]
        for r in tables.summary_table(half, published.STATISTIC)
    }
    assert counts["base", 0] == counts["AnB", 4] == 8
    assert counts["BnB", 4] == 4
    assert counts["AnB+", 5] == 1
    natural = next(r for r in records if r["split"] == "manmade_natural" and r["name"] == "baseA")
    assert (natural["class_count"], natural["test_images"]) == (449, 22450)


def test_reduced_data_sets_are_apart():
    reduced = [r for r in published.records() if r["images_per_class"]]
    assert [r["images_per_class"] for r in reduced] == [
        1, 2, 5, 10, 25, 50, 100, 250, 500, 750, 1000, 1300,
    ]  # fmt: skip
    assert len({r["name"] for r in reduced}) == 12


def test_curves_end_near_the_last_evaluation():
    for r in published.records():
        assert r["curve"]["step"] == sorted(r["curve"]["step"])
        if r["steps"] == 450000 and r["curve"]["step"][-1] == 450000:
            assert r["curve"]["accuracy"][-1] == pytest.approx(r["accuracy"], abs=1e-4)


def test_the_packaged_figures_equal_the_logs():
    if not FILES.is_dir():
        pytest.skip(f"{FILES} is not here")
    ours = {r["environment"]["log"]: r for r in published.records()}
    with (FILES / "networks.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == len(ours)
    best: dict[str, list[float]] = {}
    with gzip.open(FILES / "curves.csv.gz", "rt") as f:
        for row in csv.DictReader(f):
            best.setdefault(row["directory"], []).append(float(row["top1"]))
    for row in rows:
        mine = ours[row["directory"]]
        assert mine["accuracy"] == float(row["top1_last"])
        assert mine["accuracy_mean_of_ten_best"] == float(row["top1_mean_of_ten_best"])
        assert mine["accuracy_best"] == max(best[row["directory"]])
        assert mine["n"] == int(row["n"])
        ten = sorted(best[row["directory"]])[-10:]
        assert sum(ten) / 10 == pytest.approx(mine["accuracy_mean_of_ten_best"], abs=1e-6)
