"""Formatting of numbers, and sentences that carry the numbers behind them."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: How the authors of datasets write them, by the names of TensorFlow Datasets and of `experiments.prepare`.
_DATASETS = {
    "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "cifar10_1": "CIFAR-10.1", "cifar10_corrupted": "CIFAR-10-C",
    "cinic10": "CINIC-10", "stl10": "STL-10", "mnist": "MNIST", "kmnist": "KMNIST", "emnist": "EMNIST",
    "fashion_mnist": "Fashion-MNIST", "svhn_cropped": "SVHN", "imagenet2012": "ImageNet", "imagenet21k": "ImageNet-21k",
    "tiny_imagenet": "Tiny ImageNet", "tiny_imagenet80": "Tiny ImageNet 80", "places365_small": "Places365",
    "eurosat": "EuroSAT", "food101": "Food-101", "caltech101": "Caltech-101",
}  # fmt: skip
#: First words of titles that take a capital where they begin a line; others are names.
_WORDS = ("digits", "the")


@dataclasses.dataclass(frozen=True)
class Finding:
    """A sentence with the numbers behind it, so that a test can check one against the other.

    Attributes:
      code: the kind of sentence; tests/analysis/test_truth.py has a check for each.
      text: the sentence.
      facts: every number in it, by name; rows of `effects.effect_rows` as they are.
    """

    code: str
    text: str
    facts: Mapping


@dataclasses.dataclass(frozen=True)
class Answer:
    """One question with its answer.

    Attributes:
      question: as the page prints it.
      short: the answer in a few words.
      findings: the answer with its numbers.
      answerable: whether the networks that the question needs are there.
    """

    question: str
    short: Finding
    findings: tuple[Finding, ...] = ()
    answerable: bool = True


def dataset_name(name: str) -> str:
    """Spells a dataset, or several joined by "+", as its authors do; one that is not known stays as it is."""
    return " + ".join(_DATASETS.get(part, part) for part in name.split("+"))


def heading(title: str) -> str:
    """Begins a line with a title: with a capital, but a dataset's name keeps its own spelling."""
    word = title.split(maxsplit=1)[0].rstrip(",")
    return upper_first(title) if word in _WORDS else title


def upper_first(text: str) -> str:
    """Capitalizes the first letter of a sentence."""
    return text[:1].upper() + text[1:]


def points(value: float, digits: int = 1) -> str:
    """Formats a difference of accuracies in percentage points: "4.3 points"."""
    text = number(100 * value, digits)
    return f"{text} point{'' if text.lstrip('−') == f'{1:.{digits}f}' else 's'}"


def number(value: float | None, digits: int) -> str:
    """Formats a rounded number with a proper minus sign, never "−0.0"; None as a dash."""
    if value is None:
        return "–"
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def interval(row: Any, digits: int = 1, scale: float = 100.0) -> str:
    """Formats the interval of a row or an estimate in percentage points: " [3.1, 5.4]", or "" without one.

    An end that rounds to 0 but is not gets more digits: " [0.0, …]" would say that 0 is inside.
    """
    found = (row["low"], row["high"]) if isinstance(row, Mapping) else (row.low, row.high)
    if found[0] is None:
        return ""
    ends = []
    for end in found:
        places = digits
        while end and round(scale * end, places) == 0 and places < 6:
            places += 1
        ends.append(number(scale * end, places))
    return f" [{ends[0]}, {ends[1]}]"


def gap_text(row: Any, digits: int = 1) -> str:
    """Formats a row or an estimate with its interval: "4.3 points [3.1, 5.4]".

    A value that rounds to 0 although the interval excludes 0 gets more digits.
    """
    names = ("value", "low", "high")
    fields = row if isinstance(row, Mapping) else {name: getattr(row, name) for name in names}
    value, low, high = (fields[name] for name in names)
    places = digits
    if low is not None and not low <= 0 <= high:
        while round(100 * value, places) == 0 and places < 6:
            places += 1
    return points(value, places) + interval(row, digits)


def per_cent(value: float | None, digits: int = 1) -> str:
    """Formats an accuracy of 0..1 in percent; None as a dash."""
    return number(None if value is None else 100 * value, digits)


def p_text(p: float | None) -> str:
    """Formats a p value for a sentence; never rounded across the level 0.05."""
    if p is None:
        return "no test"
    if p < 0.001:
        return "p < 0.001"
    digits = 3 if p < 0.1 else 2
    while (round(p, digits) < 0.05) != (p < 0.05):
        digits += 1
    return f"p = {p:.{digits}f}"


def margin_text(margin: float) -> str:
    """Formats the equivalence margin: "2 points"."""
    return f"{100 * margin:g} point{'s' * (margin != 0.01)}"


def symbol(treatment: str) -> str:
    """Formats a treatment as the paper does: "AnB⁺" for AnB+."""
    return treatment.replace("+", "⁺")


def layer(n: int, names: Sequence[str]) -> str:
    """Formats a layer: "layer 3 (fc3)"."""
    return f"layer {n} ({names[n - 1]})" if n <= len(names) else f"layer {n}"


def listing(items: Iterable[object]) -> str:
    """Joins items with commas and "and"."""
    texts = [str(i) for i in items]
    return "".join(texts) if len(texts) < 2 else ", ".join(texts[:-1]) + " and " + texts[-1]


def at(rows: Iterable[Mapping]) -> str:
    """Formats the n of rows: "n = 1, 2 and 3"."""
    return f"n = {listing(r['n'] for r in rows)}"


def plural(count: int, what: str) -> str:
    """Formats a count with its noun: "1 pair", "2 pairs"."""
    return f"{count} {what}{'s' * (count != 1)}"
