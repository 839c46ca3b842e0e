#!/usr/bin/env bash
# TPU slices of one host each that search for a run and may be taken away: each is a queued resource
# of its own, joins the Ray cluster of the run (launch/ray.sh), and is asked for anew when it is lost.
#
#   export ZONE=us-east5-b TYPE=v6e-8 VERSION=v2-alpha-tpuv6e OPTIONS="--spot"
#   export RAY_AUTH_TOKEN=...                             # of the machine that has the run
#   bash launch/tpu_workers.sh join HOST:PORT NAME COUNT  # NAME-1 to NAME-COUNT
#   bash launch/tpu_workers.sh delete NAME COUNT
#
# `join` deletes a slice after JOIN_SECONDS (600) without a cluster at HOST, and ends with the last
# one; Ctrl-C leaves them as they are. HOST is an address that the slices reach. OPTIONS and SETUP
# are those of tpu_pod.sh; SETUP need not mount the working folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
source launch/queued_resources.sh
usage() {
  sed -n '2,/^set/{s/^# \{0,1\}//p;}' "launch/tpu_workers.sh" >&2
  exit 2
}

work() {
  obtain && install_clone tpu,ray &&
    send_secret "$token" .stair_ray_token &&
    on_all_hosts "cd stair_jax && RAY_AUTH_TOKEN_PATH=\$HOME/.stair_ray_token STAIR_EXTRA=tpu \
JOIN_SECONDS=${JOIN_SECONDS:-600} exec bash launch/ray.sh join $(printf '%q' "$head")"
}

# Has the slice `name` work until there is no cluster any more.
keep_working() {
  local failures=0 started
  while ((failures < 10)); do
    started=$SECONDS
    if work; then
      delete
      return
    fi
    failures=$((SECONDS - started < 600 ? failures + 1 : 0))
    sleep "${POLL_SECONDS:-30}"
  done
  echo "tpu_workers.sh: $name failed ten times in a row: it is deleted" >&2
  delete
  return 1
}

join() {
  local status=0 worker workers=()
  token="$(mktemp)"
  trap 'rm -f "$token"' EXIT
  trap 'trap - INT TERM; kill 0' INT TERM # with the commands that wait for the slices
  ray_token >"$token"
  for name in "${names[@]}"; do
    keep_working &
    workers+=($!)
  done
  for worker in "${workers[@]}"; do
    await "$worker" || status=1
  done
  return "$status"
}

case "${1:-}" in
  join) [[ $# -eq 4 && "$2" == *:* && -n "${RAY_AUTH_TOKEN:-}" ]] || usage ;;
  delete) [[ $# -eq 3 ]] || usage ;;
  *) usage ;;
esac
[[ -n "${ZONE:-}" && "${*: -1}" =~ ^[1-9][0-9]{0,3}$ ]] || usage
mapfile -t names < <(seq -f "${*: -2:1}-%g" "${*: -1}")
case "$1" in
  join) head="$2" && join ;;
  delete) for name in "${names[@]}"; do delete; done ;;
esac
