import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from model import clustering as plain
from model.clustering import symmetric_kl
from model.engine import exact
from model.engine.bounds import (
    find_near_pairs,
    fit_projection,
    project_rows,
)
from model.engine.exact import (
    LARGE_GROUP,
    SMALL_GROUP,
    assign,
    find_true,
    find_window_centres,
    greedy_leaders,
    group_neighbourhoods,
    merge_centres,
    smooth,
)
from model.scratch import Scratch
from tests.model.inputs import neighbours, random_rows


def agreement(labels, others) -> float:
    """Share of tokens with the same label, up to the best renaming."""
    table = np.zeros((labels.max() + 1, others.max() + 1))
    np.add.at(table, (labels, others), 1)
    rows, columns = linear_sum_assignment(-table)
    return table[rows, columns].sum() / len(labels)


def cluster_by_stages(rows, *, window, tau):
    """Compute labels (L,) of rows (L, S) by the stages that `model.engine.windows` runs, every distance computed."""
    centres = [find_window_centres(part, neighbours(part, tau=tau), tau=tau) for part in rows.split(window)]
    return assign(rows, merge_centres(torch.cat(centres), tau=tau))


def slow_clustering(rows, *, window, tau):
    """docs/method.md, section 5 word by word, one pair at a time, in float64."""

    def distance(p, r):
        return ((p - r) * (np.log(p) - np.log(r))).sum()

    def leaders(items):
        free, centres = list(range(len(items))), []
        while free:
            near = [i for i in free if i == free[0] or distance(items[free[0]], items[i]) <= tau]
            centres.append(np.mean([items[i] for i in near], axis=0))
            free = [i for i in free if i not in near]
        return centres

    centres = []
    for start in range(0, len(rows), window):
        part = rows[start : start + window]
        smoothed = [sum(r for r in part if distance(p, r) <= tau) for p in part]
        centres += leaders([p / p.sum() for p in smoothed])
    while len(merged := leaders(centres)) < len(centres):
        centres = merged
    return np.array([np.argmin([distance(row, centre) for centre in merged]) for row in rows])


@pytest.mark.parametrize("cluster", [cluster_by_stages, plain.cluster])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tau", [0.25, 0.5, 1.0, 2.0])
def test_golden(shared, tau, dtype, cluster):
    golden = np.load(shared / "goldens/clustering.npz")
    _, height, width = golden["grid"].tolist()
    rows = torch.from_numpy(golden["rows"]).to(dtype)
    labels = cluster(rows, window=3 * height * width, tau=tau).numpy()
    expected = golden[f"labels_tau{tau}"]
    assert labels.max() == expected.max()
    assert agreement(labels, expected) >= 0.999


@pytest.mark.parametrize("cluster", [cluster_by_stages, plain.cluster])
@pytest.mark.parametrize("tau", [0.1, 0.5, 2.0])
def test_agrees_with_the_slow_reference(tau, cluster):
    for seed in range(5):
        rows = random_rows(seed)
        labels = cluster(rows, window=12, tau=tau)
        np.testing.assert_array_equal(labels.numpy(), slow_clustering(rows.numpy(), window=12, tau=tau))


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_symmetric_kl_is_symmetric_and_not_negative(seed):
    rows = random_rows(seed)
    distances = symmetric_kl(rows, rows)
    torch.testing.assert_close(distances, distances.T, rtol=0, atol=1e-12)
    assert distances.min() > -1e-12


def test_exact_zeros_are_finite():
    rows = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    assert torch.isfinite(symmetric_kl(rows, rows)).all()
    assert cluster_by_stages(rows, window=3, tau=1.0).tolist() == [0, 0, 1]


def test_extreme_thresholds():
    rows = random_rows(0)
    assert cluster_by_stages(rows, window=12, tau=1e9).max() == 0
    assert len(cluster_by_stages(rows, window=12, tau=1e-9).unique()) == len(rows)


def test_a_row_at_the_threshold_is_within_it():
    rows = torch.tensor([[0.5, 0.5], [0.25, 0.75]], dtype=torch.float64)
    tau = symmetric_kl(rows, rows)[0, 1].item()
    assert torch.equal(plain.smooth(rows, tau)[0], rows.mean(0))
    assert len(plain.greedy_leaders(rows, tau)) == 1
    tau = exact._measure_distances(rows, torch.arange(2), rows[0], scratch=Scratch())[1].item()
    assert len(greedy_leaders(rows, tau=tau)) == 1


def test_greedy_pass_by_hand():
    """Four rows on a line, each within tau of the next only: 0 absorbs 1; 2, though near 1, leads and absorbs 3."""
    rows = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.4, 0.6], [0.2, 0.8]])
    distances = symmetric_kl(rows, rows)
    tau = distances.diagonal(1).max().item() * 1.01
    assert tau < distances.diagonal(2).min()
    assert [members.tolist() for members in greedy_leaders(rows, tau=tau)] == [[0, 1], [2, 3]]


@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from([0.05, 0.3, 1.0]))
@settings(max_examples=50, deadline=None)
def test_column_groups_do_not_change_the_greedy_pass(seed, count, tau):
    """Whatever columns are summed, the distances by these sums are bounds from below."""
    rows = random_rows(seed)
    kinds = np.bincount(np.random.default_rng(seed).integers(count, size=12)).tolist()
    expected = [members.tolist() for members in greedy_leaders(rows, tau=tau)]
    assert [members.tolist() for members in greedy_leaders(rows, tau=tau, column_groups=kinds)] == expected


def test_column_groups_without_attention_keep_the_bound_valid():
    """Logarithms are cut below column by column, so those of sums have to be cut as often."""
    rows = torch.zeros(2, 256)
    rows[0, 64:] = 1 / 192
    rows[1, :64], rows[1, 64:] = 0.0115 / 64, (1 - 0.0115) / 192
    distance = symmetric_kl(rows, rows)[0, 1].item()
    assert 0.8 < distance < 0.95
    assert [len(found) for found in greedy_leaders(rows, tau=distance * 1.001, column_groups=[64] * 4)] == [2]
    assert [len(found) for found in greedy_leaders(rows, tau=distance * 0.999, column_groups=[64] * 4)] == [1, 1]


def test_the_greedy_pass_ends_on_nan():
    rows = torch.full((3, 4), float("nan"))
    assert [found.tolist() for found in greedy_leaders(rows, tau=1.0)] == [[0], [1], [2]]


def test_column_groups_save_distances(monkeypatch):
    """Rows that attend to one of four kinds of columns, within which they differ little: one distance each."""
    kind = torch.arange(120) % 4
    logits = torch.nn.functional.one_hot(kind, 4).double().mul(5).repeat_interleave(25, 1)
    rows = (logits + 0.1 * torch.rand(120, 100, generator=torch.Generator().manual_seed(0))).softmax(-1)
    computed = []
    distances = exact._measure_distances
    monkeypatch.setattr(
        exact, "_measure_distances", lambda *args, **k: computed.append(len(args[1])) or distances(*args, **k)
    )
    clusters = greedy_leaders(rows, tau=0.5, column_groups=[25, 25, 25, 25])
    assert [members.tolist() for members in clusters] == [list(range(first, 120, 4)) for first in range(4)]
    assert sum(computed) == 120
    computed.clear()
    greedy_leaders(rows, tau=0.5)
    assert computed == [120, 90, 60, 30]


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.01, 0.5, 1.0]), st.sampled_from([(1, 1), (3, 7), (40, 65)]))
@settings(max_examples=25, deadline=None)
def test_indices_of_true_entries(seed, share, shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share
    row, column = find_true(mask)
    assert torch.equal(torch.stack([row, column], 1), mask.nonzero())
    row, column = find_true(mask.T)  # not contiguous
    assert torch.equal(torch.stack([row, column], 1), mask.T.nonzero())


@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.5, 3.0]))
@settings(max_examples=25, deadline=None)
def test_smoothing_is_the_mean_of_neighbours(seed, tau):
    rows = random_rows(seed, count=150)
    near = neighbours(rows, tau=tau)
    expected = near.double() @ rows
    torch.testing.assert_close(smooth(rows, near), expected / expected.sum(-1, keepdim=True))


@pytest.mark.parametrize(("usual", "odd"), [(22, 1), (48, 12)])
def test_smoothing_keeps_the_digits_of_rows_unlike_their_group(usual, odd):
    """Many rows with much at column 0 and few with next to nothing there, one in their small group or a small group in
    their large one: what the few lack has to be subtracted again from the sum of the others."""
    count = usual + odd
    assert (count // SMALL_GROUP, count // LARGE_GROUP) == ((1, 0) if odd == 1 else (5, 0))
    rows = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(300), size=count)).float()
    rows[:, 0] += 10
    rows[usual:, 0] = 1e-9
    rows /= rows.sum(-1, keepdim=True)
    near = torch.zeros(count, count, dtype=torch.bool)
    near[:usual, :usual] = near[usual:, usual:] = True
    expected = near.double() @ rows.double() / near.sum(-1, keepdim=True)
    torch.testing.assert_close(smooth(rows, near).double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("step", [80, 500])
def test_smoothing_keeps_digits_that_two_steps_would_lose(step):
    """Of two rows one has much at column 0 and one `step` times less; most neighbourhoods have both, some the second
    alone and one neither, which has as much less again."""
    rows = torch.from_numpy(np.random.default_rng(0).uniform(0.5, 1.5, (262, 200))).float()
    usual, few, odd = torch.arange(2, 202), torch.arange(202, 261), 261
    rows /= rows.sum(-1, keepdim=True)
    rows[:, 0], rows[0, 0], rows[1, 0] = 0.5 / step**2 / 161, 0.5, 0.5 / step
    near = torch.eye(262, dtype=torch.bool)
    near[2:, 2:] = True
    for one, others in ((few, usual[:100]), (torch.tensor([odd]), usual[:100])):
        near[one[:, None], others] = near[others[:, None], one] = False
    near[0, usual] = near[usual, 0] = near[1, :odd] = near[:odd, 1] = True
    expected = near.double() @ rows.double() / near.sum(-1, keepdim=True)
    torch.testing.assert_close(smooth(rows, near).double(), expected, rtol=1e-3, atol=0)


def test_similar_neighbourhoods_are_grouped():
    """Three kinds of rows, and one in fifty pairs drawn anew: rows differ little from what their small groups have in
    common, and these from the large ones, though a large group has small ones of no row as well."""
    generator = torch.Generator().manual_seed(0)
    kind = torch.arange(1800) % 3
    noise = (torch.rand(1800, 1800, generator=generator) < 0.01).triu(1)
    near = ((kind[:, None] == kind) ^ (noise | noise.T)) | torch.eye(1800, dtype=torch.bool)
    small, small_sets, large, large_sets = group_neighbourhoods(near.float())
    assert (len(small_sets), len(large_sets)) == (1800 // SMALL_GROUP, 1800 // LARGE_GROUP)
    assert (near ^ small_sets[small]).sum() < 0.1 * near.sum()
    used = small.unique()
    assert 50 < len(used) < 1800 // SMALL_GROUP
    assert (small_sets ^ large_sets[large])[used].sum() < 0.1 * small_sets[used].sum()


@pytest.mark.parametrize("tau", [0.3, 1.0, 3.0])
def test_centres_of_a_window_are_means_of_what_leaders_absorb(tau):
    """Over several strips of columns, the last one narrower."""
    rows = random_rows(3, count=300, columns=701, sharpness=2.0)
    near = neighbours(rows, tau=tau)
    smoothed = near.double() @ rows / near.sum(-1, keepdim=True)
    distances = symmetric_kl(smoothed, smoothed)
    free, expected = torch.ones(300, dtype=torch.bool), []
    while free.any():
        absorbed = free & (distances[int(free.nonzero()[0])] <= tau)
        absorbed[int(free.nonzero()[0])] = True
        expected.append(smoothed[absorbed].mean(0))
        free &= ~absorbed
    assert 1 < len(expected) < 300
    torch.testing.assert_close(
        find_window_centres(rows, near, tau=tau, column_groups=[300, 1, 400]), torch.stack(expected)
    )


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_nothing(threads):
    rows = random_rows(1, count=300, columns=700, sharpness=3.0).float()
    alone = fit_projection(rows[::4], rank=20, blocks=[300, 400])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        projection = fit_projection(rows[::4], rank=20, blocks=[300, 400])
        near, _ = find_near_pairs(
            rows, project_rows(rows, projection, chunk=64), projection, tau=1.0, coarse=5, chunk=64
        )
        smoothed = smooth(rows, near)
        centres = [find_window_centres(rows, near, tau=1.0) for _ in range(5)]
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(projection.order, alone.order)
    for basis, other in zip(projection.bases, alone.bases, strict=True):
        torch.testing.assert_close(basis, other)
    assert torch.equal(near, neighbours(rows, tau=1.0))
    assert all(torch.equal(found, centres[0]) for found in centres)
    expected = near.double() @ rows.double() / near.sum(-1, keepdim=True)
    torch.testing.assert_close(smoothed.double(), expected, rtol=1e-4, atol=1e-9)
