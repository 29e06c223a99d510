#!/usr/bin/env bash
# Train on a Slurm cluster, one task for each GPU. Edit the two lines marked EDIT, then
#
#   sbatch tools/slurm_train.sh [more arguments of xtune train, such as --strategy fsdp2]
#   sbatch --nodes=4 tools/slurm_train.sh        # lines of this file can be overruled
#
# Five minutes before its time ends the run saves a checkpoint, is queued again and goes on from it, and so it does after
# the loss of a host. `scancel JOB` ends it for good.
#SBATCH --partition=gpu            # EDIT: your partition
#SBATCH --job-name=xtune
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8        # as many as GPUs
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

CONFIG=${CONFIG:-llama3_8b_chat_lora_alpaca_e3}  # EDIT: a preset or a config file
WORK_DIR=${WORK_DIR:-work_dirs/$(basename "$CONFIG" .py)}  # every host must see it

# A job of its own starts anew; one that was queued again goes on, if it had come to a checkpoint.
resume=()
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && [ -f "$WORK_DIR/last_checkpoint" ]; then
    resume=(--resume)
fi

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"
# A task takes the GPU with its number on the host, or, with --gpus-per-task=1, the only one it sees.
code=0
srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    xtune train "$CONFIG" --launcher slurm --work-dir "$WORK_DIR" ${resume[@]+"${resume[@]}"} "$@" || code=$?

# 130: interrupted, with a checkpoint.
if [ "$code" = 130 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
