#!/usr/bin/env bash
# Lint and test; further arguments go to pytest. Needs no data; tests on ../shared are skipped where it is absent.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$ROOT/utils/setup.sh" tests/requirements.txt
cd "$ROOT"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
exec "$PYTHON" -m pytest "$@"
