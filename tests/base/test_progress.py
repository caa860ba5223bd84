"""Progress: plain lines now and then, a bar on a terminal."""

import io

from yosinski_jax.base import progress


def test_short_work_is_silent():
    out = io.StringIO()
    with progress.Progress("short", 3, stream=out) as bar:
        bar.advance(3)
    assert out.getvalue() == ""


def test_plain_lines(monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    out = io.StringIO()
    with progress.Progress("labels of x", 10, stream=out) as bar:
        bar.advance(4)
        bar.note("odd: b.png")
        bar.advance(6)
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("labels of x: 4/10 images, ")
    assert lines[1] == "odd: b.png"
    assert lines[2].startswith("labels of x: 10/10 images, ")


def test_a_bar_on_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    with progress.Progress("labels of x", 10, stream=out) as bar:
        bar.advance(10)
        bar.note("odd: [b].png")
    assert "odd: [b].png" in out.getvalue()
