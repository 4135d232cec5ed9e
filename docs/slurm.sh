#!/bin/bash
# A training on two nodes with four GPUs each, which goes on where it was after every time limit:
#   sbatch docs/slurm.sh voxelmorph /data/learn2reg/OASIS
# Lightning takes the places of the processes from SLURM, saves when SLURM sends SIGUSR1, and has the job requeued.
#SBATCH --job-name=reg-bench
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=SIGUSR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -euo pipefail
recipe=${1:?usage: sbatch docs/slurm.sh RECIPE [DATA]}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

srun reg-bench fit "$recipe" \
    --out "runs/$recipe" \
    --ckpt_path last \
    --trainer.accelerator gpu \
    --trainer.devices "$SLURM_NTASKS_PER_NODE" \
    --trainer.num_nodes "$SLURM_NNODES" \
    --trainer.strategy ddp \
    --trainer.precision bf16-mixed \
    ${2:+--data.init_args.root "$2"}
