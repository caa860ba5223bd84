r"""Measures how fast the study runs.

  python -m experiments.benchmark digits
      the default command, cold and with the compiled programs of an earlier run
  python -m experiments.benchmark sweep --data_dir=DIR --peer=torch_sweep.py --torch_python=PYTHON
      the CIFAR-10 sweep against the same sweep in plain PyTorch, in turns
  python -m experiments.benchmark step
      images/s and share of the matrix product's peak, by number of frozen layers
  python -m experiments.benchmark population
      images/s by number of networks trained together
  python -m experiments.benchmark scaling
      time and memory by number of networks, images and devices
  python -m experiments.benchmark plans --sizes=1000,3000,10000
      training, going on and reporting by number of networks, of one step each
  python -m experiments.benchmark faults --minutes=10 --executor=ray
      a sweep on an executor while its processes are killed and stopped: equal to an undisturbed one?
  python -m experiments.benchmark input --data_dir=DIR --peer=torch_input.py --torch_python=PYTHON
      images/s of the whole input path on ImageNet's JPEGs against PyTorch's, in turns
  python -m experiments.benchmark devices --data_dir=DIR
      the paper's plan on accelerators that are not at hand, computed from operations and bytes
  python -m experiments.benchmark precision
      loss curves of float32 and bfloat16 side by side

Prints tables, writes JSON with the machine, the versions and the command.
"""

import dataclasses
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

_WHAT = flags.DEFINE_string(
    "what",
    None,
    "digits, sweep, step, population, scaling, plans, faults, input, devices or precision; also as first word",
)
_OUT = flags.DEFINE_string("out", None, "JSON file to write; default results/benchmark-WHAT.json")
_ROUNDS = flags.DEFINE_integer(
    "rounds", 3, "values taken of each measure, in turns; precision: number of seeds", 1
)
_SECONDS = flags.DEFINE_float(
    "seconds",
    None,
    "step, population: time for one value (default 2); input: least time for one of ours (4)",
    0.0,
)
_NETWORKS = flags.DEFINE_list(
    "networks",
    None,
    "step, population: networks; default digits4,cifar5,caffenet64,caffenet and digits4,cifar5; precision: one; "
    "default by image size",
)
_PRECISION = flags.DEFINE_string(
    "precision", "auto", "step, population: float32, bfloat16 or auto (bfloat16 on GPU and TPU)"
)
_REPLICAS = flags.DEFINE_integer(
    "replicas", None, "step: networks trained together; default one a device", 1
)
_MOST_REPLICAS = flags.DEFINE_integer("most_replicas", 64, "population: largest population", 1)
_FROZEN = flags.DEFINE_list(
    "frozen",
    None,
    "step: numbers of frozen layers, with commas, -1 for all but the last; default each; population: "
    "number of frozen layers, their outputs cached; default 0",
)
_DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "sweep: a prepared dataset of ten classes (default cifar10); input: one with WordNet ids "
    "(default imagenet2012); precision: any (default digits)",
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "sweep, input, devices, precision: folder of prepared datasets"
)
_PEER = flags.DEFINE_string(
    "peer",
    None,
    "sweep: path of torch_sweep.py; input: of torch_input.py; without it ours runs alone",
)
_TORCH_PYTHON = flags.DEFINE_string(
    "torch_python", sys.executable, "sweep, input: interpreter that has torch"
)
_EPOCHS = flags.DEFINE_list(
    "epochs",
    None,
    "sweep: budgets, with commas (default 20); scaling: one (default 10); precision: one (default "
    "the recipe's)",
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "step, population, precision: images a step; input: of a batch (256)", 1
)
_WORKERS = flags.DEFINE_integer(
    "workers", None, "input: processes that decode, on both sides; default the cores", 1
)
_BATCHES = flags.DEFINE_integer("batches", 12, "input: batches of one value", 1)
_TRAIN = flags.DEFINE_integer(
    "images_per_class", None, "sweep, precision: training images of a class; default all", 1
)
_TEST = flags.DEFINE_integer(
    "test_images_per_class", None, "sweep: test images of a class; default all", 1
)
_BASES = flags.DEFINE_bool("bases", False, "sweep: the two bases alone, to compare accuracies")
_SWEEP_OPTIONS = flags.DEFINE_string(
    "sweep_options", "", "digits, sweep, scaling, plans, faults: more flags of our sweep"
)
_PEER_OPTIONS = flags.DEFINE_string(
    "peer_options", "", 'sweep, input: more flags of the peer: "--compile --bf16"'
)
_ENV = flags.DEFINE_list("env", [], "sweep: NAME=VALUE with commas, environment variables of both")
_SEEDS = flags.DEFINE_list("seeds", ["1", "2", "4", "8"], "scaling: numbers of split seeds")
_IMAGES = flags.DEFINE_list("images", ["32", "64", "130"], "scaling: training images of a class")
_DEVICES = flags.DEFINE_list("devices", ["1", "2", "4", "8"], "scaling: numbers of devices")
_SIZES = flags.DEFINE_list("sizes", ["1000", "3000", "10000"], "plans: numbers of networks")
_EXECUTOR = flags.DEFINE_enum(
    "executor", "local", ["local", "ray", "shard"], "faults: what trains the groups"
)
_MINUTES = flags.DEFINE_float("minutes", 10.0, "faults: time in which faults are made", 0.0)
_KILLS = flags.DEFINE_integer(
    "kills", 0, "faults: go on until so many processes were killed for good", 0
)
_EVERY = flags.DEFINE_float(
    "every", 4.0, "faults: mean seconds from a group in training to a fault", 0.1
)
_SEED = flags.DEFINE_integer("seed", 0, "faults: of instants and victims")


def main() -> None:
    """Measures one thing, prints it and writes it."""
    if _WHAT.value not in BENCHMARKS:
        raise UserError(f"--what={_WHAT.value}: choose from {', '.join(BENCHMARKS)}")
    local_path(_OUT.value or "", "--out", "leave it out to write below results/")
    path = Path(_OUT.value or f"results/benchmark-{_WHAT.value}.json")
    began, load = time.time(), os.getloadavg()
    measure.check_writable(path)  # no place to write is told now
    result, text = BENCHMARKS[_WHAT.value]()
    measure.use_all_cores()
    machine = measure.machine()
    measure.write(
        path,
        {
            "benchmark": _WHAT.value,
            "command": shlex.join(["python", "-m", "experiments.benchmark", *sys.argv[1:]]),
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
            "seconds": round(time.time() - began, 1),
            "load_before": load,
            "machine": machine,
            "result": result,
        },
    )
    print(text)
    print(
        f"\n{machine['cpu']}, {machine['cores']} cores, load {load[0]:.1f} at the start; "
        f"{machine['devices']} × {machine['device']}; jax {machine['jax']}\n  {path}"
    )


def _digits() -> tuple[Any, str]:
    from experiments.benchmarks import digits

    rows = digits.run(cli.words("sweep_options", _SWEEP_OPTIONS.value), rounds=_ROUNDS.value)
    return rows, digits.show(rows)


def _sweep() -> tuple[Any, str]:
    from experiments.benchmarks import peer
    from yosinski_jax.data import dataset as data

    env = dict(_pair(text) for text in _ENV.value)
    name = _DATASET.value or "cifar10"
    dataset = data.load(name, _DATA_DIR.value)
    if len(dataset.label_names) != 10:
        raise UserError(f"--dataset={name}: the peer takes ten classes; use cifar10")
    theirs = _peer("torch, numpy")
    task = peer.Task(
        cli.whole_numbers("epochs", _EPOCHS.value or ["20"]),
        train_per_class=_TRAIN.value,
        test_per_class=_TEST.value,
        bases=_BASES.value,
    )
    result = peer.run(
        dataset,
        task,
        theirs,
        rounds=_ROUNDS.value,
        options=cli.words("sweep_options", _SWEEP_OPTIONS.value),
        env=env,
    )
    return result, peer.show(result)


def _peer(needs: str) -> Any:
    """The peer, if it can run; else a line says why not."""
    from experiments.benchmarks import peer

    if not _PEER.value:
        print("--peer is not given; ours runs alone", flush=True)
        return None
    script = str(Path(_PEER.value).absolute())
    options = tuple(cli.words("peer_options", _PEER_OPTIONS.value))
    theirs = peer.Peer(script, _TORCH_PYTHON.value, options, needs)
    missing = theirs.missing()
    if missing:
        print(f"{missing}; ours runs alone", flush=True)
        return None
    return theirs


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UserError(f"--env={text}: expected NAME=VALUE")
    return name, value


def _step() -> tuple[Any, str]:
    from experiments.benchmarks import steps, synthetic

    frozen, rows = cli.whole_numbers("frozen", _FROZEN.value or [], -1), []
    works = _works(list(synthetic.USUAL))
    for work, *_ in works:
        _check_depth(work, frozen)
    for work, precision, devices in works:
        rows += steps.run(
            work,
            precision,
            frozen=frozen,
            replicas=_REPLICAS.value or (1 if work.image_shape[0] > 200 else devices),
            rounds=_ROUNDS.value,
            seconds=_seconds(2.0),
        )
    return rows, steps.show(rows)


def _population() -> tuple[Any, str]:
    from experiments.benchmarks import populations

    sizes = [2**i for i in range(_MOST_REPLICAS.value.bit_length())]
    frozen, rows = cli.whole_numbers("frozen", _FROZEN.value or ["0"], 0), []
    if len(frozen) != 1:
        raise UserError(f"--frozen={','.join(_FROZEN.value or [])}: population takes one number")
    works = _works(["digits4", "cifar5"])
    for work, *_ in works:
        _check_depth(work, frozen)
    for work, precision, _ in works:
        rows += populations.run(
            work,
            precision,
            sizes=sizes,
            frozen=frozen[0],
            rounds=_ROUNDS.value,
            seconds=_seconds(2.0),
        )
    return rows, populations.show(rows)


def _check_depth(work: Any, frozen: Sequence[int]) -> None:
    from experiments.benchmarks import synthetic

    depth = len(synthetic.network(work, "float32").layers)
    if frozen and frozen[-1] >= depth:
        raise UserError(
            f"--frozen={frozen[-1]}: {work.network} has {depth} layers; must be less than that"
        )


def _works(default: list[str]) -> list[tuple[Any, str, int]]:
    """Work, precision and number of devices for each network asked for."""
    measure.use_all_cores()
    import jax

    from experiments.benchmarks import synthetic

    known = synthetic.defaults()
    names = _NETWORKS.value or default
    wrong = [name for name in names if name not in known]
    if wrong:
        raise UserError(
            f"--networks={','.join(names)}: {wrong[0]} is not one of {', '.join(known)}"
        )
    precision = _PRECISION.value
    if precision == "auto":
        precision = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    if precision not in ("float32", "bfloat16"):
        raise UserError(f"--precision={precision}: choose from auto, float32, bfloat16")
    works = [known[name] for name in names]
    if _BATCH_SIZE.value is not None:
        works = [dataclasses.replace(work, batch_size=_BATCH_SIZE.value) for work in works]
    return [(work, precision, jax.local_device_count()) for work in works]


def _seconds(default: float) -> float:
    return default if _SECONDS.value is None else _SECONDS.value


def _scaling() -> tuple[Any, str]:
    from experiments.benchmarks import scaling

    result = scaling.run(
        seeds=cli.whole_numbers("seeds", _SEEDS.value, 1),
        images=cli.whole_numbers("images", _IMAGES.value, 1),
        devices=cli.whole_numbers("devices", _DEVICES.value),
        epochs=_one_number_of_epochs("scaling", "10"),
        rounds=_ROUNDS.value,
        options=cli.words("sweep_options", _SWEEP_OPTIONS.value),
    )
    return result, scaling.show(result)


def _plans() -> tuple[Any, str]:
    from experiments.benchmarks import plans

    rows = plans.run(
        cli.whole_numbers("sizes", _SIZES.value, 1),
        cli.words("sweep_options", _SWEEP_OPTIONS.value),
    )
    return rows, plans.show(rows)


def _faults() -> tuple[Any, str]:
    from experiments.benchmarks import faults

    result = faults.run(
        _EXECUTOR.value,
        minutes=_MINUTES.value,
        kills=_KILLS.value,
        every=_EVERY.value,
        seed=_SEED.value,
        options=(*faults.OPTIONS, *cli.words("sweep_options", _SWEEP_OPTIONS.value)),
    )
    return result, faults.show(result)


def _input() -> tuple[Any, str]:
    from experiments.benchmarks import inputs
    from yosinski_jax.base import machine as environment
    from yosinski_jax.data import dataset as data
    from yosinski_jax.study import recipes

    dataset = data.load(_DATASET.value or "imagenet2012", _DATA_DIR.value)
    recipe = recipes.get("paper")
    rows = inputs.run(
        dataset,
        inputs.Reading(
            workers=_WORKERS.value or environment.cores(),
            batches=_BATCHES.value,
            seconds=_seconds(4.0),
            recipe=dataclasses.replace(recipe, batch_size=_BATCH_SIZE.value or recipe.batch_size),
        ),
        _peer("torch, numpy, PIL"),
        rounds=_ROUNDS.value,
    )
    return rows, inputs.show(rows)


def _devices() -> tuple[Any, str]:
    from experiments.benchmarks import devices
    from yosinski_jax.data import dataset as data

    with measure.folder() as folder:
        result = devices.run(data.load(_DATASET.value or "imagenet2012", _DATA_DIR.value), folder)
    return result, devices.show(result)


def _precision() -> tuple[Any, str]:
    measure.use_all_cores()
    from experiments.benchmarks import precisions
    from yosinski_jax.data import dataset as data
    from yosinski_jax.networks import convnets
    from yosinski_jax.study import recipes

    dataset = data.load(_DATASET.value or data.DIGITS, _DATA_DIR.value)
    names = _NETWORKS.value or [convnets.default_network(dataset.name, dataset.image_shape)]
    if len(names) != 1:
        raise UserError(f"--networks={','.join(names)}: precision takes one")
    recipe = recipes.get(recipes.default_recipe(names[0]))
    if _EPOCHS.value:
        epochs = _one_number_of_epochs("precision")
        recipe = dataclasses.replace(recipe, epochs=epochs, iterations=None)
    if _BATCH_SIZE.value is not None:
        recipe = dataclasses.replace(recipe, batch_size=_BATCH_SIZE.value)
    digits = dataset.name == data.DIGITS
    result = precisions.run(
        dataset,
        names[0],
        recipe,
        seeds=_ROUNDS.value,
        images_per_class=_TRAIN.value or (data.DIGITS_TRAIN_IMAGES if digits else None),
    )
    return result, precisions.show(result)


def _one_number_of_epochs(what: str, default: str = "") -> int:
    epochs = cli.whole_numbers("epochs", _EPOCHS.value or [default])
    if len(epochs) != 1:
        raise UserError(f"--epochs={','.join(map(str, epochs))}: {what} takes one number")
    return epochs[0]


BENCHMARKS: dict[str, Callable[[], tuple[Any, str]]] = {
    "digits": _digits,
    "sweep": _sweep,
    "step": _step,
    "population": _population,
    "scaling": _scaling,
    "plans": _plans,
    "faults": _faults,
    "input": _input,
    "devices": _devices,
    "precision": _precision,
}


if __name__ == "__main__":
    first = sys.argv[1:2]
    rest = [f"--what={first[0]}", *sys.argv[2:]] if first and first[0][0] != "-" else sys.argv[1:]
    cli.run(main, [sys.argv[0], *rest])
