#!/bin/bash

# Parameters
#SBATCH --account=me
#SBATCH --array=0-2%3
#SBATCH --cpus-per-task=8
#SBATCH --dependency=afterok:101
#SBATCH --error=WORKDIR/slurm/%A_%a_0_log.err
#SBATCH --gpus-per-node=1
#SBATCH --job-name=yosinski_jax
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=1
#SBATCH --open-mode=append
#SBATCH --output=WORKDIR/slurm/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=USR2@90
#SBATCH --time=120
#SBATCH --wckey=submitit

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output WORKDIR/slurm/%A_%a_%t_log.out --error WORKDIR/slurm/%A_%a_%t_log.err PYTHON -u -m submitit.core._submit WORKDIR/slurm
