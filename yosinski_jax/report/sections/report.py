"""The input of every section of the page."""

import dataclasses
from collections.abc import Mapping, Sequence

from yosinski_jax.analysis import findings
from yosinski_jax.analysis.results import Study
from yosinski_jax.analysis.wording import Answer


@dataclasses.dataclass(frozen=True)
class Report:
    """A study and what is computed from it once for all sections.

    Attributes:
      study: the study reported.
      rows: those of `effects.all_rows`, by split.
      others: studies to compare it with.
      running: whether the sweep is still training; then nothing slow is done.
    """

    study: Study
    rows: Mapping[str, Sequence[Mapping]]
    others: Sequence[Study] = ()
    running: bool = False

    def answers(self, split: str) -> list[Answer]:
        """The answers of one split."""
        return findings.answers(self.study.of(split), self.study.statistic, self.rows[split])
