"""The persistent compilation cache: a resumed sweep does not compile again."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from yosinski_jax.base.files import is_remote
from yosinski_jax.data import derived

#: Options of jax: the folder of the cache, and which programs it keeps.
_SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


def folder() -> str | None:
    """The folder of jax's compilation cache; None if it is off."""
    return getattr(jax.config, _SETTINGS[0], None)


def cache(where: str | Path) -> None:
    """Caches all compiled programs in a folder from now on, small ones included."""
    # A full disk only costs time later, but jax would warn for every program.
    warnings.filterwarnings(
        "ignore", message="Error (writing|reading) persistent compilation cache"
    )
    if folder() != str(where):
        compilation_cache.reset_cache()  # jax reads the option only once
    for name, value in zip(_SETTINGS, (str(where), 0.0, 0), strict=True):
        jax.config.update(name, value)


def keep(workdir: Path | None, where: Path | str | None = None) -> None:
    """Turns on the compilation cache for a sweep.

    Args:
      workdir: the sweep's; None if it is temporary.
      where: the folder of the cache; "off" to leave jax as it is; None for jax's own if set
        (`JAX_COMPILATION_CACHE_DIR`), else .compile_cache next to the workdir, or in the user's caches
        if the workdir is temporary or in a bucket.
    """
    if where == "off" or (where is None and folder()):
        return
    if where is None:
        if workdir is None or is_remote(workdir):
            where = derived.folder() / "compiled"
        else:
            where = workdir.parent / ".compile_cache"
    cache(Path(where).absolute())


@contextlib.contextmanager
def left_as_found() -> Iterator[None]:
    """Restores the options of jax's cache afterwards, for programs that continue after a sweep."""
    before = {name: getattr(jax.config, name) for name in _SETTINGS}
    with warnings.catch_warnings():
        try:
            yield
        finally:
            if folder() != before[_SETTINGS[0]]:
                compilation_cache.reset_cache()
            for name, value in before.items():
                jax.config.update(name, value)
