import dataclasses

import numpy as np
import pytest
from measured import study

from yosinski_jax.analysis import predictors as p
from yosinski_jax.analysis import predictors_words as words


def by_name(found, drop=p.SPECIFICITY):
    return {f.measure: f for f in found if f.drop == drop}


def test_drops_are_those_of_the_definition():
    records, _ = study(pairs=1)
    found = {(d.kind, d.target, d.n): d for d in p.drops(records)}
    assert len(found) == 16
    one = found[p.SPECIFICITY, "B", 2]
    transfer = next(r for r in records if (r["treatment"], r["target"], r["n"]) == ("AnB", "B", 2))
    assert one.points == pytest.approx(100 * (0.88 - transfer["accuracy"]))
    assert (one.network, one.layer) == ("random-0/baseA", "conv2")  # whose features are transferred
    assert found[p.COADAPTATION, "B", 2].points == pytest.approx(2)
    assert found[p.COADAPTATION, "B", 2].network == "random-0/baseB"


def test_diverged_and_missing_networks_are_passed_over():
    records, _ = study(pairs=1)
    records[0]["status"] = "diverged"  # baseA
    kinds = [(d.kind, d.target) for d in p.drops(records)]
    assert (p.COADAPTATION, "A") not in kinds and (p.SPECIFICITY, "A") in kinds


def test_a_measure_that_knows_each_drop_is_told_from_depth():
    records, values = study()
    found = by_name(p.predictors(values, records))
    assert found["good"].adds and found["good"].beyond.value < -0.8
    assert found["good"].error_with_depth < 0.5 * found["good"].error_depth
    # Runs with depth: perfectly correlated over layers, and yet worth nothing beyond it.
    assert found["deep"].along.value < -0.9 and not found["deep"].adds
    assert not found["noise"].adds
    assert found["depth"].beyond is None and found["depth"].seconds == 0
    assert found["good"].points == 48 and found["good"].pairs == 6


def test_noise_is_seldom_said_to_add():
    wrong = sum(
        by_name(p.predictors(v, r))["noise"].adds
        for r, v in (study(pairs=4, seed=s) for s in range(40))
    )
    assert wrong <= 4


def test_the_left_out_pair_is_not_seen():
    records, values = study(pairs=2)
    before = by_name(p.predictors(values, records))["depth"].error_depth
    drops = [d for d in p.drops(records) if d.kind == p.SPECIFICITY]
    guess = {
        (d.pair, n): np.mean([e.points for e in drops if e.pair != d.pair and e.n == n])
        for d in drops for n in range(1, 5)
    }  # fmt: skip
    errors = [d.points - guess[d.pair, d.n] for d in drops]
    assert before == pytest.approx(np.sqrt(np.mean(np.square(errors))))


def test_jackknife_of_a_mean_is_students_interval():
    x = np.array([0.1, 0.4, 0.3, 0.6])
    found = p.jackknife(lambda kept: float(x[kept].mean()), np.arange(4))
    half = 3.182446 * x.std(ddof=1) / 2
    assert (found.low, found.high) == pytest.approx((0.35 - half, 0.35 + half), abs=1e-5)
    assert p.jackknife(lambda kept: float(x[kept].mean()), np.zeros(4)).low is None


def test_spearman_with_ties_and_constants():
    assert p.spearman(np.array([1, 2, 3, 4]), np.array([1, 4, 9, 16])) == pytest.approx(1)
    assert p.spearman(np.array([1, 1, 2, 3]), np.array([3, 3, 2, 1])) == pytest.approx(-1)
    assert np.isnan(p.spearman(np.ones(4), np.arange(4)))


def test_answers_hold_whatever_comes_out():
    records, values = study()
    text = " ".join(words.answer(p.predictors(values, records), records, values))
    assert (
        "Specificity: beyond the depth of the cut, good (ρ = -" in text
        and "is shown to predict it" in text
    )
    # Every selffer falls short by the same two points: nothing to rank.
    assert "Co-adaptation" in text and "nan" not in text
    without = [v for v in values if v.measure != "good"]
    text = " ".join(words.answer(p.predictors(without, records), records, without))
    assert (
        "none of 2 measures is shown to predict more than the depth" in text
        and "no proof that none does" in text
    )
    one = study(pairs=1)
    text = " ".join(words.answer(p.predictors(one[1], one[0]), *one))
    assert "one pair of tasks gives no interval" in text and "shown" not in text
    assert words.answer([], [], [])[0].startswith("No pair of tasks")


def test_table_and_file(tmp_path):
    records, values = study(pairs=2)
    values.append(p.Value("random-0/baseA", "conv1", "features", 9, 3.0))
    found = p.predictors(values, records)
    assert "features" not in by_name(found) and p.feature_seconds(values) == 3.0
    table = words.csv_table(found).splitlines()
    assert table[0].split(",") == list(words.COLUMNS) and len(table) == len(found) + 1
    assert "good" in words.text_table(found)
    (tmp_path / "measures.csv").write_text(
        "network,layer,measure,value,seconds\nrandom-0/baseA,conv1,cka,,0.1\nrandom-0/baseA,conv1,rank,x,0.1\n"
    )
    (read,) = p.read(tmp_path)
    assert read.measure == "cka" and np.isnan(read.value)
    assert p.read(tmp_path / "none") == []


def test_pairs_that_agree_exactly_give_no_interval_of_no_width():
    groups = np.repeat([0, 1, 2], 4)
    same = p.jackknife(lambda kept: 0.8, groups)
    assert same is not None and (same.value, same.low, same.p) == (0.8, None, None)
    values = np.repeat([0.1, 0.2, 0.6], 4)
    found = p.jackknife(lambda kept: float(values[kept].mean()), groups)
    assert found is not None and found.low is not None and found.low < 0.3 < found.value + 1e-9


def test_seconds_of_measures_of_like_names_all_count():
    records, values = study(pairs=2)
    values = [
        dataclasses.replace(
            v, measure={"good": "cka", "noise": "cka_seed"}.get(v.measure, v.measure)
        )
        for v in values
    ]
    values = [dataclasses.replace(v, seconds=2.0 if v.measure == "cka" else 1.0) for v in values]
    assert p.measure_seconds(values) == 16 * (2 + 1 + 1)
    assert "took 64.0 s, plus" in words.answer(p.predictors(values, records), records, values)[-1]


def test_one_pair_of_tasks_trained_again_is_one_pair():
    """Whatever differs between two tasks' bases goes with the difference of their drops, in every seed alike."""
    records, values = study(pairs=3)
    for r in records:
        r |= {"classes": [r["target"]], "split": "manmade_natural"}
        if (r["treatment"], r["target"]) == ("AnB", "A"):
            r["accuracy"] -= 0.1
    values = [
        dataclasses.replace(
            v,
            network=v.network.replace("random", "manmade_natural"),
            value=v.value + 50 * v.network.endswith("baseB") if v.measure == "noise" else v.value,
        )
        for v in values
    ]
    found = p.predictors(values, records)
    text = " ".join(words.answer(found, records, values))
    assert "one pair of tasks gives no interval" in text and "shown to predict" not in text
    assert {(f.pairs, f.points, f.adds) for f in found if f.drop == p.SPECIFICITY} == {
        (1, 24, False)
    }
    # Over the layers, each seed and direction still has its own correlation.
    each = [
        p.spearman(*(np.array([getattr(d, x) for d in mine]) for x in ("n", "points")))
        for t in "AB"
        for s in range(3)
        if (
            mine := [
                d
                for d in p.drops(records)
                if (d.kind, d.target) == (p.SPECIFICITY, t) and f"-{s}/" in d.network
            ]
        )
    ]
    assert len(each) == 6
    assert by_name(found)["depth"].along.value == pytest.approx(np.mean(each))
    for r in records:
        r["split"] = "random"
        r["classes"] = [f"{r['target']}{r['split_seed']}"]
    values = [
        dataclasses.replace(v, network=v.network.replace("manmade_natural", "random"))
        for v in values
    ]
    assert {f.pairs for f in p.predictors(values, records)} == {3}


@pytest.mark.parametrize(("measure", "said"), [("noise", "noise is not shown"), (None, "")])
def test_answers_of_one_measure_or_none(measure, said):
    records, values = study(pairs=3)
    values = [v for v in values if v.measure == measure]
    text = " ".join(words.answer(p.predictors(values, records), records, values))
    assert said in text and "none of" not in text and "picked among" not in text
