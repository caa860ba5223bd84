import numpy as np
import pytest

from yosinski_jax.analysis import sequential
from yosinski_jax.analysis.sequential import GENERAL, SPECIFIC


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


@pytest.mark.parametrize("drop", [0.0, 0.02])
def test_error_rates_stay_below_alpha_at_the_edges(drop):
    rates = sequential.simulate([drop] * 4, 0.01, 10, 0.02, studies=300)
    assert rates.wrong <= 0.05
    assert rates.told > 0.3  # and it does tell
