r"""Measures each layer of a finished sweep's bases: probes, similarity, transferability scores, stitching and others.

  python -m experiments.measure --workdir=results/digits-random-digits
      every measure that needs only what the sweep kept
  python -m experiments.measure --workdir=DIR --data_dir=DIR --measures=probe,cka
      two of them, of a sweep on a prepared dataset
  python -m experiments.measure --list
      lists all measures

Writes measures.csv (network, layer, measure, value, seconds), measures.svg, and how well each measure predicts
the drops of transfer: predictors.csv and predictors.svg. No network of the sweep is retrained. Stop it at any
time; the same command resumes.
"""

from pathlib import Path
from typing import Any

from absl import flags

_WORKDIR = flags.DEFINE_string("workdir", None, "the folder of a sweep")
_MEASURES = flags.DEFINE_list(
    "measures", None, "comma-separated names, see --list; default all that this sweep allows"
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of prepared TFDS datasets, as the sweep was given"
)
_IMAGES = flags.DEFINE_integer(
    "images", 1000, "the most training and test images of each task to use", 20, 10**9
)
_WIDTH = flags.DEFINE_integer(
    "width",
    8192,
    "the most features per image; larger maps are averaged over blocks",
    lower_bound=1,
    upper_bound=10**9,
)
_LIST = flags.DEFINE_bool("list", False, "print the measures and stop")


def main() -> None:
    """Reads the sweep, computes the measures, writes the results."""
    # Imported here: --help and flag errors should not wait for jax.
    from yosinski_jax.base import machine
    from yosinski_jax.base.errors import UserError
    from yosinski_jax.base.files import as_path
    from yosinski_jax.base.progress import Progress
    from yosinski_jax.measures import registry, workdir
    from yosinski_jax.sweep import programs
    from yosinski_jax.sweep.workdir import lock

    if _LIST.value:
        for m in registry.measures().values():
            print(f"  {m.name:14}{', '.join(m.names[1:]):34}{m.about}")
        return
    if not _WORKDIR.value:
        raise UserError("--workdir: give the folder of a finished sweep")
    folder = as_path(_WORKDIR.value)
    if not folder.is_dir():
        raise UserError(f"--workdir={folder}: not a folder; give the folder of a finished sweep")
    machine.use_all_cores()
    programs.keep(folder)  # where the sweep keeps them: bases are trained with the same programs
    names = _MEASURES.value if _MEASURES.value is not None else workdir.available(folder)
    registry.choose(names)
    workdir.check(folder, names)
    bench = workdir.open_bench(folder, _DATA_DIR.value, images=_IMAGES.value, width=_WIDTH.value)
    with lock(folder), Progress("measures", workdir.steps(folder), "layers") as progress:
        rows = workdir.measure(
            folder, names, bench, note=progress.note, progress=lambda *_: progress.advance()
        )
    _print(rows, names)
    paths = _compare(folder)
    for path in (folder / "measures.csv", *paths):
        print(f"  {path}")


def _compare(folder: Path) -> list[Path]:
    """Compares the measures with the drops, in a table and in words; returns the files written."""
    from yosinski_jax.analysis import predictors_words
    from yosinski_jax.report import plots_measures

    predicting, said, paths = plots_measures.compare(folder)
    print(f"\n{predictors_words.text_table(predicting)}\n")
    print(*said, sep="\n")
    return paths


def _print(rows: list[Any], names: list[str]) -> None:
    """The mean of every measure over the networks, by layer."""
    import numpy as np

    layers = list(dict.fromkeys(row.layer for row in rows))
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        found.setdefault(row.measure, {}).setdefault(row.layer, []).append(row.value)
    print(f"\n  {'mean over networks':24}" + "".join(f"{layer:>10}" for layer in layers))
    for name, by_layer in found.items():
        cells = (
            f"{np.mean(by_layer[layer]):10.3f}" if layer in by_layer else " " * 10
            for layer in layers
        )
        print(f"  {name:24}" + "".join(cells))
    seconds = sum(row.seconds for row in rows)
    print(f"\n{len(rows)} values of {len(set(names))} measures, {seconds:.1f} s of compute")
