"""Datasets, the tasks that a split makes of them, and how images are read. No jax.

Imports `base` and `study`; `training` and all above it may import it. Door: `dataset.load`, `dataset.from_arrays`,
`dataset.make_task`.
"""
