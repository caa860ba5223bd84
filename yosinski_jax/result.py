"""What `transfer_sweep` returns: the records of a study, and what is made of them."""

import html
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from yosinski_jax.base.errors import UserError
from yosinski_jax.study.records import Record


class StudyResult(Sequence[Record]):
    """The finished networks of a study, in the order of its plan: a sequence of records.

    Args:
      records: one a network.
      workdir: their folder, with the bases' checkpoints.
      again: runs the study with other keyword arguments of `transfer_sweep`, in the same workdir.
      keep_alive: what must live as long as the result, such as a temporary folder.

    Attributes:
      workdir: the folder.
    """

    def __init__(
        self,
        records: Sequence[Record],
        workdir: Path,
        again: Callable[..., "StudyResult"],
        keep_alive: Any = None,
    ):
        self._records, self.workdir = tuple(records), workdir
        self._again, self._keep_alive = again, keep_alive

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
        """One row a network: a pandas DataFrame if pandas is installed, else a dict of columns (lists)."""
        from yosinski_jax.analysis.tables import networks_table

        rows = networks_table(self._records)
        columns = {name: [row.get(name) for row in rows] for name in (rows[0] if rows else ())}
        try:
            import pandas  # pyright: ignore[reportMissingImports]
        except ImportError:
            return columns
        return pandas.DataFrame(columns)

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
          path: where the page is to stand, such as "study.html"; `report.html` in the workdir by default.

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

    def params(self, name: str) -> dict[str, Any]:
        """The trained parameters of a network, as numpy arrays.

        Args:
          name: such as "random-0/baseA"; of copies, "random-0/A2B", if the study was run with `keep="all"`.

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
        return checkpoints.load(path)["params"]

    def extend(self, **changes: Any) -> "StudyResult":
        """The study with more split seeds, treatments or n; what is finished is not trained again.

        Args:
          **changes: arguments of `transfer_sweep` that grow, such as `seeds=8`.

        Raises:
          UserError: they change what is there already.
        """
        return self._again(**changes)

    def __repr__(self) -> str:
        return f"<{len(self)} networks in {self.workdir}>\n{self.table()}"

    def _repr_html_(self) -> str:
        from yosinski_jax.report import theme

        drawing = theme.svg_text(self.figure()) if self._records else ""
        return f"<pre>{html.escape(repr(self))}</pre>{drawing}"
