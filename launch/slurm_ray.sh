#!/usr/bin/env bash
#SBATCH --job-name=stair-ray
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --no-kill
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@180
# GPU nodes of SLURM as a Ray cluster: a worker on each GPU, which searches, and a process on each
# node, which trains in between. From the clone, which all nodes see, as they do the working folder:
#
#   sbatch --nodes=4 --time=24:00:00 launch/slurm_ray.sh --config=FILE --workdir=FOLDER [...]
#
# The first node has the run, the others join it. A node that fails costs the trees that it was
# growing, or the steps since the last checkpoint; where the first one fails, the job is queued
# again, as it is when its time is up. Nodes of other jobs may join and leave (docs/clusters.md).
# INTERFACE, RAY_PORT and RAY_OPTIONS are those of ray.sh.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?this is a script for sbatch}"
source launch/environment.sh
export STAIR_EXTRA="${STAIR_EXTRA:-cuda}"
make_environment "$STAIR_EXTRA,ray" # once, before all nodes look for it
RAY_AUTH_TOKEN="$(ray_token)" # of this job: `srun` hands the environment on
export RAY_AUTH_TOKEN

others=$((SLURM_JOB_NUM_NODES - 1))
if ((others > 0)); then
  head="$(own_address):${RAY_PORT:-6379}"
  srun --no-kill --kill-on-bad-exit=0 --relative=1 --nodes="$others" --ntasks="$others" \
    bash launch/ray.sh join "$head" &
  workers=$!
  trap 'kill "$workers" 2>/dev/null || true' EXIT
fi
time_is_up=
bash launch/ray.sh run "$@" &
run=$!
trap 'time_is_up=yes; kill -TERM "$run"' USR1
await "$run" && status=0 || status=$?
if [[ -n "$time_is_up" && "$status" -ne 0 ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
