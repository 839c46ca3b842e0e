#!/usr/bin/env bash
# Machines of a Ray cluster that lives as long as one run, search for it and train in between.
#
#   export RAY_AUTH_TOKEN=$(openssl rand -hex 32)                   # the same on all machines
#   bash launch/ray.sh run --config=FILE --workdir=FOLDER [...]     # on the first one
#   bash launch/ray.sh join HOST:PORT                               # on any other one, at any time
#
# `run` starts the cluster, runs the command, and ends the cluster with it. `join` works for the
# cluster of HOST as soon as there is one, and for the next one there; it ends after JOIN_SECONDS
# (600) without one. RAY_PORT (6379) is the port of `run`, INTERFACE the network interface by which
# the machines reach each other, STAIR_EXTRA as in host.sh. RAY_OPTIONS are more options of
# `ray start`, e.g. RAY_OPTIONS="--num-cpus=0" for a machine whose CPUs have no worker.
# RAY_AUTH_TOKEN_PATH, a file of mode 600, may have the token.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
usage() {
  sed -n '2,/^set/{s/^# \{0,1\}//p;}' "launch/ray.sh" >&2
  exit 2
}

# start_ray OPTIONS...: has this machine in the cluster until it is told to stop.
start_ray() {
  # shellcheck disable=SC2086 # RAY_OPTIONS are several words
  exec .venv/bin/ray start --block --disable-usage-stats --temp-dir="$folder/ray" \
    ${RAY_OPTIONS:-} "$@"
}

pause="${POLL_SECONDS:-5}"

# answers HOST:PORT: whether something listens there.
answers() { (exec 3<>"/dev/tcp/${1%:*}/${1##*:}") 2>/dev/null; }

run() {
  local address status
  address="$(own_address):${RAY_PORT:-6379}"
  if answers "$address"; then
    echo "stair_jax: error: $address is taken: set RAY_PORT to another port" >&2
    exit 2
  fi
  (start_ray --head --node-ip-address="${address%:*}" --port="${address##*:}" \
    --include-dashboard=false >&2) &
  node=$!
  trap 'end_cluster' EXIT
  until answers "$address"; do
    kill -0 "$node" 2>/dev/null || exit 1 # Ray has said why
    sleep 0.2
  done
  echo "ray.sh: other machines come by: bash launch/ray.sh join $address" >&2
  .venv/bin/python -u -m stair_jax.launch run --cluster="ray://$address" "$@" &
  driver=$!
  trap 'kill -TERM "$driver"' INT TERM
  stop_without_cluster &
  watcher=$!
  await "$driver" && return
  status=$?
  kill -0 "$node" 2>/dev/null || status=4 # as of a process of the run that is lost
  return "$status"
}

# Stops the run, which would wait for its cluster, where that ends before it.
stop_without_cluster() {
  while kill -0 "$node" 2>/dev/null; do sleep 1; done
  echo "ray.sh: the head of the cluster has ended, and so does the run: Ray says why above" >&2
  kill -TERM "$driver"
}

end_cluster() {
  [[ -z "${watcher:-}" ]] || kill "$watcher" 2>/dev/null || true
  if kill "$node" 2>/dev/null; then
    await "$node" || true
  fi
  rm -rf "$folder"
}

join() {
  local head="$1" last=$SECONDS started node status=1
  until ((SECONDS - last > ${JOIN_SECONDS:-600})); do
    if answers "$head"; then
      started=$SECONDS
      (start_ray --address="$head" ${INTERFACE:+--node-ip-address="$(own_address)"}) &
      node=$!
      trap 'kill "$node"; await "$node" || true; exit 143' INT TERM
      await "$node" || true
      trap - INT TERM
      if ((SECONDS - started >= 12 * pause)); then # Ray tries for less long than that
        last=$SECONDS status=0
      fi
    fi
    sleep "$pause"
  done
  echo "ray.sh: no cluster of this token at $head for ${JOIN_SECONDS:-600} s: ends" >&2
  return "$status"
}

case "${1:-}" in
  run) [[ $# -ge 2 ]] || usage ;;
  join) [[ $# -eq 2 && "$2" == *:* ]] || usage ;;
  *) usage ;;
esac
if [[ -z "${RAY_AUTH_TOKEN:-}" && ! -s "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}" ]]; then
  echo "stair_jax: error: set RAY_AUTH_TOKEN, the same on all machines of the cluster, such as" \
    "\`openssl rand -hex 32\` prints: whoever comes without it is refused" >&2
  exit 2
fi
export RAY_AUTH_MODE=token
extra="$(find_accelerator)"
make_environment "${extra:+$extra,}ray"
folder="$(mktemp -d /tmp/stair_ray.XXXXXX)" # Ray lets everybody into its own one
trap 'rm -rf "$folder"' EXIT
"$@"
