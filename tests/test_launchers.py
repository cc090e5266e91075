"""The launchers as a user starts them: a shell, no arguments but the user's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TINY_BACKBONE, TINY_RESOLUTION

ROOT = Path(__file__).parents[1]


def launch(script, *arguments, cwd):
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = ["bash", str(ROOT / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd, env=environment)


def test_train_then_segment_and_score(davis, tmp_path, tiny_weights):
    tiny = ["--backbone", TINY_BACKBONE, "--dino_path", tiny_weights, "--resolution", *TINY_RESOLUTION]
    trained = launch(
        "start_rgb.sh", "--basepath", davis, *tiny, "--num_train_steps", 2, "--output_path", "run", cwd=tmp_path
    )
    assert trained.returncode == 0, trained.stderr
    scored = launch("start_eval.sh", "--davis_path", davis, *tiny, "--resume_path", "run/last.pt", "--protocol", "both",
                    "--save_path", "results", cwd=tmp_path)  # fmt: skip
    assert scored.returncode == 0, scored.stderr
    assert "protocol davis" in scored.stdout
    assert "protocol paper" in scored.stdout
    assert (tmp_path / "results/contact_sheet.png").is_file()


@pytest.mark.parametrize("script", ["start_rgb.sh", "start_eval.sh"])
def test_a_fault_is_one_line_and_exit_code_2(script, tmp_path):
    failed = launch(script, "--tau", "minus one", cwd=tmp_path)
    assert failed.returncode == 2
    assert failed.stdout == ""
    assert failed.stderr.count("\n") == 1
    assert failed.stderr.startswith("error: argument --tau: invalid")
    assert list(tmp_path.iterdir()) == []
