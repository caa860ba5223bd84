"""Finished studies, a folder each: README, settings, records, tables, figure and page.

`python -m experiments.studies store NAME --workdir=DIR` makes a folder of a finished sweep;
`python -m experiments.studies verify NAME` computes the tables again from the records, and with
`--network=random-0/A4B` trains that network again and compares. Rooms: `store`, `verify`.
"""
