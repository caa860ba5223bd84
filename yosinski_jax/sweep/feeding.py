"""How the images of a sweep reach its devices: resident or streamed from disk."""

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

#: Side in pixels to which images of varying sizes are resized, as in the paper.
SIZE = 256


@dataclasses.dataclass(frozen=True)
class Feeding:
    """Options for feeding images to the devices.

    Attributes:
      input: "resident" keeps all images on the devices; "stream" reads them while training, one network at a
        time; "auto" keeps them resident if they fit in a quarter of the memory.
      image_size: side in pixels to which streamed images are resized.
      workers: processes that read and decode a stream, 0 for threads; one per core if None.
      skip_corrupt: whether a stream skips unreadable images instead of stopping.
      feature_cache: bytes on each device for cached outputs of frozen layers, for resident images; a
        quarter of the memory if None.
    """

    input: str = "auto"
    image_size: int | None = None
    workers: int | None = None
    skip_corrupt: bool = False
    feature_cache: int | None = None

    def choose(self, dataset: Dataset) -> tuple[Callable[..., Trainer], tuple[int, ...]]:
        """The `trainer` argument of `Sweep`, and the shape of one image as fed.

        Raises:
          UserError: resident images vary in size, or an option would have no effect.
        """
        sized, streams = dataset.image_shape, self.input == "stream"
        if self.input == "auto":
            streams = bool(self.image_size) or not feeds.fits_in_memory(dataset)
        self._refuse_what_has_no_effect(streams)
        if not streams:
            if sized is None:
                raise UserError(
                    f"dataset={dataset.name}: its images vary in size, and input=resident needs one size; "
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
        unused, other = (
            ({"feature_cache": cache}, "resident") if streams else (of_streams, "stream")
        )
        for name, value in unused.items():
            if value is not None:
                raise UserError(
                    f"{name}={value}: only works with input={other}; add that or leave this out"
                )

    def _feature_bytes(self) -> int:
        if self.feature_cache is not None:
            return self.feature_cache
        on_cpu = jax.default_backend() == "cpu"
        return machine.memory() // (jax.local_device_count() if on_cpu else 1) // 4
