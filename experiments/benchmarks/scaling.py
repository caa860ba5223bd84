"""Time and memory of a sweep by number of networks, of images and of devices."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.benchmarks import measure
from yosinski_jax.base.errors import UserError


def run(
    *,
    seeds: Sequence[int],
    images: Sequence[int],
    devices: Sequence[int],
    epochs: int,
    rounds: int,
    options: Sequence[str] = (),
) -> dict[str, list[dict]]:
    """Runs small sweeps and populations as processes of their own.

    Args:
        seeds: numbers of split seeds; each adds 32 networks to a sweep of the digits.
        images: training images of each class.
        devices: numbers of devices; virtual ones on a CPU.
        epochs: passes over the task.
        rounds: runs of each.
        options: further flags of the sweep.

    Raises:
        UserError: there are fewer devices than any of the numbers.
    """
    available = _available()
    usable = [n for n in devices if 1 <= n <= available]
    if not usable:
        raise UserError(
            f"--devices={','.join(map(str, devices))}: there are {available}; give 1 to {available}"
        )
    fixed = (*options, f"--epochs={epochs}")
    networks = [(f"--seeds={n}", "--images_per_class=40") for n in seeds]
    tasks = [("--seeds=1", f"--images_per_class={n}") for n in images]
    return {
        "networks": _sweeps([(*fixed, *own) for own in networks], rounds),
        "images": _sweeps([(*fixed, *own) for own in tasks], rounds),
        "devices": _devices(usable, epochs, rounds),
    }


def _sweeps(variants: Sequence[Sequence[str]], rounds: int) -> list[dict]:
    found: dict[int, dict[str, Any]] = {i: {"peaks": []} for i in range(len(variants))}
    with measure.folder() as folder:

        def once(i: int) -> float:
            mine = found[i]
            workdir = folder / f"{i}-{len(mine['peaks'])}"
            done = measure.process(
                measure.sweep_command(
                    *variants[i],
                    f"--workdir={workdir}",
                    f"--compile_cache={folder / 'cache'}{workdir.name}",
                )
            )
            mine["peaks"].append(done.peak_bytes)
            texts = [p.read_text() for p in (workdir / "records").glob("*/*.json")]
            mine["networks"] = len(texts)
            mine["train_images"] = json.loads(texts[0])["train_images"]
            return done.seconds

        names = {str(i): (lambda i=i: once(i)) for i in range(len(variants))}
        seconds = measure.in_turns(names, rounds)
    return [
        {
            "options": list(variants[i]),
            "networks": mine["networks"],
            "train_images": mine["train_images"],
            "seconds": seconds[str(i)],
            "seconds_per_network": seconds[str(i)] * (1 / mine["networks"]),
            "ratio": seconds[str(i)] / seconds["0"],
            "peak_bytes": measure.Spread(tuple(mine["peaks"])),
        }
        for i, mine in found.items()
    ]


def _devices(counts: Sequence[int], epochs: int, rounds: int) -> list[dict]:
    """The same eight networks on different numbers of devices: equal results, time, memory."""
    found: dict[int, dict[str, Any]] = {n: {"peaks": [], "rates": []} for n in counts}

    def once(count: int) -> float:
        done = measure.process(
            [sys.executable, "-m", "experiments.benchmarks.on_devices", str(count), str(epochs)]
        )
        mine = found[count]
        mine |= json.loads(done.out.splitlines()[-1])
        mine["rates"].append(mine["images_per_second"])
        mine["peaks"].append(done.peak_bytes)
        return done.seconds

    seconds = measure.in_turns({str(n): (lambda n=n: once(n)) for n in counts}, rounds)
    first = found[counts[0]]
    return [
        {
            "devices": n,
            "networks": mine["networks"],
            "seconds": seconds[str(n)],
            "images_per_second": measure.Spread(tuple(mine["rates"])),
            "accuracy": mine["accuracy"],
            "norms": mine["norms"],
            # Largest difference of any parameter's norm and of any accuracy.
            "norm_difference": _distance(mine["norms"], first["norms"]),
            "accuracy_difference": _distance(mine["accuracy"], first["accuracy"]),
            "device_peak_bytes": mine["device_peak_bytes"],
            "peak_bytes": measure.Spread(tuple(mine["peaks"])),
        }
        for n, mine in found.items()
    ]


def _available() -> int:
    """Number of devices that processes can use; a CPU can be cut into as many as one likes."""
    # Asked in a process: started here, jax would take the memory of the devices.
    ask = "import jax; print(jax.default_backend(), jax.local_device_count())"
    backend, count = measure.process([sys.executable, "-c", ask]).out.split()[-2:]
    return 2**31 if backend == "cpu" else int(count)


def _distance(a: Sequence[float], b: Sequence[float]) -> float:
    return float(np.abs(np.subtract(a, b)).max())


def show(result: Mapping[str, list[dict]]) -> str:
    """Three tables."""
    parts = []
    for what in ("networks", "images"):
        header = ("networks", "images a task", "seconds", "a network", "ratio", "peak memory, MB")
        cells = [
            (
                str(row["networks"]),
                str(row["train_images"]),
                row["seconds"].text(".1f"),
                row["seconds_per_network"].text(".3f"),
                row["ratio"].text(".2f"),
                (row["peak_bytes"] * 1e-6).text(),
            )
            for row in result[what]
        ]
        parts.append(f"by number of {what}\n{measure.table(header, cells)}")
    header = ("devices", "networks", "images/s", "seconds", "largest difference", "peak memory, MB")
    cells = [
        (
            str(row["devices"]),
            str(row["networks"]),
            row["images_per_second"].text(),
            row["seconds"].text(".1f"),
            f"{row['norm_difference']:.1e} in norms, {100 * row['accuracy_difference']:.1f} % accuracy",
            (row["peak_bytes"] * 1e-6).text(),
        )
        for row in result["devices"]
    ]
    return "\n\n".join([*parts, f"by number of devices\n{measure.table(header, cells)}"])
