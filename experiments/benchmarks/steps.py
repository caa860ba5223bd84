"""Training speed by number of frozen layers, with and without their outputs cached."""

from typing import Any

from experiments.benchmarks import measure, synthetic
from experiments.benchmarks.synthetic import Work
from yosinski_jax import costs

WAYS = ("each step", "cached")


def run(work: Work, precision: str, *, replicas: int, rounds: int, seconds: float) -> list[dict]:
    """Measures one network; one row for each k and way.

    Args:
        work: the network and its task.
        precision: "float32" or "bfloat16".
        replicas: networks trained together.
        rounds: values of each measure.
        seconds: time for one value.

    Returns:
        Rows with images/s, the share of the matrix product's peak (counted in the operations that
        the way needs) and the gain of the cache, all pairwise.
    """
    network = synthetic.network(work, precision)
    rows = []
    for frozen in range(len(network.layers)):
        # Not all k at once: CaffeNet's populations would not fit into memory together.
        populations = {}
        for way in WAYS:
            found = synthetic.population(
                synthetic.trainer(work, precision, cache=way == "cached"), replicas, frozen
            )
            if found.program.cached == (way == "cached"):
                found.advance()
                populations[way] = found
        measures: dict[str, Any] = {"peak": measure.matmul_peak(precision)}
        for way, found in populations.items():
            measures[way] = lambda found=found: synthetic.rate(found, seconds)
        values = measure.in_turns(measures, rounds)
        for way in populations:
            cost = costs.step_cost(
                network,
                work.image_shape,
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
                    "images_per_second": values[way],
                    "flops_per_image": flops,
                    "peak_flops": values["peak"],
                    "share_of_peak": values[way] / values["peak"] * flops,
                    "gain": values[way] / values["each step"],
                }
            )
    return rows


def show(rows: list[dict]) -> str:
    """The rows as a table."""
    header = ("network", "k", "frozen layers", "images/s", "MFLOP/image", "% of peak", "gain")
    cells = [
        (
            row["network"],
            str(row["frozen"]),
            row["way"] if row["frozen"] else "none",
            row["images_per_second"].text(),
            f"{row['flops_per_image'] / 1e6:,.2f}",
            (row["share_of_peak"] * 100).text(".1f"),
            row["gain"].text(".2f"),
        )
        for row in rows
    ]
    peaks = {row["precision"]: row["peak_flops"] for row in rows}
    lines = [f"peak of {name} products: {(p * 1e-9).text()} GFLOP/s" for name, p in peaks.items()]
    return "\n".join([*lines, measure.table(header, cells)])
