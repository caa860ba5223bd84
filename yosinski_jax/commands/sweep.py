r"""Runs the layer-transfer study of Yosinski et al. (2014).

Trains a base network on each of two tasks A and B, transfers the first n layers of a base to new
networks, frozen or fine-tuned, for every n, and ends with a table, results.csv, the paper's Figure 2
and a page to read.

  python -m experiments.sweep --split=random
      the whole study on scikit-learn's 8×8 digits: 128 networks, about a minute on a laptop
  python -m experiments.sweep --split=random --dataset=cifar10 --data_dir=DIR --seeds=3
      on CIFAR-10 with the five-layer network (prepare it first: python -m experiments.prepare)

Stop it at any time; the same command goes on where it was. --plan shows what would be done. On several
devices or machines: --processes, --executor=ray or slurm, --shard=I/N.
"""

import shlex
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags

from yosinski_jax.base import machine
from yosinski_jax.commands import cli, executing, tracking

_SPLIT = flags.DEFINE_string(
    "split",
    None,
    "how classes are split into A and B: random, manmade_natural, or FILE.json with your own; all: no split, "
    "networks on all classes; paper: all 163 networks of the paper. Default random; paper with --recipe=paper",
)
_DATASET = flags.DEFINE_string(
    "dataset", "digits", "digits, a TFDS name such as cifar10, or the folder of a prepared dataset"
)
_BASE_DATASET = flags.DEFINE_string(
    "base_dataset",
    None,
    "dataset that task A is made of, where it is not that of task B; images are brought to the size of --dataset's",
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "folder of prepared TFDS datasets")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "where everything is written; default results/DATASET-SPLIT-RECIPE"
)
_SEEDS = flags.DEFINE_string(
    "seeds",
    None,
    "number of split seeds 0, 1, …, one pair of tasks each; default 4 for digits and the paper, else 1; auto: add one after "
    "another until every n is told to be specific, or general within --margin",
)
_MAX_SEEDS = flags.DEFINE_integer(
    "max_seeds", 16, "split seeds at most with --seeds=auto", 2, 10**4
)
_MARGIN = flags.DEFINE_float(
    "margin", 2.0, "points of accuracy that a general layer may lose, with --seeds=auto"
)
_TREATMENTS = flags.DEFINE_list(
    "treatments",
    None,
    "among base,BnB,BnB+,AnB,AnB+,RnB,PnB,PnB+; default all for digits, else all but RnB; base with --split=all",
)
_LAYERS = flags.DEFINE_list("layers", None, "values of n with commas; default 1 … depth − 1")
_PRESERVE = flags.DEFINE_list(
    "preserve", [], "1, 2 or 1,2: also networks with that many preserved layers"
)
_NETWORK = flags.DEFINE_string(
    "network",
    None,
    "a network of the package, or one's own as my_module:Net or path/to/file.py:Net; default by image size",
)
_NETWORK_LAYERS = flags.DEFINE_string(
    "network_layers",
    None,
    "FILE.json with the layers in order: a list of subtrees of the parameters, or an object from a layer's name to its "
    "subtrees; default the network's own",
)
_NETWORK_ARGS = flags.DEFINE_list(
    "network_args", [], "KEY=VALUE with commas: other arguments of the network, such as width=64"
)
_NORM = flags.DEFINE_enum(
    "norm", None, ["batch", "group"], "normalization of residual networks; default batch"
)
_PRETRAINED = flags.DEFINE_string(
    "pretrained",
    None,
    "weights for the treatments PnB and PnB+: an orbax folder, or a .safetensors, .npz or .msgpack file",
)
_RECIPE = flags.DEFINE_string("recipe", None, "training recipe; default by network")
_EPOCHS = flags.DEFINE_integer("epochs", None, "passes over the task; default the recipe's")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "images a step; default the recipe's")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", None, "default the recipe's")
_ITERATIONS = flags.DEFINE_integer(
    "iterations", None, "steps, in place of --epochs; default the recipe's"
)
_EVALUATE_STEPS = flags.DEFINE_integer(
    "evaluate_steps", None, "stream: steps between evaluations; default the recipe's"
)
_EVALUATE_EVERY = flags.DEFINE_integer(
    "evaluate_every", None, "epochs between evaluations; default 1"
)
_PRECISION = flags.DEFINE_string(
    "precision", None, "float32, bfloat16 or auto (bfloat16 on GPU and TPU)"
)
_MIRROR = flags.DEFINE_bool(
    "mirror", None, "mirror training images at random; default the recipe's"
)
_DROPOUT_IN_FROZEN = flags.DEFINE_bool(
    "dropout_in_frozen", None, "keep dropout inside frozen layers active; default the recipe's: yes"
)
#: Fields of the recipe that flags change.
_OF_RECIPE = {
    "epochs": _EPOCHS,
    "batch_size": _BATCH_SIZE,
    "iterations": _ITERATIONS,
    "evaluate_steps": _EVALUATE_STEPS,
    "learning_rate": _LEARNING_RATE,
    "evaluate_every": _EVALUATE_EVERY,
    "precision": _PRECISION,
    "mirror": _MIRROR,
    "dropout_in_frozen": _DROPOUT_IN_FROZEN,
}
_IMAGES_PER_CLASS = flags.DEFINE_list(
    "images_per_class",
    None,
    "train on the first so many images of each class; default 130 for digits, else all. With --split=all "
    "several numbers, a network for each; with --split=paper those of the reduced data sets",
)
_TARGET_IMAGES = flags.DEFINE_list(
    "target_images_per_class",
    [],
    "numbers with commas, such as 1,5,25,all: copies of the same bases, and networks from scratch, on targets with so "
    "many images of each class; default all",
)
_DIFFICULTY = flags.DEFINE_bool(
    "difficulty",
    False,
    "give both halves as many classes, drawn by split seed, and as many images of each: is one easier or only smaller?",
)
_HEAD = flags.DEFINE_enum(
    "head",
    None,
    ["task", "dataset"],
    "outputs: as many as the task has classes, or as the dataset has; default dataset with --recipe=paper, "
    "as the published networks, else task",
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "changes every random number but the splits'", lower_bound=0, upper_bound=2**32 - 1
)
_PLAN = flags.DEFINE_bool("plan", False, "print the plan and stop")
_EXTEND = flags.DEFINE_bool(
    "extend", False, "let --seeds, --treatments, --layers add to what the workdir has"
)
_REPLICAS = flags.DEFINE_string(
    "replicas", "auto", "networks trained together by one program: auto or a number"
)
_FEATURE_CACHE = flags.DEFINE_string(
    "feature_cache",
    "auto",
    "memory for outputs of frozen layers: auto (a quarter), off, or bytes a device",
)
_INPUT = flags.DEFINE_enum(
    "input",
    "auto",
    ["auto", "resident", "stream"],
    "resident: all images on the devices; stream: read while training, one network at a time; "
    "auto: resident if they fit a quarter of the memory",
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "stream: resize images to so many pixels a side; default 256 if sizes vary",
    lower_bound=1,
    upper_bound=4096,
)
_WORKERS = flags.DEFINE_integer(
    "workers",
    None,
    "stream: processes that read and decode; default the cores, 0 for threads",
    lower_bound=0,
    upper_bound=1024,
)
_SKIP_CORRUPT = flags.DEFINE_bool(
    "skip_corrupt", False, "stream: leave images out that cannot be read, instead of stopping"
)
_DISTRIBUTED = flags.DEFINE_enum(
    "distributed",
    "auto",
    ["auto", "on", "off"],
    "several hosts, each with this same command: auto looks at the flags below and at the cluster's "
    "environment",
)
_COORDINATOR_ADDRESS = flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of process 0, where the cluster does not say it itself"
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "number of processes, one a host")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "number of this process, from 0")
_COMPILE_CACHE = flags.DEFINE_string(
    "compile_cache",
    "auto",
    "folder for compiled programs: auto (.compile_cache beside the workdir; in the user's caches if that is in "
    "a bucket), off, or a folder",
)
_KEEP = flags.DEFINE_enum(
    "keep",
    "bases",
    ["bases", "all"],
    "whose parameters stay in the workdir: those of bases, or of all networks, which some measures need",
)
_REPORT = flags.DEFINE_bool(
    "report", True, "write report.html at the end and every few minutes on the way"
)
_CHECKPOINT_MINUTES = flags.DEFINE_float(
    "checkpoint_minutes", 5.0, "between saves of networks in training"
)


def main() -> None:
    """Parses, plans, trains, reports."""
    executing.check()
    machine.use_all_cores()
    _join()
    # Imported here: --help and flag errors should not wait for jax, and the cores must be set before it starts.
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
        if _PLAN.value:
            sweep.look()
            print(planning.describe(sweep, len(sweep.records)))
            print(planning.priced(sweep))
            if executing.elsewhere():
                print(executing.plan(sweep, *planning.seconds_per_flop(sweep)))
            return
        try:
            sweep = _train(sweep, display)
        except worker.Interrupted as e:
            _write(sweep)
            line = f"{e}; saved, start the same command again to go on"
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
    """Trains along with process 0."""
    from yosinski_jax.sweep import worker

    if _PLAN.value:
        return
    try:
        _train(sweep, None)
    except worker.Interrupted as e:
        sys.exit(128 + e.signum)


def _train(sweep, display):
    """Trains everything that is asked for; returns the sweep, which has more split seeds with --seeds=auto."""
    train = lambda sweep: sweep.run(executing.executor(sweep), executing.shard())
    if _SEEDS.value != "auto":
        train(sweep)
        return sweep
    from yosinski_jax.base.errors import UserError
    from yosinski_jax.commands import sequential

    if executing.shard() is not None:
        raise UserError(
            "--seeds=auto: does not go with --shard, whose plan all processes share; leave one out"
        )
    more = lambda seeds: requested(display, seeds)
    return sequential.run(sweep, train, more, _MAX_SEEDS.value, _MARGIN.value / 100)


def _page_on_the_way(folder: Path) -> None:
    from yosinski_jax.report import build

    if _REPORT.value:
        build.write_report(folder, running=True)


def _write(sweep) -> list[Path]:
    """Writes the results, Figure 2 and the page of what is recorded; returns their paths."""
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


def requested(display: Any = None, seeds: int | None = None) -> Any:
    """The `Sweep` that the flags ask for, told of by `display`; with `seeds` split seeds where --seeds=auto needs so many."""
    from yosinski_jax.data import dataset as data
    from yosinski_jax.networks import load
    from yosinski_jax.sweep import request

    open_ = lambda name: data.load(name, _DATA_DIR.value, seed=_SEED.value)
    dataset, choose = open_(_DATASET.value), None
    if _SEEDS.value == "auto":
        from yosinski_jax.commands import sequential

        margin = _MARGIN.value / 100
        choose = lambda folder, settings: (
            seeds or sequential.first(folder, settings, _MAX_SEEDS.value, margin)
        )
    trainer, fed_shape = _trainer(dataset)
    return request.sweep(
        dataset,
        _WORKDIR.value,
        network=_NETWORK.value,
        layers=load.read_layers(_NETWORK_LAYERS.value) if _NETWORK_LAYERS.value else None,
        network_args=_network_args(),
        norm=_NORM.value,
        head=_HEAD.value,
        base=_PRETRAINED.value,
        recipe_name=_RECIPE.value,
        changes={name: flag.value for name, flag in _OF_RECIPE.items()},
        base_dataset=open_(_BASE_DATASET.value) if _BASE_DATASET.value else None,
        fed_shape=fed_shape,
        images_per_class=cli.whole_numbers("images_per_class", _IMAGES_PER_CLASS.value or ()),
        compile_cache=_compile_cache(),
        grid={
            "split": _SPLIT.value, "seeds": _seeds(), "treatments": _TREATMENTS.value,
            "layers": cli.whole_numbers("layers", _LAYERS.value or ()),
            "preserve": cli.whole_numbers("preserve", _PRESERVE.value),
            "target_images": _target_images(), "difficulty": _DIFFICULTY.value, "seed": _SEED.value,
        },
        choose_seeds=choose,
        replicas=_replicas(),
        trainer=trainer,
        checkpoint_seconds=60 * _CHECKPOINT_MINUTES.value,
        display=display,
        command=_command(),
        extend=_EXTEND.value or seeds is not None,
        keep=_KEEP.value,
    )  # fmt: skip


def _command() -> str:
    """What was typed."""
    console = sys.argv[0].startswith("yosinski-jax ")
    program = sys.argv[0].split() if console else ["python", "-m", "experiments.sweep"]
    return shlex.join([*program, *sys.argv[1:]])


def _seeds() -> int | None:
    from yosinski_jax.base.errors import UserError

    if _SEEDS.value != "auto":
        cli.only_with("--seeds=auto", "max_seeds")
    if _SEEDS.value in (None, "auto"):
        return None
    try:
        return int(_SEEDS.value)
    except ValueError:
        raise UserError(f"--seeds={_SEEDS.value}: must be a whole number or auto") from None


def _target_images() -> tuple[int | None, ...]:
    given = _TARGET_IMAGES.value
    few = cli.whole_numbers("target_images_per_class", [count for count in given if count != "all"])
    return few + ((None,) if "all" in given else ())


def _network_args() -> dict[str, Any]:
    """KEY=VALUE pairs; a value is JSON if it can be read so, else text."""
    import json

    from yosinski_jax.base.errors import UserError

    found = {}
    for pair in _NETWORK_ARGS.value:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier() or key in found:
            raise UserError(
                f"--network_args={','.join(_NETWORK_ARGS.value)}: must be KEY=VALUE with commas between, each key once"
            )
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _trainer(dataset: Any) -> tuple[Any, tuple[int, ...]]:
    """What trains, as `Sweep` takes it, and the shape of the images that it gets."""
    import functools

    from yosinski_jax.base.errors import UserError
    from yosinski_jax.training.feeds import Streaming, fits_in_memory
    from yosinski_jax.training.trainer import Trainer

    streams, size = _INPUT.value == "stream", _IMAGE_SIZE.value
    if _INPUT.value == "resident":
        cli.only_with("--input=stream", "image_size", "workers", "skip_corrupt")
    if streams:
        cli.only_with("--input=resident", "feature_cache")
    if _INPUT.value == "auto":
        streams = bool(size) or not fits_in_memory(dataset)
    if not streams:
        if size or dataset.image_shape is None:
            raise UserError(
                f"--dataset={_DATASET.value}: images of one size are needed with --input=resident; "
                "prepare them with python -m experiments.prepare, or use --input=stream"
            )
        return functools.partial(Trainer, feature_bytes=_feature_bytes()), dataset.image_shape
    if dataset.image_shape is None:
        size = size or 256  # pixels, the paper's
    if size is not None and size < 1:
        raise UserError(f"--image_size={size}: must be at least 1")
    workers = machine.cores() if _WORKERS.value is None else _WORKERS.value
    if workers < 0:
        raise UserError(f"--workers={workers}: must be at least 0")
    trainer = functools.partial(Trainer, streaming=Streaming(workers, _SKIP_CORRUPT.value, size))
    shape = dataset.image_shape or dataset.train.image(0).shape
    return trainer, (size, size, *shape[2:]) if size else shape


def _replicas() -> int | None:
    value = _REPLICAS.value
    if value == "auto":
        return None
    return cli.whole_number("replicas", value, 1, 1 << 20, "auto")


def _feature_bytes() -> int:
    import jax

    value = _FEATURE_CACHE.value
    if value == "off":
        return 0
    if value == "auto":
        device = jax.local_devices()[0]
        shared = jax.local_device_count() if device.platform == "cpu" else 1
        return machine.memory() // shared // 4
    return cli.whole_number("feature_cache", value, 0, 1 << 50, "auto", "off")


def _compile_cache() -> Path | str | None:
    from yosinski_jax.base.errors import UserError
    from yosinski_jax.base.files import local_path

    value = _COMPILE_CACHE.value
    if value in ("off", "auto"):
        return "off" if value == "off" or _PLAN.value else None
    path = local_path(value, "--compile_cache", "leave it out to keep programs on this machine")
    if not _can_be_folder(path):
        raise UserError(
            f"--compile_cache={value}: must be a folder; choose another or leave it out"
        )
    return "off" if _PLAN.value else path


def _can_be_folder(path: Path) -> bool:
    try:
        there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        path.absolute().is_dir()
    except OSError:  # a name that is too long
        return False
    return there.is_dir()
