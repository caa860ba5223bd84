"""The README and the pages of docs/: their code blocks, and the commands in them."""

import re
import shlex

from places import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name, language):
    """Contents of the fenced blocks in a language; cells that the build of the documents runs are another."""
    return re.findall(rf"^ *```{re.escape(language)}\n(.*?)^ *```", text(name), re.M | re.S)


def commands(name):
    """(module, arguments) of each of the project's commands in the shell blocks of a page."""
    for block in blocks(name, "sh"):
        for line in re.split(r"\n|&&", block.replace("\\\n", " ")):
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"\w+=\S*", words[0]):  # environment variables
                words = words[1:]
            if words[:2] == ["python", "-m"] and words[2].startswith("experiments."):
                yield words[2], words[3:]
            elif words[:1] == ["yosinski-jax"]:
                yield f"experiments.{words[1]}", words[2:]
