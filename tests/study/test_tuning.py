"""Rates to choose from: what is refused, what is chosen, and who is asked."""

import dataclasses

import pytest

from yosinski_jax.base.errors import UserError
from yosinski_jax.study import recipes
from yosinski_jax.study.settings import Settings
from yosinski_jax.study.treatments import Run
from yosinski_jax.study.tuning import Tuning, best

RECIPE = dataclasses.replace(recipes.get("digits"), validation=0.1)
ASKED = ("base", "AnB", "RnB")


def resolve(rates=(0.1, 0.01), treatments=(), asked=ASKED, recipe=RECIPE):
    return Tuning.resolve(rates, treatments, asked, recipe)


def test_random_features_are_tuned_unless_others_are_named():
    assert resolve() == Tuning((0.1, 0.01), ("RnB",))
    assert resolve(treatments=["RnB", "base"]) == Tuning((0.1, 0.01), ("base", "RnB"))
    assert resolve(rates=(0.3, 0.1, 0.3)).learning_rates == (0.3, 0.1)
    assert resolve(rates=()) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rates": (0.1,)}, "tune_learning_rate=0.1: must be two or more different numbers above 0"),
        ({"rates": (0.1, 0.1)}, "must be two or more different numbers"),
        ({"rates": (0.1, -0.1)}, "must be two or more different numbers above 0"),
        ({"rates": (0.1, float("nan"))}, "must be two or more different numbers above 0"),
        ({"asked": ("base", "AnB")}, "tunes RnB, but RnB is not among treatments=base,AnB; add it"),
        ({"treatments": "BnB"}, "tunes BnB, but BnB is not among treatments"),
        ({"rates": (), "treatments": ["RnB"]}, "tune_treatments=RnB: has no effect without tune_learning_rate"),
        ({"recipe": recipes.get("digits")}, "needs held-out images to choose by"),
        (
            {"recipe": dataclasses.replace(RECIPE, optimizer=lambda: None, optimizer_id="mine")},
            "has no effect on a custom optimizer",
        ),
    ],
)  # fmt: skip
def test_what_leaves_no_choice_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        resolve(**change)


@pytest.mark.parametrize(
    ("validation", "place"),
    [([0.5, 0.7, 0.6], 1), ([0.7, 0.7], 0), ([None, 0.0], 1), ([None, None], 0), ([0.2], 0)],
)
def test_the_first_of_the_best_is_chosen_and_diverged_ones_only_if_all_are(validation, place):
    assert best(validation) == place


def test_settings_say_whose_rate_is_chosen_and_are_as_before_without():
    plain = Settings("digits", "random", "digits4", RECIPE, 4)
    tuned = dataclasses.replace(plain, tuning=resolve())
    assert "tuning" not in plain.as_json() and not plain.rates_of(Run("RnB", "A", 2))
    assert tuned.as_json()["tuning"] == {"learning_rates": [0.1, 0.01], "treatments": ["RnB"]}
    assert tuned.rates_of(Run("RnB", "A", 2)) == (0.1, 0.01)
    assert tuned.rates_of(Run("AnB", "A", 2)) == ()
