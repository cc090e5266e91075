"""Paint the background of Sprites in planes: a far one, the ground with clutter on it, and occluders."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from data.sprites.bodies import draw_blob
from data.sprites.exact import blur, compose, exp, log, sample, snap
from data.sprites.light import Light, inflate, shade
from data.sprites.scene import Scene, make_camera_map
from data.sprites.shapes import fill_polygon, find_window, ruffle_edge
from data.sprites.textures import draw_fractal_noise, draw_pattern, draw_smooth_noise, paint

PATCHED_SHARE = 0.2  # of a background plane that each further pattern covers
MARGIN = 0.42  # world units by which a background layer extends beyond the picture of a resting camera


@dataclass(frozen=True)
class Layer:
    """A lit plane of the background or an occluder: colour times coverage, and coverage, (h, w, 4)."""

    image: np.ndarray
    parallax: float
    after: int = 0  # painted after this many actors


def make_plane_map(scene: Scene, layer: Layer, u: float, height: int) -> np.ndarray:
    offset = np.array([[1 / height, 0, -scene.aspect / 2 - MARGIN], [0, 1 / height, -0.5 - MARGIN]])
    return compose(make_camera_map(scene, u, height=height, parallax=layer.parallax), offset)


def _average(colour: np.ndarray) -> np.ndarray:
    """Average the channels of an image (h, w, 3)."""
    return (colour[..., 0] + colour[..., 1] + colour[..., 2]) / 3


def _clutter(
    rng: np.random.Generator, plane: np.ndarray, families: Sequence[np.ndarray], light: Light, count: int,
    size: tuple[float, float], band: tuple[float, float],
) -> None:  # fmt: skip
    """Scatter shaded stones and bushes over a plane (h, w, 4), in place; `size` and rows of `band` in pixels."""
    rows = np.sort(rng.uniform(*band, count))
    for y in rows:
        radius = rng.uniform(*size) * (0.6 + 0.4 * (y - band[0]) / (band[1] - band[0] + 1e-6))
        outline = draw_blob(rng, radius, radius * rng.uniform(0.5, 1.1), rough=rng.uniform(0.1, 0.3))
        outline = outline + np.array([rng.uniform(0, plane.shape[1]), y])
        window = find_window(outline + 0.0, plane.shape[:2])
        if window is None:
            continue
        texture = families[int(rng.integers(len(families)))]
        mask = fill_polygon(
            outline - (window[1].start, window[0].start), (plane[window].shape[0], plane[window].shape[1])
        )
        mask = ruffle_edge(rng, mask, min(0.8, 0.03 * radius))
        top, left = (int(rng.integers(0, s - n + 1)) for s, n in zip(texture.shape, mask.shape, strict=False))
        colour = texture[top : top + mask.shape[0], left : left + mask.shape[1], :3]
        relief = inflate(mask, radius * 0.8) + 2 * _average(colour)
        lit = shade(colour * mask[..., None], relief.astype(np.float32), light)
        plane[window] = plane[window] * (1 - mask[..., None]) + np.dstack([lit, mask])


def _ridge(rng: np.random.Generator, shape: tuple[int, int], row: float, rough: float) -> np.ndarray:
    """Draw the coverage (h, w) of everything below an uneven skyline near `row`."""
    line = row + rough * draw_fractal_noise(rng, (8, shape[1]), 1.2)[0]
    return np.clip(np.arange(shape[0], dtype=np.float32)[:, None] - line + 0.5, 0, 1).astype(np.float32)


def _perspective(texture: np.ndarray, row: float) -> np.ndarray:
    """Squeeze a ground texture towards its horizon at `row`."""
    h, w = texture.shape[:2]
    y, x = np.arange(h)[:, None], np.arange(w)
    depth = np.clip((y - row + 0.08 * h) / (1.08 * h - row), 0.06, 1)
    source_x = (x - w / 2) / (0.35 + 0.65 * depth) + w / 2
    source_y = np.broadcast_to(h * (1 - log(depth) / log(0.06)), (h, w))
    maps = (source_x.astype(np.float32), source_y.astype(np.float32))
    return sample(snap(texture), *maps, border=cv2.BORDER_REFLECT)


def _textures(
    rng: np.random.Generator, names: list[str], palette: np.ndarray, shape: tuple[int, int], height: int
) -> Iterator[np.ndarray]:
    """Paint planes (h, w, 3) of the background with the named patterns, at different scales."""
    for name in names:
        period = height * float(exp(rng.uniform(log(0.08), log(0.35))))
        yield paint(rng, draw_pattern(rng, name, shape, period), palette, skew=rng.uniform(0.75, 1.3), contrast=0.7)


def _patch(rng: np.random.Generator, plane: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """Lay each of the other textures over a share of a plane (h, w, 3), in a few large patches with soft edges."""
    for other in others:
        field = draw_smooth_noise(rng, plane.shape[:2])
        rank = int((1 - PATCHED_SHARE) * field.size)
        ramp = np.clip(0.5 + 1.3 * (field - np.partition(field, rank, axis=None)[rank]), 0, 1)
        plane = plane + (other - plane) * (ramp * ramp * (3 - 2 * ramp))[..., None]
    return plane


def make_layers(
    rng: np.random.Generator, scene: Scene, names: list[str], palette: np.ndarray, light: Light, height: int
) -> list[Layer]:
    """Make the planes of the background, far to near, then one for each occluder; `names` are at least two patterns."""
    shape = (round(height * (1 + 2 * MARGIN)), round(height * (scene.aspect + 2 * MARGIN)))
    far, *families = _textures(rng, names, palette, shape, height)
    ground, *others = families
    far, ground = _patch(rng, far, others), _patch(rng, ground, others)
    solid = np.ones(shape, np.float32)
    layers = []
    flat = 0.75 * light.sun + 0.7 * light.sky
    if scene.horizon is not None:
        row = (scene.horizon + 0.5 + MARGIN) * height
        haze = np.linspace(1.3, 0.9, shape[0], dtype=np.float32)[:, None, None]
        far = blur(far, float(rng.uniform(1.5, 3.5)) * height / 240)
        back = np.dstack([far * haze * flat, solid]).astype(np.float32)
        _clutter(rng, back, families, light, 8, (0.08 * height, 0.22 * height), (0.45 * row, row))
        layers.append(Layer(snap(back), 0.45))
        mask = _ridge(rng, shape, row, 0.03 * height)
        front = np.dstack([_perspective(ground, row) * flat, solid]).astype(np.float32) * mask[..., None]
        _clutter(rng, front, families, light, 16, (0.03 * height, 0.1 * height), (row, shape[0]))
    else:
        front = np.dstack([shade(ground, 3 * _average(ground), light), solid]).astype(np.float32)
        _clutter(rng, front, families, light, 24, (0.03 * height, 0.11 * height), (0, shape[0]))
    front = blur(front, float(rng.uniform(2.6, 4.2)) * height / 240)  # out of focus
    layers.append(Layer(snap(front), 1.0))
    for occluder in scene.occluders:
        outline = (occluder.outline + np.array([scene.aspect / 2 + MARGIN, 0.5 + MARGIN])) * height
        mask = ruffle_edge(rng, fill_polygon(outline, shape), 1.0 * height / 240)
        texture = families[int(rng.integers(len(families)))] * mask[..., None]
        lit = shade(texture, inflate(mask, 0.12 * height) + 3 * _average(texture), light)
        layers.append(Layer(snap(np.dstack([lit, mask])), 1.1, occluder.after))
    return layers
