"""Images/s of the whole input pipeline on real JPEGs, against PyTorch's on the same images.

Ours is what streamed training does before each step: read, decode, resize, shuffle and batch in worker
processes, transfer to the device, and there crop, flip and subtract the mean. The peer's workers do all of
this but the mean on the host. So ours is measured twice: up to the batch on the device, which is all that the
host's cores do unless the device is a CPU, and to the end. Both sides get the same number of workers and the
same images; both skip the first batches, during which workers start, and read files cached in memory.
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
from experiments.benchmarks.measure import Spread
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

# Warm-up batches, on both sides.
_SKIPPED = 2

#: What our side reads, in order of the table.
CASES = {
    "full": "full-size JPEG",
    "jpeg": "prepared, JPEG",
    "raw": "prepared, raw uint8",
}
# Target speed of each case, relative to the peer on full-size JPEGs.
_TARGETS = {"full": 1.5, "jpeg": 4.0, "raw": 4.0}


@dataclasses.dataclass(frozen=True)
class Reading:
    """How both sides read.

    Attributes:
        workers: decoding processes.
        recipe: batch size, crop, flip and mean.
        batches: batches per measurement, after the warm-up.
        seconds: minimum duration of one of our measurements.
        size: side of the square to which images are resized, in pixels.
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
    """Measures all cases on both sides, alternating.

    Args:
        dataset: ImageNet's original images, or some of them, labelled by WordNet ids.
        reading: how to read.
        peer: the PyTorch script; None to run only ours.
        rounds: number of measurements.

    Returns:
        One row for each of `CASES`, with images/s of ours and of the peer on the same files, and the
        ratios, within a round, to these and to the peer on the full-size JPEGs; None without a peer.

    Raises:
        UserError: all images have one size, so they are not the original ones.
    """
    if dataset.image_shape is not None:
        raise UserError(
            f"--dataset={dataset.name}: its images are of one size; give ImageNet's original images, such as the "
            "directory that TFDS prepares"
        )
    with measure.folder() as folder:
        values = _measure(dataset, reading, peer, rounds, folder)
    gc.collect()  # otherwise batches in shared memory are reported as leaked at exit
    whole, cores = values.get(("theirs", "full")), machine.cores()
    rows = []
    for case, label in CASES.items():
        same = values.get(("theirs", case))
        row = {
            "case": case,
            "images": label,
            "workers": reading.workers,
            "cores": cores,
            "batch_size": reading.recipe.batch_size,
            "theirs": same,
            "theirs_per_core": same * (1 / cores) if same else None,
            "target_full_size": _TARGETS[case],
        }
        for who, prefix in (("ours", ""), ("host", "host_")):
            rate = values[who, case]
            row |= {
                who: rate,
                f"{who}_per_core": rate * (1 / cores),
                f"{prefix}ratio_same_files": rate / same if same else None,
                f"{prefix}ratio_full_size": rate / whole if whole else None,
            }
        rows.append(row)
    return rows


def _measure(
    dataset: Dataset, reading: Reading, peer: Peer | None, rounds: int, folder: Path
) -> dict[tuple[str, str], Spread]:
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
    folders["jpeg"].mkdir()
    for i in range(len(datasets["jpeg"].train)):
        (folders["jpeg"] / f"{i:06d}.JPEG").write_bytes(_encoded(datasets["jpeg"].train, i))
    ours = {case: _Ours(found, reading) for case, found in datasets.items()}
    whose = ("ours", "host", "theirs") if peer else ("ours", "host")
    names = [(who, case) for case in datasets for who in whose]

    def once(name: tuple[str, str], turn: int) -> float:
        who, case = name
        if who == "theirs" and peer is not None:
            return _theirs(peer, folders[case], reading)
        return ours[case].rate(to_device=who == "host")

    found = measure.in_turns([n for n in names if n != ("theirs", "raw")], once, rounds)
    return {name: Spread(rates) for name, rates in found.items()}


def write_folders(dataset: Dataset, folder: Path) -> None:
    """Writes the stored files into class folders, `train/WNID/` and `val/WNID/`."""
    for split, source in (("train", dataset.train), ("val", dataset.test)):
        for label in np.unique(source.labels):
            (folder / split / dataset.label_names[label]).mkdir(parents=True)
        for i, label in enumerate(source.labels):
            wnid = dataset.label_names[label]
            (folder / split / wnid / f"{wnid}_{i}.JPEG").write_bytes(_encoded(source, i))


def _encoded(source: Any, index: int) -> bytes:
    """The file that a record holds."""
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example.FromString(source.record(index))  # pyright: ignore
    return example.features.feature["image"].bytes_list.value[0]


class _Ours:
    def __init__(self, dataset: Dataset, reading: Reading):
        self._reading, self._dataset = reading, dataset
        size = None if dataset.image_shape else reading.size
        # The network is never used: the trainer provides the devices and the transfer that training uses.
        self._trainer = Trainer(
            lambda classes: Network.of(convnets.make("caffenet", classes, (227, 227, 3))),
            reading.recipe,
            dataset,
            streaming=Streaming(reading.workers, size=size),
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

    def rate(self, *, to_device: bool) -> float:
        """Images/s of one stream, up to the batch on the device or to the end."""
        program = (lambda images, mean, key: images) if to_device else self._program
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
        # Compiled before the workers start, which would fill their buffers while the device is busy.
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


def _theirs(peer: Peer, folder: Path, reading: Reading) -> float:
    """Images/s as the peer reports them."""
    command = [
        peer.python, peer.script, str(folder), f"--workers={reading.workers}",
        f"--batch={reading.recipe.batch_size}", f"--batches={reading.batches}", *peer.options,
    ]  # fmt: skip
    return json.loads(measure.process(command).out.splitlines()[-1])["images_per_second"]


def show(rows: list[dict]) -> str:
    """Rates, rates per core and ratios."""
    first, shown = rows[0], []
    for row in rows:
        for who, prefix, up_to in (
            ("host", "host_", "the device"),
            ("ours", "", "crop, flip, mean"),
        ):
            names = ("ratio_same_files", "ratio_full_size")
            own = {"rate": row[who], "per_core": row[f"{who}_per_core"], "up_to": up_to}
            shown.append(row | own | {name: row[prefix + name] for name in names})
    columns = {
        "ours reads": "{images}",
        "up to": "{up_to}",
        "ours, images/s": "{rate}",
        "per core": "{per_core}",
        "peer, same files": "{theirs}",
        "peer, per core": "{theirs_per_core}",
        "ours / peer, same files": "{ratio_same_files:.2f}",
        "ours / peer, full-size": "{ratio_full_size:.2f}",
        "target": "{target_full_size:.1f}",
    }
    lines = [
        f"{first['workers']} workers on both sides, batches of {first['batch_size']}, {first['cores']} cores",
        measure.table(shown, columns),
    ]
    if first["theirs"]:
        lines.append(
            "Targets are ratios to the peer on full-size JPEGs; the peer does not read raw uint8."
        )
    return "\n".join(lines)
