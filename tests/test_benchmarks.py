"""The benchmarks start and measure something: a smoke test, not a timed one."""

import csv
import subprocess
import sys
from pathlib import Path

from data.sprites import write_sprites

ROOT = Path(__file__).resolve().parents[1]


def test_benchmark_of_scoring():
    command = [sys.executable, "-m", "tests.benchmark_scoring", "--frames", "1", "--workers", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "per pair" in done.stdout


def test_benchmark_of_inference(tmp_path):
    """Every engine on a generated video, and growth with the number of frames."""
    write_sprites(tmp_path / "sprites", height=64, num_train=1, num_val=1, num_frames=9, workers=1, progress=False)
    (frames,) = (tmp_path / "sprites/JPEGImages/480p").glob("val*")
    command = [
        sys.executable,
        "-m",
        "utils.benchmark",
        "--basepath",
        frames,
        "--resolution",
        "56",
        "56",
        "--repeats",
        "1",
    ]
    command += ["--num_frames", "12", "--ratio", "3", "--csv", tmp_path / "out.csv"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "exact gives 100.000 % of the tokens the label that plain gives" in done.stdout
    command += ["--engines", "exact", "--sweep", "frames", "--picture", tmp_path / "growth.png"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "growth.png").stat().st_size > 10_000
    with (tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["engine"] for row in rows] == ["plain", "exact", "fast"] + ["exact"] * 4
    assert [row["frames"] for row in rows[3:]] == ["6", "12", "24", "48"]
    assert {row["key_frames"] for row in rows} == {"4"}
    assert all(float(row["backbone"]) > 0 and float(row["peak_gb"]) > 0 for row in rows)
