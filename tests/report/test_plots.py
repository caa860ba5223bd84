import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib
import matplotlib.colors
import numpy as np
import pytest
import simulated

from yosinski_jax.analysis import gabor, published, series
from yosinski_jax.analysis.readings import readings
from yosinski_jax.analysis.results import Study
from yosinski_jax.base.errors import UserError
from yosinski_jax.report import figures, plots, plots_training, theme


@pytest.fixture(scope="module")
def records():
    return simulated.study()


def axes():
    with theme.styled():
        return theme.new_figure(5, 4)[1]


def figure2(records, stem):
    return theme.save(plots.figure2_panels(records, found=readings(records)), stem)


def symbols(ax, marker):
    """Number of points drawn with a marker."""
    return sum(len(line.get_xdata()) for line in ax.lines if line.get_marker() == marker)


def test_figure2_writes_three_formats(tmp_path, records):
    paths = figure2(records, tmp_path / "deep" / "figure2")
    assert [p.name for p in paths] == ["figure2.png", "figure2.pdf", "figure2.svg"]
    assert paths[0].read_bytes()[:4] == b"\x89PNG"
    assert paths[1].read_bytes()[:5] == b"%PDF-"
    assert ET.parse(paths[2]).getroot().tag.endswith("svg")
    assert not list((tmp_path / "deep").glob(".*"))


def test_equal_records_give_equal_files(tmp_path, records):
    figures = [plots.panel(lambda ax: plots.draw_means(ax, records), records) for _ in range(2)]
    assert theme.svg_text(figures[0]) == theme.svg_text(figures[1])


def test_every_network_is_a_mark(records):
    ax = axes()
    kept = [r for r in records if r["treatment"] != "RnB"]
    plots.draw_networks(ax, kept)
    # Circles: 8 bases, 24 BnB, 24 BnB+; diamonds: 24 AnB, 24 AnB+; plus signs in the fine-tuned.
    assert symbols(ax, "o") == 56
    assert symbols(ax, "D") == 48
    assert symbols(ax, "+") == 48


def test_random_features_far_below_are_named_at_the_edge(records):
    ax = axes()
    plots.draw_networks(ax, records)
    low, _ = ax.get_ylim()
    assert low > 70
    texts = [t.get_text() for t in ax.texts]
    assert "55 %" in texts
    assert symbols(ax, "v") >= 1


def test_random_features_alone_with_bases_are_in_the_picture(records):
    few = [r for r in records if r["treatment"] in ("base", "RnB")]
    low, high = series.window(series.points_by_kind(few, "last"))
    values = [100 * r["accuracy"] for r in few]
    assert low <= min(values) and max(values) <= high


def test_diverged_networks_are_crosses(records):
    broken = [dict(r) for r in records]
    broken[5] |= {"status": "diverged", "accuracy": None}
    ax = axes()
    plots.draw_networks(ax, broken)
    assert symbols(ax, "x") == 1
    assert series.any_diverged(broken)
    assert not series.any_diverged(records)


def test_means_are_the_means(records):
    lines = series.mean_lines(simulated.study(noise=0), "last")
    assert lines["AnB"] == [
        (1, pytest.approx(89.8)),
        (2, pytest.approx(87)),
        (3, pytest.approx(82.6)),
    ]
    assert lines["base"] == [(0, pytest.approx(90))]


def test_only_supported_readings_are_drawn(records):
    found = readings(records)
    assert {2, 3, 4} <= {r.number for r in found}
    ax = axes()
    plots.draw_means(ax, records, "last", found)
    drawn = {t.get_text() for t in ax.texts if re.fullmatch(r"[1-5]", t.get_text())}
    assert drawn == {str(r.number) for r in found}
    ax = axes()
    alone = simulated.study(seeds=1)
    plots.draw_means(ax, alone, "last", readings(alone))
    assert not [t for t in ax.texts if re.fullmatch(r"[1-5]", t.get_text())]


@pytest.mark.parametrize(
    "keep",
    [
        lambda r: False,
        lambda r: r["treatment"] == "base",
        lambda r: r["treatment"] == "AnB",
        lambda r: r["treatment"] == "RnB",
        lambda r: r["name"] == "A3B",
        lambda r: r["n"] != 2,
        lambda r: r["target"] == "A",
    ],
)
def test_incomplete_sweeps_are_drawn(records, keep):
    kept = [r for r in records if keep(r)]
    assert theme.svg_text(plots.figure2_panels(kept, found=readings(kept)))
    if curves := series.mean_curves(kept):
        assert theme.svg_text(plots_training.learning_curves(curves, series.layer_names(kept)))


def test_all_diverged_is_drawn(tmp_path, records):
    kept = [r | {"status": "diverged", "accuracy": None} for r in records[:4]]
    assert figure2(kept, tmp_path / "figure2")


def test_drops_start_at_zero_and_are_paired(records):
    (line,) = series.drops(simulated.study(noise=0), "AnB", "last", "l", "AnB")
    assert line.points[0] == (0, 0.0)
    assert line.points[3] == (3, pytest.approx(-7.4))
    assert series.drops([], "AnB", "last", "l", "AnB") == []


def test_directions_have_a_line_each():
    mine = [r for r in published.records() if r["split"] == "manmade_natural"]
    a, b = series.directions(mine, published.STATISTIC, {"A": "to natural", "B": "to man-made"})
    assert dict(a.points)[7] == pytest.approx(39.90, abs=0.01)
    assert dict(b.points)[7] == pytest.approx(29.14, abs=0.01)


def test_amounts_of_data_come_from_the_records():
    lines = series.data_lines(published.records(), published.STATISTIC)
    assert list(lines) == ["base"]
    assert dict(lines["base"])[250] == pytest.approx(0.384284)


def test_only_fine_tuned_and_copied_layers_have_a_change(records):
    lines = series.change_lines(records)
    assert set(lines) == {(t, n) for t in ("AnB+", "BnB+") for n in (1, 2, 3)}
    assert lines["AnB+", 2] == pytest.approx({"conv1": 0.1, "conv2": 0.2})
    assert theme.svg_text(plots_training.layer_change(lines, series.layer_names(records)))


def test_mean_curve_leaves_out_steps_that_few_have():
    def network(steps):
        return {"curve": {"step": steps, "accuracy": [s / 10 for s in steps]}}

    curve = series.mean_curve([network([1, 2]), network([2]), network([2])])
    assert curve == [(2, pytest.approx(0.2))]


def test_curves_of_tasks_of_unequal_size_are_averaged_by_epoch():
    """By step, the mean would be the larger task's alone from where the smaller one ends, and jump between them before."""

    def network(target, steps, accuracy):
        curve = {"step": steps, "epoch": [1, 2, 3], "accuracy": accuracy}
        return {"treatment": "base", "n": 0, "target": target, "curve": curve}

    natural = network("A", [30, 60, 90], [0.5, 0.6, 0.7])
    made = network("B", [20, 40, 60], [0.7, 0.8, 0.9])
    assert series.curve_unit([natural, natural]) == "step"
    diverged = {"treatment": "base", "n": 0, "target": "A", "curve": {}}
    assert series.curve_unit([natural, made, diverged]) == "epoch"
    unit = series.curve_unit([natural, made])
    curves = series.mean_curves([natural, made], unit)
    assert unit == "epoch"
    assert curves == {("base", 0): [(e, pytest.approx(0.5 + 0.1 * e)) for e in (1, 2, 3)]}
    drawn = theme.svg_text(plots_training.learning_curves(curves, ["conv1"], unit))
    assert "Epoch" in drawn and "Training step" not in drawn


def test_published_curves_are_drawn_though_some_logs_begin_late():
    halves = [r for r in published.records() if r["split"] == "random"]
    assert len({r["curve"]["step"][0] for r in halves}) > 1
    curves = series.mean_curves(halves, series.curve_unit(halves))
    assert curves["base", 0][-1] == (450_000, pytest.approx(0.625, abs=0.002))
    assert len(curves) > 20


def test_curves_end_where_all_networks_of_one_task_have():
    """With early stopping the mean would go on as the other task's alone."""

    def network(target, level, evaluations):
        epochs = list(range(1, evaluations + 1))
        curve = {"epoch": epochs, "accuracy": [level + 0.01 * e for e in epochs]}
        return {"target": target, "curve": curve}

    found = [network("A", 0.6, 2), network("A", 0.6, 3), network("B", 0.8, 5), network("B", 0.8, 5)]
    curve = series.mean_curve(found, "epoch")
    assert curve == [(e, pytest.approx(0.7 + 0.01 * e)) for e in (1, 2, 3)]


def test_each_of_two_kinds_of_tasks_has_its_own_dotted_line():
    """Their common mean lies where no network is."""
    found = simulated.study(2, split="manmade_natural", noise=0)
    for r in found:
        r["accuracy"] -= 0.2 * (r["target"] == "A")
    study = Study("cifar10", "", tuple(found), (), {}, (), "last", None)
    networks, means = figures.figure_2(study, "manmade_natural")
    assert series.base_levels(found, "last") == [("A", pytest.approx(70)), ("B", pytest.approx(90))]
    assert "means of the bases of each task: natural 70.0 %, man-made 90.0 %." in networks.caption
    drawn = networks.drawing.arguments["records"]
    ax = axes()
    plots.draw_networks(ax, drawn)
    dotted = [line.get_ydata()[0] for line in ax.lines if list(line.get_xdata()) == [0, 1]]
    assert dotted == [pytest.approx(70), pytest.approx(90)]
    assert "unequal sets" not in means.caption
    for r in found:
        r["split"] = "random"
    (one,) = series.base_levels(found, "last")
    assert one == ("", pytest.approx(80))
    networks, _ = figures.figure_2(study, "random")
    assert "The dotted line is the mean of the bases." in networks.caption


def test_means_over_other_tasks_are_unequal_even_where_they_are_as_many():
    found = simulated.study(2, split="manmade_natural", treatments=("BnB",), layers=(1, 2))
    assert not series.unequal_sets(found, "last")
    lost = {("A1A", 0), ("B2B", 0)}
    rest = [r for r in found if (r["name"], r["split_seed"]) not in lost]
    assert series.unequal_sets(rest, "last")


def test_filters_are_drawn_with_zero_in_the_middle():
    kernel = np.random.RandomState(0).randn(3, 3, 3, 5)
    assert plots_training.picture(np.zeros((3, 3, 3))) == pytest.approx(0.5)
    shown = plots_training.picture(kernel[..., 0])
    assert shown.min() >= 0
    assert shown.max() <= 1
    assert plots_training.picture(np.ones((3, 3, 1))).shape == (3, 3)
    fits = [gabor.Fit(label) for label in gabor.LABELS]
    figure = plots_training.filter_picture([("random-0/baseA", kernel, fits)])
    texts = [t.get_text() for ax in figure.axes for t in ax.texts]
    assert texts == ["G", "B", "–", "?", "0"]


def lightness(color):
    r, g, b = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in matplotlib.colors.to_rgb(color)
    )
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    return 116 * y ** (1 / 3) - 16


def test_treatments_differ_in_grey():
    """No two treatments share both symbol and grey; lines of like symbols differ in their dashes."""
    looks = list(theme.LOOKS.items())
    for i, (name, a) in enumerate(looks):
        for other, b in looks[:i]:
            same_symbol = (a.marker, a.plus) == (b.marker, b.plus)
            apart = abs(lightness(a.face) - lightness(b.face)) > 15
            assert apart or not same_symbol, (name, other)
            assert a.line != b.line or a.marker != b.marker or name in ("BnB", "AnB")


def test_writing_where_it_cannot_be_is_one_line(tmp_path, records):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written") as e:
        figure2(records[:2], tmp_path / "file" / "figure2")
    assert "\n" not in str(e.value)


def test_settings_of_the_caller_stay_untouched(tmp_path, records):
    before = dict(matplotlib.rcParams)
    figure2(records[:8], tmp_path / "figure2")
    assert dict(matplotlib.rcParams) == before


def test_no_jax_for_reports():
    code = (
        "import sys; import yosinski_jax.report.build, experiments.report; "
        "sys.exit(any(m.split('.')[0] in ('jax', 'flax', 'tensorflow') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
