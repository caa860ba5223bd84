"""Time and memory of a sweep by number of networks, of images and of devices."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.benchmarks import measure
from experiments.benchmarks.measure import Finished, Spread
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
    """Runs small sweeps and populations, each in a process of its own.

    Args:
        seeds: numbers of split seeds; each adds 32 networks to a sweep of the digits.
        images: training images per class.
        devices: numbers of devices; virtual ones on a CPU.
        epochs: training epochs, at least 2: the first, which compiles, is left out of the images per second.
        rounds: runs of each.
        options: extra flags of the sweep.

    Raises:
        UserError: there are fewer devices than the smallest of the numbers, or one epoch.
    """
    if epochs < 2:
        raise UserError(f"--epochs={epochs}: the first epoch is not timed; give 2 or more")
    available = _available()
    usable = [n for n in devices if 1 <= n <= available]
    if not usable:
        raise UserError(
            f"--devices={','.join(map(str, devices))}: there are {available}; give 1 to {available}"
        )
    fixed = (*options, f"--epochs={epochs}")
    return {
        "networks": _sweeps(
            [(*fixed, f"--seeds={n}", "--images_per_class=40") for n in seeds], rounds
        ),
        "images": _sweeps(
            [(*fixed, "--seeds=1", f"--images_per_class={n}") for n in images], rounds
        ),
        "devices": _devices(usable, epochs, rounds),
    }


def _sweeps(variants: Sequence[Sequence[str]], rounds: int) -> list[dict]:
    with measure.folder() as folder:

        def once(options: Sequence[str], turn: int) -> Finished:
            name = f"{variants.index(options)}-{turn}"
            places = (f"--workdir={folder / name}", f"--compile_cache={folder / 'cache'}{name}")
            return measure.process(measure.sweep_command(*options, *places))

        done = measure.in_turns(variants, once, rounds)
        first = Spread.of(done[variants[0]], "seconds")
        rows = []
        for i, (options, runs) in enumerate(done.items()):
            records = list((folder / f"{i}-0" / "records").glob("*/*.json"))
            seconds = Spread.of(runs, "seconds")
            rows.append(
                {
                    "options": list(options),
                    "networks": len(records),
                    "train_images": json.loads(records[0].read_text())["train_images"],
                    "seconds": seconds,
                    "seconds_per_network": seconds * (1 / len(records)),
                    "ratio": seconds / first,
                    "peak_bytes": Spread.of(runs, "peak_bytes"),
                }
            )
    return rows


def _devices(counts: Sequence[int], epochs: int, rounds: int) -> list[dict]:
    """The same eight networks on different numbers of devices: same results, time, memory."""

    def once(count: int, turn: int) -> Finished:
        room = "experiments.benchmarks.on_devices"
        return measure.process([sys.executable, "-m", room, str(count), str(epochs)])

    rows = []
    for count, runs in measure.in_turns(counts, once, rounds).items():
        told = [json.loads(one.out.splitlines()[-1]) for one in runs]
        row = told[-1] | {
            "devices": count,
            "seconds": Spread.of(runs, "seconds"),
            "images_per_second": Spread(tuple(one["images_per_second"] for one in told)),
            "peak_bytes": Spread.of(runs, "peak_bytes"),
        }
        rows.append(row)
        # Largest difference of any parameter's norm and of any accuracy.
        for what, name in (("norms", "norm_difference"), ("accuracy", "accuracy_difference")):
            row[name] = float(np.abs(np.subtract(row[what], rows[0][what])).max())
    return rows


def _available() -> int:
    """Number of devices that processes can use; a CPU can be split into any number."""
    # Asked in a process: started here, jax would allocate the devices' memory.
    ask = "import jax; print(jax.default_backend(), jax.local_device_count())"
    backend, count = measure.process([sys.executable, "-c", ask]).out.split()[-2:]
    return 2**31 if backend == "cpu" else int(count)


def show(result: Mapping[str, list[dict[str, Any]]]) -> str:
    """Three tables."""
    by_size = {
        "networks": "{networks}",
        "images per task": "{train_images}",
        "seconds": "{seconds:.1f}",
        "per network": "{seconds_per_network:.3f}",
        "ratio": "{ratio:.2f}",
        "peak memory, MB": "{peak_bytes.mega}",
    }
    by_devices = {
        "devices": "{devices}",
        "networks": "{networks}",
        "images/s": "{images_per_second}",
        "seconds": "{seconds:.1f}",
        "largest difference": "{norm_difference:.1e} in norms, {accuracy_difference:.1%} accuracy",
        "peak memory, MB": "{peak_bytes.mega}",
    }
    return "\n\n".join(
        f"by number of {what}\n" + measure.table(rows, by_devices if what == "devices" else by_size)
        for what, rows in result.items()
    )
