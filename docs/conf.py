"""Sphinx: `python -m sphinx -W -b html docs docs/_build/html`; notebooks are executed, an error in one ends the build."""

import os
import tomllib
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]

project = "yosinski_jax"
author = _PROJECT["authors"][0]["name"]
copyright = "2026, " + author
version = release = _PROJECT["version"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "notebooks/colab.ipynb"]  # that one installs things; CI runs it alone
suppress_warnings = ["mystnb.unknown_mime_type"]

html_theme = "sphinx_book_theme"
html_title = "yosinski_jax"
html_theme_options = {
    "repository_url": _PROJECT["urls"]["Repository"],
    "use_repository_button": True,
    "path_to_docs": "docs",
    "home_page_in_toc": True,
}

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_timeout = 240
nb_execution_in_temp = True
nb_merge_streams = True

napoleon_google_docstring = True
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"

# Kernels inherit these: the CPU, no bars, and programs compiled once for all pages.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent / "_build" / "compiled")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ["PYTHONPATH"] = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])


def _code_of_docstrings(app, what, name, obj, options, lines: list[str]) -> None:
    """Makes literal blocks of fenced code and of indented paragraphs, which docstrings here hold as plain text."""
    out: list[str] = []
    fenced = False
    for line in lines:
        indented = line.startswith("    ") and not fenced
        if line.strip().startswith("```"):
            fenced = not fenced
            out += ["", "::", ""] if fenced else [""]
        elif fenced:
            out.append("    " + line)
        elif indented and len(out) > 1 and not out[-1].strip() and not out[-2].startswith("    "):
            out += ["::", "", line]
        else:
            out.append(line)
    lines[:] = out


def setup(app) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _code_of_docstrings, priority=400)
