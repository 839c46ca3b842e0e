#!/usr/bin/env bash
# Long tests of what must hold, one at a time: sets up .venv, then runs `python -m soak`.
#
#   bash launch/soak.sh                               # lists them
#   bash launch/soak.sh NAME [--size N] [--seed S]
#
# Exit status 1 says that something failed, with what shows it again. docs/reliability.md holds
# what was measured.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
make_environment dev
exec .venv/bin/python -m soak "$@"
