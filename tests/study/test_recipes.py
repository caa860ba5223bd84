import json

import pytest

from yosinski_jax.base.errors import UserError
from yosinski_jax.study.recipes import RECIPES, Recipe, default_recipe, get


def recipe(**fields):
    return Recipe("mine", learning_rate=0.1, batch_size=8, epochs=2, **fields)


def test_presets_are_json():
    for name, preset in RECIPES.items():
        assert json.loads(json.dumps(preset.as_json())) == preset.as_json(), name


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"optimizer": "sdg"}, "optimizer=sdg: is not a optimizer; choose from sgd, adamw"),
        ({"schedule": "linear"}, "schedule=linear: is not a schedule; choose from constant, cosine"),
        ({"warmup": 1.5}, "recipe mine: warmup is 1.5, must be at least 0 and below 1"),
        ({"drop_at": (0.5, 60)}, r"drop_at \(60\) is 60, must be"),
        ({"crop_padding": -1}, "clip and crop_padding cannot be below 0"),
        ({"loss": max}, "give loss and loss_id together"),
        ({"metric_id": "top5"}, "give metric and metric_id together"),
        ({"optimizer": max}, "give optimizer and optimizer_id together"),
        ({"optimizer_id": "mine"}, "give optimizer and optimizer_id together"),
        ({"optimizer": max, "optimizer_id": "m", "clip": 1.0}, "a custom optimizer ignores"),
        ({"loss": max, "loss_id": "m", "label_smoothing": 0.1}, "a custom loss ignores label_smoothing"),
        ({"optimizer": "adamw", "caffe_momentum": True}, "adamw ignores caffe_momentum"),
    ],
)  # fmt: skip
def test_what_a_recipe_refuses(fields, message):
    with pytest.raises(UserError, match=message):
        recipe(**fields)


def test_callables_are_known_by_their_names():
    own = recipe(loss=max, loss_id="hinge", optimizer=min, optimizer_id="lion")
    assert own.as_json()["loss"] == "hinge" and own.as_json()["optimizer"] == "lion"
    assert own.as_json() != recipe(loss=max, loss_id="other").as_json()


def test_preset_of_a_network():
    assert default_recipe("resnet18", (32, 32, 3)) == "resnet20"
    assert default_recipe("resnet18", (256, 256, 3)) == default_recipe("resnet50") == "resnet"
    assert get(default_recipe("vit_tiny")).optimizer == "adamw"
    assert default_recipe("mine.py:Net") == "cifar"
    assert get("resnet20").augments and not get("cifar").augments


def test_few_images_get_as_many_steps_in_smaller_batches():
    recipe = Recipe("r", learning_rate=0.1, batch_size=64, epochs=3)
    few = recipe.on_few(10, 650)
    assert (few.batch_size, few.steps_for(10), few.steps_to_evaluation(10)) == (10, 30, 10)
    assert recipe.on_few(100, 650).batch_size == 64


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"validation": 1.0}, "validation=1: must be a fraction of the training images"),
        ({"validation": -0.1}, "validation=-0.1: must be a fraction"),
        ({"validation": 0.1, "patience": -1}, "patience=-1: must be a whole number of evaluations"),
        (
            {"patience": 3},
            "patience=3: early stopping needs held-out images",
        ),
    ],
)
def test_validation_and_patience_are_checked(fields, message):
    with pytest.raises(UserError, match=message):
        recipe(**fields)


def test_a_recipe_without_validation_is_described_as_before_there_was_any():
    assert not {"validation", "patience"} & recipe().as_json().keys()
    stops = recipe(validation=0.1, patience=3).as_json()
    assert (stops["validation"], stops["patience"]) == (0.1, 3)


def test_values_of_the_optimizer():
    assert [get(name).moments for name in ("cifar", "vit")] == [1, 2]
    assert recipe(momentum=0.0).moments == 0 and recipe(optimizer="adamw").moments == 2
