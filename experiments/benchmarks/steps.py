"""Training speed by number of frozen layers, with and without their outputs cached."""

from collections.abc import Sequence

from experiments.benchmarks import measure, synthetic
from experiments.benchmarks.measure import Spread
from experiments.benchmarks.synthetic import Work
from yosinski_jax.data import dataset as data
from yosinski_jax.networks import costs
from yosinski_jax.training.trainer import Trainer

WAYS = ("each step", "cached")


def run(
    work: Work, precision: str, *, replicas: int, rounds: int, seconds: float,
    frozen: Sequence[int] = (),
) -> list[dict]:  # fmt: skip
    """Measures one network; one row per k and way.

    Args:
        work: the network and its task.
        precision: "float32" or "bfloat16".
        replicas: networks trained together.
        rounds: number of measurements.
        seconds: duration of one measurement.
        frozen: the values of k, negative ones counted from the number of layers; by default every k
            from 0 to one less than that.

    Returns:
        Rows with images/s, the fraction of the matmul peak (in FLOPs that this way needs) and the
        gain from the cache, all compared within a round; where nothing can be cached, the row of the
        other way says why.
    """
    trainers = {way: synthetic.trainer(work, precision, cache=way == "cached") for way in WAYS}
    network = synthetic.network(work, precision)
    depth, rows = len(network.layers), []
    # One k at a time: CaffeNet's populations would not fit in memory together.
    for k in sorted({k % depth for k in frozen or range(depth)}):
        why_not = _why_not_cached(trainers["cached"], k)
        ways = WAYS if k and why_not is None else WAYS[:1]
        populations = {way: synthetic.population(trainers[way], replicas, k) for way in ways}
        peak = measure.matmul_peak(precision)

        def once(name, turn, populations=populations, peak=peak) -> float:
            return peak() if name == "peak" else synthetic.rate(populations[name], seconds)

        found = measure.in_turns(["peak", *ways], once, rounds)
        values = {name: Spread(rates) for name, rates in found.items()}
        for way in ways:
            cost = costs.step_cost(
                network,
                work.input_shape,
                batch_size=work.batch_size,
                frozen=k,
                prefix_cached=way == "cached",
            )
            flops = cost.flops / work.batch_size
            rows.append(
                {
                    "network": work.network,
                    "precision": precision,
                    "replicas": replicas,
                    "batch_size": work.batch_size,
                    "frozen": k,
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
    """Why a trainer with enough memory does not cache the first layers; None if it does."""
    task = data.make_task(trainer.dataset, trainer.dataset.label_names)
    if not frozen or trainer.caches(task, frozen):
        return None
    if trainer.recipe.augments:
        return "the recipe's random crops or flips change an image from epoch to epoch"
    return "dropout stays active in frozen layers, so their outputs change from epoch to epoch"


def show(rows: list[dict]) -> str:
    """The rows as a table."""
    columns = {
        "network": "{network}",
        "k": "{frozen}",
        "frozen layers": "{shown_way}",
        "images/s": "{images_per_second}",
        "steps/s": "{steps_per_second:.3g}",
        "MFLOP/image": "{mflops:,.2f}",
        "% of peak": "{share_of_peak.percent:.1f}",
        "gain": "{gain:.2f}",
    }
    more = lambda row: {
        "shown_way": row["way"] if row["frozen"] else "none",
        "mflops": row["flops_per_image"] / 1e6,
    }
    peaks = {row["precision"]: row["peak_flops"] for row in rows}
    lines = [f"peak of {name} matmuls: {p.mega * 1e-3} GFLOP/s" for name, p in peaks.items()]
    lines.append(measure.table([row | more(row) for row in rows], columns))
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["not_cached_because"]:
            which = row["network"], row["not_cached_because"]
            reasons.setdefault(which, []).append(str(row["frozen"]))
    lines += [
        f"{network}, k = {', '.join(ks)}: not cached, because {why}"
        for (network, why), ks in reasons.items()
    ]
    return "\n".join(lines)
