"""The short form of bit_flips.py."""

import bit_flips
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOSINSKI_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield bit_flips.run(tmp_path_factory.mktemp("flips"), 60)


def test_no_flipped_bit_gives_other_numbers_without_a_word(counted):
    assert len(counted) == 14
    assert not {kind: counts for kind, counts in counted.items() if counts["wrong"]}
    assert all(counts["told"] + counts["same"] == 60 for counts in counted.values())


@pytest.mark.parametrize(
    "kind",
    ["label index", "pixel cache", "mean image", "plan.json, swept", "settings.json, resumed"],
)
def test_what_can_be_made_again_is(counted, kind):
    assert counted[kind]["sound again"] == 60
