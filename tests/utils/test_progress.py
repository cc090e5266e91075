"""The bar over the steps of a run: time left, and pauses that are not counted as time of steps."""

import re
import time

import pytest
import torch

from utils.progress import STAGES, FrameBar, StepBar
from utils.run.logs import ThroughputMeter

PAUSE = 0.3  # seconds


def test_a_pause_is_not_time_of_steps_but_part_of_the_time_left():
    with StepBar(5, first=1, pause_every=2) as bar:
        assert bar.seconds_left() is None
        bar.count()
        with bar.pause("monitor"):
            time.sleep(PAUSE)
        assert bar.step_seconds < PAUSE
        assert 2 * PAUSE <= bar.seconds_left() - 3 * bar.step_seconds < 3 * PAUSE  # after steps 4 and 5
        bar.count()
        bar.count()
        assert bar.seconds_left() >= PAUSE
        bar.count()
        with bar.pause("monitor"):
            assert 0 < bar.seconds_left() <= bar.pause_seconds  # of this pause
        assert bar.seconds_left() == 0


@pytest.mark.parametrize(("every", "pauses"), [(0, 0), (5, 2), (3, 4), (20, 1)])
def test_the_pauses_to_come_are_counted(every, pauses):
    with StepBar(10, first=0, pause_every=every) as bar:
        bar.count()
        with bar.pause("monitor"):
            pass
        bar.step_seconds, bar.pause_seconds = 0.0, 1.0
        assert bar.seconds_left() == pauses


def test_the_stage_and_its_time_left_are_shown(capsys):
    with StepBar(10, first=0, pause_every=5) as bar:
        bar.interval = 0
        bar.show("loss 0.53")
        with bar.pause("monitor") as progress:
            progress("clusters", 0, 8)
            progress("clusters", 3, 8)
        bar.count()
    shown = capsys.readouterr().err
    assert "monitor: clusters 0/8" in shown
    assert "monitor: clusters 3/8, 00:00 left" in shown
    last = shown.splitlines()[-1]  # stderr is no terminal here
    assert "1/10 steps" in last
    assert "loss 0.53" in last


def test_a_log_has_lines_that_tell_something_new(capsys):
    with FrameBar([2, 3]) as bar:
        for name, length in (("ant", 2), ("bee", 3)):
            bar.start(name, length)
            for stage in ("features", "clustering", "labels", "objects", "writing"):
                for done in range(length + 1):
                    bar(stage, done)
    shown = capsys.readouterr().err
    assert not set(shown) & {"\r", "\x1b"}
    lines = shown.removesuffix("\n").split("\n")
    assert all(re.fullmatch(r"segmenting .*\d/5 frames \[.*\]", line) for line in lines)
    told = [re.sub(r"\[.*", "", line) for line in lines]
    assert len(set(told)) == len(told)
    assert "100%" in told[-1]


@pytest.mark.parametrize(("interval", "least", "most"), [(100, 2, 2), (0, 15, 100)])
def test_a_log_has_a_line_an_interval_from_the_first_stage_to_the_end(interval, least, most, capsys, monkeypatch):
    monkeypatch.setattr("utils.progress.LOG_INTERVAL", interval)
    with FrameBar([4] * 3) as bar:
        for number in range(3):
            bar.start(f"v{number}", 4)
            for stage in STAGES:
                for done in range(5):
                    bar(stage, done)
    lines = capsys.readouterr().err.splitlines()
    assert least <= len(lines) <= most
    assert any("features 0/4" in line for line in lines[:2])
    assert "100%" in lines[-1]


def test_a_pause_is_not_time_of_the_throughput():
    meter = ThroughputMeter(torch.device("cpu"))
    with meter:
        time.sleep(0.05)
    with meter.pause():
        time.sleep(PAUSE)
    meter.add(1)
    found = meter.read()
    assert found["clips_per_second"] > 1 / PAUSE
    assert found["data_wait_share"] > 0.05 / PAUSE
