"""The whole CIFAR-10 sweep against the same sweep in plain PyTorch.

Both get the same images, classes, epochs, batch size, learning rate and one evaluation at the end.
Times are those of whole processes: imports, reading the images, compilation, evaluation, records,
table and first figure; not the report page, which the peer does not have.
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
from experiments.benchmarks.measure import Finished, Spread
from yosinski_jax.base.errors import UserError
from yosinski_jax.data.dataset import Dataset, make_task

#: Epochs and training images of the full study, to which times are extrapolated.
FULL = (20, 25_000)


@dataclasses.dataclass(frozen=True)
class Peer:
    """How to start a PyTorch script.

    Attributes:
        script: its path.
        python: an interpreter with torch.
        options: extra flags of the script.
        needs: comma-separated modules that it imports.
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
        epochs: budgets to measure; with several, the cost of the full study is extrapolated.
        batch_size: images per step.
        learning_rate: of kernels and biases.
        train_per_class: training images per class; None for all.
        test_per_class: test images per class; None for all.
        bases: train only the two bases.
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
        dataset: CIFAR-10, or another of ten classes and the same image size.
        task: what to train.
        peer: the PyTorch sweep; None to run only ours.
        rounds: runs of each.
        options: extra flags of our sweep.
        env: environment variables of both.
    """
    runs: list[dict] = []
    with measure.folder() as folder:
        directory, archive = subset.write(
            dataset, folder, task.train_per_class, task.test_per_class
        )
        for epochs in task.epochs:
            commands = {"ours": _ours(task, epochs, directory, options)}
            if peer:
                commands["theirs"] = _theirs(task, epochs, archive, peer)

            def once(who: str, seed: int, epochs=epochs, commands=commands) -> Finished:
                if who == "ours":
                    workdir = folder / f"ours-{epochs}-{seed}"
                    return _run_ours(commands[who], workdir, dataset.label_names, seed, env)
                command = [*commands[who], f"--seed={seed}"]
                if task.bases:  # its bases come first, and it has no flag to train only them
                    return measure.until(command, lambda lines: len(lines) == 2, env)
                return measure.process(command, env)

            done = measure.in_turns(commands, once, rounds)
            seconds = {who: Spread.of(found, "seconds") for who, found in done.items()}
            for who, found in done.items():
                runs.append(
                    {
                        "who": who,
                        "epochs": epochs,
                        "seconds": seconds[who],
                        "ratio": seconds["theirs"] / seconds[who] if peer else None,
                        "peak_bytes": Spread.of(found, "peak_bytes"),
                        "accuracy": _accuracy(found),
                        "command": commands[who],
                    }
                )
    images = len(make_task(dataset, dataset.label_names, task.train_per_class).train_index) // 2
    whole = None if task.bases else _whole_study(runs, images)
    return {"train_images": images, "runs": runs, "whole_study": whole}


def _ours(task: Task, epochs: int, directory: Path, options: Sequence[str]) -> list[str]:
    return measure.sweep_command(
        f"--dataset={directory}", "--network=cifar5_torch", "--recipe=cifar", "--precision=float32",
        f"--epochs={epochs}", f"--evaluate_every={epochs}", f"--batch_size={task.batch_size}",
        f"--learning_rate={task.learning_rate}", "--seeds=1", "--noreport",
        *(["--treatments=base"] if task.bases else []), *options,
    )  # fmt: skip


def _theirs(task: Task, epochs: int, archive: Path, peer: Peer) -> list[str]:
    return [
        peer.python, peer.script, f"--npz={archive}", f"--epochs={epochs}",
        f"--batch={task.batch_size}", f"--lr={task.learning_rate}", *peer.options,
    ]  # fmt: skip


def _run_ours(command, workdir: Path, names: Sequence[str], seed: int, env) -> Finished:
    """Runs our sweep on the peer's split; its output becomes lines like the peer's."""
    split = workdir.with_suffix(".json")
    split.write_text(json.dumps(halves(names, seed)))
    places = [f"--split={split}", f"--workdir={workdir}", f"--compile_cache={workdir}.cache"]
    done = measure.process([*command, f"--seed={seed}", *places], env)
    records = [json.loads(p.read_text()) for p in sorted((workdir / "records").glob("*/*.json"))]
    lines = [json.dumps({"network": r["name"], "accuracy": r["accuracy"]}) for r in records]
    return dataclasses.replace(done, out="\n".join(lines))


def _accuracy(runs: Sequence[Finished]) -> dict[str, list[float]]:
    """Test accuracies of the runs by network."""
    found: dict[str, list[float]] = {}
    for row in (json.loads(line) for one in runs for line in one.out.splitlines()):
        if "network" in row:
            found.setdefault(row["network"], []).append(row["accuracy"])
    return found


def halves(names: Sequence[str], seed: int) -> dict[str, list[str]]:
    """The classes of A and B that the peer draws from a seed, as our split file."""
    order = [int(i) for i in np.random.RandomState([seed]).permutation(len(names))]
    half = len(names) // 2
    parts = {"A": sorted(order[:half]), "B": sorted(order[half:])}
    return {which: [names[i] for i in part] for which, part in parts.items()}


def _whole_study(runs: list[dict], images: int) -> dict[str, float] | None:
    """Seconds of the full study, on a straight line through the medians of two budgets."""
    found = {}
    for who in ("ours", "theirs"):
        points = [(r["epochs"] * images, r["seconds"].median) for r in runs if r["who"] == who]
        if len(points) < 2:
            continue
        images_seen, seconds = zip(*points, strict=True)
        slope, fixed = np.polyfit(images_seen, seconds, 1)
        found[f"{who}_fixed"] = float(fixed)
        found[who] = float(fixed + slope * FULL[0] * FULL[1])
    if "ours" in found and "theirs" in found:
        found["ratio"] = found["theirs"] / found["ours"]
    return found or None


def show(result: Mapping[str, Any]) -> str:
    """Times, then the accuracies of both side by side."""
    columns = {
        "sweep": "{who}",
        "epochs": "{epochs}",
        "seconds": "{seconds:.1f}",
        "times as fast as theirs": "{ratio:.2f}",
        "peak memory, MB": "{peak_bytes.mega}",
    }
    lines = [
        f"tasks of {result['train_images']:,} training images",
        measure.table(result["runs"], columns),
    ]
    whole = result["whole_study"]
    if whole:
        rounded = ", ".join(f"{name} {value:,.2f}" for name, value in whole.items())
        lines.append(f"full study, {FULL[0]} epochs of {FULL[1]:,} images, extrapolated: {rounded}")
    for epochs in dict.fromkeys(run["epochs"] for run in result["runs"]):
        tables = {r["who"]: r["accuracy"] for r in result["runs"] if r["epochs"] == epochs}
        lines += ["", f"test accuracy in %, {epochs} epochs", _accuracies(tables)]
    commands = {shlex.join(map(str, run["command"])) for run in result["runs"]}
    return "\n".join([*lines, "", *sorted(commands)])


def _accuracies(tables: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Mean ± standard deviation over seeds, and the difference with its standard error."""
    rows, peers = [], tables.get("theirs", {})
    for name in [*peers, *(tables["ours"].keys() - peers.keys())]:
        ours, theirs = tables["ours"].get(name, ()), peers.get(name, ())
        difference = ""
        if len(theirs) == len(ours) and all(x is not None for x in ours):
            gaps = [100 * (a - b) for a, b in zip(ours, theirs, strict=True)]
            difference = f"{statistics.mean(gaps):+.1f}"
            if len(gaps) > 1:
                difference += f" ± {statistics.stdev(gaps) / len(gaps) ** 0.5:.1f}"
        shown = {"ours": _percent(ours), "theirs": _percent(theirs)}
        rows.append({"network": name, **shown, "difference ± standard error": difference})
    headings = ("network", "ours", "theirs", "difference ± standard error")
    return measure.table(rows, {heading: f"{{{heading}}}" for heading in headings})


def _percent(values: Sequence[float | None]) -> str:
    known = [100 * v for v in values if v is not None]
    if not known:
        return ""
    spread = f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.1f}{spread}"
