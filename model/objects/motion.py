"""Measure how each token moves against the camera (docs/method.md, section 9).

    meter = MotionMeter(grid_size)
    for frame in meter.watch(frames): ...       # frames pass through unchanged
    motion = meter.finish()                     # motion.evidence, motion.boundaries: (T, h, w)

Between two frames the optical flow is computed, and the camera's motion is fitted to it as an affine map. The flow that
this map leaves over is motion against the camera. Five bytes for each token are kept; the frames are not.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor

from model.objects.scale import count_at_least_one, scale_length


@dataclass(frozen=True)
class MotionLimits:
    """Limits of the motion evidence. Lengths are in thousandths of the frame's diagonal (0.56 pixels at 280x490).

    Attributes:
        noise: motion against the camera, beyond the frame's median, that counts as noise of the flow.
        camera: flow that differs from the camera's motion by at most this follows the camera.
        spacing: distance of the flow vectors that the camera's motion is fitted to.
        trials: trials of RANSAC at most.
        window: side of the windows in which differences of the two frames, in grey levels, are averaged.
        max_difference: difference that is left after moving the next frame back by the flow, at most, as a share of
            that after moving it back by the camera's motion. The flow of flat places fits noise and hardly gets below.
        min_gain: grey levels that the flow takes off the difference, at least.
        min_correlation: correlation of a frame with the next one, moved back by the flow, at least; less is a cut,
            where flow means nothing.
        min_side: pixels; the flow of smaller frames is not computed.
        velocity_step: difference of the velocities of neighbouring tokens from which they move apart; 3, 5 and 8 were
            tried.
        relative_step: the same as a share of the token's own speed: fast flow is less even.
    """

    noise: float = 0.5
    camera: float = 1.8
    spacing: float = 14.0
    trials: int = 500
    window: float = 60.0
    max_difference: float = 0.8
    min_gain: float = 1.0
    min_correlation: float = 0.5
    min_side: int = 16
    velocity_step: float = 5.0
    relative_step: float = 0.3


LIMITS = MotionLimits()


@dataclass(frozen=True)
class Motion:
    """Motion of the tokens of a video against the camera.

    Attributes:
        evidence: (T, h, w) float32; log(1 + x), x the motion beyond the noise, in thousandths of the frame's diagonal a
            frame. 0 for tokens that follow the camera.
        boundaries: (T, h, w) bool, tokens that move apart from a neighbour.
    """

    evidence: np.ndarray
    boundaries: np.ndarray


class MotionMeter:
    """Measure the motion evidence of a video while its frames pass by.

    Args:
        grid_size: returns the token grid (h, w) of a frame of a given height and width.
        flows: optical flows (H, W, 2), in pixels of their own size, from each frame but the last to the next one; None
            to compute them (DIS: Kroeger et al., ECCV 2016).

    Attributes:
        seconds: time that the measuring has taken so far; `Segmenter` measures in a thread beside the backbone.
    """

    def __init__(self, grid_size: Callable[[int, int], tuple[int, int]], flows: Iterable[np.ndarray] | None = None):
        self.grid_size = grid_size
        self.flows = None if flows is None else iter(flows)
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._previous: np.ndarray | None = None
        self._evidence: list[np.ndarray] = []
        self._boundaries: list[np.ndarray] = []
        self.seconds = 0.0

    def watch(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield frames (3, H, W), RGB, uint8 or float in [0, 1], and measure the motion between each and the next."""
        for frame in frames:
            start = time.perf_counter()
            self._add(_to_grey(frame))
            self.seconds += time.perf_counter() - start
            yield frame

    def finish(self) -> Motion:
        """Return the motion of all frames. The last frame repeats the one before; a video of one frame has none."""
        if self._previous is None:
            raise ValueError("no frame was watched")
        if not self._evidence:
            nothing = np.zeros((1, *self.grid_size(*self._previous.shape)), dtype=np.float32)
            return Motion(nothing, nothing > 0)
        return Motion(*(np.stack([*kept, kept[-1]]) for kept in (self._evidence, self._boundaries)))

    def _add(self, grey: np.ndarray) -> None:
        if self._previous is not None:
            alike = match_brightness(grey, self._previous)
            flow = self._compute_flow(alike) if self.flows is None else self._next_flow(grey.shape)
            velocity, is_explained = measure_motion(flow, self._previous, alike)
            height, width = self.grid_size(*grey.shape)

            def average_over_tokens(values: np.ndarray) -> np.ndarray:
                return cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)

            self._evidence.append(average_over_tokens(compute_evidence(velocity, is_explained)))
            side = 2 * compute_neighbour_distance((height, width)) + 1
            near_explained = cv2.dilate(average_over_tokens(is_explained.astype(np.float32)), np.ones((side, side))) > 0
            boundaries = find_motion_boundaries(average_over_tokens(velocity))
            self._boundaries.append(boundaries & near_explained)
        self._previous = grey

    def _next_flow(self, size: tuple[int, int]) -> np.ndarray:
        if (flow := next(self.flows, None)) is None:
            raise ValueError(f"{len(self._evidence)} flows for {len(self._evidence) + 2} frames or more")
        return fit_flow(flow, size)

    def _compute_flow(self, grey: np.ndarray) -> np.ndarray:
        if min(grey.shape) < LIMITS.min_side:
            return np.zeros((*grey.shape, 2), dtype=np.float32)
        return self._dis.calc(self._previous, grey, None)


def measure_motion(flow: np.ndarray, frame: np.ndarray, following: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure how each pixel moves against the camera, and where the flow can be trusted.

    Args:
        flow: (H, W, 2) float32, from `frame` to `following`, in pixels, x before y.
        frame, following: (H, W) uint8, grey.

    Returns:
        velocity (H, W, 2) float32, in thousandths of the frame's diagonal; 0 at a cut, or if no camera motion fits.
        is_explained (H, W) bool: whether the flow explains the difference of the frames clearly better than the
        camera's motion does.
    """
    unit = float(np.hypot(*flow.shape[:2])) / 1000
    step = max(round(LIMITS.spacing * unit), 1)
    camera = fit_camera(flow, step=step, max_error=LIMITS.camera * unit, trials=LIMITS.trials)
    moved_back = move_back(following, flow)
    if camera is None or correlate(frame, moved_back) < LIMITS.min_correlation:
        return np.zeros_like(flow, dtype=np.float32), np.zeros(flow.shape[:2], dtype=bool)
    side = max(round(LIMITS.window * unit), 1)
    left, by_camera = (
        cv2.blur(cv2.absdiff(moved, frame).astype(np.float32), (side, side))
        for moved in (moved_back, move_back(following, camera))
    )
    is_explained = (left <= LIMITS.max_difference * by_camera) & (by_camera - left >= LIMITS.min_gain)
    return (flow - camera) / unit, is_explained


def compute_evidence(velocity: np.ndarray, is_explained: np.ndarray) -> np.ndarray:
    """Compute the motion evidence of each pixel as in `Motion`, from what `measure_motion` returns: (H, W) float32."""
    speed = _measure_speed(velocity)
    step = max(round(LIMITS.spacing * np.hypot(*speed.shape) / 1000), 1)
    typical = np.median(speed[step // 2 :: step, step // 2 :: step])
    beyond = np.maximum(speed - typical - LIMITS.noise, 0)
    return np.log1p(np.where(is_explained, beyond, 0)).astype(np.float32)


def find_motion_boundaries(velocity: np.ndarray) -> np.ndarray:
    """Find the tokens that move apart from a neighbour.

    Neighbours are a token of `model.objects.scale`'s grid apart, two on a grid twice as fine: optical flow changes
    gradually across an edge, by less from token to token the finer the grid is.

    Args:
        velocity: (h, w, 2) float32, against the camera, in thousandths of the frame's diagonal a frame.

    Returns:
        (h, w) bool.
    """
    largest = np.zeros(velocity.shape[:2], dtype=np.float32)
    apart = compute_neighbour_distance(largest.shape)
    for one, other in ((np.s_[apart:], np.s_[:-apart]), (np.s_[:, apart:], np.s_[:, :-apart])):
        step = _measure_speed(velocity[one] - velocity[other])
        for side in (one, other):
            np.maximum(largest[side], step, out=largest[side])
    speed = _measure_speed(velocity)
    return largest > np.maximum(LIMITS.velocity_step, LIMITS.relative_step * speed)


def compute_neighbour_distance(grid: tuple[int, int]) -> int:
    """Return how many tokens of a grid (h, w) the neighbours of `find_motion_boundaries` are apart."""
    return count_at_least_one(scale_length(1, grid))


def fit_camera(flow: np.ndarray, *, step: int, max_error: float, trials: int) -> np.ndarray | None:
    """Fit the camera's motion as an affine map to the flow by RANSAC, and return its flow (H, W, 2) float32.

    Args:
        flow: (H, W, 2) float32, pixels.
        step: distance in pixels of the vectors that are fitted.
        max_error: pixels; vectors that differ by at most this agree with a map.

    Returns:
        None if no map fits.
    """
    places = _list_places(*flow.shape[:2])
    sample = np.s_[step // 2 :: step, step // 2 :: step]
    start = places[sample].reshape(-1, 2)
    end = start + flow[sample].reshape(-1, 2)
    if len(start) < 3:
        return None
    matrix, _ = cv2.estimateAffine2D(start, end, ransacReprojThreshold=max_error, maxIters=trials)
    return None if matrix is None else cv2.transform(places, matrix - np.eye(2, 3))


def move_back(following: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Move the pixels of a following frame (H, W) uint8 back by a flow (H, W, 2) from the frame before to it."""
    places = _list_places(*following.shape) + flow
    return cv2.remap(following, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def correlate(frame: np.ndarray, other: np.ndarray) -> float:
    """Compute the correlation of two frames (H, W): in [-1, 1]; 0 if one of them has no contrast."""
    one, two = ((values.astype(np.float32) - values.mean(dtype=np.float32)).ravel() for values in (frame, other))
    scale = np.linalg.norm(one) * np.linalg.norm(two)
    return float(one @ two / scale) if scale else 0.0


def match_brightness(frame: np.ndarray, reference: np.ndarray, *, most: float = 2.0) -> np.ndarray:
    """Give a frame (H, W) uint8 the mean and contrast of a reference, so that flicker is not taken for motion.

    most: largest factor by which contrast is raised or lowered.
    """
    (mean, contrast), (wanted_mean, wanted_contrast) = map(_measure_grey, (frame, reference))
    gain = np.clip(max(wanted_contrast, 1e-6) / max(contrast, 1e-6), 1 / most, most)
    scaled = (np.arange(256) - mean) * gain + wanted_mean  # of each grey level
    return cv2.LUT(frame, np.clip(scaled.round(), 0, 255).astype(np.uint8))


def fit_flow(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a flow (H, W, 2), and its vectors with it, to another height and width: float32."""
    height, width = size
    scale = np.array([width / flow.shape[1], height / flow.shape[0]], dtype=np.float32)
    return cv2.resize(flow.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) * scale


def _to_grey(frame: Tensor) -> np.ndarray:
    """Convert a frame (3, H, W), uint8 or float in [0, 1], to grey: (H, W) uint8."""
    pixels = frame if frame.dtype == torch.uint8 else (frame * 255).round().to(torch.uint8)
    return cv2.cvtColor(np.ascontiguousarray(pixels.permute(1, 2, 0).cpu().numpy()), cv2.COLOR_RGB2GRAY)


def _measure_grey(frame: np.ndarray) -> tuple[float, float]:
    """Measure the mean and the standard deviation of a frame (H, W) uint8."""
    return tuple(values.item() for values in cv2.meanStdDev(frame))


def _measure_speed(velocity: np.ndarray) -> np.ndarray:
    """Measure the length of each vector (..., 2); numpy's norm takes many times as long over so short an axis."""
    x, y = velocity[..., 0], velocity[..., 1]
    return np.sqrt(x * x + y * y)


@lru_cache(maxsize=1)
def _list_places(height: int, width: int) -> np.ndarray:
    """List the position of each pixel, x before y: (H, W, 2) float32, read-only."""
    rows, columns = np.indices((height, width), dtype=np.float32)
    places = np.stack([columns, rows], axis=-1)
    places.setflags(write=False)  # every frame of this size gets the same array
    return places
