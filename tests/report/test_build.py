import csv
import html
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import browser
import numpy as np
import pytest
import simulated
from markupsafe import escape

from yosinski_jax.analysis import results
from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import sealed, write_json
from yosinski_jax.report import build, page

VOID = {"meta", "link", "br", "path", "use", "rect", "image", "polyline", "line"}


class Checker(HTMLParser):
    """Finds tags that do not close, ids that occur twice and links that lead nowhere."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.tags, self.wrong = [], [], [], [], []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        href = values.get("href") or values.get("xlink:href") or ""
        self.links += [href] if href else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        if tag in VOID:
            self.handle_starttag(tag, attrs)
        else:
            self.handle_starttag(tag, attrs)
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data


def make(folder, found, plan=None, settings=None):
    folder.mkdir(parents=True, exist_ok=True)
    for r in found:
        simulated.write(folder, r)
    write_json(folder / "plan.json", sealed(simulated.plan(found if plan is None else plan)))
    command = "python -m experiments.sweep --split=random"
    settings = {"dataset": "digits", "network": "digits4", "command": command} | (settings or {})
    write_json(folder / "settings.json", sealed(settings))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = make(tmp_path_factory.mktemp("work") / "sweep", simulated.study())
    rng = np.random.RandomState(0)
    for seed in (0, 1):
        path = folder / "checkpoints" / f"random-{seed}" / "baseA"
        path.mkdir(parents=True)
        np.savez(path / "first_layer.npz", kernel=rng.randn(5, 5, 3, 4).astype(np.float32))
    build.write_report(folder, figure_files=True)
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    build.write_report(folder, published=True)
    return folder


def text_of(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


def test_page_is_whole_and_self_contained(finished, published):
    for folder in (finished, published):
        text = text_of(folder)
        checked = Checker(text)
        assert not checked.wrong
        assert not checked.open
        assert len(checked.ids) == len(set(checked.ids))
        inside = [x for x in checked.links if not x.startswith("data:")]
        assert inside
        assert all(x.startswith("#") and x[1:] in checked.ids for x in inside)
        assert "script" not in checked.tags
        assert not re.search(r"(src|href)=\"(http|//)", text)
        assert not re.search(r"url\((?!#)", text)


def test_answers_come_first_and_figures_have_words_and_tables(finished):
    text = text_of(finished)
    order = [text.index(f'id="{a}"') for a in ("answers", "figures", "tables", "networks")]
    assert order == sorted(order)
    figures = re.findall(r"<figure.*?</figure>", text, flags=re.S)
    assert len(figures) >= 8
    for figure in figures:
        assert re.search(r'<svg[^>]* role="img" aria-labelledby=', figure)
        assert len(re.search(r"<desc[^>]*>(.*?)</desc>", figure, flags=re.S)[1]) > 40
        assert "<table>" in figure


def test_numbers_on_the_page_are_those_of_the_records(finished):
    text = Checker(text_of(finished)).text
    summary = json.loads((finished / "results.json").read_text())["summary"]
    for row in summary:
        assert (
            f"{100 * row['mean']:.2f} ± {100 * row['standard_error']:.2f} ({row['count']})" in text
        )


def test_exports(finished):
    rows = list(csv.DictReader((finished / "results.csv").open()))
    assert len(rows) == 128
    effects = list(csv.DictReader((finished / "effects.csv").open()))
    assert {"pooled", "A", "B"} == {r["direction"] for r in effects}
    result = json.loads((finished / "results.json").read_text())
    assert len(result["effects"]) == len(effects)
    assert "random" in result["answers"]
    latex = (finished / "table.tex").read_text()
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 1
    assert (finished / "table.md").read_text().count("| n |") == 1
    names = {p.suffix for p in (finished / "figures").iterdir()}
    assert names == {".png", ".pdf", ".svg"}
    assert (finished / "figure2.pdf").exists()


def test_filters_are_counted_and_fits_kept(finished):
    text = Checker(text_of(finished)).text
    assert "8 filters of 5×5 pixels" in text
    kept = finished / "checkpoints" / "random-0" / "baseA" / "first_layer.fits.json"
    assert len(json.loads(kept.read_text())["fits"]) == 4
    # A page made again reads them: a marked one shows up.
    changed = json.loads(kept.read_text())
    changed["fits"][0]["label"] = "dead"
    kept.write_text(json.dumps(changed))
    build.write_report(finished)
    assert "almost no weight" in Checker(text_of(finished)).text


@pytest.mark.parametrize(
    ("amounts", "kept"),
    [([130, 130], [130, 130]), ([None, 9, 250], [None]), ([9, 250], [250]), ([], [])],
)
def test_of_networks_on_all_classes_those_on_most_images_stand_for_them(amounts, kept):
    found = results.most_images([{"images_per_class": n} for n in amounts])
    assert [r["images_per_class"] for r in found] == kept


def test_reproduction_is_told(finished):
    text = Checker(text_of(finished)).text
    for wanted in (
        "experiments.sweep --split=random",
        "3c35799",
        "0.10.2",
        "50,000",
        "abc123def456",
    ):
        assert wanted in text


def test_everything_from_files_is_escaped(tmp_path):
    bad = '<script>alert("x")</script>&'
    found = simulated.study(seeds=2, treatments=("AnB", "BnB+"))
    for r in found:
        r["environment"]["device"] = bad
        r["layers"] = [bad, "b", "c", "d"]
        r["dataset"] = r["network"] = bad
        r["layer_change"] = {bad: 0.5}
    found[0] |= {"status": "diverged", "cause": bad}
    make(tmp_path, found, settings={"dataset": bad, "command": bad, bad: bad})
    (tmp_path / "records" / "random-0" / "x<i>y.json").write_text("{")
    build.write_report(tmp_path)
    text = text_of(tmp_path)
    assert "<script" not in text
    assert "<i>y" not in text
    assert str(escape(bad)) in text
    assert not Checker(text).wrong
    assert "script" not in Checker(text).tags


def test_published_page_tells_table_1_and_its_pairs(published):
    text = Checker(text_of(published)).text
    for wanted in ("1.67", "1.88", "2.06", "1.00", "target B of split 0", "Dissimilar tasks"):
        assert wanted in text
    assert "mean accuracy of the ten best evaluations (the paper’s statistic)" in html.unescape(
        text
    )


# Running and broken sweeps


def test_running_sweep_shows_what_is_missing_and_renews_itself(tmp_path):
    found = simulated.study(seeds=2)
    make(tmp_path, found[:20], plan=found)
    build.write_report(tmp_path, running=True)
    text = text_of(tmp_path)
    assert "The sweep is running: 20 of 64 networks" in text
    assert 'http-equiv="refresh" content="60"' in text
    assert text.count('<td class="text">missing</td>') == 44
    assert not (tmp_path / "figures").exists()
    build.write_report(tmp_path)
    text = text_of(tmp_path)
    assert "44 of the 64 planned networks are missing" in text
    assert "refresh" not in text


def test_sweep_without_a_finished_network_has_a_page(tmp_path):
    make(tmp_path, [], plan=simulated.study(seeds=1))
    build.write_report(tmp_path, running=True)
    assert "No network has finished" in text_of(tmp_path)
    assert "missing" in text_of(tmp_path)


def test_damaged_and_impossible_records_are_named_and_left_out(tmp_path):
    found = simulated.study(seeds=2)
    make(tmp_path, found)
    folder = tmp_path / "records" / "random-0"
    (folder / "A1B.json").write_text('{"schema": 1, "name"')
    for name, field, value in (
        ("A2B", "accuracy", 97.3),
        ("A3B", "accuracy", "high"),
        ("B1B", "treatment", "AnB"),
        ("B2B", "curve", {"step": [1, 2], "accuracy": [0.5]}),
        ("B3B", "accuracy", None),
        ("A1A", "n", 2),
    ):
        r = json.loads((folder / f"{name}.json").read_text()) | {field: value}
        simulated.write(tmp_path, r)
    build.write_report(tmp_path)
    text = Checker(text_of(tmp_path)).text
    assert "7 records could not be used" in text
    assert "accuracy is 97.3, but its curve says 0." in text
    assert "does not agree with its treatment" in text
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert sum(r["status"] == "missing" for r in rows) == 7


def test_diverged_networks_are_told(tmp_path):
    found = simulated.study(seeds=2)
    found[7] |= {"status": "diverged", "diverged_at_step": 70, "accuracy": None}
    found[7] |= {"accuracy_best": None, "accuracy_mean_of_ten_best": None}
    found[7]["curve"] = {"step": [], "epoch": [], "loss": [], "accuracy": []}
    make(tmp_path, found)
    build.write_report(tmp_path)
    text = Checker(text_of(tmp_path)).text
    assert "1 diverged" in text
    assert "diverged at step 70" in text
    assert found[7]["name"] in text


def test_one_seed_gives_no_interval_anywhere(tmp_path):
    make(tmp_path, simulated.study(seeds=1))
    build.write_report(tmp_path)
    text = Checker(text_of(tmp_path)).text
    assert "neither intervals nor tests" in text
    rows = list(csv.DictReader((tmp_path / "effects.csv").open()))
    assert all(r["low"] == r["p"] == r["p_holm"] == "" for r in rows)
    assert any(r["value"] for r in rows)


def test_one_task_only_is_said(tmp_path):
    make(tmp_path, [r for r in simulated.study(seeds=3) if r["target"] == "B"])
    build.write_report(tmp_path)
    assert "All networks here have target B" in Checker(text_of(tmp_path)).text


@pytest.mark.parametrize("treatments", [("base",), ("AnB",), ("RnB",)])
def test_few_treatments_give_a_page_that_says_what_it_lacks(tmp_path, treatments):
    found = simulated.study(seeds=2, treatments=treatments)
    make(tmp_path, [r for r in found if (r["treatment"], r["n"]) != ("AnB", 2)], plan=found)
    build.write_report(tmp_path)
    text = Checker(text_of(tmp_path)).text
    assert "not answerable with these networks" in text


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda d: None, "does not exist"),
        (lambda d: d.write_text(""), "is a file"),
        (lambda d: d.mkdir(), "holds no records and no plan.json"),
    ],
)
def test_no_workdir_is_one_line(tmp_path, prepare, message):
    folder = tmp_path / "sweep"
    prepare(folder)
    with pytest.raises(UserError, match=message) as e:
        build.write_report(folder)
    assert f"workdir={folder}" in str(e.value)
    assert "\n" not in str(e.value)


def test_mixed_settings_are_refused(tmp_path):
    make(tmp_path, simulated.study(seeds=1))
    other = next(r for r in simulated.study(seeds=2, digest="0ther") if r["split_seed"] == 1)
    simulated.write(tmp_path, other)
    with pytest.raises(UserError, match="2 different settings"):
        build.write_report(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"networks": []}', json.dumps(sealed({"networks": [{"name": 3}]}))],
)
def test_damaged_plan_is_one_line(tmp_path, content):
    make(tmp_path, simulated.study(seeds=1, treatments=("base",)))
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(UserError, match=r"plan\.json"):
        build.write_report(tmp_path)


# Comparisons


def test_two_workdirs_are_laid_on_each_other(tmp_path, finished):
    found = simulated.study(rng_seed=0, digest="other")
    for r in found:
        r["accuracy"] -= 0.01
        r["curve"]["accuracy"][-1] = r["accuracy"]
        best = sorted(r["curve"]["accuracy"])[-10:]
        r |= {"accuracy_best": best[-1], "accuracy_mean_of_ten_best": float(np.mean(best))}
    make(tmp_path / "other", found)
    build.write_report(finished, comparisons=[str(tmp_path / "other")])
    text = Checker(text_of(finished)).text
    assert "paired by split seed and target" in text
    compared = json.loads((finished / "results.json").read_text())["compared"]
    assert len(compared) == 16
    assert all(r["value"] == pytest.approx(0.01, abs=1e-9) for r in compared)


def test_published_is_laid_on_a_network_of_equal_depth_only(tmp_path, finished):
    with pytest.raises(UserError, match="4 and 8 layers cannot be compared"):
        build.write_report(finished, comparisons=["published"])
    found = simulated.study(seeds=2, treatments=("BnB", "AnB"))
    for r in found:
        r["layers"] = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    make(tmp_path, found)
    build.write_report(tmp_path, comparisons=["published"])
    text = Checker(text_of(tmp_path)).text
    assert "not paired: the tasks or split seeds differ" in text
    assert "Against published" in text


# Command line


def command(*flags):
    return subprocess.run(
        [sys.executable, "-m", "experiments.report", *flags],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ([], "error: --workdir, --published: give one of the two"),
        (["--workdir=/nowhere/at/all"], "error: --workdir=/nowhere/at/all: does not exist"),
        (["--published", "--statistic=median"], "error: --statistic=median: unknown"),
        (["--published", "--compare=/nowhere"], "error: --compare=/nowhere: does not exist"),
    ],
)
def test_wrong_flags_end_in_one_line(flags, line):
    done = command(*flags)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


def test_only_figures_wider_than_a_panel_span_the_page():
    assert not page.is_wide('<svg viewBox="0 0 324 180">')
    assert page.is_wide('<svg viewBox="0 0 648.5 216">')


def test_sparklines_and_drawings_escape_their_words():
    assert "<title>&lt;b&gt;</title>" in page.sparkline([1, 2], "<b>")
    svg = page.inline_svg('<svg width="1"><g id="a"/></svg>', "f", "<t>", "<d>")
    assert svg.startswith('<svg role="img"')
    assert "&lt;t&gt;" in svg and 'id="f-a"' in svg


# Browser


@pytest.fixture(scope="module")
def chromium():
    path = browser.find()
    if path is None:
        pytest.skip("no Chromium or Chrome is installed (apt-get install chromium)")
    with browser.Browser(path) as running:
        yield running


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("which", ["finished", "published"])
def test_in_a_browser(chromium, request, which, width):
    folder = request.getfixturevalue(which)
    chromium.problems.clear()
    chromium.requests.clear()
    chromium.open(folder / "report.html", width)
    assert chromium.value("document.documentElement.clientWidth") == width
    assert chromium.value("document.documentElement.scrollWidth") == width, "scrolls sideways"
    sizes = chromium.value(
        "[...document.querySelectorAll('figure > svg')].map(s => {"
        "const b = s.getBoundingClientRect(); return [b.left, b.right, b.width, b.height]})"
    )
    assert len(sizes) >= 8
    for left, right, wide, high in sizes:
        assert left >= 0
        assert right <= width
        assert wide > 0.85 * min(width, 550) - 40
        assert high > 100
    assert chromium.value("[...document.querySelectorAll('details')].every(d => !d.open)")
    chromium.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert chromium.value("document.documentElement.scrollWidth") == width, "unfolded, sideways"
    assert chromium.problems == []
    outside = [r for r in chromium.requests if not r.startswith(("file:", "data:", "about:"))]
    assert outside == []
