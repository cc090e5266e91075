"""What is logged and saved while a run goes on."""

import argparse

import pytest
import torch

from tests.test_train import log_of
from utils import distributed
from utils.logs import Means
from utils.records import Records


def test_a_mean_is_of_the_steps_that_have_the_value():
    means = Means()
    for step, norm in enumerate((2.0, None, 4.0)):
        means.add({"loss": float(step)} | ({} if norm is None else {"grad_norm": norm}))
    assert means.read() == {"loss": 1.0, "grad_norm": 3.0}  # a step that fp16 left out has no norm
    assert means.sums == {}


def test_means_go_on_from_sums_that_are_some():
    means = Means()
    means.add({"loss": 0.1})
    again = Means(means.sums)
    for its in (means, again):
        its.add({"loss": 0.2})
    assert again.read() == means.read()
    for odd in (None, [], {"loss": 1.0}, {"loss": ("a", 1)}, {"loss": (1.0, 0)}, {"loss": (1.0, 2, 3)}):
        assert Means(odd).sums == {}


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
    assert [record["step"] for record in whole] == [0, 3, 6]
    assert parts == [record for record in whole if record["step"] > step]


def test_looks_before_are_those_of_the_main_process_alone(tmp_path, monkeypatch):
    """A run ended by --patience is given more of it: another process, which sees no look, has no say in its end."""
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    args = argparse.Namespace(
        output_path=tmp_path, patience=2, num_train_steps=9, eval_freq=1, log_freq=1, save_freq=9, last_freq=9
    )
    resumed = {"best": {"score": 0.5, "step": 2, "looks_since": 2}, "data": "a", "clips_per_step": 1}
    records = Records(
        args, torch.nn.Linear(1, 1), step=4, resumed=resumed, origin={"data": "a", "clips_per_step": 1}, watch=None,
        save=lambda *_, **__: pytest.fail("another process saves"),
    )  # fmt: skip
    records.after_step(5, {}, asked=0)
    assert not records.over
    assert not list(tmp_path.iterdir())
