"""The groups in which a sweep's networks are trained, planned once for the whole sweep."""

from collections.abc import Sequence

from yosinski_jax.study.plan import Group, Planned
from yosinski_jax.sweep.work import Work


def plan(work: Work, planned: Sequence[Planned], replicas: int | None = None) -> list[Group]:
    """Groups networks that share a program: bases first, then by number of frozen layers.

    Groups are made of all networks, recorded or not, so that a resumed sweep gives the same results.

    Args:
      work: what the groups share.
      planned: all networks of the sweep.
      replicas: size of the groups; None to choose by what fits on the devices.
    """
    alike: dict[tuple, list[Planned]] = {}
    for network in planned:
        task, run = work.task(network), network.run
        key = (
            run.treatment != "base",
            repr(work.recipe(network)),
            run.frozen,
            len(task.classes),
            len(task.train_index),
            len(task.test_index),
            len(task.validation_index),
            len(work.settings.rates_of(run)),
        )
        alike.setdefault(key, []).append(network)
    groups = []
    for _, members in sorted(alike.items()):
        first = members[0]
        if (
            first.run.frozen
        ):  # networks with the same prefix and task are adjacent and share features
            place: dict[tuple, int] = {}
            source = lambda m: (m.split.name, m.split.seed, m.run.source, m.run.target)
            members.sort(key=lambda m: place.setdefault(source(m), len(place)))
        # A network with several learning rates to choose from takes a place for each.
        each = len(work.settings.rates_of(first.run)) or 1
        size = replicas or work.trainer(first).replicas(work.task(first), first.run.frozen)
        size = max(1, size // each)
        # Of equal size, to share one program: 33 networks, at most 32 at a time, become 17 and 16 (+ 1 repeated).
        count = -(-len(members) // size)
        size = -(-len(members) // count)
        groups += [
            Group(tuple(members[i : i + size]), size * each) for i in range(0, len(members), size)
        ]
    return groups
