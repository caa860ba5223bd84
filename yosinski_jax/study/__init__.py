"""What is asked, as values: splits, treatments, recipes, settings, records. No jax.

Imports `base` alone; everyone else may import it. Doors: `treatments.Run`, `settings.Settings`, `plan.networks`, `records`.
"""
