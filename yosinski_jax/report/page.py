"""Pieces of an HTML page: escaped text, tables, inline figures. Knows nothing of the study.

Everything that enters a page passes `text` or is made here, so that nothing from a file can become
markup. The page carries a content policy that forbids scripts and every request.
"""

import html
import re
from collections.abc import Iterable, Sequence
from importlib import resources

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Markup(str):
    """Text that is HTML already; everything else is escaped."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Any value as HTML text: markup as it is, None as nothing, the rest escaped."""
    if isinstance(value, Markup):
        return value
    return Markup("" if value is None else html.escape(str(value), quote=True))


def element(name: str, *content: object, **attributes: object) -> Markup:
    """An element with escaped content; `class_="a"` gives class="a", None leaves one out."""
    listed = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{listed}>{''.join(map(text, content))}</{name}>")


def join(parts: Iterable[object], between: str = "") -> Markup:
    """Several pieces in a row."""
    return Markup(text(between).join(map(text, parts)))


def table(
    headings: Sequence[object],
    rows: Sequence[Sequence[object]],
    *,
    caption: object = None,
    label: str = "table",
    left: Sequence[int] = (0,),
    classes: Sequence[str | None] = (),
) -> Markup:
    """A table that scrolls by itself on a narrow screen.

    Args:
      headings: one a column.
      rows: cells; the first of each row is its heading. A row of one cell is the heading of the
        rows that follow.
      caption: words above it.
      label: name of the scrolling region for screen readers.
      left: columns of words, set to the left.
      classes: class of each row.
    """
    head = join(
        element("th", h, scope="col", class_="text" if i in left else None)
        for i, h in enumerate(headings)
    )
    body = []
    for number, row in enumerate(rows):
        if len(row) == 1 < len(headings):
            across = element("th", row[0], scope="rowgroup", colspan=len(headings))
            body.append(element("tr", across, class_="group"))
            continue
        cells = [
            element("th", cell, scope="row")
            if i == 0
            else element("td", cell, class_="text" if i in left else None)
            for i, cell in enumerate(row)
        ]
        body.append(element("tr", *cells, class_=classes[number] if classes else None))
    inner = element(
        "table",
        element("caption", caption) if caption else "",
        element("thead", element("tr", head)),
        element("tbody", *body),
    )
    return element("div", inner, class_="scroll", tabindex="0", role="region", aria_label=label)


def definitions(pairs: Iterable[tuple[object, object]]) -> Markup:
    """A list of names and values; those without value are left out."""
    return element(
        "dl",
        *(
            join([element("dt", k), element("dd", v)])
            for k, v in pairs
            if v is not None and v != ""
        ),
    )


def details(summary: object, *content: object) -> Markup:
    """Something to unfold."""
    return element("details", element("summary", summary), *content)


def section(anchor: str, title: str, *content: object) -> Markup:
    """A section with its heading."""
    return element("section", element("h2", title), *content, id=anchor)


def inline_svg(svg: str, name: str, title: str, description: str) -> Markup:
    """A matplotlib SVG made ready to stand in a page beside others.

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
        f'{tag}><title id="{name}-title">{text(title)}</title>'
        f'<desc id="{name}-desc">{text(description)}</desc>{rest}'
    )


def sparkline(values: Sequence[float], description: str) -> Markup:
    """A curve as small as a word, scaled to its own range."""
    if len(values) < 2:
        return Markup("")
    width, height = 110, 24
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    points = " ".join(
        f"{1 + i * (width - 2) / (len(values) - 1):.1f},"
        f"{height - 2 - (v - low) / span * (height - 4):.1f}"
        for i, v in enumerate(values)
    )
    return Markup(
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f"<title>{text(description)}</title>"
        f'<polyline points="{points}" fill="none" stroke="#1f4e9c" stroke-width="1.4"/></svg>'
    )


def document(title: str, header: object, body: object, footer: object, refresh: int = 0) -> str:
    """A whole page. `refresh` makes the browser read the file again every so many seconds."""
    style = (
        resources.files("yosinski_jax.report").joinpath("report.css").read_text(encoding="utf-8")
    )
    again = f'<meta http-equiv="refresh" content="{refresh}">\n' if refresh else ""
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'{again}<link rel="icon" href="data:,">\n'
        f"<title>{text(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"{element('header', header)}\n{element('main', body)}\n{element('footer', footer)}\n"
        "</body>\n</html>\n"
    )
