"""The paper's plan against the published logs and counts; what plans cost against numbers worked out by hand."""

import collections
import dataclasses

import numpy as np
import pytest

from yosinski_jax.analysis import published
from yosinski_jax.base.errors import UserError
from yosinski_jax.data import dataset
from yosinski_jax.networks import convnets, costs
from yosinski_jax.networks.network import Network
from yosinski_jax.study import recipes
from yosinski_jax.study.plan import networks
from yosinski_jax.study.settings import Settings
from yosinski_jax.study.treatments import PAPER_REDUCED, TREATMENTS
from yosinski_jax.sweep import pricing
from yosinski_jax.sweep.runner import Sweep

# A thousand ids on both sides of every boundary between natural and man-made classes.
IDS = [f"n{number:08d}" for number in range(1_440_764, 15_100_764, 13_660)][:1000]
PAPER = Settings(
    "imagenet2012", "paper", "caffenet", recipes.get("paper"), 8,
    seeds=(0, 1, 2, 3), treatments=TREATMENTS[:-1], reduced=PAPER_REDUCED,
    reduced_recipe=recipes.get("paper_reduced"), head="dataset",
)  # fmt: skip


def test_163_networks_of_the_paper():
    planned = networks(PAPER, IDS)
    assert len(planned) == len({p.id for p in planned}) == 163
    kinds = collections.Counter(
        "reduced" if p.run.images else p.run.name if p.run.target == "all"
        else "base" if p.run.treatment == "base" else "transfer"
        for p in planned
    )  # fmt: skip
    # The blocks of the authors' README.
    assert kinds == {"base": 10, "transfer": 140, "baseAll": 1, "reduced": 12}
    of_splits = collections.Counter(p.split.name + str(p.split.seed) for p in planned)
    assert of_splits["random0"] == of_splits["random1"] == 2 + 6 * 7
    assert of_splits["random2"] == of_splits["random3"] == 2 + 3 * 7
    assert of_splits["manmade_natural0"] == 2 + 2 * 7


def test_every_network_with_a_published_log_is_in_the_plan():
    with_random = dataclasses.replace(PAPER, treatments=TREATMENTS)
    planned = {p.id for p in networks(with_random, IDS)}
    assert len(planned) == 163 + 7
    logs = {f"{r['split']}-{r['split_seed']}/{r['name']}" for r in published.records()}
    assert len(logs) == 148
    assert logs <= planned


def test_bases_stand_before_what_waits_for_them():
    seen = set()
    for planned in networks(PAPER, IDS):
        assert planned.waits_for is None or planned.waits_for in seen, planned.id
        seen.add(planned.id)


def test_the_recipe_of_reduced_data():
    """As the solver files of the reduced data sets differ from the others."""
    name = recipes.reduced("paper")
    one, other = (dataclasses.asdict(recipes.get(n)) for n in (name, "paper"))
    assert {k: v for k, v in one.items() if v != other[k]} == {
        "name": "paper_reduced", "learning_rate": 0.0125, "drop_every": 64_000, "iterations": 200_000,
    }  # fmt: skip
    assert recipes.reduced("digits") == "digits"


def test_the_paper_needs_wordnet_ids():
    with pytest.raises(UserError, match="split=paper: not known for dataset letters"):
        networks(PAPER, ["a", "b", "c"], "letters")


def imagenet(images_of_a_class=4):
    """Noise with the labels of ImageNet."""
    labels = np.repeat(np.arange(1000, dtype=np.int32), images_of_a_class)
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 3), np.uint8)
    return dataset.from_arrays("tiny", pixels, labels, pixels[::4], labels[::4], IDS)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    recipe = recipes.Recipe("tiny", learning_rate=0.01, batch_size=50, epochs=3, evaluate_every=2)
    reduced = dataclasses.replace(recipe, name="tiny_reduced", epochs=1)
    settings = Settings(
        "tiny", "paper", "digits4", recipe, 4, seeds=(0, 1, 2, 3), treatments=TREATMENTS,
        reduced=(1, 2), reduced_recipe=reduced, head="dataset",
    )  # fmt: skip
    model = lambda classes: Network.of(convnets.make("digits4", 1000, (8, 8, 3)))
    folder = tmp_path_factory.mktemp("sweep")
    return Sweep(settings, imagenet(), model, folder, feature_bytes=10**9)


def test_tasks_and_recipes_of_the_papers_networks(sweep):
    by_id = {p.id: p for p in sweep.planned}
    sizes = {name: len(sweep.task(p).train_index) for name, p in by_id.items()}
    assert sizes["random-2/baseA"] == sizes["random-0/A3B+"] == 500 * 4
    assert sizes["all-0/baseAll"] == sizes["all-0/R2all"] == 4000
    assert (sizes["all-0/baseAll-0001"], sizes["all-0/baseAll-0002"]) == (1000, 2000)
    assert sizes["manmade_natural-0/baseA"] + sizes["manmade_natural-0/baseB"] == 4000
    assert sweep.recipe(by_id["all-0/baseAll-0001"]).name == "tiny_reduced"
    assert sweep.recipe(by_id["all-0/R2all"]).name == "tiny"
    # Groups hold networks of one recipe, and all of them once.
    assert sorted(m.id for g in sweep.groups for m in g.members) == sorted(by_id)
    assert all(len({sweep.recipe(m) for m in g.members}) == 1 for g in sweep.groups)


def test_prices_worked_out_by_hand(sweep):
    by_id = {p.id: pricing.price(sweep, p) for p in sweep.planned}
    network = Network.of(convnets.make("digits4", 1000, (8, 8, 3)))
    forward = [layer.forward_flops for layer in costs.layer_costs(network, (8, 8, 3))]
    base = by_id["random-0/baseA"]
    step = costs.step_cost(network, (8, 8, 3), batch_size=50)
    # 2000 images in batches of 50, 3 epochs, evaluated after 2 and at the end, on 500 images.
    tests = len(sweep.task(base.planned).test_index)
    assert (base.steps, base.evaluations, base.step) == (3 * 40, 2, step)
    assert base.flops == 120 * step.flops + 2 * tests * sum(forward)
    # A frozen prefix is computed once for every image, and passed over afterwards.
    frozen = by_id["random-0/A2B"]
    step = costs.step_cost(network, (8, 8, 3), batch_size=50, frozen=2, prefix_cached=True)
    tests = len(sweep.task(frozen.planned).test_index)
    once = (2000 + tests) * sum(forward[:2])
    assert frozen.flops == 120 * step.flops + 2 * tests * sum(forward[2:]) + once
    reduced = by_id["all-0/baseAll-0001"]
    assert (reduced.steps, reduced.evaluations) == (20, 1)


def test_totals_worked_out_by_hand(sweep):
    prices = [pricing.price(sweep, p) for p in sweep.planned]
    total = pricing.total(sweep, prices)
    assert total.flops == pytest.approx(sum(p.flops for p in prices))
    size = sum(costs.layer_costs(Network.of(convnets.make("digits4", 1000, (8, 8, 3))), (8, 8, 3))[i].parameters
               for i in range(4))  # fmt: skip
    bases = 4 * size * (2 * 4 + 2 + 1 + 2)
    largest = max(g.replicas for g in sweep.groups)
    saves = 3 * 4 * 2 * size * largest
    evaluations = sum(p.evaluations for p in prices)
    assert total.disk_bytes == bases + saves + 8_192 * len(prices) + 100 * evaluations
    images = 5000 * 8 * 8 * 3
    assert total.device_bytes > images + 3 * 4 * size
    assert total.devices in (1, 2)
