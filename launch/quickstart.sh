#!/usr/bin/env bash
# All of STAIR on the pocket world: sets up .venv, then runs configs/pocket.py in runs/pocket.
#
#   bash launch/quickstart.sh [--config.FIELD=VALUE ...]
#
# The same command again goes on where it stopped. The last line says where the run's report is: one
# HTML file for a browser.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
make_environment
exec .venv/bin/python -m stair_jax.launch --config=configs/pocket.py --workdir=runs/pocket "$@"
