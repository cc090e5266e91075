"""Sprites: pixels are the same on every processor, labels fit the pictures, and splits keep what their names say."""

import functools
import hashlib
import os
import subprocess
import sys
from itertools import pairwise

import cv2
import numpy as np
import pytest

from data.sprites import exact
from data.sprites.exact import ExactGenerator
from data.sprites.plan import draw_coarse_labels, fit_path, plan_scene
from data.sprites.render import Stage, render_sequence
from data.sprites.shapes import rasterise
from data.sprites.splits import PLANS

# Of frames and masks, six characters each. They are the same on every processor and with every supported version of
# NumPy, OpenCV and SciPy. When pixels change on purpose, renew them, `VERSION` and the figures of Sprites in the docs.
DIGESTS = {
    "train": "43d64b 9c3007",
    "val": "a261f8 bf6cbf",
    "small": "801815 b0c05a",
    "crowd": "069593 809369",
    "leave": "2572cd a0bf3f",
}
NAMED = ("small", "crowd", "leave")


@pytest.fixture(scope="module")
def video():
    return render_sequence([0, 1, 2], height=120, num_frames=10)


def test_rendering_is_a_pure_function_of_the_seed():
    first, again, other = (render_sequence(seed, height=64, num_frames=2) for seed in (5, 5, 6))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def digest_split(split: str) -> str:
    """Digest the frames and the masks of a short video of a split."""
    arrays = render_sequence([0, PLANS[split].seed, 0], height=72, num_frames=4, split=split)
    return " ".join(hashlib.sha256(array.tobytes()).hexdigest()[:6] for array in arrays)


@pytest.mark.parametrize("split", PLANS)
def test_frames_and_masks_are_the_same_on_every_processor(split):
    assert digest_split(split) == DIGESTS[split]


def test_frames_and_masks_do_not_depend_on_the_instructions_of_the_processor():
    """NumPy, OpenCV and OpenBLAS without the instructions that not every processor has."""
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    plain = {"NPY_DISABLE_CPU_FEATURES": " ".join(found), "OPENBLAS_CORETYPE": "Nehalem", "OPENCV_IPP": "disabled",
             "OPENCV_CPU_DISABLE": "AVX512_SKX,AVX2,FMA3,AVX,FP16,SSE4.2,SSE4.1,SSSE3"}  # fmt: skip
    script = (
        "from tests.data.test_sprites_rendering import PLANS, digest_split; print({s: digest_split(s) for s in PLANS})"
    )
    run = subprocess.run([sys.executable, "-c", script], env=os.environ | plain, capture_output=True, text=True)
    assert run.stdout.strip() == str(DIGESTS), run.stderr


def test_functions_are_those_of_the_mathematics():
    x = np.linspace(-60, 60, 4001)
    assert np.abs(exact.sin(x) - np.sin(x)).max() < 1e-13
    assert np.abs(exact.cos(x) - np.cos(x)).max() < 1e-13
    assert np.allclose(exact.exp(x), np.exp(x), rtol=1e-13, atol=0)
    assert np.allclose(exact.log(np.exp(x)), x, rtol=1e-13, atol=1e-15)
    for exponent in (0.4, 1, 2.2):
        assert np.allclose(exact.power(np.abs(x), exponent), np.abs(x) ** exponent, rtol=1e-12)


@pytest.mark.parametrize("border", [cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE])
def test_interpolation_is_exact(border):
    """In whole numbers, as Python computes them, however large the steps between neighbouring pixels are."""
    rng = np.random.default_rng(0)
    image = exact.snap(rng.choice([-1.0, 1.0, 0.3], (12, 16)) * rng.random((12, 16)))
    places = rng.integers(-32, 17 * 32, (2, 40, 50))
    found = exact.sample(image, *(places / 32).astype(np.float32), border=border)
    whole = (image * 2**exact.BITS).astype(np.int64)
    whole = np.pad(whole, 20, mode="edge" if border == cv2.BORDER_REPLICATE else "constant")
    (x, y), (right, down) = places // 32 + 20, places % 32
    top = whole[y, x] * (32 - right) + whole[y, x + 1] * right
    bottom = whole[y + 1, x] * (32 - right) + whole[y + 1, x + 1] * right
    assert np.array_equal(found.astype(np.float64) * 2 ** (exact.BITS + 10), top * (32 - down) + bottom * down)


def test_blur_is_that_of_opencv():
    image = np.random.default_rng(0).random((40, 50), dtype=np.float32)
    assert np.abs(exact.blur(image, 1.7) - cv2.GaussianBlur(image, (0, 0), 1.7)).max() < 0.005
    box = cv2.blur(cv2.blur(image, (5, 5)), (5, 5))
    assert np.abs(exact.blur_box(image, 5) - box)[4:-4, 4:-4].max() < 1e-3


def test_paths_are_monotone_between_their_points():
    times, values = [0, 0.2, 0.5, 0.6, 1], np.array([[0, 1], [0, 3], [2, 2], [3, 2], [3, 0]], float)
    path = fit_path(times, values)
    drawn = np.array([path(u) for u in np.linspace(0, 1, 301)])
    assert np.allclose([path(u) for u in times], values)
    assert (np.diff(drawn[:, 0]) >= -1e-12).all()
    assert np.abs(np.diff(drawn, axis=0)).max() < 0.1  # no jumps
    assert drawn[:, 1].max() <= 3 + 1e-12


def test_polygons_are_filled_where_their_pixels_lie():
    """Whole pixels whose centres are inside; a corner may lie outside of the picture."""
    square = np.array([(2, 3), (6, 3), (6, 5), (2, 5)], float)
    triangle = np.array([(-4, -4), (40, -4), (-4, 40)], float)
    wanted = np.zeros((8, 10), bool)
    wanted[3:5, 2:6] = True
    assert np.array_equal(rasterise([square], (8, 10)), wanted)
    assert np.array_equal(rasterise([square, square + 30], (8, 10)), wanted)
    y, x = np.mgrid[:30, :30]
    assert np.array_equal(rasterise([triangle], (30, 30)), x + y < 36)


# ------------------------------------------------------------------ named splits


def list_areas(labels: np.ndarray, num_objects: int) -> np.ndarray:
    """Measure the share of the picture of each object in each frame: (K, T)."""
    return np.stack([(labels == k).mean((1, 2)) for k in range(1, num_objects + 1)])


@functools.cache
def plan_named(split: str, number: int):
    return PLANS[split].plan(ExactGenerator([0, PLANS[split].seed, number]), aspect=428 / 240)


@pytest.fixture(scope="module", params=[(split, i) for split in NAMED for i in range(PLANS[split].num_videos)])
def named(request):
    """A plan of a named split: the split, its scene, and label maps drawn from outlines."""
    split, number = request.param
    scene = plan_named(split, number)
    return split, scene, draw_coarse_labels(scene, num_frames=32, height=120)


def test_named_splits_keep_their_promise(named):
    split, scene, labels = named
    areas = list_areas(labels, len(scene.actors))
    if split == "small":  # the first object enters, is at first a hundredth of the picture, and grows
        first = int((areas[0] > 0).argmax())
        assert first > 0
        assert (areas[0, first:] > 0).all()
        assert areas[0, first + 2] < 0.015
        assert areas[0, -1] > 8 * areas[0, first + 2]
    elif split == "crowd":  # three or more of one kind touch in a third of the frames, and they cross
        crowded = 0
        for frame in labels:
            _, groups = cv2.connectedComponents((frame > 0).astype(np.uint8))
            crowded += max(len(np.unique(frame[groups == g])) for g in range(1, groups.max() + 1)) >= 3
        assert crowded >= len(labels) / 3
        assert len(scene.actors) >= 5
        assert scene.alike
        assert len({frozenset(part.role for part in actor.parts) for actor in scene.actors}) == 1
        goes_right = [actor.path(1)[0] > actor.path(0)[0] for actor in scene.actors]
        assert 2 <= sum(goes_right) <= len(goes_right) - 2
        assert ((areas > 0).mean(1) >= 0.6).all()
    else:  # the first object is away for five frames or more, in the picture before and after
        away = np.flatnonzero(areas[0] == 0)
        assert len(away) >= 5
        assert areas[0, away[0] : away[-1]].max() < 0.0005  # a few pixels may peep out
        assert (areas[0, : away[0]] > 0.005).sum() >= 5
        assert (areas[0, away[-1] + 1 :] > 0.005).sum() >= 5
        assert (areas[1] > 0.02).all()


def test_objects_are_lost_in_both_ways():
    """Behind another one, and outside of the picture."""
    scenes = [plan_named("leave", number) for number in range(PLANS["leave"].num_videos)]
    ways = {bool(abs(scene.actors[0].path(0.5)[0]) < scene.aspect / 2) for scene in scenes}
    assert ways == {False, True}


@pytest.mark.parametrize("split", NAMED)
def test_an_object_has_one_id_over_the_video(split):
    """That of its actor, in whichever frames it is seen."""
    stage = Stage([0, PLANS[split].seed, 0], height=72, split=split)
    _, labels = render_sequence([0, PLANS[split].seed, 0], height=72, num_frames=12, split=split)
    drawn = draw_coarse_labels(stage.scene, num_frames=12, height=72)
    assert labels.max() <= len(stage.scene.actors)
    for k in range(1, len(stage.scene.actors) + 1):
        for mask, outline in zip(labels == k, drawn == k, strict=True):
            if mask.sum() > 40:
                assert outline[mask].mean() > 0.7


def test_shapes_and_types(video):
    frames, labels = video
    assert frames.shape == (10, 120, 214, 3)
    assert labels.shape == (10, 120, 214)
    assert frames.dtype == labels.dtype == np.uint8


def test_labels_are_where_the_object_is_seen(video):
    """Without object k the picture changes inside its mask, and nowhere far from it."""
    frames, labels = video
    k = int(np.bincount(labels[labels > 0]).argmax())
    without, rest = render_sequence([0, 1, 2], height=120, num_frames=10, hidden=[k])
    changed = np.abs(frames.astype(int) - without).max(-1) > 6
    assert not (rest == k).any()
    assert changed[labels == k].mean() > 0.8
    for t in range(len(frames)):
        near = cv2.dilate((labels[t] == k).astype(np.uint8), np.ones((61, 61)))  # blur and shadow reach this far
        seen_apart = changed[t][near == 0].mean() if (near == 0).any() else 0.0
        assert seen_apart < 0.01
        assert np.array_equal(labels[t][labels[t] != k], rest[t][labels[t] != k])


@pytest.mark.parametrize("seed", range(6))
def test_objects_are_large_and_mostly_in_view(seed):
    scene = plan_scene(ExactGenerator([0, 1, seed]), aspect=16 / 9)
    labels = draw_coarse_labels(scene, num_frames=24, height=60)
    areas = np.stack([(labels == k + 1).mean((1, 2)) for k in range(len(scene.actors))])
    assert 2 <= len(areas) <= 5
    assert ((areas > 0).mean(1) >= 0.6).all()
    assert (areas[:, 0] > 0).sum() >= len(areas) - 1
    assert 0.02 < np.median(areas) < 0.3


def spectral_slope(frames):
    grey = frames.mean(-1)
    grey = (grey - grey.mean((1, 2), keepdims=True)) * np.outer(np.hanning(120), np.hanning(214))
    power = (np.abs(np.fft.fft2(grey)) ** 2).mean(0)
    radius = np.hypot(np.fft.fftfreq(120)[:, None], np.fft.fftfreq(214)[None])
    edges = np.geomspace(0.02, 0.35, 12)
    means = [power[(radius >= a) & (radius < b)].mean() for a, b in pairwise(edges)]
    return np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(means), 1)[0]


def test_spectrum_is_that_of_natural_images():
    """Power falls about as 1/f²."""
    slopes = [spectral_slope(render_sequence([0, 1, i], height=120, num_frames=2)[0]) for i in range(4)]
    assert -3.0 < np.mean(slopes) < -1.4
