#!/usr/bin/env bash
# Train on several nodes of a Slurm cluster: sbatch docs/slurm.sh train/finetune.py --config F [key=value ...]
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --signal=TERM@120
set -euo pipefail
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Data, checkpoints and data.cache_dir must lie where all nodes see them. resume=auto: a requeued job goes on.
srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-backend c10d --rdzv-endpoint "$head:29500" "$@" resume=auto
