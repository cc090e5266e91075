"""The benchmarks start and measure something: a smoke test, not a timed one."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_benchmark_of_scoring():
    command = [sys.executable, "-m", "tests.benchmark_scoring", "--frames", "1", "--workers", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "per pair" in done.stdout
