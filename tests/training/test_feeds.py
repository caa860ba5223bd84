"""Training from a stream: against a plain loop, resumed, frozen, evaluated, on any devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from yosinski_jax.base.errors import UserError
from yosinski_jax.data import dataset as data
from yosinski_jax.data import stream
from yosinski_jax.data.tfds import CorruptRecord
from yosinski_jax.networks import convnets
from yosinski_jax.networks.network import Network
from yosinski_jax.study import recipes
from yosinski_jax.training import feeds
from yosinski_jax.training.feeds import Streaming
from yosinski_jax.training.jobs import Job, order_seed, seed_of
from yosinski_jax.training.trainer import Trainer

RECIPE = recipes.Recipe(
    "test", learning_rate=2e-5, batch_size=32, iterations=11, evaluate_steps=4, momentum=0.9,
    caffe_momentum=True, weight_decay=5e-4, bias_rate=2.0, drop_every=6, subtract_mean=True,
)  # fmt: skip


def model(classes):
    return Network.of(convnets.make("digits4", classes, (8, 8, 1)))


def streaming(network, recipe, dataset, devices=None, **options):
    """A trainer that streams."""
    return Trainer(network, recipe, dataset, devices=devices, streaming=Streaming(**options))


@functools.cache
def shared():
    return streaming(model, RECIPE, data.load("digits"), devices=jax.devices())


def task(classes="01234", images=50):
    return data.make_task(data.load("digits"), tuple(classes), images)


def train(run):
    while not run.finished:
        run.advance()
    run.close()
    return run.results()[0]


def equal(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def close(a, b, atol=1e-5):
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=atol), a, b)


@pytest.fixture(scope="module")
def whole():
    return train(shared().start([Job("baseA", task())]))


def test_against_a_plain_loop_over_the_same_batches(whole):
    """v ← 0.9 v + rate (g + decay w), w ← w − v, written out; no crop, so nothing is random but the order."""
    dataset, t, net = data.load("digits"), task(), model(5)
    key = jax.random.wrap_key_data(seed_of("baseA", 0), impl="threefry2x32")
    params = net.init(jax.random.fold_in(key, 0), jnp.zeros((1, 8, 8, 1)))["params"]
    velocity = jax.tree.map(jnp.zeros_like, params)
    mean = dataset.train.images()[t.train_index].astype(np.float64).mean(0).astype(np.float32)

    @jax.jit
    def gradient(params, images, labels):
        def loss(params):
            logits = net.apply({"params": params}, images - mean)[0]
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        return jax.value_and_grad(loss)(params)

    seed = order_seed(seed_of("baseA", 0))
    losses, accuracy = [], []
    with stream.train(dataset.train, t, batch_size=32, seed=seed) as batches:
        for step in range(11):
            images, labels, _ = next(batches)
            loss, grads = gradient(params, images.astype(np.float32), labels)
            losses.append(float(loss))
            rate = 2e-5 * 0.1 ** (step // 6)
            for name in params:
                for leaf, factor, decay in (("kernel", 1, 5e-4), ("bias", 2, 0)):
                    w, g, v = params[name][leaf], grads[name][leaf], velocity[name][leaf]
                    velocity[name][leaf] = v = 0.9 * v + factor * rate * (g + decay * w)
                    params[name][leaf] = w - v
            if step + 1 in (4, 8, 11):
                test = dataset.test.images()[t.test_index].astype(np.float32) - mean
                right = (
                    np.asarray(net.apply({"params": params}, test)[0].argmax(-1)) == t.test_labels
                )
                accuracy.append(right.sum() / len(right))
    close(whole.params, params)
    assert whole.step == [4, 8, 11]
    expected = [np.mean(losses[:4]), np.mean(losses[4:8]), np.mean(losses[8:])]
    np.testing.assert_allclose(whole.loss, expected, rtol=1e-4)
    np.testing.assert_allclose(whole.accuracy, accuracy, atol=1.1 / len(t.test_index))
    assert whole.epoch == [4 / 7, 8 / 7, 11 / 7]
    assert whole.loss[-1] < whole.loss[0] and whole.diverged_at_step is None


@pytest.mark.parametrize("advances", [1, 2])
def test_resumed_equals_undisturbed(whole, advances):
    run = shared().start([Job("baseA", task())])
    while run.dispatched < 4 * advances or run._curve.last < 4 * advances:
        run.advance()
    snapshot = run.snapshot()
    run.advance()  # a snapshot stays as it was while training goes on
    snapshot = {name: np.asarray(value) for name, value in snapshot.items()}
    run.close()
    later = shared().start([Job("baseA", task())])
    later.restore(snapshot)
    assert later.dispatched == later.done == 4 * advances
    result = train(later)
    assert equal(result.params, whole.params)
    assert (result.loss, result.accuracy, result.step) == (whole.loss, whole.accuracy, whole.step)
    with pytest.raises(ValueError, match="another kind"):
        shared().start([Job("x", task(), frozen=("conv1",))]).restore(snapshot)


def test_saves_between_evaluations_keep_the_loss(whole):
    recipe = dataclasses.replace(RECIPE, evaluate_steps=11)
    trainer = streaming(model, recipe, data.load("digits"), devices=jax.devices())
    run = trainer.start([Job("baseA", task())])
    while run.dispatched < 4:
        run.advance()
    snapshot = run.snapshot()
    run.restore({name: np.asarray(value) for name, value in snapshot.items()})
    np.testing.assert_allclose(train(run).loss, [np.dot(whole.loss, [4, 4, 3]) / 11], rtol=1e-6)


def test_frozen_layers_stay_and_copied_ones_are_the_bases(whole):
    job = Job(
        "A2B",
        task("56789"),
        frozen=("conv1", "conv2"),
        copied=("conv1", "conv2"),
        base=whole.variables,
    )
    result = train(shared().start([job]))
    for name in ("conv1", "conv2"):
        assert equal(result.params[name], whole.params[name])
        assert result.layer_change[name] == 0
    for name in ("fc3", "fc4"):
        assert not equal(result.params[name], whole.params[name])
    kernels = sum(x.size for n in ("conv1", "conv2") for x in whole.params[n].values())
    assert result.frozen == kernels


@pytest.mark.parametrize("batch", [25, 32, 250])
def test_evaluation_counts_every_image_once(batch):
    recipe = dataclasses.replace(RECIPE, batch_size=batch, iterations=1)
    trainer = streaming(model, recipe, data.load("digits"), devices=jax.devices())
    result = train(trainer.start([Job("x", task())]))
    dataset, t = data.load("digits"), task()
    mean = dataset.train.mean_image(t.train_index)
    images = dataset.test.images()[t.test_index] - mean
    right = np.asarray(model(5).apply(result.variables, images)[0].argmax(-1)) == t.test_labels
    assert len(right) == 220
    assert result.accuracy == [right.sum() / 220]


def test_padding_of_the_last_batch_does_not_count(whole):
    """A network that calls everything a 0, which is also the label of padding, is right for 44 of 220 images."""
    params = whole.params | {"fc4": whole.params["fc4"] | {"bias": np.float32([1e6, 0, 0, 0, 0])}}
    base = {"params": params}
    job = Job("x", task(), copied=model(5).layer_names, base=base)
    assert set(train(shared().start([job])).accuracy) == {44 / 220}


def test_one_device_gives_the_same_as_two(whole):
    assert len(shared().devices) == 2
    one = streaming(model, RECIPE, data.load("digits"))
    assert len(one.devices) == 1, "of a CPU's devices one is fastest"
    result = train(one.start([Job("baseA", task())]))
    close(result.params, whole.params)
    np.testing.assert_allclose(result.loss, whole.loss, rtol=1e-4)


def test_programs_are_shared_by_networks_and_tasks():
    trainer = streaming(model, dataclasses.replace(RECIPE, iterations=1), data.load("digits"))
    for name, images in (("a", 50), ("b", 40)):
        train(trainer.start([Job(name, task(images=images))]))
    assert trainer.compilations == {"train_batch": 1, "check": 1, "evaluate_batch": 1}


def test_a_network_that_diverges_is_told():
    wild = dataclasses.replace(RECIPE, learning_rate=1e20, iterations=6)
    result = train(streaming(model, wild, data.load("digits")).start([Job("x", task())]))
    assert result.diverged_at_step is not None and result.diverged_at_step < 6


class Varied:
    """Images of two sizes, each of one grey."""

    labels = np.zeros(12, np.int32)
    shape = (None, None, 3)
    dtype = np.dtype(np.uint8)

    def __len__(self):
        return 12

    def image(self, index):
        return np.full((10 + index % 2, 12, 3), 20 * index, np.uint8)


def test_images_of_many_sizes_are_resized_and_so_is_their_mean():
    source = Varied()
    dataset = data.Dataset("varied", ("cat",), source, source, None)  # pyright: ignore
    recipe = dataclasses.replace(RECIPE, batch_size=4)
    with pytest.raises(UserError, match=r"dataset=varied: .* vary in size; give image_size=PIXELS"):
        streaming(model, recipe, dataset)
    trainer = streaming(model, recipe, dataset, size=8)
    assert trainer.input.shape == (8, 8, 3)
    mean = trainer.mean_image(data.make_task(dataset, ["cat"]))
    np.testing.assert_allclose(mean, np.full((8, 8, 3), 110))
    with pytest.raises(UserError, match="its crop of 9×9 does not fit images of 8×8×"):
        streaming(model, dataclasses.replace(recipe, crop=9), dataset, size=8)


def test_the_streamed_mean_of_resized_floats():
    pixels = np.full((12, 4, 4, 1), 0.25, np.float32)
    dataset = data.from_arrays("own", pixels, np.zeros(12, int), pixels, np.zeros(12, int))
    trainer = streaming(model, dataclasses.replace(RECIPE, batch_size=4), dataset, size=8)
    mean = trainer.mean_image(data.make_task(dataset, dataset.label_names))
    np.testing.assert_allclose(mean, np.full((8, 8, 1), 0.25))


def test_images_that_cannot_be_read_do_not_count():
    """Neither as wrong nor in the mean; they are told."""
    digits = data.load("digits")
    everything = data.make_task(digits, tuple("0123456789"), 50)
    gone = {int(everything.train_index[0]), int(everything.test_index[5])}

    class Broken:
        shape = (8, 8, 1)
        dtype = np.dtype(np.uint8)

        def __init__(self, source):
            self.source = source

        def __len__(self):
            return len(self.source)

        def image(self, index):
            if index in gone:
                raise CorruptRecord(f"file, record {index}: broken")
            return self.source.images()[index]

        def mean_image(self, index):
            return np.mean([self.image(i) for i in index], 0)

    dataset = dataclasses.replace(digits, train=Broken(digits.train), test=Broken(digits.test))
    trainer = streaming(model, RECIPE, dataset, skip_corrupt=True)
    kept = [i for i in everything.train_index if i not in gone]
    np.testing.assert_allclose(
        trainer.mean_image(everything), digits.train.images()[kept].mean(0), rtol=1e-5
    )
    run = trainer.start([Job("baseA", everything)])
    result = train(run)
    run.close()
    seen = [i for i, x in enumerate(everything.test_index) if x not in gone]
    assert len(seen) < len(everything.test_index)
    assert result.accuracy[-1] == result.correct[seen].sum() / len(seen)
    assert not result.correct[5]
    assert run.skipped >= {f"file, record {i}" for i in gone if i in everything.test_index}


@pytest.mark.parametrize("augments", [False, True])
def test_resident_and_streamed_training_see_the_same(augments):
    """Batches, crops, mirrors, evaluations and their numbers."""
    recipe = dataclasses.replace(
        RECIPE, learning_rate=1e-4, crop=7 * augments, mirror=augments, iterations=17
    )
    net = lambda classes: Network.of(convnets.make("digits4", classes, (7, 7, 1)))
    net = net if augments else model
    job = Job("x", task())
    streams = train(streaming(net, recipe, data.load("digits")).start([job]))
    held = train(Trainer(net, recipe, data.load("digits")).start([job]))
    close(streams.params, held.params)
    assert streams.step == held.step == [4, 8, 12, 16, 17] and streams.epoch == held.epoch
    for name in ("loss", "test_loss", "accuracy", "train_accuracy"):
        np.testing.assert_allclose(
            getattr(streams, name), getattr(held, name), rtol=1e-4, atol=0.006
        )
    assert (streams.correct == held.correct).mean() > 0.99
    assert streams.train_accuracy_images == held.train_accuracy_images == 100


def test_metrics_by_hand():
    """Test loss, training accuracy and the bits of a network's images, from its last values."""
    dataset, t = data.load("digits"), task(images=100)
    recipe = dataclasses.replace(recipes.get("digits"), epochs=2)
    result = train(Trainer(model, recipe, dataset).start([Job("x", t)]))
    logits = lambda source, index: model(5).apply(
        result.variables, source.images()[index].astype(np.float32) / 127.5 - 1
    )[0]
    test = logits(dataset.test, t.test_index)
    right = np.asarray(test.argmax(-1)) == t.test_labels
    assert np.array_equal(result.correct, right) and result.accuracy[-1] == right.mean()
    loss = optax.softmax_cross_entropy_with_integer_labels(test, t.test_labels).mean()
    np.testing.assert_allclose(result.test_loss[-1], loss, rtol=1e-5)
    chosen = feeds.subset(500)
    assert len(chosen) == result.train_accuracy_images == 100 and chosen[-1] == 495
    few = np.asarray(logits(dataset.train, t.train_index[chosen]).argmax(-1))
    assert result.train_accuracy[-1] == (few == t.train_labels[chosen]).mean()


def test_errors():
    with pytest.raises(UserError, match="replicas=2: networks are trained one at a time"):
        shared().start([Job("x", task()), Job("y", task())])
    with pytest.raises(UserError, match="batch_size=32: larger than a task of 25"):
        shared().start([Job("x", task(images=5))])


def test_what_fits_in_memory(monkeypatch):
    pixels, labels = np.zeros((60, 8, 8, 3), np.uint8), np.arange(60, dtype=np.int32) % 2
    dataset = data.from_arrays("tiny", pixels, labels, pixels[:40], labels[:40], ["a", "b"])
    # A hundred images of 192 bytes, on each of two devices, may take a quarter of the memory.
    for memory, fits in ((4 * 2 * 19_200, True), (4 * 2 * 19_200 - 4, False)):
        monkeypatch.setattr(feeds.machine, "memory", lambda memory=memory: memory)
        assert feeds.fits_in_memory(dataset) == fits
    assert not feeds.fits_in_memory(dataclasses.replace(dataset, image_shape=None))


def test_no_loop_is_longer_than_xla_computes_reproducibly(monkeypatch):
    lengths, run = [], feeds.Resident._positions
    recorded = lambda feed, start, stop: lengths.append(stop - start) or run(feed, start, stop)
    monkeypatch.setattr(feeds.Resident, "_positions", recorded)
    recipe = dataclasses.replace(RECIPE, iterations=150, evaluate_steps=130, subtract_mean=False)
    train(Trainer(model, recipe, data.load("digits")).start([Job("x", task())]))
    assert max(lengths) <= 64 and sum(lengths) == 150
