"""Paint a Sprites video: procedural textures, lit and jointed actors, a layered background, exact labels.

    frames, labels = render_sequence(7, height=240, num_frames=32)

All actors and the background of a video have the same five colours, and the light changes, so that colour alone does
not show which pixels are one object. Pattern, shading, focus, shape and motion do. Colours are linear light until the
last step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import fft
from scipy.spatial import cKDTree

from data.sprites.scene import (
    Actor,
    Part,
    Scene,
    compose,
    draw_blob,
    make_camera_map,
    make_part_maps,
    make_root_map,
    map_points,
    plan_scene,
)

ASPECT = 16 / 9
PATCHED_SHARE = 0.2  # of a background plane that each further pattern covers
SHUTTER = 0.6  # share of the time between two frames in which the shutter is open
SUBSAMPLES = 3  # exposures averaged for motion blur; the labels are those of the middle one
MARGIN = 0.42  # world units by which a background layer extends beyond the picture of a resting camera
BORDER = 2  # transparent pixels around a sprite, for interpolation
GAMMA = 2.2
SKINS = ("fur", "stripes", "spots", "maze", "cells", "scales")
GROUNDS = ("clouds", "cracks", "cells", "fur", "spots", "maze")

# Five sRGB colours each, dark to light; every surface uses all five.
PALETTES = np.array([
    [(38, 34, 26), (84, 72, 46), (122, 104, 66), (160, 142, 100), (206, 192, 156)],  # savanna
    [(24, 34, 22), (52, 66, 36), (92, 98, 54), (136, 128, 84), (190, 184, 146)],  # forest
    [(34, 38, 46), (74, 80, 88), (116, 118, 120), (158, 156, 150), (212, 210, 204)],  # rock
    [(16, 40, 52), (34, 78, 88), (76, 116, 112), (136, 150, 126), (200, 198, 168)],  # reef
    [(46, 24, 18), (98, 52, 32), (144, 88, 52), (176, 132, 92), (220, 192, 156)],  # autumn
    [(30, 30, 40), (70, 62, 72), (118, 96, 92), (164, 136, 116), (214, 196, 174)],  # dusk
    [(28, 36, 44), (60, 84, 104), (112, 128, 132), (168, 168, 158), (226, 224, 218)],  # winter
    [(30, 22, 48), (70, 52, 106), (112, 88, 150), (158, 134, 184), (214, 200, 224)],  # heather
    [(58, 18, 26), (122, 40, 44), (168, 74, 66), (202, 124, 102), (232, 194, 170)],  # clay
    [(50, 36, 10), (120, 88, 22), (178, 138, 44), (212, 180, 92), (238, 222, 168)],  # ochre
    [(14, 44, 30), (34, 88, 60), (74, 128, 88), (128, 168, 122), (196, 214, 178)],  # moss
], np.float32)  # fmt: skip


# ------------------------------------------------------------------ textures: scalar fields with uniform values


def _filter_noise(rng: np.random.Generator, shape: tuple[int, int], gain) -> np.ndarray:
    """Filter white noise by `gain(fy, fx)` (cycles per pixel): float32 of mean 0 and standard deviation 1."""
    full = tuple(fft.next_fast_len(n, real=True) for n in shape)
    fy, fx = fft.fftfreq(full[0]).astype(np.float32)[:, None], fft.rfftfreq(full[1]).astype(np.float32)[None]
    white = fft.rfft2(rng.standard_normal(full, dtype=np.float32))
    noise = fft.irfft2(white * gain(fy, fx).astype(np.float32), s=full)[: shape[0], : shape[1]]
    return ((noise - noise.mean()) / (noise.std() + 1e-12)).astype(np.float32)


def draw_fractal_noise(rng: np.random.Generator, shape: tuple[int, int], slope: float = 1.0) -> np.ndarray:
    """Draw noise whose amplitude falls as 1/f**slope, its power as 1/f**(2·slope)."""
    return _filter_noise(rng, shape, lambda fy, fx: 1 / np.maximum(np.hypot(fy, fx), 1 / max(shape)) ** slope)


def _smooth(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw fractal noise without its finest octaves, for drifts and warps, by enlarging a small image."""
    small = (max(4, shape[0] // 4), max(4, shape[1] // 4))
    return cv2.resize(draw_fractal_noise(rng, small, 1.6), shape[::-1], interpolation=cv2.INTER_CUBIC)


def _band(rng: np.random.Generator, shape: tuple[int, int], period: float, stretch: float = 1.0) -> np.ndarray:
    """Draw noise of one scale, as a reaction-diffusion process produces; `stretch` lengthens it along x."""
    return _filter_noise(
        rng, shape, lambda fy, fx: np.exp(-0.5 * ((np.hypot(fy, fx * stretch) * period - 1) / 0.22) ** 2)
    )


def _fur(rng: np.random.Generator, shape: tuple[int, int], period: float) -> np.ndarray:
    hair = _filter_noise(rng, shape, lambda fy, fx: 1 / (0.15 + np.hypot(fy * period * 0.35, fx * period * 2.2)) ** 1.5)
    return hair + 0.5 * draw_fractal_noise(rng, shape, 1.4)


def _stripes(rng: np.random.Generator, shape: tuple[int, int], period: float) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    turn = rng.normal(0, 0.35)
    return np.sin(2 * np.pi * (x * np.cos(turn) + y * np.sin(turn)) / period + 1.3 * _smooth(rng, shape))


def _cells(rng: np.random.Generator, shape: tuple[int, int], period: float, *, edges: bool) -> np.ndarray:
    """Draw Voronoi cells of about `period` pixels: the distance to the border, or one value for each cell."""
    small = (max(8, shape[0] // 2), max(8, shape[1] // 2))
    count = max(6, int(shape[0] * shape[1] / period**2))
    seeds = rng.random((count, 2)) * small
    grid = np.stack(np.mgrid[: small[0], : small[1]], -1).reshape(-1, 2) + 0.0
    distance, index = cKDTree(seeds).query(grid, k=2)
    value = (distance[:, 1] - distance[:, 0]) * 2 / period if edges else rng.random(count)[index[:, 0]] * 2
    return cv2.resize(value.reshape(small).astype(np.float32), shape[::-1], interpolation=cv2.INTER_LINEAR)


def _scales(rng: np.random.Generator, shape: tuple[int, int], period: float) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32) / (0.7 * period)
    row = np.floor(y)
    return np.abs(((x + 0.5 * (row % 2)) % 1) - 0.5) ** 2 * 3 + (y - row)


def draw_pattern(rng: np.random.Generator, name: str, shape: tuple[int, int], period: float) -> np.ndarray:
    """Draw a warped pattern of the family `name` (of SKINS or GROUNDS): float32 (h, w), values uniform on [0, 1]."""
    draw = {
        "fur": lambda: _fur(rng, shape, period),
        "stripes": lambda: _stripes(rng, shape, period),
        "spots": lambda: np.maximum(_band(rng, shape, period), -0.2),
        "maze": lambda: np.tanh(2.5 * _band(rng, shape, period, rng.uniform(0.6, 1.7))),
        "cells": lambda: _cells(rng, shape, period, edges=False),
        "scales": lambda: _scales(rng, shape, period * 0.6),
        "cracks": lambda: np.minimum(_cells(rng, shape, period, edges=True), 0.35) * 3,
        "clouds": lambda: draw_fractal_noise(rng, shape, 1.2),
    }
    value = _warp(rng, draw[name](), 0.25 * period)
    value = value / (value.std() + 1e-6) + 0.35 * draw_fractal_noise(rng, shape, 1.0)
    order = np.empty(value.size, np.float32)
    order[np.argsort(value, axis=None, kind="stable")] = np.linspace(0, 1, value.size, dtype=np.float32)
    return order.reshape(shape)


def _warp(rng: np.random.Generator, image: np.ndarray, reach: float) -> np.ndarray:
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    dx, dy = (float(reach) * _smooth(rng, image.shape[:2]) for _ in range(2))
    return cv2.remap(image.astype(np.float32), x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def paint(
    rng: np.random.Generator,
    values: np.ndarray,
    palette: np.ndarray,
    *,
    skew: float = 1.0,
    relief: float = 0.18,
    contrast: float = 1.0,
) -> np.ndarray:
    """Colour a pattern by a palette, with fine grain and a slow drift of hue: (h, w, 3) float32, linear light."""
    level = (0.5 + contrast * (values**skew - 0.5)) * (len(palette) - 1)
    low = np.minimum(level.astype(np.int32), len(palette) - 2)
    mix = level - low
    mix = (mix * mix * (3 - 2 * mix))[..., None]
    colour = palette[low] * (1 - mix) + palette[low + 1] * mix
    grain = relief * draw_fractal_noise(rng, values.shape, 0.8) + 0.2 * _smooth(rng, values.shape)
    tint = [0.06 * _smooth(rng, values.shape) for _ in range(3)]
    return (colour * np.exp(grain[..., None] + np.stack(tint, -1))).astype(np.float32)


# ------------------------------------------------------------------ light


@dataclass(frozen=True)
class Light:
    """Light at one moment: direction towards the sun (x, y, z towards the viewer), colours of sun and sky."""

    direction: np.ndarray
    sun: np.ndarray
    sky: np.ndarray


def _draw_light(rng: np.random.Generator):
    """Draw a light u -> Light that slowly turns and changes in strength and warmth."""
    turn, swing = rng.uniform(-2.6, -0.5), rng.uniform(-0.5, 0.5)
    warm, beat, shift = rng.uniform(-0.12, 0.16), rng.uniform(0.4, 1.3), rng.uniform(0, 6)
    strength, flicker = rng.uniform(0.85, 1.25), rng.uniform(0.03, 0.16)

    def light(u: float) -> Light:
        angle = turn + swing * (u - 0.5)
        direction = np.array([np.cos(angle), np.sin(angle), 0.75])
        power = strength * (1 + flicker * np.sin(2 * np.pi * beat * u + shift))
        sun = power * np.array([1 + warm, 1.0, 1 - warm])
        return Light(direction / np.linalg.norm(direction), sun, 0.34 * np.array([1 - warm, 1.0, 1 + warm]))

    return light


def shade(albedo: np.ndarray, height: np.ndarray, light: Light, *, gloss: float = 0.0) -> np.ndarray:
    """Light a relief by a wrapped diffuse sun and by the sky, with a highlight and a rim.

    `albedo` (h, w, 3), already multiplied by its coverage, and `height` (h, w), in pixels, are float32.
    """
    dx, dy = cv2.Sobel(height, -1, 1, 0, scale=0.125), cv2.Sobel(height, -1, 0, 1, scale=0.125)
    up = 1 / np.sqrt(1 + dx * dx + dy * dy)
    x, y, z = (float(part) for part in light.direction)
    facing = (z - x * dx - y * dy) * up
    diffuse = np.maximum(0, (facing + 0.15) / 1.15)
    sky = 0.7 + 0.3 * (dy * up) + 0.25 * (1 - up)
    lit = diffuse[..., None] * light.sun.astype(np.float32)
    lit += sky[..., None] * light.sky.astype(np.float32)
    lit *= albedo
    if gloss:
        lit += (gloss * np.maximum(0, facing) ** 24)[..., None] * albedo.max(-1, keepdims=True)
    return lit


def _inflate(mask: np.ndarray, ceiling: float) -> np.ndarray:
    """Raise a pillow on a mask: height (h, w) float32, in pixels, with the profile of a circle of radius `ceiling`."""
    inside = cv2.distanceTransform((mask > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    depth = np.minimum(inside / ceiling, 1)
    return cv2.GaussianBlur(ceiling * np.sqrt(depth * (2 - depth)), (0, 0), max(0.8, 0.08 * ceiling))


# ------------------------------------------------------------------ actors


@dataclass(frozen=True)
class Sprite:
    """A painted part of an actor.

    image: colour times coverage, and coverage, (h, w, 4).
    height: (h, w).
    matrix: map from the coordinates of the part to pixels of the sprite.
    """

    image: np.ndarray
    height: np.ndarray
    matrix: np.ndarray


def _fill(outline: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Fill a polygon, given in pixels, with antialiasing: coverage (h, w) float32."""
    mask = np.zeros((shape[0] * 4, shape[1] * 4), np.uint8)
    cv2.fillPoly(mask, [np.round((outline + 0.5) * 4 - 0.5).astype(np.int32)], 255)
    return cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _ruffle(rng: np.random.Generator, mask: np.ndarray, reach: float) -> np.ndarray:
    """Make an edge hairy by moving it back and forth by about `reach` pixels."""
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]].astype(np.float32)
    dx, dy = (float(reach) * draw_fractal_noise(rng, mask.shape, 0.5) for _ in range(2))
    return cv2.remap(mask, x + dx, y + dy, cv2.INTER_LINEAR)


def _make_sprite(
    rng: np.random.Generator, part: Part, skin: np.ndarray, relief: np.ndarray, scale: float, hair: float
) -> Sprite:
    """Paint one part at `scale` pixels per body unit with a piece of the actor's skin (h, w, 3)."""
    low, high = part.outline.min(0), part.outline.max(0)
    pad = BORDER + 2 * hair
    width, height = (int(n) for n in np.ceil((high - low) * scale + 2 * pad))
    matrix = np.array([[scale, 0, pad - low[0] * scale], [0, scale, pad - low[1] * scale]])
    mask = _fill(map_points(matrix, part.outline), (height, width))
    if part.role != "eye" and hair:
        mask = _ruffle(rng, mask, hair)
    top, left = (int(rng.integers(0, max(1, s - n))) for s, n in zip(skin.shape, (height, width), strict=False))
    colour = cv2.resize(skin[top : top + height, left : left + width], (width, height))
    bump = cv2.resize(relief[top : top + height, left : left + width], (width, height))
    tone = {"skin": 1.0, "far": 0.62, "trim": 0.7, "eye": 0.12}[part.role]
    belly = 1 + 0.2 * np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
    thick = max(2.0, 0.5 * min(width, height) * 0.9)
    pillow = _inflate(mask, thick) + (0.012 * scale * bump if part.role != "eye" else 0)
    image = np.dstack([colour * tone * belly * mask[..., None], mask]).astype(np.float32)
    return Sprite(image, (pillow * mask).astype(np.float32), matrix)


@dataclass(frozen=True)
class Puppet:
    """An actor with its painted parts and the order in which they are painted."""

    actor: Actor
    sprites: tuple[Sprite, ...]
    order: tuple[int, ...]
    gloss: float


def _make_puppet(
    rng: np.random.Generator, actor: Actor, family: str, palette: np.ndarray, *, period: float, height: int
) -> Puppet:
    scale = actor.size * height * 1.15
    tile = (int(1.1 * scale) + 8, int(1.3 * scale) + 8)
    relief = draw_pattern(rng, family, tile, scale * period)
    skin = paint(rng, relief, palette, skew=float(np.exp(rng.uniform(-0.6, 0.6))), relief=0.1, contrast=0.9)
    hair = float(rng.uniform(0.3, 0.8)) * height / 240 if family in ("fur", "spots", "stripes") else 0.15
    sprites = tuple(_make_sprite(rng, part, skin, relief, scale, hair) for part in actor.parts)
    order = tuple(int(i) for i in np.argsort([p.order for p in actor.parts], kind="stable"))
    return Puppet(actor, sprites, order, float(rng.choice([0.0, 0.1, 0.35])))


def _inverse(matrix: np.ndarray) -> np.ndarray:
    return cv2.invertAffineTransform(matrix)


def _window(corners: np.ndarray, shape: tuple[int, int]) -> tuple[slice, slice] | None:
    """Rows and columns of the picture that hold the points (N, 2), or None where they are all outside."""
    x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int) - 1, 0)
    x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int) + 2, shape[::-1])
    return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None


def _place(
    image: np.ndarray, matrix: np.ndarray, rows: slice, cols: slice, *, border: int = cv2.BORDER_CONSTANT
) -> np.ndarray:
    """Warp an image into a window of the picture."""
    matrix = matrix.copy()
    matrix[:, 2] -= (cols.start, rows.start)
    return cv2.warpAffine(image, matrix, (cols.stop - cols.start, rows.stop - rows.start), borderMode=border)


def draw_puppet(
    puppet: Puppet, scene: Scene, u: float, light: Light, shape: tuple[int, int]
) -> tuple[np.ndarray, tuple[slice, slice]] | None:
    """Draw a lit actor at time u: colour times coverage, and coverage, (h, w, 4) float32, and its window.

    Returns None if the actor is outside of the picture.
    """
    maps = [
        compose(matrix, _inverse(sprite.matrix))
        for matrix, sprite in zip(make_part_maps(scene, puppet.actor, u, height=shape[0]), puppet.sprites, strict=True)
    ]
    corners = []
    for matrix, sprite in zip(maps, puppet.sprites, strict=True):
        h, w = sprite.height.shape
        corners.append(map_points(matrix, np.array([[0, 0], [w, 0], [w, h], [0, h]], float)))
    window = _window(np.concatenate(corners), shape)
    if window is None:
        return None
    y, x = window[0].start, window[1].start
    canvas = np.zeros((window[0].stop - y, window[1].stop - x, 4), np.float32)
    relief = np.zeros(canvas.shape[:2], np.float32)
    for i in puppet.order:
        part_window = _window(corners[i], shape)
        if part_window is None:
            continue
        rows, cols = part_window
        scale = float(np.sqrt(abs(np.linalg.det(maps[i][:, :2]))))
        image = _place(puppet.sprites[i].image, maps[i], rows, cols)
        height = _place(puppet.sprites[i].height, maps[i], rows, cols) * scale
        spot = (slice(rows.start - y, rows.stop - y), slice(cols.start - x, cols.stop - x))
        canvas[spot] = canvas[spot] * (1 - image[..., 3:]) + image
        relief[spot] = relief[spot] * (1 - image[..., 3]) + height
    lit = shade(canvas[..., :3], cv2.GaussianBlur(relief, (0, 0), 1.2 * shape[0] / 240), light, gloss=puppet.gloss)
    canvas[..., :3] = lit
    return canvas, window


# ------------------------------------------------------------------ background


@dataclass(frozen=True)
class Layer:
    """A lit plane of the background or an occluder: colour times coverage, and coverage, (h, w, 4)."""

    image: np.ndarray
    parallax: float
    after: int = 0  # painted after this many actors


def _plane_map(scene: Scene, layer: Layer, u: float, height: int) -> np.ndarray:
    offset = np.array([[1 / height, 0, -scene.aspect / 2 - MARGIN], [0, 1 / height, -0.5 - MARGIN]])
    return compose(make_camera_map(scene, u, height=height, parallax=layer.parallax), offset)


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
        window = _window(outline + 0.0, plane.shape[:2])
        if window is None:
            continue
        texture = families[int(rng.integers(len(families)))]
        mask = _fill(outline - (window[1].start, window[0].start), (plane[window].shape[0], plane[window].shape[1]))
        mask = _ruffle(rng, mask, min(0.8, 0.03 * radius))
        top, left = (int(rng.integers(0, s - n + 1)) for s, n in zip(texture.shape, mask.shape, strict=False))
        colour = texture[top : top + mask.shape[0], left : left + mask.shape[1], :3]
        relief = _inflate(mask, radius * 0.8) + 2 * colour.mean(-1)
        lit = shade(colour * mask[..., None], relief.astype(np.float32), light)
        plane[window] = plane[window] * (1 - mask[..., None]) + np.dstack([lit, mask])


def _ridge(rng: np.random.Generator, shape: tuple[int, int], row: float, rough: float) -> np.ndarray:
    """Draw the coverage (h, w) of everything below an uneven skyline near `row`."""
    line = row + rough * draw_fractal_noise(rng, (8, shape[1]), 1.2)[0]
    return np.clip(np.arange(shape[0], dtype=np.float32)[:, None] - line + 0.5, 0, 1).astype(np.float32)


def _perspective(texture: np.ndarray, row: float) -> np.ndarray:
    """Squeeze a ground texture towards its horizon at `row`."""
    h, w = texture.shape[:2]
    y, x = np.mgrid[:h, :w].astype(np.float32)
    depth = np.clip((y - row + 0.08 * h) / (1.08 * h - row), 0.06, 1)
    source_x = (x - w / 2) / (0.35 + 0.65 * depth) + w / 2
    source_y = h * (1 - np.log(depth) / float(np.log(0.06)))
    maps = (source_x.astype(np.float32), source_y.astype(np.float32))
    return cv2.remap(texture, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _textures(rng: np.random.Generator, names: list[str], palette: np.ndarray, shape: tuple[int, int], height: int):
    """Paint planes (h, w, 3) of the background with the named patterns, at different scales."""
    for name in names:
        period = height * float(np.exp(rng.uniform(np.log(0.08), np.log(0.35))))
        yield paint(rng, draw_pattern(rng, name, shape, period), palette, skew=rng.uniform(0.75, 1.3), contrast=0.7)


def _patch(rng: np.random.Generator, plane: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """Lay each of the other textures over a share of a plane (h, w, 3), in a few large patches with soft edges."""
    for other in others:
        field = _smooth(rng, plane.shape[:2])
        cover = 1 / (1 + np.exp(-8 * (field - np.quantile(field, 1 - PATCHED_SHARE))))
        plane = plane + (other - plane) * cover[..., None].astype(np.float32)
    return plane


def _make_layers(
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
        far = cv2.GaussianBlur(far, (0, 0), float(rng.uniform(1.5, 3.5)) * height / 240)
        back = np.dstack([far * haze * flat, solid]).astype(np.float32)
        _clutter(rng, back, families, light, 8, (0.08 * height, 0.22 * height), (0.45 * row, row))
        layers.append(Layer(back, 0.45))
        mask = _ridge(rng, shape, row, 0.03 * height)
        front = np.dstack([_perspective(ground, row) * flat, solid]).astype(np.float32) * mask[..., None]
        _clutter(rng, front, families, light, 16, (0.03 * height, 0.1 * height), (row, shape[0]))
    else:
        front = np.dstack([shade(ground, 3 * ground.mean(-1), light), solid]).astype(np.float32)
        _clutter(rng, front, families, light, 24, (0.03 * height, 0.11 * height), (0, shape[0]))
    front = cv2.GaussianBlur(front, (0, 0), float(rng.uniform(2.6, 4.2)) * height / 240)  # out of focus
    layers.append(Layer(front, 1.0))
    for occluder in scene.occluders:
        outline = (occluder.outline + np.array([scene.aspect / 2 + MARGIN, 0.5 + MARGIN])) * height
        mask = _ruffle(rng, _fill(outline, shape), 1.0 * height / 240)
        texture = families[int(rng.integers(len(families)))] * mask[..., None]
        lit = shade(texture, _inflate(mask, 0.12 * height) + 3 * texture.mean(-1), light)
        layers.append(Layer(np.dstack([lit, mask]).astype(np.float32), 1.1, occluder.after))
    return layers


# ------------------------------------------------------------------ the whole picture


@dataclass(frozen=True)
class Figure:
    """A lit actor (h, w, 4) in its window, the gain (H, W, 3) of its shadow, and the map of its body to pixels."""

    image: np.ndarray
    window: tuple[slice, slice]
    shadow: np.ndarray
    root: np.ndarray


@dataclass(frozen=True)
class Posed:
    """The actors at time u, id -> figure, and the gain (H, W, 3) of the sunlight."""

    u: float
    figures: dict[int, Figure]
    sunlight: np.ndarray


class Stage:
    """A scene with all surfaces painted; `expose(pose(u), u)` paints the instant u."""

    def __init__(self, seed: int | Sequence[int], *, height: int) -> None:
        rng = np.random.default_rng(seed)
        self.shape = (height, 2 * round(height * ASPECT / 2))
        self.scene = plan_scene(rng, aspect=self.shape[1] / height)
        self.light = _draw_light(rng)
        names = [str(n) for n in rng.permutation(SKINS)][: len(self.scene.actors)]
        palette = ((PALETTES[int(rng.integers(len(PALETTES)))] / 255) ** GAMMA).astype(np.float32)
        periods = rng.permutation(np.geomspace(0.06, 0.25, len(names)))  # of the patterns, in body lengths
        self.puppets = [
            _make_puppet(rng, actor, name, palette, period=period, height=height)
            for actor, name, period in zip(self.scene.actors, names, periods, strict=True)
        ]
        rest = [str(n) for n in rng.permutation(GROUNDS) if n not in names]
        names = (["clouds", *rest, "cracks"])[:4]
        self.layers = _make_layers(rng, self.scene, names, palette, self.light(0.5), height)
        tile = tuple(int(s * 1.9) for s in self.shape)
        self.clouds = np.exp(0.32 * np.clip(draw_fractal_noise(rng, tile, 1.5), -2, 2)).astype(np.float32)
        self.drift = rng.normal(0, 0.1, 2)
        self.haze = float(rng.uniform(0.0, 0.03))

    @staticmethod
    def _paint_over(canvas: np.ndarray, shares: np.ndarray | None, image: np.ndarray, window, owner: int) -> None:
        """Paint an image onto the canvas (h, w, 3); update `shares`, the visible share of each object (K + 1, h, w)."""
        cover = image[..., 3]
        keep = cv2.merge([1 - cover] * 3)  # OpenCV: broadcasting over a last axis of 3 is several times slower
        canvas[window] = cv2.add(cv2.multiply(canvas[window], keep), cv2.cvtColor(image, cv2.COLOR_RGBA2RGB))
        if shares is not None:
            shares[(slice(None), *window)] *= 1 - cover
            shares[(owner, *window)] += cover

    def _shadow(self, cover: np.ndarray, window: tuple[slice, slice], light: Light) -> np.ndarray:
        """Draw the soft shadow of an actor, on the side away from the sun, as a gain (H, W, 3) of the light."""
        reach = 0.07 * self.shape[0]
        dx, dy = -light.direction[0] * reach, abs(light.direction[1]) * reach
        rows, cols = window
        shift = np.array([[0.5, 0, (cols.start + dx) / 2], [0, 0.5, (rows.start + dy) / 2]])
        dark = cv2.warpAffine(cover, shift, (self.shape[1] // 2, self.shape[0] // 2))
        width = 2 * round(reach / 8) + 1
        dark = cv2.blur(cv2.blur(dark, (width, width)), (width, width))
        return cv2.merge([1 - 0.5 * cv2.resize(dark, self.shape[::-1])] * 3)

    def pose(self, u: float, *, hidden: Sequence[int] = ()) -> Posed:
        """Light and pose every actor as at time u, except those with ids in `hidden`, and compute the sunlight."""
        light = self.light(u)
        figures = {}
        for k, puppet in enumerate(self.puppets, start=1):
            if k not in hidden and (drawn := draw_puppet(puppet, self.scene, u, light, self.shape)):
                image, window = drawn
                root = make_root_map(self.scene, puppet.actor, u, height=self.shape[0])
                figures[k] = Figure(image, window, self._shadow(image[..., 3], window, light), root)
        return Posed(u, figures, cv2.merge([self._sunlight(u)] * 3))

    def _move(self, figure: Figure, actor: Actor, u: float) -> tuple[np.ndarray, tuple[slice, slice]] | None:
        """Move a figure to where the body of its actor is at time u; return image and window, or None if outside."""
        rows, cols = figure.window
        moved = compose(make_root_map(self.scene, actor, u, height=self.shape[0]), _inverse(figure.root))
        moved = compose(moved, np.array([[1.0, 0, cols.start], [0, 1.0, rows.start]]))
        h, w = figure.image.shape[:2]
        window = _window(map_points(moved, np.array([[0, 0], [w, 0], [w, h], [0, h]], float)), self.shape)
        if window is None:
            return None
        return _place(figure.image, moved, *window, border=cv2.BORDER_REPLICATE), window

    def expose(self, posed: Posed, u: float) -> tuple[np.ndarray, np.ndarray | None]:
        """Paint one instant: linear colours (h, w, 3) float32 and, if u is the time of the pose, labels (h, w) uint8.

        At other times than that of the pose, camera and bodies have moved, but limbs and light are those of the pose.
        """
        height, width = self.shape
        middle = u == posed.u
        canvas = np.zeros((*self.shape, 3), np.float32)
        shares = np.zeros((len(self.puppets) + 1, *self.shape), np.float32) if middle else None
        whole = (slice(0, height), slice(0, width))
        for k in range(len(self.puppets) + 1):
            if figure := posed.figures.get(k):
                canvas *= figure.shadow
                actor = self.puppets[k - 1].actor
                found = (figure.image, figure.window) if middle else self._move(figure, actor, u)
                if found:
                    self._paint_over(canvas, shares, *found, k)
            for layer in (n for n in self.layers if n.after == k):
                matrix = _plane_map(self.scene, layer, u, height)
                self._paint_over(canvas, shares, _place(layer.image, matrix, *whole), whole, 0)
        return canvas, shares.argmax(0).astype(np.uint8) if middle else None

    def _sunlight(self, u: float) -> np.ndarray:
        """Draw the shadows of clouds and leaves that drift over the scene, as a gain (h, w)."""
        height, width = self.shape
        matrix = make_camera_map(self.scene, u, height=height)
        matrix = compose(matrix, np.array([[1 / height, 0, -0.95 * width / height], [0, 1 / height, -0.95]]))
        matrix[:, 2] += self.drift * height * u
        return cv2.warpAffine(self.clouds, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)


def _balance(rng: np.random.Generator, num_frames: int) -> np.ndarray:
    """Draw gains (num_frames, 3) of an exposure and a white balance that drift over the video."""
    u = np.linspace(0, 1, num_frames)[:, None]
    beats, shifts = rng.uniform(0.5, 1.2, (2, 3)), rng.uniform(0, 2 * np.pi, (2, 3))
    beats[0], shifts[0] = beats[0, 0], shifts[0, 0]  # exposure moves all channels alike
    exposure, tint = np.sin(2 * np.pi * beats[:, None] * u + shifts[:, None])
    return np.exp(0.4 * exposure + 0.2 * tint)


def _develop(rng: np.random.Generator, light: np.ndarray, *, noise: float, haze: float) -> np.ndarray:
    """Convert linear light (h, w, 3) to sRGB uint8, with vignette, haze, soft highlights and sensor noise."""
    height, width = light.shape[:2]
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    light = light * (1 - 0.13 * (x * x + y * y)).astype(np.float32)[..., None] + haze
    light = 1.3 * (light * np.sqrt(light + 0.02) * 1.6) / (1 + 0.9 * light)
    image = cv2.pow(np.clip(light, 0, 1).astype(np.float32), 1 / GAMMA)
    grain = rng.standard_normal(light.shape, dtype=np.float32)
    return np.clip(255 * image + noise * cv2.GaussianBlur(grain, (0, 0), 0.6) + 0.5, 0, 255).astype(np.uint8)


def render_sequence(
    seed: int | Sequence[int], *, height: int = 240, num_frames: int = 32, hidden: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Render a video; the result depends on the arguments only.

    Args:
        height: rows of a frame; a frame has 16/9 as many columns, rounded to an even number.
        hidden: ids of objects to leave out, while everything else stays the same; for tests.

    Returns:
        Frames (T, H, W, 3) uint8 RGB, and labels (T, H, W) uint8: 0 for background, k for the pixels of object k that
        are visible at the middle of the exposure.
    """
    stage = Stage(seed, height=height)
    sensor = np.random.default_rng([*np.atleast_1d(seed), 1])
    noise = float(sensor.uniform(1.0, 4.0))
    balance = _balance(sensor, num_frames)
    step = 1 / max(num_frames - 1, 1)
    frames = np.empty((num_frames, *stage.shape, 3), np.uint8)
    labels = np.empty((num_frames, *stage.shape), np.uint8)
    middle = SUBSAMPLES // 2
    for t in range(num_frames):
        posed = stage.pose(t * step, hidden=hidden)
        light = np.zeros((*stage.shape, 3), np.float32)
        for i in range(SUBSAMPLES):
            u = (t + (i - middle) * SHUTTER / SUBSAMPLES) * step
            image, seen = stage.expose(posed, u)
            light += image / SUBSAMPLES
            if seen is not None:
                labels[t] = seen
        light *= posed.sunlight
        light *= balance[t].astype(np.float32)
        frames[t] = _develop(sensor, light, noise=noise, haze=stage.haze)
    return frames, labels
