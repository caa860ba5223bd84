import os
import warnings

import flax.linen as nn
import jax
import numpy as np
import pytest

from yosinski_jax import Recipe, transfer_sweep
from yosinski_jax.sweep import programs

RECIPE = Recipe("mine", learning_rate=0.05, batch_size=16, epochs=1)


class Net(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(7, name="fc1")(x))
        return nn.Dense(self.classes, name="fc2")(x)


@pytest.fixture
def jax_without_a_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("YOSINSKI_JAX_CACHE", str(tmp_path / "user"))
    with programs.left_as_found():
        jax.config.update("jax_compilation_cache_dir", None)
        yield


@pytest.fixture
def study():
    x = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
    labels = np.arange(64) % 4

    def run(**options):
        return transfer_sweep(
            Net, x, labels, x, labels, recipe=RECIPE, layers=["fc1", "fc2"], seeds=1,
            treatments="AnB", progress=False, **options,
        )  # fmt: skip

    return run


@pytest.fixture
def hits():
    """How many programs have been read from a cache."""
    seen = []
    listener = lambda event, **_: seen.append(event) if event.endswith("/cache_hits") else None
    jax.monitoring.register_event_listener(listener)
    yield lambda: len(seen)
    jax.monitoring.unregister_event_listener(listener)


def entries(folder):
    return sorted(p.name for p in folder.glob("*-cache"))


def test_a_program_of_a_study_is_compiled_once(jax_without_a_cache, study, hits, tmp_path):
    first = study()
    kept = entries(tmp_path / "user" / "compiled")
    before = hits()
    assert len(kept) > 2 and jax.config.jax_compilation_cache_dir is None
    jax.clear_caches()  # as in another process
    jax.jit(lambda x: x * 3.5)(1.0)
    assert hits() == before and entries(tmp_path / "user" / "compiled") == kept, "the caller's own"
    again = study()
    # The size of the last programs depends on the clock: one may be new.
    assert hits() - before >= len(kept) // 2
    assert [r["accuracy"] for r in again] == [r["accuracy"] for r in first]


def test_where_compiled_programs_are_kept(jax_without_a_cache, study, tmp_path):
    study(compile_cache="off")
    assert not (tmp_path / "user").exists()
    jax.clear_caches()
    study(workdir=tmp_path / "w" / "study")
    assert entries(tmp_path / "w" / ".compile_cache") and not (tmp_path / "user").exists()
    jax.clear_caches()
    study(compile_cache=tmp_path / "mine")
    assert entries(tmp_path / "mine")
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    programs.keep(tmp_path / "w" / "study")
    assert programs.folder() == str(tmp_path / "own"), "jax's own stays"


def test_a_full_disk_is_not_told_for_every_compiled_program():
    with warnings.catch_warnings(record=True) as told:
        programs.cache(os.environ["TEST_COMPILE_CACHE"])
        # As jax 0.10 words it.
        warnings.warn(
            "Error writing persistent compilation cache entry for 'jit_f': OSError: 28",
            stacklevel=1,
        )
    assert not told
