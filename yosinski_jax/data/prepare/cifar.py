"""CIFAR-10 and CIFAR-100: official archive to TFDS directory, without TensorFlow."""

import dataclasses
import gzip
import io
import pickle
import tarfile
import zlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import first_line
from yosinski_jax.base.progress import Progress
from yosinski_jax.data.images import png
from yosinski_jax.data.prepare import writer as tfds_write
from yosinski_jax.data.prepare.download import Archive, download, md5

_SIZE = 32
_PIXELS = 3 * _SIZE * _SIZE
# The largest official file, CIFAR-100's pickled training images, is 155 MB.
_MAX_BYTES = 256 << 20


@dataclasses.dataclass(frozen=True)
class Cifar:
    """What differs between the two datasets.

    Attributes:
        python: the archive of pickled batches.
        binary: the archive of binary batches; this one is downloaded, because nothing needs unpickling.
        train: stems of the training files.
        test: stem of the test file.
        label_keys: TFDS feature -> key of the labels in the pickled batches, in the order of the
            label bytes in the binary records.
        label_names: TFDS feature -> (key of the names in the pickled meta file, binary names file).
    """

    python: Archive
    binary: Archive
    train: tuple[str, ...]
    test: str
    label_keys: dict[str, str]
    label_names: dict[str, tuple[str, str]]


# URLs and checksums of the archives: https://www.cs.toronto.edu/~kriz/cifar.html. Checksums of the
# unpacked pickled batches: torchvision/datasets/cifar.py.
_KRIZ = "https://www.cs.toronto.edu/~kriz/"
DATASETS = {
    "cifar10": Cifar(
        python=Archive(
            _KRIZ + "cifar-10-python.tar.gz",
            "c58f30108f718f92721af3b95e74349a",
            {
                "data_batch_1": "c99cafc152244af753f735de768cd75f",
                "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "634d18415352ddfa80567beed471001a",
                "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                "test_batch": "40351d587109b95175f43aff81a1287e",
                "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
            },
        ),
        binary=Archive(_KRIZ + "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test="test_batch",
        label_keys={"label": "labels"},
        label_names={"label": ("label_names", "batches.meta.txt")},
    ),
    "cifar100": Cifar(
        python=Archive(
            _KRIZ + "cifar-100-python.tar.gz",
            "eb9058c3a382ffc7106e4002c42a8d85",
            {
                "train": "16019d7e3df5f24257cddd939b257f8d",
                "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
                "meta": "7973b15100ade9c7d40fb424638fde48",
            },
        ),
        binary=Archive(_KRIZ + "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
        train=("train",),
        test="test",
        label_keys={"coarse_label": "coarse_labels", "label": "fine_labels"},
        label_names={
            "coarse_label": ("coarse_label_names", "coarse_label_names.txt"),
            "label": ("fine_label_names", "fine_label_names.txt"),
        },
    ),
}


#: Label names by TFDS feature; split -> (uint8 [images, 3072], labels by TFDS feature).
Content = tuple[dict[str, list[str]], dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]]


def prepare(
    dataset: str, data_dir: str, source: str | None = None, *, checksum: bool = True
) -> Path:
    """Writes DATA_DIR/cifar10/VERSION (or cifar100), with the version that TFDS looks for.

    Args:
        dataset: "cifar10" or "cifar100".
        data_dir: folder of prepared datasets.
        source: an official archive, or a folder with the archive or its unpacked files; downloaded if None.
        checksum: verify the published checksums. Of unpacked files, only the pickled ones have any.

    Returns:
        The prepared directory.

    Raises:
        UserError: a failed download, a checksum mismatch, malformed files, or a folder that cannot be written.
    """
    cifar = DATASETS[dataset]
    version = tfds_write.registered_version(dataset)
    with tfds_write.new_directory(data_dir, dataset, version) as directory:
        tfds_write.discard(directory)  # converting takes seconds, so start over
        folder = Path(data_dir).expanduser()
        given = source and Path(source).expanduser()
        content = _read(cifar, given or download(cifar.binary, folder / "downloads"), checksum)
        _write(directory, dataset, version, content)
    final = folder / dataset / version
    tfds_write.keep_labels(
        final, {split: labels["label"] for split, (_, labels) in content[1].items()}
    )
    return final


def _read(cifar: Cifar, source: Path, checksum: bool) -> Content:
    """Reads an archive, or a folder with the archive or its files."""
    if source.is_file():
        return _read_archive(cifar, source, checksum)
    if not source.is_dir():
        raise UserError(
            f"source={source}: no such file or folder; expected {cifar.python.name}, {cifar.binary.name} or a folder "
            "with one of them or its files"
        )
    for archive in (cifar.binary, cifar.python):
        if (source / archive.name).is_file():
            return _read_archive(cifar, source / archive.name, checksum)
    files = {path.name: path for path in sorted(source.rglob("*")) if path.is_file()}
    if checksum:
        _check_files(cifar, source, files)
    return _parse(cifar, files, lambda name: files[name].read_bytes(), source)


def _check_files(cifar: Cifar, source: Path, files: dict[str, Path]) -> None:
    """Checks unpacked files against the published checksums."""
    if f"{cifar.test}.bin" in files and cifar.test not in files:
        raise UserError(
            f"source={source}: there are no published checksums of unpacked binary files; give the archive "
            f"{cifar.binary.name}, or accept the files unchecked with checksum=False"
        )
    for name, expected in cifar.python.files.items():
        found = md5(files[name]) if name in files else expected
        if found != expected:
            raise UserError(
                f"source={source}: {files[name]} has md5 {found}, expected {expected}; "
                "unpack the official archive again, or accept it with checksum=False"
            )


def _read_archive(cifar: Cifar, path: Path, checksum: bool) -> Content:
    published = {archive.md5: archive.name for archive in (cifar.python, cifar.binary)}
    if checksum:
        found = md5(path)
        if found not in published:
            sums = ", ".join(f"{name} {md5sum}" for md5sum, name in published.items())
            raise UserError(
                f"source={path}: has md5 {found}, expected one of {sums}; download it again, or "
                "accept it with checksum=False"
            )
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as file:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                # Members are read in memory, never extracted, so malicious paths are harmless.
                contents = {
                    Path(member.name).name: _bytes(tar, member) for member in tar if member.isfile()
                }
            while file.read(1 << 20):  # gzip verifies its CRC at the end
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError) as error:
        raise UserError(f"source={path}: not a readable tar archive ({error})") from None
    return _parse(cifar, contents, contents.__getitem__, path)


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > _MAX_BYTES:
        raise ValueError(f"{member.name} declares {member.size} bytes")
    file = tar.extractfile(member)
    return file.read() if file else b""


def _parse(
    cifar: Cifar, files: Collection[str], read: Callable[[str], bytes], source: Path
) -> Content:
    """Parses the files of an archive, pickled or binary."""
    binary = f"{cifar.test}.bin" in files
    suffix = ".bin" if binary else ""
    meta = "meta" if "meta" in files else "batches.meta"
    names_files = [file for _, file in cifar.label_names.values()] if binary else [meta]
    needed = [*(f"{stem}{suffix}" for stem in (*cifar.train, cifar.test)), *names_files]
    missing = [name for name in needed if name not in files]
    if missing:
        raise UserError(
            f"source={source}: missing {', '.join(missing)}; expected the files of "
            f"{cifar.python.name} or {cifar.binary.name}"
        )
    try:
        if binary:
            names = {
                feature: read(file).decode().split()
                for feature, (_, file) in cifar.label_names.items()
            }
        else:
            pickled = _unpickle(read(meta))
            names = {
                feature: [name.decode() for name in pickled[key.encode()]]
                for feature, (key, _) in cifar.label_names.items()
            }
        batch = _binary_batch if binary else _pickled_batch
        splits = {}
        for split, stems in (("train", cifar.train), ("test", (cifar.test,))):
            batches = [batch(cifar, read(f"{stem}{suffix}")) for stem in stems]
            for stem, (pixels, _) in zip(stems, batches, strict=True):
                if not len(pixels):
                    raise ValueError(f"no images in {stem}{suffix}")
            labels = {k: np.concatenate([b[1][k] for b in batches]) for k in cifar.label_keys}
            for feature, values in labels.items():
                if values.min() < 0 or values.max() >= len(names[feature]):
                    raise ValueError(f"{feature} {values.max()} of {len(names[feature])} classes")
            splits[split] = (np.concatenate([b[0] for b in batches]), labels)
    except Exception as error:  # pickle and numpy raise many types of errors for damaged files
        raise UserError(
            f"source={source}: not the official format ({type(error).__name__}: {first_line(error)})"
        ) from None
    return names, splits


def _binary_batch(cifar: Cifar, data: bytes) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    keys = list(cifar.label_keys)
    records = np.frombuffer(data, np.uint8).reshape(-1, len(keys) + _PIXELS)
    return records[:, len(keys) :], {key: records[:, i].astype(int) for i, key in enumerate(keys)}


def _pickled_batch(cifar: Cifar, data: bytes) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    batch = _unpickle(data)
    pixels = batch[b"data"]
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        raise ValueError("data is not a uint8 array")
    pixels = pixels.reshape(-1, _PIXELS)
    labels = {}
    for feature, key in cifar.label_keys.items():
        labels[feature] = np.asarray(batch[key.encode()], dtype=int)
        if labels[feature].shape != (len(pixels),):
            raise ValueError(f"{len(pixels)} images, {key} {labels[feature].shape}")
    return pixels, labels


class _Unpickler(pickle.Unpickler):
    """Unpickles arrays, lists, dictionaries, text and numbers, and nothing else."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        # numpy has moved this function; both names refer to it.
        reconstruct = np.empty(0).__reduce__()[0]
        allowed = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("numpy.core.multiarray", "_reconstruct"): reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): reconstruct,
            ("_codecs", "encode"): _latin1,
        }
        try:
            return allowed[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"{module_name}.{global_name} does not belong in a CIFAR file"
            ) from None


def _latin1(text: str, encoding: str) -> bytes:
    """Stands in for codecs.encode, with which Python 3 writes bytes in old pickle protocols."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding}")
    return text.encode("latin1")


def _unpickle(data: bytes) -> dict[Any, Any]:
    # The official files come from Python 2: their strings are bytes.
    content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    if not isinstance(content, dict):
        raise pickle.UnpicklingError("not a dictionary")
    return {key.encode() if isinstance(key, str) else key: v for key, v in content.items()}


def _write(directory: Path, dataset: str, version: str, content: Content) -> None:
    """Writes one file per split, and the metadata."""
    import tensorflow_datasets as tfds

    label_names, splits = content
    total = sum(len(pixels) for pixels, _ in splits.values())
    files = {}
    with Progress(f"writing {dataset}", total) as progress:
        for split, (pixels, labels) in splits.items():
            path = directory / tfds_write.shard_name(dataset, split, 0, 1)
            with tfds_write.ShardWriter(path) as writer:
                # The images are stored as red, green and blue planes.
                for i, planes in enumerate(pixels.reshape(-1, 3, _SIZE, _SIZE)):
                    values = {feature: int(numbers[i]) for feature, numbers in labels.items()}
                    image = png(planes.transpose(1, 2, 0))
                    writer.write(tfds_write.example(image, id=f"{split}_{i:05d}", **values))
                    progress.advance()
            files[split] = tfds_write.SplitFiles([writer.records], writer.bytes)
    features = {
        "id": tfds.features.Text(),
        "image": tfds.features.Image(shape=(_SIZE, _SIZE, 3)),
        **{key: tfds.features.ClassLabel(names=names) for key, names in label_names.items()},
    }
    description = f"{dataset} from the official archive; images as PNG (lossless)."
    tfds_write.write_metadata(directory, dataset, version, description, features, files)
