"""README.md tells the truth: its commands are CI's, its flags exist, its examples run."""

import re
import shlex
import subprocess
import sys

import pytest
from places import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def test_ci_runs_the_readmes_commands():
    ci = (ROOT / ".ci" / "run").read_text()
    main, test = (block.strip() for block in blocks("sh")[:2])
    install, run = test.split(" && ")
    assert install in ci and f"\n{run}\n" in ci
    assert main.split(" && ")[1] in ci


@pytest.mark.parametrize("module", ["sweep", "prepare", "report"])
def test_every_flag_exists(module):
    out = subprocess.run(
        [sys.executable, "-m", f"experiments.{module}", "--helpshort"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout
    known = set(re.findall(r"^\s+--(?:\[no\])?(\w+)", out, re.M))
    commands = re.findall(
        rf"python -m experiments\.{module}([^`]*?)(?:\n```|`|\n(?=python))", README
    )
    assert commands
    used = {flag for command in commands for flag in re.findall(r"--(\w+)", command)}
    assert used <= known


def test_every_flag_named_in_the_text_is_a_flag_of_some_command():
    known = set()
    for module in ("sweep", "prepare", "report", "benchmark"):
        source = (ROOT / "experiments" / f"{module}.py").read_text()
        known |= set(re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", source))
    assert set(re.findall(r"--(\w+)", README)) <= known | {"help"}


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.split("\n", 1)[0])
def test_the_examples_run(code, tmp_path):
    out = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr


def test_files_it_points_to_exist():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).exists(), target
    assert all(shlex.split(block) for block in blocks("sh"))
