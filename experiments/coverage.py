"""Checks the 95 % intervals against simulated studies whose true effects are known.

    python -m experiments.coverage --simulations=1000

Every simulated study has the design of a real one: random effects of split seeds on all accuracies and on
each drop, opposite difficulties of the two directions, bases shared by all their pairs, and noise of single
networks. The table gives the coverage of the intervals, which should be 92 to 98 %, and then the
false-positive rates of the tests.
"""

import numpy as np
from absl import flags

from yosinski_jax.analysis import effects, scores
from yosinski_jax.analysis.statistics import mean
from yosinski_jax.base.errors import UserError
from yosinski_jax.commands import cli
from yosinski_jax.study.treatments import grid

_SIMULATIONS = flags.DEFINE_integer("simulations", 1000, "simulated studies per design", 500)
_SEEDS = flags.DEFINE_list("split_seeds", ["3", "4", "8"], "numbers of split seeds to try")
NOISES = ("normal", "skewed", "none_between")
_NOISE = flags.DEFINE_list("noise", list(NOISES), "kinds of noise to try")

#: True differences from the base by treatment at n = 1, 2, 3.
TRUTH = {
    "BnB": (-0.002, -0.015, -0.006),
    "BnB+": (0.0, 0.001, 0.001),
    "AnB": (-0.004, -0.025, -0.066),
    "AnB+": (0.004, 0.008, 0.01),
    "RnB": (-0.05, -0.15, -0.4),
}
BASE = 0.8
CLASSES = 5


def study(rng: np.random.Generator, seeds: int, noise: str = "normal") -> list[dict]:
    """The records of one simulated study with true effects `TRUTH`.

    Args:
      rng: source of the noise.
      seeds: number of split seeds.
      noise: "normal"; "skewed": centered exponential; "none_between": networks vary, but split seeds do not,
        where intervals that resample networks would be widest.
    """

    def draw(sd, size=None):
        if noise == "skewed":
            return sd * (rng.exponential(size=size) - 1)
        return rng.normal(0, sd, size)

    between = 0.0 if noise == "none_between" else 1.0
    records = []
    for seed in range(seeds):
        level = between * draw(0.01)
        tilt = between * draw(0.01)
        shift = {t: between * draw(0.003, 3) for t in TRUTH}
        for network in grid(tuple(TRUTH), (1, 2, 3)):
            value = BASE + level + (tilt if network.target == "A" else -tilt) + draw(0.003)
            if network.n:
                value += TRUTH[network.treatment][network.n - 1]
                value += shift[network.treatment][network.n - 1]
            records.append(
                {
                    "name": network.name,
                    "treatment": network.treatment,
                    "n": network.n,
                    "target": network.target,
                    "split": "random",
                    "split_seed": seed,
                    "status": "finished",
                    "accuracy": float(value),
                    "classes": list(range(CLASSES)),
                }
            )
    return records


def truths() -> dict[str, float]:
    """The true value of everything that `found` estimates."""

    def at(treatment, n):
        return 0.0 if treatment == "base" else TRUTH[treatment][n - 1]

    values = {}
    for effect in effects.EFFECTS:
        for n in (1, 2, 3):
            values[f"{effect.key} {n}"] = at(effect.minuend, n) - at(effect.subtrahend, n)
    values["boost_over_base 1–3"] = float(np.mean(TRUTH["AnB+"]))
    for n in (2, 3):
        own, other = TRUTH["BnB"][n - 1], TRUTH["AnB"][n - 1]
        random = TRUTH["RnB"][n - 1]
        values[f"generality over random {n}"] = (other - random) / (own - random)
        floor = BASE - 1 / CLASSES
        values[f"generality over chance {n}"] = (floor + other) / (floor + own)
    drops = [0.0] + [TRUTH["BnB"][i] - TRUTH["AnB"][i] for i in range(3)]
    values["largest-step share"] = max(np.diff(drops)) / drops[-1]
    return values


def found(records: list[dict]) -> dict[str, tuple[float, float]]:
    """The individual 95 % intervals of one study, by the names of `truths`."""
    out = {}
    for effect in effects.EFFECTS:
        table = effects.cells(records)
        gaps = {str(n): effects.differences(table, effect, n) for n in (1, 2, 3)}
        if effect.key == "boost_over_base":
            gaps["1–3"] = effects.averages(table, effect, (1, 2, 3))
        for layers, pairs in gaps.items():
            e = mean([d for _, d in pairs], [p[0] for p, _ in pairs])
            out[f"{effect.key} {layers}"] = (e.low, e.high)
    for floor in ("random", "chance"):
        for g in scores.generality(records, floor):
            if g.estimate is not None:
                out[f"generality over {floor} {g.n}"] = (g.estimate.low, g.estimate.high)
    share = scores.suddenness(records).estimate
    if share is not None:
        out["largest-step share"] = (share.low, share.high)
    return out


def family_error(simulations: int, seeds: int, noise: str) -> float:
    """How often any member of a Holm family of true nulls is significant; should be at most 5 %."""
    rng = np.random.default_rng(2014)
    wrong = 0
    for _ in range(simulations):
        records = [r for r in study(rng, seeds, noise) if r["treatment"] in ("base", "BnB")]
        for r in records:
            r["accuracy"] -= TRUTH["BnB"][r["n"] - 1] if r["n"] else 0.0
        rows = effects.effect_rows(records, effects.BY_KEY["co_adaptation_drop"])
        wrong += any(row["verdict"] in ("above", "below") for row in rows)
    return wrong / simulations


def false_equivalence(simulations: int, seeds: int, noise: str) -> float:
    """How often a drop of exactly the margin is declared smaller; should be at most 5 %."""
    rng = np.random.default_rng(2014)
    effect = effects.BY_KEY["specificity_drop"]
    drop = TRUTH["BnB"][1] - TRUTH["AnB"][1]
    wrong = 0
    for _ in range(simulations):
        rows = effects.effect_rows(study(rng, seeds, noise), effect, margin=drop)
        wrong += effects.within_margin(rows[1])
    return wrong / simulations


def coverage(simulations: int, seeds: int, noise: str = "normal") -> dict[str, tuple[float, int]]:
    """The fraction of intervals that contain the truth, and the number of intervals, by name."""
    rng = np.random.default_rng(2014)
    truth = truths()
    hits: dict[str, list[bool]] = {name: [] for name in truth}
    for _ in range(simulations):
        for name, (low, high) in found(study(rng, seeds, noise)).items():
            if name in truth:
                hits[name].append(low <= truth[name] <= high)
    return {name: (float(np.mean(h)), len(h)) for name, h in hits.items() if h}


def main() -> None:
    """Prints the coverage for every design asked for."""
    numbers = cli.whole_numbers("split_seeds", _SEEDS.value)
    if not numbers or min(numbers) < 2:
        raise UserError(f"--split_seeds={','.join(_SEEDS.value)}: an interval needs at least 2")
    wrong = [noise for noise in _NOISE.value if noise not in NOISES]
    if wrong:
        raise UserError(f"--noise={wrong[0]}: choose from {', '.join(NOISES)}")
    for noise in _NOISE.value:
        for seeds in numbers:
            print(f"\n{seeds} split seeds, {noise} noise, {_SIMULATIONS.value} studies")
            for name, (share, count) in coverage(_SIMULATIONS.value, seeds, noise).items():
                print(f"  {name:32s} {100 * share:5.1f} %  of {count}")
            share = family_error(_SIMULATIONS.value, seeds, noise)
            print(f"  {'any of 3 true nulls significant':32s} {100 * share:5.1f} %")
            share = false_equivalence(_SIMULATIONS.value, seeds, noise)
            print(f"  {'drop of the margin declared smaller':32s} {100 * share:5.1f} %")


if __name__ == "__main__":
    cli.run(main)
