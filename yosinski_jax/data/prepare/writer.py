"""Writing directories that TFDS reads, without TensorFlow.

TFDS itself needs TensorFlow to prepare CIFAR and ImageNet, but the format that it reads is simple:
array_record files of tf.train.Example messages and three kinds of small text files.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yosinski_jax.base import extras
from yosinski_jax.base.errors import UserError
from yosinski_jax.data import tfds_find

FILE_FORMAT = "array_record"


@dataclasses.dataclass(frozen=True)
class SplitFiles:
    """Metadata of one split.

    Attributes:
        records: number of records of each file, in order.
        bytes: total size of the records.
    """

    records: Sequence[int]
    bytes: int


def example(image: bytes, **features: int | str) -> bytes:
    """Serializes one tf.train.Example.

    Args:
        image: the encoded image, or its raw pixels.
        **features: other features, integers (labels) or text.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    message = tf_example_pb2.Example()  # pyright: ignore
    message.features.feature["image"].bytes_list.value.append(image)
    for key, value in features.items():
        if isinstance(value, int):
            message.features.feature[key].int64_list.value.append(value)
        else:
            message.features.feature[key].bytes_list.value.append(value.encode())
    return message.SerializeToString()


class ShardWriter:
    """Writes one array_record file, which gets its final name only when it is complete.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """

    def __init__(self, path: Path):
        from array_record.python import array_record_module  # pyright: ignore

        self._path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self.records = 0
        self.bytes = 0
        with _as_os_error(path):
            # One record per group, as grain and TFDS expect for random access; compression would not
            # shrink encoded images, and raw ones are meant to be read fast.
            options = "group_size:1,uncompressed"
            writer: Any = array_record_module.ArrayRecordWriter(str(self._partial), options)
        self._writer = writer

    def write(self, record: bytes) -> None:
        """Appends a record."""
        with _as_os_error(self._path):
            self._writer.write(record)
        self.records += 1
        self.bytes += len(record)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with contextlib.suppress(RuntimeError):  # the first error is the one to report
                self._writer.close()
            self._partial.unlink(missing_ok=True)
            return
        try:
            with _as_os_error(self._path):
                self._writer.close()
        except OSError:
            self._partial.unlink(missing_ok=True)  # free the space on a full disk
            raise
        os.replace(self._partial, self._path)


@contextlib.contextmanager
def _as_os_error(path: Path) -> Iterator[None]:
    """Converts RuntimeError, as which array_record reports a full disk."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(f"{path}: {str(error).splitlines()[0]}") from None


def shard_name(dataset: str, split: str, shard: int, shards: int) -> str:
    """Returns the file name that TFDS expects."""
    return f"{dataset}-{split}.{FILE_FORMAT}-{shard:05d}-of-{shards:05d}"


def registered_version(dataset: str) -> str:
    """Returns the version that TFDS looks for of one of its own datasets.

    Raises:
        UserError: TFDS is not installed.
    """
    tfds = extras.load("tensorflow_datasets", f"dataset={dataset}")
    return str(tfds.builder_cls(dataset).VERSION)


def write_metadata(
    directory: Path,
    dataset: str,
    version: str,
    description: str,
    features: Mapping[str, Any],
    splits: Mapping[str, SplitFiles],
) -> None:
    """Writes features.json, the lists of label names and, last, dataset_info.json.

    Args:
        directory: folder with the files of the splits.
        dataset: name of the dataset.
        version: "major.minor.patch".
        description: one sentence.
        features: TFDS feature objects by name; `image` and `label` among them.
        splits: files of every split.
    """
    import tensorflow_datasets as tfds

    tfds.features.FeaturesDict(dict(features)).save_config(os.fspath(directory))
    info = {
        "description": description,
        "fileFormat": FILE_FORMAT,
        "moduleName": __name__,
        "name": dataset,
        "splits": [
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": name,
                "numBytes": str(files.bytes),
                "shardLengths": [str(records) for records in files.records],
            }
            for name, files in splits.items()
        ],
        "supervisedKeys": {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}},
        "version": version,
    }
    write_json(directory / "dataset_info.json", info)


def write_json(path: Path, value: object) -> None:
    """Writes a JSON file, which gets its name only when it is complete; OSError if it cannot be written."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=2))
    os.replace(partial, path)


def keep_labels(directory: Path, labels: Mapping[str, np.ndarray]) -> tfds_find.Opened:
    """Opens a prepared directory and writes the label index of its splits, from their labels [records]."""
    opened = tfds_find.open_directory(directory)
    for part in (opened.train, opened.test):
        part.keep_labels(labels[part.split].astype(np.int32))
    return opened


@contextlib.contextmanager
def new_directory(data_dir: str, dataset: str, version: str) -> Iterator[Path]:
    """Yields a folder to fill, which becomes DATA_DIR/DATASET/VERSION if the block succeeds.

    It still holds the files of an interrupted attempt, which can be resumed.

    Raises:
        UserError: the dataset exists already, another process is preparing it, or it cannot be written.
    """
    final = Path(data_dir).expanduser() / dataset / version
    partial = final.with_name(f".{version}.partial")
    if final.exists():
        raise UserError(
            f"data_dir={data_dir}: {final} exists already; remove it to prepare it again"
        )
    try:
        partial.mkdir(parents=True, exist_ok=True)
        # Do not follow a symlink in its place.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        lock = open(os.open(partial.with_name(f".{version}.lock"), flags, 0o644), "w")
    except OSError as error:
        raise UserError(
            f"data_dir={data_dir}: cannot be written ({error.strerror}); choose another folder"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"data_dir={data_dir}: another process is preparing {final}; wait for it"
            ) from None
        except OSError as error:  # some network file systems
            raise UserError(
                f"data_dir={data_dir}: cannot be locked ({error.strerror}); choose a folder on a file system that supports locks"
            ) from None
        try:
            yield partial
            os.rename(partial, final)
        except OSError as error:
            raise UserError(
                f"data_dir={data_dir}: writing failed ({error}); free some space or choose another "
                "folder, and run the same command again"
            ) from None
        partial.with_name(f".{version}.lock").unlink(missing_ok=True)


def discard(directory: Path) -> None:
    """Deletes the files of an interrupted attempt."""
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
