"""The whole experiment in one workdir: groups, running them, locks, what it costs.

Imports everything up to `training`; the API and the command line import it. Door: `runner.Sweep`.
"""
