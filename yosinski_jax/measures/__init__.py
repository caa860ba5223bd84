"""Measures of each layer of a trained network: one file per measure, discovered by being in this folder.

A measure is a function on plain arrays or parameters, with its formula and its paper in the docstring, and a few lines that
apply it to one layer of a base network (`registry.measure`). `workdir.measure` measures a finished sweep. Only the command line
imports this folder; what comes out is `measures.csv`, which reports read without jax.
"""
