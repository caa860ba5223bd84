r"""Benchmarks of the study.

  python -m experiments.benchmark digits
      the default command, with a cold and a warm compile cache
  python -m experiments.benchmark sweep --data_dir=DIR --peer=torch_sweep.py --torch_python=PYTHON
      the CIFAR-10 sweep against the same sweep in plain PyTorch, alternating
  python -m experiments.benchmark step
      images/s and fraction of the matmul peak, by number of frozen layers
  python -m experiments.benchmark population
      images/s by number of networks trained together
  python -m experiments.benchmark scaling
      time and memory by number of networks, images and devices
  python -m experiments.benchmark plans --sizes=1000,3000,10000
      training, resuming and reporting by number of networks, one step each
  python -m experiments.benchmark faults --minutes=10 --executor=ray
      a sweep whose processes are killed and suspended: does it end with the same tables?
  python -m experiments.benchmark input --data_dir=DIR --peer=torch_input.py --torch_python=PYTHON
      images/s of the whole input pipeline on ImageNet's JPEGs against PyTorch's, alternating
  python -m experiments.benchmark devices --data_dir=DIR
      estimated time of the paper's plan on other accelerators, from FLOPs and bytes
  python -m experiments.benchmark precision
      loss curves of float32 and bfloat16 side by side

Prints tables and writes JSON with the machine, the versions and the command.
"""

import dataclasses
import importlib
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments.benchmarks import measure
from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import local_path
from yosinski_jax.commands import cli

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "what",
    None,
    "digits, sweep, step, population, scaling, plans, faults, input, devices or precision; may also be the first word",
)
flags.DEFINE_string("out", None, "JSON file to write; default results/benchmark-WHAT.json")
flags.DEFINE_integer(
    "rounds", 3, "repetitions of each measurement, alternating; precision: number of seeds", 1
)
flags.DEFINE_float(
    "seconds",
    None,
    "step, population: duration of one measurement (default 2); input: minimum duration of one of ours (4)",
    0.0,
)
flags.DEFINE_list(
    "networks",
    None,
    "step, population: networks; default digits4,cifar5,caffenet64,caffenet and digits4,cifar5; precision: one; "
    "default by image size",
)
flags.DEFINE_string(
    "precision", "auto", "step, population: float32, bfloat16 or auto (bfloat16 on GPU and TPU)"
)
flags.DEFINE_integer("replicas", None, "step: networks trained together; default one per device", 1)
flags.DEFINE_integer("most_replicas", 64, "population: largest number of networks", 1)
flags.DEFINE_list(
    "frozen",
    None,
    "step: comma-separated numbers of frozen layers, -1 for all but the last; default each; population: "
    "number of frozen layers, with their outputs cached; default 0",
)
flags.DEFINE_string(
    "dataset",
    None,
    "sweep: a prepared dataset of ten classes (default cifar10); input: one labelled by WordNet ids "
    "(default imagenet2012); precision: any (default digits)",
)
flags.DEFINE_string(
    "data_dir", None, "sweep, input, devices, precision: folder of prepared datasets"
)
flags.DEFINE_string(
    "peer", None, "sweep: path of torch_sweep.py; input: of torch_input.py; default: ours only"
)
flags.DEFINE_string("torch_python", sys.executable, "sweep, input: Python interpreter with torch")
flags.DEFINE_list(
    "epochs",
    None,
    "sweep: comma-separated budgets (default 20); scaling: one (default 10); precision: one (default "
    "the recipe's)",
)
flags.DEFINE_integer("batch_size", None, "step, population, precision, input: images per batch", 1)
flags.DEFINE_integer(
    "workers", None, "input: decoding processes, on both sides; default one per core", 1
)
flags.DEFINE_integer("batches", 12, "input: batches per measurement", 1)
flags.DEFINE_integer(
    "images_per_class", None, "sweep, precision: training images per class; default all", 1
)
flags.DEFINE_integer("test_images_per_class", None, "sweep: test images per class; default all", 1)
flags.DEFINE_bool("bases", False, "sweep: train only the two bases, to compare accuracies")
flags.DEFINE_string(
    "sweep_options", "", "digits, sweep, scaling, plans, faults: extra flags for our sweep"
)
flags.DEFINE_string(
    "peer_options", "", 'sweep, input: extra flags for the peer, such as "--compile --bf16"'
)
flags.DEFINE_list("env", [], "sweep: comma-separated NAME=VALUE environment variables of both")
flags.DEFINE_list("seeds", ["1", "2", "4", "8"], "scaling: numbers of split seeds")
flags.DEFINE_list("images", ["32", "64", "130"], "scaling: training images per class")
flags.DEFINE_list("devices", ["1", "2", "4", "8"], "scaling: numbers of devices")
flags.DEFINE_list("sizes", ["1000", "3000", "10000"], "plans: numbers of networks")
flags.DEFINE_enum("executor", "local", ["local", "ray", "shard"], "faults: what trains the groups")
flags.DEFINE_float("minutes", 10.0, "faults: how long to inject faults", 0.0)
flags.DEFINE_integer("kills", 0, "faults: continue until this many processes were killed", 0)
flags.DEFINE_float(
    "every", 4.0, "faults: mean seconds from the start of a group to the next fault", 0.1
)
flags.DEFINE_integer("seed", 0, "faults: random seed of times and targets")


def main() -> None:
    """Runs one benchmark, prints its result and writes it."""
    what = FLAGS.what
    if what not in BENCHMARKS:
        raise UserError(f"--what={what}: choose from {', '.join(BENCHMARKS)}")
    local_path(FLAGS.out or "", "--out", "leave it out to write below results/")
    path = Path(FLAGS.out or f"results/benchmark-{what}.json")
    began, load = time.time(), os.getloadavg()
    measure.check_writable(path)  # fail now rather than after the measurement
    room, run = BENCHMARKS[what]
    benchmark = importlib.import_module(f"experiments.benchmarks.{room}")
    result = run(benchmark)
    measure.use_all_cores()
    machine = measure.machine()
    measure.write(
        path,
        {
            "benchmark": what,
            "command": shlex.join(["python", "-m", "experiments.benchmark", *sys.argv[1:]]),
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
            "seconds": round(time.time() - began, 1),
            "load_before": load,
            "machine": machine,
            "result": result,
        },
    )
    print(benchmark.show(result))
    print(
        f"\n{machine['cpu']}, {machine['cores']} cores, load {load[0]:.1f} at the start; "
        f"{machine['devices']} × {machine['device']}; jax {machine['jax']}\n  {path}"
    )


def _options(flag: str = "sweep_options") -> list[str]:
    return cli.words(flag, FLAGS[flag].value or "")


def _seconds(default: float) -> float:
    return default if FLAGS.seconds is None else FLAGS.seconds


def _one_number(flag: str, default: str, least: int | None = None) -> int:
    given = FLAGS[flag].value or [default]
    found = cli.whole_numbers(flag, given, least)
    if len(found) != 1:
        raise UserError(f"--{flag}={','.join(given)}: {FLAGS.what} takes one number")
    return found[0]


def _dataset(default: str) -> Any:
    from yosinski_jax.data import dataset as data

    return data.load(FLAGS.dataset or default, FLAGS.data_dir)


def _peer(needs: str) -> Any:
    """The peer if it can run, else None, with a line that says why not."""
    from experiments.benchmarks import peer

    missing = "--peer is not given"
    if FLAGS.peer:
        script = str(Path(FLAGS.peer).absolute())
        theirs = peer.Peer(script, FLAGS.torch_python, tuple(_options("peer_options")), needs)
        missing = theirs.missing()
        if missing is None:
            return theirs
    print(f"{missing}; only ours runs", flush=True)
    return None


def _works(frozen: Sequence[int], default: Sequence[str]) -> list[tuple[Any, str, int]]:
    """Work, precision and number of devices for each network asked for."""
    measure.use_all_cores()
    import jax

    from experiments.benchmarks import synthetic

    known = synthetic.defaults()
    names = FLAGS.networks or default
    wrong = [name for name in names if name not in known]
    if wrong:
        raise UserError(
            f"--networks={','.join(names)}: {wrong[0]} is not one of {', '.join(known)}"
        )
    precision = FLAGS.precision
    if precision == "auto":
        precision = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    if precision not in ("float32", "bfloat16"):
        raise UserError(f"--precision={precision}: choose from auto, float32, bfloat16")
    works = [known[name] for name in names]
    for work in works:
        depth = len(synthetic.network(work, precision).layers)
        if frozen and frozen[-1] >= depth:
            raise UserError(
                f"--frozen={frozen[-1]}: {work.network} has {depth} layers; must be less than that"
            )
    if FLAGS.batch_size is not None:
        works = [dataclasses.replace(work, batch_size=FLAGS.batch_size) for work in works]
    return [(work, precision, jax.local_device_count()) for work in works]


def _sweep(peer: Any) -> Any:
    env = {}
    for text in FLAGS.env:
        name, equals, env[name] = text.partition("=")
        if not name or not equals:
            raise UserError(f"--env={text}: expected NAME=VALUE")
    dataset = _dataset("cifar10")
    if len(dataset.label_names) != 10:
        raise UserError(f"--dataset={FLAGS.dataset}: the peer takes ten classes; use cifar10")
    theirs = _peer("torch, numpy")
    task = peer.Task(
        cli.whole_numbers("epochs", FLAGS.epochs or ["20"]),
        train_per_class=FLAGS.images_per_class,
        test_per_class=FLAGS.test_images_per_class,
        bases=FLAGS.bases,
    )
    return peer.run(dataset, task, theirs, rounds=FLAGS.rounds, options=_options(), env=env)


def _step(steps: Any) -> Any:
    frozen, rows = cli.whole_numbers("frozen", FLAGS.frozen or [], -1), []
    for work, precision, devices in _works(frozen, steps.synthetic.USUAL):
        replicas = FLAGS.replicas or (1 if work.image_shape[0] > 200 else devices)
        pace = {"rounds": FLAGS.rounds, "seconds": _seconds(2.0)}
        rows += steps.run(work, precision, frozen=frozen, replicas=replicas, **pace)
    return rows


def _population(populations: Any) -> Any:
    frozen, rows = _one_number("frozen", "0", 0), []
    sizes = [2**i for i in range(FLAGS.most_replicas.bit_length())]
    for work, precision, _ in _works([frozen], ["digits4", "cifar5"]):
        pace = {"rounds": FLAGS.rounds, "seconds": _seconds(2.0)}
        rows += populations.run(work, precision, sizes=sizes, frozen=frozen, **pace)
    return rows


def _scaling(scaling: Any) -> Any:
    return scaling.run(
        seeds=cli.whole_numbers("seeds", FLAGS.seeds, 1),
        images=cli.whole_numbers("images", FLAGS.images, 1),
        devices=cli.whole_numbers("devices", FLAGS.devices),
        epochs=_one_number("epochs", "10"),
        rounds=FLAGS.rounds,
        options=_options(),
    )


def _faults(faults: Any) -> Any:
    return faults.run(
        FLAGS.executor,
        minutes=FLAGS.minutes,
        kills=FLAGS.kills,
        every=FLAGS.every,
        seed=FLAGS.seed,
        options=(*faults.OPTIONS, *_options()),
    )


def _input(inputs: Any) -> Any:
    from yosinski_jax.base import machine
    from yosinski_jax.study import recipes

    dataset, recipe = _dataset("imagenet2012"), recipes.get("paper")
    reading = inputs.Reading(
        workers=FLAGS.workers or machine.cores(),
        batches=FLAGS.batches,
        seconds=_seconds(4.0),
        recipe=dataclasses.replace(recipe, batch_size=FLAGS.batch_size or recipe.batch_size),
    )
    return inputs.run(dataset, reading, _peer("torch, numpy, PIL"), rounds=FLAGS.rounds)


def _devices(devices: Any) -> Any:
    with measure.folder() as folder:
        return devices.run(_dataset("imagenet2012"), folder)


def _precision(precisions: Any) -> Any:
    measure.use_all_cores()
    from yosinski_jax.data import dataset as data
    from yosinski_jax.networks import convnets
    from yosinski_jax.study import recipes

    dataset = _dataset(data.DIGITS)
    names = FLAGS.networks or [convnets.default_network(dataset.image_shape)]
    if len(names) != 1:
        raise UserError(f"--networks={','.join(names)}: precision takes one")
    recipe = recipes.get(recipes.default_recipe(names[0]))
    if FLAGS.epochs:
        recipe = dataclasses.replace(recipe, epochs=_one_number("epochs", ""), iterations=None)
    if FLAGS.batch_size is not None:
        recipe = dataclasses.replace(recipe, batch_size=FLAGS.batch_size)
    most = data.DIGITS_TRAIN_IMAGES if dataset.name == data.DIGITS else None
    images = FLAGS.images_per_class or most
    return precisions.run(dataset, names[0], recipe, seeds=FLAGS.rounds, images_per_class=images)


#: By the name of the benchmark: its room in `experiments.benchmarks`, and the call with the flags' values.
BENCHMARKS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "digits": ("digits", lambda digits: digits.run(_options(), rounds=FLAGS.rounds)),
    "sweep": ("peer", _sweep),
    "step": ("steps", _step),
    "population": ("populations", _population),
    "scaling": ("scaling", _scaling),
    "plans": (
        "plans",
        lambda plans: plans.run(cli.whole_numbers("sizes", FLAGS.sizes, 1), _options()),
    ),
    "faults": ("faults", _faults),
    "input": ("inputs", _input),
    "devices": ("devices", _devices),
    "precision": ("precisions", _precision),
}


if __name__ == "__main__":
    first = sys.argv[1:2]
    rest = [f"--what={first[0]}", *sys.argv[2:]] if first and first[0][0] != "-" else sys.argv[1:]
    cli.run(main, [sys.argv[0], *rest])
