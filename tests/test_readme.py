"""README.md is short and says what CI does; tests/test_docs.py runs its examples and parses its commands."""

import re

import documents
from places import ROOT

README = documents.text("README.md")


def test_ci_runs_the_readmes_commands():
    ci = (ROOT / ".ci" / "run").read_text()
    main, test = (block.strip() for block in documents.blocks("README.md", "sh")[:2])
    install, run = test.split(" && ")
    assert install in ci and f"\n{run}\n" in ci
    assert main.split(" && ")[1] in ci


def test_it_opens_with_a_figure_and_stays_short():
    assert len(README.splitlines()) < 150
    assert README.index("![") < README.index("```sh") < README.index("## Where to go next")
    assert all(f"**{reader}.**" in README for reader in ("Student", "Researcher", "Engineer"))


def test_the_quick_tests_exist():
    quick = re.search(r"^quick=\((.*?)^\)", (ROOT / ".ci" / "run").read_text(), re.M | re.S)
    assert quick and all((ROOT / path).exists() for path in quick[1].split())
