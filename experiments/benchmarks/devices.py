"""Estimated time of the paper's plan on other accelerators, from the FLOPs and bytes of each step."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks import measure
from yosinski_jax.data.dataset import Dataset
from yosinski_jax.networks import registry
from yosinski_jax.networks.costs import FLOAT32_BYTES, StepCost, step_cost
from yosinski_jax.networks.network import Network
from yosinski_jax.study import recipes
from yosinski_jax.sweep import pricing, request
from yosinski_jax.sweep.feeding import SIZE, Feeding


@dataclasses.dataclass(frozen=True)
class Device:
    """An accelerator by its data sheet.

    Attributes:
        flops: dense bfloat16 FLOP/s of one chip.
        bandwidth: of its memory, bytes/s.
        chips: how many train a network together, each on part of the batch.
        link: bandwidth between chips, both directions together, bytes/s.
        networks: how many are trained side by side, each on chips of its own.
    """

    flops: float
    bandwidth: float
    chips: int = 1
    link: float = float("inf")
    networks: int = 1

    def seconds(self, step: StepCost) -> float:
        """Time of one step of one network."""
        trained, still = step.parameters_trained, step.parameters_frozen
        # Every chip reads all parameters and updates them (see `step_cost`); activations are split.
        parameters = FLOAT32_BYTES * (6 * trained + still)
        moved = (step.traffic_bytes - parameters) / self.chips + parameters
        reduced = 2 * (1 - 1 / self.chips) * FLOAT32_BYTES * trained
        return (
            max(step.flops / (COMPUTE * self.flops * self.chips), moved / (BANDWIDTH * self.bandwidth))
            + reduced / (BANDWIDTH * self.link)
        )  # fmt: skip


#: https://cloud.google.com/tpu/docs/v5e and v6e (between chips 1,600 and 3,584 Gbit/s); NVIDIA's data sheet of the
#: H200 SXM, whose 1,979 TFLOP/s of bfloat16 are with sparsity.
DEVICES = {
    "v5e-8": Device(197e12, 819e9, 8, 200e9),
    "v6e-8": Device(918e12, 1640e9, 8, 448e9),
    "H200": Device(989e12, 4.8e12),
    "8 × H200": Device(989e12, 4.8e12, networks=8),
}
#: Assumed fractions of peak reached in training: of FLOP/s, and of memory and link bandwidth.
COMPUTE, BANDWIDTH = 0.3, 0.7
#: Classes, training and test images. As many images of ImageNet-21k are held out as of ILSVRC-2012.
IMAGENET, IMAGENET_21K = (1000, 1_281_167, 50_000), (21_841, 14_197_122 - 50_000, 50_000)


class Counted:
    """Images that are only counted, never read.

    Args:
        classes: number of classes, of equal sizes up to one image.
        images: number of images.
    """

    shape, dtype, fingerprint = (SIZE, SIZE, 3), np.dtype(np.uint8), "counted"

    def __init__(self, classes: int, images: int):
        self.labels = np.arange(images, dtype=np.int32) % classes

    def __len__(self) -> int:
        return len(self.labels)


def run(dataset: Dataset, folder: Path) -> dict[str, Any]:
    """Estimates the cost of the paper's plan, in bfloat16, on data of ImageNet's size.

    Args:
        dataset: ImageNet with any number of images, for the names of its classes.
        folder: a workdir; nothing is written.
    """
    classes, train, test = IMAGENET
    sources: list[Any] = [Counted(classes, train), Counted(classes, test)]
    whole = Dataset(dataset.name, dataset.label_names, sources[0], sources[1], Counted.shape)
    sweep = request.sweep(
        whole, folder, network="caffenet", recipe_name=recipes.get("paper"), compile_cache="off",
        changes={"precision": "bfloat16"}, feeding=Feeding("stream", workers=0),
        grid={
            "split": "paper", "seeds": None, "treatments": None, "layers": (), "preserve": (), "target_images": (),
            "difficulty": False, "seed": 0,
        },
    )  # fmt: skip
    prices = [pricing.price(sweep, planned) for planned in sweep.planned]
    # The paper's number of epochs; all tasks of the plan grow alike.
    longer, images = IMAGENET_21K[1] / train, sweep.recipe(sweep.planned[0]).batch_size
    shape = sweep.trainer(sweep.planned[0]).input.shape
    wide = Network.of(registry.make("caffenet", IMAGENET_21K[0], shape, "bfloat16"))
    steps = [
        step_cost(wide, sweep.trainer(p.planned).input, batch_size=images, frozen=p.planned.run.frozen)
        for p in prices
    ]  # fmt: skip
    return {
        "assumed": {"compute": COMPUTE, "bandwidth": BANDWIDTH},
        "batch_size": images,
        "ImageNet": _plan([(p.steps, p.step) for p in prices]),
        "ImageNet-21k": _plan([(p.steps * longer, s) for p, s in zip(prices, steps, strict=True)]),
        "evaluation_share": 1 - sum(p.steps * p.step.flops for p in prices) / sum(p.flops for p in prices),
    }  # fmt: skip


def _plan(networks: Sequence[tuple[float, StepCost]]) -> dict[str, Any]:
    """Totals over networks, and their time on each device."""
    times = {
        name: sum(steps * device.seconds(step) for steps, step in networks) / device.networks
        for name, device in DEVICES.items()
    }
    return {
        "networks": len(networks),
        "steps": sum(steps for steps, _ in networks),
        "flops": sum(steps * step.flops for steps, step in networks),
        "bytes": sum(steps * step.traffic_bytes for steps, step in networks),
        "base_step": dataclasses.asdict(networks[0][1]),
        "seconds": times,
    }


def show(result: Mapping[str, Any]) -> str:
    """A table for each dataset."""
    columns = {
        "device": "{device}",
        "days": "{days:,.1f}",
        "steps/s": "{steps:,.0f}",
        "images/s to feed": "{images:,.0f}",
    }
    parts, batch = [], result["batch_size"]
    for name in ("ImageNet", "ImageNet-21k"):
        plan = result[name]
        rows = []
        for device, seconds in plan["seconds"].items():
            speed = plan["steps"] / seconds
            times = {"days": seconds / 86_400, "steps": speed, "images": speed * batch}
            rows.append({"device": device, **times})
        parts.append(
            f"{name}: {plan['networks']} networks, {plan['steps']:.3g} steps of {batch} images, {plan['flops']:.3g} FLOP, "
            f"{plan['bytes']:.3g} bytes of memory traffic; a base {plan['base_step']['flops'] / 1e12:.3g} TFLOP and "
            f"{plan['base_step']['traffic_bytes'] / 1e9:.3g} GB per step\n{measure.table(rows, columns)}"
        )
    parts.append(
        f"assumed: {COMPUTE:.0%} of peak bfloat16 FLOP/s or {BANDWIDTH:.0%} of memory bandwidth, whichever is slower, then "
        f"gradients between chips at {BANDWIDTH:.0%} of link bandwidth; without the input pipeline and evaluations "
        f"({result['evaluation_share']:.1%} of the FLOPs)"
    )
    return "\n\n".join(parts)
