import re

import pytest
import simulated
from simulated import LEADS
from simulated import several_bases as study

from yosinski_jax.analysis import base_datasets


def test_order_gains_and_leads_are_those_that_were_made():
    found = base_datasets.orders(study())
    assert [(o.treatment, o.n) for o in found] == [("AnB", 1), ("AnB", 2), ("AnB+", 1), ("AnB+", 2)]
    for order in found:
        assert list(order.gains) == ["near", "far", "noise"] and order.told
        for base, gain in order.gains.items():
            assert gain.value == pytest.approx(LEADS[base], abs=0.01)
            assert gain.low < gain.value < gain.high
        assert order.behind("far") == ["noise"] and len(order.leads) == 3


def test_bases_that_do_not_differ_are_not_told_apart():
    found = base_datasets.orders(study(leads={"near": 0.1, "far": 0.1, "noise": 0.0}, noise=0.004))
    assert not any(o.told for o in found)
    said = base_datasets.answer(found)
    assert said[0] == ("Best base for frozen copies (AnB): inconclusive at n = 1 and 2.")
    assert any("leads noise by" in line for line in said)


def test_a_seed_without_one_of_the_bases_is_left_out():
    records = study()
    cut = [r for r in records if not (r["split"] == "from_far" and r["split_seed"] == 3)]
    # Seed 3 of the others would move the means if it were not left out.
    for r in cut:
        if r["split_seed"] == 3:
            r["accuracy"] = 0.01
    found = base_datasets.orders(cut)
    assert {o.seeds for o in found} == {3}
    assert found[0].gains[found[0].best].value == pytest.approx(0.1, abs=0.01)


def test_the_other_direction_and_one_base_alone_are_passed_over():
    assert not base_datasets.orders(study(leads={"near": 0.1}))
    assert not base_datasets.orders([r for r in study() if r["target"] == "A"])
    assert not base_datasets.orders(simulated.study(2))


def test_one_seed_is_tested_over_images_and_says_so():
    found = base_datasets.orders(study(1, bits=True))
    assert {lead.scope for o in found for lead in o.leads.values()} == {"images"}
    assert all(g.low is None for o in found for g in o.gains.values())
    assert "hold for these networks only" in base_datasets.answer(found)[-1]
    assert "without a test" in base_datasets.answer(base_datasets.orders(study(1)))[-1]


def test_numbers_of_the_sentences_are_those_of_the_table():
    found = base_datasets.orders(study())
    rows = base_datasets.table(found)[1]
    line = next(x for x in base_datasets.answer(found) if x.startswith("AnB, n = 2"))
    for row in rows:
        if row[:2] == ["AnB", "2"]:
            assert f"{row[3]} {row[5]}" in line
    assert len(re.findall(r"leads", line)) == 3


def test_split_seeds_of_classes_of_unequal_size_all_count():
    records = study()
    for r in records:
        r["train_images"] += r["split_seed"]
    assert {o.seeds for o in base_datasets.orders(records)} == {4}
    few = [
        r | {"images_per_class": 5, "accuracy": 0.0, "name": f"{r['name']}-0005"} for r in records
    ]
    assert base_datasets.orders([*records, *few]) == base_datasets.orders(records)


def test_an_n_with_one_seed_among_others_is_told():
    cut = [r for r in study(2) if (r["split_seed"], r["n"]) != (1, 2)]
    text = base_datasets.answer(base_datasets.orders(cut))[-1]
    assert text.startswith("1 to 2 split seeds") and "Where there is only one" in text
