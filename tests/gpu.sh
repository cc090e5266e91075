#!/usr/bin/env bash
# Check and measure everything that runs on a GPU, in minutes and without data: one table of parity with the CPU, speed,
# memory, and how long the GPU waits. Further arguments go to tests/benchmarks/gpu.py, such as --csv rows.csv.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
. "$ROOT/utils/setup.sh" requirements.txt
cd "$ROOT"
export KINETO_LOG_LEVEL=5  # no notes of the profiler between the rows
exec "$PYTHON" -m tests.benchmarks.gpu "$@"
