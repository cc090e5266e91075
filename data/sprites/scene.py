"""Describe a Sprites video as a scene: jointed actors, their paths, occluders and the motion of the camera.

A scene is geometry without pixels; `data/sprites/render.py` paints it. There are two coordinate systems: that of an
actor (its body is about one unit long, x forward, y down) and that of the world (one unit is the height of the image,
the origin is the centre of the picture when the camera is at rest). Time u runs from 0 (first frame) to 1 (last frame).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data.sprites.exact import compose, cos, exp, sin


@dataclass(frozen=True)
class Part:
    """A rigid piece of an actor, hinged at its own origin to a point of its parent."""

    outline: np.ndarray  # (N, 2) float, own coordinates
    parent: int = -1
    joint: tuple[float, float] = (0.0, 0.0)  # in the parent's coordinates
    angle: float = 0.0  # at rest, radians, clockwise on the screen
    swing: float = 0.0  # amplitude, radians
    phase: float = 0.0
    spin: float = 0.0  # turns per gait cycle (wheels)
    order: float = 0.0  # painted from low to high
    role: str = "skin"  # skin, far (a skin in half shade), trim or eye


@dataclass(frozen=True)
class Actor:
    """An object of the video: its parts, and its pose as functions of u."""

    parts: tuple[Part, ...]
    path: Callable[[float], np.ndarray]  # u -> (x, y, log scale, angle), relative to the camera
    size: float  # world units of one body unit
    facing: int  # 1: to the right, -1: to the left
    gait: float  # cycles per video
    gait_phase: float


@dataclass(frozen=True)
class Occluder:
    """An unlabelled thing in front of the actors painted before it."""

    outline: np.ndarray  # (N, 2) float, world
    after: int  # painted after this many actors


@dataclass(frozen=True)
class Scene:
    """Everything that has a place or a motion. `actors` are in painting order, far to near; actor k has id k + 1."""

    actors: tuple[Actor, ...]
    occluders: tuple[Occluder, ...]
    camera: Callable[[float], np.ndarray]  # u -> (x, y, log zoom, roll)
    aspect: float
    horizon: float | None = None  # world y of the ground's far edge; None: seen from above
    alike: bool = False  # all actors have skins of one pattern


# ------------------------------------------------------------------ affine maps, (2, 3) float64


def make_similarity(angle: float, scale: float = 1.0, offset: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Make a map that rotates by `angle` (clockwise on the screen), scales, then shifts."""
    c, s = scale * cos(angle), scale * sin(angle)
    return np.array([[c, -s, offset[0]], [s, c, offset[1]]])


def make_camera_map(scene: Scene, u: float, *, height: int, parallax: float = 1.0) -> np.ndarray:
    """Make the map from the world to the pixels of an image of `height` rows; far things have a `parallax` below 1."""
    x, y, log_zoom, roll = scene.camera(u)
    view = make_similarity(roll * parallax, height * exp(log_zoom * parallax))
    shift = np.array([[1.0, 0.0, -x * parallax], [0.0, 1.0, -y * parallax]])
    view = compose(view, shift)
    view[:, 2] += (height * scene.aspect / 2, height / 2)
    return view


def make_root_map(scene: Scene, actor: Actor, u: float, *, height: int) -> np.ndarray:
    """Make the map from the coordinates of an actor to pixels."""
    x, y, log_scale, angle = actor.path(u)
    cam_x, cam_y = scene.camera(u)[:2]
    bob = 0.008 * sin(2 * _compute_beat(actor, u))
    root = make_similarity(angle, actor.size * exp(log_scale), (x + cam_x, y + cam_y + bob))
    flip = np.array([[float(actor.facing), 0.0, 0.0], [0.0, 1.0, 0.0]])
    return compose(make_camera_map(scene, u, height=height), compose(root, flip))


def make_part_maps(scene: Scene, actor: Actor, u: float, *, height: int) -> list[np.ndarray]:
    """Make the maps from the coordinates of each part of an actor to pixels."""
    beat, root = _compute_beat(actor, u), make_root_map(scene, actor, u, height=height)
    maps: list[np.ndarray] = []
    for part in actor.parts:
        turn = part.angle + part.swing * sin(beat + part.phase) + part.spin * beat
        parent = root if part.parent < 0 else maps[part.parent]
        maps.append(compose(parent, make_similarity(turn, 1.0, part.joint)))
    return maps


def _compute_beat(actor: Actor, u: float) -> float:
    """Compute the phase of an actor's gait in radians."""
    return 2 * np.pi * actor.gait * u + actor.gait_phase
