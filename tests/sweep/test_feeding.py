import pytest

from yosinski_jax.base.errors import UserError
from yosinski_jax.data.dataset import load
from yosinski_jax.sweep.feeding import Feeding


@pytest.mark.parametrize(
    "asked, shape, streams",
    [
        (Feeding(), (8, 8, 1), False),
        (Feeding(image_size=12), (12, 12, 1), True),
        (Feeding("stream"), (8, 8, 1), True),
        (Feeding("resident", feature_cache=0), (8, 8, 1), False),
    ],
)
def test_what_is_chosen(asked, shape, streams):
    trainer, fed = asked.choose(load("digits"))
    assert tuple(fed) == shape
    assert ("streaming" in trainer.keywords) == streams  # pyright: ignore


@pytest.mark.parametrize(
    "asked, message",
    [
        (Feeding(workers=2), "workers=2: only works with input=stream"),
        (Feeding("resident", image_size=12), "image_size=12: only works with input=stream"),
        (Feeding(skip_corrupt=True), "skip_corrupt=True: only works with input=stream"),
        (
            Feeding("stream", feature_cache=0),
            "feature_cache=off: only works with input=resident",
        ),
    ],
)
def test_what_has_no_effect_is_refused(asked, message):
    with pytest.raises(UserError, match=message):
        asked.choose(load("digits"))
