import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from model.clustering import (
    assign,
    greedy_leaders,
    hierarchical_clustering,
    inner,
    neighbours,
    safe_log,
    smooth,
    symmetric_kl,
    window_centres,
)
from model.sketch import fit_sketch, near_pairs, nearest, view_rows


def agreement(labels, others) -> float:
    """Share of tokens with the same label, up to the best renaming."""
    table = np.zeros((labels.max() + 1, others.max() + 1))
    np.add.at(table, (labels, others), 1)
    rows, columns = linear_sum_assignment(-table)
    return table[rows, columns].sum() / len(labels)


def slow_clustering(rows, *, window, tau):
    """METHOD.md 5 word by word, one pair at a time, in float64."""

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


def random_rows(seed, count=40, columns=12, sharpness=1.0):
    """Rows around a few modes, so that something clusters."""
    generator = np.random.default_rng(seed)
    modes = generator.normal(size=(4, columns)) * 2
    logits = modes[generator.integers(4, size=count)] + generator.normal(size=(count, columns)) * 0.4
    return torch.from_numpy(logits * sharpness).softmax(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tau", [0.25, 0.5, 1.0, 2.0])
def test_golden(shared, tau, dtype):
    golden = np.load(shared / "goldens/clustering.npz")
    _, height, width = golden["grid"].tolist()
    rows = torch.from_numpy(golden["rows"]).to(dtype)
    labels = hierarchical_clustering(rows, window=3 * height * width, tau=tau).numpy()
    expected = golden[f"labels_tau{tau}"]
    assert labels.max() == expected.max()
    assert agreement(labels, expected) >= 0.999


@pytest.mark.parametrize("tau", [0.1, 0.5, 2.0])
def test_agrees_with_the_slow_reference(tau):
    for seed in range(5):
        rows = random_rows(seed)
        labels = hierarchical_clustering(rows, window=12, tau=tau)
        np.testing.assert_array_equal(labels.numpy(), slow_clustering(rows.numpy(), window=12, tau=tau))


@given(st.integers(0, 10**6), st.sampled_from([1, 3, 7, 100]))
@settings(max_examples=25, deadline=None)
def test_neighbourhood_does_not_depend_on_the_chunk(seed, chunk):
    rows = random_rows(seed)
    expected = symmetric_kl(rows, rows) <= 0.7
    near = neighbours(rows, tau=0.7, chunk=chunk)
    assert torch.equal(near, near.T)
    assert near.diagonal().all()
    assert torch.equal(near, expected.fill_diagonal_(True))


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_divergence_is_symmetric_and_not_negative(seed):
    rows = random_rows(seed)
    distances = symmetric_kl(rows, rows)
    torch.testing.assert_close(distances, distances.T, rtol=0, atol=1e-12)
    assert distances.min() > -1e-12


def test_exact_zeros_are_finite():
    rows = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    assert torch.isfinite(symmetric_kl(rows, rows)).all()
    assert hierarchical_clustering(rows, window=3, tau=1.0).tolist() == [0, 0, 1]


def test_extreme_thresholds():
    rows = random_rows(0)
    assert hierarchical_clustering(rows, window=12, tau=1e9).max() == 0
    assert len(hierarchical_clustering(rows, window=12, tau=1e-9).unique()) == len(rows)


def test_greedy_pass_by_hand():
    """Four rows on a line, each within tau of the next only: 0 absorbs 1; 2, though near 1, leads and absorbs 3."""
    rows = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.4, 0.6], [0.2, 0.8]])
    distances = symmetric_kl(rows, rows)
    tau = distances.diagonal(1).max().item() * 1.01
    assert tau < distances.diagonal(2).min()
    assert [members.tolist() for members in greedy_leaders(rows, tau=tau)] == [[0, 1], [2, 3]]


@given(st.integers(0, 10**6), st.floats(0, 1), st.sampled_from([0.05, 0.3, 1.0]))
@settings(max_examples=50, deadline=None)
def test_what_is_likely_does_not_change_the_greedy_pass(seed, share, tau):
    """Even a hint made of noise."""
    rows = random_rows(seed)
    hint = torch.rand(len(rows), len(rows), generator=torch.Generator().manual_seed(seed)) < share
    expected = [members.tolist() for members in greedy_leaders(rows, tau=tau)]
    assert [members.tolist() for members in greedy_leaders(rows, tau=tau, likely=hint.numpy())] == expected


@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.5, 3.0]))
@settings(max_examples=25, deadline=None)
def test_smoothing_is_the_mean_of_neighbours(seed, tau):
    rows = random_rows(seed, count=150)
    near = neighbours(rows, tau=tau)
    expected = near.double() @ rows
    torch.testing.assert_close(smooth(rows, near), expected / expected.sum(-1, keepdim=True))


def test_smoothing_keeps_the_digits_of_a_row_unlike_its_group():
    """Thirty-one rows with much at column 0 and one with next to nothing there: all are one group, and what the one
    row lacks has to be subtracted again from the sum of the others."""
    rows = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(300), size=32)).float()
    rows[:, 0] += 10
    rows[31, 0] = 1e-9
    rows /= rows.sum(-1, keepdim=True)
    near = torch.ones(32, 32, dtype=torch.bool)
    near[31, :31] = near[:31, 31] = False
    expected = near.double() @ rows.double() / near.sum(-1, keepdim=True)
    torch.testing.assert_close(smooth(rows, near).double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("foresight_from", [0, 10**9])
@pytest.mark.parametrize("tau", [0.3, 1.0, 3.0])
def test_centres_of_a_window_are_means_of_what_leaders_absorb(tau, foresight_from, monkeypatch):
    """Over several strips of columns, not a multiple of eight; foreseeing leaders does not change which lead."""
    monkeypatch.setattr("model.clustering.MANY", foresight_from)
    rows = random_rows(3, count=300, columns=701, sharpness=2.0)
    near = neighbours(rows, tau=tau)
    smoothed = near.double() @ rows / near.sum(-1, keepdim=True)
    expected = torch.stack([smoothed[members].mean(0) for members in greedy_leaders(smoothed, tau=tau)])
    assert 1 < len(expected) < 300
    torch.testing.assert_close(window_centres(rows, near, tau=tau), expected)


def test_leaders_are_foreseen_from_an_eighth_of_the_columns(monkeypatch):
    """At the threshold that belongs to so many columns, most of those who lead the sample lead all."""
    monkeypatch.setattr("model.clustering.MANY", 0)
    passes = []

    def spy(rows, **options):
        passes.append((rows.shape[1], found := greedy_leaders(rows, **options)))
        return found

    monkeypatch.setattr("model.clustering.greedy_leaders", spy)
    rows = random_rows(3, count=300, columns=4000, sharpness=2.0)
    window_centres(rows, neighbours(rows, tau=0.5), tau=0.5)
    (few, foreseen), (all_columns, found) = passes
    assert (few, all_columns) == (500, 4000)
    leaders, others = ({int(members[0]) for members in clusters} for clusters in (found, foreseen))
    assert len(others) > 20  # nearly none at a threshold of all columns
    assert len(leaders & others) > 0.9 * len(others)


def test_what_a_greedy_pass_finds_is_entered():
    rows = random_rows(0, count=60)
    likely = np.zeros((60, 60), dtype=bool)
    clusters = greedy_leaders(rows, tau=0.7, likely=likely)
    distances = symmetric_kl(rows, rows)
    for members in clusters:
        expected = (distances[members[0]] <= 0.7).numpy()
        expected[members[0]] = True
        np.testing.assert_array_equal(likely[members[0]], expected)
    logs = safe_log(rows)
    again = greedy_leaders(rows, tau=0.7, logs=logs, own=inner(rows, logs))
    assert [members.tolist() for members in again] == [members.tolist() for members in clusters]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_nothing(threads):
    rows = random_rows(1, count=300, columns=700, sharpness=3.0).float()
    sketch = fit_sketch(rows[::4], rank=20)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        near, _ = near_pairs(rows, view_rows(rows, sketch, chunk=64), tau=1.0, chunk=64)
        smoothed = smooth(rows, near)
        centres = [window_centres(rows, near, tau=1.0) for _ in range(5)]
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(near, neighbours(rows, tau=1.0))
    assert all(torch.equal(found, centres[0]) for found in centres)
    expected = near.double() @ rows.double() / near.sum(-1, keepdim=True)
    torch.testing.assert_close(smoothed.double(), expected, rtol=1e-4, atol=1e-9)


@given(st.integers(0, 10**6), st.sampled_from([1, 3, 6, 12]), st.sampled_from([0.1, 0.5, 3.0]))
@settings(max_examples=50, deadline=None)
def test_bounds_of_a_sketch_hold_and_decide_nothing_wrong(seed, rank, tau):
    """Fitted to other rows than it is used on, down to a single direction."""
    rows = random_rows(seed, count=60, sharpness=1.5)
    view = view_rows(rows, fit_sketch(random_rows(seed + 1, count=20), rank=rank), chunk=16)
    middle = view.own[:, None] + view.own - view.rows @ view.logs.T - view.logs @ view.rows.T
    slack = torch.outer(view.row_rest, view.log_rest) + torch.outer(view.log_rest, view.row_rest)
    distances = symmetric_kl(rows, rows)
    assert ((middle - distances).abs() <= slack + 1e-9).all()
    near, computed = near_pairs(rows, view, tau=tau, chunk=25)
    assert torch.equal(near, neighbours(rows, tau=tau))
    assert 0 <= computed <= 1


@given(st.integers(0, 10**6), st.sampled_from([1, 4, 12]))
@settings(max_examples=25, deadline=None)
def test_nearest_centre_is_right_where_it_claims_to_be(seed, rank):
    rows, centres = random_rows(seed, count=60), random_rows(seed + 1, count=7)
    sketch = fit_sketch(rows[::2], rank=rank)
    labels, unsure = nearest(view_rows(rows, sketch), view_rows(centres, sketch))
    assert (labels == assign(rows, centres))[~unsure].all()


def test_a_full_sketch_leaves_little_open():
    rows = random_rows(0, count=60)
    view = view_rows(rows, fit_sketch(rows, rank=12))
    assert near_pairs(rows, view, tau=0.5)[1] < 0.01
    assert near_pairs(rows, view_rows(rows, fit_sketch(rows, rank=1)), tau=0.5)[1] > 0.05


def test_sketch_of_columns_that_no_sample_looks_at():
    sample = torch.tensor([[0.5, 0.5, 0.0], [0.6, 0.4, 0.0], [0.5, 0.5, 0.0]])
    rows = torch.cat([sample, torch.tensor([[0.1, 0.1, 0.8], [0.1, 0.2, 0.7]])])
    near, _ = near_pairs(rows, view_rows(rows, fit_sketch(sample, rank=2)), tau=0.2)
    assert torch.equal(near, neighbours(rows, tau=0.2))
    assert near[3, 4]


def test_many_open_pairs_are_computed_at_once():
    """A sketch of one direction leaves most pairs open, and dense blocks decide them as `neighbours` does."""
    rows = random_rows(5, count=120, columns=60, sharpness=2.0)
    near, computed = near_pairs(rows, view_rows(rows, fit_sketch(rows[:3], rank=1)), tau=1.0, chunk=50)
    assert computed > 0.5
    assert torch.equal(near, neighbours(rows, tau=1.0))
