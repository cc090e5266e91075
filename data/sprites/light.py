"""Light the surfaces of Sprites: a sun that moves, a sky, and reliefs for them to shade."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from data.sprites.exact import blur, cos, sin, snap


@dataclass(frozen=True)
class Light:
    """Light at one moment: direction towards the sun (x, y, z towards the viewer), colours of sun and sky."""

    direction: np.ndarray
    sun: np.ndarray
    sky: np.ndarray


def draw_light(rng: np.random.Generator) -> Callable[[float], Light]:
    """Draw a light u -> Light that slowly turns and changes in strength and warmth."""
    turn, swing = rng.uniform(-2.6, -0.5), rng.uniform(-0.5, 0.5)
    warm, beat, shift = rng.uniform(-0.12, 0.16), rng.uniform(0.4, 1.3), rng.uniform(0, 6)
    strength, flicker = rng.uniform(0.85, 1.25), rng.uniform(0.03, 0.16)

    def light(u: float) -> Light:
        angle = turn + swing * (u - 0.5)
        direction = np.array([cos(angle), sin(angle), 0.75])
        power = strength * (1 + flicker * sin(2 * np.pi * beat * u + shift))
        sun = power * np.array([1 + warm, 1.0, 1 - warm])
        x, y, z = direction
        return Light(direction / np.sqrt(x * x + y * y + z * z), sun, 0.34 * np.array([1 - warm, 1.0, 1 + warm]))

    return light


def shade(albedo: np.ndarray, height: np.ndarray, light: Light, *, gloss: float = 0.0) -> np.ndarray:
    """Light a relief by a wrapped diffuse sun and by the sky, with a highlight and a rim.

    `albedo` (h, w, 3), already multiplied by its coverage, and `height` (h, w), in pixels, are float32.
    """
    height = snap(height)  # so that the sums of Sobel are exact
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
        cube = np.maximum(0, facing) * facing * facing
        lit += (gloss * np.square(np.square(np.square(cube))))[..., None] * albedo.max(-1, keepdims=True)
    return lit


def inflate(mask: np.ndarray, ceiling: float) -> np.ndarray:
    """Raise a pillow on a mask: height (h, w) float32, in pixels, with the profile of a circle of radius `ceiling`."""
    depth = np.minimum(ndimage.distance_transform_edt(mask > 0.5) / ceiling, 1)
    return blur(ceiling * np.sqrt(depth * (2 - depth)), max(0.8, 0.08 * ceiling))
