"""Draw the patterns of Sprites and colour them: scalar fields with uniform values, painted by a palette."""

import cv2
import numpy as np
from scipy import fft
from scipy.spatial import cKDTree

SKINS = ("fur", "stripes", "spots", "maze", "cells", "scales")
GROUNDS = ("clouds", "cracks", "cells", "fur", "spots", "maze")


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


def draw_smooth_noise(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
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
    return np.sin(2 * np.pi * (x * np.cos(turn) + y * np.sin(turn)) / period + 1.3 * draw_smooth_noise(rng, shape))


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
    dx, dy = (float(reach) * draw_smooth_noise(rng, image.shape[:2]) for _ in range(2))
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
    grain = relief * draw_fractal_noise(rng, values.shape, 0.8) + 0.2 * draw_smooth_noise(rng, values.shape)
    tint = [0.06 * draw_smooth_noise(rng, values.shape) for _ in range(3)]
    return (colour * np.exp(grain[..., None] + np.stack(tint, -1))).astype(np.float32)
