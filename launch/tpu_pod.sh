#!/usr/bin/env bash
# A TPU slice of several hosts, by way of a queued resource: one process on each host.
#
#   export ZONE=us-east5-a TYPE=v5p-32 VERSION=v2-alpha-tpuv5
#   bash launch/tpu_pod.sh run NAME --config=FILE --workdir=FOLDER [--config.FIELD=VALUE ...]
#   bash launch/tpu_pod.sh stop NAME      # it saves and ends
#   bash launch/tpu_pod.sh delete NAME
#
# `run` asks for the slice unless it is there, waits for it, copies this clone to each host, installs
# it, and runs. FOLDER is on a file system that all hosts see: SETUP is a command that each host runs
# before, e.g. SETUP="sudo mkdir -p /runs && sudo mount -t nfs 10.0.0.2:/runs /runs". OPTIONS are
# more options of `queued-resources create`, e.g. OPTIONS="--spot". The same `run` again goes on
# where it stopped, after a preemption too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
usage() {
  sed -n '2,/^set/{s/^# \{0,1\}//p;}' "launch/tpu_pod.sh" >&2
  exit 2
}
[[ $# -ge 2 && -n "${ZONE:-}" ]] || usage
action="$1" name="$2"
shift 2

tpus() { gcloud compute tpus "$@" --zone="$ZONE"; }
on_all_hosts() { tpus tpu-vm ssh "$name" --worker=all --command="$1"; }
state() { tpus queued-resources describe "$name" --format="value(state.state)" 2>/dev/null || true; }
stop() { on_all_hosts "pkill -TERM -f '[s]tair_jax.launch' || true"; }
delete() { tpus queued-resources delete "$name" --force --quiet; }

# Waits until the slice is there; one that was taken away is asked for anew.
obtain() {
  local now last=
  while now="$(state)" && [[ "$now" != ACTIVE ]]; do
    [[ "$now" == "$last" ]] || echo "tpu_pod.sh: $name is ${now:-not there yet}" >&2
    last="$now"
    case "$now" in
      SUSPENDED | FAILED) delete ;;
      "")
        # shellcheck disable=SC2086 # OPTIONS are several words
        tpus queued-resources create "$name" --node-id="$name" --accelerator-type="${TYPE:?}" \
          --runtime-version="${VERSION:?}" ${OPTIONS:-}
        ;;
    esac
    sleep "${POLL_SECONDS:-30}"
  done
}

copy() {
  local archive
  archive="$(mktemp -d)/stair_jax.tgz"
  git ls-files -z | tar --create --gzip --null --files-from=- --file="$archive"
  tpus tpu-vm scp "$archive" "$name:stair_jax.tgz" --worker=all
  rm -r "$(dirname "$archive")"
}

case "$action" in
  run)
    obtain
    copy
    on_all_hosts "set -e; ${SETUP:-true}; mkdir -p stair_jax; tar xzf stair_jax.tgz -C stair_jax
      cd stair_jax; source launch/environment.sh; make_environment tpu"
    trap stop INT TERM
    on_all_hosts "cd stair_jax && STAIR_TOKEN=$(printf '%q' "$(shared_token)") \
      exec .venv/bin/python -u -m stair_jax.launch --distributed $(printf '%q ' "$@")" &
    status=0
    while true; do
      wait $! && status=0 || status=$?
      kill -0 $! 2>/dev/null || break # a signal ends `wait`, not the run
    done
    exit "$status"
    ;;
  stop) stop ;;
  delete) delete ;;
  *) usage ;;
esac
