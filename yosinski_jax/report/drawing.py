"""Draws figures in parallel, and only those whose content has changed."""

import dataclasses
import functools
import hashlib
import importlib
import json
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import Damaged, is_remote, read_sealed, sealed, write_atomically

if TYPE_CHECKING:  # matplotlib takes longer to import than an unchanged page takes to write
    from matplotlib.figure import Figure

#: Beside the page: the digest of what each figure shows, and the drawing as SVG.
KEPT = ".figures.json"
#: More processes than this are seldom worth their start-up time.
MOST_PROCESSES = 4


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure to be drawn: a function of a module of `report` and its arguments."""

    function: str
    arguments: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Digest of everything the drawing depends on: arguments and code."""
        hashed = hashlib.sha256(f"{_code()} {self.function}".encode())
        _feed(hashed, self.arguments)
        return hashed.hexdigest()

    def figure(self) -> "Figure":
        """Draws it."""
        module, name = self.function.split(".")
        room = importlib.import_module(f"yosinski_jax.report.{module}")
        return getattr(room, name)(**self.arguments)


@functools.cache
def _code() -> str:
    """Returns a digest of all drawing code."""
    hashed = hashlib.sha256(metadata.version("matplotlib").encode())
    rooms = resources.files("yosinski_jax.report").iterdir()
    for room in sorted((r for r in rooms if r.name.endswith(".py")), key=lambda r: r.name):
        hashed.update(room.read_bytes())
    return hashed.hexdigest()


def _feed(hashed, value: object) -> None:
    if isinstance(value, Mapping):
        value = [item for pair in value.items() for item in pair]
    if isinstance(value, np.ndarray):
        hashed.update(repr((value.shape, value.dtype)).encode())
        hashed.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, (list, tuple)):
        hashed.update(b"(")
        for item in value:
            _feed(hashed, item)
        hashed.update(b")")
    else:
        hashed.update(repr(value).encode() + b",")


def _draw(task: tuple[Drawing, Path | None, Sequence[str]]) -> str:
    from yosinski_jax.report import theme

    drawing, stem, formats = task
    figure = drawing.figure()
    svg = theme.svg_text(figure)
    if stem is not None:
        theme.save(figure, stem, [f for f in formats if f != "svg"])
        if "svg" in formats:
            write_atomically(stem.with_name(f"{stem.name}.svg"), svg)
    return svg


def draw(
    drawings: Mapping[str, Drawing],
    output: Path,
    files: Mapping[str, tuple[Path, Sequence[str]]] = {},
) -> dict[str, str]:
    """Returns the drawings as SVG text by name, reusing those that `output` keeps unchanged.

    Args:
      drawings: by name.
      output: the folder of the page, where the drawings are kept for the next time.
      files: for some of the names a path without ending and formats to write as well.

    Raises:
      UserError: a file cannot be written.
    """
    kept = _read(output / KEPT)
    digests = {name: drawing.digest for name, drawing in drawings.items()}
    made, tasks = {}, []
    for name, drawing in drawings.items():
        digest, svg = kept.get(name, (None, None))
        stem, formats = files.get(name, (None, ()))
        there = stem is None or all(stem.with_name(f"{stem.name}.{f}").exists() for f in formats)
        if digest == digests[name] and svg and there:
            made[name] = svg
        else:
            tasks.append((name, (drawing, stem, formats)))
    # Those that are written as files too take longest, and begin first.
    tasks.sort(key=lambda task: -len(task[1][2]))
    if tasks:
        drawn = _run([t[1] for t in tasks], alone=is_remote(output))
        made |= dict(zip([t[0] for t in tasks], drawn, strict=True))
        new = {name: [digests[name], made[name]] for name in drawings}
        write_atomically(output / KEPT, json.dumps(sealed(new)))
    return made


def _run(tasks: Sequence[tuple], alone: bool) -> list[str]:
    processes = min(_cores(), MOST_PROCESSES, len(tasks) // 3)
    # A forked child of a process with running threads, such as jax's, may wait forever, and what
    # writes to buckets refuses to work in one.
    if (
        alone
        or processes < 2
        or "jax" in sys.modules
        or "fork" not in multiprocessing.get_all_start_methods()
    ):
        return [_draw(task) for task in tasks]
    from yosinski_jax.report import plots, plots_training  # noqa: F401 (imported once, before the fork)

    with multiprocessing.get_context("fork").Pool(processes) as pool:
        return pool.map(_draw, tasks, chunksize=1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read(path: Path) -> dict[str, list]:
    try:
        kept = read_sealed(path)
    except (OSError, Damaged, UserError):
        return {}  # never drawn, or damaged: everything is drawn again
    del kept["digest"]
    return kept
