"""What the page says of a validation part, true of the records it is said of."""

import pytest
import simulated

from yosinski_jax.analysis.results import Study
from yosinski_jax.report.sections.report import Report
from yosinski_jax.report.sections.reproduce import method


def said(records):
    """The sentences about validation under Methods."""
    study = Study("digits", "digits", tuple(records), (), {}, (), "last", None)
    part = method(Report(study, {}))
    assert part is not None
    return [text for name, text in part.values["facts"] if name == "Validation"]


def test_the_test_of_dissimilar_tasks_is_explained_where_it_is_made():
    far = simulated.study(1, split="manmade_natural")
    for records, made in ((far, False), (simulated.study(2) + far, True)):
        study = Study("digits", "digits", tuple(records), (), {}, (), "last", None)
        part = method(Report(study, {}))
        assert part and ("Dissimilar tasks" in dict(part.values["facts"])) == made


def test_nothing_is_said_where_nothing_was_held_out():
    assert said(simulated.study(1)) == []


@pytest.mark.parametrize("early", [0, 3])
def test_early_stopping_is_told_with_how_many_stopped(early):
    records = simulated.study(1)
    for i, record in enumerate(records):
        record |= {"validation_images": 65, "chosen_step": 10}
        record["stopped_at_step"] = 40 if i < early else None
    (text,) = said(records)
    assert text.startswith("65 training images of each task are held out")
    assert f"and {early} of {len(records)} stopped before the end" in text and "rate" not in text


def test_a_chosen_rate_is_told():
    records = simulated.study(1, rates={"RnB": (0.1, 0.01)})
    for i, record in enumerate(records):
        record["validation_images"] = 5 if i else 65
    (text,) = said(records)
    assert text.startswith("5 to 65 training images") and "not retrained on all images" in text
    assert "stopped before" not in text
