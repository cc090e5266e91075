import multiprocessing
import time

import pytest
import torch

from utils.parallel import map_parallel, use_one_core

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_and_each_piece_has_one_core(threads):
    def work(piece):
        torch.ones(1000, 1000).sum()  # torch sets a thread up at its first operation
        assert not torch.is_grad_enabled()
        return piece, torch.get_num_threads()

    found = map_parallel(work, range(20), device=CPU)
    assert [piece for piece, _ in found] == list(range(20))
    assert {cores for _, cores in found} == {1}
    assert torch.get_num_threads() == threads


def test_pieces_of_a_piece(threads):
    found = map_parallel(
        lambda piece: sum(map_parallel(lambda part: part * piece, range(4), device=CPU)), range(5), device=CPU
    )
    assert found == [0, 6, 12, 18, 24]


def test_short_work_is_computed_by_one_core(threads):
    with use_one_core(CPU):
        assert torch.get_num_threads() == 1
        assert map_parallel(lambda _: torch.get_num_threads(), range(2), device=CPU) == [1, 1]
    assert torch.get_num_threads() == threads
    with use_one_core(torch.device("meta")):
        assert torch.get_num_threads() == threads
    with pytest.raises(ZeroDivisionError), use_one_core(CPU):
        raise ZeroDivisionError
    assert torch.get_num_threads() == threads
    found = map_parallel(lambda _: torch.get_num_threads(), range(4), device=CPU)
    assert set(found) == {1}


def test_an_error_is_raised_after_begun_pieces_end_and_no_other_begins(threads):
    begun, done = [], []

    def work(piece):
        begun.append(piece)
        if piece == 1:
            raise ValueError("the second")
        time.sleep(0.02)
        done.append(piece)

    with pytest.raises(ValueError, match="the second"):
        map_parallel(work, range(100), device=CPU)
    assert sorted(begun) == sorted([*done, 1])
    assert len(begun) < 50
    assert map_parallel(len, ["a", "bb"], device=CPU) == [1, 2]  # and goes on


def test_inference_mode_reaches_the_pieces(threads):
    with torch.inference_mode():
        total = torch.zeros(4)
        map_parallel(lambda index: total[index].add_(index), range(4), device=CPU)
    assert total.tolist() == [0, 1, 2, 3]


def _in_child(queue):
    queue.put(map_parallel(lambda piece: piece + 1, range(3), device=CPU))


def test_a_forked_process_has_threads_of_its_own(threads):
    map_parallel(len, ["a"], device=CPU)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    child.join(30)
    alive = child.is_alive()
    child.kill()
    assert not alive
    assert queue.get() == [1, 2, 3]
