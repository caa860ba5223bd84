import dataclasses
import shutil

import numpy as np
import pytest

from yosinski_jax.base.errors import UserError
from yosinski_jax.data import dataset
from yosinski_jax.measures import registry, workdir
from yosinski_jax.measures.rows import FEATURES, read_notes, read_rows, write_rows
from yosinski_jax.networks import convnets
from yosinski_jax.networks.network import Network
from yosinski_jax.study import recipes, records
from yosinski_jax.study.settings import Settings
from yosinski_jax.sweep.runner import Sweep
from yosinski_jax.training import checkpoints

CHEAP = ["rank", "probe", "reinit", "interpolation", "speed"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A sweep and the rows of all that can be had of it. Copy before changing it."""
    folder = tmp_path_factory.mktemp("measured")
    settings = Settings(
        "digits", "random", "digits4", dataclasses.replace(recipes.get("digits"), epochs=2), 4,
        seeds=(0,), treatments=("base", "BnB", "AnB", "AnB+"), layers=(1, 2), images_per_class=40,
    )  # fmt: skip
    make = lambda classes: Network.of(convnets.make("digits4", classes, (8, 8, 1)))
    Sweep(settings, dataset.load("digits"), make, folder, feature_bytes=10**9).run()
    bench = workdir.open_bench(folder, images=100)
    rows = workdir.measure(folder, workdir.available(folder), bench)
    return folder, {row.place: row for row in rows}


def test_every_measure_gives_its_rows(whole):
    folder, rows = whole
    assert (folder / "measures.csv").read_text().startswith("network,layer,measure,value,seconds\n")
    names = {name for m in workdir.available(folder) for name in registry.measures()[m].names}
    assert {place[2] for place in rows} == names | {FEATURES}
    assert {"cka_tuned", "barrier"}.isdisjoint(names)  # nothing kept the copies
    layers = {
        m: [p[1] for p in rows if p[0] == "random-0/baseA" and p[2] == m]
        for m in ("probe", "reinit", "interpolation")
    }
    assert layers["probe"] == ["conv1", "conv2", "fc3"]
    assert layers["reinit"] == ["conv1", "conv2", "fc3", "fc4"]
    assert layers["interpolation"] == [*layers["reinit"], "all"]
    # Copies exist for n = 1 and 2 alone.
    assert [p[1] for p in rows if p[2] == "speed"] == ["conv1"] * 2 + ["conv2"] * 2
    assert all(np.isfinite(row.value) for row in rows.values())


def test_values_are_those_of_the_networks(whole):
    folder, rows = whole
    value = lambda layer, name, network="random-0/baseA": rows[network, layer, name].value
    # Both bases look at the same images through both networks.
    for layer in ("conv1", "conv2", "fc3"):
        assert value(layer, "cka") == pytest.approx(value(layer, "cka_other", "random-0/baseB"))
        assert value(layer, "cka") <= 1 and value(layer, "procrustes") >= 0
    bench = workdir.open_bench(folder, images=100)
    found = {r["name"]: r for r in records.read_all(folder)[0]}
    variables = checkpoints.load(folder / "checkpoints/random-0/baseA")
    task = dataset.make_task(bench.dataset, found["baseA"]["classes"], 40)
    network = bench.network(5)
    whole_accuracy = bench.right(network, variables, task).mean()
    along = value("all", "interpolation")
    assert 0.2 <= along <= whole_accuracy + 0.05  # the mean over a line that ends there
    # A network that was trained from these values, and not from others, changed as its record says.
    assert value("fc4", "reinit") <= whole_accuracy + 0.1
    assert 0 <= value("fc4", "surgical") <= 1 and abs(value("conv1", "stitch_seed")) < 0.8


def test_going_on_computes_only_what_is_missing(whole, copy, monkeypatch):
    folder, rows = copy, whole[1]
    computed = []
    of_layer = workdir._of_layer

    def spy(bench, bases, pair, k, missing):
        computed.append((k, {name: [m.name for m in mine] for name, mine in missing.items()}))
        return of_layer(bench, bases, pair, k, missing)

    monkeypatch.setattr(workdir, "_of_layer", spy)
    bench = workdir.open_bench(folder, images=100)
    again = workdir.measure(folder, CHEAP, bench)
    assert not computed and {row.place for row in again} == rows.keys()
    lines = (folder / "measures.csv").read_text().splitlines(keepends=True)
    kept = {p: r for p, r in rows.items() if p != ("random-0/baseB", "conv2", "probe_other")}
    write_rows(folder, kept, read_notes(folder))
    workdir.measure(folder, CHEAP, bench)
    assert computed == [(2, {"baseB": ["probe"]})]
    value = lambda text: sorted(line.rsplit(",", 1)[0] for line in text)
    assert value((folder / "measures.csv").read_text().splitlines()) == value(lines)


def test_a_flipped_digit_is_found_and_computed_again(whole, copy):
    path = copy / "measures.csv"
    before = path.read_text()
    path.write_text(before.replace("random-0/baseA,conv1,rank,", "random-0/baseA,conv1,rank,9", 1))
    notes = []
    rows = workdir.measure(copy, ["rank"], workdir.open_bench(copy, images=100), note=notes.append)
    assert "was modified since it was written; every measure is computed again" in notes[0]
    place = ("random-0/baseA", "conv1", "rank")
    assert {row.place: row.value for row in rows}[place] == whole[1][place].value


def test_a_changed_base_takes_its_rows_with_it(whole, copy):
    notes = read_notes(copy)
    notes["bases"]["random-0/baseB"] = "another"
    write_rows(copy, dict(whole[1]), notes)
    said = []
    rows = workdir.measure(copy, ["rank"], workdir.open_bench(copy, images=100), note=said.append)
    assert "the bases of random-0 changed" in said[0]
    assert {row.measure for row in rows} == {"rank", "rank_other", "features"}


def test_initial_values_that_do_not_fit_the_record_are_refused(copy):
    path = copy / "records/random-0/baseA.json"
    record = dict(records.read(path))
    record["layer_change"] = record["layer_change"] | {"conv2": 3.0}
    records.write(copy, records.Record.of({k: v for k, v in record.items() if k != "digest"}))
    (copy / "measures.csv").unlink()
    with pytest.raises(
        UserError, match=r"baseA: its initial values cannot be reproduced \(layer conv2"
    ):
        workdir.measure(copy, ["reinit"], workdir.open_bench(copy, images=100))


@pytest.mark.parametrize(
    ("names", "options", "says"),
    [
        (["ckb"], {}, "measures=ckb: ckb is not a measure; choose from"),
        (
            ["barrier"],
            {},
            r"measures=barrier: needs the treatments AnB\+, BnB\+, of which .* has no BnB\+",
        ),
        (["cka_tuned"], {}, r"measures=cka_tuned: needs the parameters of AnB\+, .* keep=all"),
        (["rank"], {"images": 99}, "images=99: .*measures.csv was written with images=100"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(copy, names, options, says):
    with pytest.raises(UserError, match=says) as e:
        workdir.measure(copy, names, workdir.open_bench(copy, **{"images": 100} | options))
    assert "\n" not in str(e.value)


def test_a_workdir_without_bases_or_their_parameters(copy, tmp_path):
    with pytest.raises(UserError, match="has no pair of tasks with both bases finished"):
        workdir.check(tmp_path / "empty", ["rank"])
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(UserError, match="the bases' checkpoints are missing"):
        workdir.check(copy, ["rank"])


def test_kept_copies_are_measured(copy):
    """Only of some n and one direction were they kept; the others are left out."""
    for name in ("A1B+", "A2B+"):
        shutil.copytree(copy / "checkpoints/random-0/baseB", copy / "checkpoints/random-0" / name)
    rows = workdir.measure(copy, ["cka_tuned"], workdir.open_bench(copy, images=100))
    rows = {row.place: row.value for row in rows}
    of_pair = rows["random-0/baseA", "conv2", "cka_other"]  # baseA with what stands there as A2B+
    assert rows["random-0/baseA", "conv2", "cka_tuned"] == pytest.approx(of_pair)
    assert ("random-0/baseB", "conv2", "cka_tuned") not in rows
    shutil.rmtree(copy / "checkpoints/random-0/A2B+/params", ignore_errors=True)
    for path in (copy / "checkpoints/random-0/A2B+").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    (copy / "measures.csv").unlink()
    with pytest.raises(UserError, match=r"A2B\+.*; move the record of"):
        workdir.measure(copy, ["cka_tuned"], workdir.open_bench(copy, images=100))


def test_what_was_done_before_an_interruption_is_kept_and_the_rest_is_equal(
    whole, copy, monkeypatch
):
    (copy / "measures.csv").unlink()
    of_layer = workdir._of_layer

    def interrupted(bench, bases, pair, k, missing):
        if k == 3:
            raise KeyboardInterrupt
        return of_layer(bench, bases, pair, k, missing)

    monkeypatch.setattr(workdir, "_of_layer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        workdir.measure(copy, CHEAP, workdir.open_bench(copy, images=100))
    before = {place: row for place, row in read_rows(copy)[0].items()}
    assert {place[1] for place in before} == {"conv1", "conv2"}
    monkeypatch.setattr(workdir, "_of_layer", of_layer)
    rows = workdir.measure(copy, CHEAP, workdir.open_bench(copy, images=100))
    assert {
        row.place: row for row in rows
    }.items() >= before.items()  # seconds too: not computed again
    assert all(whole[1][row.place].value == row.value for row in rows)
