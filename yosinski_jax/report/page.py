"""Building blocks of a page and their rendering as HTML, independent of the study.

Templates escape everything that is not `Markup`, so nothing from a file can become markup. The page
carries a content policy that forbids scripts and every request.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup, escape

from yosinski_jax.analysis.wording import heading, upper_first
from yosinski_jax.report.drawing import Drawing

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table that scrolls on its own on a narrow screen.

    Attributes:
      headings: one per column.
      rows: cells; the first of each row is its heading. A row of one cell is the heading of the
        rows that follow.
      caption: words above it.
      label: name of the scrolling region for screen readers.
      left: columns of text, aligned left.
      classes: class of each row.
    """

    headings: Sequence[object]
    rows: Sequence[Sequence[object]]
    caption: object = ""
    label: str = "table"
    left: Sequence[int] = (0,)
    classes: Sequence[str | None] = ()


@dataclasses.dataclass(frozen=True)
class Item:
    """One figure of the page.

    Attributes:
      name: file name without ending, and anchor.
      title: bold words of the caption.
      caption: the rest of it.
      alternative: what the figure shows, in words and numbers.
      drawing: how it is drawn.
      headings: of the table behind it.
      rows: of the table behind it.
    """

    name: str
    title: str
    caption: str
    alternative: str
    drawing: Drawing
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def table(self) -> Table:
        """The numbers behind the figure."""
        return Table(self.headings, self.rows, label=f"Numbers: {self.title}")


#: A number, as text, by n or another whole number, under the words of a legend.
Column = tuple[str, Mapping[int, str]]


def in_words(columns: Iterable[Column], at: str = "at n =") -> str:
    """Columns as a text alternative: "AnB: 94.1 at n = 1, 93.0 at n = 2; BnB: …"."""
    return "; ".join(
        f"{label}: " + ", ".join(f"{text} {at} {x}" for x, text in column.items())
        for label, column in columns
    )


def by_row(columns: Sequence[Column]) -> list[list[str]]:
    """Columns as the rows of a table, their heading n or whatever number they share."""
    places = sorted({x for _, column in columns for x in column})
    return [[str(x), *(column.get(x, "–") for _, column in columns)] for x in places]


@dataclasses.dataclass(frozen=True)
class Part:
    """A section of the page.

    Attributes:
      anchor: its id, and the name of its template without ending.
      title: its heading.
      values: what the template uses, besides `part` itself.
      items: its figures.
    """

    anchor: str
    title: str
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    items: Sequence[Item] = ()


@functools.cache
def environment() -> jinja2.Environment:
    """The templates of report/templates, with everything escaped."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("yosinski_jax.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters |= {
        "tied": tied,
        "upper_first": upper_first,
        "heading": heading,
        "treatments": treatments,
    }
    made.globals |= {"inline_svg": inline_svg, "is_wide": is_wide}
    return made


def render(parts: Sequence[Part], svgs: Mapping[str, str], **values: object) -> str:
    """Renders the whole page; `svgs` are the drawings by the name of their item."""
    style = resources.files("yosinski_jax.report").joinpath("report.css").read_text("utf-8")
    template = environment().get_template("page.html")
    return template.render(parts=parts, svgs=svgs, style=Markup(style), policy=POLICY, **values)


def treatments(cell: object) -> object:
    """Formats treatments in a table cell as the paper does: "AnB⁺, n = 2"."""
    if isinstance(cell, Markup) or not isinstance(cell, str):
        return cell
    return re.sub(r"\b([ABPR]nB)\+", "\\1⁺", cell)


def tied(text: str) -> str:
    """Keeps "n = 3", "p = 0.02" and "[0.1, 0.2]" on one line."""
    for loose in (" = ", " < "):
        text = text.replace(loose, loose.replace(" ", "\u00a0"))
    return re.sub(r"\[([^\[\], ]+), ([^\[\], ]+)\]", "[\\1,\u00a0\\2]", text)


def inline_svg(svg: str, name: str, title: str, description: str) -> Markup:
    """Prepares a matplotlib SVG for inlining in a page next to others.

    Its ids get a prefix (every figure brings an "axes_1"), the fixed size goes, and a title and a
    description come, which screen readers read in place of the drawing.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r'(\bid=")', rf"\g<1>{name}-", svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    tag, rest = svg.split(">", 1)
    tag = re.sub(r'\s(width|height|version)="[^"]*"', "", tag)
    tag += f' role="img" aria-labelledby="{name}-title {name}-desc"'
    return Markup(
        f'{tag}><title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(description)}</desc>{rest}'
    )


def is_wide(svg: str) -> bool:
    """Returns whether a drawing is too wide (over 6 inches) for half the width of the page."""
    found = re.search(r'viewBox="0 0 ([0-9.]+) ', svg)
    return found is not None and float(found[1]) > 6 * 72


def sparkline(values: Sequence[float], description: str) -> Markup:
    """Draws a word-sized curve, scaled to its own range."""
    if len(values) < 2:
        return Markup()
    width, height = 110, 24
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    points = " ".join(
        f"{1 + i * (width - 2) / (len(values) - 1):.1f},"
        f"{height - 2 - (v - low) / span * (height - 4):.1f}"
        for i, v in enumerate(values)
    )
    return Markup(
        '<svg viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img"><title>{text}</title>'
        '<polyline points="{points}" fill="none" stroke="#1f4e9c" stroke-width="1.4"/></svg>'
    ).format(w=width, h=height, text=description, points=points)
