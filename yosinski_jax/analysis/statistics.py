"""Confidence intervals and tests for networks clustered by split seed.

Networks of one split seed share their classes, their bases and their test images, so only split
seeds are independent and each is one cluster. The standard error of a mean over all networks is
the cluster-robust one in closed form (CR2, Bell and McCaffrey 2002), and Student's t with its
Satterthwaite degrees of freedom gives the multiple. With equally many networks in each of k seeds
that is exactly the t interval of the k seed means, with k - 1 degrees of freedom.

With one split seed nothing can be said about other seeds. What is left is the test set: whether two
networks differ on other images like these (exact McNemar test). That is another, narrower question,
so such estimates carry `scope` "images".
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import special

CONFIDENCE = 0.95
#: Significance level of a family of tests.
LEVEL = 0.05
#: Differences of accuracy smaller than this count as none, unless the user says otherwise (0..1).
MARGIN = 0.02
#: More split seeds than this are not worth proposing.
MOST_SEEDS = 1000


@dataclasses.dataclass(frozen=True)
class Estimate:
    """An estimate with its uncertainty.

    Attributes:
      value: the estimate.
      seeds: number of split seeds behind it.
      pairs: number of paired networks behind it.
      error: standard error over split seeds; None with one seed.
      freedom: degrees of freedom of `error`.
      images: (test images that only the minuend got right, that only the subtrahend got right, all
        test images) where the interval is over images instead of seeds; None otherwise.
    """

    value: float
    seeds: int
    pairs: int
    error: float | None = None
    freedom: float | None = None
    images: tuple[int, int, int] | None = None

    @property
    def scope(self) -> str | None:
        """What the interval generalizes to: "seeds", "images", or None without an interval."""
        return "images" if self.images else None if self.error is None else "seeds"

    def interval(self, level: float = 1 - CONFIDENCE) -> tuple[float | None, float | None]:
        """The two-sided interval with coverage 1 - `level`; (None, None) with one seed."""
        if self.images:
            return discordance_interval(*self.images, level)
        if self.error is None or self.freedom is None:
            return None, None
        half = student(1 - level / 2, self.freedom) * self.error
        return self.value - half, self.value + half

    @property
    def low(self) -> float | None:
        """Lower end of the 95 % interval."""
        return self.interval()[0]

    @property
    def high(self) -> float | None:
        """Upper end of the 95 % interval."""
        return self.interval()[1]

    @property
    def p(self) -> float | None:
        """Two-sided p value of "the true value is 0"; below `level` iff `interval(level)` excludes 0."""
        if self.images:
            return mcnemar(*self.images[:2])
        tails = self._tails(0.0)
        return None if tails is None else min(1.0, 2 * min(tails))

    def equivalence(self, margin: float) -> float | None:
        """P value of "the true value is `margin` or more away from 0" (two one-sided t tests)."""
        above, below = self._tails(-margin), self._tails(margin)
        return None if above is None or below is None else max(above[0], below[1])

    def _tails(self, at: float) -> tuple[float, float] | None:
        """One-sided p values of "the truth is at most `at`" and "at least `at`"."""
        if self.error is None or self.freedom is None:
            return None
        distance = self.value - at
        if self.error == 0:
            return (0.0 if distance > 0 else 1.0, 0.0 if distance < 0 else 1.0)
        t = distance / self.error
        return float(special.stdtr(self.freedom, -t)), float(special.stdtr(self.freedom, t))


def student(probability: float, freedom: float) -> float:
    """Returns a quantile of Student's t distribution."""
    return float(special.stdtrit(freedom, probability))


def ratio(
    numerators: Sequence[float],
    denominators: Sequence[float],
    seeds: Sequence,
    *,
    resolution: float = 0.0,
) -> Estimate:
    """Estimates the ratio of two means by linearization; `mean` is the case of denominators 1.

    Args:
      numerators: one value a pair.
      denominators: one value a pair; their mean must not be 0.
      seeds: the split seed of each pair, its cluster.
      resolution: the standard error is never taken as less than the rounding error of a mean of
        `resolution`-stepped values: accuracies on 220 images agree exactly by chance.

    Raises:
      ValueError: no value, or a mean denominator of 0.
    """
    num, den = np.asarray(numerators, float), np.asarray(denominators, float)
    if not num.size or den.mean() == 0:
        raise ValueError("a ratio needs values and a denominator other than 0")
    value = float(num.mean() / den.mean())
    names = sorted(set(seeds))
    k = len(names)
    if k < 2:
        return Estimate(value, k, num.size)
    place = {name: i for i, name in enumerate(names)}
    member = np.array([place[s] for s in seeds])
    residual = np.bincount(member, num - value * den) / den.sum()
    weight = np.bincount(member, den) / den.sum()
    # A denominator that is negative in one seed is noise; its weight must stay inside 0..1.
    weight = np.clip(weight, 0.5 / num.size, 1 - 0.5 / num.size)
    error = math.sqrt(float((residual**2 / (1 - weight)).sum()))
    # Satterthwaite: covariances of the corrected residuals if all networks were independent.
    shrunk = weight / np.sqrt(1 - weight)
    spread = np.outer(shrunk, shrunk)
    np.fill_diagonal(spread, weight)
    freedom = float(weight.sum() ** 2 / (spread**2).sum())
    # The difference of two accuracies, each rounded to a multiple of the resolution.
    error = max(error, resolution / math.sqrt(6 * num.size) / abs(float(den.mean())))
    return Estimate(value, k, num.size, error, min(freedom, k - 1))


def mean(values: Sequence[float], seeds: Sequence, *, resolution: float = 0.0) -> Estimate:
    """Estimates the mean over pairs; see `ratio`."""
    return ratio(values, [1.0] * len(values), seeds, resolution=resolution)


def one_against(value: float, others: Sequence[float]) -> Estimate:
    """Compares one observation with k others of equal variance (Crawford and Howell 1998)."""
    k = len(others)
    difference = value - float(np.mean(others))
    if k < 2:
        return Estimate(difference, k, k)
    error = float(np.std(others, ddof=1)) * math.sqrt(1 + 1 / k)
    return Estimate(difference, k, k, error, k - 1)


def mcnemar(gained: int, lost: int) -> float:
    """Returns the exact two-sided McNemar p value from the numbers of discordant images."""
    return min(1.0, 2 * float(special.bdtr(min(gained, lost), gained + lost, 0.5)))


def discordance_interval(gained: int, lost: int, images: int, level: float) -> tuple[float, float]:
    """Returns an interval for a difference of accuracies on the same images that agrees with `mcnemar`.

    The difference is r (2 s - 1), where r is the rate of discordant images (those that only one of
    two networks classifies correctly) and s the share of `gained` among them. Both get the exact
    interval of Clopper and Pearson (1934), and the ends are the extremes of the product. It
    excludes 0 exactly where the interval of s excludes 1/2, that is, where `mcnemar` is below
    `level`; treating r as known would give too short an interval.

    Args:
      gained: images that only the minuend classifies correctly.
      lost: images that only the subtrahend classifies correctly.
      images: all test images.
      level: one minus the nominal coverage; the actual one is higher.
    """
    rates = _clopper_pearson(gained + lost, images, level)
    shares = _clopper_pearson(gained, gained + lost, level)
    low, high = (2 * share - 1 for share in shares)
    return min(low * rate for rate in rates), max(high * rate for rate in rates)


def _clopper_pearson(successes: int, trials: int, level: float) -> tuple[float, float]:
    failures = trials - successes
    low = special.betaincinv(successes, failures + 1, level / 2) if successes else 0.0
    high = special.betaincinv(successes + 1, failures, 1 - level / 2) if failures else 1.0
    return float(low), float(high)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Returns the Holm-corrected p values (Holm 1979) of a family of tests, in the given order.

    None stands for a test that could not be made; it belongs to no family.
    """
    made = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(made):
        largest = max(largest, min(1.0, (len(made) - rank) * p))
        corrected[i] = largest
    return corrected


def holm_levels(p_values: Sequence[float | None]) -> list[float]:
    """Returns the level at which Holm's procedure runs each test of a family, in the given order.

    `LEVEL` / m for the smallest p value, `LEVEL` / (m - 1) for the next, until one is not rejected;
    the rest stays at that one's level. So an interval taken at this level excludes 0 exactly where
    the corrected p value is below `LEVEL`.
    """
    made = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    levels = [LEVEL] * len(p_values)
    level, rejecting = LEVEL, True
    for rank, (p, i) in enumerate(made):
        if rejecting:
            level = LEVEL / (len(made) - rank)
            rejecting = p < level
        levels[i] = level
    return levels


@dataclasses.dataclass(frozen=True)
class Tested:
    """An estimate tested in a family by Holm's procedure.

    Attributes:
      value, seeds, scope: see `Estimate`.
      low, high: interval at the level at which the procedure runs this test, so it excludes 0
        exactly where the test is significant; None without one.
      p_holm: corrected two-sided p value; None without a test.
    """

    value: float
    low: float | None
    high: float | None
    p_holm: float | None
    seeds: int
    scope: str | None

    @property
    def significant(self) -> bool:
        """Whether it differs from 0."""
        return self.p_holm is not None and self.p_holm < LEVEL


def tested(estimates: Sequence[Estimate]) -> list[Tested]:
    """Tests the estimates of a family together."""
    p = [e.p for e in estimates]
    return [
        Tested(e.value, *e.interval(level), corrected, e.seeds, e.scope)
        for e, corrected, level in zip(estimates, holm(p), holm_levels(p), strict=True)
    ]


def seeds_needed(estimate: Estimate, margin: float, tests: int = 1) -> int | None:
    """Estimates how many split seeds would settle a test if mean and spread stayed as they are.

    Args:
      estimate: one that excludes neither 0 nor `margin`.
      margin: as in `Estimate.equivalence`.
      tests: size of the family.

    Returns:
      The smallest number at which either the interval would exclude 0 or equivalence would be
      shown; None where more than `MOST_SEEDS` would be needed, or nothing is known of the spread.
    """
    if not estimate.error or estimate.images:
        return None
    k = np.arange(estimate.seeds + 1, MOST_SEEDS + 1)
    error = estimate.error * math.sqrt(estimate.seeds) / np.sqrt(k)
    level = LEVEL / tests
    apart = special.stdtrit(k - 1, 1 - level / 2) * error < abs(estimate.value)
    within = abs(estimate.value) + special.stdtrit(k - 1, 1 - level) * error < margin
    enough = np.flatnonzero(apart | within)
    return int(k[enough[0]]) if enough.size else None
