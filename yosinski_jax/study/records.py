"""One JSON file for each finished network, typed and checked. Standard library only.

    WORKDIR/settings.json                              what the sweep was asked for
    WORKDIR/plan.json                                  every network of the sweep, finished or not
    WORKDIR/records/<split>-<split_seed>/<name>.json   one finished (or diverged) network

Each file carries a digest of itself, so that a flipped bit is found when it is read.
"""

import base64
import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from yosinski_jax.base import bundles
from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import (
    Damaged,
    as_path,
    is_remote,
    read_sealed,
    sealed,
    unsealed,
    write_json,
)
from yosinski_jax.study.treatments import parse
from yosinski_jax.study.tuning import best

SCHEMA = 2
#: Copies of the records, where they are in a bucket; and how records are called there.
_BUNDLE, _NAME = "records.bundle.json", r"[^/]+/[^/.][^/]*\.json"
#: Series of a curve, one entry per evaluation. The last three are missing where they were not measured.
CURVE = (
    "step", "epoch", "loss", "accuracy", "train_accuracy", "test_loss", "validation_accuracy"
)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Record(Mapping[str, Any]):
    """One finished network. Also a mapping from field names, so that `record["accuracy"]` works.

    Attributes:
      name, treatment, n, target, source, preserve: see `treatments.Run`.
      split, split_seed: the pair of tasks.
      status: "finished" or "diverged".
      curve: lists by the names in `CURVE`: steps and epochs done, mean training loss since the
        previous evaluation, test accuracy (0 … 1), accuracy on a fixed subset of the training images,
        mean test loss, validation accuracy. Ends where a network diverged or stopped early.
      settings_digest: digest of everything that the sweep's results depend on.
      schema: version of this format.
      images_per_class: training images of each class; None for all.
      dataset, network, recipe, seed: what the sweep was asked for.
      layers: names of the layers, first to last.
      classes: label names of its task.
      train_images, test_images: sizes of its task.
      environment: versions and devices.
      seconds, images_per_second: its share of its group's training time; its group's throughput.
      diverged_at_step: first step whose loss was not finite (0-based); 0 where its base diverged.
      cause: why it was not trained.
      accuracy, accuracy_best, accuracy_mean_of_ten_best: last (at `chosen_step` if that is given), best,
        and mean of the ten best of the curve (the paper's statistic, chosen on the images that it is
        measured on); None if it diverged before the first evaluation.
      steps: training steps.
      parameters_trained, parameters_frozen: numbers of parameters.
      layer_change: ‖after − before‖ / ‖before‖ of each layer's parameters; None where not finite.
      params_sha256: `checkpoints.checksum` of its parameters.
      images_skipped: files and records of the images that could not be read.
      correct: whether each test image of its task, in order, was classified correctly in the last
        evaluation; see `unpack`. None if diverged or not measured.
      train_accuracy_images: size of the subset behind the curve's `train_accuracy`.
      validation_images: training images of its task that were held out; None if none were.
      chosen_step: with early stopping, step of the first evaluation with the best validation accuracy,
        whose weights and results these are; None without.
      stopped_at_step: step at which early stopping ended the training; None if it went to the end.
      learning_rate: the one chosen on the validation set; None if the recipe's was used.
      tried: the candidate rates, as lists by "learning_rate", "validation_accuracy" (the criterion;
        None where it diverged) and "accuracy" (on the test images, for comparison only).
      digest: SHA-256 of all other fields; filled in when it is written.
    """

    name: str
    treatment: str
    n: int
    target: str
    split: str
    split_seed: int
    status: str
    curve: Mapping[str, Sequence[float | None]]
    settings_digest: str
    schema: int = SCHEMA
    source: str | None = None
    preserve: int = 0
    images_per_class: int | None = None
    dataset: str | None = None
    network: str | None = None
    recipe: str | None = None
    seed: int = 0
    layers: Sequence[str] = ()
    classes: Sequence[str] = ()
    train_images: int | None = None
    test_images: int | None = None
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float | None = None
    images_per_second: float | None = None
    diverged_at_step: int | None = None
    cause: str | None = None
    accuracy: float | None = None
    accuracy_best: float | None = None
    accuracy_mean_of_ten_best: float | None = None
    steps: int | None = None
    parameters_trained: int | None = None
    parameters_frozen: int | None = None
    layer_change: Mapping[str, float | None] | None = None
    params_sha256: str | None = None
    images_skipped: Sequence[str] = ()
    correct: str | None = None
    train_accuracy_images: int | None = None
    validation_images: int | None = None
    chosen_step: int | None = None
    stopped_at_step: int | None = None
    learning_rate: float | None = None
    tried: Mapping[str, Sequence[float | None]] | None = None
    digest: str | None = None

    def __getitem__(self, name: str) -> Any:
        if name not in _TYPES:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(_TYPES)

    def __len__(self) -> int:
        return len(_TYPES)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Record":
        """The record with these fields, checked and given its digest.

        Raises:
          ValueError: fields that are missing, unknown, of the wrong type, or contradict each other.
        """
        missing = [name for name in _REQUIRED if name not in fields]
        # In the form in which it is read back: lists, null for NaN; and with the fields left out.
        fields = sealed({**_DEFAULTS, **fields})
        wrong = [k for k, v in fields.items() if k not in _TYPES or not _fits(v, _TYPES[k])]
        if missing or wrong:
            raise ValueError(
                f"fields missing, unknown or of the wrong type: {', '.join(missing + wrong)}"
            )
        record = cls(**fields)
        contradiction = _contradiction(record)
        if contradiction:
            raise ValueError(contradiction)
        return record

    @property
    def id(self) -> str:
        """Where it is stored: "random-0/A3B+"."""
        return f"{self.split}-{self.split_seed}/{self.name}"


_TYPES = typing.get_type_hints(Record)
_REQUIRED = [f.name for f in dataclasses.fields(Record)][:9]
_DEFAULTS = {f.name: getattr(Record, f.name, {}) for f in dataclasses.fields(Record)[9:]}
del _DEFAULTS["digest"]


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of an annotated type."""
    kinds, within = _kinds(hint)
    if type(value) in kinds:
        return True
    if isinstance(value, list) and Sequence in within:
        one = within[Sequence]
        return set(map(type, value)) <= _kinds(one)[0] or all(_fits(v, one) for v in value)
    if isinstance(value, dict) and Mapping in within:
        return all(_fits(v, within[Mapping]) for v in value.values())
    return typing.Any in within


@functools.cache
def _kinds(hint: Any) -> tuple[frozenset[type], dict[Any, Any]]:
    """Types of JSON's plain values that an annotation allows; what it allows within lists and objects."""
    alone = hint.__args__ if isinstance(hint, types.UnionType) else (hint,)
    kinds, within = set(), {}
    for one in alone:
        origin = typing.get_origin(one)
        if origin is None and one is not Any:
            kinds |= {int, float} if one is float else {one}
        else:
            within[origin or Any] = typing.get_args(one)[-1] if origin else Any
    return frozenset(kinds), within


def _contradiction(record: Record) -> str | None:
    """How a record contradicts itself, or None."""
    if record.schema != SCHEMA:
        return f"schema {record.schema} is of another version of this package; expected {SCHEMA}"
    if record.status not in ("finished", "diverged"):
        return f"status {record.status!r} is neither finished nor diverged"
    try:
        run = parse(record.name)
    except UserError as e:
        return str(e)
    named = (run.treatment, run.n, run.target, run.preserve, run.source)
    if named != (record.treatment, record.n, record.target, record.preserve, record.source):
        return "its name does not agree with its treatment, n, target, preserve and source"
    return (
        _curve_contradiction(record)
        or _correct_contradiction(record)
        or _chosen_contradiction(record)
    )


def _curve_contradiction(record: Record) -> str | None:
    curve, status = record.curve, record.status
    unknown = set(curve) - set(CURVE)
    if unknown:
        return f"its curve has unknown series: {', '.join(sorted(unknown))}"
    if len({len(series) for series in curve.values()}) > 1:
        return "the series of its curve are not equally long"
    values = [v for v in curve.get("accuracy", ()) if v is not None and 0 <= v <= 1]
    if len(values) < len(curve.get("accuracy", ())):
        return "its curve holds an accuracy that is not between 0 and 1"
    if status == "finished" and not values:
        return "finished, but its curve is empty"
    if (status == "diverged") != (record.diverged_at_step is not None):
        return f"status {status!r} does not go with diverged_at_step {record.diverged_at_step}"
    ten = sorted(values, reverse=True)[:10]
    if record.chosen_step is not None and record.chosen_step not in curve.get("step", ()):
        return f"its curve has no step {record.chosen_step}, which was chosen"
    expected = (
        (values[position(record)], ten[0], math.fsum(ten) / len(ten)) if values else (None,) * 3
    )
    for field, value in zip(STATISTICS, expected, strict=True):
        found = record[field]
        if value is None or found is None:
            same = found is value
        else:
            same = math.isclose(found, value, abs_tol=1e-9)
        if not same:
            return f"{field} is {found}, but its curve says {value}"
    return None


STATISTICS = ("accuracy", "accuracy_best", "accuracy_mean_of_ten_best")


def position(record: Mapping[str, Any]) -> int:
    """Index in the curve of the evaluation that gave a record's results: the last, or the one chosen."""
    chosen = record.get("chosen_step")
    return -1 if chosen is None else list(record["curve"]["step"]).index(chosen)


def _chosen_contradiction(record: Record) -> str | None:
    """What is wrong with the choices made on the validation set, or None."""
    series = record.curve.get("validation_accuracy")
    if record.chosen_step is not None:
        if not series or best(series) != position(record):
            return f"step {record.chosen_step} was chosen, but is not the first with the best validation accuracy"
    if record.tried is None:
        return None
    names = ("learning_rate", "validation_accuracy", "accuracy")
    if set(record.tried) != set(names) or len({len(record.tried[name]) for name in names}) > 1:
        return f"tried does not hold {', '.join(names)} of every rate"
    chosen = record.tried["learning_rate"][best(record.tried["validation_accuracy"])]
    if record.learning_rate != chosen:
        return f"learning_rate is {record.learning_rate}, but {chosen} has the best validation accuracy"
    return None


def _correct_contradiction(record: Record) -> str | None:
    if record.correct is None:
        return None
    try:
        right = sum(unpack(record.correct, record.test_images or 0))
    except ValueError as e:
        return f"correct: {e}"
    if record.accuracy is None or not math.isclose(
        right / (record.test_images or 1), record.accuracy, abs_tol=1e-9
    ):
        return f"accuracy is {record.accuracy}, but {right} of {record.test_images} test images are correct"
    return None


def pack(correct: Iterable[Any]) -> str:
    """Whether each image was classified correctly, one bool per image, in the form of `Record.correct`.

    The bits of `numpy.packbits`, in base64.
    """
    bits = "".join("1" if c else "0" for c in correct)
    size = -(-len(bits) // 8)
    number = int(bits.ljust(8 * size, "0") or "0", 2)
    return base64.b64encode(number.to_bytes(size, "big")).decode()


def unpack(correct: str, images: int) -> list[bool]:
    """`Record.correct` as one bool per image.

    Raises:
      ValueError: it holds another number of images.
    """
    data = base64.b64decode(correct, validate=True)
    bits = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}" if data else ""
    if len(data) != -(-images // 8) or "1" in bits[images:]:
        raise ValueError(f"{len(data)} bytes are not the bits of {images} images")
    return [bit == "1" for bit in bits[:images]]


def path_of(workdir: Path, network: str) -> Path:
    """The path of a network's record, from its id: "random-0/A3B+"."""
    return as_path(workdir) / "records" / f"{network}.json"


def write(workdir: Path, record: Record) -> Path:
    """Writes the record of one network, atomically, and returns its path."""
    path = path_of(workdir, record.id)
    write_json(path, dict(record))
    return path


def read(path: Path) -> Record:
    """Reads and checks one record.

    Raises:
      Damaged: not a whole record, altered, or contradicting itself; names the file and says what is
        wrong.
      UserError: it cannot be read, which says nothing about its contents.
    """
    advice = "or move the file away to have its network trained again"
    return _checked(path, read_sealed(path, advice))


def _checked(path: Path, fields: Mapping[str, Any]) -> Record:
    """The record in a file, checked."""
    try:
        record = Record.of(fields)
    except ValueError as e:
        raise Damaged(f"{path}: {e}") from e
    expected = path_of(path.parents[2], record.id)
    if expected.name != path.name or expected.parent.name != path.parent.name:
        raise Damaged(f"{path}: holds the record of {record.id}")
    return record


def read_all(workdir: Path) -> tuple[list[Record], list[str]]:
    """Every record of a workdir.

    Returns:
      The records, ordered by split, seed and name, and one line for each damaged file.

    Raises:
      UserError: a file cannot be read.
    """
    workdir = as_path(workdir)
    if is_remote(workdir) and bundles.available():
        texts = bundles.load(workdir / "records", workdir / _BUNDLE)
        names = sorted((n for n in texts if re.fullmatch(_NAME, n)), key=lambda n: n.split("/"))
        readers = [functools.partial(_read_text, workdir / "records" / n, texts[n]) for n in names]
    else:
        paths = sorted(p for p in workdir.glob("records/*/*.json") if p.name[0] != ".")
        readers = [functools.partial(read, path) for path in paths]
    found, damaged = [], []
    for reader in readers:
        try:
            found.append(reader())
        except Damaged as e:
            damaged.append(str(e))
    return found, damaged


def _read_text(path: Path, text: str) -> Record:
    return _checked(path, unsealed(path, text))


def bundle(workdir: Path) -> None:
    """Writes copies of all records into one object, if they are in a bucket and many are new.

    A cache for `read_all`; the single records remain authoritative.

    Raises:
      UserError: the bucket cannot be read or written.
    """
    workdir = as_path(workdir)
    if is_remote(workdir) and bundles.available():
        place = workdir / _BUNDLE
        bundles.save(place, bundles.load(workdir / "records", place))
