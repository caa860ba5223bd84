import math

from measured import study

from yosinski_jax.analysis import predictors
from yosinski_jax.report import plots_measures
from yosinski_jax.report.sections.measures import _by_layer


def test_figures_of_measures_and_of_what_predicts(tmp_path):
    records, values = study(pairs=3)
    values.append(
        predictors.Value("random-0/baseA", "all", "good", 1.0, 0.0)
    )  # has no place by layer
    found = predictors.predictors(values, records)
    paths = plots_measures.write(tmp_path, values, found)
    assert [path.name for path in paths] == [
        "measures.png",
        "measures.svg",
        "predictors.png",
        "predictors.svg",
    ]
    assert all(path.stat().st_size > 5000 for path in paths)
    panels = [ax for ax in plots_measures.by_layer(values).axes if ax.get_visible()]
    assert [ax.get_title("left") or ax.get_title() for ax in panels] == ["good", "noise", "deep"]
    assert [t.get_text() for t in panels[0].get_xticklabels()] == [
        "conv1",
        "conv2",
        "conv3",
        "conv4",
    ]
    assert len(panels[0].lines) == 7  # six bases and their mean
    figure = plots_measures.what_predicts(found)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == [
        "depth",
        "good",
        "noise",
        "deep",
    ]


def test_nothing_to_draw(tmp_path):
    assert plots_measures.write(tmp_path, [], []) == []
    one = predictors.Value("random-0/baseA", "conv1", "rank", 3.0, 0.1)
    assert len(plots_measures.write(tmp_path, [one], [])) == 2


def test_a_measure_that_is_undefined_for_a_base_is_left_out_of_the_mean():
    values = [
        predictors.Value(f"random-0/base{h}", "conv1", "cka", v, 0.1)
        for h, v in (("A", 0.5), ("B", math.nan))
    ]
    assert _by_layer(values).rows == [["cka", "0.500"]]
