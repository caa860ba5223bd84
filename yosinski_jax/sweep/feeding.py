"""How the images of a sweep reach its devices: held on them, or streamed from the disk."""

import dataclasses
import functools
from collections.abc import Callable

import jax

from yosinski_jax.base import machine
from yosinski_jax.base.errors import UserError
from yosinski_jax.data.dataset import Dataset
from yosinski_jax.training import feeds
from yosinski_jax.training.feeds import Streaming
from yosinski_jax.training.trainer import Trainer

#: Pixels a side that images of varying sizes are resized to, the paper's.
SIZE = 256


@dataclasses.dataclass(frozen=True)
class Feeding:
    """What is asked of the way to the devices.

    Attributes:
      input: "resident", all images on the devices; "stream", read while training, one network at a time;
        "auto", resident if they fit a quarter of the memory.
      image_size: pixels a side that streamed images are resized to.
      workers: processes that read and decode a stream, 0 for threads; the cores if None.
      skip_corrupt: whether a stream leaves images out that cannot be read, instead of stopping.
      feature_cache: bytes on each device for the outputs of frozen layers of resident images; a quarter
        of the memory if None.
    """

    input: str = "auto"
    image_size: int | None = None
    workers: int | None = None
    skip_corrupt: bool = False
    feature_cache: int | None = None

    def choose(self, dataset: Dataset) -> tuple[Callable[..., Trainer], tuple[int, ...]]:
        """What trains, as `Sweep` takes it, and the shape of one image as it is fed.

        Raises:
          UserError: images that vary in size are to be resident, or something would have no effect.
        """
        sized, streams = dataset.image_shape, self.input == "stream"
        if self.input == "auto":
            streams = bool(self.image_size) or not feeds.fits_in_memory(dataset)
        self._refuse_what_has_no_effect(streams)
        if not streams:
            if sized is None:
                raise UserError(
                    f"dataset={dataset.name}: images of one size are needed with input=resident; "
                    "prepare them with python -m experiments.prepare, or use input=stream"
                )
            return functools.partial(Trainer, feature_bytes=self._feature_bytes()), sized
        size = self.image_size or (SIZE if sized is None else None)
        workers = machine.cores() if self.workers is None else self.workers
        trainer = functools.partial(Trainer, streaming=Streaming(workers, self.skip_corrupt, size))
        shape = sized or dataset.train.image(0).shape
        return trainer, (size, size, *shape[2:]) if size else shape

    def _refuse_what_has_no_effect(self, streams: bool) -> None:
        cache = "off" if self.feature_cache == 0 else self.feature_cache
        of_streams = {
            "image_size": self.image_size,
            "workers": self.workers,
            "skip_corrupt": self.skip_corrupt or None,
        }
        useless, other = (
            ({"feature_cache": cache}, "resident") if streams else (of_streams, "stream")
        )
        for name, value in useless.items():
            if value is not None:
                raise UserError(
                    f"{name}={value}: goes with input={other} only; add that or leave this out"
                )

    def _feature_bytes(self) -> int:
        if self.feature_cache is not None:
            return self.feature_cache
        on_cpu = jax.default_backend() == "cpu"
        return machine.memory() // (jax.local_device_count() if on_cpu else 1) // 4
