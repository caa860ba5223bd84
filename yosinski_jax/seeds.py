"""`seeds=auto`: split seeds are added to a sweep until the verdict on every n is conclusive or the limit is reached."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from yosinski_jax.analysis import sequential
from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import Damaged, read_sealed, sealed, write_json
from yosinski_jax.study.settings import Settings
from yosinski_jax.sweep.runner import Sweep
from yosinski_jax.training import multihost


def first(folder: Path, settings: Settings, most: int, margin: float) -> int:
    """The number of split seeds to begin with: the workdir's if it has more than the first look needs.

    Raises:
      UserError: the rule does not apply to such a sweep, or the workdir was begun with another one; an error rate holds
        for what is fixed beforehand.
    """
    if {"BnB", "AnB"} - set(settings.treatments) or settings.split in ("all", "paper"):
        raise UserError(
            "seeds=auto: adds split seeds until the verdict on the drop from BnB to AnB is conclusive at every n; it needs "
            "both treatments and a split into halves A and B"
        )
    if len(settings.base_datasets) > 1:
        raise UserError(
            f"seeds=auto: works with one pair of datasets, but "
            f"base_dataset={','.join(settings.base_datasets)} makes several; name one"
        )
    if most < sequential.FIRST_LOOK:
        raise UserError(
            f"max_seeds={most}: must be at least {sequential.FIRST_LOOK}, the number of split seeds at the first look"
        )
    if not 0 < margin < 1:
        raise UserError(f"margin={100 * margin:g}: must be between 0 and 100 points, such as 2")
    return multihost.from_leader(lambda: _first(folder, most, margin))


def _first(folder: Path, most: int, margin: float) -> int:
    try:
        found = sequential.read(folder)
    except Damaged:  # written anew after the next look
        found = None
    if found and (found.most, found.margin) != (most, margin):
        raise UserError(
            f"max_seeds={most}, margin={100 * margin:g}: this workdir was begun with max_seeds={found.most} and "
            f"margin={100 * found.margin:g}, which its error rate depends on; use those, or choose another workdir"
        )
    try:
        begun = len(read_sealed(folder / "settings.json")["seeds"])
    except (OSError, Damaged, KeyError):  # the sweep itself will tell
        begun = 0
    if begun > most:
        raise UserError(
            f"max_seeds={most}: this workdir already has {begun} split seeds; allow as many, or choose another workdir"
        )
    return max(begun, sequential.FIRST_LOOK)


def run(
    sweep: Sweep,
    train: Callable[[Sweep], Any],
    more: Callable[[int], Sweep],
    most: int,
    margin: float,
) -> Sweep:
    """Trains a sweep, then the same with one more split seed, until the rule stops.

    Args:
      sweep: with the first split seeds.
      train: runs a sweep.
      more: gives the sweep with that many split seeds.
      most: the largest number of split seeds.
      margin: largest drop that counts as general, 0 … 1.

    Returns:
      The last sweep.
    """
    while True:
        train(sweep)
        records = [dict(record) for record in sweep.records.values()]
        found = sequential.stopping(records, sweep.settings.layers, most, margin)
        if multihost.leader():
            write_json(sweep.folder / sequential.FILE, sealed(found.as_json()))
        sweep.note(found.in_words())
        if found.stops:
            return sweep
        trained = sweep.trained
        sweep = more(found.seeds + 1)
        sweep.trained = trained
