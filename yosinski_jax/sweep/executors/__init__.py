"""Where groups are trained: processes of this machine, Ray, Slurm, or shards that share only a workdir.

Independent of training: a `Unit` is a function of the workdir, the files that mark it as done, and the units
it depends on. `sweep.fanout` turns a sweep's groups into units. Ray and submitit are imported only when
requested. Entry points: `drive.drive`, `interface.Unit`, and one executor per module.
"""
