"""From records to numbers and words: tables, intervals, effects, findings, the published study. No jax.

Imports `base` and `study`; `report` imports it. Door: `results.read`, `tables`, `findings`.
"""
