"""Saves of what is in training: written while the devices go on, the last ones kept."""

import concurrent.futures
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from yosinski_jax.base.files import as_path
from yosinski_jax.training import checkpoints

#: Saves kept of each group, so that a damaged one costs no more than the time since the one before.
KEPT = 2


class Saves:
    """Numbered checkpoints `FOLDER/NUMBER`, the newest `KEPT` of them.

    One is written at a time, by a thread; use as a context manager, so that none is left half done.
    """

    def __init__(self, folder: Path):
        self.folder = as_path(folder)
        self._writer = concurrent.futures.ThreadPoolExecutor(1, "saves")
        self._writing: concurrent.futures.Future[None] | None = None

    def __enter__(self) -> "Saves":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.shutdown(wait=True)

    def __iter__(self) -> Iterator[Path]:
        """The saves, newest first."""
        numbers = (int(p.name) for p in self.folder.glob("*") if p.name.isdigit())
        return iter([self.folder / str(n) for n in sorted(numbers, reverse=True)])

    @property
    def busy(self) -> bool:
        """Whether a save is being written."""
        return self._writing is not None and not self._writing.done()

    def start(self, number: int, snapshot: Mapping[str, Any]) -> None:
        """Begins a save; waits only for the one before it.

        Args:
          number: higher than that of every earlier save.
          snapshot: what `numpy.asarray` makes arrays of; the thread waits for the devices.

        Raises:
          UserError: the save before could not be written.
        """
        self.wait()
        self._writing = self._writer.submit(self._write, number, dict(snapshot))

    def wait(self) -> None:
        """Waits until nothing is being written.

        Raises:
          UserError: the last save could not be written.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def delete(self) -> None:
        """Removes all saves."""
        self.wait()
        checkpoints.delete(self.folder)

    def _write(self, number: int, snapshot: dict[str, Any]) -> None:
        arrays = {name: np.asarray(value) for name, value in snapshot.items()}
        checkpoints.save(self.folder / str(number), arrays)
        kept = {path.name for path in list(self)[:KEPT]}
        for (
            path
        ) in self.folder.iterdir():  # older ones, and what a killed process left half written
            if path.name not in kept:
                checkpoints.delete(path)
