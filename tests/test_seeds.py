"""Split seeds that a sweep adds by itself."""

import csv
import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
from absl.testing import flagsaver

from yosinski_jax.analysis import sequential
from yosinski_jax.api import transfer_sweep
from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import sealed, write_json
from yosinski_jax.commands import cli
from yosinski_jax.commands import sweep as command
from yosinski_jax.report import build

SMALL = [
    "--seeds=auto", "--layers=1,3", "--treatments=BnB,AnB", "--epochs=4", "--images_per_class=40",
    "--margin=4", "--noreport",
]  # fmt: skip


def run(*args, workdir):
    """The command in this process; returns its exit code."""
    argv = ["sweep", *args, f"--compile_cache={os.environ['TEST_COMPILE_CACHE']}"]
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as e:
        cli.run(command.main, [*argv, f"--workdir={workdir}"])
    return e.value.code or 0


def table(folder):
    """results.csv without what depends on the clock."""
    with open(folder / "results.csv", newline="") as f:
        rows = csv.DictReader(f)
        return [
            {k: v for k, v in r.items() if k not in ("seconds", "images_per_second")} for r in rows
        ]


def test_several_base_datasets_are_refused(tmp_path, capfd):
    images, labels = np.zeros((80, 8, 8, 1), np.uint8), np.arange(80) % 2
    arrays = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(tmp_path / "grey.npz", **arrays)
    assert run(*SMALL, f"--base_dataset=digits,{tmp_path}/grey.npz", workdir=tmp_path / "w") == 2
    line = capfd.readouterr().err
    assert line.count("\n") == 1 and "--base_dataset=digits,grey makes several; name one" in line


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grown")
    assert run(*SMALL, "--max_seeds=5", workdir=folder) == 0
    return folder


def test_seeds_are_added_until_all_is_told_or_the_most_are_there(grown):
    found = json.loads((grown / "sequential.json").read_text())
    seeds = {row["split_seed"] for row in table(grown)}
    assert len(seeds) == found["seeds"] and 3 <= found["seeds"] <= 5
    assert found["seeds"] == 5 or set(found["verdicts"]) == {"1", "3"}
    assert found["networks"] == len(table(grown)) == 10 * found["seeds"]


def test_it_goes_on_where_it_stopped_and_ends_alike(grown, capfd):
    before = table(grown)
    assert run(*SMALL, "--max_seeds=5", workdir=grown) == 0
    assert " 0 of them trained now" in capfd.readouterr().out
    assert table(grown) == before


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--max_seeds=8"], "--max_seeds=8, --margin=4: this workdir was begun with --max_seeds=5 and"),
        (["--max_seeds=2"], "--max_seeds=2: must be at least 3"),
        (["--max_seeds=5", "--margin=0"], "--margin=0: must be between 0 and 100"),
        (["--max_seeds=5", "--treatments=BnB"], "--seeds=auto: adds split seeds until"),
        (["--max_seeds=5", "--shard=0/2"], "--seeds=auto: does not work with --shard"),
        (["--seeds=5"], "--margin=4.0: only works with --seeds=auto"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_in_one_line(grown, capfd, args, line):
    assert run(*SMALL, *args, workdir=grown) == 2
    err = capfd.readouterr().err
    assert line in err and err.count("\n") == 1, err


def test_the_page_says_what_the_rule_came_to(grown, tmp_path):
    folder = shutil.copytree(grown, tmp_path / "copy")
    page = build.write_report(folder).read_text()
    assert "Added one at a time by a stopping rule" in page and "of at most 5 split seeds:" in page
    path = folder / "sequential.json"
    path.write_text(path.read_text().replace('"seeds": ', '"seeds": 1', 1))
    page = build.write_report(folder).read_text()
    assert "sequential.json" in page and "Added one at a time" not in page


def test_the_page_says_that_seeds_were_added_by_hand_afterwards(grown, tmp_path):
    folder = shutil.copytree(grown, tmp_path / "copy")
    assert "by hand" not in build.write_report(folder).read_text()
    found = sequential.read(folder)
    fewer = dataclasses.replace(found, seeds=found.seeds - 1)
    write_json(folder / sequential.FILE, sealed(fewer.as_json()))
    assert "1 more were added by hand" in build.write_report(folder).read_text()


def test_the_same_rule_by_a_function_call(tmp_path):
    """On arrays, with a network of the package; stops by the same rule, goes on, and gives way to a number."""
    from yosinski_jax.data import dataset
    from yosinski_jax.study import recipes

    digits = dataset.load("digits")
    arguments = {
        "network": "digits4", "train_images": digits.train.images(), "train_labels": digits.train.labels,
        "test_images": digits.test.images(), "test_labels": digits.test.labels,
        "recipe": dataclasses.replace(recipes.get("digits"), epochs=2), "treatments": ["BnB", "AnB"], "ns": [1],
        "images_per_class": 30, "seeds": "auto", "margin": 4, "workdir": tmp_path, "progress": False,
    }  # fmt: skip
    study = transfer_sweep(**arguments, max_seeds=4)
    found = json.loads((tmp_path / "sequential.json").read_text())
    assert (found["most"], found["margin"], found["networks"]) == (4, 0.04, len(study))
    assert {r.split_seed for r in study} == set(range(found["seeds"])) and found["seeds"] in (3, 4)
    again = transfer_sweep(**arguments, max_seeds=4)
    assert [r.digest for r in again] == [r.digest for r in study]
    with pytest.raises(
        UserError, match="max_seeds=5, margin=4: this workdir was begun with max_seeds=4"
    ):
        transfer_sweep(**arguments, max_seeds=5)
    assert {r.split_seed for r in again.extend(seeds=5)} == set(range(5))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seeds": 2, "max_seeds": 8}, "max_seeds=8: only works with seeds=auto"),
        ({"margin": 2.0}, "margin=2: only works with seeds=auto"),
        ({"seeds": "many"}, "seeds=many: must be a number of split seeds, a list of them, or auto"),
        ({"seeds": "auto", "max_seeds": 2}, "max_seeds=2: must be at least 3"),
        (
            {"seeds": "auto", "treatments": ["BnB"]},
            "seeds=auto: adds split seeds until the verdict",
        ),
    ],
)
def test_a_call_that_the_rule_cannot_answer_is_refused(given, message):
    images, labels = np.zeros((40, 8, 8, 1), np.uint8), np.arange(40) % 4
    with pytest.raises(UserError, match=message):
        transfer_sweep("digits4", images, labels, images, labels, progress=False, **given)
