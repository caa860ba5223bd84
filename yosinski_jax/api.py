"""The study on a network and arrays of one's own, by one function call."""

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import flax.linen as nn
import numpy as np

from yosinski_jax.base.files import as_path
from yosinski_jax.data.dataset import from_arrays
from yosinski_jax.networks.load import Own
from yosinski_jax.study.recipes import Recipe
from yosinski_jax.study.records import Record
from yosinski_jax.study.settings import Settings
from yosinski_jax.study.treatments import TREATMENTS
from yosinski_jax.sweep import checks
from yosinski_jax.sweep.runner import Display, Sweep
from yosinski_jax.training.step import network_input


def transfer_sweep(
    network: nn.Module | Callable[[int], nn.Module],
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    *,
    recipe: Recipe,
    layers: Sequence[str] | None = None,
    label_names: Sequence[str] | None = None,
    split: str = "random",
    seeds: int = 4,
    treatments: Sequence[str] = TREATMENTS,
    ns: Sequence[int] = (),
    images_per_class: int | None = None,
    seed: int = 0,
    workdir: Path | str | None = None,
    name: str = "arrays",
    display: Display | None = None,
) -> list[Record]:
    """Runs the layer-transfer study on a linen network and arrays.

        import flax.linen as nn
        from sklearn.datasets import load_digits
        from yosinski_jax import Recipe, transfer_sweep

        class Net(nn.Module):
            classes: int

            @nn.compact
            def __call__(self, x):
                x = nn.relu(nn.Dense(64, name="fc1")(x.reshape(len(x), -1)))
                x = nn.relu(nn.Dense(64, name="fc2")(x))
                return nn.Dense(self.classes, name="fc3")(x)

        digits = load_digits()
        images = (digits.images[..., None] * 15).astype("uint8")
        records = transfer_sweep(
            Net, images[:1300], digits.target[:1300], images[1300:], digits.target[1300:],
            layers=["fc1", "fc2", "fc3"], seeds=1,
            recipe=Recipe("mine", learning_rate=0.05, batch_size=64, epochs=5),
        )
        for record in records:
            print(record["name"], record["accuracy"])

    Args:
      network: a linen module, whose head has at least as many outputs as a half has classes, or a
        function from the number of classes to one (a module class with `classes` as its first field
        will do). Called on float32 images [B, H, W, C]; see `Network` for the optional arguments
        `train`, `start` and `stop` of its `__call__`. Running statistics
        (BatchNorm) travel with their layer.
      train_images: uint8 [N, H, W, C]; scaled to −1 … 1 unless the recipe subtracts the mean.
      train_labels: integers [N], positions in `label_names`.
      test_images: uint8 [M, H, W, C].
      test_labels: integers [M].
      recipe: how every network is trained.
      layers: the layers in order, as names or paths of subtrees of the parameters; the network's
        `layer_names` by default.
      label_names: of all classes; the numbers themselves by default.
      split: "random", "manmade_natural", or a JSON file with the classes of A and B.
      seeds: number of split seeds.
      treatments: among `treatments.TREATMENTS`; base always is.
      ns: values of n; all from 1 to one less than the number of layers by default.
      images_per_class: training images of each class, the first of each; all by default.
      seed: changes every random number but the splits'.
      workdir: folder of records and checkpoints, which a second call goes on from; a temporary one
        by default.
      name: of the data, for the records.
      display: what is told while it works.

    Returns:
      One record a network.

    Raises:
      UserError: arrays, labels, split, batch or workdir do not fit; says what to do.
      ValueError: the layers do not cover the network's parameters, or it has other collections than
        parameters.
    """
    dataset = from_arrays(name, train_images, train_labels, test_images, test_labels, label_names)
    model = Own(network, layers)
    first = model(2)
    if dataset.image_shape is not None:
        checks.check_network(first, network_input(recipe, dataset.image_shape, dataset.dtype))
    settings = Settings.resolve(
        name,
        type(first.module).__name__,
        len(first.layer_names),
        recipe,
        class_sizes=checks.class_sizes(dataset),
        split=split,
        seeds=seeds,
        treatments=treatments,
        layers=ns,
        images_per_class=images_per_class,
        seed=seed,
    )
    with contextlib.ExitStack() as stack:
        folder = workdir or stack.enter_context(tempfile.TemporaryDirectory())
        return Sweep(
            settings, dataset, model, as_path(folder), display=display, feature_bytes=2**30
        ).run()
