"""Motion against the camera: hand-made flows and frames, and what must give no evidence."""

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage

from model.objects.motion import (
    LIMITS,
    MotionMeter,
    compute_evidence,
    find_motion_boundaries,
    fit_camera,
    fit_flow,
    measure_motion,
)
from model.objects.scale import REFERENCE_GRID

SIZE, GRID = (112, 168), (8, 12)
UNIT = np.hypot(*SIZE) / 1000


def grid_size(height, width):
    return height // 14, width // 14


def texture(seed=0, size=(200, 300)):
    """Paint smooth noise with contrast at every scale, as a real picture has: (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    picture = sum(
        cv2.resize(rng.random((size[0] // step, size[1] // step, 3)), size[::-1], interpolation=cv2.INTER_CUBIC) * step
        for step in (4, 10, 25)
    )
    return np.uint8(255 * (picture - picture.min()) / np.ptp(picture))


def film(num_frames=4, *, camera=(0, 0), thing=None, brightness=(1, 1), noise=0.0, seed=0):
    """Film a scene: the camera moves `camera` pixels (rows, columns) a frame, and a disc `thing` pixels beside that."""
    scene, disc, rng = texture(seed), texture(seed + 1), np.random.default_rng(seed)
    frames = []
    for t in range(num_frames):
        top, left = 20 + t * camera[0], 20 + t * camera[1]
        frame = scene[top : top + SIZE[0], left : left + SIZE[1]].copy()
        if thing is not None:
            inside = np.zeros(SIZE, dtype=np.uint8)
            centre = (60 + t * thing[1], 56 + t * thing[0])
            cv2.circle(inside, centre, 20, 1, -1)
            moved = np.roll(disc, (t * thing[0], t * thing[1]), axis=(0, 1))[: SIZE[0], : SIZE[1]]
            frame[inside > 0] = moved[inside > 0]
        frame = frame * brightness[t % 2] + rng.normal(scale=noise or 1e-9, size=frame.shape)
        frames.append(torch.from_numpy(np.uint8(np.clip(frame, 0, 255))).permute(2, 0, 1))
    return frames


def measure(frames, flows=None):
    meter = MotionMeter(grid_size, flows)
    assert all(seen is frame for seen, frame in zip(meter.watch(frames), frames, strict=True))
    return meter.finish().evidence


@pytest.mark.parametrize("camera", [(0, 0), (2, 3)], ids=["static", "moving"])
def test_only_motion_against_the_camera_is_evidence(camera):
    motion = measure(film(camera=camera, thing=(0, 4)))
    assert motion.shape == (4, *GRID)
    assert motion.dtype == np.float32
    assert motion[:, 3:5, 4:5].min() > 0.5  # within the disc in every frame
    assert motion[:, :, 9:].max() < 0.1
    np.testing.assert_array_equal(motion[-1], motion[-2])


def flat_above(num_frames=4, *, noise=0.0, qualities=None, fade=None):
    """Film a still scene whose upper half is one colour, with noise, saved with changing quality, or fading out."""
    scene, rng, frames = texture(size=SIZE), np.random.default_rng(0), []
    scene[: SIZE[0] // 2] = (120, 150, 200)
    for t in range(num_frames):
        frame = scene * (fade or [1] * num_frames)[t] + rng.normal(scale=noise or 1e-9, size=scene.shape)
        frame = np.uint8(np.clip(frame, 0, 255))
        if qualities:
            frame = cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, qualities[t]])[1], 1)
        frames.append(torch.from_numpy(frame).permute(2, 0, 1))
    return frames


STILL = {
    "noise in a flat half": flat_above(noise=1.0),
    "more noise in a flat half": flat_above(noise=3.0),
    "changing quality": flat_above(qualities=(60, 90, 70, 80)),
    "fade to black": flat_above(fade=(1, 0.5, 0.1, 0)),
    "one frame": film(1),
    "still": film(5),
    "camera alone": film(5, camera=(3, -2)),
    "flicker": film(5, brightness=(1, 0.8)),
    "noise": film(5, noise=4.0),
    "cut": [*film(3), *film(3, seed=9)],
    "flat": [torch.full((3, *SIZE), 90, dtype=torch.uint8)] * 3,
    "tiny": [torch.zeros(3, 28, 14, dtype=torch.uint8)] * 2,
}


@pytest.mark.parametrize("frames", STILL.values(), ids=STILL)
def test_no_evidence_where_nothing_moves_by_itself(frames):
    motion = measure(frames)
    assert motion.mean() < 0.01, motion.mean((1, 2))


def test_too_few_flows_are_refused():
    with pytest.raises(ValueError, match="1 flows for 3 frames"):
        measure(film(3), [np.zeros((*SIZE, 2), np.float32)])


def test_a_video_without_frames_is_refused():
    with pytest.raises(ValueError, match="no frame"):
        MotionMeter(grid_size).finish()


def test_frames_of_floats_are_those_of_bytes():
    frames = film(thing=(0, 4))
    np.testing.assert_array_equal(measure([frame.float() / 255 for frame in frames]), measure(frames))


def test_evidence_is_the_logarithm_of_the_flow_that_the_camera_leaves_over():
    flow = np.full((*SIZE, 2), (5.0, -2.0), dtype=np.float32)
    flow[40:70, 40:80] += (3.0, 4.0)  # five pixels
    frame = cv2.cvtColor(texture(size=SIZE), cv2.COLOR_RGB2GRAY)
    following = np.roll(frame, (-2, 5), axis=(0, 1))
    following[42:72, 48:88] = frame[40:70, 40:80]
    motion = compute_evidence(*measure_motion(flow, frame, following))
    np.testing.assert_allclose(motion[48:62, 48:72], np.log1p(5 / UNIT - LIMITS.noise), rtol=1e-3)
    assert not motion[:20].any()


def test_the_camera_may_turn_and_zoom():
    rows, columns = np.indices(SIZE, dtype=np.float32)
    flow = np.stack([0.02 * columns - 0.01 * rows + 1, 0.01 * columns + 0.02 * rows - 2], axis=-1)
    flow[50:80, 50:90] += 9
    camera = fit_camera(flow, step=4, max_error=0.5, trials=500)
    np.testing.assert_allclose(camera[:40], flow[:40], atol=1e-3)


def test_flow_of_the_user_is_taken_at_any_size():
    flow = np.zeros((56, 84, 2), dtype=np.float32)
    flow[20:30, 20:30] = (4.0, 1.0)
    fitted = fit_flow(flow, SIZE)
    np.testing.assert_allclose(fitted[50, 50], (8.0, 2.0), rtol=1e-5)
    frames = film(3, thing=(0, 4))
    estimated = np.zeros((SIZE[0] // 2, SIZE[1] // 2, 2), dtype=np.float32)
    estimated[20:40, 20:44] = (2.0, 0.0)  # half the pixels at half the size
    assert measure(frames, [estimated] * 2)[:, 4, 4].min() > 0.5


def test_evidence_does_not_depend_on_the_resolution():
    frames = film(thing=(0, 4))
    larger = [
        torch.from_numpy(cv2.resize(f.permute(1, 2, 0).numpy(), None, fx=2, fy=2)).permute(2, 0, 1) for f in frames
    ]
    meter = MotionMeter(lambda height, width: (height // 28, width // 28))
    list(meter.watch(larger))
    one, other = measure(frames), meter.finish().evidence
    assert abs(one.mean() - other.mean()) < 0.2 * one.mean()


def find_boundaries(frames):
    meter = MotionMeter(grid_size)
    list(meter.watch(frames))
    return meter.finish().boundaries


def test_motion_boundaries_lie_around_what_moves_against_the_camera():
    boundaries = find_boundaries(film(camera=(2, 3), thing=(0, 4)))
    assert boundaries.shape == (4, *GRID)
    assert boundaries[:, 2:6, 2:8].any(axis=(1, 2)).all()
    assert not boundaries[:, :, 9:].any()
    np.testing.assert_array_equal(boundaries[-1], boundaries[-2])


@pytest.mark.parametrize("noise", [0, 8], ids=["clean", "noisy"])
def test_a_moving_camera_alone_makes_no_motion_boundaries(noise):
    assert not find_boundaries(film(camera=(2, 3), noise=noise)).any()


def test_a_motion_boundary_is_a_step_in_velocity():
    velocity = np.zeros((2, 6, 2), dtype=np.float32)
    velocity[:, 3:, 0] = LIMITS.velocity_step + 1
    np.testing.assert_array_equal(find_motion_boundaries(velocity), [[0, 0, 1, 1, 0, 0]] * 2)
    slope = np.zeros((2, 6, 2), dtype=np.float32)
    slope[..., 0] = np.arange(6) * 2  # what turns or zooms
    assert not find_motion_boundaries(slope).any()
    fast = velocity + np.float32([0, 100])  # the step is less than three tenths of the speed
    assert not find_motion_boundaries(fast).any()


def test_motion_boundaries_close_on_finer_grids():
    """Flow changes gradually across an edge; the square inside is cut off from the rest on every grid."""
    for factor in (1, 2, 3):
        height, width = (factor * side for side in REFERENCE_GRID)
        velocity = np.zeros((height, width, 2), dtype=np.float32)
        velocity[6 * factor : 14 * factor, 12 * factor : 22 * factor, 0] = 10
        velocity = cv2.blur(velocity, (factor, factor))
        components, count = ndimage.label(~find_motion_boundaries(velocity))
        assert count == 2
        assert components[height // 2, 17 * factor] != components[0, 0]
