"""The flags that define a sweep and its training, and the `Sweep` built from them."""

import functools
import shlex
import sys
from pathlib import Path
from typing import Any

from absl import flags

from yosinski_jax.base.errors import UserError
from yosinski_jax.commands import cli

_SPLIT = flags.DEFINE_string(
    "split",
    None,
    "how classes are split into A and B: random, manmade_natural, or FILE.json with your own; all: no split, "
    "networks on all classes; paper: all 163 networks of the paper. Default random; paper with --recipe=paper",
)
_DATASET = flags.DEFINE_string(
    "dataset",
    "digits",
    "digits, a TFDS name such as cifar10, the folder of a prepared dataset, or FILE.npz with your own images",
)
_BASE_DATASET = flags.DEFINE_list(
    "base_dataset",
    None,
    "dataset for task A, if not the same as for task B; images are resized to match --dataset's. "
    "Several separated by commas, --dataset itself too: the page ranks them by transfer",
)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "folder of prepared TFDS datasets")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "folder for all output; default results/DATASET-SPLIT-RECIPE"
)
_SEEDS = flags.DEFINE_string(
    "seeds",
    None,
    "number of split seeds 0, 1, …, each another pair of random halves or, of other splits, the same pair trained "
    "again; default 4 for digits and the paper, else 1; auto: add one after another until the verdict on every n is "
    "conclusive: specific, or general within --margin",
)
_MAX_SEEDS = flags.DEFINE_integer(
    "max_seeds", 16, "the most split seeds to use with --seeds=auto", 2, 10**4
)
_MARGIN = flags.DEFINE_float(
    "margin", 2.0, "points of accuracy that a general layer may lose, with --seeds=auto"
)
_TREATMENTS = flags.DEFINE_list(
    "treatments",
    None,
    "any of base,BnB,BnB+,AnB,AnB+,RnB,PnB,PnB+; default all for digits, else all but RnB; base with --split=all",
)
_LAYERS = flags.DEFINE_list(
    "layers", None, "values of n, separated by commas; default 1 … depth − 1"
)
_PRESERVE = flags.DEFINE_list(
    "preserve", [], "1, 2 or 1,2: also networks with that many preserved layers"
)
_NETWORK = flags.DEFINE_string(
    "network",
    None,
    "a network of the package, or your own as my_module:Net or path/to/file.py:Net; default by image size",
)
_NETWORK_LAYERS = flags.DEFINE_string(
    "network_layers",
    None,
    "FILE.json with the layers in order: a list of subtrees of the parameters, or an object from a layer's name to its "
    "subtrees; default the network's own",
)
_NETWORK_ARGS = flags.DEFINE_list(
    "network_args", [], "KEY=VALUE,…: further arguments of the network, such as width=64"
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
#: Fields of the recipe that flags change.
_OF_RECIPE = {
    name: kind(name, None, text)
    for name, kind, text in (
        ("epochs", flags.DEFINE_integer, "passes over the task; default the recipe's"),
        ("batch_size", flags.DEFINE_integer, "images per step; default the recipe's"),
        ("learning_rate", flags.DEFINE_float, "default the recipe's"),
        ("iterations", flags.DEFINE_integer, "steps, in place of --epochs; default the recipe's"),
        ("evaluate_steps", flags.DEFINE_integer, "stream: steps between evaluations; default the recipe's"),
        ("evaluate_every", flags.DEFINE_integer, "epochs between evaluations; default 1"),
        ("validation", flags.DEFINE_float,
         "fraction of each class's training images, such as 0.1, to hold out for early stopping and for tuning"),
        ("patience", flags.DEFINE_integer,
         "with --validation: stop a network after this many evaluations without a better validation accuracy, and go back "
         "to its best; default: train to the end"),
        ("precision", flags.DEFINE_string, "float32, bfloat16 or auto (bfloat16 on GPU and TPU)"),
        ("mirror", flags.DEFINE_bool, "mirror training images at random; default the recipe's"),
        ("dropout_in_frozen", flags.DEFINE_bool, "keep dropout inside frozen layers active; default the recipe's: yes"),
    )
}  # fmt: skip
_TUNE_LEARNING_RATE = flags.DEFINE_list(
    "tune_learning_rate",
    [],
    "with --validation: comma-separated rates, such as 0.1,0.03,0.01; networks of --tune_treatments are trained at each, and the "
    "one with the best validation accuracy is recorded",
)
_TUNE_TREATMENTS = flags.DEFINE_list(
    "tune_treatments", [], "treatments whose rate --tune_learning_rate chooses; default RnB"
)
_IMAGES_PER_CLASS = flags.DEFINE_list(
    "images_per_class",
    None,
    "train on this many images of each class, the first ones; default 130 for digits, else all. With --split=all "
    "several numbers, a network for each; with --split=paper those of the reduced data sets",
)
_TARGET_IMAGES = flags.DEFINE_list(
    "target_images_per_class",
    [],
    "comma-separated numbers, such as 1,5,25,all: train copies of the same bases, and networks from scratch, on targets "
    "with this many images per class; default all",
)
_DIFFICULTY = flags.DEFINE_bool(
    "difficulty",
    False,
    "give both halves the same number of classes, drawn by split seed, and of images per class: is one easier or only smaller?",
)
_HEAD = flags.DEFINE_enum(
    "head",
    None,
    ["task", "dataset"],
    "outputs: one per class of the task, or of the dataset; default dataset with --recipe=paper, as in the "
    "published networks, else task",
)
_SEED = flags.DEFINE_integer(
    "seed",
    0,
    "changes every random number except the splits'",
    lower_bound=0,
    upper_bound=2**32 - 1,
)
PLAN = flags.DEFINE_bool("plan", False, "print the plan and stop")
_EXTEND = flags.DEFINE_bool(
    "extend", False, "let --seeds, --treatments and --layers add to what the workdir already has"
)
_REPLICAS = flags.DEFINE_string(
    "replicas", "auto", "networks trained together in one program: auto or a number"
)
_FEATURE_CACHE = flags.DEFINE_string(
    "feature_cache",
    "auto",
    "memory for cached outputs of frozen layers: auto (a quarter), off, or bytes per device",
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
    "stream: resize images to this many pixels per side; default 256 if sizes vary",
    lower_bound=1,
    upper_bound=4096,
)
_WORKERS = flags.DEFINE_integer(
    "workers",
    None,
    "stream: processes that read and decode; default one per core, 0 for threads",
    lower_bound=0,
    upper_bound=1024,
)
_SKIP_CORRUPT = flags.DEFINE_bool(
    "skip_corrupt", False, "stream: skip unreadable images instead of stopping"
)
_COMPILE_CACHE = flags.DEFINE_string(
    "compile_cache",
    "auto",
    "folder for compiled programs: auto ($JAX_COMPILATION_CACHE_DIR, else .compile_cache beside the workdir; in the user's "
    "caches if that is in a bucket), off, or a folder",
)
_KEEP = flags.DEFINE_enum(
    "keep",
    "bases",
    ["bases", "all"],
    "which parameters to keep in the workdir: those of bases, or of all networks, which some measures need",
)
_CHECKPOINT_MINUTES = flags.DEFINE_float(
    "checkpoint_minutes", 5.0, "minutes between saves of networks in training"
)


def requested(display: Any = None, seeds: int | None = None) -> Any:
    """The `Sweep` that the flags define, shown by `display`; with `seeds` split seeds if --seeds=auto needs that many."""
    from yosinski_jax.data import dataset as data
    from yosinski_jax.networks import load
    from yosinski_jax.study.settings import MOST_SEEDS
    from yosinski_jax.sweep import request
    from yosinski_jax.sweep.feeding import Feeding

    open_ = functools.partial(data.load, data_dir=_DATA_DIR.value, seed=_SEED.value)
    choose, auto = None, rule()
    if auto:
        from yosinski_jax.seeds import first

        choose = lambda folder, settings: seeds or first(folder, settings, *auto)
    return request.sweep(
        open_(_DATASET.value),
        _WORKDIR.value,
        network=_NETWORK.value,
        layers=load.read_layers(_NETWORK_LAYERS.value) if _NETWORK_LAYERS.value else None,
        network_args=_network_args(),
        norm=_NORM.value,
        head=_HEAD.value,
        base=_PRETRAINED.value,
        recipe_name=_RECIPE.value,
        changes={name: flag.value for name, flag in _OF_RECIPE.items()},
        base_datasets=[
            open_(name, argument="base_dataset") for name in _BASE_DATASET.value or ()
        ],
        feeding=Feeding(
            _INPUT.value, _IMAGE_SIZE.value, _WORKERS.value, _SKIP_CORRUPT.value,
            cli.whole_number("feature_cache", _FEATURE_CACHE.value, 0, 1 << 50, auto=None, off=0),
        ),
        images_per_class=cli.whole_numbers("images_per_class", _IMAGES_PER_CLASS.value or ()),
        compile_cache=_compile_cache(),
        grid={
            "split": _SPLIT.value, "treatments": _TREATMENTS.value,
            "seeds": cli.whole_number("seeds", _SEEDS.value, 1, MOST_SEEDS, auto=None),
            "layers": cli.whole_numbers("layers", _LAYERS.value or ()),
            "preserve": cli.whole_numbers("preserve", _PRESERVE.value),
            "target_images": _target_images(), "difficulty": _DIFFICULTY.value, "seed": _SEED.value,
            "tune_learning_rate": cli.numbers("tune_learning_rate", _TUNE_LEARNING_RATE.value),
            "tune_treatments": _TUNE_TREATMENTS.value,
        },
        choose_seeds=choose,
        replicas=cli.whole_number("replicas", _REPLICAS.value, 1, 1 << 20, auto=None),
        checkpoint_seconds=60 * _CHECKPOINT_MINUTES.value,
        display=display,
        command=_command(),
        extend=_EXTEND.value or seeds is not None,
        keep=_KEEP.value,
    )  # fmt: skip


def rule() -> tuple[int, float] | None:
    """With --seeds=auto: the most split seeds, and the largest drop that counts as general, 0 … 1."""
    if _SEEDS.value == "auto":
        return _MAX_SEEDS.value, _MARGIN.value / 100
    cli.only_with("--seeds=auto", "max_seeds", "margin")
    return None


def _command() -> str:
    """The command line as typed."""
    console = sys.argv[0].startswith("yosinski-jax ")
    program = sys.argv[0].split() if console else ["python", "-m", "experiments.sweep"]
    return shlex.join([*program, *sys.argv[1:]])


def _target_images() -> tuple[int | None, ...]:
    given = _TARGET_IMAGES.value
    few = cli.whole_numbers("target_images_per_class", [count for count in given if count != "all"])
    return few + ((None,) if "all" in given else ())


def _network_args() -> dict[str, Any]:
    """KEY=VALUE pairs; a value is parsed as JSON if possible, else kept as text."""
    import json

    found = {}
    for pair in _NETWORK_ARGS.value:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier() or key in found:
            raise UserError(
                f"--network_args={','.join(_NETWORK_ARGS.value)}: must be KEY=VALUE pairs separated by commas, each key once"
            )
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _compile_cache() -> Path | str | None:
    from yosinski_jax.base.files import local_path

    value = _COMPILE_CACHE.value
    if value in ("off", "auto"):
        return "off" if value == "off" or PLAN.value else None
    path = local_path(value, "--compile_cache", "leave it out to keep programs on this machine")
    try:
        there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists()).is_dir()
    except OSError:  # a name that is too long
        there = False
    if not there:
        raise UserError(
            f"--compile_cache={value}: must be a folder; choose another or leave it out"
        )
    return "off" if PLAN.value else path
