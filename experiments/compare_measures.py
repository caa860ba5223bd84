"""Compares measures of a sweep with reference implementations on the same features.

  python -m experiments.compare_measures --workdir=DIR --tllib=FOLDER --algoperf=FOLDER

The first FOLDER is a checkout of https://github.com/thuml/Transfer-Learning-Library, whose `tllib/ranking` scores
are called unmodified. CKA (in feature space), Procrustes (SciPy's), rank and the ridge probe (with a large constant feature
in place of a free intercept) are implemented here from the published definitions, each differently than in the package.
The second is one of https://github.com/mlcommons/algorithmic-efficiency, whose time to target is `speed`; it needs pandas.
"""

import ast
import importlib.util
import itertools
import operator
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
from absl import flags

from yosinski_jax.base.errors import UserError
from yosinski_jax.commands import cli
from yosinski_jax.measures import probe, speed, workdir
from yosinski_jax.measures.leep import source_predictions
from yosinski_jax.measures.rows import read_rows
from yosinski_jax.measures.subject import Subject
from yosinski_jax.study.treatments import Run

_WORKDIR = flags.DEFINE_string("workdir", None, "a measured sweep on bundled data")
_TLLIB = flags.DEFINE_string("tllib", None, "checkout of Transfer-Learning-Library")
_ALGOPERF = flags.DEFINE_string("algoperf", None, "checkout of algorithmic-efficiency, for speed")
# Tables that algorithmic-efficiency's functions read.
_TABLES = r"\b(MINIMIZE_REGISTRY|M(IN|AX)_EVAL_METRICS)\b"
_BIAS = 100.0  # big_vision's constant feature


def main() -> None:
    """Prints the largest difference of each measure."""
    if not _WORKDIR.value or not _TLLIB.value:
        raise UserError("--workdir and --tllib: give both, see --help")
    found: dict[str, list[tuple[float, float]]] = {}
    ours = read_rows(Path(_WORKDIR.value))[0]
    theirs = _ranking(Path(_TLLIB.value))
    if _ALGOPERF.value:
        theirs["best_trial"] = _best_trial(Path(_ALGOPERF.value))
    for subject in _subjects(Path(_WORKDIR.value)):
        for name, value in _references(subject, theirs):
            row = ours.get((subject.base.name, subject.layer, name))
            if row is not None:
                found.setdefault(name, []).append((value, row.value))
    for name, pairs in found.items():
        a = np.array(pairs)
        difference = np.abs(a[:, 0] - a[:, 1]).max()
        print(
            f"{name:14}{len(a):4} values, {a[:, 0].min():9.4f} … {a[:, 0].max():9.4f}, largest difference {difference:.1e}"
        )


def _subjects(folder: Path) -> Iterator[Subject]:
    bench = workdir.open_bench(folder)
    for pair in workdir.check(folder, ["rank"])[1]:
        one, two = workdir.load_bases(folder, pair, bench).values()
        for base, other in ((one, two), (two, one)):
            for k in range(1, len(base.record["layers"]) + 1):
                yield Subject(bench, base, other, k, pair.records)


def _references(s: Subject, theirs: dict[str, Any]) -> Iterator[tuple[str, float]]:
    labels, predictions = s.labels("other", "train"), source_predictions(s)
    yield "leep", theirs["leep"].log_expected_empirical_prediction(predictions, labels)
    yield "nce", theirs["nce"].negative_conditional_entropy(predictions.argmax(1), labels)
    if s.k == s.depth:
        return
    if "best_trial" in theirs and Run("AnB+", s.other.record["target"], s.k).name in s.records:
        goal = speed.SHARE * s.other.record["accuracy"]
        steps, scratch = (_time_to(goal, r, theirs) for r in (s.copy("AnB+"), s.other.record))
        yield "speed", steps
        yield "speed_gain", scratch / steps
    x, y = (z.astype(np.float64) for z in (s.features(), s.peer.features("other")))
    x, y = x - x.mean(0), y - y.mean(0)
    yield "cka", _cka(x, y)
    unit = x / np.linalg.norm(x), y / np.linalg.norm(y)
    yield "procrustes", 2 - 2 * scipy.linalg.orthogonal_procrustes(*unit)[1]
    values = np.linalg.svd(x, compute_uv=False)
    yield "rank", float(np.linalg.matrix_rank(x, tol=1e-3 * values[0]))
    f = s.features("other", "train").astype(np.float64)
    yield "logme", theirs["logme"].log_maximum_evidence(f, labels)
    yield "hscore", theirs["hscore"].h_score(f, labels)
    # Theirs divides one covariance by m and the other by m − 1.
    shrunk = theirs["hscore"].regularized_h_score(f, labels)
    yield "hscore_shrunk", shrunk * (len(f) - 1) / len(f)
    yield "transrate", theirs["transrate"].transrate(f, labels)
    for name, task in (("probe", "own"), ("probe_other", "other")):
        parts = [(s.features(task, part), s.labels(task, part)) for part in ("train", "test")]
        yield name, _probe(*parts[0], *parts[1])


def _time_to(goal: float, record: Any, theirs: dict[str, Any]) -> float:
    """Steps to a goal by algorithmic-efficiency's rule, which gives −1 where a curve never gets there."""
    import pandas as pd  # pyright: ignore[reportMissingImports]

    curve = record["curve"]
    trials = pd.DataFrame({"validation/accuracy": [np.array(curve["accuracy"], float)]})
    _, place = theirs["best_trial"](trials, "validation/accuracy", goal)
    return float(curve["step"][place])  # −1 is the last evaluation, as `speed` counts it


def _best_trial(checkout: Path) -> Callable:
    """Their `get_best_trial_index`, extracted because importing its file would import their workloads."""
    import pandas as pd  # pyright: ignore[reportMissingImports]

    path = checkout / "scoring" / "performance_profile.py"
    if not path.exists():
        raise UserError(f"--algoperf={checkout}: has no scoring/performance_profile.py")
    functions = {"generate_eval_cols", "check_if_minimized", "get_best_trial_index"}
    found = [
        node
        for node in ast.parse(path.read_text()).body
        if getattr(node, "name", None) in functions
        or (isinstance(node, ast.Assign | ast.Expr) and re.search(_TABLES, ast.unparse(node)))
    ]
    names: dict[str, Any] = {"np": np, "pd": pd, "operator": operator, "itertools": itertools}
    exec(compile(ast.Module(found, []), str(path), "exec"), names)
    return names["get_best_trial_index"]


def _cka(x: np.ndarray, y: np.ndarray) -> float:
    n = len(x)

    def product(a, b):
        rows = (a**2).sum(1), (b**2).sum(1)
        correction = rows[0].sum() * rows[1].sum() / ((n - 1) * (n - 2))
        return np.linalg.norm(a.T @ b) ** 2 - n / (n - 2) * rows[0] @ rows[1] + correction

    return product(x, y) / np.sqrt(product(x, x) * product(y, y))


def _probe(train, labels, test, test_labels) -> float:
    """Accuracy with the package's choice of penalty, solved with a constant feature instead of a free intercept."""

    def fit(x, y, multiple):
        mean, scale = x.mean(0), x.std(0) + 1e-5
        design = lambda z: np.pad((z - mean) / scale, ((0, 0), (0, 1)), constant_values=_BIAS)
        a = design(x.astype(np.float64))
        squares = np.linalg.svd(a[:, :-1], compute_uv=False) ** 2
        l2 = multiple * squares.sum() / min(x.shape)
        targets = 2.0 * np.eye(labels.max() + 1)[y] - 1
        weights = np.linalg.solve(a.T @ a + l2 * np.eye(a.shape[1]), a.T @ targets)
        return lambda z: (design(z) @ weights).argmax(1)

    held = np.arange(len(labels)) % 5 == 4
    right = [
        np.mean(fit(train[~held], labels[~held], m)(train[held]) == labels[held])
        for m in probe.GRID
    ]
    best = max(range(len(right)), key=lambda i: (right[i], i))
    return float(np.mean(fit(train, labels, probe.GRID[best])(test) == test_labels))


def _ranking(checkout: Path) -> dict[str, Any]:
    jit: Callable = lambda function: function  # stands in for numba's, which only affects speed
    sys.modules.setdefault("numba", types.SimpleNamespace(njit=jit))  # pyright: ignore[reportArgumentType]
    modules = {}
    for name in ("hscore", "leep", "logme", "nce", "transrate"):
        path = checkout / "tllib" / "ranking" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"tllib_{name}", path)
        if spec is None or spec.loader is None or not path.exists():
            raise UserError(f"--tllib={checkout}: has no {path.relative_to(checkout)}")
        modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules[name])
    return modules


if __name__ == "__main__":
    cli.run(main)
