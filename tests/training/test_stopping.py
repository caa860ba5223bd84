"""Early stopping on a validation part, judged step by step and against trainings that end at the chosen step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yosinski_jax.base.errors import UserError
from yosinski_jax.data import dataset as data
from yosinski_jax.data.validation import carve
from yosinski_jax.networks import convnets
from yosinski_jax.networks.network import Network
from yosinski_jax.study import recipes
from yosinski_jax.training import stopping
from yosinski_jax.training.feeds import Streaming
from yosinski_jax.training.jobs import Job
from yosinski_jax.training.step import State
from yosinski_jax.training.trainer import Trainer

# A rate at which the validation accuracy goes up and down, so that networks stop at different steps.
RECIPE = dataclasses.replace(
    recipes.get("digits"), epochs=12, learning_rate=0.2, validation=0.2, patience=2
)
NAMES = ("conv1", "conv2", "fc3", "fc4")


def make(recipe=RECIPE, **options):
    return Trainer(
        lambda classes: Network.of(convnets.make("digits4", classes, (8, 8, 1))),
        recipe,
        data.load("digits"),
        **options,
    )


shared = functools.cache(make)


@functools.cache
def task(classes="01234"):
    return carve(data.make_task(data.load("digits"), tuple(classes), 40), 0.2, seed=0)


def train(trainer, jobs, replicas=None):
    population = trainer.start(jobs, replicas)
    while not population.finished:
        population.advance()
    results = population.results()
    population.close()
    return results, population


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def judged(shares, patience, diverged=None):
    """What is kept of evaluations with these numbers of right images of ten; `weights` are the step."""
    kept = jax.tree.map(lambda x: x[0], stopping.begin(np.zeros(1), 1, 3))
    for i, right in enumerate(shares, 1):
        bad = jnp.asarray(-1 if diverged is None or i < diverged else 10 * diverged)
        state = State(jnp.asarray(10.0 * i), (), jnp.asarray(10 * i), bad)
        seen = {"right": right, "evaluated": 10, "correct": jnp.arange(5) < i}
        kept = stopping.judge(patience, kept, state, jax.tree.map(jnp.asarray, seen))
    return kept


@pytest.mark.parametrize(
    ("shares", "patience", "chosen", "stopped"),
    [
        ([5, 6, 7], 1, 30, -1),  # better every time
        ([5, 6, 6, 9], 1, 20, 30),  # a tie is not better; what comes after the stop does not count
        ([5, 4, 6, 5, 5, 5, 8], 3, 30, 60),
        ([5, 4, 6, 5, 5, 7], 3, 60, -1),
        ([0, 0, 0], 2, 10, 30),  # nothing learned: the first evaluation is kept
    ],
)
def test_stops_when_patience_is_out_and_keeps_the_first_best(shares, patience, chosen, stopped):
    kept = judged(shares, patience)
    assert (int(kept.step), float(kept.variables), int(kept.stopped_at)) == (
        chosen,
        chosen,
        stopped,
    )
    assert float(kept.validation) == pytest.approx(shares[chosen // 10 - 1] / 10)
    assert kept.correct.tolist() == (np.arange(3) < chosen // 10).tolist()


def test_a_diverged_network_stops_at_once_and_keeps_what_was_before():
    kept = judged([5, 6, 9, 9], 5, diverged=3)
    assert (int(kept.step), int(kept.stopped_at)) == (20, 30)


def test_a_network_ends_as_if_it_had_been_trained_to_its_best_validation_step():
    (result,), population = train(shared(), [Job("early", task())])
    assert (
        result.stopped_at_step
        and population.dispatched == result.stopped_at_step == result.step[-1]
    )
    best = max(result.validation_accuracy)
    at = result.validation_accuracy.index(best)
    assert result.chosen_step == result.step[at] < result.stopped_at_step
    assert len(result.step) - 1 - at == RECIPE.patience
    assert result.validation_images == 40 and len(task().train_index) == 160
    steps = RECIPE.steps_to_evaluation(160)
    plain = dataclasses.replace(
        RECIPE, patience=0, epochs=None, iterations=result.chosen_step, evaluate_steps=steps
    )
    (reference,), _ = train(make(plain), [Job("early", task())])
    equal(result.variables, reference.variables)
    np.testing.assert_array_equal(result.correct, reference.correct)
    assert result.accuracy[: at + 1] == reference.accuracy
    assert result.validation_accuracy[: at + 1] == reference.validation_accuracy
    assert result.layer_change == reference.layer_change


def test_each_network_of_a_population_stops_by_itself():
    jobs = [
        Job(f"network {i}", task(classes)) for i, classes in enumerate(("01234", "56789", "13579"))
    ]
    together, population = train(shared(), jobs)
    for result, curve in zip(together, population.curves(), strict=True):
        known = len(curve["step"])  # without the last evaluation, which need not be finished
        assert known in (len(result.step) - 1, len(result.step))
        assert {name: getattr(result, name)[:known] for name in curve} == curve
    stops = [r.stopped_at_step or population.total for r in together]
    assert len(set(stops)) > 1 and population.dispatched == max(stops)
    for job, result in zip(jobs, together, strict=True):
        (alone,), _ = train(shared(), [job], len(jobs))
        assert (alone.chosen_step, alone.stopped_at_step) == (
            result.chosen_step,
            result.stopped_at_step,
        )
        assert len(alone.step) == len(result.step) and alone.step == result.step
        np.testing.assert_allclose(alone.loss, result.loss, rtol=1e-3)


def test_without_patience_the_validation_part_is_measured_and_changes_nothing():
    plain = dataclasses.replace(RECIPE, patience=0, epochs=2)
    bare = dataclasses.replace(
        task(), validation_index=np.zeros(0, np.int32), validation_labels=np.zeros(0, np.int32)
    )
    (measured,), _ = train(make(plain), [Job("same", task())])
    (without,), _ = train(make(plain), [Job("same", bare)])
    equal(measured.variables, without.variables)
    assert (
        measured.accuracy == without.accuracy and measured.train_accuracy == without.train_accuracy
    )
    assert without.validation_accuracy == [] and without.validation_images == 0
    assert len(measured.validation_accuracy) == 2 and measured.chosen_step is None
    assert all(0 < share <= 1 for share in measured.validation_accuracy)


def test_validation_images_are_the_ones_held_out():
    labels = (
        task().validation_labels + 1
    ) % 5  # right where they were wrong, and the other way round
    plain = dataclasses.replace(RECIPE, patience=0, learning_rate=0.05)
    (right,), _ = train(make(plain), [Job("same", task())])
    (wrong,), _ = train(
        make(plain), [Job("same", dataclasses.replace(task(), validation_labels=labels))]
    )
    equal(right.variables, wrong.variables)
    assert right.validation_accuracy[-1] > 0.8 and wrong.validation_accuracy[-1] < 0.2


def test_the_test_images_never_choose():
    shuffled = np.random.RandomState(0).permutation(task().test_labels)
    (result,), _ = train(shared(), [Job("early", task())])
    (other,), _ = train(shared(), [Job("early", dataclasses.replace(task(), test_labels=shuffled))])
    assert (other.chosen_step, other.step) == (result.chosen_step, result.step)
    assert other.accuracy != result.accuracy
    equal(other.variables, result.variables)


@pytest.mark.parametrize("frozen", [0, 2])
def test_all_feeds_stop_alike(frozen):
    job = Job("feeds", task(), NAMES[:frozen])
    recipe = dataclasses.replace(RECIPE, learning_rate=0.1)
    results = [
        train(make(recipe, **options), [job])[0][0]
        for options in ({}, {"feature_bytes": 10**9}, {"streaming": Streaming()})
    ]
    for other in results[1:]:
        assert other.step == results[0].step
        assert (other.chosen_step, other.stopped_at_step) == (
            results[0].chosen_step, results[0].stopped_at_step,
        )  # fmt: skip
        np.testing.assert_allclose(
            other.validation_accuracy, results[0].validation_accuracy, atol=0.03
        )


def test_goes_on_from_a_save_to_the_same_end():
    jobs = [Job(f"network {i}", task(classes)) for i, classes in enumerate(("01234", "56789"))]
    expected, whole = train(shared(), jobs)
    first = min(r.stopped_at_step or whole.total for r in expected)
    begun = shared().start(jobs)
    while begun.dispatched <= first:  # one of them has stopped already
        begun.advance()
    snapshot = {name: np.asarray(value) for name, value in begun.snapshot().items()}
    again = shared().start(jobs)
    again.restore(snapshot)
    while not again.finished:
        again.advance()
    assert again.dispatched == whole.dispatched
    for a, b in zip(again.results(), expected, strict=True):
        equal(a.variables, b.variables)
        assert (a.step, a.accuracy, a.validation_accuracy) == (
            b.step,
            b.accuracy,
            b.validation_accuracy,
        )
        assert (a.chosen_step, a.stopped_at_step) == (b.chosen_step, b.stopped_at_step)


def test_a_save_of_networks_that_have_all_stopped_is_finished():
    expected, whole = train(shared(), [Job("early", task())])
    again = shared().start([Job("early", task())])
    again.restore({name: np.asarray(value) for name, value in whole.snapshot().items()})
    assert again.finished
    equal(again.results()[0].variables, expected[0].variables)


def test_rates_given_with_the_jobs_are_those_of_recipes():
    plain = dataclasses.replace(
        RECIPE, patience=0, epochs=3, drop_every=4, weight_decay=1e-3, bias_rate=2.0
    )
    rates = (0.1, 0.01)
    trainer = make(plain)
    together, _ = train(trainer, [Job("same", task(), learning_rate=rate) for rate in rates])
    for rate, result in zip(rates, together, strict=True):
        (own,), _ = train(
            make(dataclasses.replace(plain, learning_rate=rate)), [Job("same", task())]
        )
        np.testing.assert_allclose(result.loss, own.loss, rtol=1e-4)
    assert together[0].loss != together[1].loss
    assert trainer.compilations == {"train_and_evaluate": 1}


def test_patience_without_a_validation_part_is_refused():
    bare = data.make_task(data.load("digits"), tuple("01234"), 40)
    with pytest.raises(
        UserError, match="patience=2: needs validation images, which these tasks lack"
    ):
        shared().start([Job("early", bare)])
