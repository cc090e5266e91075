"""Processes of a group know their rank and begin at the same step."""

import pytest

from utils.errors import UserError


def test_a_rank_without_others_is_that_of_the_main_process(monkeypatch):
    from utils import distributed

    monkeypatch.setenv("RANK", "3")
    assert distributed.is_main()
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert distributed.rank() == 3


def test_processes_that_would_begin_at_different_steps_are_refused(monkeypatch):
    from utils import distributed

    monkeypatch.setattr(distributed, "gather", lambda value: [value, 3])
    distributed.check_same(3, "steps")
    with pytest.raises(UserError, match=r"steps differ: \[4, 3\]; --output_path must be on a disk"):
        distributed.check_same(4, "steps")
