#!/usr/bin/env bash
# TPU slices on GKE, as a JobSet that xpk makes: one process on each host.
#
#   export CLUSTER=NAME PROJECT=ID ZONE=us-east5-a TYPE=v5p-32
#   bash launch/gke.sh run NAME --config=FILE --workdir=FOLDER [--config.FIELD=VALUE ...]
#   bash launch/gke.sh delete NAME
#
# FOLDER is on storage of the cluster that all pods mount (`xpk storage attach`, then
# OPTIONS="--storage=..."). SLICES is their number (1), RESTARTS how often a job that was preempted
# or lost a process starts again by itself, to go on (10). OPTIONS are more options of
# `xpk workload create`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
usage() {
  sed -n '2,/^set/{s/^# \{0,1\}//p;}' "launch/gke.sh" >&2
  exit 2
}
[[ $# -ge 2 && -n "${CLUSTER:-}" && -n "${PROJECT:-}" && -n "${ZONE:-}" ]] || usage
action="$1" name="$2"
shift 2
where=(--cluster="$CLUSTER" --project="$PROJECT" --zone="$ZONE" --workload="$name")

case "$action" in
  run)
    # `exec`, so that a signal to the pod reaches Python; the image gets this clone as its folder.
    # shellcheck disable=SC2086 # OPTIONS are several words
    xpk workload create "${where[@]}" --tpu-type="${TYPE:?}" --num-slices="${SLICES:-1}" \
      --base-docker-image="${IMAGE:-python:3.11}" --script-dir=. \
      --max-restarts="${RESTARTS:-10}" --termination-grace-period-seconds=180 ${OPTIONS:-} \
      --command="STAIR_TOKEN=$(printf '%q' "$(shared_token)") STAIR_EXTRA=tpu exec bash \
launch/host.sh --distributed $(printf '%q ' "$@")"
    ;;
  delete) xpk workload delete "${where[@]}" ;;
  *) usage ;;
esac
