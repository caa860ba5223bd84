"""The groups that a sweep's networks are trained in, planned once from the whole sweep."""

from collections.abc import Sequence

from yosinski_jax.study.plan import Group, Planned
from yosinski_jax.sweep.work import Work


def plan(work: Work, planned: Sequence[Planned], replicas: int | None = None) -> list[Group]:
    """Bases first; then by number of frozen layers, so that a program is compiled once and used up.

    From all networks, never from those that are left: a resumed sweep runs in the same groups and
    gives the same numbers.

    Args:
      work: what the groups share.
      planned: every network of the sweep.
      replicas: size of the groups; None to choose by what the devices hold.
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
        if first.run.frozen:
            _side_by_side(members)
        # A network whose rate is chosen takes a place for each rate.
        each = len(work.settings.rates_of(first.run)) or 1
        size = replicas or work.trainer(first).replicas(work.task(first), first.run.frozen)
        size = max(1, size // each)
        # Equal sizes: 33 networks in populations of at most 32 are 17 and 16 (+ 1 repeated), by
        # one program.
        count = -(-len(members) // size)
        size = -(-len(members) // count)
        groups += [
            Group(tuple(members[i : i + size]), size * each) for i in range(0, len(members), size)
        ]
    return groups


def _side_by_side(members: list[Planned]) -> None:
    """Sorts networks so that those with the same prefix and task follow each other and share features."""

    def source(m: Planned) -> tuple:
        return (m.split.name, m.split.seed, m.run.source, m.run.target)

    place = {source(m): i for i, m in reversed(list(enumerate(members)))}
    members.sort(key=lambda m: place[source(m)])
