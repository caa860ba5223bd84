"""Measures of a finished sweep: reads its folder, computes what is missing, maintains `measures.csv`.

The file is rewritten atomically after every layer of a pair of tasks, so that an interrupted command resumes there.
`measures.json` beside it records what the numbers depend on and a digest of the file; rows of a changed base are
computed again, other options are refused.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import Damaged, as_path, first_line, read_sealed
from yosinski_jax.data.dataset import Dataset, load, make_task
from yosinski_jax.data.joined import join
from yosinski_jax.data.validation import carve
from yosinski_jax.measures.registry import EACH, EACH_AND_WHOLE, INNER, Measure, choose, measures
from yosinski_jax.measures.rows import FEATURES, Row, Rows, read_notes, read_rows, write_rows
from yosinski_jax.measures.subject import Base, Bench, Subject, load_kept
from yosinski_jax.networks import registry
from yosinski_jax.networks.network import Network
from yosinski_jax.study import records
from yosinski_jax.study.recipes import Recipe
from yosinski_jax.study.treatments import Run


def measure(
    folder: Path | str,
    names: Sequence[str],
    bench: Bench,
    *,
    note: Callable[[str], None] = print,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Row]:
    """Computes measures of every base of a sweep that are not in its `measures.csv` yet.

    Hold the workdir's lock around it: two writers would undo each other's rows.

    Args:
      folder: the workdir.
      names: of measures.
      bench: runs the sweep's networks on its data.
      note: called with a line about anything unusual.
      progress: called with the current pair, and the numbers of layers done and in total.

    Returns:
      All rows of the file.

    Raises:
      UserError: there are no bases, a name is unknown, a measure needs what was not kept, or the file
        was written with other options.
    """
    folder = as_path(folder)
    wanted, pairs, damaged = check(folder, names)
    rows, more = read_rows(folder)
    for line in (*damaged, *more):
        note(line)
    rows, notes = _check_options(folder, bench, pairs, rows, note)
    total, done = sum(_layers_of(pair) for pair in pairs), 0
    for pair in pairs:
        bases = None
        for k in [*range(1, _layers_of(pair)), 0]:
            missing = _missing(folder, pair, k, wanted, rows)
            if missing:
                bases = bases or load_bases(folder, pair, bench)
                # On matrices of this size BLAS threads cost more than they gain, especially on a busy machine.
                with threadpool_limits(1, "blas"):
                    rows |= {row.place: row for row in _of_layer(bench, bases, pair, k, missing)}
                write_rows(folder, rows, notes)
            done += 1
            if progress:
                progress(pair.title, done, total)
    return list(rows.values())


def check(
    folder: Path | str, names: Sequence[str]
) -> tuple[list[Measure], list["_Pair"], list[str]]:
    """Checks that this sweep has what these measures need; reads its records, but no parameters and no data.

    Returns:
      The measures, the pairs of tasks, and a line for each damaged record.

    Raises:
      UserError: as `measure`.
    """
    folder, wanted = as_path(folder), choose(names)
    found, damaged = records.read_all(folder)
    pairs = _pairs(folder, found)
    for m in wanted:
        lacking = _lacks(folder, m, pairs)
        if lacking:
            raise UserError(f"measures={m.name}: {lacking}")
    return wanted, pairs, damaged


def available(folder: Path | str) -> list[str]:
    """Names of the measures that can be computed for this sweep.

    Raises:
      UserError: there are no bases.
    """
    folder = as_path(folder)
    pairs = _pairs(folder, records.read_all(folder)[0])
    return [m.name for m in measures().values() if not _lacks(folder, m, pairs)]


def steps(folder: Path | str) -> int:
    """How often `measure` calls `progress`."""
    return sum(map(_layers_of, _pairs(as_path(folder), records.read_all(as_path(folder))[0])))


def open_bench(folder: Path | str, data_dir: str | None = None, **options: Any) -> Bench:
    """A bench for a sweep of the command line: its data, network and recipe, from `settings.json`.

    Args:
      folder: the workdir.
      data_dir: folder of its prepared dataset, which the settings do not record.
      options: `images` and `width` of `Bench`.

    Raises:
      UserError: the settings cannot be read or name a network of another program, or the data cannot be found.
    """
    path = as_path(folder) / "settings.json"
    try:
        settings = read_sealed(path)
        recipe = _recipe(settings["recipe"])
        name, network_name, seed = settings["dataset"], settings["network"], settings["seed"]
    except (OSError, Damaged, KeyError, TypeError) as e:
        raise UserError(
            f"{path}: cannot be read ({first_line(e)}); give the folder of a sweep"
        ) from e
    if network_name not in registry.NAMES:
        raise UserError(
            f"{path}: the network {network_name} is not built in; measure it from the program that defines it, with "
            "yosinski_jax.measures.workdir.measure"
        )
    bases = settings.get("base_dataset") or []
    dataset = _dataset(name, [bases] if isinstance(bases, str) else bases, data_dir, seed)
    if dataset.image_shape is None:
        raise UserError(
            f"dataset {name}: its images vary in size; measures need them prepared at one size"
        )
    height, width, channels = dataset.image_shape
    shape = (recipe.crop or height, recipe.crop or width, channels)

    def network(classes: int) -> Network:
        outputs = len(dataset.label_names) if settings.get("head") == "dataset" else classes
        return Network.of(registry.make(network_name, outputs, shape)).with_precision(
            recipe.resolved().precision
        )

    return Bench(dataset, network, recipe, seed=seed, folder=as_path(folder), **options)


def _dataset(name: str, bases: Sequence[str], data_dir: str | None, seed: int) -> Dataset:
    """The data of a sweep; with base datasets its name is that of all joined, the target's last."""
    others = [base for base in bases if not name.endswith(f"+{base}")]
    target = load(name.removeprefix("".join(f"{b}+" for b in others)), data_dir, seed=seed)
    return join([load(base, data_dir, seed=seed) for base in others], target)


def _recipe(fields: Mapping[str, Any]) -> Recipe:
    """The recipe in `settings.json`, which stores tuples as lists."""
    values: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return Recipe(**values)


@dataclasses.dataclass(frozen=True)
class _Pair:
    """The records of one pair of tasks, by name."""

    title: str
    records: Mapping[str, Mapping[str, Any]]

    @property
    def bases(self) -> list[Mapping[str, Any]]:
        return [self.records[name] for name in ("baseA", "baseB")]

    def kept(self, folder: Path, names: Iterable[str]) -> Iterator[bool]:
        """Whether the checkpoint of each of these networks is there."""
        return ((folder / "checkpoints" / self.title / name).is_dir() for name in names)


def _layers_of(pair: _Pair) -> int:
    """Number of steps for a pair: its layers, and the networks as a whole."""
    return len(pair.bases[0]["layers"]) + 1


def _pairs(folder: Path, found: Sequence[Mapping[str, Any]]) -> list[_Pair]:
    """The pairs of tasks whose two bases are finished and kept."""
    by_pair: dict[str, dict[str, Mapping]] = {}
    for record in found:
        if record["status"] == "finished":
            title = f"{record['split']}-{record['split_seed']}"
            by_pair.setdefault(title, {})[record["name"]] = record
    pairs = [_Pair(t, r) for t, r in sorted(by_pair.items()) if {"baseA", "baseB"} <= r.keys()]
    if not pairs:
        raise UserError(
            f"workdir={folder}: has no pair of tasks with both bases finished (baseA and baseB), which measures need; give "
            "the folder of a sweep with halves A and B, or finish it first"
        )
    kept = [p for p in pairs if all(p.kept(folder, ("baseA", "baseB")))]
    if not kept:
        raise UserError(
            f"workdir={folder}: the bases' checkpoints are missing ({folder / 'checkpoints'}); move the records of baseA and "
            "baseB away and start the sweep again in this folder, or give another folder"
        )
    return kept


def _lacks(folder: Path, m: Measure, pairs: Sequence[_Pair]) -> str | None:
    """What a measure needs but the sweep does not have, and what to do; None if nothing is missing."""
    networks = [(p, r["name"], r["treatment"]) for p in pairs for r in p.records.values()]
    lacking = [t for t in m.needs if t not in {treatment for _, _, treatment in networks}]
    if lacking:
        return (
            f"needs the treatments {', '.join(m.needs)}, of which {folder} has no {', '.join(lacking)}; add them to the "
            "sweep with treatments=… and extend=True"
        )
    copies = (any(p.kept(folder, [name])) for p, name, t in networks if t in m.needs)
    if m.copies and not any(copies):
        return f"needs the parameters of {', '.join(m.needs)}, which {folder} did not keep; run the sweep with keep=all"
    return None


def _check_options(
    folder: Path, bench: Bench, pairs: Sequence[_Pair], rows: Rows, note: Callable[[str], None]
) -> tuple[Rows, dict[str, Any]]:
    """Compares the options with those of the existing rows; returns the rows of unchanged bases, and the new notes."""
    bases = {f"{p.title}/{b['name']}": b["params_sha256"] for p in pairs for b in p.bases}
    notes = {"images": bench.count, "width": bench.width, "bases": bases}
    before = read_notes(folder) if rows else notes
    for name in ("images", "width"):
        if before[name] != notes[name]:
            raise UserError(
                f"{name}={notes[name]}: {folder / 'measures.csv'} was written with {name}={before[name]}; use that, or "
                "remove the file"
            )
    changed = {name for name, sha in bases.items() if before["bases"].get(name, sha) != sha}
    stale = {network.rpartition("/")[0] for network in changed}
    if stale:
        note(
            f"{folder / 'measures.csv'}: the bases of {', '.join(sorted(stale))} changed; their rows are computed again"
        )
        rows = {
            place: row for place, row in rows.items() if row.network.rpartition("/")[0] not in stale
        }
    notes["measures.csv"] = before.get("measures.csv", [])
    write_rows(folder, rows, notes)
    return rows, notes


def _missing(
    folder: Path, pair: _Pair, k: int, wanted: Sequence[Measure], rows: Rows
) -> dict[str, list[Measure]]:
    """Measures of one layer that are missing, by the base's name."""
    depth = len(pair.bases[0]["layers"])
    layer = pair.bases[0]["layers"][k - 1] if k else "all"
    asked = {INNER: range(1, depth), EACH: range(1, depth + 1), EACH_AND_WHOLE: range(depth + 1)}
    missing = {}
    for base in pair.bases:
        network = f"{pair.title}/{base['name']}"
        mine = [
            m
            for m in wanted
            if k in asked[m.layers]
            and not all((network, layer, name) in rows for name in m.names)
            and _has_copies(folder, pair, base, k, m)
        ]
        if mine:
            missing[base["name"]] = mine
    return missing


def _has_copies(folder: Path, pair: _Pair, base: Mapping, k: int, m: Measure) -> bool:
    """Whether the networks that a measure reads exist: a sweep may have only some n, and keep only some."""
    target = next(b["target"] for b in pair.bases if b is not base)
    names = [Run(t, target, k).name for t in m.needs]
    kept = not m.copies or all(pair.kept(folder, names))
    return kept and all(name in pair.records for name in names)


def load_bases(folder: Path, pair: _Pair, bench: Bench) -> dict[str, Base]:
    """The two bases by name.

    Raises:
      UserError: a checkpoint is damaged.
    """
    bases = {}
    for record in pair.bases:
        name = f"{pair.title}/{record['name']}"
        key = f"{record['dataset']}/{record['network']}/{record['recipe']}/{name}"
        task = make_task(bench.dataset, record["classes"], record.get("images_per_class"))
        if bench.recipe.validation:
            task = carve(task, bench.recipe.validation, record["split_seed"])
        bases[record["name"]] = Base(name, key, task, load_kept(folder, name), record)
    return bases


def _of_layer(
    bench: Bench,
    bases: Mapping[str, Base],
    pair: _Pair,
    k: int,
    missing: Mapping[str, Sequence[Measure]],
) -> Iterator[Row]:
    one, two = bases.values()
    for base, other in ((one, two), (two, one)):
        subject = Subject(bench, base, other, k, pair.records)
        features = bench.feature_seconds
        for m in missing.get(base.record["name"], ()):
            began, before = time.perf_counter(), bench.feature_seconds
            values = m.compute(subject)
            seconds = time.perf_counter() - began - (bench.feature_seconds - before)
            values = values if isinstance(values, Mapping) else {"": values}
            if tuple(values) != m.suffixes:
                raise ValueError(
                    f"measure {m.name} returned {list(values)}, but is registered with {list(m.suffixes)}"
                )
            for i, (name, value) in enumerate(zip(m.names, values.values(), strict=True)):
                yield Row(base.name, subject.layer, name, float(value), 0.0 if i else seconds)
        if bench.feature_seconds > features:
            width = subject.features().shape[1]
            yield Row(base.name, subject.layer, FEATURES, width, bench.feature_seconds - features)
