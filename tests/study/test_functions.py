import pytest

from yosinski_jax.base.errors import UserError
from yosinski_jax.study.functions import identity_of


def made(code):
    scope = {"__name__": "own"}
    exec(code, scope)
    return scope["loss"]


def test_a_name_changes_with_the_code_and_what_is_bound():
    texts = [
        "def loss(x, y): return x - y",
        "def loss(x, y): return y - x",
        "def loss(x, y): return x - y - 1",
        "def loss(x, y, z=1): return x - y",
        "def loss(x, y, z=2): return x - y",
        "def loss(x, y): return (lambda: x - y)()",
        "def loss(x, y): return (lambda: x * y)()",
    ]
    names = [identity_of(made(text), "loss") for text in texts]
    assert len({*names}) == len(texts) and all(name.startswith("own.loss-") for name in names)
    assert names == [identity_of(made(text), "loss") for text in texts]


def test_what_cannot_be_compared_needs_a_name():
    with pytest.raises(UserError, match="give loss_id as well"):
        identity_of(made("def loss(x, y, z=object()): return x"), "loss")
    with pytest.raises(UserError, match="give optimizer_id as well"):
        identity_of(max, "optimizer")
