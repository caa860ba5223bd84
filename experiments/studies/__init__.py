"""Finished studies, a folder each: README, settings, records, tables, figure and page.

`python -m experiments.studies store NAME --workdir=DIR` makes the folder of a finished sweep;
`python -m experiments.studies verify NAME` recomputes the tables from the records, and with
`--network=random-0/A4B` retrains that network and compares. Rooms: `store`, `verify`.
"""
