"""Bounds of distances hold, decide most pairs, and group columns that are alike."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.clustering import symmetric_kl
from model.engine import bounds, exact
from model.engine.bounds import (
    find_near_pairs,
    find_nearest_centres,
    fit_projection,
    group_columns,
    project_rows,
    truncate,
)
from model.engine.exact import (
    assign,
)
from model.engine.windows import ENGINES
from tests.model.inputs import neighbours, random_rows


def bound(projected):
    """Distances of projected rows by the parts inside (L, L), and the bound of their error (L, L)."""
    own, x, y = projected.self_product, projected.x_inside, projected.y_inside
    middle = own[:, None] + own - x @ y.T - y @ x.T
    return middle, projected.x_outside @ projected.y_outside.T + projected.y_outside @ projected.x_outside.T


@given(
    st.integers(0, 10**6), st.sampled_from([1, 3, 6, 12]), st.sampled_from([0.1, 0.5, 3.0]),
    st.sampled_from([[12], [6, 6], [1, 4, 7]]), st.sampled_from([0, 1, 2, 100]),
)  # fmt: skip
@settings(max_examples=75, deadline=None)
def test_bounds_of_a_projection_hold_and_decide_nothing_wrong(seed, rank, tau, blocks, coarse):
    """Fitted to other rows than it is used on, down to a single direction; of a projected and of its summary."""
    rows = random_rows(seed, count=60, sharpness=1.5)
    projection = fit_projection(random_rows(seed + 1, count=20), rank=rank, blocks=blocks)
    projected = project_rows(rows, projection, chunk=16)
    distances = symmetric_kl(rows, rows)
    widths = []
    for seen in (projected, truncate(projected, projection, rank=coarse)):
        middle, slack = bound(seen)
        assert ((middle - distances).abs() <= slack + 1e-9).all()
        widths.append(slack.mean())
    assert widths[0] <= widths[1] + 1e-12
    near, computed = find_near_pairs(rows, projected, projection, tau=tau, coarse=coarse, chunk=25)
    assert torch.equal(near, neighbours(rows, tau=tau))
    assert 0 <= computed <= 1


@given(st.integers(0, 10**6), st.sampled_from([1, 4, 12]), st.sampled_from([[12], [5, 7]]))
@settings(max_examples=25, deadline=None)
def test_nearest_centre_is_right_where_it_claims_to_be(seed, rank, blocks):
    rows, centres = random_rows(seed, count=60), random_rows(seed + 1, count=7)
    projection = fit_projection(rows[::2], rank=rank, blocks=blocks)
    labels, undecided = find_nearest_centres(project_rows(rows, projection), project_rows(centres, projection))
    assert (labels == assign(rows, centres))[~undecided].all()


def test_a_full_projection_leaves_little_open():
    rows = random_rows(0, count=60)
    full, poor = fit_projection(rows, rank=12), fit_projection(rows, rank=1)
    for coarse in (12, 1):  # with one direction first most pairs are left to the others
        near, computed = find_near_pairs(rows, project_rows(rows, full), full, tau=0.5, coarse=coarse)
        assert computed < 0.01
        assert torch.equal(near, neighbours(rows, tau=0.5))
    assert find_near_pairs(rows, project_rows(rows, poor), poor, tau=0.5, coarse=1)[1] > 0.05


def test_further_directions_are_computed_for_many_pairs_at_once(monkeypatch):
    """Pairs that the leading direction leaves open are not asked about one after the other where they are many."""
    asked = []
    products = bounds._multiply_pairs
    monkeypatch.setattr(bounds, "_multiply_pairs", lambda *args: asked.append(len(args[2])) or products(*args))
    rows = random_rows(0, count=60)
    projection = fit_projection(rows, rank=12)
    near, computed = find_near_pairs(rows, project_rows(rows, projection), projection, tau=0.5, coarse=1)
    assert max(asked, default=0) < 0.01 * 60**2
    assert computed == sum(asked) / 60**2  # a pair takes two products, and stands for itself and its mirror image
    assert torch.equal(near, neighbours(rows, tau=0.5))


@pytest.mark.parametrize("chunk", [30, 256])
def test_no_pair_is_computed_that_all_directions_decide(chunk):
    """However many the leading ones leave open; and none twice."""
    rows = random_rows(3, count=120, columns=60, sharpness=2.0)
    projection = fit_projection(rows, rank=40)
    projected = project_rows(rows, projection)
    middle, slack = bound(projected)
    left = ((middle - 1.0).abs() <= slack + exact.ROUNDING).triu(1).sum().item()
    assert 0 < left < 0.03 * 120**2 / 2
    for coarse in (1, 40):
        near, computed = find_near_pairs(rows, projected, projection, tau=1.0, coarse=coarse, chunk=chunk)
        assert computed == 2 * left / 120**2
        assert torch.equal(near, neighbours(rows, tau=1.0))


@pytest.mark.parametrize(
    ("engine", "columns", "expected"),
    [("exact", 400, 512), ("exact", 12000, 750), ("exact", 40000, 1024), ("fast", 40000, 128)],
)
def test_longer_rows_are_projected_onto_more_directions(engine, columns, expected):
    assert ENGINES[engine].rank(columns) == expected


def test_directions_of_a_projection_go_to_the_blocks_that_need_them():
    """The second block varies along one direction only, and more than the first in any."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 20, generator=generator) * 0.2
    logits[:, 10:] = torch.randn(50, 1, generator=generator) * torch.linspace(-3, 3, 10)
    projection = fit_projection(logits.double().softmax(-1), rank=6, blocks=[10, 10])
    assert projection.block[0] == 1
    assert [basis.shape[0] for basis in projection.bases] == [10, 10]
    assert sum(basis.shape[1] for basis in projection.bases) == 6 == projection.block.shape[0]
    for basis in projection.bases:
        torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1], dtype=basis.dtype))
    assert projection.bases[0].shape[1] >= 2


def test_similar_columns_are_put_side_by_side():
    generator = torch.Generator().manual_seed(0)
    things = torch.randn(40, 16, generator=generator) * 10
    keys = things[torch.randint(40, (2000,), generator=generator)] + torch.randn(2000, 16, generator=generator)
    order, kinds, blocks = group_columns(keys)
    assert torch.equal(order.sort().values, torch.arange(2000))
    assert sum(kinds) == sum(blocks) == 2000
    assert len(blocks) <= 4 < 20 < len(kinds) <= 31
    assert set(np.cumsum(blocks)) <= set(np.cumsum(kinds))  # a kind is in one block
    spread = [part.var(0).sum() for part in keys[order].split(kinds) if len(part) > 1]
    assert torch.stack(spread).mean() < 0.3 * keys.var(0).sum()


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 300, 3000])
def test_similar_columns_form_few_groups(count, number):
    keys = torch.randn(number, 4, generator=torch.Generator().manual_seed(0))[torch.arange(count) % number]
    order, kinds, blocks = group_columns(keys)
    assert torch.equal(order.sort().values, torch.arange(count))
    assert sum(kinds) == sum(blocks) == count
    assert len(kinds) <= number
    assert set(np.cumsum(blocks)) <= set(np.cumsum(kinds))


def test_blocks_are_not_much_larger_than_usual():
    """Most keys are alike but for a little, and of many kinds for all that."""
    keys = torch.randn(6000, 8, generator=torch.Generator().manual_seed(0))
    keys[:300] += 1000
    _, kinds, blocks = group_columns(keys)
    assert max(blocks) <= 1024 or max(blocks) in kinds


def test_projection_of_columns_that_no_sample_attends_to():
    sample = torch.tensor([[0.5, 0.5, 0.0], [0.6, 0.4, 0.0], [0.5, 0.5, 0.0]])
    rows = torch.cat([sample, torch.tensor([[0.1, 0.1, 0.8], [0.1, 0.2, 0.7]])])
    projection = fit_projection(sample, rank=2)
    near, _ = find_near_pairs(rows, project_rows(rows, projection), projection, tau=0.2, coarse=2)
    assert torch.equal(near, neighbours(rows, tau=0.2))
    assert near[3, 4]


def test_many_open_pairs_are_computed_at_once():
    """A projection of one direction leaves most pairs open, and dense blocks decide them."""
    rows = random_rows(5, count=120, columns=60, sharpness=2.0)
    projection = fit_projection(rows[:3], rank=1)
    near, computed = find_near_pairs(rows, project_rows(rows, projection), projection, tau=1.0, coarse=1, chunk=50)
    assert computed > 0.5
    assert torch.equal(near, neighbours(rows, tau=1.0))


def test_directions_that_float32_does_not_find(monkeypatch):
    """As at times of attention so sharp that it is zero nearly everywhere; which, differs from machine to machine."""
    eigh, asked = torch.linalg.eigh, []

    def fails(gram):
        asked.append(gram.dtype)
        if gram.dtype == torch.float32:
            raise torch.linalg.LinAlgError("linalg.eigh: The algorithm failed to converge")
        return eigh(gram)

    monkeypatch.setattr(torch.linalg, "eigh", fails)
    rows = random_rows(3, count=120, columns=60, sharpness=2.0).float()
    projection = fit_projection(rows, rank=20)
    near, computed = find_near_pairs(rows, project_rows(rows, projection), projection, tau=1.0, coarse=5)
    assert asked == [torch.float32, torch.float64]
    assert computed < 0.5
    assert torch.equal(near, neighbours(rows, tau=1.0))
