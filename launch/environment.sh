# shellcheck shell=bash
# Makes .venv in the clone and installs stair_jax there; sourced by the other scripts.

# Prints the first Python that stair_jax runs on.
find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
      2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "stair_jax: error: needs Python 3.11, 3.12 or 3.13; python3 here is" \
    "$(python3 --version 2>&1 || echo missing): install one of them" >&2
  return 2
}

# What an installation depends on: a change of it makes a new one.
installation_id() {
  { cat setup.cfg pyproject.toml requirements.txt && pwd; } | cksum
}

# make_environment [extra]: installs the package, with an extra of setup.cfg, unless it is there.
make_environment() {
  local extra="${1:-}" id python
  local stamp=".venv/installed${extra:+-$extra}"
  id="$(installation_id)"
  if [[ -x .venv/bin/python && -f "$stamp" && "$(cat "$stamp")" == "$id" ]]; then
    return
  fi
  if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    python="$(find_python)" || return
    echo "Making .venv with $("$python" --version) ..." >&2
    if ! "$python" -m venv --clear .venv; then
      echo "stair_jax: error: $python cannot make a virtual environment:" \
        "install its venv module (on Debian and Ubuntu the package python3-venv)" >&2
      return 2
    fi
  fi
  echo "Installing stair_jax and what it needs into .venv: this takes some minutes ..." >&2
  local start=$SECONDS
  if ! .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
    --requirement requirements.txt --editable ".${extra:+[$extra]}"; then
    echo "stair_jax: error: the installation failed: pip says why above;" \
      "the same command tries again" >&2
    return 2
  fi
  # pip would compile file after file; the tests of packages are never imported. A file that
  # cannot be compiled (a template, say) is no error.
  .venv/bin/python -m compileall -q -j 0 -x '/tests?/' .venv/lib >/dev/null 2>&1 || true
  echo "$id" >.venv/installed
  echo "$id" >"$stamp"
  echo "Installed in $((SECONDS - start)) s." >&2
}

# Prints the token that the processes of one run share, drawn anew unless STAIR_TOKEN holds one.
shared_token() {
  echo "${STAIR_TOKEN:-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}"
}

# Prints the token that the machines of one Ray cluster share, drawn anew unless RAY_AUTH_TOKEN is it.
ray_token() {
  echo "${RAY_AUTH_TOKEN:-$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')}"
}

# Prints the address of this host that others reach: that of the network interface INTERFACE, else
# that which leads out of it.
own_address() {
  local address
  if [[ -n "${INTERFACE:-}" ]]; then
    address="$(ip -4 -oneline address show dev "$INTERFACE" scope global 2>/dev/null |
      awk '{sub("/.*", "", $4); print $4; exit}')"
  else
    address="$(.venv/bin/python -c 'import ray; print(ray.util.get_node_ip_address())')" || return
  fi
  if [[ -z "$address" ]]; then
    echo "stair_jax: error: INTERFACE=$INTERFACE has no IPv4 address on $(hostname)" >&2
    return 2
  fi
  echo "$address"
}

# await PID: waits until a process that this shell started ends, and has its status. A signal ends
# `wait`, not the process.
await() {
  local status
  while true; do
    wait "$1" && status=0 || status=$?
    kill -0 "$1" 2>/dev/null || return "$status"
  done
}

# Prints the extra of setup.cfg for the accelerators of this host; nothing where it has none.
find_accelerator() {
  case "${STAIR_EXTRA:-}" in
    none) return ;;
    ?*) echo "$STAIR_EXTRA" && return ;;
  esac
  if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
    echo cuda
  elif compgen -G "/dev/accel*" >/dev/null || compgen -G "/dev/vfio/[0-9]*" >/dev/null; then
    echo tpu
  fi
}
