import pytest

from yosinski_jax.base.errors import UserError
from yosinski_jax.measures import registry

NAMES = [
    "cka", "hscore", "interpolation", "leep", "logme", "nce", "probe", "procrustes", "rank", "reinit", "rerandom",
    "rgn", "speed", "transrate",
]  # fmt: skip


def test_every_file_with_a_measure_is_found():
    assert set(NAMES) <= registry.measures().keys()
    trains = [m.trains for m in registry.measures().values()]
    assert trains == sorted(trains)  # what is cheap comes first
    for m in registry.measures().values():
        assert (len(m.about) > 30 and ":" in m.about) or "." in m.about, m.name


def test_a_value_stands_for_its_measure():
    assert [m.name for m in registry.choose(["probe_other", "cka"])] == ["cka", "probe"]
    assert registry.measures()["probe"].names == ("probe", "probe_other")


def test_unknown_names_are_told_in_one_line():
    with pytest.raises(
        UserError, match=r"measures=cka,ckb,x: ckb, x is not a measure; choose from .*cka,"
    ) as e:
        registry.choose(["cka", "ckb", "x"])
    assert "\n" not in str(e.value)
    with pytest.raises(UserError, match="nothing is not a measure"):
        registry.choose([])


def test_two_files_cannot_share_a_name():
    def compute(subject):
        return 0.0

    with pytest.raises(ValueError, match="two measures are called cka"):
        registry.measure("cka")(compute)
