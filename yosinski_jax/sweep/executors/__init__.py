"""Where groups are trained: processes of one machine, Ray, Slurm, or shards that share nothing but a workdir.

Knows nothing of training: a `Unit` is something to call with a workdir, the files that say it is done, and
the units that come before it. `sweep.fanout` makes units of a sweep's groups. Ray and submitit are imported
only where they are asked for. Doors: `drive.drive`, `interface.Unit`, and one executor a room.
"""
