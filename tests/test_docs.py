"""The pages of docs/ and the README: their commands parse, their flags exist, their examples run, their links lead somewhere.

The cells of the notebooks among them are executed when the documents are built, which `.ci/run` does.
"""

import json
import re
import subprocess
import sys
import tomllib

import pytest
from documents import NAMES, blocks, commands, text
from PIL import Image
from places import ROOT

from yosinski_jax.commands import executing
from yosinski_jax.data import dataset

PARSE = """
import importlib, json, sys
from absl import flags
name = sys.argv[1]
module = importlib.import_module(name + ".__main__" if name.endswith("studies") else name)
for argv in json.load(sys.stdin):
    if hasattr(module, "parser"):
        module.parser().parse_args(argv)
        continue
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS: flags.FLAGS[name].unparse()
    try:
        rest = flags.FLAGS(["program", *argv])[1:]
    except flags.Error as e:
        rest = [str(e)]
    if rest: print(argv, rest)
"""
USED = [(name, module, argv) for name in NAMES for module, argv in commands(name)]


@pytest.mark.parametrize("module", sorted({module for _, module, _ in USED}))
def test_the_commands_parse(module):
    argvs = [argv for _, m, argv in USED if m == module]
    if module == "experiments.benchmark":  # its first word stands for --what
        argvs = [[f"--what={argv[0]}", *argv[1:]] for argv in argvs]
    out = subprocess.run(
        [sys.executable, "-c", PARSE, module],
        input=json.dumps(argvs), cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    assert not out.stdout, out.stdout


def known_flags():
    found = set()
    for path in [*(ROOT / "experiments").rglob("*.py"), *(ROOT / "yosinski_jax").rglob("*.py")]:
        found |= set(
            re.findall(r"(?:DEFINE_\w+|add_argument)\(\s*\"(?:--)?(\w+)\"", path.read_text())
        )
        found |= set(
            re.findall(r"\(\"(\w+)\", flags\.DEFINE_", path.read_text())
        )  # in a table of flags
    return found | {f"slurm_{option}" for option in executing._SLURM}


@pytest.mark.parametrize("name", [*NAMES, "docs/notebooks/colab.ipynb"])
def test_every_flag_named_in_the_text_is_a_flag(name):
    ours = re.sub(
        r"`[^`\n]*`", lambda m: m.group() if "gcloud" not in m.group() else "", text(name)
    )
    others = {"help", "port", "address"}  # the latter two Ray's
    assert set(re.findall(r"(?<![\w-])--([a-z]\w*)", ours)) - others <= known_flags()


@pytest.mark.parametrize("name", NAMES)
def test_every_extra_named_in_the_text_is_an_extra(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = ",".join(re.findall(r"\.\[([\w,]+)\]", text(name))).split(",")
    assert set(named) - {""} <= set(project["optional-dependencies"])


EXAMPLES = [(name, code) for name in NAMES for code in blocks(name, "python")]


@pytest.mark.parametrize(
    "name, code", EXAMPLES, ids=[f"{n}:{c.split(chr(10))[0]}" for n, c in EXAMPLES]
)
def test_the_examples_run(name, code, tmp_path):
    for file in ("train/cat", "train/dog", "test/cat", "test/dog") if "photos" in code else ():
        (tmp_path / "photos" / file).mkdir(parents=True)
        Image.new("RGB", (9, 7)).save(tmp_path / "photos" / file / "1.png")
    out = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    for made in tmp_path.glob("*.npz"):
        assert dataset.load(str(made)).label_names == ("cat", "dog")


@pytest.mark.parametrize("name", NAMES)
def test_files_it_points_to_exist(name):
    page = ROOT / name
    for target in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", text(name)):
        assert (page.parent / target).exists(), target
    for block in blocks(name, "json"):
        json.loads(block)


def test_every_block_is_of_a_kind_that_is_checked():
    checked = {
        "sh",
        "python",
        "json",
        "{code-cell} ipython3",
        "{toctree}",
        "{eval-rst}",
        "{literalinclude} ../../yosinski_jax/measures/cka_seed.py",
    }
    for name in NAMES:
        fences = re.findall(r"^ *```([^\n]*)", text(name), re.M)
        assert {kind.strip() for kind in fences[::2]} <= checked, name
        assert not any(fences[1::2]), name
