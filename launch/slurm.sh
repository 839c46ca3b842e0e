#!/usr/bin/env bash
#SBATCH --job-name=stair
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@180
# GPU nodes of SLURM: one process on each node, with all of its GPUs. From the clone, which all
# nodes see, as they do the working folder:
#
#   sbatch --nodes=2 --time=24:00:00 launch/slurm.sh --config=FILE --workdir=FOLDER [...]
#
# Three minutes before the time is up the run saves, ends, and is queued again to go on; it is
# queued again by SLURM where a node fails or the job is preempted.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?this is a script for sbatch}"
source launch/environment.sh
make_environment "${STAIR_EXTRA:-cuda}"
STAIR_TOKEN="$(shared_token)" # of all processes of this job: `srun` hands the environment on
export STAIR_TOKEN

time_is_up=
trap 'time_is_up=yes; scancel --signal=TERM "$SLURM_JOB_ID"' USR1 # to the steps, not to this shell
# Who ends first waits for the others to save: they end by themselves, within a minute.
srun --kill-on-bad-exit=0 --wait=120 .venv/bin/python -u -m stair_jax.launch --distributed "$@" &
await $! && status=0 || status=$?
if [[ -n "$time_is_up" && "$status" -ne 0 ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
