"""Images/s through the whole input path on real JPEGs, against PyTorch's on the same images.

Ours is what training from a stream does before its step: read, decode, resize, shuffle and batch in
worker processes, transfer to the device, and there crop, mirror and subtract the mean. The peer's
workers do all of it but the mean on the host. So ours is measured twice: up to the batch on the
device, which is all that the host's cores do where the device is another, and to the end. Both
sides get equally many workers and the same images; both leave out the first batches, in which the
workers start, and both read from files that earlier turns left in memory.
"""

import dataclasses
import functools
import gc
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.benchmarks import measure
from experiments.benchmarks.peer import Peer
from yosinski_jax.base import machine
from yosinski_jax.base.errors import UserError
from yosinski_jax.data import dataset as data
from yosinski_jax.data import stream
from yosinski_jax.data.dataset import Dataset, Task
from yosinski_jax.data.prepare import entry
from yosinski_jax.data.prepare.imagenet import Settings
from yosinski_jax.networks import convnets
from yosinski_jax.networks.network import Network
from yosinski_jax.study.recipes import Recipe
from yosinski_jax.training import multihost, streamed
from yosinski_jax.training.feeds import Streaming
from yosinski_jax.training.step import preprocess
from yosinski_jax.training.trainer import Trainer

# Batches left out on both sides.
_SKIPPED = 2

#: The cases in the order of the table: what our side reads.
CASES = {
    "full": "full-size JPEG",
    "jpeg": "prepared, JPEG",
    "raw": "prepared, raw uint8",
}
# Times the peer on full-size JPEGs that each case is meant to reach.
_TARGETS = {"full": 1.5, "jpeg": 4.0, "raw": 4.0}


@dataclasses.dataclass(frozen=True)
class Reading:
    """How both sides read.

    Attributes:
        workers: processes that decode.
        recipe: batch size, crop, mirror and mean.
        batches: batches of one value, after those left out.
        seconds: least time of one of our values.
        size: side of the square that images are brought to, in pixels.
        quality: of the prepared JPEGs.
    """

    workers: int
    recipe: Recipe
    batches: int = 12
    seconds: float = 4.0
    size: int = 256
    quality: int = 95

    def __post_init__(self):
        if self.workers < 1:
            raise UserError(f"--workers={self.workers}: must be at least 1")


def run(dataset: Dataset, reading: Reading, peer: Peer | None, *, rounds: int) -> list[dict]:
    """Measures all cases on both sides in turns.

    Args:
        dataset: ImageNet's images, or some of them, as they came; labels named by WordNet ids.
        reading: how to read.
        peer: the PyTorch script; None to run ours alone.
        rounds: values of each measure.

    Returns:
        One row for each of `CASES`, with images/s of ours, of the peer on the same files and of the
        peer on the full-size JPEGs, and the ratios within a turn; None where there is no such peer.

    Raises:
        UserError: the images are of one size, so they do not lie there as they came.
    """
    if dataset.image_shape is not None:
        raise UserError(
            f"--dataset={dataset.name}: its images are of one size; input takes ImageNet's images as "
            "they came, such as the directory that TFDS prepares"
        )
    with measure.folder() as folder:
        values = _measure(dataset, reading, peer, rounds, folder)
    gc.collect()  # batches lie in shared memory, which would else be told as leaked at the end
    whole = values.get(("theirs", "full"))
    rows = []
    for case, label in CASES.items():
        ours, same = values["ours", case], values.get(("theirs", case))
        host = values["host", case]
        rows.append(
            {
                "case": case,
                "images": label,
                "workers": reading.workers,
                "cores": _cores(),
                "batch_size": reading.recipe.batch_size,
                "ours": ours,
                "host": host,
                "host_per_core": host * (1 / _cores()),
                "ours_per_core": ours * (1 / _cores()),
                "theirs": same,
                "theirs_per_core": same * (1 / _cores()) if same else None,
                "host_ratio_same_files": host / same if same else None,
                "host_ratio_full_size": host / whole if whole else None,
                "ratio_same_files": ours / same if same else None,
                "ratio_full_size": ours / whole if whole else None,
                "target_full_size": _TARGETS[case],
            }
        )
    return rows


def _measure(
    dataset: Dataset, reading: Reading, peer: Peer | None, rounds: int, folder: Path
) -> dict[Any, measure.Spread]:
    full = folder / "full"
    write_folders(dataset, full)
    datasets = {"full": dataset}
    for case, quality in (("jpeg", reading.quality), ("raw", None)):
        directory = entry.prepare(
            "imagenet2012",
            str(folder / case),
            str(full),
            settings=Settings(reading.size, quality),
            processes=reading.workers,
        )
        datasets[case] = data.load(str(directory))
    folders = {"full": full / "train", "jpeg": folder / "prepared"}
    _write(datasets["jpeg"].train, folders["jpeg"])
    measures: dict[Any, Any] = {}
    for case, found in datasets.items():
        ours = _Ours(found, reading)
        measures["ours", case] = ours.rate
        measures["host", case] = ours.rate_to_device
        if peer and case in folders:
            measures["theirs", case] = _Theirs(peer, folders[case], reading).rate
    return measure.in_turns(measures, rounds)


def _cores() -> int:
    return machine.cores()


def write_folders(dataset: Dataset, folder: Path) -> None:
    """Writes the images as they are stored into class folders, `train/WNID/` and `val/WNID/`."""
    for split, source in (("train", dataset.train), ("val", dataset.test)):
        for label in np.unique(source.labels):
            (folder / split / dataset.label_names[label]).mkdir(parents=True)
        for i, label in enumerate(source.labels):
            wnid = dataset.label_names[label]
            (folder / split / wnid / f"{wnid}_{i}.JPEG").write_bytes(_encoded(source, i))


def _write(source: Any, folder: Path) -> None:
    folder.mkdir()
    for i in range(len(source)):
        (folder / f"{i:06d}.JPEG").write_bytes(_encoded(source, i))


def _encoded(source: Any, index: int) -> bytes:
    """The file that a record holds."""
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example.FromString(source.record(index))  # pyright: ignore
    return example.features.feature["image"].bytes_list.value[0]


class _Ours:
    def __init__(self, dataset: Dataset, reading: Reading):
        self._reading, self._dataset = reading, dataset
        network = lambda classes: Network.of(convnets.make("caffenet", classes, (227, 227, 3)))
        # Never asked for its network: it gives the devices and the transfer that training uses.
        self._trainer = Trainer(
            network,
            reading.recipe,
            dataset,
            streaming=Streaming(
                reading.workers, size=None if dataset.image_shape else reading.size
            ),
        )
        self._mesh = self._trainer.mesh(1)
        self._task: Task = data.make_task(dataset, dataset.label_names)
        recipe = self._trainer.recipe
        self._program = jax.jit(
            lambda images, mean, key: preprocess(recipe, images, mean, key),
            out_shardings=NamedSharding(self._mesh, P("data")),
        )
        grey = np.full(self._trainer.fed_shape, 128, np.float32)
        self._mean = multihost.to_devices(NamedSharding(self._mesh, P()), grey)
        self._runs = 0

    def rate(self) -> float:
        """Images/s of one stream to the end."""
        return self._rate(self._program)

    def rate_to_device(self) -> float:
        """Images/s of one stream up to the batch on the device."""
        return self._rate(lambda images, mean, key: images)

    def _rate(self, program: Any) -> float:
        reading, trainer = self._reading, self._trainer
        assert trainer.streaming is not None
        put = functools.partial(streamed.put_batch, self._mesh)
        batch = reading.recipe.batch_size
        self._runs += 1
        keys = jax.random.split(jax.random.key(self._runs), 64)
        empty = stream.Batch(
            np.zeros((batch, *trainer.fed_shape), np.uint8),
            np.zeros(batch, np.int32),
            np.zeros(batch, bool),
        )
        # Compiled before the workers start: while the device is busy they would fill their buffers.
        jax.block_until_ready(program(put(empty)["images"], self._mean, keys[0]))
        with stream.train(
            self._dataset.train,
            self._task,
            batch_size=batch,
            seed=self._runs,
            **dataclasses.asdict(trainer.streaming),
        ) as batches:
            previous, began, count = None, 0.0, -_SKIPPED
            for found in stream.prefetch(batches, put):
                current = program(found["images"], self._mean, keys[count % len(keys)])
                jax.block_until_ready(previous)
                previous, count = current, count + 1
                if count == 0:
                    jax.block_until_ready(current)
                    began = time.perf_counter()
                if count >= reading.batches and time.perf_counter() - began >= reading.seconds:
                    break
            jax.block_until_ready(previous)
            return count * batch / (time.perf_counter() - began)


class _Theirs:
    def __init__(self, peer: Peer, folder: Path, reading: Reading):
        self._command = [
            peer.python, peer.script, str(folder), f"--workers={reading.workers}",
            f"--batch={reading.recipe.batch_size}", f"--batches={reading.batches}", *peer.options,
        ]  # fmt: skip

    def rate(self) -> float:
        """Images/s as it reports them."""
        return json.loads(measure.process(self._command).out.splitlines()[-1])["images_per_second"]


def show(rows: list[dict]) -> str:
    """Rates, rates per core and ratios."""
    first = rows[0]
    header = (
        "ours reads", "up to", "ours, images/s", "per core", "peer, same files", "per core",
        "ours / peer, same files", "ours / peer, full-size", "target",
    )  # fmt: skip
    text = lambda value, form=",.0f": value.text(form) if value else ""
    cells = [
        (
            row["images"],
            up_to,
            text(row[ours]),
            text(row[f"{ours}_per_core"]),
            text(row["theirs"]),
            text(row["theirs_per_core"]),
            text(row[f"{prefix}ratio_same_files"], ".2f"),
            text(row[f"{prefix}ratio_full_size"], ".2f"),
            f"{row['target_full_size']:.1f}",
        )
        for row in rows
        for ours, prefix, up_to in (
            ("host", "host_", "the device"),
            ("ours", "", "crop, mirror, mean"),
        )
    ]
    lines = [
        f"{first['workers']} workers on both sides, batches of {first['batch_size']}, "
        f"{first['cores']} cores",
        measure.table(header, cells),
    ]
    if first["theirs"]:
        lines.append(
            "Targets are ratios to the peer on full-size JPEGs; the peer reads no raw uint8."
        )
    return "\n".join(lines)
