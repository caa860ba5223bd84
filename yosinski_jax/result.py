"""What `transfer_sweep` returns: the records of a study, with tables, figures and a report page."""

import html
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from yosinski_jax.base.errors import UserError
from yosinski_jax.study.records import Record


class StudyResult(Sequence[Record]):
    """The finished networks of a study, in the order of its plan: a sequence of records.

    Args:
      records: one per network.
      workdir: their folder, with the bases' checkpoints.
      again: runs the study with other keyword arguments of `transfer_sweep`, in the same workdir.
      bench: takes options of `Bench`, returns the `Bench` that runs the study's networks on its data.
      keep_alive: an object that must live as long as the result, such as a temporary folder.

    Attributes:
      workdir: the folder.
      bench: the argument.
    """

    def __init__(
        self,
        records: Sequence[Record],
        workdir: Path,
        again: Callable[..., "StudyResult"],
        bench: Callable[..., Any],
        keep_alive: Any = None,
    ):
        self._records, self.workdir = tuple(records), workdir
        self._again, self.bench, self._keep_alive = again, bench, keep_alive

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Record, ...]: ...
    def __getitem__(self, index):
        return self._records[index]

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def frame(self) -> Any:
        """One row per network: a pandas DataFrame if pandas is installed, else a dict of columns (lists)."""
        from yosinski_jax.analysis.tables import networks_table

        rows = networks_table(self._records)
        return _columns({name: [r.get(name) for r in rows] for name in (rows[0] if rows else ())})

    def table(self) -> str:
        """Mean test accuracy in % ± standard error (number of networks), by n and treatment, as text."""
        from yosinski_jax.analysis.tables import format_table, summary_table

        return format_table(summary_table(self._records))

    def figure(self) -> Any:
        """The paper's Figure 2, lower panel: mean accuracy against n, by treatment; a matplotlib `Figure`."""
        from yosinski_jax.analysis.results import most_images
        from yosinski_jax.report import plots

        first = next((r.split for r in self._records if r.split != "all"), "all")
        shown = most_images([r for r in self._records if r.split == first])  # pyright: ignore[reportArgumentType]
        return plots.panel(lambda ax: plots.draw_means(ax, shown, "last", ()), shown)

    def report(self, path: Path | str | None = None) -> Path:
        """Writes the page with all answers, figures and tables; see `report.build`.

        Args:
          path: where to write the page, such as "study.html"; `report.html` in the workdir by default.

        Returns:
          The path of the page.
        """
        from yosinski_jax.base.files import as_path, write_atomically
        from yosinski_jax.report.build import write_report

        page = write_report(self.workdir)
        if path is None:
            return page
        write_atomically(as_path(path), page.read_bytes())
        return as_path(path)

    def measure(self, *names: str, images: int = 1000, width: int = 8192) -> Any:
        """Measures each layer of the bases, as `python -m experiments.measure` does; retrains no network of the study.

        Writes measures.csv, predictors.csv and their figures into the workdir, where the next call finds what has
        already been computed and `report` shows it.

        Args:
          *names: names of measures, such as "probe" and "cka"; if none, all that this study allows.
          images: the most training and test images of each task to use.
          width: the most features per image; larger feature maps are averaged over blocks.

        Returns:
          One row per value of the requested measures, with columns network, layer, measure, value and seconds:
          a pandas DataFrame if pandas is installed, else a dict of columns (lists).

        Raises:
          UserError: a name is unknown, a measure needs what was not kept, or earlier values were computed
            with other options.
        """
        from yosinski_jax.measures import registry, workdir
        from yosinski_jax.measures.rows import COLUMNS
        from yosinski_jax.report import plots_measures
        from yosinski_jax.sweep.workdir import lock

        wanted = list(names) or workdir.available(self.workdir)
        chosen = {name for m in registry.choose(wanted) for name in m.names}
        bench = self.bench(images=images, width=width)
        note = lambda line: print(line, file=sys.stderr)
        with lock(self.workdir):
            rows = workdir.measure(self.workdir, wanted, bench, note=note)
        plots_measures.compare(self.workdir)
        rows = [row for row in rows if row.measure in chosen]
        return _columns({name: [getattr(r, name) for r in rows] for name in COLUMNS})

    def params(self, name: str) -> dict[str, Any]:
        """The trained parameters of a network; see `variables`."""
        return self.variables(name)["params"]

    def variables(self, name: str) -> dict[str, Any]:
        """All trained variables of a network, running statistics too, as numpy arrays.

        `Network.of(…).bound(variables)` turns them into a module; for an NNX class, an NNX module.

        Args:
          name: such as "random-0/baseA"; a copy, such as "random-0/A2B", if the study was run with `keep="all"`.

        Raises:
          UserError: there is no such network, or its parameters were not kept.
        """
        from yosinski_jax.training import checkpoints

        known = [record.id for record in self._records]
        if name not in known:
            raise UserError(
                f"{name!r}: is not a network of this study; they are {', '.join(known[:4])} … {known[-1]}"
            )
        path = self.workdir / "checkpoints" / name
        if not path.is_dir():
            raise UserError(
                f"{name!r}: its parameters were not kept; run the study with keep='all' to keep those of copies too"
            )
        return checkpoints.load(path)

    def extend(self, **changes: Any) -> "StudyResult":
        """The study with more split seeds, treatments or n; finished networks are not retrained.

        Args:
          **changes: arguments of `transfer_sweep` that grow, such as `seeds=8`.

        Raises:
          UserError: they would change what is already there.
        """
        return self._again(**changes)

    def __repr__(self) -> str:
        return f"<{len(self)} networks in {self.workdir}>\n{self.table()}"

    def _repr_html_(self) -> str:
        from yosinski_jax.report import theme

        drawing = theme.svg_text(self.figure()) if self._records else ""
        return f"<pre>{html.escape(repr(self))}</pre>{drawing}"


def _columns(columns: dict[str, list[Any]]) -> Any:
    """A pandas DataFrame if pandas is installed, else the columns as they are."""
    try:
        import pandas  # pyright: ignore[reportMissingImports]
    except ImportError:
        return columns
    return pandas.DataFrame(columns)
