"""Compiled programs, kept between processes: a resumed sweep does not compile again."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from yosinski_jax.base.files import is_remote
from yosinski_jax.data import derived

#: Of jax: where compiled programs are kept, and which.
_SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


def folder() -> str | None:
    """Where jax keeps compiled programs; None if it does not."""
    return getattr(jax.config, _SETTINGS[0], None)


def cache(where: str | Path) -> None:
    """Keeps compiled programs in a folder from now on, the small ones too."""
    # A full disk costs time later, no result; jax would say so for every program.
    warnings.filterwarnings(
        "ignore", message="Error (writing|reading) persistent compilation cache"
    )
    if folder() != str(where):
        compilation_cache.reset_cache()  # jax looks for its folder once
    for name, value in zip(_SETTINGS, (str(where), 0.0, 0), strict=True):
        jax.config.update(name, value)


def keep(workdir: Path | None, where: Path | str | None = None) -> None:
    """Keeps the compiled programs of a sweep.

    Args:
      workdir: of the sweep; None if it is temporary.
      where: the folder of the programs; "off" to leave jax as it is; None for jax's own if it has one
        (`JAX_COMPILATION_CACHE_DIR`), else .compile_cache beside the workdir, or in the user's caches
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
    """Gives jax's cache back as it was to a program that goes on after a sweep."""
    before = {name: getattr(jax.config, name) for name in _SETTINGS}
    with warnings.catch_warnings():
        try:
            yield
        finally:
            if folder() != before[_SETTINGS[0]]:
                compilation_cache.reset_cache()
            for name, value in before.items():
                jax.config.update(name, value)
