from yosinski_jax.study import pairs, splits

CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck".split()


def test_equal_halves_draw_from_the_larger_one():
    split = splits.make_split("manmade_natural", CIFAR10, 0)
    draws = [pairs.equal_halves(split, seed) for seed in range(5)]
    assert all(len(d.A) == len(d.B) == 4 and d.name == "manmade_natural_equal" for d in draws)
    assert all(set(d.A) < set(split.A) and d.B == split.B for d in draws)
    assert len({d.A for d in draws}) > 1  # several draws, and each the same again
    assert pairs.equal_halves(split, 3) == draws[3]


def test_two_datasets_share_the_target_of_a_random_split():
    names = [f"digits/{i}" for i in range(10)] + [f"cifar10/{n}" for n in CIFAR10]
    split = pairs.two_datasets(names, "digits", "cifar10", 2)
    own = splits.make_split("random", CIFAR10, 2)
    assert split.name == "from_digits" and split.B == tuple(f"cifar10/{n}" for n in own.B)
    assert len(split.A) == 5 and all(n.startswith("digits/") for n in split.A)
    own = pairs.two_datasets(names, "cifar10", "cifar10", 2)
    assert own.B == split.B and {*own.A, *own.B} == {f"cifar10/{n}" for n in CIFAR10}
