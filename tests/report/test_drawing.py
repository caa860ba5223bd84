import random

from yosinski_jax.report import drawing


def test_a_drawing_that_was_altered_is_drawn_again(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        drawing, "_run", lambda tasks, alone: [drawn.append(t) or "<svg>7</svg>" for t in tasks]
    )
    drawings = {"one": drawing.Drawing("plots.curves", {"records": []})}
    assert drawing.draw(drawings, tmp_path) == drawing.draw(drawings, tmp_path)
    assert len(drawn) == 1, "kept"
    path, rng = tmp_path / drawing.KEPT, random.Random(0)
    sound = path.read_bytes()
    for bit in rng.sample(range(8 * len(sound)), 60):
        flipped = bytearray(sound)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        drawn.clear()
        assert drawing.draw(drawings, tmp_path) == {"one": "<svg>7</svg>"}
        assert len(drawn) == 1 and path.read_bytes() == sound, f"bit {bit}"
