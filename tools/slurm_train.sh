#!/usr/bin/env bash
# A Slurm job that runs `xtune train` with one task per GPU. For a Slurm cluster. Edit the two lines marked EDIT, then run
#
#   sbatch tools/slurm_train.sh [arguments of xtune train, such as --strategy fsdp2]
#   sbatch --nodes=4 tools/slurm_train.sh        # options of sbatch override the #SBATCH lines
#
# Five minutes before the time limit, the run saves a checkpoint, is requeued and resumes. After the loss of a host, it is
# requeued as well. `scancel JOB` stops it permanently. The log is JOB_NAME-JOB_ID.log in the current folder.
#SBATCH --partition=gpu            # EDIT: your partition
#SBATCH --job-name=xtune
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=8        # one per GPU
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

CONFIG=${CONFIG:-llama3_8b_chat_lora_alpaca_e3}  # EDIT: a preset or a config file
WORK_DIR=${WORK_DIR:-work_dirs/$(basename "$CONFIG" .py)}  # on a file system that all hosts share

# A requeued job resumes if it has a checkpoint; a new job starts from the beginning.
resume=()
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && [ -f "$WORK_DIR/last_checkpoint" ]; then
    resume=(--resume)
fi

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"
# A task uses the GPU with its local rank, or with --gpus-per-task=1 the only visible one.
code=0
srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    xtune train "$CONFIG" --launcher slurm --work-dir "$WORK_DIR" ${resume[@]+"${resume[@]}"} "$@" || code=$?

# 130: interrupted after saving a checkpoint.
if [ "$code" = 130 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
