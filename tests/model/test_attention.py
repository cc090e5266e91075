"""Attention without the usual graph against the usual graph."""

import itertools

import pytest
import torch

from model import attention
from model import clustering as plain
from model.attention import Dropout, attend


def usual(q, k, v, *, drop=0.0):
    """The same with every head's attention kept, and the same draws."""
    weights = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1)
    dropped = weights
    if drop:
        shape = weights.shape[:3]
        dropout = Dropout(drop, seed=torch.randint(2**62, ()).item(), shape=shape, device=weights.device)
        kept = torch.ones(weights.shape)
        for b, m in itertools.product(*map(range, shape[:2])):
            for first in range(0, shape[2], attention.CACHED_ROWS):
                part = kept[b, m, first : first + attention.CACHED_ROWS]
                part *= dropout.keep(b, m, first, part.shape)
        dropped = weights * kept / (1 - drop)
    return dropped @ v, weights.mean(1)


def inputs(*, length=7, others=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, 3, length, 4), (2, 3, others, 4), (2, 3, others, 4)]
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("drop", [0.0, 0.4])
@pytest.mark.parametrize("rows", [3, 128])
@pytest.mark.parametrize("threads", [1, 2])
def test_values_and_gradients(monkeypatch, drop, rows, threads):
    monkeypatch.setattr(attention, "CACHED_ROWS", rows)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = []
        for function in (usual, attend):
            q, k, v = inputs()
            torch.manual_seed(1)
            mixed, mean = function(q, k, v, drop=drop)
            (mixed.square().sum() + (mean * torch.arange(5.0)).square().sum()).backward()
            found.append((mixed, mean, q.grad, k.grad, v.grad))
    finally:
        torch.set_num_threads(before)
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(second, first)


def test_mean_is_that_of_the_formula():
    q, k, v = inputs()
    _, mean = attend(q, k, v)
    torch.testing.assert_close(mean, torch.stack([plain.attention(*heads) for heads in zip(q, k, strict=True)]))


def test_numerical_gradients():
    assert torch.autograd.gradcheck(attend, inputs())


@pytest.mark.parametrize("looked_at", [0, 1])
def test_where_only_one_result_is_used(looked_at):
    found = []
    for function in (usual, attend):
        leaves = inputs()
        function(*leaves)[looked_at].square().sum().backward()
        found.append([leaf.grad for leaf in leaves])
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(second, first if first is not None else torch.zeros_like(second))


def test_low_precision_keeps_the_mean_in_float32():
    q, k, v = (part.detach().bfloat16().requires_grad_() for part in inputs())
    mixed, mean = attend(q, k, v)
    assert (mixed.dtype, mean.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(mean.sum(-1), torch.ones(2, 7))
    (mixed.float().sum() + mean.square().sum()).backward()
    assert q.grad.dtype == torch.bfloat16
    exact = [part.detach().double().requires_grad_() for part in (q, k, v)]
    expected = usual(*exact)
    (expected[0].sum() + expected[1].square().sum()).backward()
    torch.testing.assert_close(mean.double(), expected[1], atol=5e-3, rtol=0)
    torch.testing.assert_close(q.grad.double(), exact[0].grad, atol=2e-2, rtol=0)


def test_large_scores_do_not_overflow():
    q, k, v = (part.detach() * 100 for part in inputs(dtype=torch.float32))
    mixed, mean = attend(q, k, v)
    torch.testing.assert_close(mean, usual(q, k, v)[1], atol=1e-3, rtol=0)
    assert mixed.isfinite().all()


@pytest.mark.parametrize("drop", [0.1, 0.4, 0.9])
def test_dropout_keeps_the_share_that_it_should_and_differs_from_piece_to_piece(drop):
    dropout = Dropout(drop, seed=3, shape=(2, 3, 256), device=torch.device("cpu"))
    pieces = [dropout.keep(b, m, first, (128, 333)) for b in range(2) for m in range(3) for first in (0, 128)]
    kept = torch.stack(pieces).double()
    assert kept.mean().item() == pytest.approx(1 - drop, abs=4 * (drop * (1 - drop) / kept.numel()) ** 0.5 + 2e-5)
    centred = kept.flatten(1) - (1 - drop)
    overlap = centred @ centred.T / centred.shape[1] / (drop * (1 - drop))
    assert (overlap - torch.eye(len(kept))).abs().max() < 0.03
    assert torch.equal(dropout.keep(1, 2, 128, (128, 333)), pieces[-1])
    other = Dropout(drop, seed=4, shape=(2, 3, 256), device=torch.device("cpu"))
    assert not torch.equal(other.keep(1, 2, 128, (128, 333)), pieces[-1])


def test_nothing_of_the_size_of_a_head_is_kept_for_the_gradient():
    q, k, v = inputs(length=64, others=64)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        attend(q, k, v, drop=0.4)
    assert max(saved) < 64 * 64
