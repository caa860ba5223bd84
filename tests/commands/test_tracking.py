"""The flags of trackers."""

import types

import pytest
from absl import flags
from absl.testing import flagsaver

from yosinski_jax.base.errors import UserError
from yosinski_jax.commands import tracking
from yosinski_jax.sweep import trackers


@pytest.fixture(autouse=True)
def parsed():
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["test"])


def test_without_them_the_display_is_left_alone():
    display = types.SimpleNamespace()
    with tracking.fed(display) as fed:
        assert fed is display


def test_they_name_trackers(tmp_path, monkeypatch):
    for module, flag in (("tensorboardX", "tensorboard"), ("wandb", "wandb")):
        found = types.ModuleType(module)
        found.SummaryWriter = None
        monkeypatch.setitem(__import__("sys").modules, module, found)
        told = types.SimpleNamespace(plan=lambda sweep, done: None)
        with flagsaver.flagsaver(**{flag: str(tmp_path)}), tracking.fed(told) as fed:
            assert isinstance(fed, trackers.Tracked)
            fed.plan(types.SimpleNamespace(folder=tmp_path, records={}), 0)


def test_a_package_that_is_missing_is_told_before_anything_is_read(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with (
        flagsaver.flagsaver(wandb="p"),
        pytest.raises(UserError, match=r"wandb=p: .*yosinski-jax\[wandb\]"),
        tracking.fed(None),
    ):
        pass
