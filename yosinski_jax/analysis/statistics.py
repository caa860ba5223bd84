"""Intervals and tests that respect the design of the study: networks inside split seeds.

Networks of one split seed share their classes, their bases and their test images: the base of A
is at once what A's networks are compared with and where B's networks took their layers from. Only
the split seeds are independent. So the bootstrap has two levels: seeds are drawn with replacement,
and the networks of a drawn seed come along together, both directions and every n (Davison and
Hinkley 1997, section 3.8, their second strategy; drawing the networks again as well would count
their noise twice, and breaks the tie between the directions: `experiments/coverage.py` measures
both).

A study has few seeds, and the plain percentile bootstrap is far too short then: with 4 seeds it
cannot leave the range of the 4 means, which holds the truth 7 times in 8 at best. Therefore the
bootstrap gives the standard error, enlarged by sqrt(k / (k - 1)) because k seeds are spread about
their own mean, and Student's t with k - 1 degrees of freedom gives the multiple. For a mean of
balanced normal data this is exact.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy import special

CONFIDENCE = 0.95
#: Significance level of the Holm-corrected tests.
LEVEL = 0.05
DRAWS = 4000


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number with its uncertainty.

    Attributes:
      value: the estimate.
      low: lower end of the 95 % interval; None where no interval can be given (one seed).
      high: upper end.
      p: two-sided p value of "the true value is 0", before any correction; None without interval.
      seeds: number of split seeds behind it.
      pairs: number of paired networks behind it.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None
    seeds: int
    pairs: int


def student(probability: float, freedom: float) -> float:
    """The quantile of Student's t distribution."""
    return float(special.stdtrit(freedom, probability))


def resample(
    seeds: Sequence, draws: int = DRAWS, rng_seed: int = 0, *, networks: str = "together"
) -> np.ndarray:
    """How often each value occurs in each resample of the hierarchical bootstrap.

    Args:
      seeds: the split seed of each of the N values.
      draws: number of resamples.
      rng_seed: seed of the draws, fixed so that the same records give the same interval.
      networks: "together": the networks of a drawn seed are kept together; "again": they are drawn
        with replacement within it, the variant that is not used (see above).

    Returns:
      float64 [draws, N].
    """
    return _resample(tuple(seeds), draws, rng_seed, networks)


@functools.lru_cache(maxsize=64)
def _resample(seeds: tuple, draws: int, rng_seed: int, networks: str) -> np.ndarray:
    rng = np.random.default_rng(rng_seed)
    names = sorted(set(seeds))
    place = np.array([names.index(s) for s in seeds])
    k = len(names)
    chosen = rng.multinomial(k, [1 / k] * k, size=draws)
    weights = chosen[:, place].astype(float)
    if networks == "again":
        for i in range(k):
            mine = np.flatnonzero(place == i)
            share = [1 / len(mine)] * len(mine)
            weights[:, mine] = rng.multinomial(chosen[:, i] * len(mine), share)
    elif networks != "together":
        raise ValueError(f"networks={networks!r} is neither 'together' nor 'again'")
    weights.flags.writeable = False
    return weights


def ratio(
    numerators: Sequence[float],
    denominators: Sequence[float],
    seeds: Sequence,
    *,
    resolution: float = 0.0,
    networks: str = "together",
) -> Estimate:
    """The ratio of two means with its interval; `mean` is the case of denominators 1.

    The bootstrap runs on the residuals numerator - ratio x denominator: a resample may have a
    denominator near zero, and one such draw would set the interval.

    Args:
      numerators: one value a pair.
      denominators: one value a pair; their mean must not be 0.
      seeds: the split seed of each pair.
      resolution: the standard error is never taken as less than the rounding error of a mean of
        `resolution`-stepped values: accuracies on 220 images agree exactly by chance.
      networks: as in `resample`.

    Raises:
      ValueError: no value, or a mean denominator of 0.
    """
    num, den = np.asarray(numerators, float), np.asarray(denominators, float)
    if not num.size or den.mean() == 0:
        raise ValueError("a ratio needs values and a denominator other than 0")
    value = float(num.mean() / den.mean())
    k = len(set(seeds))
    if k < 2:
        return Estimate(value, None, None, None, k, num.size)
    weights = resample(seeds, networks=networks)
    shifted = weights @ (num - value * den) / weights.sum(1) / den.mean()
    error = float(shifted.std()) * math.sqrt(k / (k - 1))
    # The difference of two accuracies, each rounded to a multiple of the resolution.
    error = max(error, resolution / math.sqrt(6 * num.size) / abs(float(den.mean())))
    if error == 0:
        return Estimate(value, value, value, 1.0 if value == 0 else 0.0, k, num.size)
    half = student(0.5 + CONFIDENCE / 2, k - 1) * error
    p = float(2 * special.stdtr(k - 1, -abs(value) / error))
    return Estimate(value, value - half, value + half, p, k, num.size)


def mean(
    values: Sequence[float], seeds: Sequence, *, resolution: float = 0.0, networks: str = "together"
) -> Estimate:
    """The mean over pairs with its interval; see `ratio`."""
    return ratio(values, np.ones(len(values)), seeds, resolution=resolution, networks=networks)  # pyright: ignore[reportArgumentType]


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's corrected p values (Holm 1979) of a family of tests, in the order given.

    None stands for a test that could not be made; it belongs to no family.
    """
    made = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(made):
        largest = max(largest, min(1.0, (len(made) - rank) * p))
        corrected[i] = largest
    return corrected
