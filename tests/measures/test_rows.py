import math

import pytest

from yosinski_jax.measures import rows


@pytest.fixture
def written(tmp_path):
    some = [
        rows.Row("random-0/baseA", "conv1", "rank", 0.1 + 0.2, 1.5),
        rows.Row("random-0/baseA", "all", "rank", math.nan, 0.25),
    ]
    found = {row.place: row for row in some}
    rows.write_rows(tmp_path, found, {"images": 100})
    return tmp_path, found


def test_rows_are_read_as_they_were_written(written):
    folder, rows_ = written
    found, said = rows.read_rows(folder)
    assert not said and found.keys() == rows_.keys() and rows.read_notes(folder)["images"] == 100
    (value, seconds), (undefined, _) = ((row.value, row.seconds) for row in found.values())
    assert (value, seconds) == (0.1 + 0.2, 1.5) and math.isnan(undefined)


def test_a_file_that_was_altered_counts_as_none(written):
    path = written[0] / "measures.csv"
    path.write_text(path.read_text().replace("1.5", "9.5"))
    found, said = rows.read_rows(written[0])
    assert found == {} and "was modified since it was written" in said[0]


def test_a_crash_between_the_two_files_leaves_rows_that_go_together(written):
    folder, found = written
    before = (folder / "measures.csv").read_text()
    found.popitem()
    rows.write_rows(folder, found, rows.read_notes(folder))
    (folder / "measures.csv").write_text(before)
    assert len(rows.read_rows(folder)[0]) == 2 and not rows.read_rows(folder)[1]


def test_a_workdir_that_was_never_measured(tmp_path):
    assert rows.read_rows(tmp_path) == ({}, []) and rows.read_notes(tmp_path) == {}
