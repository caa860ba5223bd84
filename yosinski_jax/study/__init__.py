"""What is asked, as values: splits, treatments, recipes, settings, records. No jax.

Imports `base` alone; everyone else may import it. Door: `treatments.Run`, `settings.Settings`, `records`.
"""
