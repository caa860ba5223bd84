"""Faults on purpose: a sweep whose processes are killed, stopped, and kept from their disk, against an undisturbed one.

A fault hits processes that were stopped first, so that which groups they train at that instant is known for certain:
those groups may be started once more, no other.
"""

import contextlib
import dataclasses
import os
import random
import re
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks import engines, measure
from yosinski_jax.base.errors import UserError
from yosinski_jax.study import records

#: Seconds of a claim while faults are made; two minutes otherwise.
LEASE = 15.0
#: Faults that end a process for good.
KILLS = ("worker", "coordinator", "machine")
#: Small groups of small networks, saved every second, so that there is something to lose.
OPTIONS = (
    "--split=random", "--seeds=1", "--epochs=10", "--replicas=4", "--checkpoint_minutes=0.02", "--noreport",
)  # fmt: skip
_NOT_COMPARED = ("seconds", "images_per_second", "environment", "digest")
_TABLES = ("table.md", "effects.csv")
_STARTED = re.compile(r"^-- .*: start \d+, process (\d+), ", re.MULTILINE)
_SECONDS_WITHOUT_DISK = 3.0
#: A round that takes longer, all faults over, hangs.
_SECONDS_TO_END = 600.0


@dataclasses.dataclass
class Round:
    """A sweep from its beginning to its end, with what happened to it.

    Attributes:
        seconds: it took.
        faults: what happened, in order.
        disturbed: how often each group was hit.
        starts: how often each group was started.
        differences: what is not as in the undisturbed sweep, a line each.
        incomplete: how often a command ended with groups given up, to be started again.
    """

    seconds: float = 0.0
    faults: list[str] = dataclasses.field(default_factory=list)
    disturbed: Counter[str] = dataclasses.field(default_factory=Counter)
    starts: dict[str, int] = dataclasses.field(default_factory=dict)
    differences: list[str] = dataclasses.field(default_factory=list)
    incomplete: int = 0

    def too_often(self) -> list[str]:
        """Groups that were started more often than they were disturbed, and once."""
        return [g for g, count in sorted(self.starts.items()) if count > self.disturbed[g] + 1]


def run(
    executor: str,
    *,
    minutes: float,
    kills: int,
    every: float,
    seed: int,
    options: Sequence[str] = OPTIONS,
) -> dict[str, Any]:
    """Trains the same sweep again and again under faults.

    Args:
        executor: a name in `engines.ENGINES`.
        minutes: no round begins later, and none is disturbed later, once there were enough kills.
        kills: at least so many processes are killed for good.
        every: mean seconds from a group's start to a fault.
        seed: of the instants and the victims.
        options: of the sweep.

    Raises:
        UserError: a sweep ends in another way than it should, or does not end.
    """
    os.environ["YOSINSKI_JAX_LEASE"] = str(LEASE)
    chance = random.Random(seed)
    rounds: list[Round] = []
    with measure.folder() as folder, engines.engine(executor) as engine:
        options = (*options, f"--compile_cache={folder / 'cache'}")
        reference = _Reference(folder / "undisturbed", options)
        began = time.monotonic()
        enough = lambda: time.monotonic() - began >= 60 * minutes and _count(rounds, KILLS) >= kills
        while not rounds or not enough():
            rounds.append(Round())
            workdir = folder / str(len(rounds))
            _Run(engine, workdir, options, reference, chance, every, rounds[-1]).run(enough)
            print(_line(len(rounds), rounds[-1]), flush=True)
    return {
        "executor": executor,
        "kills": _count(rounds, KILLS),
        "faults": dict(Counter(fault for r in rounds for fault in r.faults)),
        "undisturbed_seconds": reference.seconds,
        "networks": len(reference.records),
        "groups": len(reference.groups),
        "rounds": [
            vars(r)
            | {"disturbed": dict(r.disturbed), "too_often": r.too_often(), "extra": _extra(r)}
            for r in rounds
        ],
    }


def _count(rounds: Sequence[Round], kinds: Sequence[str]) -> int:
    return sum(fault in kinds for r in rounds for fault in r.faults)


def _extra(r: Round) -> int:
    """Starts beyond the first of each group."""
    return sum(r.starts.values()) - len(r.starts)


class _Reference:
    """The undisturbed sweep, trained by two processes: its logs say which group holds which network."""

    def __init__(self, workdir: Path, options: Sequence[str]):
        done = measure.process(
            measure.sweep_command(*options, f"--workdir={workdir}", "--processes=2")
        )
        self.seconds = done.seconds
        self.records, self.tables = _result(workdir)
        self.groups = {
            path.stem: set(re.findall(r"^(\S+): (?:finished|diverged),", path.read_text(), re.M))
            for path in (workdir / "logs").glob("*.log")
        }

    def hit_by_damage(self, name: str) -> list[str]:
        """The group of a network, and those that copy it: they may find out in vain, and have to begin again."""
        split, _, base = name.partition("/")
        copies = {
            id for id, r in self.records.items()
            if id.startswith(f"{split}/") and r["source"] and base == f"base{r['source']}"
        }  # fmt: skip
        return [group for group, names in self.groups.items() if names & (copies | {name})]


def _result(workdir: Path) -> tuple[dict[str, dict], dict[str, str]]:
    """All that must be equal to the bit: records without times, machines and their own digest; tables."""
    found, damaged = records.read_all(workdir)
    rows = {r.id: {k: v for k, v in r.items() if k not in _NOT_COMPARED} for r in found}
    rows |= {line: {} for line in damaged}
    return rows, {name: (workdir / name).read_text() for name in _TABLES}


class _Run:
    """One round."""

    def __init__(self, engine, workdir: Path, options, reference: _Reference, chance, every, told):
        self.engine, self.workdir, self.reference = engine, workdir, reference
        self.options = (*options, f"--workdir={workdir}")
        self.output = workdir.with_suffix(".txt")
        self.chance: random.Random = chance
        self.every, self.told = every, told
        #: What is to be undone, and when, by the monotonic clock.
        self.later: list[tuple[float, Any]] = []

    def run(self, enough) -> None:
        began = time.monotonic()
        try:
            self._train(enough)
            # Damage is found by whoever reads a record next: at the latest by the same command, started again.
            for coordinator in self.engine.coordinators:
                coordinator.code = None
            self._train(lambda: True)
        finally:
            self._end()
        self.told.seconds = round(time.monotonic() - began, 1)
        self.told.starts = {
            path.stem: len(_STARTED.findall(path.read_text(errors="replace")))
            for path in sorted((self.workdir / "logs").glob("*.log"))
        }
        rows, tables = _result(self.workdir)
        self.told.differences = _differences(self.reference.records, rows)
        self.told.differences += _differences(self.reference.tables, tables)

    def _train(self, enough) -> None:
        """Until every coordinator has ended well, under faults until there were enough of them."""
        following = quiet = None
        while not all(c.code == 0 for c in self.engine.coordinators) or self.later:
            now = time.monotonic()
            for item in [item for item in self.later if item[0] <= now]:
                self.later.remove(item)
                item[1]()
            self._start_again()
            if enough():
                quiet = quiet or now
                if now - quiet > _SECONDS_TO_END:
                    raise UserError(
                        f"{self.workdir}: did not end in {_SECONDS_TO_END:.0f} s: {self._last()}"
                    )
            elif following is None:
                # Counted from when a group is in training, or most faults would hit imports.
                following = now + self._pause() if self._training() else None
            elif now >= following:
                self._fault()
                following = None
            time.sleep(0.05)

    def _pause(self) -> float:
        return self.chance.uniform(0, 2 * self.every)

    def _start_again(self) -> None:
        for coordinator in self.engine.coordinators:
            if not coordinator.ended() or coordinator.code == 0:
                continue
            if coordinator.code == 1:
                self.told.incomplete += 1
            elif coordinator.code not in (None, -signal.SIGKILL):
                raise UserError(
                    f"{self.workdir}: a sweep ended with code {coordinator.code}: {self._last()}"
                )
            coordinator.start(self.options, self.output)

    def _last(self) -> str:
        lines = (
            self.output.read_text(errors="replace").strip().splitlines()
            if self.output.exists()
            else []
        )
        return " | ".join(lines[-5:]) or "it printed nothing"

    # Faults.

    def _fault(self) -> None:
        kinds = list(self.engine.faults)
        kind = self.chance.choices(kinds, [self.engine.faults[k] for k in kinds])[0]
        hit = getattr(self, f"_hit_{kind.replace(' ', '_')}")()
        if hit:
            self.told.faults.append(kind)
            disturbed = sum(self.told.disturbed.values())
            print(
                f"  fault {len(self.told.faults)}: {kind}; {disturbed} groups disturbed", flush=True
            )

    def _hit_worker(self) -> bool:
        with self._victim(self.engine.victims(self.workdir)) as process:
            if process is not None:
                self._disturb(engines.below(process))
                engines.send([process], signal.SIGKILL)
            return process is not None

    def _hit_coordinator(self) -> bool:
        running = [c.process.pid for c in self.engine.coordinators if c.process is not None]
        with self._victim(running) as process:
            if process is not None:
                # Its workers notice, save what they train and end.
                self._disturb(self.engine.workers(self.workdir))
                engines.send([process], signal.SIGKILL)
            return process is not None

    def _hit_machine(self) -> bool:
        machine = self.chance.choice(self.engine.machines())
        engines.send([machine], signal.SIGSTOP)
        self._disturb(engines.below(machine))
        engines.send([machine], signal.SIGKILL)
        self.engine.replace(machine)
        return True

    def _hit_stopped(self) -> bool:
        """Longer than a claim lasts: another worker takes over, and for a moment two have one group."""
        processes = self.engine.workers(self.workdir)
        if not processes:
            return False
        process = self.chance.choice(processes)
        engines.send([process], signal.SIGSTOP)
        self._disturb([process])
        self._later(1.5 * LEASE, lambda: engines.send([process], signal.SIGCONT))
        return True

    def _hit_stopped_machine(self) -> bool:
        """All of a machine stands still; when it wakes, others have its work, and Ray has given it up."""
        machine = self.chance.choice(self.engine.machines())
        processes = engines.below(machine)
        engines.send(processes, signal.SIGSTOP)
        self._disturb(processes)

        def wake() -> None:
            engines.send(processes[1:], signal.SIGCONT)
            self._later(2.0, lambda: self._lose(machine))

        self._later(1.5 * LEASE, wake)
        return True

    def _lose(self, machine: Any) -> None:
        if machine in self.engine.machines():  # not lost meanwhile
            engines.send([machine], signal.SIGCONT)
            self.engine.replace(machine)

    def _hit_disk(self) -> bool:
        """A worker can write no file for a few seconds: as on a full disk, but for this process alone."""
        with self._victim(self.engine.workers(self.workdir)) as process:
            if process is None:
                return False
            self._disturb([process])
            _limit_files(process, full=True)
            self._later(_SECONDS_WITHOUT_DISK, lambda: _limit_files(process, full=False))
            engines.send([process], signal.SIGCONT)
            return True

    def _hit_record(self) -> bool:
        """A bit of a record is turned over; its network has to be trained again."""
        found = sorted((self.workdir / "records").glob("*/[!.]*.json"))
        if not found:
            return False
        path = self.chance.choice(found)
        content = bytearray(path.read_bytes())
        content[self.chance.randrange(len(content))] ^= 1 << self.chance.randrange(8)
        path.write_bytes(content)
        for group in self.reference.hit_by_damage(f"{path.parent.name}/{path.stem}"):
            self.told.disturbed[group] += 1
        return True

    def _later(self, seconds: float, action) -> None:
        self.later.append((time.monotonic() + seconds, action))

    @contextlib.contextmanager
    def _victim(self, processes: Sequence[int]) -> Iterator[int | None]:
        """One of these, standing still while the body looks at what it is doing; None if there is none."""
        if not processes:
            yield None
            return
        process = self.chance.choice(processes)
        engines.send([process], signal.SIGSTOP)
        yield process

    def _training(self) -> dict[str, int]:
        """The groups that are begun and not done, and the process that began each last."""
        found = {}
        for path in (self.workdir / "logs").glob("*.log"):
            begun = _STARTED.findall(path.read_text(errors="replace"))
            names = self.reference.groups[path.stem]
            if begun and not all((self.workdir / "records" / f"{n}.json").exists() for n in names):
                found[path.stem] = int(begun[-1])
        alive = set(self.engine.workers(self.workdir))
        return {group: process for group, process in found.items() if process in alive}

    def _disturb(self, processes: Sequence[int]) -> None:
        """Counts the groups that these processes train at this instant."""
        for group, process in self._training().items():
            if process in processes:
                self.told.disturbed[group] += 1

    def _end(self) -> None:
        """Leaves no process of this round behind, whatever happened."""
        for coordinator in self.engine.coordinators:
            if coordinator.process is not None:
                engines.send(engines.below(coordinator.process.pid), signal.SIGKILL)
                coordinator.process.wait()
            coordinator.process, coordinator.code = None, None
        engines.send(self.engine.workers(self.workdir), signal.SIGKILL)


def _limit_files(process: int, full: bool) -> None:
    with contextlib.suppress(ProcessLookupError):
        _, most = resource.prlimit(process, resource.RLIMIT_FSIZE)
        resource.prlimit(process, resource.RLIMIT_FSIZE, (0 if full else most, most))


def _differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    names = sorted(expected.keys() | found.keys())
    return [f"{name} differs" for name in names if expected.get(name) != found.get(name)]


def _line(number: int, r: Round) -> str:
    faults = ", ".join(f"{count} × {name}" for name, count in Counter(r.faults).most_common())
    return (
        f"round {number}: {r.seconds:.0f} s; {faults or 'no faults'}; {sum(r.starts.values())} starts of "
        f"{len(r.starts)} groups, {sum(r.disturbed.values())} disturbed; "
        + (
            f"{len(r.differences)} differences"
            if r.differences
            else "equal to the undisturbed sweep"
        )
    )


def show(result: Mapping[str, Any]) -> str:
    """A table by round, and what all of it says."""
    rows = result["rounds"]
    header = ("round", "seconds", "faults", "starts", "disturbed", "too often", "equal")
    cells = [
        (
            str(i), f"{row['seconds']:.0f}",
            ", ".join(f"{n} {kind}" for kind, n in Counter(row["faults"]).items()) or "none",
            f"{sum(row['starts'].values())} of {len(row['starts'])} groups",
            str(sum(row["disturbed"].values())), str(len(row["too_often"])),
            "no" if row["differences"] else "yes",
        )
        for i, row in enumerate(rows, 1)
    ]  # fmt: skip
    extra, faults = sum(row["extra"] for row in rows), sum(result["faults"].values())
    more = sum(row["seconds"] for row in rows) - len(rows) * result["undisturbed_seconds"]
    lines = [
        f"--executor={result['executor']}: {result['networks']} networks in {result['groups']} groups, undisturbed in "
        f"{result['undisturbed_seconds']:.0f} s",
        measure.table(header, cells),
        f"{faults} faults, {result['kills']} of them kills; {extra} groups started again, "
        f"{more / max(faults, 1):.1f} s a fault beyond the undisturbed time",
    ]
    wrong = [
        f"round {i}: {what}" for i, row in enumerate(rows, 1) for what in row["differences"][:3]
    ]
    wrong += [
        f"round {i}: {g} started too often"
        for i, row in enumerate(rows, 1)
        for g in row["too_often"]
    ]
    lines.append(
        "\n".join(wrong)
        or "every table equals the undisturbed one to the bit, no group was trained more often than it was disturbed, and once"
    )
    return "\n".join(lines)
