"""The whole CIFAR-10 sweep against the same sweep in plain PyTorch.

Both get the same images, classes, epochs, batch size, learning rate and one evaluation at the end.
Times are those of whole processes: imports, reading the images, compilation, evaluation, records,
table and first figure; not the report page, which the peer has nothing like.
"""

import dataclasses
import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks import measure, subset
from yosinski_jax.base.errors import UserError
from yosinski_jax.data.dataset import Dataset

#: Networks × epochs × training images of the whole study with 20 epochs.
FULL = (20, 25_000)


@dataclasses.dataclass(frozen=True)
class Peer:
    """How to start a PyTorch script.

    Attributes:
        script: its path.
        python: an interpreter that has torch.
        options: further flags of the script.
        needs: modules that it imports, with commas between.
    """

    script: str
    python: str
    options: tuple[str, ...] = ()
    needs: str = "torch, numpy"

    def missing(self) -> str | None:
        """Why it cannot run, in a line; None if it can."""
        if not Path(self.script).is_file():
            return f"--peer={self.script}: does not exist"
        try:
            measure.process([self.python, "-c", f"import {self.needs}"])
        except UserError as e:
            return f"--torch_python={self.python}: lacks one of {self.needs} ({e})"
        return None


@dataclasses.dataclass(frozen=True)
class Task:
    """What both train.

    Attributes:
        epochs: budgets to measure; with several, the cost of the whole study is extrapolated.
        batch_size: images a step.
        learning_rate: of the kernels and biases.
        train_per_class: training images of each class; None for all.
        test_per_class: test images of each class; None for all.
        bases: train the two bases alone.
    """

    epochs: tuple[int, ...]
    batch_size: int = 128
    learning_rate: float = 0.01
    train_per_class: int | None = None
    test_per_class: int | None = None
    bases: bool = False


def run(
    dataset: Dataset,
    task: Task,
    peer: Peer | None,
    *,
    rounds: int,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Runs both sweeps in turns, every round with another seed and split.

    Args:
        dataset: CIFAR-10, or what has ten classes and its images' size.
        task: what to train.
        peer: the PyTorch sweep; None to run ours alone.
        rounds: runs of each.
        options: further flags of our sweep.
        env: environment variables of both.
    """
    runs: list[dict] = []
    with measure.folder() as folder:
        directory, archive = subset.write(
            dataset, folder, task.train_per_class, task.test_per_class
        )
        for epochs in task.epochs:
            ours = _Ours(dataset, directory, folder, task, epochs, tuple(options), env)
            theirs = _Theirs(archive, task, epochs, peer, env) if peer else None
            found = {"ours": ours} | ({"theirs": theirs} if theirs else {})
            seconds = measure.in_turns({who: one.run for who, one in found.items()}, rounds)
            for who, one in found.items():
                runs.append(
                    {
                        "who": who,
                        "epochs": epochs,
                        "seconds": seconds[who],
                        "ratio": seconds["theirs"] / seconds[who] if theirs else None,
                        "peak_bytes": measure.Spread(tuple(one.peaks)),
                        "accuracy": one.accuracy,
                        "command": one.command,
                    }
                )
    images = len(subset.first_of_each(dataset.train.labels, task.train_per_class)) // 2
    whole = None if task.bases else _whole_study(runs, images)
    return {"train_images": images, "runs": runs, "whole_study": whole}


class _Ours:
    def __init__(self, dataset, directory, folder, task, epochs, options, env):
        self.accuracy: dict[str, list[float]] = {}
        self.peaks: list[int] = []
        self.env, self._folder, self._names = env, folder, dataset.label_names
        self._epochs = epochs
        self.command = measure.sweep_command(
            f"--dataset={directory}", "--network=cifar5_torch", "--recipe=cifar", "--precision=float32",
            f"--epochs={epochs}", f"--evaluate_every={epochs}", f"--batch_size={task.batch_size}",
            f"--learning_rate={task.learning_rate}", "--seeds=1", "--noreport",
            *(["--treatments=base"] if task.bases else []), *options,
        )  # fmt: skip

    def run(self) -> float:
        seed = len(self.peaks)
        name = f"ours-{self._epochs}-{seed}"
        split = self._folder / f"{name}.json"
        split.write_text(json.dumps(halves(self._names, seed)))
        workdir = self._folder / name
        done = measure.process(
            [
                *self.command, f"--split={split}", f"--seed={seed}", f"--workdir={workdir}",
                f"--compile_cache={self._folder / f'cache-{name}'}",
            ],
            self.env,
        )  # fmt: skip
        for path in sorted((workdir / "records").glob("*/*.json")):
            record = json.loads(path.read_text())
            self.accuracy.setdefault(record["name"], []).append(record["accuracy"])
        self.peaks.append(done.peak_bytes)
        return done.seconds


class _Theirs:
    def __init__(self, archive, task, epochs, peer, env):
        self.accuracy: dict[str, list[float]] = {}
        self.peaks: list[int] = []
        self.env, self._bases = env, task.bases
        self.command = [
            peer.python, peer.script, f"--npz={archive}", f"--epochs={epochs}",
            f"--batch={task.batch_size}", f"--lr={task.learning_rate}", *peer.options,
        ]  # fmt: skip

    def run(self) -> float:
        command = [*self.command, f"--seed={len(self.peaks)}"]
        # Its bases come first and it has no flag for them alone.
        done = (
            measure.first_lines(command, 2, self.env)
            if self._bases
            else measure.process(command, self.env)
        )
        for line in done.out.splitlines():
            row = json.loads(line)
            if "network" in row:
                self.accuracy.setdefault(row["network"], []).append(row["accuracy"])
        self.peaks.append(done.peak_bytes)
        return done.seconds


def halves(names: Sequence[str], seed: int) -> dict[str, list[str]]:
    """The classes of A and B that the peer takes for a seed, as our split file."""
    order = [int(i) for i in np.random.RandomState([seed]).permutation(len(names))]
    half = len(names) // 2
    parts = {"A": sorted(order[:half]), "B": sorted(order[half:])}
    return {which: [names[i] for i in part] for which, part in parts.items()}


def _whole_study(runs: list[dict], images: int) -> dict[str, float] | None:
    """Seconds of the whole study, on a straight line through the medians of two budgets."""
    found = {}
    for who in ("ours", "theirs"):
        points = [(r["epochs"] * images, r["seconds"].median) for r in runs if r["who"] == who]
        if len(points) < 2:
            continue
        slope, fixed = np.polyfit([x for x, _ in points], [y for _, y in points], 1)
        found[f"{who}_fixed"] = float(fixed)
        found[who] = float(fixed + slope * FULL[0] * FULL[1])
    if "ours" in found and "theirs" in found:
        found["ratio"] = found["theirs"] / found["ours"]
    return found or None


def show(result: Mapping[str, Any]) -> str:
    """Times, then the accuracies of both side by side."""
    cells = [
        (
            run["who"],
            str(run["epochs"]),
            run["seconds"].text(".1f"),
            run["ratio"].text(".2f") if run["ratio"] else "",
            (run["peak_bytes"] * 1e-6).text(),
        )
        for run in result["runs"]
    ]
    header = ("sweep", "epochs", "seconds", "times as fast as theirs", "peak memory, MB")
    lines = [
        f"tasks of {result['train_images']:,} training images",
        measure.table(header, cells),
    ]
    whole = result["whole_study"]
    if whole:
        rounded = ", ".join(f"{name} {value:,.2f}" for name, value in whole.items())
        lines.append(
            f"whole study, {FULL[0]} epochs of {FULL[1]:,} images, extrapolated: {rounded}"
        )
    for epochs in dict.fromkeys(run["epochs"] for run in result["runs"]):
        tables = {r["who"]: r["accuracy"] for r in result["runs"] if r["epochs"] == epochs}
        lines += ["", f"test accuracy in %, {epochs} epochs", _accuracies(tables)]
    commands = {shlex.join(map(str, run["command"])) for run in result["runs"]}
    return "\n".join([*lines, "", *sorted(commands)])


def _accuracies(tables: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Mean ± standard deviation over seeds, and the difference with its standard error."""
    cells = []
    peers = tables.get("theirs", {})
    for name in [*peers, *(tables["ours"].keys() - peers.keys())]:
        ours, theirs = tables["ours"].get(name, ()), peers.get(name, ())
        difference = ""
        if len(theirs) == len(ours) and all(x is not None for x in ours):
            gaps = [100 * (a - b) for a, b in zip(ours, theirs, strict=True)]
            difference = f"{statistics.mean(gaps):+.1f}"
            if len(gaps) > 1:
                difference += f" ± {statistics.stdev(gaps) / len(gaps) ** 0.5:.1f}"
        cells.append((name, _percent(ours), _percent(theirs), difference))
    header = ("network", "ours", "theirs", "difference ± standard error")
    return measure.table(header, cells)


def _percent(values: Sequence[float | None]) -> str:
    known = [100 * v for v in values if v is not None]
    if not known:
        return ""
    spread = f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.1f}{spread}"
