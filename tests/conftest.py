"""One strict room for all tests: two CPU devices, no silent rank promotion, no network."""

import os

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")
