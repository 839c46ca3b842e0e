# shellcheck shell=bash disable=SC2154
# Queued resources of TPUs: how a slice is asked for, and gets this clone; sourced by other scripts.
# `name` is that of the slice; ZONE, TYPE, VERSION, OPTIONS and SETUP are the user's.

tpus() { gcloud compute tpus "$@" --zone="$ZONE"; }
on_all_hosts() { tpus tpu-vm ssh "$name" --worker=all --command="$1"; }
# send_secret FILE NAME: copies a file of mode 600 to the home folder of each host. A secret does not
# go as an argument: everybody on a machine sees those of its commands.
send_secret() { tpus tpu-vm scp "$1" "$name:$2" --worker=all; }
state() { tpus queued-resources describe "$name" --format="value(state.state)" 2>/dev/null || true; }
delete() { tpus queued-resources delete "$name" --force --quiet; }

# Waits until the slice is there; one that was taken away is asked for anew.
obtain() {
  local now last=
  while now="$(state)" && [[ "$now" != ACTIVE ]]; do
    [[ "$now" == "$last" ]] || echo "stair_jax: slice $name is ${now:-not there yet}" >&2
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

# install_clone EXTRA: copies this clone to each host of the slice, and installs it there.
install_clone() {
  local archive
  archive="$(mktemp -d)/stair_jax.tgz"
  git ls-files -z | tar --create --gzip --null --files-from=- --file="$archive" &&
    tpus tpu-vm scp "$archive" "$name:stair_jax.tgz" --worker=all &&
    on_all_hosts "set -e; ${SETUP:-true}; mkdir -p stair_jax; tar xzf stair_jax.tgz -C stair_jax
      cd stair_jax; source launch/environment.sh; make_environment $1"
  local status=$?
  rm -r "$(dirname "$archive")"
  return "$status"
}
