"""What a sweep tells while it works."""

import types

import pytest

from yosinski_jax.commands import display


def group(name, frozen=0):
    return types.SimpleNamespace(
        id=name,
        frozen=frozen,
        title=f"random-0/{name}",
        members=(types.SimpleNamespace(id=f"random-0/{name}"),),
    )


def sweep(*groups):
    """One network a group, 100 steps of a batch of 10 each."""
    trainer = types.SimpleNamespace(schedule=lambda images: (100, 1))
    return types.SimpleNamespace(
        groups=groups,
        planned=[g.members[0] for g in groups],
        records={},
        settings=types.SimpleNamespace(depth=4),
        trainer=lambda planned: trainer,
        task=lambda planned: types.SimpleNamespace(train_index=range(1000)),
        recipe=lambda planned: types.SimpleNamespace(batch_size=10),
    )


def population(done):
    return types.SimpleNamespace(
        done=done, total=100, images=done * 10, unit="step", finished=done == 100
    )


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(display.planning, "describe", lambda sweep, done: "the plan")
    return now


@pytest.mark.parametrize("resumed_at", [0, 50])
def test_time_left_does_not_count_what_a_save_brought_along(clock, capsys, resumed_at):
    groups = group("baseA"), group("baseB")
    with display.Display() as shown:
        shown.plan(sweep(*groups), 0)
        shown.progress(sweep(*groups), groups[0], population(resumed_at))
        clock[0] += 20
        shown.progress(sweep(*groups), groups[0], population(resumed_at + 40))
    # 40 steps in 20 s; what is left of 100 here and 100 there.
    left = (160 - resumed_at) / 40 * 20
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"0/2 networks; random-0/baseA step {resumed_at + 40}/100, 20 images/s, {left:.0f} s left"
    )


def test_a_page_that_fails_does_not_stop_the_training(clock, capsys, monkeypatch):
    def fails(folder):
        raise OSError("no such\nbucket")

    groups = (group("baseA"),)
    with display.Display(every_few_minutes=fails) as shown:
        shown.plan(sweep(*groups), 0)
        clock[0] += 10_000
        shown.recorded(types.SimpleNamespace(folder="w", records={}), {"status": "finished"})
    assert "the interim page was not written: no such" in capsys.readouterr().out


def test_frozen_layers_count_for_less(clock, capsys):
    groups = group("baseA"), group("B2B", frozen=2)
    with display.Display() as shown:
        shown.plan(sweep(*groups), 0)
        shown.progress(sweep(*groups), groups[0], population(0))
        clock[0] += 20
        shown.progress(sweep(*groups), groups[0], population(50))
    # 50 steps in 20 s; 50 more and a hundred of half the work are left.
    assert capsys.readouterr().out.splitlines()[-1].endswith("40 s left")
