import csv
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import simulated
from places import ROOT
from scipy import stats

from experiments import coverage
from yosinski_jax.analysis import compare, effects, findings, scores, statistics, tables
from yosinski_jax.analysis import gabor as filters
from yosinski_jax.base.errors import UserError
from yosinski_jax.report import build


def named(key):
    return next(e for e in effects.ALL_EFFECTS if e.key == key)


def record(name, treatment, n, target, value, seed=0, **more):
    return {
        "name": name,
        "treatment": treatment,
        "n": n,
        "target": target,
        "split": "random",
        "split_seed": seed,
        "status": "finished",
        "accuracy": value,
        "settings_digest": "d",
        **more,
    }


# Tables


def test_summary_table_by_hand():
    rows = tables.summary_table(
        [
            record("baseA", "base", 0, "A", 0.90),
            record("baseB", "base", 0, "B", 0.94),
            record("A1B", "AnB", 1, "B", 0.80),
        ]
    )
    base, transfer = rows
    assert (base["n"], base["treatment"], base["count"]) == (0, "base", 2)
    assert base["mean"] == pytest.approx(0.92)
    # Standard deviation of 0.90 and 0.94 is 0.04 / sqrt(2); over sqrt(2) networks.
    assert base["standard_error"] == pytest.approx(0.02)
    assert transfer["standard_error"] is None
    assert transfer["count"] == 1


def test_the_difference_between_two_kinds_of_tasks_is_no_standard_error():
    """Natural and man-made tasks trained with two seeds: seven tenths of a point between seeds, 17 between tasks."""
    values = {("A", 0): 0.696, ("A", 1): 0.682, ("B", 0): 0.860, ("B", 1): 0.853}

    def table(split, chosen):
        more = {"split": split}
        return tables.summary_table(
            [record(f"base{t}", "base", 0, t, v, s, **more) for (t, s), v in chosen.items()]
        )[0]

    mine = table("manmade_natural", values)
    # Each task's mean has a standard error of half the difference of its two; halved again in the mean of both.
    by_hand = math.hypot(0.014 / 2, 0.007 / 2) / 2
    assert mine["mean"] == pytest.approx(0.77275)
    assert mine["standard_error"] == pytest.approx(by_hand)
    plain = np.std(list(values.values()), ddof=1) / 2
    assert table("random", values)["standard_error"] == pytest.approx(plain)
    lost = {key: v for key, v in values.items() if key != ("A", 1)}
    # A network less of one task does not move the mean toward the other.
    assert table("manmade_natural", lost)["mean"] == pytest.approx((0.696 + 0.8565) / 2)
    assert table("manmade_natural", lost)["standard_error"] is None
    assert table("random", lost)["mean"] == pytest.approx((0.696 + 0.86 + 0.853) / 3)
    # One network of each task: their difference is no error, and there is no other.
    once = {key: v for key, v in values.items() if not key[1]}
    assert table("manmade_natural", once)["standard_error"] is None
    assert table("random", once)["standard_error"] == pytest.approx(0.164 / 2)


def test_what_a_standard_error_is_over_is_said(tmp_path):
    for split, said in (
        ("manmade_natural", "over networks of the same target ("),
        ("random", "over networks ("),
    ):
        folder = tmp_path / split
        for r in simulated.study(2, split=split):
            simulated.write(folder, r)
        build.write_report(folder)
        for name in ("report.html", "table.md", "table.tex"):
            assert f"standard error {said}number" in " ".join(
                (folder / name).read_text().split()
            ), name


def test_diverged_networks_are_counted_and_in_no_mean():
    diverged = record("A1A", "BnB", 1, "A", 0.1) | {"status": "diverged"}
    rows = tables.summary_table([diverged, record("B1B", "BnB", 1, "B", 0.9)])
    assert rows[0]["mean"] == pytest.approx(0.9)
    assert (rows[0]["count"], rows[0]["diverged"]) == (1, 1)
    assert "90.0 (1, 1 diverged)" in tables.format_table(rows)


def test_format_table_has_a_row_for_each_n_and_columns_in_the_papers_order():
    text = tables.format_table(tables.summary_table(simulated.study(noise=0)))
    lines = text.splitlines()
    assert lines[0].split() == ["n", "base", "BnB", "BnB+", "AnB", "AnB+", "RnB"]
    assert [line.split()[0] for line in lines[2:]] == ["0", "1", "2", "3"]
    assert "82.6 ± 0.0 (8)" in lines[-1]
    assert tables.format_table([]) == "no finished network yet"


@pytest.mark.parametrize(
    ("statistic", "expected"), [("last", 0.5), ("best", 0.9), ("mean_of_ten_best", 0.7)]
)
def test_the_statistic_chooses_the_field(statistic, expected):
    r = record("baseA", "base", 0, "A", 0.5, accuracy_best=0.9, accuracy_mean_of_ten_best=0.7)
    assert tables.accuracy(r, statistic) == expected


def test_unknown_statistic_names_the_choices():
    with pytest.raises(UserError, match=r"statistic=median: unknown; choose from last, best"):
        tables.check_statistic("median")


def test_networks_with_preserved_layers_have_a_column_of_their_own():
    rows = tables.summary_table(
        [
            record("A1B", "AnB", 1, "B", 0.5),
            record("A1Bp1", "AnB", 1, "B", 0.7, preserve=1),
        ]
    )
    assert [(r["treatment"], r["mean"]) for r in rows] == [("AnB", 0.5), ("AnB p1", 0.7)]


def test_exports_escape_what_they_print():
    rows = tables.summary_table([record("baseA", "base", 0, "A", 0.5)])
    latex = tables.latex_table(rows, "a_b & 50 % {x}")
    assert r"a\_b \& 50 \% \{x\}" in latex
    assert latex.count(r"\\") == 2
    assert tables.markdown_table(rows).splitlines()[2] == "| 0 | 50.0 (1) |"
    assert tables._escape_markdown("a|b*c") == r"a\|b\*c"


def test_write_results_lists_missing_networks(tmp_path):
    records = simulated.study(seeds=1)
    tables.write_results(tmp_path, records[:-1], simulated.plan(records)["networks"])
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert len(rows) == len(records)
    missing = [r for r in rows if r["status"] == "missing"]
    assert [r["name"] for r in missing] == [records[-1]["name"]]
    assert missing[0]["accuracy"] == ""
    assert {"name", "treatment", "n", "source", "target", "split", "split_seed", "accuracy"} <= {
        *rows[0]
    }
    assert json.loads((tmp_path / "results.json").read_text())["summary"][0]["count"] == 2


def test_results_tell_what_was_held_out_stopped_and_tuned(tmp_path):
    base, *others = simulated.study(seeds=1, rates={"RnB": (0.1, 0.03)})
    curve = base["curve"] | {"validation_accuracy": [i / 20 for i in range(13)]}
    stopped = base | {
        "curve": curve, "chosen_step": 50, "stopped_at_step": 80, "validation_images": 65,
    }  # fmt: skip
    tables.write_results(tmp_path, [stopped, *others], [])
    rows = {r["name"]: r for r in csv.DictReader((tmp_path / "results.csv").open())}
    names = (
        "validation_images", "validation_accuracy", "chosen_step", "stopped_at_step", "learning_rate",
        "learning_rates_tried",
    )  # fmt: skip
    assert [rows["baseA"][n] for n in names] == ["65", "0.25", "50", "80", "", ""]
    tuned = next(r for r in others if r["treatment"] == "RnB")
    rates = tuned["tried"]["learning_rate"]
    expected = ["", "", "", "", str(tuned["learning_rate"]), " ".join(map(str, rates))]
    assert [rows[tuned["name"]][n] for n in names] == expected
    assert {rows["A1B"][n] for n in names} == {""}
    kept = json.loads((tmp_path / "results.json").read_text())["networks"]
    assert next(r for r in kept if r["name"] == "baseA")["chosen_step"] == 50


def test_mixed_settings_and_doubles_are_refused():
    a, b = simulated.study(seeds=1), simulated.study(seeds=1, digest="other")
    with pytest.raises(UserError, match=r"2 different settings.*random-0/baseA"):
        tables.check_records([*a, b[5]])
    with pytest.raises(UserError, match="random-0/baseA occurs twice"):
        tables.check_records([*a, a[0]])


# Intervals


def test_holm_by_hand():
    # Sorted: .01 x 3, .02 x 2, .04 x 1, each at least the one before.
    assert statistics.holm([0.04, 0.01, None, 0.02]) == pytest.approx(
        [0.04, 0.03, None, 0.04], nan_ok=True
    )
    assert statistics.holm([0.5, 0.6]) == [1.0, 1.0]


def test_the_interval_of_balanced_data_is_students_over_seed_means():
    values = [1.0, 3.0, 2.0, 4.0, 6.0, 4.0, 0.0, 2.0]
    seeds = [0, 0, 1, 1, 2, 2, 3, 3]
    e = statistics.mean(values, seeds)
    means = np.array([2.0, 3.0, 5.0, 1.0])
    half = 3.182446 * means.std(ddof=1) / 2
    assert e.value == pytest.approx(2.75)
    assert (e.high - e.low) / 2 == pytest.approx(half, rel=1e-6)
    assert (e.seeds, e.pairs, e.freedom) == (4, 8, pytest.approx(3))
    assert e.p == pytest.approx(stats.ttest_1samp(means, 0).pvalue)


def test_one_seed_gives_no_interval_and_no_test():
    e = statistics.mean([0.1, 0.2], [0, 0])
    assert (e.low, e.high, e.p) == (None, None, None)
    assert e.value == pytest.approx(0.15)


def test_equal_values_on_few_images_are_not_certain():
    """Four seeds that agree to the image could not tell half an image."""
    e = statistics.mean([1 / 220] * 4, range(4), resolution=1 / 220)
    assert e.low < 1 / 220 < e.high
    assert statistics.mean([0.0] * 4, range(4)).p == 1.0


def test_unequal_seeds_have_fewer_degrees_of_freedom():
    """One seed with most of the networks is most of the evidence."""
    e = statistics.mean([1.0, 1.2, 0.8, 1.1, 2.0, 3.0], [0, 0, 0, 0, 1, 2])
    assert 1 < e.freedom < 2
    # CR2 by hand: squared sums of residuals over (1 - share of the seed).
    residuals = np.array([1.0, 1.2, 0.8, 1.1, 2.0, 3.0]) - e.value
    sums = np.array([residuals[:4].sum(), residuals[4], residuals[5]])
    shares = np.array([4, 1, 1]) / 6
    assert e.error == pytest.approx(math.sqrt((sums**2 / (1 - shares)).sum()) / 6)


def test_equivalence_needs_a_margin_wider_than_the_interval():
    e = statistics.mean([0.001, -0.002, 0.003, 0.0], range(4))
    assert e.equivalence(0.02) < 0.01
    assert e.equivalence(0.0001) > 0.5
    half = statistics.student(0.95, 3) * e.error
    assert e.equivalence(abs(e.value) + half) == pytest.approx(0.05)
    assert statistics.mean([0.0], [0]).equivalence(0.02) is None


def test_seeds_needed_are_enough_and_one_fewer_is_not():
    e = statistics.mean([0.01, -0.03, 0.05, 0.02], range(4))
    k = statistics.seeds_needed(e, 0.02)
    spread = e.error * 2

    def told(k):
        error = spread / math.sqrt(k)
        return (
            statistics.student(0.975, k - 1) * error < e.value
            or e.value + statistics.student(0.95, k - 1) * error < 0.02
        )

    assert k > 4 and told(k) and not told(k - 1)
    far = statistics.mean([0.02, -0.02, 0.021, -0.0205], range(4))
    assert statistics.seeds_needed(far, 1e-6) is None


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (3, 0), (12, 4), (40, 39), (7, 30)])
@pytest.mark.parametrize("level", [0.05, 0.01])
def test_mcnemar_and_its_interval_agree(gained, lost, level):
    p = statistics.mcnemar(gained, lost)
    if gained + lost:
        assert p == pytest.approx(stats.binomtest(gained, gained + lost).pvalue)
    low, high = statistics.discordance_interval(gained, lost, 1000, level)
    assert low <= (gained - lost) / 1000 <= high
    assert (low > 0 or high < 0) == (p < level)


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.6])
@pytest.mark.parametrize("share", [0.5, 0.7, 1.0])
def test_the_interval_over_images_covers(rate, share):
    """Its coverage, summed over all outcomes of 40 images, is 95 % or more."""
    images, truth, covered = 40, rate * (2 * share - 1), 0.0
    for discordant in range(images + 1):
        for gained in range(discordant + 1):
            low, high = statistics.discordance_interval(gained, discordant - gained, images, 0.05)
            if low <= truth <= high:
                chance = stats.binom.pmf(discordant, images, rate)
                covered += chance * stats.binom.pmf(gained, discordant, share)
    assert covered >= 0.95


def test_holms_levels_agree_with_holms_p_values():
    rng = np.random.RandomState(0)
    for _ in range(200):
        p = [None if rng.rand() < 0.2 else float(rng.rand() ** 4) for _ in range(5)]
        for raw, corrected, level in zip(
            p, statistics.holm(p), statistics.holm_levels(p), strict=True
        ):
            if raw is not None:
                assert (raw < level) == (corrected < statistics.LEVEL)


def test_a_ratio_needs_a_denominator():
    with pytest.raises(ValueError, match="other than 0"):
        statistics.ratio([1.0], [0.0], [0])


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        ("--split_seeds=1", "error: --split_seeds=1: an interval needs at least 2"),
        ("--split_seeds=x", "error: --split_seeds=x: must be whole numbers"),
        ("--noise=foo", "error: --noise=foo: choose from normal, skewed, none_between"),
    ],
)
def test_coverage_of_nothing_is_one_line(flag, line):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.coverage", flag],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1


def test_coverage_of_the_intervals():
    """The 95 % intervals hold the truth in 92 to 98 % of 500 simulated studies."""
    found = coverage.coverage(500, 4)
    assert len(found) > 20
    for name, (share, count) in found.items():
        assert count >= 490, name
        assert 0.92 <= share <= 0.98, f"{name}: {share}"


# Gaps


def test_gaps_are_exact_without_noise():
    records = simulated.study(noise=0)
    for key, expected in (
        ("co_adaptation_drop", [0.002, 0.02, 0.004]),
        ("specificity_drop", [0.0, 0.01, 0.07]),
        ("recovery", [0.002, 0.02, 0.005]),
        ("boost_over_base", [0.001, 0.001, 0.002]),
        ("boost_over_selffer", [0.001, 0.001, 0.001]),
        ("gain_over_random", [0.008, 0.06, 0.276]),
        ("classroom_co_adaptation_gap", [0.0, 0.0, -0.001]),
        ("classroom_specificity_gap", [0.0, 0.01, 0.07]),
        ("classroom_fine_tuning_benefit", [0.003, 0.031, 0.076]),
    ):
        for direction, pairs in ((None, 8), ("A", 4), ("B", 4)):
            rows = effects.effect_rows(records, named(key), direction=direction)
            single = [r for r in rows if r["n"] is not None]
            assert [r["value"] for r in single] == pytest.approx(expected, abs=1e-12), key
            assert {r["pairs"] for r in single} == {pairs}


def test_pairs_share_seed_and_target():
    """B1B of seed 0 is compared with baseB of seed 0 and with no other base."""
    records = [
        record("baseA", "base", 0, "A", 0.5),
        record("baseB", "base", 0, "B", 0.9),
        record("baseB", "base", 0, "B", 0.1, seed=1),
        record("B1B", "BnB", 1, "B", 0.8),
    ]
    (row,) = effects.effect_rows(records, named("co_adaptation_drop"))
    assert row["value"] == pytest.approx(0.1)
    assert (row["pairs"], row["seeds"]) == (1, 1)


def test_a_gap_without_partners_is_no_number():
    records = simulated.study(treatments=("AnB",))
    for row in effects.all_rows(records):
        computable = row["effect"] == "total_drop"
        assert (row["value"] is not None) == computable
        assert (row["verdict"] != "none") == computable
    assert not findings.answers(records, "last", effects.all_rows(records))[0].answerable


def test_averages_over_layers_need_every_layer():
    boost = named("boost_over_base")
    rows = effects.effect_rows(simulated.study(noise=0), boost)
    averages = {r["layers"]: r["value"] for r in rows if r["n"] is None}
    # Of the paper's 1-, 3- and 5- only the first holds two layers here.
    assert averages == {"1–3": pytest.approx(0.004 / 3)}
    gappy = [r for r in simulated.study() if r["n"] != 2]
    assert all(r["n"] is not None for r in effects.effect_rows(gappy, boost))
    one_lost = [r for r in simulated.study() if (r["name"], r["split_seed"]) != ("A2B+", 0)]
    rows = effects.effect_rows(one_lost, boost)
    assert next(r for r in rows if r["n"] is None)["pairs"] == 7


def test_holm_runs_over_the_layers_of_one_gap():
    rows = effects.effect_rows(simulated.study(), named("co_adaptation_drop"))
    assert [r["p_holm"] for r in rows] == statistics.holm([r["p"] for r in rows])
    assert rows[1]["p_holm"] > rows[1]["p"]
    *single, average = effects.effect_rows(simulated.study(), named("boost_over_base"))
    assert [r["p_holm"] for r in single] == statistics.holm([r["p"] for r in single])
    assert average["p_holm"] == average["p"]


def test_a_base_that_is_always_wrong_counts():
    records = simulated.study(2, treatments=())
    records[0]["accuracy"] = 0.0
    assert len(effects.bases(records)) == 4


def test_diverged_networks_enter_no_gap():
    records = simulated.study(noise=0)
    for r in records:
        if r["name"] == "A3B" and r["split_seed"] == 0:
            r["status"], r["accuracy"] = "diverged", 0.1
    rows = effects.effect_rows(records, named("specificity_drop"))
    assert rows[2]["pairs"] == 7
    assert rows[2]["value"] == pytest.approx(0.07)


# Generality, suddenness, answers


def test_generality_score_by_hand():
    records = simulated.study(noise=0)
    over_random = scores.generality(records, "random")
    # n = 3: AnB .826, BnB .896, RnB .55, chance .2.
    assert over_random[2].estimate.value == pytest.approx((0.826 - 0.55) / (0.896 - 0.55))
    over_chance = scores.generality(records, "chance")
    assert over_chance[2].estimate.value == pytest.approx((0.826 - 0.2) / (0.896 - 0.2))
    # n = 1: BnB is .8 points above random features, too little to divide by.
    assert over_random[0].estimate is None
    assert "not clearly above random" in over_random[0].reason
    assert over_chance[0].estimate.value == pytest.approx(1.0)


def test_the_floor_is_random_features_where_there_are_any():
    assert scores.generality(simulated.study())[0].floor == "random"
    few = simulated.study(treatments=("BnB", "AnB"))
    assert scores.generality(few)[0].floor == "chance"


def test_suddenness_by_hand():
    found = scores.suddenness(simulated.study(noise=0))
    # Drops 0, .01, .07: the last step makes 6/7 of the whole.
    assert found.estimate.value == found.observed == pytest.approx(6 / 7)
    assert (found.step, found.even) == (3, pytest.approx(1 / 3))
    assert scores.suddenness(simulated.study(layers=(1, 3))).estimate is None


def test_the_largest_step_is_picked_on_the_other_seeds():
    """With steps of equal size the share is the even one, not the luckiest."""
    shares = []
    for seed in range(30):
        rng = np.random.RandomState(seed)
        records = []
        for s in range(4):
            for n in (1, 2, 3):
                drop = 0.03 * n + 0.01 * rng.randn()
                records.append(record(f"B{n}B", "BnB", n, "B", 0.9, seed=s))
                records.append(record(f"A{n}B", "AnB", n, "B", 0.9 - drop, seed=s))
        found = scores.suddenness(records)
        if found.estimate is not None:
            shares.append(found.estimate.value)
    assert np.mean(shares) == pytest.approx(1 / 3, abs=0.06)


# Comparisons


def test_equal_tasks_are_compared_pair_by_pair():
    a, b = simulated.study(noise=0.02), simulated.study(noise=0.02)
    for r in b:
        r["accuracy"] -= 0.01
    rows = compare.rows(a, b, ("last", "last"))
    assert all(r["value"] == pytest.approx(0.01) for r in rows)
    assert all(r["high"] - r["low"] < 1e-3 for r in rows)
    assert rows[0]["pairs"] == 8


def test_all_numbers_of_a_paired_comparison_are_of_the_pairs():
    a = simulated.study(4, noise=0.02)
    b = [r | {"accuracy": r["accuracy"] - 0.01} for r in a if r["split_seed"] < 2]
    for row in compare.rows(a, b, ("last", "last")):
        assert row["ours"] - row["theirs"] == pytest.approx(row["value"]) == pytest.approx(0.01)
        assert row["drop_ours"] == pytest.approx(row["drop_theirs"])


def test_amounts_of_data_are_compared_pair_by_pair():
    a, b = (simulated.study(2, noise=0, digest=d) for d in "ab")
    for record in a:
        record["images_per_class"] = 50
    for record in b:
        record["images_per_class"] = 130
    rows = compare.rows(a, b, ("last", "last"))
    assert len(rows) == 16 and all(r["pairs"] == 4 for r in rows)


def test_different_tasks_are_compared_by_means():
    a, b = simulated.study(), simulated.study(rng_seed=1)
    for r in b:
        r["classes"] = ["5", "6", "7", "8", "9"]
    rows = compare.rows(a, b, ("last", "last"))
    assert {r["pairs"] for r in rows} == {0}
    assert all(r["low"] < 0 < r["high"] for r in rows if r["treatment"] == "base")
    alone = compare.rows(a, simulated.study(1, rng_seed=1, digest="x"), ("last", "last"))
    assert alone  # same classes: paired, on one seed
    assert all(r["low"] is None for r in alone)


# Filters


def _grid(size):
    x = np.arange(size) - (size - 1) / 2
    return np.meshgrid(x, x)


def gabor(size, frequency, angle, phase, color):
    x, y = _grid(size)
    u = x * math.cos(angle) + y * math.sin(angle)
    envelope = np.exp(-(x**2 + y**2) / 2 / (size / 5) ** 2)
    return (envelope * np.cos(2 * math.pi * frequency * u + phase))[..., None] * color


def blob(size, x0, width, color):
    x, y = _grid(size)
    return np.exp(-((x - x0) ** 2 + y**2) / 2 / width**2)[..., None] * color


def test_filters_are_told_apart():
    rng = np.random.RandomState(0)
    kernel, expected = [], []
    for _ in range(5):
        color = rng.randn(3)
        kernel.append(gabor(11, rng.uniform(0.1, 0.4), rng.uniform(0, 3), rng.uniform(0, 6), color))
        kernel.append(blob(11, rng.uniform(-2, 2), rng.uniform(2, 4), rng.randn(3)))
        kernel.append(rng.randn(11, 11, 3))
        expected += ["gabor", "blob", "neither"]
    kernel = np.stack(kernel, -1) + 0.02 * rng.randn(11, 11, 3, 15)
    kernel[..., 2] *= 1e-9
    expected[2] = "dead"
    fits = filters.fit_all(kernel)
    assert [f.label for f in fits] == expected
    assert fits[0].gabor > 0.9
    assert filters.counts(fits) == {"gabor": 5, "blob": 5, "neither": 4, "undecided": 0, "dead": 1}


def test_filters_of_few_weights_are_left_undecided():
    kernel = np.random.RandomState(0).randn(3, 3, 1, 4)
    assert {f.label for f in filters.fit_all(kernel)} == {"undecided"}
    with pytest.raises(ValueError, match="not finite"):
        filters.fit_all(kernel * np.nan)
    with pytest.raises(ValueError, match="axes"):
        filters.fit_all(kernel[0])
