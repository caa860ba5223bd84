import pytest

from yosinski_jax.base.errors import UserError
from yosinski_jax.study.treatments import TREATMENTS, Run, grid, parse, parse_treatments


@pytest.mark.parametrize(
    "name, treatment, source, target, n, frozen, copied",
    [
        ("baseA", "base", None, "A", 0, 0, 0),
        ("B3B", "BnB", "B", "B", 3, 3, 3),
        ("B3B+", "BnB+", "B", "B", 3, 0, 3),
        ("A3B", "AnB", "A", "B", 3, 3, 3),
        ("A3B+", "AnB+", "A", "B", 3, 0, 3),
        ("A2A", "BnB", "A", "A", 2, 2, 2),
        ("B2A", "AnB", "B", "A", 2, 2, 2),
        ("R1A", "RnB", None, "A", 1, 1, 0),
        ("P3B", "PnB", None, "B", 3, 3, 3),
        ("P2A+", "PnB+", None, "A", 2, 0, 2),
        ("P2A-0025", "PnB", None, "A", 2, 2, 2),
        ("A3Bp2", "AnB", "A", "B", 3, 3, 5),
        ("baseAll", "base", None, "all", 0, 0, 0),
        ("baseAll-0250", "base", None, "all", 0, 0, 0),
        ("R3all", "RnB", None, "all", 3, 3, 0),
        ("R3all-1300", "RnB", None, "all", 3, 3, 0),
    ],
)
def test_paper_names(name, treatment, source, target, n, frozen, copied):
    run = parse(name)
    assert (run.treatment, run.source, run.target, run.n) == (treatment, source, target, n)
    assert (run.frozen, run.copied, run.name) == (frozen, copied, name)
    assert run.waits_for == (f"base{source}" if source else None)


@pytest.mark.parametrize("name", ["", "base", "C3B", "A3", "A3B++", "baseC", "A3all", "R3B-25"])
def test_parse_refuses(name):
    with pytest.raises(UserError, match="not of the form"):
        parse(name)


def test_grid_counts():
    # The digits default: 4 × (2 + 2·3·5) = 128; CIFAR-10: 2 + 2·4·4 = 34; both directions.
    assert 4 * len(grid(TREATMENTS, (1, 2, 3))) == 128
    runs = grid(TREATMENTS[:-1], (1, 2, 3, 4))
    assert len(runs) == 34
    assert len({run.name for run in runs}) == 34
    assert {run.target for run in runs if run.treatment == "AnB"} == {"A", "B"}


def test_pretrained_weights_are_a_treatment_on_request():
    names = [run.name for run in grid(("base", "PnB", "PnB+"), (1, 2))]
    assert names == [
        "baseA", "baseB", "P1B", "P1B+", "P2B", "P2B+", "P1A", "P1A+", "P2A", "P2A+"
    ]  # fmt: skip
    assert not any(run.pretrained for run in grid(TREATMENTS, (1, 2)))
    assert parse_treatments(["PnB⁺", "AnB"]) == ("base", "AnB", "PnB+")


def test_grid_preserved_layers_leave_the_last_fresh():
    names = {run.name for run in grid(("base", "BnB", "AnB"), (1, 2), preserve=(1, 2), depth=4)}
    assert names == {
        "baseA", "baseB", "B1B", "A1B", "A1A", "B1A", "B2B", "A2B", "A2A", "B2A",
        "B1Bp1", "A1Bp1", "A1Ap1", "B1Ap1", "B2Bp1", "A2Bp1", "A2Ap1", "B2Ap1",
        "B1Bp2", "A1Bp2", "A1Ap2", "B1Ap2",
    }  # fmt: skip


def test_parse_treatments():
    assert parse_treatments(["AnB⁺", "BnB"]) == ("base", "BnB", "AnB+")
    with pytest.raises(UserError, match="AnC, XnB is not a treatment; choose from base,BnB"):
        parse_treatments(["AnC", "BnB", "XnB"])


def test_run_checks_itself():
    with pytest.raises(ValueError, match="does not go with"):
        Run("base", "A", 1)
    with pytest.raises(ValueError, match="preserved layers"):
        Run("AnB+", "A", 1, preserve=1)


@pytest.mark.parametrize(
    "fields",
    [
        {"treatment": "AnB", "target": "all", "n": 1},
        {"treatment": "base", "target": "all", "images": 0},
    ],
)
def test_networks_on_all_classes_copy_nothing(fields):
    with pytest.raises(ValueError, match=r"all|images"):
        Run(**fields)


def test_small_targets_copy_from_whole_bases():
    runs = grid(("base", "AnB", "AnB+"), (1,), target_images=(25, None))
    assert [r.name for r in runs] == [
        "baseA", "baseB", "baseA-0025", "baseB-0025", "A1B-0025", "A1B+-0025", "B1A-0025", "B1A+-0025",
        "A1B", "A1B+", "B1A", "B1A+",
    ]  # fmt: skip
    assert all(parse(r.name) == r for r in runs)
    small = parse("A1B+-0025")
    assert (small.images, small.source, small.waits_for, small.copied) == (25, "A", "baseA", 1)
    assert parse("baseB-0025").waits_for is None
