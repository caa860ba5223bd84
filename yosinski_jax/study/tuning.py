"""Learning-rate tuning: the rate is chosen by validation accuracy, never on the test images."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from yosinski_jax.base.errors import UserError
from yosinski_jax.study.recipes import Recipe
from yosinski_jax.study.treatments import KNOWN

#: Tuned by default: a rate that suits trained features need not suit random ones.
DEFAULT = ("RnB",)


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Each network of some treatments is trained at every rate; the one with the best validation accuracy is recorded.

    It is not retrained on the held-out images.

    Attributes:
      learning_rates: rates at step 0, replacing the recipe's.
      treatments: among `treatments.KNOWN`.
    """

    learning_rates: tuple[float, ...]
    treatments: tuple[str, ...] = DEFAULT

    @classmethod
    def resolve(
        cls,
        rates: Sequence[float],
        treatments: Sequence[str] | str,
        asked: Sequence[str],
        recipe: Recipe,
    ) -> "Tuning | None":
        """The requested tuning, checked; None if there are no rates.

        Args:
          rates: the candidate learning rates.
          treatments: treatments to tune; `DEFAULT` if empty.
          asked: treatments of the study.
          recipe: recipe of the study.

        Raises:
          UserError: fewer than two or invalid rates, treatments that are not trained, no validation
            set, or an optimizer that brings its own rate.
        """
        given = [treatments] if isinstance(treatments, str) else list(treatments)
        if not rates:
            if given:
                raise UserError(
                    f"tune_treatments={','.join(given)}: has no effect without tune_learning_rate; give the rates, or leave "
                    "this out"
                )
            return None
        listed = ",".join(f"{rate:g}" for rate in rates)
        if len(set(rates)) < 2 or any(not (math.isfinite(r) and r > 0) for r in rates):
            raise UserError(
                f"tune_learning_rate={listed}: must be two or more different numbers above 0, such as 0.1,0.03,0.01"
            )
        wanted = [name.strip().replace("⁺", "+") for name in given] or list(DEFAULT)
        missing = [name for name in wanted if name not in asked]
        if missing:
            raise UserError(
                f"tune_learning_rate={listed}: tunes {','.join(wanted)}, but {missing[0]} is not among treatments="
                f"{','.join(asked)}; add it there, or name others with tune_treatments"
            )
        if not recipe.validation:
            raise UserError(
                f"tune_learning_rate={listed}: needs held-out images to choose by; give validation=0.1 as well"
            )
        if not isinstance(recipe.optimizer, str):
            raise UserError(
                f"tune_learning_rate={listed}: has no effect on a custom optimizer, which brings its own rate; leave "
                "one of them out"
            )
        return cls(tuple(dict.fromkeys(rates)), tuple(t for t in KNOWN if t in wanted))

    def as_json(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return {
            "learning_rates": list(self.learning_rates), "treatments": list(self.treatments),
        }  # fmt: skip


def best(validation: Sequence[float | None]) -> int:
    """Index of the largest validation accuracy, the first if tied; None is a network that diverged.

    0 if all diverged.
    """
    values = [-1.0 if value is None else value for value in validation]
    return values.index(max(values))
