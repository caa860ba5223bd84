"""Checkpoints of groups in training: written in the background, the last few kept."""

import concurrent.futures
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from yosinski_jax.base.files import as_path
from yosinski_jax.training import checkpoints

#: Saves kept of each group, so that a damaged one costs only the time since the one before.
KEPT = 2


class Saves:
    """Numbered checkpoints `FOLDER/NUMBER`, the newest `KEPT` of them.

    A thread writes one at a time; use as a context manager, so that none is left incomplete.
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
        """Starts writing a save, after waiting for the previous one.

        Args:
          number: higher than that of every earlier save.
          snapshot: values that `numpy.asarray` converts; the thread waits for the devices.

        Raises:
          UserError: the previous save could not be written.
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
        for path in self.folder.iterdir():  # older saves, and incomplete ones of killed processes
            if path.name not in kept:
                checkpoints.delete(path)
