"""Training speed by number of frozen layers, with and without their outputs cached."""

from collections.abc import Sequence
from typing import Any

from experiments.benchmarks import measure, synthetic
from experiments.benchmarks.synthetic import Work
from yosinski_jax.networks import costs
from yosinski_jax.training.trainer import Trainer

WAYS = ("each step", "cached")


def run(
    work: Work, precision: str, *, replicas: int, rounds: int, seconds: float,
    frozen: Sequence[int] = (),
) -> list[dict]:  # fmt: skip
    """Measures one network; one row for each k and way.

    Args:
        work: the network and its task.
        precision: "float32" or "bfloat16".
        replicas: networks trained together.
        rounds: values of each measure.
        seconds: time for one value.
        frozen: the values of k, those below 0 counted from the number of layers; by default all
            from 0 to one less than that.

    Returns:
        Rows with images/s, the share of the matrix product's peak (counted in the operations that
        the way needs) and the gain of the cache, all pairwise; where nothing can be cached, the row
        of the other way says why.
    """
    trainers = {way: synthetic.trainer(work, precision, cache=way == "cached") for way in WAYS}
    rows = []
    depth = len(synthetic.network(work, precision).layers)
    for k in sorted({k % depth for k in frozen or range(depth)}):
        # Not all k at once: CaffeNet's populations would not fit into memory together.
        rows += _one(work, precision, trainers, k, replicas, rounds, seconds)
    return rows


def _one(
    work: Work,
    precision: str,
    trainers: dict[str, Trainer],
    frozen: int,
    replicas: int,
    rounds: int,
    seconds: float,
) -> list[dict]:
    why_not = _why_not_cached(trainers["cached"], frozen)
    ways = WAYS if frozen and why_not is None else WAYS[:1]
    populations = {}
    for way in ways:
        populations[way] = synthetic.population(trainers[way], replicas, frozen)
        populations[way].advance()
    measures: dict[str, Any] = {"peak": measure.matmul_peak(precision)}
    for way, found in populations.items():
        measures[way] = lambda found=found: synthetic.rate(found, seconds)
    values = measure.in_turns(measures, rounds)
    rows = []
    for way in ways:
        cost = costs.step_cost(
            synthetic.network(work, precision),
            work.input_shape,
            batch_size=work.batch_size,
            frozen=frozen,
            prefix_cached=way == "cached",
        )
        flops = cost.flops / work.batch_size
        rows.append(
            {
                "network": work.network,
                "precision": precision,
                "replicas": replicas,
                "batch_size": work.batch_size,
                "frozen": frozen,
                "way": way,
                "not_cached_because": why_not,
                "images_per_second": values[way],
                "steps_per_second": values[way] * (1 / work.batch_size),
                "flops_per_image": flops,
                "peak_flops": values["peak"],
                "share_of_peak": values[way] / values["peak"] * flops,
                "gain": values[way] / values["each step"],
            }
        )
    return rows


def _why_not_cached(trainer: Trainer, frozen: int) -> str | None:
    """Why a trainer with memory enough does not cache the first layers; None if it does."""
    task = synthetic.task(trainer)
    if not frozen or trainer.caches(task, frozen):
        return None
    if trainer.recipe.augments:
        return "its recipe crops or mirrors at random, so no two passes over an image are equal"
    return "dropout in frozen layers stays active, so no two passes over an image are equal"


def show(rows: list[dict]) -> str:
    """The rows as a table."""
    header = (
        "network",
        "k",
        "frozen layers",
        "images/s",
        "steps/s",
        "MFLOP/image",
        "% of peak",
        "gain",
    )
    cells = [
        (
            row["network"],
            str(row["frozen"]),
            row["way"] if row["frozen"] else "none",
            row["images_per_second"].text(),
            row["steps_per_second"].text(".3g"),
            f"{row['flops_per_image'] / 1e6:,.2f}",
            (row["share_of_peak"] * 100).text(".1f"),
            row["gain"].text(".2f"),
        )
        for row in rows
    ]
    peaks = {row["precision"]: row["peak_flops"] for row in rows}
    lines = [f"peak of {name} products: {(p * 1e-9).text()} GFLOP/s" for name, p in peaks.items()]
    lines.append(measure.table(header, cells))
    reasons: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        if row["not_cached_because"]:
            reasons.setdefault((row["network"], row["not_cached_because"]), []).append(
                row["frozen"]
            )
    lines += [
        f"{network}, k = {', '.join(map(str, ks))}: not cached, because {why}"
        for (network, why), ks in reasons.items()
    ]
    return "\n".join(lines)
