"""From analysis to figures and the page. No jax; the one folder that imports matplotlib.

Imports `base`, `study` and `analysis`; the command line imports it. Door: `build.write_report`, `plots.figure2_panels`.
"""
