"""One room for all tests: two CPU devices, no display, compiled programs shared within the run."""

import contextlib
import os
import shutil
import signal
import tempfile
import threading

os.environ.setdefault("MPLBACKEND", "agg")
# Made anew by the first process of a run and inherited by its workers, so nothing stays from an
# earlier run.
os.environ.setdefault("TEST_COMPILE_CACHE", tempfile.mkdtemp(prefix="jax-cache-"))

os.environ.setdefault("YOSINSKI_JAX_CACHE", tempfile.mkdtemp(prefix="decoded-"))

# A shell's background jobs ignore Ctrl-C, and so would every process that a test starts and interrupts.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

import jax
import pytest


def pytest_addoption(parser):
    """Longer forms of tests that draw studies at random."""
    parser.addoption(
        "--simulations", type=int, default=60, help="studies drawn by tests/analysis/test_truth.py"
    )


jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_compilation_cache_dir", os.environ["TEST_COMPILE_CACHE"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

# Its flags must be there before the first `flagsaver`, which at its end drops those defined meanwhile.
with contextlib.suppress(ImportError):
    from array_record.python import array_record_data_source  # noqa: F401


@pytest.fixture
def copy(whole, tmp_path):
    """A copy to change of the folder that a room's own `whole` begins with."""
    folder = tmp_path / "copy"
    shutil.copytree(whole[0], folder)
    return folder
