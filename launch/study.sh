#!/usr/bin/env bash
# The study of one host: sets up .venv for its accelerators, then runs all that docs/study.md tells
# of, several runs at a time, and makes its tables.
#
#   bash launch/study.sh --data=data/study --workdir=runs/study [--model=ID_OR_FOLDER] [...]
#
# `stair-jax study --help` lists the flags. The same command again goes on where it stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
make_environment "$(find_accelerator)"
exec .venv/bin/python -u -m stair_jax.launch study "$@"
