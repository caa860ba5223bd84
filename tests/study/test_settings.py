"""Defaults and checks of a request's grid."""

import pytest

from yosinski_jax.base.errors import UserError
from yosinski_jax.study import recipes
from yosinski_jax.study.plan import networks
from yosinski_jax.study.settings import Settings
from yosinski_jax.study.treatments import PAPER_REDUCED, TREATMENTS

SIZES = {str(i): 130 + i for i in range(10)}
DIGITS = recipes.get("digits")


def resolved(recipe=DIGITS, sizes=SIZES, **given):
    return Settings.resolve("data", "digits4", 4, recipe, class_sizes=sizes, **given)


def test_defaults_are_filled_in_once():
    settings = resolved()
    assert (settings.split, settings.seeds, settings.layers) == ("random", (0,), (1, 2, 3))
    assert settings.treatments == TREATMENTS[:-1]
    assert (settings.images_per_class, settings.head) == (None, "task")
    small = resolved(small=True, images_by_default=130)
    assert (small.seeds, small.treatments) == ((0, 1, 2, 3), TREATMENTS)
    assert small.images_per_class == 130
    whole = resolved(split="all", small=True, reduced_recipe=recipes.get("cifar"))
    assert (whole.seeds, whole.treatments, whole.reduced) == ((0,), ("base",), ())
    assert whole.reduced_recipe is None, "there is no reduced data"
    paper = resolved(recipes.get("paper"), reduced_recipe=recipes.get("paper_reduced"))
    assert (paper.split, paper.head, len(paper.seeds)) == ("paper", "dataset", 4)
    assert paper.reduced == PAPER_REDUCED
    assert paper.reduced_recipe == recipes.get("paper_reduced")


def test_four_seeds_of_all_classes_are_four_networks():
    planned = networks(resolved(split="all", seeds=4), list(SIZES))
    assert [p.id for p in planned] == [f"all-{seed}/baseAll" for seed in range(4)]
    several = resolved(split="all", seeds=2, images_per_class=[5, 9])
    assert [p.id for p in networks(several, list(SIZES))] == [
        "all-0/baseAll-0005", "all-0/baseAll-0009", "all-1/baseAll-0005", "all-1/baseAll-0009",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "given, message",
    [
        ({"seeds": 0}, "seeds=0: must be at least 1"),
        ({"seeds": 2_000_000}, "seeds=2000000: must be at least 1 and at most"),
        ({"seeds": [2**32]}, "seeds: each seed must be between 0 and 4294967295"),
        ({"images_per_class": 140}, "images_per_class=140: must be at least 1, and at most 139"),
        ({"images_per_class": [3, 5]}, "images_per_class=3,5: several numbers need split=all"),
        ({"target_images": [140]}, "target_images_per_class=140: must be at least 1, and at most"),
        ({"target_images": [0]}, "target_images_per_class=0: must be at least 1"),
        ({"split": ""}, "split=: "),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(given, message):
    with pytest.raises(UserError, match=message):
        networks(resolved(**given), list(SIZES))
