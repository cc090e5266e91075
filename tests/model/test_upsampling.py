"""Tokens to pixels: blocks, or where the frame has its edges."""

import numpy as np
import pytest
import torch

from model.objects.upsampling import (
    UPPER,
    UPSAMPLING,
    Guide,
    _compare_with_zeros,
    average_windows,
    fit_linear,
    guided,
    invert_symmetric,
    multiply_sides,
    multiply_symmetric,
    nearest,
    resize_side,
    upsample_labels,
)


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def disk(height=96, width=160, *, centre=(44, 70), radius=29):
    """A frame with a coloured disk on another colour, with some noise, and its mask."""
    y, x = np.mgrid[:height, :width]
    mask = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
    frame = np.where(mask[..., None], (180, 70, 40), (60, 110, 150)) + np.random.default_rng(0).normal(
        0, 6, (height, width, 3)
    )
    return torch.from_numpy(frame.clip(0, 255).astype(np.uint8)).permute(2, 0, 1), mask


def test_nearest_gives_blocks():
    labels = torch.tensor([[1, 70000], [3, 4]])
    np.testing.assert_array_equal(nearest(labels, torch.zeros(3, 4, 6)), np.kron(labels, np.ones((2, 3), int)))


@pytest.mark.parametrize("radius", [1, 3, 20])
def test_means_by_matrices_are_those_of_the_window(radius):
    values = random(9, 2, 13)
    whole = (slice(0, 9), slice(0, 13))
    matrices = [average_windows(size, radius, dtype=values.dtype, device=values.device) for size in (9, 13)]
    found = multiply_sides(values, matrices, whole, whole)
    for y, x in ((0, 0), (4, 6), (8, 12), (8, 1)):
        window = values[max(y - radius, 0) : y + radius + 1, :, max(x - radius, 0) : x + radius + 1]
        torch.testing.assert_close(found[y, :, x], window.mean((0, 2)))


@pytest.mark.parametrize("size", [(3, 5), (9, 13), (20, 31)])
def test_resizing_by_matrices_is_bilinear(size):
    values = random(2, 9, 13)
    old, new = (tuple(slice(0, side) for side in sides) for sides in ((9, 13), size))
    kind = {"dtype": values.dtype, "device": values.device}
    matrices = [resize_side(*sides, **kind) for sides in zip((9, 13), size, strict=True)]
    found = multiply_sides(values.transpose(0, 1).contiguous(), matrices, old, new).transpose(0, 1)
    expected = torch.nn.functional.interpolate(values[None], size=size, mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(found, expected)


def test_parts_of_large_maps_are_averaged_and_resized_as_whole_maps():
    """Over several blocks of rows, with and without a mean before resizing, also where a part is 0 in a block."""
    values = torch.zeros(2, 150, 211, dtype=torch.float64)
    old, new = (slice(30, 90), slice(100, 170)), (slice(20, 290), slice(90, 400))
    values[(slice(None), *old)] = random(2, 60, 70)
    for radius in (0, 8):
        mean = torch.nn.functional.avg_pool2d(
            values[None], 2 * radius + 1, stride=1, padding=radius, count_include_pad=False
        )  # fmt: skip
        resized = torch.nn.functional.interpolate(mean, size=(300, 427), mode="bilinear", align_corners=False)[0]
        kind = {"radius": radius, "dtype": values.dtype, "device": values.device}
        matrices = [resize_side(*sides, **kind) for sides in zip((150, 211), (300, 427), strict=True)]
        part = values[(slice(None), *old)].transpose(0, 1).contiguous()
        found = multiply_sides(part, matrices, old, new).transpose(0, 1)
        torch.testing.assert_close(found, resized[(slice(None), *new)])


def test_equations_are_solved_as_numpy_solves_them():
    basis = random(3, 3, 4, 5)
    matrices = torch.einsum("ikyx,jkyx->ijyx", basis, basis)
    right = random(3, 4, 5, seed=1)
    inverse = invert_symmetric(torch.stack([matrices[i, j] for i, j in UPPER]), ridge=1e-3)
    found = multiply_symmetric(inverse, right)
    ridged = matrices.permute(2, 3, 0, 1) + 1e-3 * torch.eye(3)
    expected = torch.linalg.solve(ridged, right.permute(1, 2, 0)[..., None])[..., 0].permute(2, 0, 1)
    torch.testing.assert_close(found, expected)


def test_labels_linear_in_colour_are_found_exactly():
    guide = random(3, 20, 30)
    target = (torch.tensor([0.5, -1.0, 2.0])[:, None, None] * guide).sum(0) + 0.3
    *slopes, offset = fit_linear(target, Guide(guide, radius=4, ridge=1e-12)).unbind(1)
    torch.testing.assert_close((torch.stack(slopes) * guide).sum(0) + offset, target, rtol=0, atol=1e-8)


def test_ridge_regression_of_one_window():
    """A window that covers all: one fit, written out."""
    guide, target = random(3, 6, 7), random(6, 7, seed=2)
    found = fit_linear(target, Guide(guide, radius=10, ridge=0.05))
    x, y = guide.flatten(1), target.flatten()
    centred = x - x.mean(1, keepdim=True)
    a = torch.linalg.solve(centred @ centred.T / x.shape[1] + 0.05 * torch.eye(3), centred @ y / x.shape[1])
    expected = torch.cat([a, (y.mean() - a @ x.mean(1))[None]])
    torch.testing.assert_close(found, expected[None, :, None].expand_as(found))


def test_guided_finds_the_edge_between_tokens():
    frame, mask = disk()
    tokens = torch.from_numpy(mask.reshape(6, 16, 10, 16).mean((1, 3)) > 0.5).long()
    wrong = [(found.numpy() != mask).mean() for found in (nearest(tokens, frame), guided(tokens, frame))]
    assert wrong[1] < wrong[0] / 2
    assert wrong[1] < 0.02


def test_guided_gives_only_labels_that_are_there_whatever_their_names():
    frame, mask = disk()
    tokens = torch.from_numpy(mask.reshape(6, 16, 10, 16).mean((1, 3)) > 0.5).long()
    found, renamed = guided(tokens, frame), guided(tokens * 400 + 7, frame)
    assert found.dtype == torch.int32
    assert found.shape == (96, 160)
    assert torch.equal(renamed, found * 400 + 7)
    one = guided(torch.full((2, 3), 9), frame)
    assert (one == 9).all()
    assert one.shape == (96, 160)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (61, 97)])
def test_guided_takes_frames_of_any_size(size):
    frame = (random(3, *size) * 255).to(torch.uint8)
    labels = torch.tensor([[0, 1, 1], [0, 2, 2]])
    found = guided(labels, frame)
    assert found.shape == size
    assert set(found.unique().tolist()) <= {0, 1, 2}


def test_a_flat_frame_gives_no_nan():
    labels = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1]])
    found = guided(labels, torch.full((3, 40, 80), 128, dtype=torch.uint8))
    expected = torch.arange(80) >= 40
    assert (found == expected).float().mean() > 0.97


def test_a_label_is_fitted_where_it_reaches_as_it_is_everywhere(monkeypatch):
    """Bit by bit, also where two labels have equal values and where all of them are negative."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(9, (3, 4), generator=generator).repeat_interleave(5, 0).repeat_interleave(5, 1)
    labels[:2, :3], labels[7, 9] = 11, 12
    cases = [(noisy, boundary) for noisy in (True, False) for boundary in (None, labels % 3 == 0)]
    for noisy, boundary in cases:
        frame = (random(3, 120, 183) * 255).to(torch.uint8) if noisy else torch.full((3, 120, 183), 90).byte()
        found = guided(labels, frame, boundary)
        with monkeypatch.context() as patch:
            patch.setattr("model.objects.upsampling._find_reach", lambda mask, guide: guide.everywhere)
            assert torch.equal(found, guided(labels, frame, boundary))


def test_labels_that_do_not_reach_a_pixel_have_the_value_zero_there():
    best, found = torch.tensor([[-torch.inf, -1.0, 0.0, 0.0, 1.0]]), torch.tensor([[0, 2, 2, 1, 2]])
    parts = [(slice(None), slice(1, 5)), (slice(None), slice(3, 5)), (slice(None), slice(1, 5))]
    _compare_with_zeros(best, found, parts)
    assert found.tolist() == [[0, 1, 1, 1, 2]]


def test_pixels_of_a_boundary_token_take_the_label_of_their_colour():
    """A row of tokens on the edge has the label of the wrong side; marked as boundary tokens they do less harm."""
    frame, mask = disk()
    share = torch.from_numpy(mask.reshape(6, 16, 10, 16).mean((1, 3)))
    tokens, boundary = (share > 0.02).long(), (share > 0.02) & (share < 0.9)
    wrong = [
        (guided(tokens, frame, uncertain).numpy() != mask).mean()
        for uncertain in (None, torch.zeros(6, 10) > 0, boundary)
    ]
    assert wrong[0] == wrong[1]
    assert wrong[2] < 0.8 * wrong[0]
    assert (nearest(tokens, frame, boundary) == nearest(tokens, frame)).all()
    assert (guided(tokens, frame, torch.ones(6, 10) > 0) == guided(tokens, frame)).float().mean() > 0.999


@pytest.mark.parametrize("how", UPSAMPLING)
@pytest.mark.parametrize("threads", [1, 3])
def test_frames_side_by_side_are_as_one_after_the_other(how, threads):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, (9, 6, 10)).astype(np.int32)
    boundary = generator.random(labels.shape) < 0.2
    frames = [disk(centre=(44, 40 + 8 * time))[0] for time in range(len(labels))]
    expected = [
        UPSAMPLING[how](torch.from_numpy(tokens).long(), frame, torch.from_numpy(uncertain))
        for tokens, frame, uncertain in zip(labels, frames, boundary, strict=True)
    ]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = list(upsample_labels(labels, iter(frames), boundary, how=how, device=torch.device("cpu")))
        sure = list(upsample_labels(labels, frames, how=how, device=torch.device("cpu")))
        with pytest.raises(ValueError, match="shorter"):
            list(upsample_labels(labels, frames[:-1], how=how, device=torch.device("cpu")))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(found, torch.stack(expected))
    assert np.array_equal(sure, found) == (how == "nearest")
