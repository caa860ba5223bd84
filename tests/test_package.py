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
# What each folder may import, besides itself. Two chains that share only `base` and `study`.
BELOW = {
    "base": set(),
    "study": {"base"},
    "data": {"base", "study"},
    "networks": {"base", "study", "splicing"},
    "training": {"base", "study", "splicing", "data", "networks"},
    "sweep": {"base", "study", "splicing", "data", "networks", "training"},
    "measures": {"base", "study", "splicing", "data", "networks", "training"},
    # Each is looked up when it is used: reports need matplotlib.
    "seeds": {"base", "study", "splicing", "data", "networks", "training", "sweep", "analysis"},
    "result": {"base", "study", "splicing", "data", "networks", "training", "sweep", "measures", "analysis", "report"},
    "api": {
        "base", "study", "splicing", "data", "networks", "training", "sweep", "measures", "seeds", "analysis", "report",
        "result",
    },
    "analysis": {"base", "study"},
    "report": {"base", "study", "analysis"},
    "splicing": set(),
}  # fmt: skip
BELOW["commands"] = set(BELOW)  # the command line stands over everything
BELOW["__main__"] = set(BELOW)
NO_JAX = ["base", "study", "data", "analysis", "report"]


def imports_of(path):
    """First names below the package that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "yosinski_jax":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("yosinski_jax."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (
                a.name.split(".")[1] for a in node.names if a.name.startswith("yosinski_jax.")
            )


def test_imports_run_one_way():
    rooms = [p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py"]
    found = {(p, other) for p in rooms for other in imports_of(p)}
    folder = lambda p: p.relative_to(PACKAGE).parts[0].removesuffix(".py")
    unknown = {folder(p) for p in rooms} - BELOW.keys()
    assert not unknown, f"say what {unknown} may import"
    wrong = [
        f"{p.relative_to(PACKAGE)} imports {other}"
        for p, other in sorted(found)
        if other != folder(p) and other not in BELOW[folder(p)]
    ]
    assert not wrong
    assert all(BELOW[low] < BELOW[name] for name in BELOW for low in BELOW[name])  # no circle


def test_every_folder_says_what_lives_in_it():
    for folder in {p.parent for p in PACKAGE.rglob("*.py")}:
        assert len(ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or "") > 80


def test_splicing_depends_on_no_other_module():
    assert not list(imports_of(PACKAGE / "splicing.py"))


def test_only_figures_import_matplotlib():
    users = {
        p.relative_to(PACKAGE).parts[0]
        for p in PACKAGE.rglob("*.py")
        if re.search(r"^\s*(import|from) matplotlib", p.read_text(), re.M)
    }
    assert users == {"report"}


@pytest.mark.parametrize("what", NO_JAX)
def test_no_jax_and_no_tensorflow(what):
    rooms = [
        ".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts)
        for p in (PACKAGE / what).rglob("*.py")
    ]
    code = f"import {', '.join(rooms)}, sys; print([m for m in ('jax', 'tensorflow') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_messages_of_the_library_speak_of_arguments():
    """The command line spells them as flags."""
    for room in PACKAGE.rglob("*.py"):
        calls = [n for n in ast.walk(ast.parse(room.read_text())) if isinstance(n, ast.Call)]
        for call in calls if room.parent.name != "commands" else ():
            if getattr(call.func, "id", "") == "UserError":
                said = [c.value for c in ast.walk(call) if isinstance(c, ast.Constant)]
                text = re.sub("`.*?`", "", "".join(map(str, said)))
                assert not re.search(r"--(?!head)\w", text), f"{room}: {text}"


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


def test_imports_in_docstrings_work():
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = {
        line
        for room in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(room.read_text()))
        if isinstance(node, documented)
        for line in re.findall(
            r"^ *(from yosinski_jax\S* import .*)", ast.get_docstring(node) or "", re.M
        )
    }
    assert len(found) > 2
    for line in found:
        exec(line, {})
