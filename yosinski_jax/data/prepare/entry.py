"""Preparing datasets: one function for CIFAR-10, CIFAR-100 and ImageNet."""

from pathlib import Path

from yosinski_jax.base import extras
from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import local_path
from yosinski_jax.data import tfds_find
from yosinski_jax.data.prepare import cifar, imagenet, writer
from yosinski_jax.data.tfds_find import PREPARABLE


def prepare(
    dataset: str,
    data_dir: str,
    source: str | None = None,
    *,
    checksum: bool | None = None,
    settings: imagenet.Settings | None = None,
    validation_labels: str | None = None,
    processes: int | None = None,
) -> Path:
    """Writes DATA_DIR/DATASET/VERSION so that TFDS reads it, without TensorFlow.

    An existing dataset is left as it is. An interrupted preparation is resumed.

    Args:
        dataset: one of `PREPARABLE`.
        data_dir: folder of prepared datasets; created if missing.
        source: official files; CIFAR is downloaded if None, ImageNet must be given.
        checksum: verify the published checksums; if None, only for CIFAR.
        settings: how ImageNet's images are stored.
        validation_labels: file with the classes of ImageNet's validation images, if the source does not have them.
        processes: worker processes for ImageNet; one per core if None.

    Returns:
        The prepared directory.

    Raises:
        UserError: an argument or file that cannot be used; one line says which and what to do.
    """
    if processes is not None and not 1 <= processes <= 1024:
        raise UserError(f"processes={processes}: expected 1 to 1024")
    extras.load("tensorflow_datasets", f"dataset={dataset}")
    final = directory(dataset, data_dir)
    if (final / "dataset_info.json").exists():
        if settings is not None and dataset not in cifar.DATASETS:
            _check_prepared(final, settings)
        return final
    if dataset in cifar.DATASETS:
        return cifar.prepare(dataset, data_dir, source, checksum=checksum is not False)
    if source is None:
        raise UserError(
            f"source=…: {dataset} cannot be downloaded without an account; give the folder with "
            "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, or with train/ and val/"
        )
    return imagenet.prepare(
        data_dir,
        source,
        settings or imagenet.Settings(),
        validation_labels=validation_labels,
        checksum=checksum is True,
        processes=processes,
    )


def directory(dataset: str, data_dir: str) -> Path:
    """The directory of a prepared dataset, which may not exist yet.

    Raises:
        UserError: it is not one of `PREPARABLE`, or the folder is in a bucket.
    """
    if dataset not in PREPARABLE:
        raise UserError(
            f"dataset={dataset}: cannot be prepared; choose from {', '.join(PREPARABLE)}"
        )
    advice = "copy the dataset from there to the bucket, gcloud storage cp -r"
    folder = local_path(data_dir, "data_dir", advice).expanduser()
    return folder / dataset / writer.registered_version(dataset)


def _check_prepared(final: Path, settings: imagenet.Settings) -> None:
    """Raises UserError if the images are stored differently from the settings; the JPEG quality cannot be checked."""
    train = tfds_find.open_directory(final).train
    raw, size = settings.quality is None, settings.size
    if train.shape[0] != size or train.raw != raw:
        kind = "raw" if train.raw else "JPEG"
        raise UserError(
            f"size={size}{' raw=True' if raw else ''}: {final} holds {kind} images of {train.shape[0]} pixels a side; "
            "choose another data_dir, or remove that folder to prepare it again"
        )
