import base64
import json
import math
import random

import numpy as np
import pytest

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import sealed, write_json
from yosinski_jax.study import records
from yosinski_jax.study.records import Record

CORRECT = [True] * 6 + [False] * 4
FIELDS = {
    "name": "A3B+", "treatment": "AnB+", "n": 3, "target": "B", "source": "A", "split": "random", "split_seed": 0,
    "status": "finished", "settings_digest": "0a1b2c", "dataset": "digits", "layers": ["conv1", "fc2"],
    "curve": {"step": [3, 6], "epoch": [1, 2], "loss": [1.5, 0.25], "accuracy": [0.5, 0.6]},
    "accuracy": 0.6, "accuracy_best": 0.6, "accuracy_mean_of_ten_best": 0.55, "steps": 6,
    "test_images": 10, "correct": records.pack(CORRECT), "layer_change": {"conv1": 0.125, "fc2": 1.5},
    "environment": {"jax": "0.10.2", "devices": 2}, "params_sha256": "00ff",
}  # fmt: skip
RECORD = Record.of(FIELDS)


def test_written_and_read_back(tmp_path):
    path = records.write(tmp_path, RECORD)
    assert path == tmp_path / "records" / "random-0" / "A3B+.json"
    assert records.read_all(tmp_path) == ([RECORD], [])
    [found] = records.read_all(tmp_path)[0]
    assert found["accuracy"] == found.accuracy == 0.6 and found.get("cause") is None
    assert records.unpack(found.correct, 10) == CORRECT
    assert json.loads(path.read_text()) == dict(RECORD)
    assert [p.name for p in path.parent.iterdir()] == ["A3B+.json"]
    with pytest.raises(KeyError):
        _ = found["of"]


def test_nan_is_null(tmp_path):
    curve = FIELDS["curve"] | {"loss": [1.0, math.nan]}
    record = Record.of(FIELDS | {"curve": curve, "layer_change": {"conv1": math.inf}})
    assert record.curve["loss"] == [1.0, None] and record.layer_change == {"conv1": None}
    records.write(tmp_path, record)
    assert records.read_all(tmp_path) == ([record], [])
    assert "NaN" not in records.path_of(tmp_path, "random-0/A3B+").read_text()


def test_every_flipped_bit_is_found_or_harmless(tmp_path):
    path = records.write(tmp_path, RECORD)
    sound, found = path.read_bytes(), 0
    for bit in range(8 * len(sound)):
        flipped = bytearray(sound)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            assert records.read(path) == RECORD, f"bit {bit} is read as another record"
        except records.Damaged as e:
            assert str(path) in str(e)
            found += 1
    assert found > 7 * len(sound)


def without(name):
    return {k: v for k, v in FIELDS.items() if k != name}


@pytest.mark.parametrize(
    "fields, why",
    [
        (without("curve"), "wrong type: curve"),
        (FIELDS | {"n": "3"}, "wrong type: n"),
        (FIELDS | {"n": True}, "wrong type: n"),
        (FIELDS | {"layers": ["conv1", 2]}, "wrong type: layers"),
        (FIELDS | {"colour": "red"}, "unknown or of the wrong type: colour"),
        (FIELDS | {"schema": 1}, "schema 1 is of another version"),
        (FIELDS | {"status": "running"}, "neither finished nor diverged"),
        (FIELDS | {"status": "diverged"}, "does not go with diverged_at_step None"),
        (FIELDS | {"name": "R3B+"}, "no such network"),
        (FIELDS | {"name": "A2B+"}, "its name does not agree"),
        (FIELDS | {"accuracy": 0.7}, "accuracy is 0.7, but its curve says 0.6"),
        (FIELDS | {"accuracy_best": None}, "accuracy_best is None, but its curve says 0.6"),
        (FIELDS | {"accuracy_mean_of_ten_best": 0.6}, "its curve says 0.55"),
        (FIELDS | {"curve": FIELDS["curve"] | {"loss": [1.0]}}, "not equally long"),
        (FIELDS | {"curve": FIELDS["curve"] | {"accuracy": [0.5, 6]}}, "not between 0 and 1"),
        (FIELDS | {"curve": {}}, "finished, but its curve is empty"),
        (FIELDS | {"curve": FIELDS["curve"] | {"mood": [1, 2]}}, "unknown series: mood"),
        (FIELDS | {"correct": records.pack(CORRECT[::-1] + [1])}, "correct: 2 bytes are not the bits of 10"),
        (FIELDS | {"correct": records.pack([True] * 10)}, "but 10 of 10 test images are correct"),
        (FIELDS | {"correct": "?"}, "correct: "),
    ],
)  # fmt: skip
def test_a_record_that_contradicts_itself_is_neither_made_nor_read(tmp_path, fields, why):
    with pytest.raises(ValueError, match=why):
        Record.of(fields)
    good = records.write(tmp_path, Record.of(FIELDS | {"treatment": "AnB", "name": "A3B"}))
    bad = records.path_of(tmp_path, "random-0/A3B+")
    write_json(bad, sealed(fields))
    found, damaged = records.read_all(tmp_path)
    assert [r.name for r in found] == ["A3B"] and good.exists()
    assert len(damaged) == 1 and str(bad) in damaged[0] and why.split("\\")[0] in damaged[0]


@pytest.mark.parametrize(
    "text, why",
    [
        ("", "not readable as JSON"),
        (json.dumps(FIELDS)[:50], "not readable as JSON"),
        ("[" * 200_000, "not readable as JSON"),
        ("[1]", "not a JSON object but a list"),
        (json.dumps(FIELDS), "its digest does not match"),
        (json.dumps(dict(RECORD) | {"seconds": 1.0}), "its digest does not match"),
        (json.dumps(sealed(FIELDS | {"split_seed": 1})), "holds the record of random-1/A3B"),
    ],
)
def test_damaged_files_are_named_and_left_out(tmp_path, text, why):
    path = records.path_of(tmp_path, "random-0/A3B+")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    found, damaged = records.read_all(tmp_path)
    assert not found and len(damaged) == 1
    assert str(path) in damaged[0] and why in damaged[0] and "\n" not in damaged[0]


def test_a_record_that_cannot_be_read_is_not_taken_for_a_damaged_one(tmp_path):
    path = records.path_of(tmp_path, "random-0/A3B+")
    path.mkdir(parents=True)  # reading fails, for root too
    with pytest.raises(UserError, match=r"A3B\+.json: cannot be read \(.*irectory.*move the file"):
        records.read_all(tmp_path)


def test_packed_results_come_back():
    for images in (1, 7, 8, 9, 220):
        rng = random.Random(images)
        correct = [rng.random() < 0.7 for _ in range(images)]
        packed = records.pack(correct)
        assert records.unpack(packed, images) == correct
        assert base64.b64decode(packed) == np.packbits(correct).tobytes()


STOPPED = FIELDS | {
    "curve": FIELDS["curve"] | {"accuracy": [0.6, 0.5], "validation_accuracy": [0.9, 0.9]},
    "chosen_step": 3, "stopped_at_step": 6, "validation_images": 10,
}  # fmt: skip
TUNED = FIELDS | {
    "learning_rate": 0.1,
    "tried": {"learning_rate": [1.0, 0.1], "validation_accuracy": [None, 0.2], "accuracy": [None, 0.6]},
}  # fmt: skip


def test_results_of_a_network_that_stopped_early_are_those_of_the_step_chosen():
    assert records.position(Record.of(STOPPED)) == 0
    assert records.position(RECORD) == -1
    assert Record.of(TUNED).learning_rate == 0.1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (STOPPED | {"chosen_step": 4}, "its curve has no step 4, which was chosen"),
        (STOPPED | {"chosen_step": 6}, "accuracy is 0.6, but its curve says 0.5"),
        (STOPPED | {"curve": FIELDS["curve"] | {"accuracy": [0.6, 0.5]}}, "step 3 was chosen, but"),
        (
            STOPPED | {"curve": STOPPED["curve"] | {"validation_accuracy": [0.8, 0.9]}},
            "step 3 was chosen, but is not the first with the best validation accuracy",
        ),
        (TUNED | {"learning_rate": 1.0}, "learning_rate is 1.0, but 0.1 has the best validation"),
        (TUNED | {"tried": TUNED["tried"] | {"accuracy": [0.6]}}, "tried does not hold"),
    ],
)  # fmt: skip
def test_a_choice_that_validation_does_not_bear_out_is_found(fields, message):
    with pytest.raises(ValueError, match=message):
        Record.of(fields)
