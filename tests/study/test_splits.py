"""Splits: the authors' fingerprints, man-made/natural by name, and every error of a user's file."""

import hashlib
import json
from pathlib import Path

import pytest
from places import SHARED

from yosinski_jax.base.errors import UserError
from yosinski_jax.study import splits
from yosinski_jax.study.splits import Split, make_split, random_half

CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck".split()


@pytest.fixture(scope="module")
def wordnet_ids():
    path = SHARED / "tfds/imagenet2012/5.1.0/label.labels.txt"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path.read_text().split()


@pytest.mark.parametrize(
    "seed, begins",
    [
        (0, "c1aede24b4a89504"),
        (1, "f723a1d01816553c"),
        (2, "65f4ac5023d5e039"),
        (3, "cbb887cb505a7e27"),
    ],
)
def test_random_halves_are_those_of_the_paper(seed, begins):
    half = random_half(1000, seed)
    assert hashlib.sha256(",".join(map(str, half)).encode()).hexdigest().startswith(begins)


def test_random_split_goes_by_sorted_names():
    names = [f"n{i:08d}" for i in range(1000)]
    forward = make_split("random", names, 0)
    backward = make_split("random", names[::-1], 0)
    assert forward == backward
    assert [int(name[1:]) for name in forward.A[:6]] == [0, 1, 2, 5, 9, 10]
    assert sorted(forward.A + forward.B) == names
    assert forward.half("A") == forward.A and forward.half("B") == forward.B


@pytest.mark.parametrize("classes", [2, 3, 7, 10])
def test_random_split_of_any_number_of_classes(classes):
    names = [str(i) for i in range(classes)]
    split = make_split("random", names, 5)
    assert len(split.A) == classes // 2
    assert sorted(split.A + split.B) == names


def test_cifar10_natural_is_half_a():
    split = make_split("manmade_natural", CIFAR10[::-1], 3)
    assert split.A == ("bird", "cat", "deer", "dog", "frog", "horse")
    assert split.B == ("airplane", "automobile", "ship", "truck")
    assert (split.name, split.seed) == ("manmade_natural", 3)


def test_cifar100_by_superclass():
    everything = splits._CIFAR100_NATURAL | splits._CIFAR100_MANMADE
    split = make_split("manmade_natural", sorted(everything), 0)
    assert len(everything) == 100
    assert (len(split.A), len(split.B)) == (70, 30)
    assert {"apple", "baby", "maple_tree", "whale"} <= set(split.A)
    assert {"bottle", "pickup_truck", "lawn_mower", "skyscraper", "wardrobe"} <= set(split.B)


def test_wordnet_halves_are_those_of_the_paper(wordnet_ids):
    split = make_split("manmade_natural", wordnet_ids, 0)
    natural = [*range(0, 398), *range(936, 959), 970, *range(972, 999)]
    assert split.A == tuple(wordnet_ids[i] for i in natural)
    assert (len(split.A), len(split.B)) == (449, 551)


def test_wordnet_halves_do_not_depend_on_label_order(wordnet_ids):
    tfds = pytest.importorskip("tensorflow_datasets")
    path = Path(tfds.core.tfds_path("image_classification/imagenet_resized_labels.txt"))
    resized = path.read_text().split()
    assert resized != wordnet_ids
    for kind in ("random", "manmade_natural"):
        assert make_split(kind, resized, 1) == make_split(kind, wordnet_ids, 1)


def test_wordnet_halves_of_a_subset(wordnet_ids):
    whole = make_split("manmade_natural", wordnet_ids, 0)
    subset = wordnet_ids[390:410] + wordnet_ids[950:1000]
    part = make_split("manmade_natural", subset, 0)
    assert set(part.A) == set(whole.A) & set(subset)
    assert set(part.B) == set(whole.B) & set(subset)


def test_unknown_dataset_for_manmade_natural():
    with pytest.raises(UserError, match=r"not known for dataset digits.*FILE.json"):
        make_split("manmade_natural", list("0123456789"), 0, dataset="digits")


def test_unknown_kind_lists_the_kinds():
    with pytest.raises(UserError, match=r"split=radnom.*random, manmade_natural.*FILE.json"):
        make_split("radnom", CIFAR10, 0)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range(seed):
    with pytest.raises(UserError, match=str(seed)):
        make_split("random", CIFAR10, seed)


def test_repeated_label_names():
    with pytest.raises(UserError, match="repeated: a"):
        make_split("random", ["a", "b", "a"], 0)


def write(tmp_path, content):
    path = tmp_path / "mine.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_split_from_a_file_may_be_unequal_and_partial(tmp_path):
    path = write(tmp_path, {"A": ["dog", "cat"], "B": ["truck"]})
    assert make_split(path, CIFAR10, 2) == Split("mine", 2, ("cat", "dog"), ("truck",))


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "not valid JSON"),
        ([["cat"], ["dog"]], "keys A and B"),
        ({"A": ["cat"]}, "keys A and B"),
        ({"A": ["cat"], "B": ["dog"], "C": []}, "unknown keys C"),
        ({"A": "cat", "B": ["dog"]}, "A must be a list of label names"),
        ({"A": ["cat"], "B": [1.5]}, "B must be a list of label names"),
        ({"A": [], "B": ["dog"]}, "A is empty"),
        ({"A": ["cat", "dog", "bird"], "B": ["dog", "cat"]}, "in both A and B: cat, dog"),
        ({"A": ["cat", "cat"], "B": ["dog"]}, "named twice in A: cat"),
        (
            {"A": ["cow", "cat"], "B": ["yak", "dog"]},
            "not among the classes of cifar10.*: cow, yak",
        ),
        ({"A": ["cow", "cat"], "B": ["cat"]}, "in both A and B: cat; .*: cow"),
    ],
)
def test_errors_of_a_split_file(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(UserError, match=message) as caught:
        make_split(path, CIFAR10, 0, dataset="cifar10")
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_split_file(tmp_path):
    with pytest.raises(UserError, match=r"none\.json: no such file"):
        make_split(str(tmp_path / "none.json"), CIFAR10, 0)


@pytest.mark.parametrize("name", ["random", "manmade_natural", "all", "paper"])
def test_file_must_not_take_a_built_in_name(tmp_path, name):
    path = tmp_path / f"{name}.json"
    path.write_text("{}")
    with pytest.raises(UserError, match="rename"):
        make_split(str(path), CIFAR10, 0)
