"""What the page once said wrongly, case by case; test_truth.py checks every sentence over a grid."""

import dataclasses
import re

import numpy as np
import pytest
import simulated
from scipy import stats

from yosinski_jax.analysis import contrasts, effects, findings, published, scores, statistics
from yosinski_jax.analysis.readings import readings
from yosinski_jax.analysis.results import Study, read_published
from yosinski_jax.analysis.verdicts import ON_IMAGES
from yosinski_jax.analysis.wording import gap_text
from yosinski_jax.report import figures, filters
from yosinski_jax.report.sections import answers as answer_section
from yosinski_jax.report.sections import tables as table_section
from yosinski_jax.report.sections.comparison import compared
from yosinski_jax.report.sections.report import Report
from yosinski_jax.report.sections.reproduce import method


def answered(records, margin=statistics.MARGIN):
    """The answers of one split by the beginning of their question, and the notes before them."""
    rows = effects.all_rows(records, "last", margin)
    found = findings.answers(records, "last", rows)
    return found, findings.notes(records, rows, "last")


def text_of(answer):
    return " ".join([answer.short.text, *(f.text for f in answer.findings)])


def report_of(records, **more):
    study = Study("digits", "digits", tuple(records), (), {}, (), "last", None)
    study = dataclasses.replace(study, **more)
    rows = {s: effects.all_rows(study.of(s), study.statistic, study.margin) for s in study.splits}
    return Report(study, rows)


def study_with(values, n=1):
    """Records in which BnB − AnB at n has exactly these values, one a split seed."""
    quiet = {t: (0.0, 0.0, 0.0) for t in simulated.EFFECTS}
    records = simulated.study(len(values), noise=0, effects=quiet)
    for r in records:
        if r["treatment"] == "AnB" and r["n"] == n:
            r["accuracy"] -= values[r["split_seed"]]
    return records


def test_a_significant_gain_is_no_want_of_a_drop():
    gain = {t: (0.02, 0.02, 0.02) if t == "AnB" else (0.0, 0.0, 0.0) for t in simulated.EFFECTS}
    (general, *_), _ = answered(simulated.study(effects=gain, noise=0.0005))
    assert general.short.text.startswith("better than the task’s own")
    assert "inconclusive" not in text_of(general) and "general" not in general.short.text


def test_want_of_power_is_not_generality():
    """12.0 points [−6.3, 30.3]: neither specific nor general, and the page says what would tell."""
    records = study_with([0.04, 0.25, 0.02, 0.17])
    (general, *_), _ = answered(records)
    assert re.search(
        r"inconclusive with these seeds \(would need about \d+\) at n = 1", text_of(general)
    )
    assert "general within ±2 points at n = 2 and 3" in general.short.text
    # The margin is a setting: what is within 2 points is not within a tenth of one.
    (wide, *_), _ = answered(study_with([0.001, 0.009, 0.004, 0.006]), margin=0.02)
    (narrow, *_), _ = answered(study_with([0.001, 0.009, 0.004, 0.006]), margin=0.001)
    assert "general within ±2 points" in wide.short.text
    assert "inconclusive with these seeds" in narrow.short.text


def test_intervals_beside_verdicts_agree_with_them():
    """An uncorrected interval would exclude 0 where Holm's procedure does not."""
    rng = np.random.RandomState(3)
    disagreed = 0
    for trial in range(40):
        small = {t: tuple(0.004 * rng.randn(3)) for t in simulated.EFFECTS}
        records = simulated.study(effects=small, noise=0.003, rng_seed=trial)
        for r in effects.all_rows(records):
            assert (r["low"] > 0 or r["high"] < 0) == (r["verdict"] in ("above", "below"))
            disagreed += r["p"] < 0.05 <= r["p_holm"]
    assert disagreed > 20  # or the trials could not have shown it


@pytest.mark.parametrize("trial", range(5))
def test_verdicts_do_not_depend_on_draws(trial):
    """The p value of a balanced design is that of the t test of the seeds' means: no bootstrap."""
    values = np.random.RandomState(trial).randn(4) * 0.01 + 0.016
    row = effects.effect_rows(study_with(values), effects.BY_KEY["specificity_drop"])[0]
    exact = stats.ttest_1samp(values, 0)
    assert row["p"] == pytest.approx(exact.pvalue, rel=1e-6)
    single = statistics.mean(values, range(4))
    assert (single.low, single.high) == pytest.approx(tuple(exact.confidence_interval(0.95)))


def test_one_generality_score_everywhere():
    """Below 0, so that clipping would show: answer, table and figure give the same number."""
    records = simulated.study(effects=simulated.EFFECTS | {"RnB": (-0.01, -0.09, -0.052)})
    report = report_of(records)
    mine = scores.generality(records)[2]
    assert mine.estimate and mine.estimate.value < 0
    expected = findings.score_text(mine)
    assert expected.startswith("−")
    (general, *_), _ = answered(records)
    assert f"{expected} at n = 3" in text_of(general)
    part = table_section(report)
    (split,) = [s for s in part.values["splits"] if s["scores"]]
    assert split["scores"].rows[2] == [3, expected]
    (item,) = [
        i
        for i in figures.gaps(report.study, "random", report.rows["random"])
        if i.name == "generality_random"
    ]
    assert dict(item.rows)["3"] == expected
    (drawn,) = item.drawing.arguments["rows"].values()
    assert drawn[-1]["value"] == mine.estimate.value


def test_man_made_and_natural_classes_are_no_halves():
    """CIFAR-10 has 4 and 6 of them."""
    base = simulated.study(1, treatments=("base",))[0]
    whole = [base | {"split": "all", "target": "all", "accuracy": 0.7}]
    for split, words in (
        ("random", "half the classes are easier by "),
        ("manmade_natural", "each part of the classes is, on average, easier by "),
    ):
        first = readings(simulated.study(3, split=split), whole=whole)[0]
        assert first.number == 1 and first.text.startswith(words)


def test_intervals_of_one_pair_of_tasks_are_said_to_hold_for_that_pair():
    said = lambda records: dict(method(report_of(records)).values["facts"])["Intervals"]
    assert said(simulated.study(2, split="manmade_natural")).endswith("hold for that pair.")
    assert "that pair" not in said(simulated.study(2)) + said(simulated.study(1, split="own"))


def test_one_pair_of_tasks_trained_again_is_one_pair():
    records = simulated.study(2, split="manmade_natural")
    _, (scope, *_) = answered(records)
    assert scope.text.startswith("One pair of tasks, trained 2 times")
    assert "not for other tasks" in scope.text
    assert effects.task_pairs(records) == 1
    _, (scope, *_) = answered(simulated.study(2))
    assert scope.text.startswith("2 split seeds: intervals hold for other random halves")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(seeds=4), "other random halves of digits"),
        (dict(seeds=3, split="manmade_natural"), "not for other tasks"),
        (dict(seeds=1, bits=True), "hold for these networks only"),
        (dict(seeds=1), "neither intervals nor tests"),
    ],
)
def test_the_scope_of_inference_stands_before_the_answers(arguments, words):
    part = answer_section(report_of(simulated.study(**arguments)))
    assert part and words in part.values["splits"][0]["notes"][0].text


def test_published_answers_tell_what_they_rest_on():
    study = read_published()
    mine = study.of("random")
    rows = effects.all_rows(mine, study.statistic)
    found = findings.answers(mine, study.statistic, rows)
    by_question = {a.question: text_of(a) for a in found}
    general = by_question["How general is each layer?"]
    # Logs of BnB exist for target A only.
    assert "4 pairs from 4 split seeds at each n, all with target A" in general
    recovered = by_question["Does fine-tuning recover what cutting a network loses?"]
    assert "not testable at n = 1, 2, 4 and 7" in recovered
    assert "(1 pair, 1 seed)" in recovered and "at n = 5 (2 pairs, 2 seeds)" in recovered
    helped = by_question[
        "Does a network that has seen the other task end up better after fine-tuning?"
    ]
    average = next(r for r in published.table_1(mine) if r["layers"] == "1–7")
    assert f"layers 1–7 on average: {100 * average['paired']:.2f} point" in helped
    table = answer_section(
        Report(study, {s: effects.all_rows(study.of(s), study.statistic) for s in study.splits})
    )
    assert table.values["table_1"].rows[0][3] == f"{100 * average['paired']:.2f}"


def test_one_seed_is_tested_on_its_test_images():
    records = simulated.study(1, bits=True, test_images=3000)
    (general, *_), (scope, *_) = answered(records)
    assert "McNemar" in scope.text and "these networks only" in scope.text
    assert general.short.text.startswith("specific at n = 2 and 3")
    assert general.short.text.endswith(ON_IMAGES)
    row = effects.effect_rows(records, effects.BY_KEY["specificity_drop"])[2]
    own, other = (
        [
            effects.correct_bits(r)
            for r in sorted(records, key=lambda r: r["target"])
            if (r["treatment"], r["n"]) == (t, 3)
        ]
        for t in ("BnB", "AnB")
    )
    a, b = np.concatenate(own), np.concatenate(other)
    counts = int((a & ~b).sum()), int((b & ~a).sum())
    assert row["p"] == pytest.approx(stats.binomtest(counts[0], sum(counts)).pvalue)
    assert row["scope"] == "images" and row["verdict"] == "above"


def test_sections_that_say_nothing_are_left_out(tmp_path):
    # Filters of 3 x 3 gray pixels have too few weights to tell a Gabor function from a blob.
    records = simulated.study(1)
    for r in records:
        folder = tmp_path / "checkpoints" / "random-0" / r["name"]
        if r["treatment"] == "base":
            folder.mkdir(parents=True)
            np.savez(folder / "first_layer.npz", kernel=np.random.RandomState(0).randn(3, 3, 1, 8))
    study = dataclasses.replace(report_of(records).study, folder=tmp_path)
    assert filters.first_layers(study) == []
    # Letters of random halves are arbitrary: no table for each; those of named halves mean something.
    folded = lambda split: [
        title
        for s in table_section(report_of(simulated.study(2, split=split))).values["splits"]
        for title, _ in s["folded"]
    ]
    assert not [t for t in folded("random") if "target" in t]
    assert [t for t in folded("manmade_natural") if "→" in t]
    # A question without an answer is no card.
    part = answer_section(report_of(simulated.study(4, treatments=("BnB", "AnB"))))
    (split,) = part.values["splits"]
    assert "Are features of the other task better than random ones?" not in [
        a.question for a in split["known"]
    ]


def test_dissimilar_tasks_are_tested_and_so_is_the_slope():
    """Intervals that do not overlap are no test: the slope over n has one of its own."""
    near = simulated.study(
        8, noise=0.002, effects=simulated.EFFECTS | {"AnB": (-0.01, -0.02, -0.03)}
    )
    steep = simulated.study(
        1,
        split="manmade_natural",
        effects=simulated.EFFECTS | {"AnB": (-0.01, -0.06, -0.11)},
        noise=0.002,
    )
    answer = contrasts.dissimilar_tasks(near, steep, "last")
    assert answer.short.text == "yes, more is lost; the loss grows faster with n"
    assert answer.findings[0].text.count("p < 0.001") == 2
    alike = simulated.study(1, split="manmade_natural", noise=0.002, rng_seed=5,
                            effects=simulated.EFFECTS | {"AnB": (-0.01, -0.02, -0.03)})  # fmt: skip
    same = contrasts.dissimilar_tasks(near, alike, "last")
    assert "inconclusive" in same.short.text


def test_random_features_at_few_images_are_drawn_and_answered():
    records = []
    for amount, drop in ((5, 0.02), (100, 0.2)):
        lost = {"RnB": (-drop, -drop, -drop)}
        for r in simulated.study(4, treatments=("RnB",), effects=lost, base=0.7, rng_seed=amount):
            records.append(r | {"images_per_class": amount})
    study = report_of(records).study
    (item,) = figures.amount_of_data([study])
    assert any(line.startswith("RnB, n = ") for line in item.drawing.arguments["lines"])
    (answer,) = [
        a
        for a in answer_section(report_of(records)).values["more"]
        if "images are few" in a.question
    ]
    assert answer.short.text == "yes at every n"


def test_ceiling_and_chance_are_told_of_each_task():
    """Their mean, 57.5 %, is neither; and each task has a chance level of its own, also where another base diverged."""
    records = simulated.study(2, split="manmade_natural", noise=0)
    for r in records:
        natural = r["target"] == "A"
        r["classes"] = list("abcdef" if natural else "wxyz")
        r["accuracy"] = 0.16 if natural else 0.99
    told = lambda found: [(f.code, f.text) for f in answered(found)[1][1:]]
    (floor, low), (ceiling, high) = told(records)
    assert (floor, ceiling) == ("floor", "ceiling")
    assert low.startswith("The bases with target A reach 16.0 % on average and chance is 16.7 %")
    assert high.startswith("Ceiling: the bases with target B reach 99.0 %")
    for r in records:
        r["accuracy"] = 0.5 if r["target"] == "A" else 0.26
        r["status"] = "diverged" if r["name"] == "baseA" else "finished"
    ((floor, low),) = told(records)
    assert low.startswith("The bases with target B reach 26.0 % on average and chance is 25.0 %")


def test_gaps_over_unequally_many_images_are_said_not_to_be_differences_of_the_means():
    equal = simulated.study(1, bits=True, test_images=400)
    smaller = simulated.study(1, bits=True, test_images=200)
    unequal = [a if a["target"] == "A" else b for a, b in zip(equal, smaller, strict=True)]
    _, (scope, *_) = answered(unequal)
    assert "of which target A has more; mean accuracies count both targets alike." in scope.text
    _, (scope, *_) = answered(equal)
    assert "McNemar" in scope.text and "has more" not in scope.text


def test_a_ceiling_is_told():
    _, notes = answered(
        simulated.study(base=0.99, noise=0.0, effects={t: (0.0,) * 3 for t in simulated.EFFECTS})
    )
    assert any(f.text.startswith("Ceiling: the bases reach 99.0 %") for f in notes)
    # Also with a margin narrower than what is left up to 100 %.
    _, notes = answered(
        simulated.study(base=0.985, noise=0.0, effects={t: (0.0,) * 3 for t in simulated.EFFECTS}),
        0.005,
    )
    assert any(f.code == "ceiling" for f in notes)
    _, notes = answered(simulated.study())
    assert not any(f.code == "ceiling" for f in notes)


def how_sudden(drops):
    """The answer for drops from specificity by n, given for each split seed."""
    records = simulated.study(len(drops), treatments=("base", "BnB", "AnB"), noise=0)
    for r in records:
        lost = drops[r["split_seed"]][r["n"] - 1] if r["treatment"] == "AnB" else 0.0
        r["accuracy"] = 0.9 - lost
    return findings.how_sudden(records, "last", ["a", "b", "c", "d"]).short.text


def test_suddenness_does_not_contradict_itself_nor_its_interval():
    nearly = [[0.0005, 0.05, 0.05], [0.0005, 0.0501, 0.0501], [0.0005, 0.0499, 0.05]]
    assert how_sudden(nearly) == "all at one layer, or nearly so"
    elsewhere = [[0.05, 0.05, 0.05], [0.0, 0.05, 0.05], [0.0, 0.0, 0.05]]  # 0 %, interval 0 to 1 %
    assert how_sudden(elsewhere).startswith("less concentrated than an even spread")


def test_seeds_that_agree_by_chance_do_not_make_the_share_certain():
    records = simulated.study(2, treatments=("base", "BnB", "AnB"), noise=0, test_images=100)
    for r in records:
        r["accuracy"] = 0.9 - 0.05 * (r["treatment"] == "AnB" and r["n"] == 3)
    share = scores.suddenness(records).estimate
    assert share.value == pytest.approx(1) and share.low < 0.5


def test_halves_made_equal_are_no_random_halves():
    records = simulated.study(3, split="manmade_natural_equal", pairs_of_tasks=3)
    (text,) = [f.text for f in answered(records)[1] if f.code == "scope"]
    assert "other classes drawn from the larger half of digits" in text and "random" not in text


def test_a_small_gap_that_is_significant_is_not_printed_as_0():
    row = effects.effect_rows(
        study_with([0.0004, 0.0005, 0.0004, 0.0003]), effects.BY_KEY["specificity_drop"]
    )[0]
    assert row["verdict"] == "above"
    assert re.fullmatch(r"0\.04 points \[0\.0[1-9], 0\.1\]", gap_text(row))
    assert gap_text(row | {"low": -0.001}) == "0.0 points [−0.1, 0.1]"


def test_an_n_with_one_direction_is_not_compared_with_both():
    """Natural from man-made features is not as hard as the other way round."""
    near = simulated.study(4)
    far = simulated.study(1, split="manmade_natural")
    for r in far:
        r["accuracy"] -= 0.2 * (r["treatment"] == "AnB" and r["target"] == "B" and r["n"] < 3)
    lost = [r for r in far if r["name"] != "B2A"]
    answer = contrasts.dissimilar_tasks(near, lost, "last")
    assert answer.short.facts["layers"] == (1, 3)


def test_amounts_of_data_of_another_network_are_not_of_one_series():
    few, many = (
        [r | {"images_per_class": amount} for r in simulated.study(2, treatments=("RnB",))]
        for amount in (5, 100)
    )
    for network, questions in (("digits4", 1), ("other", 0)):
        other = report_of([r | {"network": network} for r in many]).study
        report = dataclasses.replace(report_of(few), others=[other])
        assert len(answer_section(report).values["more"]) == questions
        assert len(figures.amount_of_data([report.study, other])) == questions


def test_splits_are_compared_in_tables_of_their_own():
    splits = [r for s in ("random", "manmade_natural") for r in simulated.study(2, split=s)]
    report = report_of(splits)
    there = dataclasses.replace(report.study, title="there")
    titles = [title for title, _ in compared(dataclasses.replace(report, others=[there]))]
    assert titles == ["there, random halves", "there, man-made / natural"]
    alone = report_of(simulated.study(2, split="manmade_natural"))
    halves = dataclasses.replace(report_of(simulated.study(2)).study, title="there")
    ((title, rows),) = compared(dataclasses.replace(alone, others=[halves]))
    assert title == "there, man-made / natural here and random halves there" and rows
    # As a workdir is titled.
    halves = dataclasses.replace(halves, title="there, random halves")
    ((again, _),) = compared(dataclasses.replace(alone, others=[halves]))
    assert again == title
    (item,) = figures.comparison(alone.study, halves, 0)
    assert "dotted: there, random halves. Each" in item.caption
    titles = [title for title, _ in compared(dataclasses.replace(report, others=[halves]))]
    assert titles[0] == "there, random halves"
