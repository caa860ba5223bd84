"""The plan of a sweep and its costs, as text."""

import functools
import shutil
from collections import Counter
from collections.abc import Sequence

from yosinski_jax.analysis import tables
from yosinski_jax.analysis.wording import plural
from yosinski_jax.base import machine
from yosinski_jax.base.files import is_remote
from yosinski_jax.sweep import pricing
from yosinski_jax.sweep.runner import Sweep


def describe(sweep: Sweep, done: int) -> str:
    """The plan in a few lines: networks, programs, tasks, progress so far, workdir."""
    s = sweep.settings
    pairs = Counter(f"{p.split.name}-{p.split.seed}" for p in sweep.planned)
    tasks = [sweep.task(planned) for planned in sweep.planned]
    if len(set(pairs.values())) == 1 and s.split not in ("all", "paper"):
        # Fixed halves, such as man-made and natural classes, are one pair with every seed.
        different = {(p.split.half("A"), p.split.half("B")) for p in sweep.planned}
        what = f"{plural(len(different), 'pair')} of tasks"
        if len(different) < len(pairs):
            what = f"{len(pairs)} split seeds of {what}"
        of = f"{len(sweep.planned) // len(pairs)} for each of {what}"
    else:
        of = ", ".join(
            f"{count} of {name.removesuffix('all-0') or 'all classes'}"
            for name, count in pairs.items()
        )
    lines = [
        f"{s.dataset}, split {s.split}: {len(sweep.planned)} networks, {of}",
        f"  treatments {', '.join(s.treatments)}",
    ]
    if any(planned.run.n for planned in sweep.planned):
        lines[-1] += f"; n = {', '.join(map(str, s.layers))}"
    if s.preserve:
        lines[-1] += f"; preserved layers {', '.join(map(str, s.preserve))}"
    recipes = {recipe: None for recipe in map(sweep.recipe, sweep.planned)}
    for recipe in recipes:
        budget = f"{recipe.epochs} epochs" if recipe.epochs else f"{recipe.iterations:,} iterations"
        lines.append(
            f"  network {s.network}; recipe {recipe.name}: {budget}, batch {recipe.batch_size}, "
            f"learning rate {recipe.learning_rate:g}, {recipe.precision}"
        )
        if recipe.patience:
            lines[-1] += f"; stops after {recipe.patience} evaluations without improvement"
    if s.tuning:
        rates = ", ".join(f"{rate:g}" for rate in s.tuning.learning_rates)
        lines.append(f"  {', '.join(s.tuning.treatments)}: the best of learning rates {rates}")
    lines.append(
        f"  tasks of {_span([len(t.classes) for t in tasks])} classes, "
        f"{_span([len(t.train_index) for t in tasks])} training and {_span([len(t.test_index) for t in tasks])} test images"
    )
    if any(len(t.validation_index) for t in tasks):
        lines[-1] += f", {_span([len(t.validation_index) for t in tasks])} held out for validation"
    kinds: dict[tuple[int, int], Counter] = {}
    for group in sweep.groups:
        count = kinds.setdefault((group.frozen, group.replicas), Counter())
        count["networks"] += len(group.members)
        count["populations"] += 1
    for (frozen, replicas), count in sorted(kinds.items()):
        lines.append(
            f"  program with {plural(frozen, 'frozen layer')}: {plural(count['networks'], 'network')} in "
            f"{plural(count['populations'], 'population')} of {replicas}"
        )
    lines.append(f"  {done} done, {len(sweep.planned) - done} to train; workdir {sweep.folder}")
    return "\n".join(lines)


def _span(numbers: Sequence[int]) -> str:
    found = sorted(set(numbers))
    return " or ".join(f"{n:,}" for n in found[:3]) + (" …" if len(found) > 3 else "")


def priced(sweep: Sweep) -> str:
    """Every network with its costs, and the totals for the devices found.

    Measures for about a second how fast these devices multiply matrices.
    """
    prices = [pricing.price(sweep, planned) for planned in sweep.planned]
    rows = [
        [
            p.planned.id, p.planned.waits_for or "", f"{p.step.parameters_trained:,}",
            f"{p.step.parameters_frozen:,}", f"{p.steps:,}", _count(p.step.flops, "FLOP"),
            _bytes(p.step.traffic_bytes), _count(p.flops, "FLOP"),
        ]
        for p in prices
    ]  # fmt: skip
    header = ["network", "waits for", "trained", "frozen", "steps"]
    table = tables.text_table([[*header, "a step", "moved a step", "in all"], *rows], left=True)
    return "\n".join(["", table, "", *_totals(sweep, prices)])


def _totals(sweep: Sweep, prices: list[pricing.Price]) -> list[str]:
    import jax

    total = pricing.total(sweep, prices)
    devices = jax.local_devices()
    cpu = devices[0].platform == "cpu"
    peak = _peak(sweep.settings.recipe.precision)
    # The devices of a CPU share its memory.
    memory = total.device_bytes * (total.devices if cpu else 1)
    there = ""
    if not is_remote(sweep.folder):
        folder = sweep.folder.absolute()
        on_disk = next(p for p in (folder, *folder.parents) if p.exists())
        there = f", {_bytes(shutil.disk_usage(on_disk).free)} free there"
    found = f"{len(devices)} × {devices[0].device_kind}"
    return [
        f"compute: {_count(total.flops, 'FLOP')}; at least {duration(total.flops / peak)} on {found}, which multiply "
        f"matrices at {_count(peak, 'FLOP/s')} (just measured); training reaches a fraction of that",
        f"memory: {_bytes(memory)} for the largest group, of {_bytes(machine.memory())} "
        + ("on this machine" if cpu else "on each device"),
        f"disk: at most {_bytes(total.disk_bytes)} in {sweep.folder}{there}",
    ]


@functools.cache
def _peak(precision: str) -> float:
    """FLOP/s of the matrix product on these devices, measured for about a second."""
    return machine.matmul_peak(precision)()


def seconds_per_flop(sweep: Sweep) -> tuple[float, str]:
    """Seconds per operation in training, from the recorded networks or from this machine; and which of the two."""
    done = [p for p in sweep.planned if p.id in sweep.records and sweep.records[p.id].seconds]
    flops = sum(pricing.price(sweep, p).flops for p in done)
    if flops:
        seconds = sum(sweep.records[p.id].seconds or 0.0 for p in done)
        return seconds / flops, f"at the speed of the {len(done)} networks recorded here"
    share = 0.3
    return (
        1 / (share * _peak(sweep.settings.recipe.precision)),
        f"if workers match this machine and reach {share:.0%} of its matrix-product speed (nothing is recorded yet)",
    )


def _count(value: float, unit: str) -> str:
    for prefix in ("", "k", "M", "G", "T", "P", "E", "Z"):
        if abs(value) < 1000 or prefix == "Z":
            return f"{value:.3g} {prefix}{unit}"
        value /= 1000
    raise AssertionError


def _bytes(value: float) -> str:
    return _count(value, "B")


def duration(seconds: float) -> str:
    """A time in words."""
    for limit, size, unit in (
        (120, 1, "s"),
        (7200, 60, "min"),
        (172_800, 3600, "h"),
        (3e8, 86_400, "days"),
    ):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 31_557_600:.3g} years"
