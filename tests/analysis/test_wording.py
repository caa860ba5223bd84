"""How names and titles are written."""

import pytest
from simulated import study

from yosinski_jax.analysis import results
from yosinski_jax.report import build
from yosinski_jax.study import records


@pytest.mark.parametrize(
    ("dataset", "split", "heading"),
    [
        ("cifar10", "random", "CIFAR-10, random halves"),
        ("tiny_imagenet80", "manmade_natural", "Tiny ImageNet 80, man-made / natural"),
        ("digits", "random", "Digits, random halves"),
        ("oxford_flowers102", "random", "oxford_flowers102, random halves"),
        ("cifar100+cifar10", "from_cifar100", "CIFAR-100 + CIFAR-10, base on CIFAR-100"),
    ],
)
def test_titles_spell_a_dataset_as_its_authors_do(dataset, split, heading, tmp_path):
    for fields in study(1, treatments=("base", "AnB"), layers=(1,), split=split):
        records.write(tmp_path, records.Record.of({**fields, "dataset": dataset}))
    build.write_report(tmp_path)
    assert (tmp_path / "table.md").read_text().startswith(f"{heading}: top-1")
    assert f"<h1>{heading}</h1>" in (tmp_path / "report.html").read_text()
    assert results.read(tmp_path).label == heading.split(",")[0].replace("Digits", "digits")
