"""Sweeps that hold a validation part out: stopped early, tuned, killed and resumed, on small targets."""

import dataclasses
import functools

import numpy as np
import pytest
from small_sweep import RECIPE, SETTINGS, digits4, make, table

from yosinski_jax.base.errors import UserError
from yosinski_jax.data import dataset
from yosinski_jax.study.tuning import Tuning
from yosinski_jax.sweep import recording
from yosinski_jax.sweep.runner import Sweep
from yosinski_jax.training.feeds import Streaming
from yosinski_jax.training.jobs import Result
from yosinski_jax.training.trainer import Population, Trainer

RATES = (0.2, 0.02)
STOPS = dataclasses.replace(RECIPE, epochs=6, validation=0.2, patience=1)
TUNED = dataclasses.replace(
    SETTINGS, recipe=STOPS, treatments=("base", "RnB"), tuning=Tuning(RATES), images_per_class=20
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make(tmp_path_factory.mktemp("whole"), TUNED).run()


def test_the_rate_chosen_is_the_one_with_the_best_validation_accuracy(whole):
    assert [r.name for r in whole] == ["baseA", "baseB", "R2B", "R2A"]
    for record in whole:
        assert (record.train_images, record.validation_images) == (80, 20)
        at = record.curve["step"].index(record.chosen_step)
        assert record.accuracy == record.curve["accuracy"][at]
        if record.treatment == "base":
            assert record.tried is None and record.learning_rate is None
            continue
        validation = record.tried["validation_accuracy"]
        assert record.tried["learning_rate"] == list(RATES)
        chosen = RATES.index(record.learning_rate)
        assert validation[chosen] == max(validation) == record.curve["validation_accuracy"][at]
        assert record.tried["accuracy"][chosen] == record.accuracy


def test_a_tuned_network_is_the_one_that_its_rate_alone_gives(whole, tmp_path):
    record = whole[2]
    alone = dataclasses.replace(
        TUNED, tuning=None, recipe=dataclasses.replace(STOPS, learning_rate=record.learning_rate)
    )
    same = make(tmp_path, alone).run()[2]
    assert (same.id, same.chosen_step) == (record.id, record.chosen_step)
    np.testing.assert_allclose(same.curve["loss"], record.curve["loss"], rtol=1e-3)


class Killed(BaseException):
    """As far as files are concerned, what kill -9 does: nothing after it is written."""


def test_killed_again_and_again_gives_the_same(whole, tmp_path, monkeypatch):
    """Dies after every second dispatch, with a save after each."""
    advance, lives = Population.advance, 0
    dispatches = [0]

    def dying(population):
        if dispatches[0] == 2:
            raise Killed
        dispatches[0] += 1
        advance(population)

    monkeypatch.setattr(Population, "advance", dying)
    while True:
        lives, dispatches[0] = lives + 1, 0
        try:
            rows = make(tmp_path, TUNED, checkpoint_seconds=0.0).run()
            break
        except Killed:
            assert lives < 30, "no life goes on from the one before"
    assert lives > 3
    assert table(rows) == table(whole)


def test_small_targets_hold_their_share_out(tmp_path):
    settings = dataclasses.replace(
        SETTINGS, recipe=dataclasses.replace(STOPS, epochs=1), target_images=(5, None), treatments=("base", "AnB")
    )  # fmt: skip
    sweep = make(tmp_path, settings)
    sizes = {
        p.run.name: tuple(map(len, (sweep.task(p).train_index, sweep.task(p).validation_index)))
        for p in sweep.planned
    }
    assert sizes["baseA"] == sizes["A2B"] == (160, 40)
    assert sizes["baseB-0005"] == sizes["A2B-0005"] == (20, 5)
    few, whole = (sweep.task(p) for p in sweep.planned if p.run.name in ("baseB-0005", "baseB"))
    few, whole = sorted((few, whole), key=lambda task: len(task.train_index))
    assert set(few.validation_index) <= set(whole.validation_index)
    # As many steps as a network on all images, which are those that are trained on.
    planned = next(p for p in sweep.planned if p.run.name == "A2B-0005")
    assert sweep.recipe(planned).steps_for(20) == 160 // 64


def test_one_image_a_class_is_refused(tmp_path):
    settings = dataclasses.replace(SETTINGS, recipe=STOPS, target_images=(1, None))
    with pytest.raises(
        UserError, match="target_images_per_class=1: one image per class leaves none to hold out"
    ):
        make(tmp_path, settings)


def test_rates_are_not_chosen_in_a_stream(tmp_path):
    trainer = functools.partial(Trainer, streaming=Streaming())
    with pytest.raises(
        UserError, match=r"tune_learning_rate=0.2,0.02: trains a network at all rates side by side"
    ):
        Sweep(TUNED, dataset.load("digits"), digits4, tmp_path, trainer=trainer)


def test_another_share_or_other_rates_are_another_sweep(tmp_path):
    make(tmp_path, TUNED).look()
    quick = dataclasses.replace(
        TUNED, recipe=dataclasses.replace(STOPS, epochs=1), treatments=("base", "RnB")
    )
    make(tmp_path, quick).run()
    for other, message in (
        (
            dataclasses.replace(quick, tuning=Tuning((0.2, 0.03))),
            "tuning.learning_rates was 0.2,0.02, is now 0.2,0.03",
        ),
        (dataclasses.replace(quick, tuning=None), "tuning was .*, is now None"),
        (
            dataclasses.replace(quick, recipe=dataclasses.replace(quick.recipe, validation=0.1)),
            "recipe.validation was 0.2, is now 0.1",
        ),
    ):
        with pytest.raises(UserError, match=message):
            make(tmp_path, other).run()


def result(validation, diverged=None, **fields):
    common = dict(
        variables={}, epoch=[1, 2], step=[3, 6], loss=[1.0, 1.0], accuracy=[0.4, 0.5], test_loss=[1.0, 1.0],
        train_accuracy=[0.5, 0.5], train_accuracy_images=4, correct=np.array([True, False]), trained=1, frozen=0,
        layer_change={},
    )  # fmt: skip
    return Result(**common | fields, validation_accuracy=validation, diverged_at_step=diverged)


def test_a_rate_that_diverges_is_not_chosen_and_said_to_have_diverged():
    results = [result([0.9, 0.9], diverged=4), result([0.1, 0.2])]
    chosen, choice = recording.choose(results, (1.0, 0.1))
    assert chosen is results[1] and choice["learning_rate"] == 0.1
    assert choice["tried"]["validation_accuracy"] == [None, 0.2]
    assert choice["tried"]["accuracy"] == [None, 0.5]
    all_bad, choice = recording.choose([result([0.9, 0.9], diverged=4)] * 2, (1.0, 0.1))
    assert recording.measured(all_bad)["status"] == "diverged" and choice["learning_rate"] == 1.0


def test_test_accuracy_never_chooses():
    better_test = result([0.5, 0.5], accuracy=[0.9, 0.9])
    better_validation = result([0.6, 0.6], accuracy=[0.1, 0.1])
    assert recording.choose([better_test, better_validation], (1.0, 0.1))[0] is better_validation
