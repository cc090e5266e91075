#!/usr/bin/env bash
# Lint and test; further arguments go to pytest. Needs no data; tests on ../shared are skipped where it is absent.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$ROOT/utils/setup.sh" tests/requirements.txt
cd "$ROOT"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
# Tests side by side, so each on one thread.
export OMP_NUM_THREADS=1
# Each worker begins with a row of neighbouring tests, so that most of those of a file share what is slow to make; an
# idle worker takes half of what another has left.
exec "$PYTHON" -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal "$@"
