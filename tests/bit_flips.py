"""Single-bit flips of everything that a workdir and its dataset keep: each one is harmless or told.

    python tests/bit_flips.py [FLIPS [KIND …]]

Trains a small sweep on a small prepared dataset, then flips one bit at a time of one of its files and looks through the
doors that read it: the sweep, the report, the dataset. Prints for each kind of file how many flips changed nothing, how
many were told, after how many the file was sound again, and how many gave other numbers without a word: there must be none.
"""

import collections
import dataclasses
import logging
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import small_sweep
import tiny_datasets

from yosinski_jax.analysis import results, tables
from yosinski_jax.base.errors import UserError
from yosinski_jax.data import dataset as data
from yosinski_jax.data import derived, tfds, tfds_find
from yosinski_jax.networks import convnets
from yosinski_jax.networks.network import Network

# Long enough for 2,000 bits.
NAMES = tuple(
    f"{animal}, one of the six kinds of animals that are told apart"
    for animal in ("cat", "dog", "ant", "bee", "cow", "elk")
)
SETTINGS = dataclasses.replace(
    small_sweep.SETTINGS,
    dataset="tiny",
    images_per_class=20,
    recipe=dataclasses.replace(small_sweep.RECIPE, batch_size=20),
)
_HEADER_BYTES = 512


class Heard(logging.Handler):
    """What the library warns of."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        logger = logging.getLogger("yosinski_jax")
        logger.addHandler(self)
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Place:
    """A finished sweep, its dataset, and another dataset whose arrays have many blocks."""

    def __init__(self, folder: Path):
        self.heard = Heard()
        labels = [i % len(NAMES) for i in range(180)]
        splits = {
            "train": (tiny_datasets.pictures(180), labels),
            "test": (tiny_datasets.pictures(60, seed=1), labels[:60]),
        }
        self.directory = tiny_datasets.write(folder / "data", splits, names=NAMES)
        big = {
            split: (tiny_datasets.pictures(48, 160, i), labels[:48])
            for i, split in enumerate(splits)
        }
        self.big = tiny_datasets.write(folder / "big", big, name="big", names=NAMES)
        self.workdir = folder / "workdir"
        self.rows = small_sweep.table(self.sweep().run())
        # The means of the tasks, and the sums of the classes that preparing leaves.
        opened = tfds_find.open_directory(self.big).train
        opened.keep_class_sums(
            np.stack([opened.images()[opened.labels == c].sum(0, np.uint32) for c in range(6)])
        )
        self.class_sums()
        self.mean()

    def sweep(self, display=None):
        """The same command again."""
        return small_sweep.make(
            self.workdir,
            SETTINGS,
            lambda classes: Network.of(convnets.make("digits4", classes, (8, 8, 3))),
            data.load(str(self.directory)),
            display=display,
        )

    # The doors: each returns what it read and what it told.

    def swept(self) -> tuple[Any, list[str]]:
        """A sweep started again with --plan."""
        sweep = self.sweep(log := small_sweep.Log())
        sweep.look()
        return small_sweep.table(r for r in map(sweep.records.get, sweep._by_id) if r), log.lines

    def resumed(self) -> tuple[Any, list[str]]:
        """A sweep started again, where nothing is left to be trained."""
        sweep = self.sweep(log := small_sweep.Log())
        rows = small_sweep.table(sweep.run())
        assert not sweep.trained
        return rows, log.lines

    def known(self) -> Callable[[], tuple[Any, list[str]]]:
        """The sweep reading its workdir, without the start before it."""
        sweep = self.sweep(log := small_sweep.Log())

        def look() -> tuple[Any, list[str]]:
            sweep.records, log.lines = {}, []
            sweep.look()
            return small_sweep.table(
                r for r in map(sweep.records.get, sweep._by_id) if r
            ), log.lines

        return look

    def reported(self) -> tuple[Any, list[str]]:
        """What the page is made of."""
        study = results.read(self.workdir)
        rows = tables.networks_table(study.records, study.plan)
        rest = (study.title, study.label, study.settings, study.missing, study.records)
        return (rows, rest), list(study.damaged)

    def labels(self) -> tuple[Any, list[str]]:
        """The labels of the training images."""
        return tfds_find.open_directory(self.directory).train.labels.tobytes(), self.heard.lines

    def pixels(self) -> tuple[Any, list[str]]:
        """The training images."""
        return tfds_find.open_directory(self.big).train.images().tobytes(), self.heard.lines

    def class_sums(self) -> tuple[Any, list[str]]:
        """The mean of two classes, read from the sums of all."""
        split = tfds_find.open_directory(self.big).train
        return split.mean_image(np.flatnonzero(split.labels < 2)).tobytes(), self.heard.lines

    def mean(self) -> tuple[Any, list[str]]:
        """The mean of images that are no whole classes."""
        return tfds_find.open_directory(self.big).train.mean_image(
            np.arange(5)
        ).tobytes(), self.heard.lines


def flip(
    path: Path, bits: Iterable[int], door: Callable[[], tuple[Any, list[str]]], heard: Heard
) -> collections.Counter:
    """Flips bits of a file one after another and looks through a door each time.

    Returns:
      Numbers of flips: "same" (nothing changed), "told" (a message that names the file, or an error of one line), "wrong"
      (the rest), and of all of them those after which the file was "sound again".
    """
    good = path.read_bytes()
    heard.lines.clear()
    expected, words = door()
    assert not words and path.read_bytes() == good, f"{path}: {words}"
    counts: collections.Counter = collections.Counter()
    for bit in bits:
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        heard.lines.clear()
        try:
            found, words = door()
            told, same = any(path.name in line for line in words), found == expected
        except UserError as e:
            told, same = bool(str(e)) and "\n" not in str(e), False
        counts["told" if told else "same" if same else "wrong"] += 1
        if not told and not same:
            print(f"{path}: bit {bit} is wrong", flush=True)
        counts["sound again"] += path.exists() and path.read_bytes() == good
        path.write_bytes(good)
    return counts


def kinds(place: Place) -> dict[str, tuple[Path, Callable[[], tuple[Any, list[str]]]]]:
    """The files, each with a door."""
    record = place.workdir / "records" / "random-0" / "A2B+.json"
    settings, plan = place.workdir / "settings.json", place.workdir / "plan.json"

    def kept(what: str) -> Path:
        # Not under the name of the fingerprint: a new file could stand beside an old one.
        [path] = [p for f in (place.directory, place.big, derived.folder()) for p in f.glob(what)]
        return path

    return {
        "record, swept": (record, place.known()),
        "record, reported": (record, place.reported),
        "settings.json, swept": (settings, place.known()),
        "settings.json, resumed": (settings, place.resumed),
        "settings.json, reported": (settings, place.reported),
        "plan.json, swept": (plan, place.resumed),
        "plan.json, reported": (plan, place.reported),
        "label index": (next(place.directory.glob("tiny-train-labels-*.array")), place.labels),
        "pixel cache": (kept("big-train-pixels-*.array"), place.pixels),
        "class sums": (kept("big-train-class-sums-*.array"), place.class_sums),
        "mean image": (kept("big-train-mean-*.array"), place.mean),
        "label names": (place.directory / "label.labels.txt", place.swept),
        "features.json": (place.directory / "features.json", place.swept),
        "dataset_info.json": (place.directory / "dataset_info.json", place.swept),
    }  # fmt: skip


def sample(path: Path, flips: int, rng: np.random.Generator) -> list[int]:
    """So many bits of a file, each at most once; of a long file half of them of its head."""
    size = 8 * path.stat().st_size
    head = min(size, 8 * _HEADER_BYTES)
    chosen = rng.permutation(head)[: flips if size <= 2 * head else flips // 2].tolist()
    while len(set(chosen)) < min(flips, size):
        chosen += rng.integers(
            head if size > 2 * head else 0, size, flips - len(set(chosen))
        ).tolist()
    return list(dict.fromkeys(chosen))


def run(folder: Path, flips: int, wanted: Iterable[str] = ()) -> dict[str, collections.Counter]:
    """Counts for every kind of file; all bits of the record where 2,000 flips or more are asked for."""
    tfds._UNCACHED_PIXEL_BYTES = 1  # small images are kept too
    place = Place(folder)
    counted = {}
    for kind, (path, door) in kinds(place).items():
        if wanted and not any(w in kind for w in wanted):
            continue
        every = kind.startswith("record") and flips >= 2000
        bits = (
            range(8 * path.stat().st_size)
            if every
            else sample(path, flips, np.random.default_rng(0))
        )
        counted[kind] = flip(path, bits, door, place.heard)
        told = ", ".join(
            f"{counted[kind][n]} {n}" for n in ("same", "told", "wrong", "sound again")
        )
        print(f"{kind}: {len(bits)} flips, {told}", flush=True)
    return counted


def main() -> None:
    """Runs all."""
    import os

    with tempfile.TemporaryDirectory() as folder:
        os.environ["YOSINSKI_JAX_CACHE"] = f"{folder}/cache"
        counted = run(Path(folder), int(sys.argv[1]) if len(sys.argv) > 1 else 2000, sys.argv[2:])
    total = sum(counted.values(), collections.Counter())
    print(
        f"in all: {sum(total[n] for n in ('same', 'told', 'wrong'))} flips, {total['wrong']} wrong"
    )
    sys.exit(bool(total["wrong"]))


if __name__ == "__main__":
    main()
