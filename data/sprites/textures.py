"""Draw the patterns of Sprites and colour them: scalar fields with uniform values, painted by a palette."""

import cv2
import numpy as np

from data.sprites.exact import LN2, cos, exp, power, resize, sample, sin, snap, standardise

SKINS = ("fur", "stripes", "spots", "maze", "cells", "scales")
GROUNDS = ("clouds", "cracks", "cells", "fur", "spots", "maze")

WAVES = 64  # plane waves that make noise of one scale
WAVE_STEPS = 2**12  # of the amplitude of a wave
SMOOTH_OCTAVES = 2  # that smooth noise lacks
FUR_STRETCH = 6  # length of a hair by its width
LEVELS = 2**12  # of a colour ramp, and of a pattern by its standard deviation
GAIN_STEPS, GAIN_LIMIT = 2**10, 4  # of the logarithm of a gain
GAINS = exp(np.arange(-GAIN_LIMIT * GAIN_STEPS, GAIN_LIMIT * GAIN_STEPS + 1) / GAIN_STEPS).astype(np.float32)


def exponentiate(gain: np.ndarray) -> np.ndarray:
    """Compute the exponentials of logarithms of gains from a table: float32."""
    steps = np.rint(np.clip(gain, -GAIN_LIMIT, GAIN_LIMIT) * GAIN_STEPS).astype(np.int32)
    return GAINS[steps + GAIN_LIMIT * GAIN_STEPS]


def draw_fractal_noise(
    rng: np.random.Generator, shape: tuple[int, int], slope: float = 1.0, *, finest: int = 0, coarsest: int = 16
) -> np.ndarray:
    """Draw noise whose amplitude falls as 1/f**slope, its power as 1/f**(2·slope): float32, mean 0, deviation 1.

    It is a sum of octaves, `finest` to `coarsest`: white noise on a grid of 2**octave pixels, made smooth.
    """
    coarsest = max(finest, min(coarsest, max(shape).bit_length() - 2))
    noise = None
    for octave in range(coarsest, -1, -1):
        rows, cols = ((n >> octave) + 2 for n in shape)
        if noise is not None:
            noise = cv2.pyrUp(noise)[:rows, :cols]  # exact: multiples of 1/64, and the noise is snapped
        if octave >= finest:
            white = rng.integers(-128, 128, (rows, cols), np.int8) * float(exp((slope - 1) * LN2 * octave))
            noise = white if noise is None else noise + white
        noise = snap(noise)
    return standardise(noise[: shape[0], : shape[1]])


def draw_smooth_noise(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw fractal noise without its finest octaves, for drifts and warps."""
    return draw_fractal_noise(rng, shape, 1.6, finest=SMOOTH_OCTAVES)


def _band(rng: np.random.Generator, shape: tuple[int, int], period: float, stretch: float = 1.0) -> np.ndarray:
    """Draw noise of one scale, as a reaction-diffusion process produces; `stretch` lengthens it along x.

    It is a sum of plane waves of random direction and about the same length. With cos(a + b) = cos a cos b - sin a
    sin b it is a product of matrices, which is exact because the cosines are rounded to multiples of 1 / WAVE_STEPS.
    """
    turn, shift = 2 * np.pi * rng.random((2, WAVES))
    pace = 2 * np.pi * (1 + 0.16 * rng.normal(size=WAVES)) / period
    down = (pace * sin(turn))[:, None] * np.arange(shape[0])
    across = (pace * cos(turn) / stretch)[:, None] * np.arange(shape[1]) + shift[:, None]
    rows, cols = (
        np.rint(WAVE_STEPS * np.concatenate([cos(angle), sign * sin(angle)]))
        for angle, sign in ((down, 1), (across, -1))
    )
    return standardise(rows.T @ cols)


def _fur(rng: np.random.Generator, shape: tuple[int, int], period: float) -> np.ndarray:
    hair = draw_fractal_noise(rng, (shape[0], shape[1] // FUR_STRETCH + 1), 1.2, coarsest=int(period).bit_length())
    return resize(snap(hair), shape) + 0.5 * draw_fractal_noise(rng, shape, 1.4)


def _stripes(rng: np.random.Generator, shape: tuple[int, int], period: float) -> np.ndarray:
    y, x = np.arange(shape[0])[:, None], np.arange(shape[1])
    turn = rng.normal(0, 0.35)
    return sin(2 * np.pi * (x * cos(turn) + y * sin(turn)) / period + 1.3 * draw_smooth_noise(rng, shape))


def _cells(rng: np.random.Generator, shape: tuple[int, int], period: float, *, edges: bool) -> np.ndarray:
    """Draw Voronoi cells of about `period` pixels: the distance to the border, or one value for each cell."""
    from scipy.spatial import cKDTree  # slow to import, and most runs paint nothing

    small = (max(8, shape[0] // 2), max(8, shape[1] // 2))
    count = max(6, int(shape[0] * shape[1] / period**2))
    seeds = np.floor(rng.random((count, 2)) * small * 64) / 64  # so that squared distances are exact
    grid = np.stack(np.mgrid[: small[0], : small[1]], -1).reshape(-1, 2) + 0.0
    distance, index = cKDTree(seeds).query(grid, k=2)
    value = (distance[:, 1] - distance[:, 0]) * 2 / period if edges else rng.random(count)[index[:, 0]] * 2
    return resize(snap(value.reshape(small)), shape)


def _scales(shape: tuple[int, int], period: float) -> np.ndarray:
    y, x = (np.mgrid[: shape[0], : shape[1]] / (0.7 * period)).astype(np.float32)
    row = np.floor(y)
    x = x + 0.5 * (row - 2 * np.floor(row / 2))
    return np.square(np.abs(x - np.floor(x) - 0.5)) * 3 + (y - row)


def draw_pattern(rng: np.random.Generator, name: str, shape: tuple[int, int], period: float) -> np.ndarray:
    """Draw a warped pattern of the family `name` (of SKINS or GROUNDS): float32 (h, w), values uniform on [0, 1]."""
    draw = {
        "fur": lambda: _fur(rng, shape, period),
        "stripes": lambda: _stripes(rng, shape, period),
        "spots": lambda: np.maximum(_band(rng, shape, period), -0.2),
        "maze": lambda: _saturate(2.5 * _band(rng, shape, period, rng.uniform(0.6, 1.7))),
        "cells": lambda: _cells(rng, shape, period, edges=False),
        "scales": lambda: _scales(shape, period * 0.6),
        "cracks": lambda: np.minimum(_cells(rng, shape, period, edges=True), 0.35) * 3,
        "clouds": lambda: draw_fractal_noise(rng, shape, 1.2),
    }
    value = standardise(_warp(rng, draw[name](), 0.25 * period)) + 0.35 * draw_fractal_noise(rng, shape, 1.0)
    return _equalise(value)


def _saturate(value: np.ndarray) -> np.ndarray:
    return value / np.sqrt(1 + value * value)


def _equalise(value: np.ndarray) -> np.ndarray:
    """Replace each value of an image by the share of smaller ones: float32, uniform on [0, 1]."""
    level = np.rint(value * LEVELS).astype(np.int32)
    level -= level.min()
    counts = np.bincount(level.ravel())
    return ((np.cumsum(counts) - counts / 2) / value.size).astype(np.float32)[level]


def _warp(rng: np.random.Generator, image: np.ndarray, reach: float) -> np.ndarray:
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    dx, dy = (float(reach) * draw_smooth_noise(rng, image.shape[:2]) for _ in range(2))
    return sample(snap(image), x + dx, y + dy, border=cv2.BORDER_REFLECT)


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
    level = (0.5 + contrast * (power(np.arange(LEVELS + 1) / LEVELS, skew) - 0.5)) * (len(palette) - 1)
    low = np.minimum(level.astype(np.int32), len(palette) - 2)
    mix = level - low
    mix = (mix * mix * (3 - 2 * mix))[:, None]
    ramp = (palette[low] * (1 - mix) + palette[low + 1] * mix).astype(np.float32)
    grain = relief * draw_fractal_noise(rng, values.shape, 0.8) + 0.2 * draw_smooth_noise(rng, values.shape)
    tint = [grain + 0.06 * draw_smooth_noise(rng, values.shape) for _ in range(3)]
    return ramp[np.rint(values * LEVELS).astype(np.int32)] * exponentiate(np.stack(tint, -1))
