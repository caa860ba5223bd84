"""Fault injection: a sweep whose processes are killed, suspended and denied disk writes, against an undisturbed one.

A fault first suspends the processes it hits, so that it is certain which groups they are training: those groups
may be started once more, no others.
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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks import engines, measure
from yosinski_jax.base.errors import UserError
from yosinski_jax.study import records

#: How long a claim on a group lasts under faults, in seconds; by default two minutes.
LEASE = 15.0
#: Faults that end a process for good.
KILLS = ("worker", "coordinator", "machine")
#: Small groups of small networks, with a checkpoint every second, so that there is something to lose.
OPTIONS = (
    "--split=random", "--seeds=1", "--epochs=10", "--replicas=4", "--checkpoint_minutes=0.02", "--noreport",
)  # fmt: skip
_NOT_COMPARED = ("seconds", "images_per_second", "environment", "digest")
_TABLES = ("table.md", "effects.csv")
_STARTED = re.compile(r"^-- .*: start \d+, process (\d+), ", re.MULTILINE)
_SECONDS_WITHOUT_DISK = 3.0
#: A round that takes this much longer than its faults hangs.
_SECONDS_TO_END = 600.0


@dataclasses.dataclass
class Round:
    """A sweep from start to end, and what happened to it.

    Attributes:
        seconds: how long it took.
        faults: what happened, in order.
        disturbed: how often each group was hit.
        starts: how often each group was started.
        differences: what differs from the undisturbed sweep, one line each.
        incomplete: how often a command gave up on groups and had to be started again.
    """

    seconds: float = 0.0
    faults: list[str] = dataclasses.field(default_factory=list)
    disturbed: Counter[str] = dataclasses.field(default_factory=Counter)
    starts: dict[str, int] = dataclasses.field(default_factory=dict)
    differences: list[str] = dataclasses.field(default_factory=list)
    incomplete: int = 0

    def too_often(self) -> list[str]:
        """Groups that were started more than once plus the number of times they were disturbed."""
        return [g for g, count in sorted(self.starts.items()) if count > self.disturbed[g] + 1]

    def as_json(self) -> dict[str, Any]:
        """All of it, the groups started too often, and the starts beyond the first of each group."""
        extra = sum(self.starts.values()) - len(self.starts)
        own = vars(self) | {"disturbed": dict(self.disturbed)}
        return own | {"too_often": self.too_often(), "extra": extra}


def run(
    executor: str,
    *,
    minutes: float,
    kills: int,
    every: float,
    seed: int,
    options: Sequence[str] = OPTIONS,
) -> dict[str, Any]:
    """Trains the same sweep repeatedly under faults.

    Args:
        executor: a name in `engines.ENGINES`.
        minutes: after this time, and with enough kills, no round is started or disturbed any more.
        kills: minimum number of processes to kill.
        every: mean seconds from a group's start to a fault.
        seed: random seed of the times and targets.
        options: of the sweep.

    Raises:
        UserError: a sweep fails or does not end.
    """
    os.environ["YOSINSKI_JAX_LEASE"] = str(LEASE)
    chance = random.Random(seed)
    rounds: list[Round] = []
    killed = lambda: sum(fault in KILLS for r in rounds for fault in r.faults)
    with measure.folder() as folder, engines.engine(executor) as engine:
        options = (*options, f"--compile_cache={folder / 'cache'}")
        reference = _Reference(folder / "undisturbed", options)
        began = time.monotonic()
        enough = lambda: time.monotonic() - began >= 60 * minutes and killed() >= kills
        while not rounds or not enough():
            rounds.append(Round())
            workdir = folder / str(len(rounds))
            _Run(engine, workdir, options, reference, chance, every, rounds[-1]).run(enough)
            print(f"round {len(rounds)}\n{_table([rounds[-1].as_json()])}", flush=True)
    return {
        "executor": executor,
        "kills": killed(),
        "faults": dict(Counter(fault for r in rounds for fault in r.faults)),
        "undisturbed_seconds": reference.seconds,
        "networks": len(reference.records),
        "groups": len(reference.groups),
        "rounds": [r.as_json() for r in rounds],
    }


class _Reference:
    """The undisturbed sweep, trained by two processes; its logs say which group holds which network."""

    def __init__(self, workdir: Path, options: Sequence[str]):
        command = measure.sweep_command(*options, f"--workdir={workdir}", "--processes=2")
        self.seconds = measure.process(command).seconds
        self.records, self.tables = _result(workdir)
        self.groups = {
            path.stem: set(re.findall(r"^(\S+): (?:finished|diverged),", path.read_text(), re.M))
            for path in (workdir / "logs").glob("*.log")
        }

    def hit_by_damage(self, name: str) -> list[str]:
        """The group of a network, and those that copy it, which may start before they notice and have to start again."""
        split, _, base = name.partition("/")
        copies = {
            id for id, r in self.records.items()
            if id.startswith(f"{split}/") and r["source"] and base == f"base{r['source']}"
        }  # fmt: skip
        return [group for group, names in self.groups.items() if names & (copies | {name})]


def _result(workdir: Path) -> tuple[dict[str, dict], dict[str, str]]:
    """Everything that must be bit-identical: records without times, machines and their own digest; tables."""
    found, damaged = records.read_all(workdir)
    rows = {r.id: {k: v for k, v in r.items() if k not in _NOT_COMPARED} for r in found}
    rows |= {line: {} for line in damaged}
    return rows, {name: (workdir / name).read_text() for name in _TABLES}


@dataclasses.dataclass
class _Run:
    """One round; `told` is filled in."""

    engine: engines.Local
    workdir: Path
    options: Sequence[str]
    reference: _Reference
    chance: random.Random
    every: float
    told: Round
    #: What is to be undone, and when, by the monotonic clock.
    later: list[tuple[float, Callable[[], Any]]] = dataclasses.field(default_factory=list)

    def run(self, enough: Callable[[], bool]) -> None:
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
        self.told.starts = {name: len(found) for name, found in self._started().items()}
        pairs = zip(
            _result(self.workdir), (self.reference.records, self.reference.tables), strict=True
        )
        self.told.differences = [line for new, old in pairs for line in _differences(old, new)]

    def _started(self) -> dict[str, list[str]]:
        """The processes that started each group, by its log."""
        logs = sorted((self.workdir / "logs").glob("*.log"))
        return {p.stem: _STARTED.findall(p.read_text(errors="replace")) for p in logs}

    def _train(self, enough: Callable[[], bool]) -> None:
        """Until every coordinator has succeeded, with faults until there were enough."""
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
                pause = self.chance.uniform(0, 2 * self.every) if self._training() else None
                following = None if pause is None else now + pause
            elif now >= following:
                self._fault()
                following = None
            time.sleep(0.05)

    def _start_again(self) -> None:
        for coordinator in self.engine.coordinators:
            if not coordinator.ended() or coordinator.code == 0:
                continue
            if coordinator.code == 1:
                self.told.incomplete += 1
            elif coordinator.code not in (None, -signal.SIGKILL):
                raise UserError(
                    f"{self.workdir}: a sweep exited with code {coordinator.code}: {self._last()}"
                )
            options = (*self.options, f"--workdir={self.workdir}")
            coordinator.start(options, self.workdir.with_suffix(".txt"))

    def _last(self) -> str:
        path = self.workdir.with_suffix(".txt")
        text = path.read_text(errors="replace") if path.exists() else ""
        return " | ".join(text.strip().splitlines()[-5:]) or "no output"

    def _training(self) -> dict[str, int]:
        """The groups in training, and the process that started each last."""
        found, alive = {}, set(self.engine.workers(self.workdir))
        for group, begun in self._started().items():
            names = self.reference.groups[group]
            done = all((self.workdir / "records" / f"{n}.json").exists() for n in names)
            if begun and not done and int(begun[-1]) in alive:
                found[group] = int(begun[-1])
        return found

    def _disturb(self, processes: Sequence[int]) -> None:
        """Counts the groups that these processes are training."""
        hit = [group for group, process in self._training().items() if process in processes]
        self.told.disturbed.update(hit)

    def _later(self, seconds: float, action: Callable[[], Any]) -> None:
        self.later.append((time.monotonic() + seconds, action))

    def _suspend(
        self, processes: Sequence[int], lost: Callable[[int], Sequence[int]]
    ) -> int | None:
        """Suspends one of these; counts the groups of the processes that are `lost` with it. None if there are none."""
        if not processes:
            return None
        process = self.chance.choice(processes)
        engines.send([process], signal.SIGSTOP)
        self._disturb(lost(process))
        return process

    def _kill(self, processes: Sequence[int], lost: Callable[[int], Sequence[int]]) -> int | None:
        process = self._suspend(processes, lost)
        if process is not None:
            engines.send([process], signal.SIGKILL)
        return process

    def _end(self) -> None:
        """Leaves no process of this round behind, whatever happened."""
        for coordinator in self.engine.coordinators:
            if coordinator.process is not None:
                engines.send(engines.below(coordinator.process.pid), signal.SIGKILL)
                coordinator.process.wait()
            coordinator.process, coordinator.code = None, None
        engines.send(self.engine.workers(self.workdir), signal.SIGKILL)

    # Faults: whether they hit anything.

    def _fault(self) -> None:
        kinds = self.engine.faults
        kind = self.chance.choices(list(kinds), list(kinds.values()))[0]
        if getattr(self, f"_hit_{kind.replace(' ', '_')}")():
            self.told.faults.append(kind)
            disturbed = self.told.disturbed.total()
            print(
                f"  fault {len(self.told.faults)}: {kind}; {disturbed} groups disturbed", flush=True
            )

    def _hit_worker(self) -> bool:
        return self._kill(self.engine.victims(self.workdir), engines.below) is not None

    def _hit_coordinator(self) -> bool:
        running = [c.process.pid for c in self.engine.coordinators if c.process is not None]
        # Its workers notice, save what they train and exit.
        return self._kill(running, lambda _: self.engine.workers(self.workdir)) is not None

    def _hit_machine(self) -> bool:
        self.engine.replace(self._kill(self.engine.machines(), engines.below))
        return True

    def _hit_stopped(self) -> bool:
        """Longer than a claim lasts: another worker takes over, and for a moment two train one group."""
        process = self._suspend(self.engine.workers(self.workdir), lambda process: [process])
        if process is not None:
            self._later(1.5 * LEASE, lambda: engines.send([process], signal.SIGCONT))
        return process is not None

    def _hit_stopped_machine(self) -> bool:
        """A whole machine is suspended; when it resumes, others have its work, and Ray has given it up."""
        machine = self.chance.choice(self.engine.machines())
        processes = engines.below(machine)
        engines.send(processes, signal.SIGSTOP)
        self._disturb(processes)

        def wake() -> None:
            engines.send(processes[1:], signal.SIGCONT)
            self._later(2.0, lose)

        def lose() -> None:
            if machine in self.engine.machines():  # not lost meanwhile
                engines.send([machine], signal.SIGCONT)
                self.engine.replace(machine)

        self._later(1.5 * LEASE, wake)
        return True

    def _hit_disk(self) -> bool:
        """A worker cannot write files for a few seconds: as on a full disk, but for this process alone."""
        process = self._suspend(self.engine.workers(self.workdir), lambda process: [process])
        if process is None:
            return False
        _limit_files(process, full=True)
        self._later(_SECONDS_WITHOUT_DISK, lambda: _limit_files(process, full=False))
        engines.send([process], signal.SIGCONT)
        return True

    def _hit_record(self) -> bool:
        """A bit of a record is flipped; its network has to be trained again."""
        found = sorted((self.workdir / "records").glob("*/[!.]*.json"))
        if not found:
            return False
        path = self.chance.choice(found)
        content = bytearray(path.read_bytes())
        content[self.chance.randrange(len(content))] ^= 1 << self.chance.randrange(8)
        path.write_bytes(content)
        hit = self.reference.hit_by_damage(f"{path.parent.name}/{path.stem}")
        self.told.disturbed.update(hit)
        return True


def _limit_files(process: int, full: bool) -> None:
    with contextlib.suppress(ProcessLookupError):
        _, most = resource.prlimit(process, resource.RLIMIT_FSIZE)
        resource.prlimit(process, resource.RLIMIT_FSIZE, (0 if full else most, most))


def _differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    names = sorted(expected.keys() | found.keys())
    return [f"{name} differs" for name in names if expected.get(name) != found.get(name)]


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    shown = []
    for i, row in enumerate(rows, 1):
        kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(row["faults"]).items())
        starts, groups = sum(row["starts"].values()), len(row["starts"])
        shown.append(
            {
                "round": i,
                "seconds": round(row["seconds"]),
                "faults": kinds or "none",
                "starts": f"{starts} of {groups} groups",
                "disturbed": sum(row["disturbed"].values()),
                "too often": len(row["too_often"]),
                "equal": "no" if row["differences"] else "yes",
            }
        )
    return measure.table(shown, {name: f"{{{name}}}" for name in shown[0]})


def show(result: Mapping[str, Any]) -> str:
    """A table by round, and the conclusion."""
    rows = result["rounds"]
    extra, faults = sum(row["extra"] for row in rows), sum(result["faults"].values())
    more = sum(row["seconds"] for row in rows) - len(rows) * result["undisturbed_seconds"]
    wrong = []
    for i, row in enumerate(rows, 1):
        wrong += [f"round {i}: {what}" for what in row["differences"][:3]]
        wrong += [f"round {i}: {group} started too often" for group in row["too_often"]]
    lines = [
        f"--executor={result['executor']}: {result['networks']} networks in {result['groups']} groups, "
        f"{result['undisturbed_seconds']:.0f} s undisturbed",
        _table(rows),
        f"{faults} faults, {result['kills']} of them kills; {extra} groups started again, "
        f"{more / max(faults, 1):.1f} s per fault beyond the undisturbed time",
        *wrong,
    ]
    if not wrong:
        lines.append(
            "every table is bit-identical to the undisturbed one, and no group was started more than once plus once per "
            "disturbance"
        )
    return "\n".join(lines)
