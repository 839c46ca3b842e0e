#!/usr/bin/env bash
# Linter, formatter, type checker and tests, in .venv; arguments go to pytest.
#
#   bash launch/test.sh [tests/search -k ucb ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/environment.sh
make_environment dev

status=0
check() {
  echo "== $*"
  .venv/bin/python -m "$@" || status=1
}
check ruff check --output-format=concise .
check ruff format --check --output-format=concise .

# The type checker runs beside the tests, which often wait; its lines follow theirs.
typed="$(mktemp)"
trap 'rm -f "$typed"' EXIT
{
  check mypy
  exit "$status"
} >"$typed" 2>&1 &
# A file's tests share what they compile: they stay in one process.
check pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
wait "$!" || status=1
cat "$typed"
exit "$status"
