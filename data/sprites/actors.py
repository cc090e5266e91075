"""Paint the jointed actors of Sprites, part by part, and draw them lit in their pose."""

import math
from dataclasses import dataclass

import numpy as np

from data.sprites.exact import blur, compose, exp, invert, map_points, resize, snap, warp
from data.sprites.light import Light, inflate, shade
from data.sprites.scene import Actor, Part, Scene, make_part_maps
from data.sprites.shapes import fill_polygon, find_window, ruffle_edge
from data.sprites.textures import draw_pattern, paint

BORDER = 2  # transparent pixels around a sprite, for interpolation


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


def _make_sprite(
    rng: np.random.Generator, part: Part, skin: np.ndarray, relief: np.ndarray, scale: float, hair: float
) -> Sprite:
    """Paint one part at `scale` pixels per body unit with a piece of the actor's skin (h, w, 3)."""
    low, high = part.outline.min(0), part.outline.max(0)
    pad = BORDER + 2 * hair
    width, height = (int(n) for n in np.ceil((high - low) * scale + 2 * pad))
    matrix = np.array([[scale, 0, pad - low[0] * scale], [0, scale, pad - low[1] * scale]])
    mask = fill_polygon(map_points(matrix, part.outline), (height, width))
    if part.role != "eye" and hair:
        mask = ruffle_edge(rng, mask, hair)
    top, left = (int(rng.integers(0, max(1, s - n))) for s, n in zip(skin.shape, (height, width), strict=False))
    colour, bump = (resize(snap(n[top : top + height, left : left + width]), (height, width)) for n in (skin, relief))
    tone = {"skin": 1.0, "far": 0.62, "trim": 0.7, "eye": 0.12}[part.role]
    belly = 1 + 0.2 * np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
    thick = max(2.0, 0.5 * min(width, height) * 0.9)
    pillow = inflate(mask, thick) + (0.012 * scale * bump if part.role != "eye" else 0)
    image = np.dstack([colour * tone * belly * mask[..., None], mask])
    return Sprite(snap(image), snap(pillow * mask), matrix)


@dataclass(frozen=True)
class Puppet:
    """An actor with its painted parts and the order in which they are painted."""

    actor: Actor
    sprites: tuple[Sprite, ...]
    order: tuple[int, ...]
    gloss: float


def make_puppet(
    rng: np.random.Generator, actor: Actor, family: str, palette: np.ndarray, *, period: float, height: int
) -> Puppet:
    scale = actor.size * height * 1.15
    tile = (int(1.1 * scale) + 8, int(1.3 * scale) + 8)
    relief = draw_pattern(rng, family, tile, scale * period)
    skin = paint(rng, relief, palette, skew=float(exp(rng.uniform(-0.6, 0.6))), relief=0.1, contrast=0.9)
    hair = float(rng.uniform(0.3, 0.8)) * height / 240 if family in ("fur", "spots", "stripes") else 0.15
    sprites = tuple(_make_sprite(rng, part, skin, relief, scale, hair) for part in actor.parts)
    order = tuple(int(i) for i in np.argsort([p.order for p in actor.parts], kind="stable"))
    return Puppet(actor, sprites, order, float(rng.choice([0.0, 0.1, 0.35])))


def draw_puppet(
    puppet: Puppet, scene: Scene, u: float, light: Light, shape: tuple[int, int]
) -> tuple[np.ndarray, tuple[slice, slice]] | None:
    """Draw a lit actor at time u: colour times coverage, and coverage, (h, w, 4) float32, and its window.

    Returns None if the actor is outside of the picture.
    """
    maps = [
        compose(matrix, invert(sprite.matrix))
        for matrix, sprite in zip(make_part_maps(scene, puppet.actor, u, height=shape[0]), puppet.sprites, strict=True)
    ]
    corners = []
    for matrix, sprite in zip(maps, puppet.sprites, strict=True):
        h, w = sprite.height.shape
        corners.append(map_points(matrix, np.array([[0, 0], [w, 0], [w, h], [0, h]], float)))
    window = find_window(np.concatenate(corners), shape)
    if window is None:
        return None
    y, x = window[0].start, window[1].start
    canvas = np.zeros((window[0].stop - y, window[1].stop - x, 4), np.float32)
    relief = np.zeros(canvas.shape[:2], np.float32)
    for i in puppet.order:
        part_window = find_window(corners[i], shape)
        if part_window is None:
            continue
        rows, cols = part_window
        (a, b, _), (c, d, _) = maps[i].tolist()
        image = warp(puppet.sprites[i].image, maps[i], rows, cols)
        height = warp(puppet.sprites[i].height, maps[i], rows, cols) * math.sqrt(abs(a * d - b * c))
        spot = (slice(rows.start - y, rows.stop - y), slice(cols.start - x, cols.stop - x))
        canvas[spot] = canvas[spot] * (1 - image[..., 3:]) + image
        relief[spot] = relief[spot] * (1 - image[..., 3]) + height
    lit = shade(canvas[..., :3], blur(relief, 1.2 * shape[0] / 240), light, gloss=puppet.gloss)
    canvas[..., :3] = lit
    return canvas, window
