import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from model import clustering as plain
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
from model.engine.windows import ENGINES


def agreement(labels, others) -> float:
    """Share of tokens with the same label, up to the best renaming."""
    table = np.zeros((labels.max() + 1, others.max() + 1))
    np.add.at(table, (labels, others), 1)
    rows, columns = linear_sum_assignment(-table)
    return table[rows, columns].sum() / len(labels)


def neighbours(rows, *, tau):
    """Which pairs of rows (L, S) lie within D <= tau of each other, every distance computed: (L, L) bool."""
    return (symmetric_kl(rows, rows) <= tau).fill_diagonal_(True)


def cluster_by_stages(rows, *, window, tau):
    """Compute labels (L,) of rows (L, S) by the stages that `model.engine.windows` runs, every distance computed."""
    centres = [find_window_centres(part, neighbours(part, tau=tau), tau=tau) for part in rows.split(window)]
    return assign(rows, merge_centres(torch.cat(centres), tau=tau))


def bound(projected):
    """Distances of projected rows by the parts inside (L, L), and the bound of their error (L, L)."""
    own, x, y = projected.self_product, projected.x_inside, projected.y_inside
    middle = own[:, None] + own - x @ y.T - y @ x.T
    return middle, projected.x_outside @ projected.y_outside.T + projected.y_outside @ projected.x_outside.T


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


def random_rows(seed, count=40, columns=12, sharpness=1.0):
    """Rows around a few modes, so that something clusters."""
    generator = np.random.default_rng(seed)
    modes = generator.normal(size=(4, columns)) * 2
    logits = modes[generator.integers(4, size=count)] + generator.normal(size=(count, columns)) * 0.4
    return torch.from_numpy(logits * sharpness).softmax(-1)


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


def test_greedy_pass_by_hand():
    """Four rows on a line, each within tau of the next only: 0 absorbs 1; 2, though near 1, leads and absorbs 3."""
    rows = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.4, 0.6], [0.2, 0.8]])
    distances = symmetric_kl(rows, rows)
    tau = distances.diagonal(1).max().item() * 1.01
    assert tau < distances.diagonal(2).min()
    assert [members.tolist() for members in greedy_leaders(rows, tau=tau)] == [[0, 1], [2, 3]]


@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from([0.05, 0.3, 1.0]))
@settings(max_examples=50, deadline=None)
def test_kinds_of_columns_do_not_change_the_greedy_pass(seed, count, tau):
    """Whatever columns are summed, the distances by these sums are bounds from below."""
    rows = random_rows(seed)
    kinds = np.bincount(np.random.default_rng(seed).integers(count, size=12)).tolist()
    expected = [members.tolist() for members in greedy_leaders(rows, tau=tau)]
    assert [members.tolist() for members in greedy_leaders(rows, tau=tau, column_groups=kinds)] == expected


def test_kinds_that_a_row_does_not_attend_to_at_all_do_not_bound_too_much():
    """Logarithms are cut below column by column, so those of sums have to be cut as often."""
    rows = torch.zeros(2, 256)
    rows[0, 64:] = 1 / 192
    rows[1, :64], rows[1, 64:] = 0.0115 / 64, (1 - 0.0115) / 192
    distance = symmetric_kl(rows, rows)[0, 1].item()
    assert 0.8 < distance < 0.95
    assert [len(found) for found in greedy_leaders(rows, tau=distance * 1.001, column_groups=[64] * 4)] == [2]
    assert [len(found) for found in greedy_leaders(rows, tau=distance * 0.999, column_groups=[64] * 4)] == [1, 1]


def test_the_greedy_pass_ends_on_what_is_no_number():
    rows = torch.full((3, 4), float("nan"))
    assert [found.tolist() for found in greedy_leaders(rows, tau=1.0)] == [[0], [1], [2]]


def test_few_distances_are_computed_where_kinds_tell_rows_apart(monkeypatch):
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
def test_places_of_what_is_true(seed, share, shape):
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
def test_smoothing_keeps_the_digits_of_what_is_unlike_its_group(usual, odd):
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


def test_neighbourhoods_are_made_from_alike_ones():
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


def test_other_directions_are_asked_about_many_pairs_at_once(monkeypatch):
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
def test_longer_rows_are_looked_at_in_more_directions(engine, columns, expected):
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


def test_columns_are_put_beside_those_alike():
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
def test_columns_that_are_mostly_the_same_are_of_few_kinds(count, number):
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
