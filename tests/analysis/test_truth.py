"""Every sentence of the page against numbers computed here, over a grid of simulated studies.

Nothing of `analysis.statistics` is used: t tests, intervals, Holm's procedure, equivalence and
McNemar's test come from scipy and from loops written here. A kind of sentence without a check fails.

    python -m pytest tests/analysis/test_truth.py --simulations=2000

draws that many studies at random besides the grid: effects, noise, seeds, margin, what is missing.
"""

import base64
import re
from collections import Counter

import numpy as np
import pytest
import simulated
from scipy import stats

from yosinski_jax.analysis import contrasts, effects, findings
from yosinski_jax.analysis.effects import BY_KEY
from yosinski_jax.analysis.readings import readings
from yosinski_jax.analysis.verdicts import ON_IMAGES

MARGIN = 0.02
LEVEL = 0.05
NONE = {t: (0.0, 0.0, 0.0) for t in simulated.EFFECTS}
GAINS = {t: tuple(-v for v in values) for t, values in simulated.EFFECTS.items()}
SMALL = {t: tuple(v / 6 for v in values) for t, values in simulated.EFFECTS.items()}
FALLING = NONE | {"AnB": (-0.03, -0.01, 0.0), "BnB+": (0.01, -0.01, 0.03)}


def without(*treatments, target=None, name=None):
    def keep(r):
        gone = r["treatment"] in treatments or r["target"] == target
        return not gone and (r["name"], r["split_seed"]) != name

    return keep


EVERYTHING = lambda r: True
#: Name: (arguments of `simulated.study`, which records are kept).
GRID = {
    "the paper's signs": (dict(), EVERYTHING),
    "opposite signs": (dict(effects=GAINS, base=0.6, noise=0.004), EVERYTHING),
    "no effect": (dict(effects=NONE), EVERYTHING),
    "no effect, noisy": (dict(effects=NONE, noise=0.03), EVERYTHING),
    "small effects": (dict(effects=SMALL, noise=0.001, seeds=6), EVERYTHING),
    "shrinking with n": (dict(effects=FALLING), EVERYTHING),
    "two seeds": (dict(seeds=2, noise=0.004), EVERYTHING),
    "three noisy seeds": (dict(seeds=3, noise=0.02), EVERYTHING),
    "twelve seeds": (dict(seeds=12, noise=0.01), EVERYTHING),
    "very noisy": (dict(noise=0.08, base=0.6), EVERYTHING),
    "one direction": (dict(), without(target="A")),
    "no BnB": (dict(), without("BnB")),
    "no base": (dict(), without("base")),
    "only base": (dict(), without("BnB", "BnB+", "AnB", "AnB+", "RnB")),
    "no random features": (dict(), without("RnB")),
    "a network lost": (dict(noise=0.005), without(name=("A2B", 1))),
    "ceiling": (dict(effects=NONE, base=0.995, noise=0.001), EVERYTHING),
    "at chance": (dict(effects=NONE, base=0.2), EVERYTHING),
    "one seed": (dict(seeds=1), EVERYTHING),
    "one seed with bits": (dict(seeds=1, bits=True, test_images=3000), EVERYTHING),
    "one seed, few images": (dict(seeds=1, bits=True, test_images=40), EVERYTHING),
    "one seed, no effect, bits": (dict(seeds=1, bits=True, effects=NONE, test_images=900), EVERYTHING),
    "one seed, gains, bits": (dict(seeds=1, bits=True, effects=GAINS, base=0.6, test_images=900), EVERYTHING),
    "man-made": (dict(split="manmade_natural"), EVERYTHING),
    "man-made, once": (dict(split="manmade_natural", seeds=1), EVERYTHING),
    "with training accuracy": (dict(train_accuracy=True), EVERYTHING),
    "with training accuracy, noisy": (dict(train_accuracy=True, noise=0.03), EVERYTHING),
    "fine-tuning hurts": (dict(train_accuracy=True, effects=simulated.EFFECTS | {"AnB+": (-0.03, -0.09, -0.2)}), EVERYTHING),
    "training accuracy, one seed": (dict(train_accuracy=True, seeds=1), EVERYTHING),
    "two layers": (dict(layers=(1, 3)), EVERYTHING),
    "a second seed begun": (dict(seeds=2), lambda r: r["split_seed"] == 0 or r["treatment"] == "base"),
    "a second seed begun, bits": (
        dict(seeds=2, bits=True, test_images=900), lambda r: r["split_seed"] == 0 or r["treatment"] == "base"
    ),
    "tuned": (dict(rates={"RnB": (0.1, 0.03, 0.01)}), EVERYTHING),
    "tuned alike": (dict(rates={"RnB": (0.1, 0.01), "AnB": (0.1, 0.01)}, seeds=2), EVERYTHING),
    "tuned alone": (dict(rates={"RnB": (0.1, 0.01)}), lambda r: r["treatment"] in ("base", "RnB")),
}  # fmt: skip


def study(name):
    arguments, keep = GRID[name]
    return [r for r in simulated.study(**arguments) if keep(r)]


# What is true, computed without the package's statistics


def value_of(record, measure):
    if measure == "train_gap":
        train = record["curve"].get("train_accuracy")
        return train[-1] - record["accuracy"] if train else None
    return record["accuracy"]


def bits(record):
    raw = np.frombuffer(base64.b64decode(record["correct"]), np.uint8)
    return np.unpackbits(raw)[: record["test_images"]].astype(bool)


def paired(records, effect, n):
    found = {}
    for r in records:
        for side, t in enumerate((effect.minuend, effect.subtrahend)):
            if r["treatment"] == t and r["n"] == (0 if t == "base" else n):
                found.setdefault((r["split_seed"], r["target"]), {})[side] = r
    return {k: (v[0], v[1]) for k, v in found.items() if len(v) == 2}


class Gap:
    """One gap at one n: value, p, and intervals at any level."""

    def __init__(self, records, effect, n, step, margin):
        pairs = paired(records, effect, n)
        values = {k: [value_of(r, effect.measure) for r in v] for k, v in pairs.items()}
        values = {k: a - b for k, (a, b) in values.items() if a is not None and b is not None}
        self.pairs, self.seeds = len(values), len({s for s, _ in values})
        self.value = np.mean(list(values.values())) if values else None
        self.p = self.close = self.image_counts = None
        by_seed = [
            [d for (s, _), d in values.items() if s == seed] for seed in {s for s, _ in values}
        ]
        self.balanced = len({len(d) for d in by_seed}) == 1
        self.means = np.array([np.mean(d) for d in by_seed])
        if self.seeds > 1 and self.balanced:
            # Not less than the rounding error of accuracies on so few images.
            floor = step / np.sqrt(6 * self.pairs)
            self.error = max(self.means.std(ddof=1) / np.sqrt(self.seeds), floor)
            t = stats.t(self.seeds - 1)
            self.p = 2 * t.sf(abs(self.value) / self.error)
            self.close = t.sf((margin - abs(self.value)) / self.error)
        elif (
            self.seeds == 1
            and effect.measure == "accuracy"
            and all(r.get("correct") for v in pairs.values() for r in v)
        ):
            a, b = (np.concatenate([bits(v[i]) for v in pairs.values()]) for i in (0, 1))
            self.image_counts = int((a & ~b).sum()), int((b & ~a).sum()), a.size
            gained, lost, _ = self.image_counts
            self.p = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
            self.value = a.mean() - b.mean()

    def interval(self, level):
        if self.image_counts:
            gained, lost, images = self.image_counts
            if not gained + lost:
                return None
            share = stats.binomtest(gained, gained + lost).proportion_ci(1 - level, "exact")
            rate = stats.binomtest(gained + lost, images).proportion_ci(1 - level, "exact")
            products = [[r * (2 * s - 1) for r in rate] for s in share]
            return min(products[0]), max(products[1])
        if self.p is None:
            return None
        return stats.t.interval(1 - level, self.seeds - 1, self.value, self.error)


def holm_reject(p):
    """{key: (rejected, level of its test)} by going through the sorted p values."""
    out, left, going, level = {}, len(p), True, None
    for key, value in sorted(p.items(), key=lambda item: item[1]):
        if going:
            level = LEVEL / left
            going = value < level
        out[key] = (going, level)
        left -= 1
    return out


class Truth:
    """Gaps, verdicts and intervals of a study."""

    def __init__(self, records, margin=MARGIN):
        self.records = records
        self.margin = margin
        self.margin_text = "1 point" if margin == 0.01 else f"{100 * margin:g} points"
        self.layers = sorted({r["n"] for r in records} - {0})
        self.step = 1 / records[0]["test_images"]
        self.memory = {}

    def gaps(self, key):
        if key not in self.memory:
            effect = BY_KEY[key]
            gaps = {n: Gap(self.records, effect, n, self.step, self.margin) for n in self.layers}
            found = holm_reject({n: g.p for n, g in gaps.items() if g.p is not None})
            close = holm_reject({n: g.close for n, g in gaps.items() if g.close is not None})
            # One unbalanced gap changes the levels of all; the tests of statistics.py cover those.
            balanced = all(g.balanced for g in gaps.values() if g.seeds > 1)
            for n, g in gaps.items():
                g.balanced = balanced or g.seeds < 2
                g.rejected, g.level = found.get(n, (False, None))
                g.equivalent = close.get(n, (False, None))[0]
                if g.value is None:
                    g.verdict = "none"
                elif g.p is None:
                    g.verdict = "untested"
                elif g.rejected:
                    g.verdict = "above" if g.value > 0 else "below"
                else:
                    g.verdict = "equivalent" if g.equivalent else "unclear"
            self.memory[key] = gaps
        return self.memory[key]


def shown(text):
    return float(text.replace("−", "-"))


def close(text, value, digits=None):
    digits = len(text.partition(".")[2]) if digits is None else digits
    return abs(shown(text) - value) <= 0.5000001 * 10**-digits + 1e-9


NUMBER = r"(−?\d+(?:\.\d+)?)"
GAP = rf"{NUMBER} points?(?: \[{NUMBER}, {NUMBER}\])?"


def check_gap(match, gap):
    """A printed "value [low, high]" against the truth; returns whether an interval was there."""
    value, low, high = match
    assert close(value, 100 * gap.value)
    expected = gap.interval(gap.level) if gap.p is not None else None
    if not gap.balanced and gap.seeds > 1:
        return None
    if gap.image_counts and expected is None:
        assert shown(low) < 0 < shown(high)
    elif expected is None:
        assert not low and not high
    else:
        assert close(low, 100 * expected[0]) and close(high, 100 * expected[1])
        # What is printed agrees with the verdict, digit by digit.
        assert (shown(low) > 0 or shown(high) < 0) == (gap.verdict in ("above", "below"))


def numbers_at(text):
    """The n of "n = 1, 2 and 3"."""
    return [int(i) for i in re.findall(r"\d+", text)]


# One check for each kind of sentence


def check_verdicts(f, truth):
    rows = f.facts["rows"]
    if "effect" not in rows[0]:
        return  # of few images; see the test of it
    gaps = truth.gaps(rows[0]["effect"])
    text = f.text.split(": ", 1)[1].rstrip(".") if f.text.startswith("Layer by layer") else f.text
    everywhere = all(gaps[r["n"]].image_counts is not None for r in rows)
    told = {}
    for group in text.split("; "):
        on_images = group.endswith(ON_IMAGES) or everywhere
        group = group.removesuffix(ON_IMAGES)
        m = re.fullmatch(
            r"(.*?)(?: with these seeds \((.*)\))? at (every n|any n|n = [\d, and]+)", group
        )
        at = [r["n"] for r in rows] if "y n" in m[3] else numbers_at(m[3])
        assert at == truth.layers or "y n" not in m[3]
        # "at any n" after what is denied, "at every n" after what is said.
        denied = m[1].startswith(("no ", "cannot", "not test"))
        assert m[3] != ("every n" if denied else "any n")
        assert bool(m[2]) == ("inconclusive" in m[1] and not on_images)
        if m[2] and all(g.balanced for g in gaps.values()):
            check_needed_range(m[2], [gaps[n] for n in at], gaps, truth.margin)
        for n in at:
            assert on_images == (gaps[n].image_counts is not None)
            assert n not in told
            told[n] = m[1]
    assert not everywhere or text.endswith(ON_IMAGES)
    assert set(told) == {r["n"] for r in rows}
    for n, words in told.items():
        g = gaps[n]
        if not g.balanced:
            continue
        small = f"{g.verdict}_small"
        key = small if g.equivalent and small in f.facts["words"] and g.rejected else g.verdict
        assert words == f.facts["words"][key].format(margin=truth.margin_text), (n, words, key)
        # In plain terms, whatever the words are called inside.
        if "general" in words or "no difference" in words or "either way" in words:
            assert g.close < LEVEL and abs(g.value) < truth.margin
        if words.startswith(("specific", "yes", "better", "above")):
            assert g.rejected and abs(g.value) > 0
        if "inconclusive" in words:
            assert not g.rejected and not g.equivalent


def seeds_that_settle(g, gaps, margin, most=1000):
    """The least number of split seeds that would settle a gap, or None."""
    tests = sum(o.p is not None for o in gaps.values())
    k = np.arange(g.seeds + 1, most + 1)
    error = g.error * np.sqrt(g.seeds / k)
    apart = stats.t.ppf(1 - LEVEL / tests / 2, k - 1) * error < abs(g.value)
    within = abs(g.value) + stats.t.ppf(1 - LEVEL / tests, k - 1) * error < margin
    enough = k[apart | within]
    return int(enough[0]) if enough.size else None


def check_needed_range(text, mine, gaps, margin):
    counts = [seeds_that_settle(g, gaps, margin) for g in mine]
    known = sorted({c for c in counts if c})
    if None not in counts:
        expected = f"about {known[0]}" + (f" to {known[-1]}" if len(known) > 1 else "")
    else:
        expected = f"{known[0]} or more" if known else "more than 1000"
    assert text == f"would need {expected}"


def check_values(f, truth):
    gaps = truth.gaps(f.facts["rows"][0]["effect"])
    what = f.text.split(": ")[0].removeprefix("test accuracy, ")
    assert what == BY_KEY[f.facts["rows"][0]["effect"]].formula
    found = re.findall(GAP + r" at n = (\d+)(?: \((\d+) pairs?, (\d+) seeds?\))?", f.text)
    assert [int(m[3]) for m in found] == [n for n, g in gaps.items() if g.value is not None]
    common = re.search(
        r"; (\d+) pairs? from (\d+) split seeds?( at each n)?(, all with target [AB])?\.$", f.text
    )
    # A gap that only one direction has is not called one of both.
    effect = BY_KEY[f.facts["rows"][0]["effect"]]
    targets = {t for n in truth.layers for _, t in paired(truth.records, effect, n)}
    assert ("all with target" in f.text) == (len(targets) == 1)
    for *match, n, pairs, seeds in found:
        g = gaps[int(n)]
        check_gap(match, g)
        counts = (int(pairs), int(seeds)) if pairs else (int(common[1]), int(common[2]))
        assert counts == (g.pairs, g.seeds)


def check_needed(f, truth):
    gaps = truth.gaps(f.facts["rows"][0]["effect"])
    found = re.findall(r"(about|more than) (\d+) at n = (\d+)", f.text)
    if not all(g.balanced for g in gaps.values()):
        return
    assert [int(n) for *_, n in found] == [
        n for n, g in gaps.items() if g.verdict == "unclear" and not g.image_counts
    ]
    for word, count, n in found:
        expected = int(count) if word == "about" else None
        assert seeds_that_settle(gaps[int(n)], gaps, truth.margin) == expected


def scores_of(truth):
    """AnB, BnB and floor means over pairs that have all three, by n."""
    out = {}
    random = any(r["treatment"] == "RnB" for r in truth.records)
    for n in truth.layers:
        by = {}
        for r in truth.records:
            if r["n"] == n:
                by.setdefault((r["split_seed"], r["target"]), {})[r["treatment"]] = r["accuracy"]
        full = [c for c in by.values() if {"AnB", "BnB"} <= c.keys() and (not random or "RnB" in c)]
        if full:
            low = np.mean([c["RnB"] if random else 0.2 for c in full])
            out[n] = [np.mean([c[t] for c in full]) for t in ("AnB", "BnB")] + [low]
    return out


def check_score(f, truth):
    means = scores_of(truth)
    random = any(r["treatment"] == "RnB" for r in truth.records)
    assert ("untrained features" in f.text) == random and ("chance" in f.text) != random
    found = re.findall(rf"{NUMBER}(?: \[{NUMBER}, {NUMBER}\])? at n = (\d+)", f.text)
    assert found
    for value, low, high, n in found:
        other, own, floor = means[int(n)]
        assert close(value, (other - floor) / (own - floor))
        assert own - floor >= 0.02
        assert not low or shown(low) <= shown(value) <= shown(high)


def check_score_undefined(f, truth):
    for n in re.findall(r"n = (\d+) \(BnB is not clearly above", f.text):
        _, own, floor = scores_of(truth)[int(n)]
        spread = len({r["split_seed"] for r in truth.records}) > 1
        assert own - floor < 0.02 or spread


def check_missing(f, truth):
    a, b = f.facts["minuend"], f.facts["subtrahend"]
    effect = effects.Effect("", "", a, b, "")
    assert not any(paired(truth.records, effect, n) for n in truth.layers)
    assert f.text.startswith(f"No {a.replace('+', '⁺')} network has its {b.replace('+', '⁺')}")


def steps_of(truth):
    gaps = truth.gaps("specificity_drop")
    drops = np.array([gaps[n].means for n in truth.layers])
    return np.diff(drops, axis=0, prepend=0.0)  # [n, seeds]


def whole(truth):
    """Whether no network is missing; the package leaves out pairs that lack one at any n."""
    gaps = truth.gaps("specificity_drop").values()
    every = complete_pairs(truth)
    return all(g.balanced and g.pairs == len(every) for g in gaps)


def complete_pairs(truth):
    """Pairs that have BnB and AnB at every n."""
    effect = BY_KEY["specificity_drop"]
    return set.intersection(*(set(paired(truth.records, effect, n)) for n in truth.layers))


def check_share_observed(f, truth):
    if not whole(truth):
        return
    steps = steps_of(truth).mean(1)
    n, share, even = re.search(
        r"layer (\d) \(\w+\), makes up (−?\d+) % .* give (\d+) %", f.text
    ).groups()
    assert truth.layers[int(np.argmax(steps))] == int(n)
    assert close(share, 100 * steps.max() / steps.sum()) and close(even, 100 / len(truth.layers))


def check_share(f, truth):
    if not whole(truth):
        return
    value, low, high = map(
        shown, re.search(r"makes up (−?\d+) %, .* interval (−?\d+) to (−?\d+) %", f.text).groups()
    )
    steps = steps_of(truth)
    k = steps.shape[1]
    own = [steps[np.argmax(np.delete(steps, s, 1).mean(1)), s] for s in range(k)]
    assert close(str(int(value)), 100 * np.mean(own) / steps.sum(0).mean())
    assert low <= value <= high


def check_sudden(f, truth):
    share = f.facts["found"].estimate
    low, high, even = 100 * share.low, 100 * share.high, 100 / len(truth.layers)
    if "more concentrated" in f.text or "all at one layer, or nearly" in f.text:
        assert low > even
    if "not distinguishable" in f.text:
        assert low < even + 1
    if "but not all at one layer" in f.text:
        assert high < 100
    if f.text.startswith("all at one layer"):
        assert low >= 94.5 and "but not" not in f.text
    if "less concentrated" in f.text:
        assert high < even


def check_untested_share(f, truth):
    seeds = {r["split_seed"] for r in truth.records}
    if len(seeds) > 1:
        assert "nly one split seed has BnB and AnB at every n" in f.text
        seeds = {s for s, _ in complete_pairs(truth)}
    assert len(seeds) == 1


def check_no_share(f, truth):
    gaps = truth.gaps("specificity_drop")
    if "no drop distinguishable" in f.text and not whole(truth):
        return
    if "no drop distinguishable" in f.text:
        last = gaps[truth.layers[-1]]
        assert last.value <= 0 or last.p >= LEVEL
    elif "every n from 1 on" in f.text:
        assert truth.layers != list(range(1, len(truth.layers) + 1)) or len(truth.layers) < 2
    else:
        assert not complete_pairs(truth)


def check_no_drop(f, truth):
    check_no_share(type(f)("", "no drop distinguishable", {}), truth)


def check_total(f, truth):
    if not whole(truth):
        return
    last = truth.gaps("specificity_drop")[truth.layers[-1]]
    value, low, high = re.search(GAP, f.text).groups()
    assert close(value, 100 * last.value)
    if low and last.balanced:
        a, b = last.interval(LEVEL)
        assert close(low, 100 * a) and close(high, 100 * b)


DROPS = {"specificity": "specificity_drop", "lost co-adaptation": "co_adaptation_drop",
         "both together (base − AnB)": "total_drop"}  # fmt: skip


def check_first_drop(f, truth):
    what = re.match(r"The drop from (.*?) is ", f.text)[1]
    gaps = {n: g for n, g in truth.gaps(DROPS[what]).items() if g.value is not None}
    if not all(g.balanced for g in gaps.values()):
        return
    above = [n for n, g in gaps.items() if g.verdict == "above"]
    largest = max(gaps, key=lambda n: gaps[n].value)
    tests = sum(g.p is not None for g in gaps.values())
    m = re.search(
        rf"first significant at layer (\d) \(\w+\): {GAP}, p [=<] ([\d.]+), corrected over (\d) tests?",
        f.text,
    )
    assert bool(m) == bool(above)
    if m:
        assert int(m[1]) == above[0] and int(m[6]) == tests
        check_gap(m.groups()[1:4], gaps[above[0]])
        assert float(m[5]) <= LEVEL
    else:
        assert ("not significant at any n" in f.text) == bool(tests)
        assert ("not tested" in f.text) == (not tests)
        below = [n for n, g in gaps.items() if g.verdict == "below"]
        told = re.search(r"\(at (n = .*?) it is significantly below 0\)", f.text)
        assert (numbers_at(told[1]) if told else []) == below
    m = re.search(rf"largest at n = (\d): {GAP}\.$", f.text)
    assert bool(m) == (not above or largest != above[0])
    if m:
        assert gaps[int(m[1])].value == pytest.approx(gaps[largest].value, abs=1e-12)
        check_gap(m.groups()[1:], gaps[largest])


def check_where(f, truth):
    for part in f.text.split("; "):
        what, place = part.split(": ")
        gaps = truth.gaps(DROPS[what])
        if not all(g.balanced for g in gaps.values() if g.value is not None):
            continue
        above = [n for n, g in gaps.items() if g.verdict == "above"]
        if place.startswith("from n = "):
            first = numbers_at(place.split(" (")[0])[0]
            assert above == [n for n in truth.layers if n >= first]
        elif place.startswith("at n = "):
            assert above == numbers_at(place.split(" (")[0])
        else:
            assert not above
            kinds = {g.verdict for g in gaps.values()}
            if place == "inconclusive":
                assert "unclear" in kinds
            elif place == "not testable":
                assert "untested" in kinds
            else:
                assert place == f"no drop of {truth.margin_text} or more at any n tested"
                assert kinds <= {"equivalent", "below", "none"}
                assert all(g.value < truth.margin for g in gaps.values() if g.value is not None)


def check_average(f, truth):
    row = f.facts["row"]
    effect = BY_KEY[row["effect"]]
    per_pair = {}
    for n in range(*map(int, np.array(row["layers"].split("–"), int) + [0, 1])):
        for key, (a, b) in paired(truth.records, effect, n).items():
            per_pair.setdefault(key, []).append(a["accuracy"] - b["accuracy"])
    deepest = max(map(len, per_pair.values()))
    whole = {k: np.mean(v) for k, v in per_pair.items() if len(v) == deepest}
    by_seed = {}
    for (seed, _), v in whole.items():
        by_seed.setdefault(seed, []).append(v)
    if len({len(v) for v in by_seed.values()}) > 1:
        return
    means = [np.mean(v) for v in by_seed.values()]
    tested = len(means) > 1
    if tested:  # a family of one range of layers here
        error = max(stats.sem(means), truth.step / np.sqrt(6 * len(whole)))
        p = 2 * stats.t.sf(abs(np.mean(means)) / error, len(means) - 1)
    if f.text.startswith("Against"):
        value, low, high = re.search(GAP, f.text).groups()
        assert close(value, 100 * np.mean(means))
        assert bool(low) == tested
        if tested:
            a, b = stats.t.interval(0.95, len(means) - 1, np.mean(means), error)
            assert close(low, 100 * a) and close(high, 100 * b)
    elif f.text.startswith(("better", "worse")):
        assert p < LEVEL and (np.mean(means) > 0) == f.text.startswith("better")
    elif f.text.startswith("no difference"):
        assert stats.t.sf((truth.margin - abs(np.mean(means))) / error, len(means) - 1) < LEVEL
    else:
        assert f.text.startswith("inconclusive") and p >= LEVEL


def check_overfitting(f, truth):
    gap, benefit = truth.gaps("overfitting_transfer"), truth.gaps("classroom_fine_tuning_benefit")
    told = {}
    for part in f.text.split("; "):
        words, where = re.fullmatch(r"(.*?),? at (every n|any n|n = [\d, and]+)", part).groups()
        for n in truth.layers if "y n" in where else numbers_at(where):
            assert n not in told
            told[n] = words
    assert set(told) == {n for n, g in gap.items() if g.value is not None}
    for n, words in told.items():
        if not gap[n].balanced or not (n not in benefit or benefit[n].balanced):
            continue
        wider = gap[n].verdict == "above"
        if words.startswith("yes"):
            assert wider and benefit[n].verdict == "below"
        elif "no loss of test accuracy" in words:
            assert wider and benefit[n].verdict in ("above", "equivalent")
        elif "inconclusive effect" in words:
            assert wider and benefit[n].verdict in ("unclear", "untested")
        elif "narrower" in words:
            assert gap[n].verdict == "below"
        elif "no wider" in words:
            assert gap[n].verdict == "equivalent"
        else:
            assert gap[n].verdict in ("unclear", "untested")


def check_scope(f, truth):
    seeds = {r["split_seed"] for r in truth.records}
    halves = {
        (r["split_seed"], frozenset(r["classes"])) for r in truth.records if r["target"] == "B"
    }
    pairs = len({classes for _, classes in halves})
    gaps = [g for e in effects.ALL_EFFECTS for g in truth.gaps(e.key).values()]
    if "no gap has pairs" in f.text:
        assert f.text.startswith(f"{len(seeds)} split seeds") and max(g.seeds for g in gaps) == 1
        assert ("McNemar" in f.text) == any(g.image_counts for g in gaps)
        return
    assert len(seeds) == 1 or max((g.seeds for g in gaps), default=0) != 1
    if "other random halves" in f.text:
        assert pairs > 1 and f.text.startswith(f"{len(seeds)} split seeds")
    elif f.text.startswith("One pair of tasks"):
        assert pairs == 1 and f"trained {len(seeds)} times" in f.text and len(seeds) > 1
    else:
        assert len(seeds) == 1
        assert ("McNemar" in f.text) == any(g.image_counts for g in gaps)


def base_level(text, truth):
    target = re.search(r"bases with target ([AB])", text)
    alike = all(r["split"] == "random" for r in truth.records)
    assert alike == (target is None)
    chosen = "AB" if target is None else target[1]
    return np.mean(
        [r["accuracy"] for r in truth.records if r["treatment"] == "base" and r["target"] in chosen]
    )


def check_ceiling(f, truth):
    level = base_level(f.text, truth)
    reached, room = re.search(rf"reach {NUMBER} % .* can be {NUMBER} points?", f.text).groups()
    assert (
        close(reached, 100 * level)
        and close(room, 100 * (1 - level))
        and 1 - level <= max(truth.margin, 0.02)
    )


def check_floor(f, truth):
    level = base_level(f.text, truth)
    reached, chance = re.search(rf"reach {NUMBER} % .* chance is {NUMBER} %", f.text).groups()
    assert (
        close(reached, 100 * level)
        and shown(chance) == 20
        and level - 0.2 <= max(truth.margin, 0.02)
    )


def check_not_computable(f, truth):
    assert f.text == "cannot be computed"


def check_tuning(f, truth):
    mine = [r for r in truth.records if r["treatment"] == "RnB"]
    picked = Counter(r["learning_rate"] for r in mine)
    for rate, count in picked.items():
        assert f"{rate:g} for {count} network" in f.text
    assert len(mine) == sum(picked.values())
    for n in {r["n"] for r in mine}:
        here = [r for r in mine if r["n"] == n]
        mean = np.mean([r["accuracy"] for r in here])
        fixed = [
            f"{100 * np.mean([r['tried']['accuracy'][i] for r in here]) + 0.0:.1f} % at {rate:g}"
            for i, rate in enumerate(here[0]["tried"]["learning_rate"][:-1])
        ]
        assert f"{100 * mean:.1f} % ({', '.join(fixed[::-1])} for all) at n = {n}" in f.text
    transferred = [r for r in truth.records if r["treatment"] == "AnB"]
    how = "in the same way" if any("tried" in r for r in transferred) else "took the recipe’s rate"
    assert (how in f.text) == bool(transferred)


def check_no_training_accuracy(f, truth):
    assert all(g.value is None for g in truth.gaps("overfitting_transfer").values())


CHECKS = {
    name.removeprefix("check_"): c
    for name, c in list(globals().items())
    if name.startswith("check_")
}
for helper in ("gap", "needed_range"):
    CHECKS.pop(helper)


def said(records, margin=MARGIN):
    rows = effects.all_rows(records, "last", margin)
    yield from findings.notes(records, rows, "last")
    for answer in findings.answers(records, "last", rows):
        yield answer.short
        yield from answer.findings
        if not answer.answerable:
            assert answer.short.text == "cannot be computed" and answer.findings


SEEN = Counter()


def check_study(records, margin=MARGIN):
    """Checks every sentence about a study."""
    truth = Truth(records, margin)
    for finding in said(records, margin):
        SEEN[finding.code] += 1
        assert finding.text
        CHECKS[finding.code](finding, truth)


@pytest.mark.parametrize("rng_seed", [0, 1, 2])
@pytest.mark.parametrize("name", GRID)
def test_every_sentence_is_true(name, rng_seed):
    arguments, keep = GRID[name]
    records = [r for r in simulated.study(**arguments, rng_seed=rng_seed) if keep(r)]
    check_study(records)


def drawn_study(number):
    """A study drawn at random, and a margin: (records, margin)."""
    rng = np.random.RandomState(number)
    treatments = ["base", *simulated.EFFECTS]
    size = 10 ** rng.uniform(-3, -0.7)
    effects_ = {t: tuple(size * rng.randn(3) * (rng.rand(3) < 0.7)) for t in simulated.EFFECTS}
    seeds = int(rng.choice([1, 2, 3, 4, 6, 12]))
    records = simulated.study(
        seeds,
        effects=effects_,
        base=float(rng.choice([0.21, 0.5, 0.7, 0.9, 0.985])),
        noise=float(10 ** rng.uniform(-3.5, -1.2)),
        layers=(1, 2, 3) if rng.rand() < 0.9 else (2, 3),
        test_images=int(rng.choice([50, 220, 1000, 10000])),
        bits=bool(rng.rand() < 0.4),
        train_accuracy=bool(rng.rand() < 0.6),
        split=str(rng.choice(["random", "manmade_natural"], p=[0.8, 0.2])),
        rng_seed=number,
    )
    if rng.rand() < 0.3:
        gone = set(rng.choice(treatments, rng.randint(1, 4), replace=False))
        records = [r for r in records if r["treatment"] not in gone]
    if rng.rand() < 0.2:
        records = [r for r in records if r["target"] == "B"]
    if rng.rand() < 0.2:
        records = [r for r in records if rng.rand() < 0.95]
    return records, float(rng.choice([0.005, 0.01, 0.02, 0.05]))


def test_sentences_on_studies_drawn_at_random(request):
    checked = 0
    for number in range(request.config.getoption("--simulations")):
        records, margin = drawn_study(number)
        if any(r["n"] for r in records):
            try:
                check_study(records, margin)
            except AssertionError as e:
                raise AssertionError(f"study {number}: {e}") from e
            checked += 1
    assert checked


def test_the_grid_says_everything():
    """Kinds of sentences that the grid never produces would be unchecked."""
    if len(SEEN) < 10:
        pytest.skip("runs after the grid")
    assert set(CHECKS) - set(SEEN) == set()


@pytest.mark.parametrize(
    "name", ["the paper's signs", "a network lost", "one seed with bits", "twelve seeds"]
)
def test_rows_agree_with_scipy(name):
    records = study(name)
    truth = Truth(records)
    for effect in effects.ALL_EFFECTS:
        gaps = truth.gaps(effect.key)
        for row in effects.effect_rows(records, effect, margin=MARGIN):
            if row["n"] is None or row["value"] is None:
                continue
            g = gaps[row["n"]]
            assert row["value"] == pytest.approx(g.value)
            assert (row["pairs"], row["seeds"]) == (g.pairs, g.seeds)
            if g.p is not None and g.balanced:
                assert row["p"] == pytest.approx(g.p, abs=1e-9)
                assert row["verdict"] == g.verdict
                assert (row["low"], row["high"]) == pytest.approx(g.interval(g.level), abs=1e-9)
            if row["low"] is not None:
                assert (row["low"] > 0 or row["high"] < 0) == (row["verdict"] in ("above", "below"))


@pytest.mark.parametrize("name", GRID)
def test_readings_are_supported(name):
    truth = Truth(study(name))
    keys = {2: "co_adaptation_drop", 3: "recovery", 4: "specificity_drop", 5: "boost_over_base"}
    for reading in readings(truth.records, "last"):
        gaps = truth.gaps(keys[reading.number])
        if (
            not all(g.balanced for g in gaps.values() if g.value is not None)
            or "over layers" in reading.text
        ):
            continue
        above = {n: g for n, g in gaps.items() if g.verdict == "above"}
        assert not any(g.image_counts for g in above.values())
        value, n = re.search(rf"{NUMBER} points? at n = (\d)", reading.text).groups()
        assert close(value, 100 * above[int(n)].value)
        assert above[int(n)].value == max(g.value for g in above.values())
        listed = re.search(r"significant at n = ([\d, ]+)", reading.text)
        assert numbers_at(listed[1]) if listed else [int(n)] == list(above)


# Across splits


def far_and_near(slope, level, *, seeds=4, trained=1, noise=0.002):
    far = {"AnB": tuple(-level - slope * n for n in (1, 2, 3))}
    near = {"AnB": (-0.01, -0.02, -0.03)}
    make = lambda **more: simulated.study(treatments=("AnB",), noise=noise, **more)
    return (
        make(effects=near, seeds=seeds),
        make(effects=far, seeds=trained, split="manmade_natural", rng_seed=7),
    )


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.06])
@pytest.mark.parametrize("level", [-0.02, 0.0, 0.1])
@pytest.mark.parametrize("seeds", [1, 2, 8])
@pytest.mark.parametrize("trained", [1, 3])
def test_dissimilar_tasks(slope, level, seeds, trained):
    near, far = far_and_near(slope, level, seeds=seeds, trained=trained)
    answer = contrasts.dissimilar_tasks(near, far, "last")
    effect = BY_KEY["total_drop"]

    def curves(records):
        by_seed = {}
        for n in (1, 2, 3):
            for (seed, _), (a, b) in paired(records, effect, n).items():
                by_seed.setdefault(seed, {}).setdefault(n, []).append(a["accuracy"] - b["accuracy"])
        return [[np.mean(c[n]) for n in (1, 2, 3)] for c in by_seed.values()]

    a, b = curves(near), curves(far)
    measures = {"level": np.mean, "slope": lambda d: stats.linregress([1, 2, 3], d).slope}
    p, differences = {}, {}
    for name, measure in measures.items():
        others, mine = [measure(d) for d in a], np.mean([measure(d) for d in b])
        differences[name] = mine - np.mean(others)
        if seeds > 1:
            error = np.std(others, ddof=1) * np.sqrt(1 + 1 / seeds)
            p[name] = 2 * stats.t.sf(abs(differences[name]) / error, seeds - 1)
    rejected = {name: r for name, (r, _) in holm_reject(p).items()}
    text = answer.short.text
    if seeds == 1:
        assert "not testable" in text
    else:
        assert text.startswith("yes") == (rejected["level"] and differences["level"] > 0)
        assert text.startswith("no,") == (rejected["level"] and differences["level"] < 0)
        assert ("grows faster" in text and "whether the loss" not in text) == (
            rejected["slope"] and differences["slope"] > 0
        )
        assert ("grows more slowly" in text) == (rejected["slope"] and differences["slope"] < 0)
    found = re.findall(
        GAP + r" here, " + NUMBER + r" points? between random halves, difference " + GAP,
        answer.findings[0].text,
    )
    assert len(found) == 2
    for name, m in zip(measures, found, strict=True):
        assert close(m[0], 100 * np.mean([measures[name](d) for d in b]))
        assert close(m[3], 100 * np.mean([measures[name](d) for d in a]))
        assert close(m[4], 100 * differences[name])
        if seeds > 1:
            assert (shown(m[5]) > 0 or shown(m[6]) < 0) == rejected[name]
    assert f"trained {trained} time" in answer.findings[0].text


@pytest.mark.parametrize("closer", [-0.1, 0.0, 0.004, 0.1])
@pytest.mark.parametrize("seeds", [1, 4])
def test_random_features_at_few_images(closer, seeds):
    records = []
    for amount, drop in ((5, 0.2 - closer), (100, 0.2)):
        effects_ = {"RnB": (-drop, -drop - 0.1, -drop)}
        for r in simulated.study(
            seeds, treatments=("RnB",), effects=effects_, base=0.7, rng_seed=amount
        ):
            records.append(r | {"images_per_class": amount})
    answer = contrasts.few_images(records, "last")
    for part in re.findall(
        GAP + r" with 5, " + GAP + r" with 100: closer by " + GAP + r" at n = \d",
        answer.findings[0].text,
    ):
        few, many, gained = shown(part[0]), shown(part[3]), shown(part[6])
        assert many - few == pytest.approx(gained, abs=0.11)
    text = answer.short.text
    if seeds == 1:
        assert text == "not testable at any n"
    elif closer >= 0.1:
        assert text == "yes at every n"
    elif closer == -0.1:
        assert text == "no, they fall further behind at every n"
    else:
        assert "no, they" not in text
    assert contrasts.few_images([r for r in records if r["images_per_class"] == 5], "last") is None
