"""Processes of a group know their rank and begin at the same step."""

import pytest

from utils.errors import UserError


def test_a_rank_without_others_is_that_of_the_main_process(monkeypatch):
    from utils import distributed

    monkeypatch.setenv("RANK", "3")
    assert distributed.is_main()
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert distributed.rank() == 3


@pytest.mark.parametrize(("name", "value"), [("WORLD_SIZE", "4"), ("WORLD_SIZE", "many"), ("RANK", "3")])
def test_one_variable_of_torchrun_alone_is_ignored(monkeypatch, name, value):
    from utils import distributed

    for variable in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name, value)
    with distributed.join_group():
        assert (distributed.rank(), distributed.world_size()) == (0, 1)


@pytest.mark.parametrize(("size", "rank", "named"), [("many", "0", "WORLD_SIZE=many"), ("2", "", "RANK=")])
def test_variables_that_are_no_numbers_are_refused(monkeypatch, size, rank, named):
    from utils import distributed

    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(UserError, match=f"^{named}: .*torchrun"):
        distributed.is_main()
    with pytest.raises(UserError, match=f"^{named}: .*torchrun"), distributed.join_group():
        pass


def test_processes_that_would_begin_at_different_steps_are_refused(monkeypatch):
    from utils import distributed

    monkeypatch.setattr(distributed, "gather", lambda value: [value, 3])
    distributed.check_same(3, "steps")
    with pytest.raises(UserError, match=r"steps differ: \[4, 3\]; --output_path must be on a disk"):
        distributed.check_same(4, "steps")
