"""J, F and label PNGs: hand-worked masks, properties, and agreement with the slow reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from tests.utils import reference_scoring as reference
from utils.errors import UserError
from utils.png import make_palette, read_label_png, write_label_png
from utils.scoring import metrics


def square(top: int, left: int, size: int, shape: tuple[int, int] = (40, 40)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[top : top + size, left : left + size] = True
    return mask


def label_maps(highest: int, shape: tuple[int, int] = (13, 17), void: bool = False) -> st.SearchStrategy:
    """Blocky random label maps, so that regions and boundaries have some extent."""
    values = st.integers(0, highest) | st.just(metrics.VOID) if void else st.integers(0, highest)
    small = arrays(np.int32, (5, 6), elements=values)
    return small.map(lambda grid: np.kron(grid, np.ones((3, 3), dtype=np.int32))[: shape[0], : shape[1]])


def pair_scores(gt, mask, *, void=None, bound=metrics.BOUND):
    """J and F of one mask (H, W) bool against another."""
    labels = gt.astype(int) if void is None else np.where(void, metrics.VOID, gt)
    j, f = metrics.frame_scores(labels, mask.astype(int), [1], 1, bound=bound)
    return j.item(), f.item()


# counts of pairs of labels


@given(arrays(np.int32, (4, 7), elements=st.integers(0, 9)), arrays(np.int32, (4, 7), elements=st.integers(0, 299)))
def test_pairs_of_labels_are_counted_pixel_by_pixel(first, second):
    counts = metrics.count_pairs(first, second, 10, 300)
    assert counts.sum() == first.size
    for one, other in zip(first.ravel(), second.ravel(), strict=True):
        assert counts[one, other] == ((first == one) & (second == other)).sum()


@pytest.mark.parametrize("columns", [2, 255, 256, 257, 65536, 65537])
def test_pairs_are_counted_where_the_number_of_labels_fills_a_type(columns):
    last = np.full((2, 3), columns - 1)
    for rows in (1, 2):
        counts = metrics.count_pairs(np.full((2, 3), rows - 1), last, rows, columns)
        assert counts[rows - 1, columns - 1] == counts.sum() == 6


def test_an_image_without_pixels_has_no_runs():
    assert metrics.find_runs(np.zeros(0, int)).tolist() == []
    assert metrics.find_runs(np.array([3, 3, 0, 3])).tolist() == [0, 2, 3]
    assert metrics.count_pairs(np.zeros((0, 4), int), np.zeros((0, 4), int), 1, 1).tolist() == [[0]]


@given(label_maps(300))
def test_labels_are_looked_up_in_tables_of_every_kind(labels):
    short = np.arange(301)[::-1].astype(np.uint16)
    for table in (short, np.arange(301, dtype=np.uint16), short.astype(np.int32)):
        assert (metrics.renumber(labels, table) == table[labels]).all()
    few, table = labels % 7, np.array([0, 5, 2, 2, 1, 0, 9], np.uint8)
    assert (metrics.renumber(few, table) == table[few]).all()


# J by hand


def test_region_similarity_of_half_overlapping_squares_is_a_third():
    assert pair_scores(square(0, 0, 4), square(0, 2, 4))[0] == pytest.approx(8 / 24)


def test_region_similarity_of_two_empty_masks_is_one():
    assert pair_scores(square(0, 0, 0), square(0, 0, 0))[0] == 1.0


def test_region_similarity_of_an_empty_and_a_full_mask_is_zero():
    assert pair_scores(square(0, 0, 0), square(0, 0, 40))[0] == 0.0


def test_region_similarity_leaves_void_out():
    void = square(0, 0, 4)
    assert pair_scores(square(0, 0, 4), square(10, 10, 4), void=void | square(10, 10, 4))[0] == 1.0


# F by hand


def boundary(mask):
    """The boundary pixels of a mask (H, W), as pairs of row and column."""
    found = metrics._boundaries(mask.astype(np.uint8))
    return sorted(zip(found.y.tolist(), found.x.tolist(), strict=True))


def test_the_boundary_of_one_pixel_is_its_upper_left_quad():
    assert boundary(square(1, 1, 1, (4, 4))) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_the_boundary_replicates_the_border():
    assert boundary(square(2, 2, 1, (3, 3))) == [(1, 1), (1, 2), (2, 1)]
    assert boundary(np.ones((3, 3), dtype=bool)) == []


@pytest.mark.parametrize(("shape", "radius"), [((480, 854), 8), ((40, 40), 1), ((1080, 1920), 18)])
def test_tolerance_is_a_share_of_the_diagonal_rounded_up(shape, radius):
    assert metrics.tolerance_radius(shape) == radius


def test_tolerance_from_one_on_is_in_pixels():
    assert metrics.tolerance_radius((480, 854), bound=3) == 3


def test_boundary_f_forgives_a_shift_within_the_tolerance():
    gt, near, far = square(10, 10, 10), square(10, 11, 10), square(10, 14, 10)
    assert pair_scores(gt, near)[1] == 1.0
    assert 0 < pair_scores(gt, far)[1] < 1
    assert pair_scores(gt, far, bound=4)[1] == 1.0


def test_boundary_f_tolerance_is_a_disk_not_a_square():
    gt, diagonal = square(10, 10, 1), square(13, 13, 1)
    # The nearest boundary pixels, (10, 10) and (12, 12), are 2.83 px apart: in the square, not in the disk.
    assert pair_scores(gt, diagonal, bound=2)[1] == 0.0
    assert pair_scores(gt, diagonal, bound=3)[1] == pytest.approx(2 * 0.25 * 0.25 / 0.5)


@pytest.mark.parametrize(("gt", "mask", "expected"), [(0, 0, 1.0), (0, 5, 0.0), (5, 0, 0.0)])
def test_boundary_f_of_empty_masks(gt, mask, expected):
    assert pair_scores(square(3, 3, gt), square(3, 3, mask))[1] == expected


def test_boundary_f_by_hand_where_half_of_one_boundary_is_found():
    gt, mask = square(5, 5, 4), square(5, 5, 4) | square(25, 25, 4)
    assert pair_scores(gt, mask)[1] == pytest.approx(2 * 0.5 * 1 / 1.5)


# Statistics


def test_statistics_by_hand():
    mean, recall, decay = metrics.statistics(np.array([1.0, 1.0, 0.5, 0.6, 0.0]))
    assert (mean, recall, decay) == pytest.approx((0.62, 0.6, 1.0 - 0.3))


def test_decay_of_a_long_sequence_uses_its_real_quarters():
    falling = np.linspace(1, 0, 1001)
    assert metrics.statistics(falling).decay == pytest.approx(0.75)


def test_statistics_leave_nan_frames_out():
    assert metrics.statistics(np.array([1.0, np.nan, 0.0, np.nan])).mean == 0.5
    assert metrics.statistics(np.array([1.0, np.nan, 0.0, np.nan])).recall == 0.5


def test_statistics_of_one_frame_and_of_none():
    assert metrics.statistics(np.array([0.7])) == pytest.approx((0.7, 1.0, 0.0))
    with pytest.raises(ValueError, match="at least one frame"):
        metrics.statistics(np.array([]))


# All pairs at once


@settings(max_examples=60, deadline=None)
@given(label_maps(3, void=True), label_maps(6), st.sampled_from([0.008, 0.1, 1, 4]))
def test_frame_scores_agree_with_the_slow_reference(gt, proposals, bound):
    j, f = metrics.frame_scores(gt, proposals, [1, 2, 3], 7, bound=bound)
    void = gt == metrics.VOID
    for k in range(3):
        for p in range(7):
            pair = gt == k + 1, proposals == p + 1
            assert j[k, p] == pytest.approx(reference.region_similarity(*pair, void), abs=1e-12)
            assert f[k, p] == pytest.approx(reference.boundary_f(*pair, void, bound), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(label_maps(4), st.permutations(range(1, 5)))
def test_permuting_proposals_permutes_columns(proposals, order):
    gt = np.kron(np.array([[1, 2]]), np.ones((13, 9), dtype=np.int32))[:, :17].astype(np.int32)
    table = np.array([0, *order], dtype=np.int32)
    before = metrics.frame_scores(gt, proposals, [1, 2], 4)
    after = metrics.frame_scores(gt, table[proposals], [1, 2], 4)
    for old, new in zip(before, after, strict=True):
        assert np.array_equal(old, new[:, np.array(order) - 1])


@settings(max_examples=40, deadline=None)
@given(label_maps(3))
def test_a_perfect_result_scores_one(gt):
    j, f = metrics.frame_scores(gt, gt, [1, 2, 3], 3)
    assert np.array_equal(np.diag(j), np.ones(3))
    assert np.array_equal(np.diag(f), np.ones(3))


@settings(max_examples=40, deadline=None)
@given(label_maps(2, void=True), label_maps(4), label_maps(4))
def test_what_is_predicted_on_void_does_not_matter(gt, proposals, others):
    changed = np.where(gt == metrics.VOID, others, proposals)
    for a, b in zip(
        metrics.frame_scores(gt, proposals, [1, 2], 4),
        metrics.frame_scores(gt, changed, [1, 2], 4),
        strict=True,
    ):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("num", [64, 65, 300, 1200])
def test_frame_scores_of_hundreds_of_proposals(num):
    rng = np.random.default_rng(num)
    blocks = rng.integers(0, num + 1, (40, 50)).astype(np.int32)
    proposals = np.kron(blocks, np.ones((4, 4), dtype=np.int32))
    gt = np.zeros_like(proposals)
    gt[20:130, 30:180], gt[100:150, 100:] = 1, 2
    j, f = metrics.frame_scores(gt, proposals, [1, 2], num)
    nothing = np.zeros_like(gt, dtype=bool)
    for p in rng.choice(num, 12, replace=False):
        for k in range(2):
            pair = gt == k + 1, proposals == p + 1
            assert j[k, p] == pytest.approx(reference.region_similarity(*pair, nothing), abs=1e-12)
            assert f[k, p] == pytest.approx(reference.boundary_f(*pair, nothing), abs=1e-12)


def test_void_is_no_object_even_when_asked_for():
    gt = np.where(square(5, 5, 9), metrics.VOID, 0)
    j, f = metrics.frame_scores(gt, square(5, 5, 9).astype(int), [metrics.VOID], 2)
    assert j.tolist() == f.tolist() == [[1.0, 1.0]]


def test_frame_scores_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="ground truth is"):
        metrics.frame_scores(np.zeros((3, 4), int), np.zeros((4, 3), int), [1], 1)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        metrics.frame_scores(np.zeros((3, 4), int), np.full((3, 4), 2), [1], 1)


# Label PNGs


@pytest.mark.parametrize(("highest", "mode"), [(0, "P"), (1, "P"), (255, "P"), (256, "I;16"), (65535, "I;16")])
def test_label_png_round_trip(tmp_path, highest, mode):
    labels = np.random.default_rng(0).integers(0, highest + 1, (7, 9))
    labels[0, 0] = highest
    write_label_png(tmp_path / "a" / "00000.png", labels)
    back = read_label_png(tmp_path / "a" / "00000.png")
    assert back.dtype == np.int32
    assert np.array_equal(back, labels)
    assert Image.open(tmp_path / "a" / "00000.png").mode == mode
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["00000.png"]


@given(st.integers(0, 255))
def test_palette_deals_bits_to_channels(index):
    bits = [(index >> k) & 1 for k in range(8)]
    red, green, blue = (sum(bit << (7 - j) for j, bit in enumerate(bits[channel::3])) for channel in range(3))
    assert make_palette()[index].tolist() == [red, green, blue]


def test_palette_begins_as_davis_does():
    assert make_palette().dtype == np.uint8
    assert make_palette()[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]


def test_written_png_carries_the_palette(tmp_path):
    write_label_png(tmp_path / "a.png", np.arange(256).reshape(16, 16))
    assert np.array_equal(np.array(Image.open(tmp_path / "a.png").convert("RGB")).reshape(-1, 3), make_palette())


def test_reads_one_bit_and_grey(tmp_path):
    mask = np.eye(9, dtype=bool)
    Image.fromarray(mask).save(tmp_path / "bit.png")
    Image.fromarray(mask.astype(np.uint8) * 7).save(tmp_path / "grey.png")
    assert np.array_equal(read_label_png(tmp_path / "bit.png"), mask)
    assert np.array_equal(read_label_png(tmp_path / "grey.png"), mask * 7)


@pytest.mark.parametrize("labels", [np.full((2, 2), 65536), np.full((2, 2), -1)])
def test_ids_that_fit_no_png_are_refused(tmp_path, labels):
    with pytest.raises(UserError, match=r"a\.png: ids .* fewer proposals"):
        write_label_png(tmp_path / "a.png", labels)
    assert not any(tmp_path.iterdir())


def test_unfit_files_are_named(tmp_path):
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(tmp_path / "rgb.png")
    write_label_png(tmp_path / "cut.png", np.random.default_rng(0).integers(0, 200, (90, 90)))
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:900])
    (tmp_path / "text.png").write_text("no image")
    for name, reason in [
        ("rgb", "RGB"),
        ("cut", "not a whole"),
        ("text", "not a whole"),
        ("none", "no such file"),
    ]:
        with pytest.raises(UserError, match=rf"{name}\.png: .*{reason}.*; "):
            read_label_png(tmp_path / f"{name}.png")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_label_png(tmp_path / "a.png", np.ones((3, 3), dtype=int))

    def fail(self, path, **_):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        write_label_png(tmp_path / "a.png", np.zeros((3, 3), dtype=int))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert read_label_png(tmp_path / "a.png").all()
