"""The flags that send a sweep's curves to TensorBoard or Weights & Biases as well."""

import contextlib
from collections.abc import Iterator
from typing import Any

from absl import flags

_TENSORBOARD = flags.DEFINE_string(
    "tensorboard",
    None,
    "folder for TensorBoard, which gets every evaluation of every network: within seconds of networks trained "
    "in this process, else when a network is finished",
)
_WANDB = flags.DEFINE_string(
    "wandb", None, "PROJECT or ENTITY/PROJECT of Weights & Biases, the same way"
)


@contextlib.contextmanager
def fed(display: Any) -> Iterator[Any]:
    """The display, wrapped to feed the trackers named by the flags.

    Raises:
      UserError: a tracker's package is not installed.
    """
    from yosinski_jax.sweep import trackers

    named = [
        kind(flag.value)
        for kind, flag in ((trackers.TensorBoard, _TENSORBOARD), (trackers.WandB, _WANDB))
        if flag.value
    ]
    if not named:
        yield display
        return
    with contextlib.closing(trackers.Tracked(display, named)) as tracked:
        yield tracked
