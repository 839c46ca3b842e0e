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
source launch/queued_resources.sh
usage() {
  sed -n '2,/^set/{s/^# \{0,1\}//p;}' "launch/tpu_pod.sh" >&2
  exit 2
}
[[ $# -ge 2 && -n "${ZONE:-}" ]] || usage
action="$1" name="$2"
shift 2

stop() { on_all_hosts "pkill -TERM -f '[s]tair_jax.launch' || true"; }

case "$action" in
  run)
    obtain
    install_clone tpu
    token="$(mktemp)"
    trap 'rm -f "$token"' EXIT
    shared_token >"$token"
    send_secret "$token" .stair_token
    trap stop INT TERM
    # shellcheck disable=SC2016 # a host reads its own file
    on_all_hosts 'cd stair_jax && STAIR_TOKEN=$(cat ~/.stair_token) '"\
exec .venv/bin/python -u -m stair_jax.launch --distributed $(printf '%q ' "$@")" &
    await $!
    ;;
  stop) stop ;;
  delete) delete ;;
  *) usage ;;
esac
