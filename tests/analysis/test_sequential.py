import numpy as np
import pytest

from yosinski_jax.analysis import sequential
from yosinski_jax.analysis.sequential import GENERAL, SPECIFIC
from yosinski_jax.base.files import sealed, write_json


def test_parts_add_up_to_alpha():
    assert sum(sequential.spent(k, 16) for k in range(17)) == pytest.approx(0.05)
    assert sequential.spent(2, 16) == 0 and sequential.spent(3, 3) == pytest.approx(0.05)


def test_clear_cases_are_told_and_stay_told():
    rng = np.random.default_rng(0)
    drops = {1: 0.0005 * rng.standard_normal(8), 2: 0.1 + 0.001 * rng.standard_normal(8)}
    verdicts, stop = sequential.decide(drops, 16, 0.02)
    assert stop and (verdicts[1].what, verdicts[2].what) == (GENERAL, SPECIFIC)
    later = sequential.decide({n: [*v, 5.0, -5.0] for n, v in drops.items()}, 16, 0.02)[0]
    assert later == verdicts  # told before the wild values came


def test_what_cannot_be_told_goes_on_to_the_most():
    wild = np.random.default_rng(1).standard_normal(16)
    assert sequential.decide({1: wild[:6]}, 16, 0.02) == ({}, False)
    assert sequential.decide({1: wild}, 16, 0.02)[1]


def error_rates(true_drops, spread, most, margin, studies):
    """Shares of studies with a wrong verdict and of verdicts reached, and mean split seeds used."""
    rng = np.random.default_rng(0)
    wrong = told = used = 0
    for _ in range(studies):
        # All n of a split seed vary together too.
        noise = rng.standard_normal(most) + rng.standard_normal((len(true_drops), most))
        values = np.asarray(true_drops)[:, None] + spread * np.sqrt(0.5) * noise
        for count in range(sequential.FIRST_LOOK, most + 1):
            seen = {n + 1: row[:count] for n, row in enumerate(values)}
            verdicts, stop = sequential.decide(seen, most, margin)
            if stop:
                break
        # A drop between 0 and the margin is both: neither verdict is wrong then.
        wrong += any(
            (v.what == SPECIFIC and true_drops[n - 1] <= 0)
            or (v.what == GENERAL and true_drops[n - 1] >= margin)
            for n, v in verdicts.items()
        )
        told += len(verdicts) / len(true_drops)
        used += count
    return wrong / studies, told / studies, used / studies


@pytest.mark.parametrize("drop", [0.0, 0.02])
def test_error_rates_stay_below_alpha_at_the_edges(drop):
    wrong, told, _ = error_rates([drop] * 4, 0.01, 10, 0.02, studies=300)
    assert wrong <= 0.05
    assert told > 0.3  # and it does tell


def record(seed, name, treatment, n, accuracy, **more):
    return {
        "status": "finished", "split_seed": seed, "name": name, "treatment": treatment, "n": n, "target": name[2:3],
        "accuracy": accuracy,
    } | more  # fmt: skip


def study(seeds, drop):
    return [
        record(s, f"{source}{n}{target}", kind, n, 0.9 - (drop(s, n) if kind == "AnB" else 0))
        for s in range(seeds)
        for n in (1, 2)
        for target in "AB"
        for kind, source in (("BnB", target), ("AnB", {"A": "B", "B": "A"}[target]))
    ]


def test_drops_are_means_over_both_targets_of_whole_seeds():
    records = study(3, lambda s, n: 0.01 * n + 0.001 * s)
    assert sequential.drops(records)[2] == pytest.approx([0.02, 0.021, 0.022])
    records += [
        record(0, "A1B+", "AnB+", 1, 0.1),
        record(0, "A1B-0005", "AnB", 1, 0.1),  # on few images
        record(0, "A1Bp1", "AnB", 1, 0.1, preserve=1),
    ]
    assert sequential.drops(records)[1] == pytest.approx([0.01, 0.011, 0.012])
    lost = [r for r in records if (r["split_seed"], r["name"]) != (1, "B2A")]
    assert {n: len(v) for n, v in sequential.drops(lost).items()} == {1: 2, 2: 2}


def test_what_the_rule_came_to_is_told_and_kept(tmp_path):
    wobble = lambda s: 1e-4 * (-1) ** s
    found = sequential.stopping(study(4, lambda s, n: (n - 1) * 0.1 + wobble(s)), (1, 2), 16, 0.02)
    assert found.stops and found.saved == 12 * 8
    assert found.in_words().startswith(
        "4 of at most 16 split seeds: specific at n = 2, general within 2 points at n = 1; "
        "32 networks, 96 fewer than 16 split seeds would take."
    )
    write_json(tmp_path / sequential.FILE, sealed(found.as_json()))
    assert sequential.read(tmp_path) == found
    wide = sequential.stopping(study(4, lambda s, n: 0.5 * (-1) ** s), (1, 2), 16, 0.02)
    assert not wide.stops and "inconclusive at n = 1, 2" in wide.in_words()
    assert sequential.stopping(study(4, lambda s, n: 0.5 * (-1) ** s), (1, 2), 4, 0.02).stops
    assert sequential.read(tmp_path / "none") is None


def test_drops_that_agree_by_chance_on_few_images_are_no_proof():
    """As one test image of 180 in each of three split seeds."""
    drops = {1: [0.5 / 180] * 3}
    assert sequential.decide(drops, 16, 0.02)[0][1].what == SPECIFIC
    assert sequential.decide(drops, 16, 0.02, resolution=1 / 180)[0][1].what == GENERAL
    records = [r | {"test_images": 180} for r in study(3, lambda s, n: 0.5 / 180)]
    assert not sequential.stopping(records, (1, 2), 16, 0.003).verdicts
