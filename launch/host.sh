#!/usr/bin/env bash
# One host: sets up .venv for its accelerators, then runs the command on all of them.
#
#   bash launch/host.sh --config=FILE --workdir=FOLDER [--config.FIELD=VALUE ...]
#
# STAIR_EXTRA=tpu|cuda|none says what the host has, where a look around would not tell.
# The same command again goes on where it stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
make_environment "$(find_accelerator)"
exec .venv/bin/python -u -m stair_jax.launch "$@"
