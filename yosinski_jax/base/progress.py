"""Progress of long loops: a rich bar on a terminal, occasional lines elsewhere."""

import sys
import time
from typing import TextIO

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts finished items and shows the progress on stderr; silent if it is quick.

    ```
    with Progress("labels of cifar10", total=60_000) as progress:
        for part in parts:
            progress.advance(len(part))
    ```
    """

    def __init__(self, what: str, total: int, unit: str = "images", stream: TextIO | None = None):
        """Prepares the display.

        Args:
            what: what is being done, in a few words.
            total: number of items.
            unit: name of the items, plural.
            stream: where to write; stderr by default.
        """
        self._what, self._total, self._unit = what, total, unit
        self._stream = stream or sys.stderr
        self._done, self._bar, self._bar_task = 0, None, None

    def __enter__(self) -> "Progress":
        self._start = self._last_line = time.monotonic()
        if self._stream.isatty():
            import rich.console
            import rich.progress as rp

            columns = [
                rp.TextColumn("{task.description}"), rp.BarColumn(), rp.MofNCompleteColumn(),
                rp.TextColumn(self._unit), rp.TimeRemainingColumn(),
            ]  # fmt: skip
            console = rich.console.Console(file=self._stream)
            self._bar = rp.Progress(*columns, console=console, transient=True)
            self._bar_task = self._bar.add_task(self._what, total=self._total)
            self._bar.start()
        return self

    def advance(self, pieces: int = 1) -> None:
        """Counts finished items."""
        self._done += pieces
        if self._bar is not None and self._bar_task is not None:
            self._bar.advance(self._bar_task, pieces)
            return
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            rate = self._done / (now - self._start)
            self.note(f"{self._what}: {self._done}/{self._total} {self._unit}, {rate:.0f}/s")

    def note(self, line: str) -> None:
        """Writes a line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=self._stream, flush=True)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
