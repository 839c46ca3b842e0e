#!/usr/bin/env bash
# Soak tests: long tests of robustness. Sets up .venv, then runs one of them.
#
#   bash launch/soak.sh                               # lists them
#   bash launch/soak.sh NAME [--size N] [--seed S]
#
# The exit status is 1 after a failure, with the command that reproduces it.
# docs/reliability.md has results.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
make_environment dev
exec .venv/bin/python -m soak "$@"
