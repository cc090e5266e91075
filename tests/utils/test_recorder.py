"""What is logged and saved while a run goes on."""

import pytest

from tests.programs.test_train import log_of
from utils.run.logs import RunningMeans, truncate_log


def test_a_mean_is_of_the_steps_that_have_the_value():
    means = RunningMeans()
    for step, norm in enumerate((2.0, None, 4.0)):
        means.add({"loss": float(step)} | ({} if norm is None else {"grad_norm": norm}))
    assert means.read() == {"loss": 1.0, "grad_norm": 3.0}  # a step that fp16 left out has no norm
    assert means.sums == {}


def test_means_continue_from_saved_sums_and_ignore_damaged_ones():
    means = RunningMeans()
    means.add({"loss": 0.1})
    again = RunningMeans(means.sums)
    for its in (means, again):
        its.add({"loss": 0.2})
    assert again.read() == means.read()
    for odd in (None, [], {"loss": 1.0}, {"loss": ("a", 1)}, {"loss": (1.0, 0)}, {"loss": (1.0, 2, 3)}):
        assert RunningMeans(odd).sums == {}


@pytest.mark.parametrize("step", [2, 4])
def test_means_after_a_stop_between_two_lines_of_the_log_are_of_all_steps(davis, tmp_path, run_train, step):
    common = ["--basepath", davis, "--num_train_steps", 6, "--save_freq", 2, "--log_freq", 3, "--lr", 1e-3]
    run_train(*common, "--output_path", tmp_path / "whole")
    run_train(*common, "--output_path", tmp_path / "parts", "--resume_path", tmp_path / f"whole/step_000000{step}.pt")
    times = {"clips_per_second", "data_wait_share"}
    whole, parts = (
        [{key: value for key, value in record.items() if key not in times} for record in log_of(tmp_path / name)]
        for name in ("whole", "parts")
    )
    assert [record["step"] for record in whole] == [3, 6]
    assert parts == [record for record in whole if record["step"] > step]


def test_a_damaged_log_is_cut_where_the_damage_begins(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'{"step": 1}\n{"step": 2}\n\xff\xfe{"step": 3}\n')
    truncate_log(log, 3)
    assert log.read_bytes() == b'{"step": 1}\n{"step": 2}\n'
