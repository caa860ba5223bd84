import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from yosinski_jax.base.errors import UserError
from yosinski_jax.data import dataset as data
from yosinski_jax.networks import convnets
from yosinski_jax.networks.network import Network
from yosinski_jax.study import recipes
from yosinski_jax.training import feeds
from yosinski_jax.training import step as programs
from yosinski_jax.training.jobs import Job, seed_of
from yosinski_jax.training.optimizer import optimizer
from yosinski_jax.training.trainer import Trainer

RECIPE = dataclasses.replace(recipes.get("digits"), epochs=2)


@functools.cache
def shared(recipe=RECIPE, feature_bytes=10**9):
    """A trainer that keeps its compiled programs for the next test."""
    return make(recipe, feature_bytes=feature_bytes)


def make(recipe=RECIPE, *, seed=0, devices=None, feature_bytes=10**9, share_batches=None):
    return Trainer(
        lambda classes: Network.of(convnets.make("digits4", classes, (8, 8, 1))),
        recipe,
        data.load("digits"),
        seed=seed,
        devices=devices,
        feature_bytes=feature_bytes,
        share_batches=share_batches,
    )


def task(classes="01234", images=50):
    return data.make_task(data.load("digits"), tuple(classes), images)


NAMES = ("conv1", "conv2", "fc3", "fc4")


def a_job(key, task, frozen=0, copied=0, base=None):
    """A job whose first `frozen` layers are frozen and first `copied` layers are the base's."""
    return Job(key, task, NAMES[:frozen], NAMES[:copied], base)


def train(trainer, jobs, replicas=None):
    population = trainer.start(jobs, replicas)
    while not population.finished:
        population.advance()
    return population.results()


def equal(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.fixture(scope="module")
def base():
    return train(shared(), [a_job("baseA", task("56789"))])[0]


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(
    "copied, frozen", [(True, True), (True, False), (False, True)], ids=["AnB", "AnB+", "RnB"]
)
@pytest.mark.parametrize("cache", [0, 10**9], ids=["each step", "cached"])
def test_which_layers_are_the_bases_and_which_ever_change(base, n, copied, frozen, cache):
    trainer = shared(feature_bytes=cache)
    job = a_job(
        "x", task(), n if frozen else 0, n if copied else 0, base.variables if copied else None
    )
    population = trainer.start([job])
    start = population.initial[0]["params"]
    momentum = sum(x.size for x in jax.tree.leaves(population._carry[0].optimizer))
    trained = NAMES[n:] if frozen else NAMES
    assert momentum == sum(x.size for name in trained for x in jax.tree.leaves(start[name]))
    while not population.finished:
        population.advance()
    (result,) = population.results()
    for i, name in enumerate(NAMES):
        assert equal(start[name], base.params[name]) == (copied and i < n), name
        assert equal(start[name], result.params[name]) == (frozen and i < n), name
        assert (result.layer_change[name] == 0) == (frozen and i < n), name
    assert population.program.cached == bool(cache and frozen)
    assert (result.frozen > 0) == frozen
    assert result.trained + result.frozen == sum(x.size for x in jax.tree.leaves(result.params))


def test_weight_decay_and_bias_rate_do_not_reach_frozen_layers(base):
    recipe = dataclasses.replace(
        RECIPE, weight_decay=0.1, bias_rate=2.0, caffe_momentum=True, drop_every=3
    )
    (result,) = train(make(recipe), [a_job("x", task(), 2, 2, base.variables)])
    assert equal(result.params["conv1"], base.params["conv1"])
    assert equal(result.params["conv2"], base.params["conv2"])
    assert not equal(result.params["fc3"], base.params["fc3"])


def test_cached_features_change_nothing(base):
    job = a_job("x", task(), 2, 2, base.variables)
    (cached,), (each_step,) = (train(shared(feature_bytes=size), [job]) for size in (10**9, 0))
    np.testing.assert_allclose(cached.loss, each_step.loss, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        cached.variables,
        each_step.variables,
    )


def test_networks_with_the_same_prefix_share_its_features(base, monkeypatch):
    trainer = make()
    compiled, ran = trainer.compiled, []
    monkeypatch.setattr(trainer, "compiled", lambda *what: ran.append(what[2]) or compiled(*what))
    tasks = [task("01234"), task("56789")]

    def jobs(name, copied, base):
        return [a_job(f"{name}{i}", t, 2, copied, base) for i, t in enumerate(tasks)]

    train(trainer, jobs("p", 2, base.variables))
    preserved = jobs("q", 3, base.variables)[::-1]  # the other way round: on the other device
    shares = train(trainer, preserved)
    assert ran.count("features") == 1
    for mine, own in zip(shares, train(shared(), preserved), strict=True):
        assert equal(mine.variables, own.variables) and mine.loss == own.loss

    other = jobs("q", 3, jax.tree.map(lambda x: x * 1.01, base.variables))[::-1]
    computes = train(trainer, other)
    assert ran.count("features") == 2
    for mine, own in zip(computes, train(shared(), other), strict=True):
        assert equal(mine.variables, own.variables) and mine.loss == own.loss
    train(trainer, [a_job("r", task("02468"), 0), a_job("s", task("13579"), 0)])
    assert not trainer.features  # given back, where no network needs them


def test_a_result_depends_on_the_key_alone(base):
    jobs = [a_job(name, task(), 1, 1, base.variables) for name in ("p", "q", "r")]
    alone = train(shared(), jobs[:1], replicas=2)[0]
    second = train(shared(), [jobs[1], jobs[0]])[1]
    assert equal(alone.variables, second.variables) and alone.loss == second.loss
    # In a population of another size or on other devices: to float tolerance.
    stacked = train(make(devices=jax.devices()[:1]), jobs)[0]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), alone.variables, stacked.variables
    )
    other = train(make(seed=1), jobs[:1], replicas=2)[0]
    assert not equal(alone.params["fc4"], other.params["fc4"])
    assert not equal(
        alone.params["fc4"], train(shared(), jobs[1:2], replicas=2)[0].variables["params"]["fc4"]
    )


def test_networks_that_train_together_fit_the_memory(monkeypatch):
    trainer = make(devices=jax.devices()[:1])
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    sizes = []
    for memory in (10**12, 4 * 10**7, 10**6):
        monkeypatch.setattr("yosinski_jax.base.machine.memory", lambda memory=memory: memory)
        sizes.append(trainer.replicas(task(), 0))
    assert sizes[0] == 32 and 1 < sizes[1] < 32 and sizes[2] == 1


def test_networks_too_large_for_a_device_each_share_devices_by_batches(monkeypatch):
    """With less and less memory: several on each of 8 devices, one on each, half a batch on each, less."""
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    recipe = dataclasses.replace(RECIPE, batch_size=640)  # activations take more than weights
    trainer = make(recipe, devices=jax.devices()[:1] * 8, share_batches=True)
    sizes = []
    for memory in np.geomspace(10**9, 10**6, 60).astype(int).tolist():
        monkeypatch.setattr("yosinski_jax.base.machine.memory", lambda memory=memory: memory)
        sizes.append(trainer.replicas(task(), 0))
    assert sizes == sorted(sizes, reverse=True)
    assert {4, 8, 16} <= set(sizes) and {size for size in sizes if size < 8} <= {4, 2, 1}
    alone = make(recipe, devices=jax.devices()[:1] * 8)
    assert alone.replicas(task(), 0) == 8, "nothing fits, and nothing is gained by fewer"


def test_seeds_differ_by_key_and_by_seed():
    assert len({seed_of(key, seed).tobytes() for key in ("a", "b", "c") for seed in range(3)}) == 9
    assert seed_of("a", 0).tolist() == seed_of("a", 0).tolist()


def test_short_epochs_dispatched_together_change_nothing(base, monkeypatch):
    recipe = dataclasses.replace(RECIPE, epochs=4)
    jobs = [a_job(name, task(), 2, 2, base.variables) for name in ("p", "q")]
    together = make(recipe)
    whole = train(together, jobs)
    assert together.compilations == {"features": 1, "train_and_evaluate": 1}
    monkeypatch.setattr(feeds, "_TOGETHER", 0)
    begun = make(recipe).start(jobs)
    begun.advance()
    assert begun.dispatched == 3
    monkeypatch.undo()
    resumed = together.start(jobs)
    resumed.restore(begun.snapshot())
    while not resumed.finished:
        resumed.advance()
    assert together.compilations["train"] == 1  # the save is of a step in the middle of a dispatch
    for a, b in zip(whole, resumed.results(), strict=True):
        assert equal(a.variables, b.variables) and equal(a.correct, b.correct)
        for name in ("step", "epoch", "loss", "accuracy", "test_loss", "train_accuracy"):
            assert getattr(a, name) == getattr(b, name) and len(getattr(a, name)) == 4


def test_a_snapshot_goes_on_where_it_was(base, monkeypatch):
    monkeypatch.setattr(feeds, "_TOGETHER", 0)  # else all epochs are one dispatch
    recipe = dataclasses.replace(RECIPE, epochs=4)
    jobs = [a_job(name, task(), 0, 2, base.variables) for name in ("p", "q")]
    whole = train(make(recipe), jobs)
    population = make(recipe).start(jobs)
    population.advance()
    population.advance()
    snapshot = population.snapshot()
    later = make(recipe).start(jobs)
    later.restore(snapshot)
    assert later.dispatched == 2 * 3
    while not later.finished:
        later.advance()
    for a, b in zip(whole, later.results(), strict=True):
        assert equal(a.variables, b.variables)
        assert (a.loss, a.accuracy, a.epoch, a.step) == (b.loss, b.accuracy, b.epoch, b.step)
    with pytest.raises(ValueError, match="another kind"):
        make(recipe).start([a_job("p", task(), 1, 0)]).restore(snapshot)


@pytest.mark.parametrize("batch", [64, 220, 500])
def test_evaluation_counts_every_test_image_once(monkeypatch, base, batch):
    monkeypatch.setattr(feeds, "EVALUATION_BATCH", batch)
    (result,) = train(shared(), [a_job("x", task(), 0, 0)])
    model, dataset = Network.of(convnets.make("digits4", 5, (8, 8, 1))), data.load("digits")
    t = task()
    images = jnp.asarray(dataset.test.images()[t.test_index], jnp.float32) / 127.5 - 1
    right = np.asarray(model.apply(result.variables, images)[0].argmax(-1)) == t.test_labels
    assert len(right) == 220
    assert result.accuracy[-1] == right.sum() / 220


def test_a_diverged_network_is_told_and_leaves_the_others_alone(base):
    poisoned = jax.tree.map(lambda x: np.full_like(x, np.inf), base.variables)
    jobs = [a_job("good", task(), 0, 1, base.variables), a_job("bad", task(), 0, 1, poisoned)]
    good, bad = train(shared(), jobs)
    assert bad.diverged_at_step is not None and good.diverged_at_step is None
    assert equal(good.variables, train(shared(), [jobs[0], jobs[0]])[0].variables)
    recipe = dataclasses.replace(RECIPE, learning_rate=1e20)
    (result,) = train(make(recipe), [a_job("x", task())])
    assert result.diverged_at_step is not None and 0 < result.diverged_at_step < 10


def test_a_sweep_is_one_program_for_each_number_of_frozen_layers(base):
    trainer = make()
    for n in (1, 2, 3):
        for copied in (0, n):
            for other in ("01234", "12345"):
                train(
                    trainer,
                    [a_job(f"{n}{copied}{other}", task(other), n, copied, base.variables)] * 2,
                )
                train(
                    trainer,
                    [a_job(f"{n}{copied}{other}+", task(other), 0, copied, base.variables)] * 2,
                )
    assert trainer.compilations == {"features": 3, "train_and_evaluate": 4}


def test_populations_refuse_what_does_not_go_together():
    with pytest.raises(ValueError, match="equally many"):
        make().start([a_job("x", task()), a_job("y", task("012"))])
    with pytest.raises(UserError, match=r"batch_size=64: larger than a task of 50 training images"):
        make().start([a_job("x", task(images=10))])


@pytest.mark.parametrize("mirror", [False, True])
def test_preprocess(mirror):
    recipe = dataclasses.replace(RECIPE, crop=3, mirror=mirror, subtract_mean=True, bgr=True)
    images = jnp.arange(2 * 5 * 5 * 3, dtype=jnp.uint8).reshape(2, 5, 5, 3)
    mean = jnp.ones((5, 5, 3))
    out = programs.preprocess(recipe, images, mean, None)
    np.testing.assert_array_equal(out, (np.asarray(images, np.float32) - 1)[:, 1:4, 1:4, ::-1])
    many = programs.preprocess(recipe, jnp.repeat(images[:1], 256, 0), mean, jax.random.key(0))
    crops = {
        (np.asarray(images[0], np.float32) - 1)[y : y + 3, x : x + 3, ::-1][
            :, :: 1 - 2 * flip
        ].tobytes()
        for y in range(3)
        for x in range(3)
        for flip in range(1 + mirror)
    }
    assert {np.asarray(x).tobytes() for x in many} == crops, (
        "every corner and side occurs, and nothing else"
    )
    np.testing.assert_allclose(
        programs.preprocess(RECIPE, jnp.array([[[[0, 255]]]], jnp.uint8), None, None), [[[[-1, 1]]]]
    )


def test_mean_image():
    trainer = make(dataclasses.replace(RECIPE, subtract_mean=True))
    population = trainer.start([a_job("x", task())])
    own = population._feed._ready()[1]
    expected = data.load("digits").train.images()[task().train_index].mean(0)
    np.testing.assert_allclose(own["mean"][0], expected, rtol=1e-5)


def test_recipe_optimizer_against_caffe_by_hand():
    """v ← 0.9 v + lr (g + wd w), w ← w − v; biases at twice the rate, without decay; across a drop of the rate."""
    recipe = dataclasses.replace(
        RECIPE,
        learning_rate=0.1,
        weight_decay=0.01,
        bias_rate=2.0,
        caffe_momentum=True,
        drop_every=2,
    )
    params = {"fc1": {"kernel": jnp.array([[2.0]]), "bias": jnp.array([1.0])}}
    chain = optimizer(recipe)
    state = chain.init(params)
    w, b, vw, vb = 2.0, 1.0, 0.0, 0.0
    for step in range(5):
        gradient = {"fc1": {"kernel": jnp.array([[0.5 + step]]), "bias": jnp.array([0.25])}}
        rate = 0.1 * 0.1 ** (step // 2)
        vw = 0.9 * vw + rate * (0.5 + step + 0.01 * w)
        vb = 0.9 * vb + 2 * rate * 0.25
        w, b = w - vw, b - vb
        updates, state = chain.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["fc1"]["kernel"], [[w]], rtol=1e-6)
        np.testing.assert_allclose(params["fc1"]["bias"], [b], rtol=1e-6)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"epochs": 0}, "epochs=0: must be a whole number from 1"),
        ({"batch_size": -1}, "batch_size=-1"),
        ({"learning_rate": 0.0}, "learning_rate=0: must be a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"precision": "half"}, "choose from auto, float32, bfloat16"),
        ({"iterations": 5}, "either epochs or iterations"),
    ],
)
def test_recipes_check_themselves(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(RECIPE, **change)


def test_the_recipes_own_loss_metric_and_schedule_reach_the_step():
    """A loss of zero moves nothing; a metric that is always right gives 1; a cosine ends at rate 0."""
    zero = dataclasses.replace(
        RECIPE, loss=lambda logits, labels: 0 * logits.sum(-1), loss_id="zero", weight_decay=0.0,
        metric=lambda logits, labels: labels == labels, metric_id="all",
    )  # fmt: skip
    population = make(zero).start([a_job("x", task())])
    while not population.finished:
        population.advance()
    (result,) = population.results()
    assert set(result.layer_change.values()) == {0.0}
    assert result.accuracy == [1.0, 1.0] and result.test_loss == [0.0, 0.0]
    plain = dataclasses.replace(RECIPE, weight_decay=0.0)
    cosine = dataclasses.replace(plain, schedule="cosine")
    (a,), (b,) = (train(make(r), [a_job("x", task())]) for r in (plain, cosine))
    assert b.layer_change["fc4"] < 0.8 * a.layer_change["fc4"]


class Tokens(nn.Module):
    """Embeds tokens and takes their mean; floats go through a dense layer."""

    classes: int

    @nn.compact
    def __call__(self, x):
        if jnp.issubdtype(x.dtype, jnp.integer):
            x = nn.Embed(11, 8, name="first")(x).mean(1)
        else:
            x = nn.relu(nn.Dense(8, name="first")(x.reshape(len(x), -1)))
        return nn.Dense(self.classes, name="head")(x)


@pytest.mark.parametrize("kind", ["tokens", "table", "16 bit"])
def test_inputs_need_not_be_images(kind):
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 4
    arrays = {
        "tokens": rng.integers(0, 3, (120, 6)) + 2 * labels[:, None],
        "table": rng.normal(np.eye(5)[labels], 0.1).astype(np.float32),
        "16 bit": (rng.integers(0, 999, (120, 4, 4)) + labels[:, None, None] * 16_000).astype(
            "uint16"
        ),
    }
    dataset = data.from_arrays("own", arrays[kind], labels, arrays[kind], labels)
    recipe = recipes.Recipe("own", learning_rate=0.5, batch_size=20, epochs=20)
    network = lambda classes: Network.of(Tokens(classes), ["first", "head"])
    trainer = Trainer(network, recipe, dataset, feature_bytes=10**9)
    whole = data.make_task(dataset, dataset.label_names)
    (base,) = train(trainer, [Job("a", whole)])
    assert base.accuracy[-1] > 0.9
    job = Job("b", whole, ("first",), ("first",), base.variables)
    (cut,) = train(trainer, [job])
    equal(cut.params["first"], base.params["first"])
    with pytest.raises(UserError, match="mirror=True is for images"):
        if kind == "16 bit":  # which gets a channel axis, so that it is an image
            programs.network_input(dataclasses.replace(recipe, mirror=True), (4, 4), np.uint16)
        Trainer(network, dataclasses.replace(recipe, mirror=True), dataset)
