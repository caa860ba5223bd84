"""What holds for the package as a whole: what it exports, which way imports run, what needs no jax."""

import ast
import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

import yosinski_jax

PACKAGE = Path(yosinski_jax.__file__).parent
ROOT = PACKAGE.parent
# Imports run down this list and never up.
ORDER = [
    "errors", "paths", "progress", "workers", "cache", "splits",
    "splicing", "layers", "networks", "costs", "models", "treatments", "recipes",
    "images", "tfds_find", "tfds_source", "data", "stream",
    "tfds_write", "prepare_cifar", "imagenet_source", "prepare_imagenet", "prepare",
    "checkpoints", "environment", "distributed", "programs", "jobs", "train", "train_stream",
    "records", "saves", "workdir", "plan", "sweep", "pricing", "api",
    "analysis", "page", "filters", "intervals", "effects", "compare", "published", "study", "answers",
    "style", "plots", "plots_training", "figures", "sections", "sections_answers", "report",
]  # fmt: skip
NO_JAX = [
    "errors",
    "paths",
    "splits",
    "treatments",
    "records",
    "data",
    "analysis",
    "plots",
    "report",
    "published",
]


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.startswith("yosinski_jax")
        ):
            if node.module == "yosinski_jax":
                yield from (alias.name for alias in node.names)
            else:
                yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (
                a.name.split(".")[1] for a in node.names if a.name.startswith("yosinski_jax.")
            )


def test_imports_run_one_way():
    modules = {p.stem: p for p in PACKAGE.glob("*.py") if p.stem != "__init__"}
    unknown = sorted(modules.keys() - set(ORDER))
    assert not unknown, f"give {unknown} a place in ORDER"
    wrong = [
        f"{name} imports {other}"
        for name, path in modules.items()
        for other in imports_of(path)
        if other in ORDER and ORDER.index(other) >= ORDER.index(name)
    ]
    assert not wrong


def test_splicing_depends_on_no_other_module():
    assert not list(imports_of(PACKAGE / "splicing.py"))


def test_only_figures_import_matplotlib():
    users = {
        p.stem
        for p in PACKAGE.glob("*.py")
        if re.search(r"^\s*(import|from) matplotlib", p.read_text(), re.M)
    }
    assert users <= {"style", "plots", "plots_training", "figures", "report"}


@pytest.mark.parametrize("what", [f"yosinski_jax.{name}" for name in NO_JAX] + ["yosinski_jax"])
def test_no_jax_and_no_tensorflow(what):
    code = f"import {what}, sys; print([m for m in ('jax', 'tensorflow') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_exports():
    for name in yosinski_jax.__all__:
        assert callable(getattr(yosinski_jax, name)), name
    from yosinski_jax import splice  # not the module of that name, which there must not be

    assert splice({"a": 1}, {"a": 2}, ["a"]) == {"a": 1}
    with pytest.raises(AttributeError, match="no attribute 'slice'"):
        _ = yosinski_jax.slice


def test_examples_in_docstrings():
    from yosinski_jax import splicing

    result = doctest.testmod(splicing)
    assert result.failed == 0 and result.attempted > 5
