"""What the paper's plan takes on accelerators that are not at hand: from operations and bytes of each step, on paper."""

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
    """An accelerator as its maker describes it.

    Attributes:
        flops: dense bfloat16 operations a second, of one chip.
        bandwidth: bytes a second from and to its memory.
        chips: how many train a network together, a share of the batch each.
        link: bytes a second between chips, both ways together.
        networks: how many are trained side by side, each on chips of its own.
    """

    flops: float
    bandwidth: float
    chips: int = 1
    link: float = float("inf")
    networks: int = 1

    def seconds(self, step: StepCost) -> float:
        """A step of one network."""
        trained, still = step.parameters_trained, step.parameters_frozen
        # Every chip reads all parameters and updates them (see `step_cost`); activations are shared out.
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
#: Assumed shares of the peaks that training reaches: of products, and of what memory and links carry.
COMPUTE, BANDWIDTH = 0.3, 0.7
#: Classes, training and test images. Of ImageNet-21k as many are held out as of ILSVRC-2012.
IMAGENET, IMAGENET_21K = (1000, 1_281_167, 50_000), (21_841, 14_197_122 - 50_000, 50_000)


class Counted:
    """Images that are counted and never read.

    Args:
        classes: their number; each has as many images, give or take one.
        images: their number.
    """

    shape, dtype, fingerprint = (SIZE, SIZE, 3), np.dtype(np.uint8), "counted"

    def __init__(self, classes: int, images: int):
        self.labels = np.arange(images, dtype=np.int32) % classes

    def __len__(self) -> int:
        return len(self.labels)


def run(dataset: Dataset, folder: Path) -> dict[str, Any]:
    """Prices the networks of the paper's plan, in bfloat16, on data of ImageNet's size.

    Args:
        dataset: an ImageNet of any size, for the names of its classes.
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
    # As many passes over each task as the paper's steps are; the plan's tasks grow alike.
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
    """Sums over networks, and their time on each device."""
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
    parts = []
    for name in ("ImageNet", "ImageNet-21k"):
        plan = result[name]
        rows = [
            (device, f"{s / 86_400:,.1f}", f"{plan['steps'] / s:,.0f}", f"{plan['steps'] * result['batch_size'] / s:,.0f}")
            for device, s in plan["seconds"].items()
        ]  # fmt: skip
        parts.append(
            f"{name}: {plan['networks']} networks, {plan['steps']:.3g} steps of {result['batch_size']} images, "
            f"{plan['flops']:.3g} FLOP, {plan['bytes']:.3g} bytes moved; a base {plan['base_step']['flops'] / 1e12:.3g} "
            f"TFLOP and {plan['base_step']['traffic_bytes'] / 1e9:.3g} GB a step\n"
            + measure.table(("device", "days", "steps/s", "images/s to feed"), rows)
        )
    parts.append(
        f"assumed: {COMPUTE:.0%} of the peak of bfloat16 products or {BANDWIDTH:.0%} of the memory's bandwidth, whichever "
        f"takes longer, then gradients between chips at {BANDWIDTH:.0%} of the links; the input path and evaluations "
        f"({result['evaluation_share']:.1%} of the operations) left out"
    )
    return "\n\n".join(parts)
