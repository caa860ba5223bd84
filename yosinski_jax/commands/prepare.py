r"""Prepares a dataset in TFDS format, without TensorFlow.

python -m experiments.prepare --dataset=cifar10 --data_dir=DIR
python -m experiments.prepare --dataset=cifar100 --data_dir=DIR --source=cifar-100-python.tar.gz
python -m experiments.prepare --dataset=imagenet2012 --data_dir=DIR --source=FOLDER_OF_TARS

An interrupted command resumes when it is run again.
"""

import signal
import sys

from absl import flags

from yosinski_jax.base.errors import UserError
from yosinski_jax.data import tfds_find
from yosinski_jax.data.prepare import entry, imagenet

_DATASET = flags.DEFINE_string("dataset", None, f"One of {', '.join(tfds_find.PREPARABLE)}.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of prepared datasets; made if absent.")
_SOURCE = flags.DEFINE_string(
    "source",
    None,
    "Where the official files are. CIFAR: the archive, or a folder with it or its unpacked files; "
    "downloaded if not given. ImageNet: a folder with the official tars or with train/WNID/*.JPEG "
    "and val/WNID/*.JPEG, or several such paths separated by commas.",
)
_CHECKSUM = flags.DEFINE_enum(
    "checksum",
    "auto",
    ["auto", "on", "off"],
    "Check the files against the published sums; auto: for CIFAR, not for the tars of ImageNet, "
    "which take long to read.",
)
_SIZE = flags.DEFINE_integer("size", 256, "ImageNet: height and width to resize to, in pixels.")
_QUALITY = flags.DEFINE_integer("quality", 95, "ImageNet: JPEG quality, 1 to 100.")
_RAW = flags.DEFINE_bool("raw", False, "ImageNet: store uint8 pixels instead of JPEG.")
_VALIDATION_LABELS = flags.DEFINE_string(
    "validation_labels",
    None,
    'ImageNet: file of lines "FILE_NAME WNID", or of one WordNet id for each of the sorted file '
    "names; needed only if validation images have neither class folders nor official names.",
)
_PROCESSES = flags.DEFINE_integer("processes", None, "ImageNet: worker processes; default: cores.")


def _run() -> None:
    for flag in (_DATASET, _DATA_DIR):
        if not flag.value:
            raise UserError(f"--{flag.name}: missing; see --help")
    settings = imagenet.Settings(_SIZE.value, None if _RAW.value else _QUALITY.value)
    there = entry.directory(str(_DATASET.value), str(_DATA_DIR.value)) / "dataset_info.json"
    if there.exists():
        print("already prepared, nothing to do")
    directory = entry.prepare(
        str(_DATASET.value),
        str(_DATA_DIR.value),
        _SOURCE.value,
        checksum={"auto": None, "on": True, "off": False}[_CHECKSUM.value],
        settings=settings,
        validation_labels=_VALIDATION_LABELS.value,
        processes=_PROCESSES.value,
    )
    opened = tfds_find.open_directory(directory)
    print(
        f"{opened.name}: {len(opened.train)} training images, {len(opened.test)} test images, "
        f"{len(opened.label_names)} classes in {directory}"
    )
    unreadable = directory / imagenet.UNREADABLE_FILE
    if unreadable.exists():
        count = len(unreadable.read_text().splitlines())
        print(f"{count} unreadable images were left out; they are listed in {unreadable}")


def main() -> None:
    """Runs the command; SIGTERM ends it the way Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _run()
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        raise
