"""The whole study on your own network and arrays, in one function call."""

import contextlib
import functools
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import as_path
from yosinski_jax.base.progress import Progress
from yosinski_jax.data.dataset import Dataset, from_arrays, load
from yosinski_jax.networks.load import Layers
from yosinski_jax.result import StudyResult
from yosinski_jax.study.recipes import Recipe
from yosinski_jax.study.records import Record
from yosinski_jax.study.treatments import PRETRAINED, TREATMENTS
from yosinski_jax.sweep import programs, request
from yosinski_jax.sweep.feeding import Feeding
from yosinski_jax.sweep.runner import Display, Silent, Sweep
from yosinski_jax.sweep.worker import Interrupted


class Bar(Silent):
    """Shows on stderr how many networks of a sweep are finished: a bar on a terminal, an occasional line elsewhere."""

    def __init__(self):
        self._progress: Progress | None = None

    def plan(self, sweep: Sweep, done: int) -> None:
        """Starts counting the networks left to train."""
        self.close()
        left = len(sweep.planned) - done
        if left:
            self._progress = Progress(f"study of {sweep.settings.network}", left, "networks")
            self._progress.__enter__()

    def note(self, line: str) -> None:
        """Prints a line."""
        if self._progress:
            self._progress.note(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def recorded(self, sweep: Sweep, record: Record) -> None:
        """Counts a finished network and reports it if it diverged."""
        if record.status == "diverged":
            self.note(f"{record.id} diverged at step {record.diverged_at_step}")
        if self._progress:
            self._progress.advance()

    def close(self) -> None:
        """Restores the terminal."""
        if self._progress:
            self._progress.__exit__(None, None, None)
        self._progress = None


def transfer_sweep(
    network: Any,
    train_images: Any,
    train_labels: Any,
    test_images: Any,
    test_labels: Any,
    *,
    recipe: Recipe | str | None = None,
    layers: Layers | None = None,
    network_args: Mapping[str, Any] | None = None,
    label_names: Sequence[str] | None = None,
    split: str | Mapping[str, Sequence[str]] = "random",
    seeds: int | Sequence[int] | str = 4,
    max_seeds: int | None = None,
    margin: float | None = None,
    treatments: Sequence[str] | str | None = None,
    ns: Sequence[int] = (),
    preserve: Sequence[int] = (),
    images_per_class: int | Sequence[int] | None = None,
    target_images_per_class: Sequence[int | None] | int = (),
    difficulty: bool = False,
    base_dataset: str | Sequence[str] | Mapping[str, Sequence[Any]] | None = None,
    base: Any = None,
    validation: float | None = None,
    patience: int | None = None,
    tune_learning_rate: Sequence[float] = (),
    tune_treatments: Sequence[str] | str = (),
    optimizer: Any = None,
    optimizer_id: str | None = None,
    loss: Callable[..., Any] | None = None,
    loss_id: str | None = None,
    metric: Callable[..., Any] | None = None,
    metric_id: str | None = None,
    head: str | None = None,
    seed: int = 0,
    workdir: Path | str | None = None,
    compile_cache: Path | str | None = None,
    extend: bool = False,
    keep: str = "bases",
    name: str = "arrays",
    progress: bool = True,
    display: Display | None = None,
) -> StudyResult:
    """Runs the layer-transfer study on a linen or NNX network and arrays.

        import flax.linen as nn
        from sklearn.datasets import load_digits
        from yosinski_jax import Recipe, transfer_sweep

        class Net(nn.Module):
            classes: int

            @nn.compact
            def __call__(self, x):
                x = nn.relu(nn.Dense(64, name="fc1")(x.reshape(len(x), -1)))
                x = nn.relu(nn.Dense(64, name="fc2")(x))
                return nn.Dense(self.classes, name="fc3")(x)

        digits = load_digits()
        images = (digits.images[..., None] * 15).astype("uint8")
        study = transfer_sweep(
            Net, images[:1300], digits.target[:1300], images[1300:], digits.target[1300:],
            layers=["fc1", "fc2", "fc3"], seeds=1,
            recipe=Recipe("mine", learning_rate=0.05, batch_size=64, epochs=5),
        )
        print(study.table())

    On Ctrl-C it returns the networks finished so far; `extend()` on that result resumes training.

    Args:
      network: a linen or NNX class with an argument `classes` (or `num_classes`, `n_classes`,
        `num_outputs`), a function from the number of classes to a network, a module whose head
        has at least as many outputs as a half has classes, the name of a network of the package, or
        "path/to/file.py:Net". Called on float32 inputs [B, ...] (int32 where the data are tokens); see
        `Network` for the optional arguments `train`, `start` and `stop` of its `__call__`. Running
        statistics (BatchNorm) travel with their layer.
      train_images: [N, ...]; uint8 and uint16 pixels are scaled to −1 … 1 unless the recipe subtracts
        the mean; floats are used as they are; other integers are tokens.
      train_labels: [N] or [N, 1]: positions in `label_names`, or names.
      test_images: [M, ...], as `train_images`.
      test_labels: [M] or [M, 1].
      recipe: how every network is trained, or the name of a preset; the network's own if None.
      layers: the layers in order, as names or paths of subtrees of the parameters, or a mapping from a
        layer's name to the paths of its subtrees; the network's `layer_names` by default.
      network_args: other arguments of the network's class or function.
      label_names: names of all classes; the labels themselves by default.
      split: "random", "manmade_natural", "all" for networks on all classes, a JSON file, or
        {"A": [label, ...], "B": [...]}.
      seeds: number of split seeds, or a list of them; "auto" adds one at a time until the verdict on every n is
        conclusive: specific, or general within the margin.
      max_seeds: the most split seeds to use with seeds="auto"; 16 by default.
      margin: percentage points of accuracy that a general layer may lose, with seeds="auto"; 2 by default.
      treatments: names from `treatments.KNOWN`; base is always included. By default all, those of
        pretrained weights only if `base` is given.
      ns: values of n; by default 1 to one less than the number of layers.
      preserve: also train networks with this many preserved layers: 1, 2 or both.
      images_per_class: training images of each class, the first of each; all by default.
      target_images_per_class: train copies, and networks from scratch, on each of these numbers of images
        per target class; None in the list means all.
      difficulty: give both halves the same number of classes, and of images per class.
      base_dataset: train the bases of task A on other data, and copy them to task B of these arrays: names of
        datasets as `data.dataset.load` takes them, or {name: (train_images, train_labels, test_images,
        test_labels)}. Images are resized to match `train_images`; the page ranks several datasets.
      base: pretrained weights of the network, which the treatments PnB and PnB+ copy: a tree, or the
        path of an orbax folder or a .safetensors, .npz or .msgpack file.
      validation: fraction of each class's training images, such as 0.1, held out for early stopping and
        for tuning; drawn by split seed.
      patience: with `validation`: stop a network after this many evaluations without a better validation
        accuracy, and go back to its best. Test images are never used to choose.
      tune_learning_rate: with `validation`: learning rates, at each of which the networks of
        `tune_treatments` are trained; the one with the best validation accuracy is recorded, without
        retraining on the held-out images.
      tune_treatments: treatments whose learning rate is tuned; "RnB" if empty.
      optimizer: replaces the recipe's; see `Recipe.optimizer`.
      optimizer_id: its name in records and in the workdir's identity; plain functions are identified by
        their code.
      loss: see `Recipe.loss`.
      loss_id: like `optimizer_id`.
      metric: see `Recipe.metric`.
      metric_id: like `optimizer_id`.
      head: "task" for one output per class of the task, "dataset" for one per class of the dataset.
      seed: changes all random numbers except those of the splits.
      workdir: folder for records and checkpoints, from which a later call resumes; by default a temporary
        one that lives as long as the result.
      compile_cache: folder of compiled programs, reused by later calls and processes with equal shapes; "off"
        leaves jax as it is. By default jax's own if it has one (`jax_compilation_cache_dir`), else
        .compile_cache beside the workdir, or in the user's caches ($YOSINSKI_JAX_CACHE) without one.
      extend: whether seeds, treatments and ns may add to what the workdir has.
      keep: "bases", or "all" to keep the parameters of copies too.
      name: name of the data in the records.
      progress: whether to show progress on stderr.
      display: receives the progress instead.

    Returns:
      The study: a sequence of records, with its tables, figures and report page.

    Raises:
      UserError: arrays, labels, layers, split, batch size or workdir do not fit; says what to do.
    """
    arguments = locals()
    dataset = from_arrays(name, train_images, train_labels, test_images, test_labels, label_names)
    temporary = None if workdir else tempfile.TemporaryDirectory()
    folder = as_path(workdir or temporary.name)  # pyright: ignore[reportOptionalMemberAccess]
    few = target_images_per_class
    few = [few] if isinstance(few, int) else few
    if treatments is None and str(split) != "all":
        treatments = TREATMENTS + (PRETRAINED if base is not None else ())
    auto = _rule(seeds, max_seeds, margin)
    sweeps: list[Sweep] = []
    with programs.left_as_found(), contextlib.closing(Bar()) as bar:
        programs.keep(None if temporary else folder, compile_cache)
        ask = functools.partial(
            request.sweep,
            dataset,
            folder,
            network=network,
            layers=layers,
            network_args=network_args,
            head=head,
            base=base,
            recipe_name=recipe,
            changes={
                "optimizer": optimizer, "optimizer_id": optimizer_id, "loss": loss, "loss_id": loss_id,
                "metric": metric, "metric_id": metric_id, "validation": validation, "patience": patience,
            },
            base_datasets=_base_datasets(base_dataset),
            images_per_class=images_per_class,
            compile_cache="off",
            grid={
                "split": split, "seeds": None if auto else seeds, "treatments": treatments, "layers": ns,
                "preserve": preserve, "target_images": few, "difficulty": difficulty, "seed": seed,
                "tune_learning_rate": tune_learning_rate, "tune_treatments": tune_treatments,
            },
            feeding=Feeding("resident", feature_cache=2**30),
            display=display or (bar if progress else None),
            keep=keep,
        )  # fmt: skip

        def asked(**more: Any) -> Sweep:
            sweeps.append(ask(**more))
            return sweeps[-1]

        try:
            _train(asked, extend, auto)
        except Interrupted as e:
            if e.signum != signal.SIGINT:
                sys.exit(128 + e.signum)
            finished, planned = len(sweeps[-1].records), len(sweeps[-1].planned)
            print(f"{e}; {finished} of {planned} networks are finished", file=sys.stderr)
    sweep = sweeps[-1]
    finished = [sweep.records[p.id] for p in sweep.planned if p.id in sweep.records]
    again = functools.partial(_again, arguments | {"workdir": folder}, temporary)
    return StudyResult(finished, folder, again, functools.partial(_bench, sweep), temporary)


def _base_datasets(given: Any) -> list[Dataset]:
    """The given datasets, by name: loaded ones, or ones made of arrays."""
    if isinstance(given, Mapping):
        wrong = [name for name, arrays in given.items() if len(arrays) not in (4, 5)]
        if wrong:
            raise UserError(
                f"base_dataset={{{wrong[0]!r}: …}}: {len(given[wrong[0]])} arrays; expected train_images, train_labels, "
                "test_images and test_labels, and perhaps label_names"
            )
        return [from_arrays(name, *arrays) for name, arrays in given.items()]
    names = [given] if isinstance(given, str) else given or ()
    return [load(name, argument="base_dataset") for name in names]


def _train(ask: Callable[..., Sweep], extend: bool, auto: tuple[int, float] | None) -> None:
    """Trains the study, or a series of studies with one more split seed each until the rule stops it."""
    if auto is None:
        ask(extend=extend).run()
        return
    from yosinski_jax import seeds  # brings scipy.stats

    first = lambda folder, settings: seeds.first(folder, settings, *auto)
    more = lambda count: ask(extend=True, choose_seeds=lambda *_: count)
    seeds.run(ask(extend=extend, choose_seeds=first), Sweep.run, more, *auto)


def _rule(seeds: Any, max_seeds: int | None, margin: float | None) -> tuple[int, float] | None:
    """With seeds="auto": the most split seeds, and the largest drop that counts as general, 0 … 1."""
    given = {"max_seeds": max_seeds, "margin": margin}
    if isinstance(seeds, str) and seeds == "auto":
        return 16 if max_seeds is None else max_seeds, (2.0 if margin is None else margin) / 100
    if isinstance(seeds, str):
        raise UserError(f"seeds={seeds}: must be a number of split seeds, a list of them, or auto")
    for name, value in given.items():
        if value is not None:
            raise UserError(
                f"{name}={value:g}: only works with seeds=auto; add that or leave this out"
            )
    return None


def _again(arguments: Mapping[str, Any], temporary: Any, **changes: Any) -> StudyResult:
    """The same study with more seeds, treatments or n, in the same workdir."""
    unknown = [key for key in changes if key not in arguments]
    if unknown:
        raise UserError(
            f"{unknown[0]}={changes[unknown[0]]}: is not an argument of transfer_sweep; see its documentation"
        )
    if changes.get("seeds", "auto") != "auto":  # a number takes the place of the rule
        changes = {"max_seeds": None, "margin": None} | changes
    grown = transfer_sweep(**{**arguments, "extend": True, **changes})
    again = functools.partial(_again, {**arguments, **changes}, temporary)
    return StudyResult(grown, grown.workdir, again, grown.bench, temporary)


def _bench(sweep: Sweep, **options: Any) -> Any:
    """The `Bench` on which measures run a sweep's networks."""
    from yosinski_jax.measures.subject import Bench

    network, settings = sweep.trainer(sweep.planned[0]).network, sweep.settings
    return Bench(
        sweep.dataset, network, settings.recipe, seed=settings.seed, folder=sweep.folder, **options
    )
