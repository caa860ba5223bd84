"""Finished studies: their tables follow from their records, and a network trained again is the network that was kept."""

import dataclasses
import gzip
import json
import os
import shutil
import subprocess
import sys

import pytest
import simulated
from places import ROOT

from experiments.studies import store, verify
from experiments.studies.__main__ import main
from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import sealed, write_json
from yosinski_jax.report import plots_measures


def python(*args):
    return subprocess.run(
        [sys.executable, "-m", *args], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    small = ["--seeds=1", "--layers=1", "--treatments=BnB,AnB", "--epochs=2", "--noreport"]
    out = python("experiments.sweep", *small, f"--workdir={folder}", "--compile_cache=off")
    assert out.returncode == 0, out.stderr
    return folder


@pytest.fixture
def study(workdir, tmp_path, capsys):
    assert main(["store", f"{tmp_path}/tiny", f"--workdir={workdir}"]) == 0
    assert capsys.readouterr().out == f"  {tmp_path}/tiny/\n"
    return tmp_path / "tiny"


@pytest.mark.parametrize("name", store.names())
def test_the_tables_of_the_studies_follow_from_their_records(name, capsys):
    assert main(["verify", name]) == 0
    assert capsys.readouterr().out == f"{name}: tables follow from the records\n"


@pytest.mark.parametrize("name", store.names())
def test_a_study_says_what_it_shows_and_stays_small(name):
    folder = store.folder(name)
    text = (folder / "README.md").read_text()
    assert "To be written" not in text and "## What it shows" in text
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4 * 2**20


def test_a_network_trained_again_is_equal_to_the_bit(study):
    """A copy and the base that it copies, in a process of their own, each alone instead of in its group."""
    out = python("experiments.studies", "verify", str(study), "--network=random-0/A1B")
    assert out.returncode == 0, out.stderr
    same = "bit-identical (same versions and devices: expected bit-identical); holds"
    assert out.stdout.splitlines() == [
        "tiny: tables follow from the records",
        f"random-0/A1B: {same}",
    ]


def test_what_a_study_holds(study, workdir):
    text = (study / "README.md").read_text()
    command = "python -m experiments.sweep --seeds=1 --layers=1 --treatments=BnB,AnB --epochs=2 --noreport"
    assert f"```sh\n{command}\n```" in text  # without the places of this machine
    page = (study / "report.html").read_text()
    assert f"<pre>{command}</pre>" in page and str(workdir) not in page
    assert str(workdir) not in text + (study / "settings.json").read_text()
    assert "6 networks" in text and "platform cpu" in text
    assert {p.name for p in study.iterdir()} == {
        "README.md", "settings.json", "records.json.gz", *store.KEPT,
    }  # fmt: skip
    assert len(store.read_records(study)) == 6


def test_measures_are_kept_and_what_they_predict_follows_from_them(workdir, tmp_path, capsys):
    rows = "".join(
        f"random-0/base{half},{layer},rank,{value},0.1\n"
        for half in "AB"
        for value, layer in enumerate(("conv1", "conv2", "fc3", "fc4"), 3)
    )
    folder = tmp_path / "w"
    shutil.copytree(workdir, folder)
    (folder / "measures.csv").write_text(f"network,layer,measure,value,seconds\n{rows}")
    plots_measures.compare(folder)
    assert main(["store", f"{tmp_path}/measured", f"--workdir={folder}"]) == 0
    study = tmp_path / "measured"
    assert (study / "measures.csv").read_text().endswith(rows)
    assert "Measures of each layer" in (study / "report.html").read_text()
    assert main(["verify", str(study)]) == 0
    with (study / "predictors.csv").open("a") as f:
        f.write("other,1\n")
    capsys.readouterr()
    assert main(["verify", str(study)]) == 1
    assert capsys.readouterr().out == "measured: tables differ: predictors.csv\n"


def test_made_again_it_keeps_what_it_shows_and_its_records_to_the_byte(study, workdir):
    path, records = study / "README.md", (study / "records.json.gz").read_bytes()
    path.write_text(path.read_text().replace("To be written.", "Nothing much."))
    assert main(["store", str(study), f"--workdir={workdir}"]) == 0
    assert path.read_text().endswith("## What it shows\n\nNothing much.\n")
    assert (study / "records.json.gz").read_bytes() == records


def test_a_table_that_does_not_follow_is_named(study, capsys):
    path = study / "results.csv"
    path.write_text(path.read_text().replace("A1B", "A2B", 1))
    assert main(["verify", str(study)]) == 1
    assert capsys.readouterr().out == "tiny: tables differ: results.csv\n"


@pytest.mark.parametrize(
    ("text", "alike"),
    [
        ("a,c\n1,3\n", True),
        ("a,c\n1,4\n", False),
        ("a,d\n1,3\n", False),
        ("a,c\n1\n", False),
        ("a,c\n1,3\n1,3\n", False),
        ("", False),
    ],
)
def test_columns_that_came_later_are_not_compared(text, alike, tmp_path):
    (tmp_path / "kept.csv").write_text(text)
    (tmp_path / "again.csv").write_text("a,b,c\n1,2,3\n")
    assert verify._alike(tmp_path / "kept.csv", tmp_path / "again.csv") == alike


def test_last_digits_are_those_of_a_version(study):
    path = study / "effects.csv"
    before = path.read_text()
    number = next(w for w in before.replace("\n", ",").split(",") if len(w) > 8 and "." in w)
    path.write_text(before.replace(number, f"{float(number) * (1 + 1e-9)!r}"))
    assert path.read_text() != before and verify.tables(study) == []
    path.write_text(before.replace(number, f"{float(number) * 1.001!r}"))
    assert verify.tables(study) == ["effects.csv"]


def test_a_record_that_was_changed_is_refused(study):
    found = json.loads(gzip.decompress((study / "records.json.gz").read_bytes()))
    found[0]["accuracy"] = 0.99
    (study / "records.json.gz").write_bytes(gzip.compress(json.dumps(found).encode()))
    with pytest.raises(UserError, match=r"records\.json\.gz: damaged"):
        verify.tables(study)


def test_an_unfinished_sweep_is_no_study(workdir, tmp_path):
    lacking = tmp_path / "lacking"
    subprocess.run(["cp", "-r", str(workdir), str(lacking)], check=True)
    next(lacking.rglob("A1B.json")).unlink()
    with pytest.raises(UserError, match=r"1 networks? ha(s|ve) no record; finish the sweep first"):
        main(["store", str(tmp_path / "x"), f"--workdir={lacking}"])
    assert not (tmp_path / "x").exists()


def test_what_holds(study):
    kept = store.read_records(study)[0]
    worse = dataclasses.replace(kept, accuracy=kept.accuracy - 0.03, params_sha256="0" * 64)
    compare = lambda again, alike: verify.Comparison(kept, again, alike, None if alike else 0.02)
    assert compare(kept, True).holds and compare(kept, False).holds
    assert not compare(worse, True).holds and not compare(worse, False).holds
    slightly = dataclasses.replace(worse, accuracy=kept.accuracy - 0.01)
    assert not compare(slightly, True).holds and compare(slightly, False).holds
    asked = verify.Comparison(kept, slightly, True, 0.02)
    assert asked.holds and "(same versions and devices: expected within 2.00 points)" in str(asked)
    assert "differs by -1.00 points (other versions or devices: expected within 2.00 points); holds" in str(
        compare(slightly, False)
    )  # fmt: skip
    diverged = dataclasses.replace(worse, accuracy=None, status="diverged")
    assert not compare(diverged, False).holds


@pytest.mark.parametrize(
    "args, line",
    [
        (["verify", "nonesuch"], "nonesuch: is not a study; choose from "),
        (["verify", "published-2014", "--network=random-0/baseA"], "were trained in 2014"),
        (["store", "x"], "--workdir=: give the folder of a finished sweep"),
        (["store", "published-2014", "--workdir=/tmp"], "--workdir=/tmp: leave it out"),
        (["verfy"], "invalid choice: 'verfy'"),
    ],
)
def test_what_is_refused(args, line):
    with pytest.raises(UserError, match=line):
        main(args)


def test_other_data_is_refused(study):
    settings = json.loads((study / "settings.json").read_text())
    with pytest.raises(UserError, match="has other data or settings: the images differ"):
        verify._check_same(settings, settings | {"data": settings["data"] | {"images": "0"}})


def test_a_network_that_only_another_split_seed_has_is_missing(tmp_path):
    found = simulated.study(2, treatments=("AnB",))
    write_json(tmp_path / "plan.json", sealed(simulated.plan(found)))
    for record in found:
        if (record["split_seed"], record["name"]) != (1, "A2B"):
            simulated.write(tmp_path, record)
    with pytest.raises(UserError, match="1 network has no record; finish the sweep first"):
        store.store(str(tmp_path / "study"), tmp_path)
