"""Networks as ordered, named layers: the protocol that training sees, and the networks that come with the package.

Imports `base`, `study` and `splicing`; `training` and all above it may import it. Door: `network`, `registry.make`.
"""
