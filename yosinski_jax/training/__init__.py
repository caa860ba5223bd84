"""Training networks: the step that XLA compiles, populations, streams, checkpoints, several hosts.

Imports `base`, `study`, `data`, `networks`; `sweep` and `measures` may import it. Door: `trainer.Trainer`,
`checkpoints.load_layers`.
"""
