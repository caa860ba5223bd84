"""What pyproject.toml promises: dependencies, extras, the console script, versions said once."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
from places import ROOT

from yosinski_jax import commands
from yosinski_jax.base import extras
from yosinski_jax.base.errors import UserError

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Distribution → the module that it installs, where the names differ.
MODULES = {
    "absl-py": "absl",
    "opencv-python-headless": "cv2",
    "orbax-checkpoint": "orbax",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
    "tensorflow-datasets": "tensorflow_datasets",
}
# Brought along by a dependency that cannot do without them.
ALONG = {
    "array_record",
    "etils",
    "fsspec",
    "google",
    "jaxlib",
    "markupsafe",
    "setuptools",
    "threadpoolctl",
}
# Taken where they happen to be there; nothing is missing without them.
WELCOME = {"pandas"}


def modules(requirements):
    names = [re.match(r"[\w-]+", r).group() for r in requirements]
    return {MODULES.get(name, name) for name in names}


def imported():
    """Third-party modules that the package imports by a statement, and the files that do."""
    for path in (ROOT / "yosinski_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                top = name.split(".")[0]
                if top not in sys.stdlib_module_names | {"yosinski_jax"}:
                    yield top, path.relative_to(ROOT)


def test_every_import_is_a_dependency_or_in_an_extra():
    core = modules(PROJECT["dependencies"])
    optional = set().union(*map(modules, PROJECT["optional-dependencies"].values()))
    unknown = {
        (name, str(p)) for name, p in imported() if name not in core | optional | ALONG | WELCOME
    }
    assert not unknown
    # Nothing unused; of scikit-learn the file of digits is read.
    assert core <= {name for name, _ in imported()} | {"filelock", "jinja2", "sklearn"}


def test_every_extra_brings_what_it_is_named_for():
    for module, extra in extras.EXTRAS.items():
        if module not in ALONG:
            assert module in modules(PROJECT["optional-dependencies"][extra]), module


ROOMS = [
    ".".join(p.relative_to(ROOT).with_suffix("").parts)
    for p in (ROOT / "yosinski_jax").rglob("*.py")
]


@pytest.mark.parametrize("command", commands.COMMANDS)
def test_the_core_imports_nothing_of_an_extra(command):
    optional = set(extras.EXTRAS) | {"cv2"}
    others = {f"yosinski_jax.commands.{c}" for c in commands.COMMANDS if c != command}
    if command != "sweep":
        others |= {f"yosinski_jax.commands.{c}" for c in ("executing", "requesting")}
    rooms = [room for room in ROOMS if room not in others]  # their flags would meet
    code = f"import sys, {', '.join(rooms)}\nprint(sorted(set(sys.modules) & {optional!r}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


BARE = """
import importlib, sys
from pathlib import Path
for name in sys.argv[1].split():
    sys.modules[name] = None
for room in sys.argv[2].split():
    importlib.import_module(room)
import numpy as np
from yosinski_jax import transfer_sweep
random = np.random.default_rng(0)
labels = np.arange(256, dtype=np.int32) % 4
images = random.integers(0, 256, (256, 8, 8, 1)).astype(np.uint8)
transfer_sweep(
    "digits4", images, labels, images, labels, seeds=1, treatments=["AnB"], ns=[1], workdir=sys.argv[3], progress=False,
    recipe="digits", name="bare",
)
print(len(list(Path(sys.argv[3]).glob("records/*/*.json"))))
"""


def test_networks_train_with_jax_flax_optax_orbax_and_numpy_alone(tmp_path):
    """As on a TPU host's or a GPU container's image; what else there is, is imported where it is used."""
    brought = {"absl", "scipy", "rich"}  # by optax, jax and flax
    core = {"jax", "flax", "optax", "orbax", "numpy"} | brought
    missing = (modules(PROJECT["dependencies"]) | set(extras.EXTRAS) | {"cv2", "pandas"}) - core
    assert {"matplotlib", "PIL", "jinja2", "sklearn", "filelock", "ray"} <= missing
    rooms = [r for r in ROOMS if not re.search(r"\.(report|commands|prepare|__main__)", r)]
    done = subprocess.run(
        [sys.executable, "-c", BARE, " ".join(missing), " ".join(rooms), tmp_path / "work"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "4", "two bases and their copies"


@pytest.mark.parametrize(
    "call",
    [
        "data.load('cifar10')",
        "prepare.prepare('cifar10', '/nonesuch')",
        "prepare.directory('cifar10', '/nonesuch')",
        "extras.load('ray', 'executor=ray')",
    ],
)
def test_a_missing_package_is_one_line_that_names_the_extra(call, monkeypatch):
    from yosinski_jax.data import dataset as data
    from yosinski_jax.data.prepare import entry as prepare

    for name in ("tensorflow_datasets", "ray"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r'pip install "yosinski-jax\[(data|ray)\]"') as caught:
        eval(call, {"data": data, "prepare": prepare, "extras": extras})
    assert "\n" not in str(caught.value) and re.match(r"\w+=", str(caught.value))


def script(*args):
    code = "from yosinski_jax.commands import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, cwd=ROOT
    )


def test_the_console_script_runs_the_commands(tmp_path):
    out = script("sweep", "--plan", "--seeds=1", f"--workdir={tmp_path}")
    assert out.returncode == 0 and "32 networks" in out.stdout, out.stderr
    assert "--[no]plan" in script("sweep", "--helpshort").stdout
    assert all(f"\n  {name} " in script("--help").stdout for name in commands.COMMANDS)


@pytest.mark.parametrize("args", [["swep"], ["sweep", "--lyers=1"]])
def test_the_console_script_refuses_in_one_line(args):
    out = script(*args)
    assert out.returncode == 2 and out.stderr.count("\n") == 1
    assert out.stderr.startswith("error: ") and "Traceback" not in out.stderr


def test_the_version_is_the_same_everywhere():
    assert f"version: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()
    assert (
        f'repository-code: "{PROJECT["urls"]["Repository"]}"' in (ROOT / "CITATION.cff").read_text()
    )


def test_everything_is_installed_from_the_same_repository():
    path = "docs/notebooks/colab.ipynb"
    repository, notebook = PROJECT["urls"]["Repository"], (ROOT / path).read_text()
    assert f'REPOSITORY = \\"{repository}\\"' in notebook
    assert (
        f"{repository.replace('github.com', 'colab.research.google.com/github')}/blob/main/{path}"
        in notebook
    )
    assert f"git+{repository}`" in (ROOT / "README.md").read_text()


def test_the_distribution_holds_the_licence_and_the_package_alone():
    # What is installed; an egg-info in the checkout would list its sources.
    found = metadata.distributions(name="yosinski-jax")
    files = next((d.files for d in found if d.read_text("RECORD")), None) or []
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text
    assert (ROOT / "yosinski_jax" / "py.typed").exists()
    assert files and not [f for f in files if f.parts[0] in ("experiments", "tests")]
