r"""Runs the layer-transfer study of Yosinski et al. (2014).

Trains a base network on each of two tasks A and B, transfers the first n layers of a base to new
networks, frozen or fine-tuned, for every n, and ends with a table, results.csv, the paper's Figure 2
and a page to read.

  python -m experiments.sweep --split=random
      the whole study on scikit-learn's 8×8 digits: 128 networks, about a minute on a laptop
  python -m experiments.sweep --split=random --dataset=cifar10 --data_dir=DIR --seeds=3
      on CIFAR-10 with the five-layer network (prepare it first: python -m experiments.prepare)

Stop it at any time; the same command resumes. --plan shows what would be done. On several
devices or machines: --processes, --executor=ray or slurm, --shard=I/N.
"""

import gc
import sys
import time
from pathlib import Path

from absl import flags

from yosinski_jax.base import machine
from yosinski_jax.commands import executing, tracking
from yosinski_jax.commands.requesting import PLAN, requested, rule

_DISTRIBUTED = flags.DEFINE_enum(
    "distributed",
    "auto",
    ["auto", "on", "off"],
    "train on several hosts, each running this same command: auto decides from the flags below and the "
    "cluster's environment",
)
_COORDINATOR_ADDRESS = flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of process 0, where the cluster does not provide it"
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "number of processes, one per host")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "number of this process, from 0")
_REPORT = flags.DEFINE_bool(
    "report", True, "write report.html at the end and every few minutes during training"
)


def main() -> None:
    """Parses, plans, trains, reports."""
    executing.check()
    machine.use_all_cores()
    _join()
    # Imported here: --help and flag errors should not wait for jax, and its CPU devices must be set before it starts.
    from yosinski_jax.commands import planning
    from yosinski_jax.commands.display import Display
    from yosinski_jax.sweep import fanout, worker
    from yosinski_jax.training import multihost

    began = time.monotonic()
    with (
        multihost.watching(),
        Display(every_few_minutes=_page_on_the_way) as shown,
        tracking.fed(shown) as display,
    ):
        if not multihost.leader():  # process 0 alone writes and speaks
            _follow(requested(None))
            return
        sweep = requested(display)
        if PLAN.value:
            sweep.look()
            print(planning.describe(sweep, len(sweep.records)))
            print(planning.priced(sweep))
            if executing.elsewhere():
                print(executing.plan(sweep, *planning.seconds_per_flop(sweep)))
            return
        gc.freeze()  # what was imported stays; collections need not look at it again
        try:
            sweep = _train(sweep, display)
        except worker.Interrupted as e:
            _write(sweep)
            line = f"{e}; saved, run the same command again to resume"
            print(line, file=sys.stderr, flush=True)
            sys.exit(128 + e.signum)
        except fanout.Incomplete as e:
            _write(sweep)
            print(e, file=sys.stderr, flush=True)
            sys.exit(1)
        display.note("writing figures and the page")
        paths = _write(sweep)
    _print_table(sweep)
    print(
        f"\n{len(sweep.planned)} networks, {sweep.trained} of them trained now, in {time.monotonic() - began:.1f} s"
    )
    for path in paths:
        print(f"  {path}")


def _join() -> None:
    from yosinski_jax.training import multihost

    multihost.initialize(
        _DISTRIBUTED.value, _COORDINATOR_ADDRESS.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    )


def _follow(sweep) -> None:
    """Trains together with process 0."""
    from yosinski_jax.sweep import worker

    if PLAN.value:
        return
    try:
        _train(sweep, None)
    except worker.Interrupted as e:
        sys.exit(128 + e.signum)


def _train(sweep, display):
    """Trains all requested networks; returns the sweep, which has more split seeds with --seeds=auto."""
    train = lambda sweep: sweep.run(executing.executor(sweep), executing.shard())
    auto = rule()
    if auto is None:
        train(sweep)
        return sweep
    from yosinski_jax import seeds
    from yosinski_jax.base.errors import UserError

    if executing.shard() is not None:
        raise UserError(
            "--seeds=auto: does not work with --shard, whose plan all processes share; leave one out"
        )
    return seeds.run(sweep, train, lambda count: requested(display, count), *auto)


def _page_on_the_way(folder: Path) -> None:
    from yosinski_jax.report import build

    if _REPORT.value:
        build.write_report(folder, running=True)


def _write(sweep) -> list[Path]:
    """Writes the results, Figure 2 and the page from the records; returns their paths."""
    from yosinski_jax.report import build

    page = build.write_report(sweep.folder, pages=_REPORT.value)
    paths = [sweep.folder / "records", sweep.folder / "results.csv"]
    if sweep.records:
        paths += [sweep.folder / f"figure2.{fmt}" for fmt in build.FIGURE_2]
    return paths + ([page] if _REPORT.value else [])


def _print_table(sweep) -> None:
    from yosinski_jax.analysis import tables

    parts: dict[str, list[dict]] = {}
    for planned in sweep.planned:
        images = f", {planned.run.images} images of each class" if planned.run.images else ""
        part = parts.setdefault(f"split {planned.split.name}{images}", [])
        part.append(sweep.records[planned.id])
    print(
        f"\ntest accuracy in %, mean ± standard error (number of networks), {sweep.settings.dataset}"
    )
    for title, records in parts.items():
        if len(parts) > 1:
            print(f"\n{title}")
        print(tables.format_table(tables.summary_table(records)))
