"""The estimated cost of a planned sweep: operations and bytes of each network; total compute, memory and disk.

Counted from traces (`costs`) without compiling, so that pricing a plan of months takes a second.
"""

import dataclasses
import math

from yosinski_jax.networks.costs import FLOAT32_BYTES, StepCost, layer_costs, step_cost
from yosinski_jax.study.plan import Planned
from yosinski_jax.sweep.runner import Sweep
from yosinski_jax.training import saves

_BYTES_OF_A_RECORD = 8_192  # without its curve
_BYTES_OF_AN_EVALUATION = 100  # of the curve


@dataclasses.dataclass(frozen=True)
class Price:
    """What one network costs.

    Attributes:
      planned: the network.
      steps: training steps.
      evaluations: passes over the test images.
      step: one training step.
      flops: floating-point operations in total: training (without early stopping, at every learning rate
        tried), evaluations, and the cached output of frozen layers.
    """

    planned: Planned
    steps: int
    evaluations: int
    step: StepCost
    flops: float


@dataclasses.dataclass(frozen=True)
class Total:
    """What a sweep costs.

    Attributes:
      flops: floating-point operations of all networks.
      device_bytes: memory of the largest group on a device.
      devices: number of devices of that group.
      disk_bytes: upper bound for the workdir: bases, records, checkpoints of the largest group.
    """

    flops: float
    device_bytes: int
    devices: int
    disk_bytes: int


def price(sweep: Sweep, planned: Planned) -> Price:
    """Prices one network."""
    trainer, task, k = sweep.trainer(planned), sweep.task(planned), planned.run.frozen
    network, recipe = sweep.network(planned), sweep.recipe(planned)
    cached = trainer.caches(task, k)
    step = step_cost(
        network, trainer.input, batch_size=recipe.batch_size, frozen=k, prefix_cached=cached,
        moments=recipe.moments,
    )  # fmt: skip
    steps, evaluations = trainer.schedule(len(task.train_index))
    forward = [layer.forward_flops for layer in layer_costs(network, trainer.input)]
    evaluated = len(task.validation_index) + len(task.test_index)
    tested = sum(forward[k:] if cached else forward) * evaluations * evaluated
    once = sum(forward[:k]) * (len(task.train_index) + evaluated) if cached else 0
    trainings = len(sweep.settings.rates_of(planned.run)) or 1
    flops = trainings * float(steps * step.flops + tested + once)
    return Price(planned, steps, evaluations, step, flops)


def total(sweep: Sweep, prices: list[Price]) -> Total:
    """Adds up the prices of a sweep's networks."""
    by_id = {p.planned.id: p for p in prices}
    memory, saved = (0, 0), 0
    for group in sweep.groups:
        first = group.members[0]
        step = by_id[first.id].step
        trainer, task = sweep.trainer(first), sweep.task(first)
        memory = max(memory, trainer.memory(task, group.frozen, group.replicas, step))
        state = FLOAT32_BYTES * (2 * step.parameters_trained + step.parameters_frozen)
        saved = max(saved, state * group.replicas)
    bases = [p for p in prices if p.planned.run.treatment == "base"]
    parameters = sum(p.step.parameters_trained + p.step.parameters_frozen for p in bases)
    records = _BYTES_OF_A_RECORD * len(prices)
    curves = _BYTES_OF_AN_EVALUATION * sum(p.evaluations for p in prices)
    # One save more than is kept, while the newest is being written.
    return Total(
        flops=math.fsum(p.flops for p in prices),
        device_bytes=memory[0],
        devices=memory[1],
        disk_bytes=FLOAT32_BYTES * parameters + records + curves + (saves.KEPT + 1) * saved,
    )
