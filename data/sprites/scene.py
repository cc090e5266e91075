"""Plan a Sprites video: jointed actors, their paths, occluders and the motion of the camera.

A plan is geometry without pixels; `data/sprites/render.py` paints it. There are two coordinate systems: that of an
actor (its body is about one unit long, x forward, y down) and that of the world (one unit is the height of the image,
the origin is the centre of the picture when the camera is at rest). Time u runs from 0 (first frame) to 1 (last frame).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from scipy.interpolate import PchipInterpolator

COARSE_HEIGHT = 48  # rows of the label maps on which a plan is rated before it is painted
MAX_PLANS = 40  # drawn for one video; the best is taken if none keeps all promises
MIN_VISIBLE_SHARE = 0.68  # of the coarse frames in which an actor is visible; 60 % of all frames are promised
AREA_RANGE = (0.04, 0.3)  # share of the image that an actor covers, as the median over its visible frames


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


# ------------------------------------------------------------------ affine maps, (2, 3) float


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Compose two maps: apply `inner`, then `outer`."""
    matrix = outer[:, :2] @ inner
    matrix[:, 2] += outer[:, 2]
    return matrix


def make_similarity(angle: float, scale: float = 1.0, offset: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Make a map that rotates by `angle` (clockwise on the screen), scales, then shifts."""
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, offset[0]], [s, c, offset[1]]])


def map_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a map to points (N, 2)."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def make_camera_map(scene: Scene, u: float, *, height: int, parallax: float = 1.0) -> np.ndarray:
    """Make the map from the world to the pixels of an image of `height` rows; far things have a `parallax` below 1."""
    x, y, log_zoom, roll = scene.camera(u)
    view = make_similarity(roll * parallax, height * np.exp(log_zoom * parallax))
    shift = np.array([[1.0, 0.0, -x * parallax], [0.0, 1.0, -y * parallax]])
    view = compose(view, shift)
    view[:, 2] += (height * scene.aspect / 2, height / 2)
    return view


def make_root_map(scene: Scene, actor: Actor, u: float, *, height: int) -> np.ndarray:
    """Make the map from the coordinates of an actor to pixels."""
    x, y, log_scale, angle = actor.path(u)
    cam_x, cam_y = scene.camera(u)[:2]
    bob = 0.008 * np.sin(2 * _compute_beat(actor, u))
    root = make_similarity(angle, actor.size * np.exp(log_scale), (x + cam_x, y + cam_y + bob))
    flip = np.array([[float(actor.facing), 0.0, 0.0], [0.0, 1.0, 0.0]])
    return compose(make_camera_map(scene, u, height=height), compose(root, flip))


def make_part_maps(scene: Scene, actor: Actor, u: float, *, height: int) -> list[np.ndarray]:
    """Make the maps from the coordinates of each part of an actor to pixels."""
    beat, root = _compute_beat(actor, u), make_root_map(scene, actor, u, height=height)
    maps: list[np.ndarray] = []
    for part in actor.parts:
        turn = part.angle + part.swing * np.sin(beat + part.phase) + part.spin * beat
        parent = root if part.parent < 0 else maps[part.parent]
        maps.append(compose(parent, make_similarity(turn, 1.0, part.joint)))
    return maps


def _compute_beat(actor: Actor, u: float) -> float:
    """Compute the phase of an actor's gait in radians."""
    return 2 * np.pi * actor.gait * u + actor.gait_phase


# ------------------------------------------------------------------ outlines


def _draw_capsule(length: float, start: float, end: float) -> np.ndarray:
    """Draw a limb along +x from the origin, with round ends of radius `start` and `end`."""
    arc = np.linspace(np.pi / 2, 3 * np.pi / 2, 12)
    back = start * np.c_[np.cos(arc), np.sin(arc)]
    front = end * np.c_[-np.cos(arc), -np.sin(arc)] + (length, 0)
    return np.r_[back, front]


def draw_blob(
    rng: np.random.Generator, rx: float, ry: float, *, rough: float = 0.06, power: float = 1.0, corners: int = 72
) -> np.ndarray:
    """Draw an uneven ellipse around the origin; `power` below 1 makes it boxy, `rough` dents it with 1/f harmonics."""
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    harmonics = np.arange(2, 9)
    gain, shift = rng.normal(size=7) / harmonics, rng.uniform(0, 2 * np.pi, 7)
    radius = 1 + rough * (gain[:, None] * np.sin(harmonics[:, None] * turn + shift[:, None])).sum(0) * 2
    cos, sin = np.cos(turn), np.sin(turn)
    x, y = np.sign(cos) * np.abs(cos) ** power, np.sign(sin) * np.abs(sin) ** power
    return np.c_[rx * radius * x, ry * radius * y]


def _draw_fan(length: float, width: float, lobes: int) -> np.ndarray:
    """Draw a tail fin or spread feathers along +x, with a scalloped far edge."""
    across = np.linspace(-1, 1, 8 * lobes + 1)
    edge = length * (1 - 0.18 * np.abs(across) + 0.09 * np.abs(np.sin(np.pi * lobes * (across + 1) / 2)))
    return np.r_[[[-0.03, -0.04]], np.c_[edge, width * across], [[-0.03, 0.04]]]


def _add_limb(
    parts: list[Part], parent: int, joint: tuple[float, float], angle: float, lengths: list[float],
    radii: list[float], *, swing: float, lag: float, phase: float = 0.0, bend: float = 0.0, **look: object,
) -> int:  # fmt: skip
    """Append capsules hinged end to end (a leg, a tail, a tentacle); return the index of the last."""
    for i, length in enumerate(lengths):
        part = Part(_draw_capsule(length, radii[i], radii[i + 1]), parent, joint, angle if i == 0 else bend)
        parts.append(replace(part, swing=swing, phase=phase - lag * i, **look))
        parent, joint = len(parts) - 1, (length * 0.95, 0.0)
    return parent


# ------------------------------------------------------------------ bodies


def _quadruped(rng: np.random.Generator) -> list[Part]:
    tall, stout = rng.uniform(0.2, 0.38), rng.uniform(0.19, 0.27)
    parts = [Part(draw_blob(rng, 0.52, stout, power=0.85), swing=0.03)]
    for far, role in ((True, "far"), (False, "skin")):
        for i, x in enumerate((-0.34, 0.34)):
            phase = np.pi * (i + far) + (0.5 if far else 0.0)
            place = (x + 0.05 * far, stout * 0.35)
            _add_limb(parts, 0, place, np.pi / 2, [tall, tall * 0.95], [0.13, 0.085, 0.06], swing=0.4, lag=0.9,
                   phase=phase, bend=0.15 if i else -0.1, order=-2 if far else 1, role=role)  # fmt: skip
    tip = (-0.48, -stout * 0.4)
    long = rng.uniform(0.12, 0.24)
    _add_limb(parts, 0, tip, np.pi - rng.uniform(-0.9, 0.7), [long] * 3, [0.07, 0.06, 0.05, 0.035], swing=0.35,
           lag=0.8, order=-1)  # fmt: skip
    neck = _add_limb(parts, 0, (0.4, -stout * 0.4), -rng.uniform(0.5, 1.1), [rng.uniform(0.16, 0.42)], [0.18, 0.12],
                  swing=0.1, lag=0, phase=1.0, order=0.5)  # fmt: skip
    muzzle = _draw_capsule(rng.uniform(0.16, 0.28), 0.15, rng.uniform(0.06, 0.1))
    place = (float(parts[neck].outline[:, 0].max()) - 0.1, 0.0)
    parts.append(Part(muzzle, neck, place, rng.uniform(0.7, 1.2), swing=0.18, phase=2.0, order=2))
    head = len(parts) - 1
    ear = draw_blob(rng, rng.uniform(0.08, 0.14), 0.05) + np.array([0.08, 0])
    parts.append(Part(ear, head, (-0.06, -0.1), -rng.uniform(1.6, 2.4), swing=0.25, phase=0.5, order=3, role="trim"))
    parts.append(Part(draw_blob(rng, 0.022, 0.022, rough=0.0), head, (0.06, -0.05), order=4, role="eye"))
    return parts


def _bird(rng: np.random.Generator) -> list[Part]:
    parts = [Part(draw_blob(rng, 0.45, rng.uniform(0.17, 0.23)), swing=0.06)]
    parts.append(Part(_draw_fan(0.4, 0.2, 4), 0, (-0.36, -0.02), np.pi - 0.15, 0.2, order=-1))
    span = rng.uniform(0.3, 0.4)
    for order, role, lift in ((-2, "far", -0.35), (2, "skin", 0.0)):
        upper = draw_blob(rng, span / 1.5, 0.15) + np.array([span / 2, 0])
        parts.append(Part(upper, 0, (0.06, -0.06), -1.9 + lift, 0.75, order=order, role=role))
        outer = _draw_fan(span * 1.35, 0.17, 5)
        parts.append(Part(outer, len(parts) - 1, (span * 0.85, 0), -0.2, 0.5, -0.9, order=order + 0.1, role=role))
    head = draw_blob(rng, 0.17, 0.15) + np.array([0.1, 0])
    parts.append(Part(head, 0, (0.38, -0.08), -0.4, 0.15, 1.0, order=1))
    beak = np.array([[0, -0.05], [0.2, 0.0], [0.0, 0.05]])
    parts.append(Part(beak, len(parts) - 1, (0.24, 0.0), 0.3, 0.05, order=0.9, role="trim"))
    parts.append(Part(draw_blob(rng, 0.025, 0.025, rough=0.0), len(parts) - 2, (0.15, -0.03), order=3, role="eye"))
    return parts


def _fish(rng: np.random.Generator) -> list[Part]:
    deep = rng.uniform(0.2, 0.3)
    parts = [Part(draw_blob(rng, 0.48, deep, rough=0.04), swing=0.06)]
    tail = _add_limb(parts, 0, (-0.36, 0), np.pi, [0.2, 0.16], [deep * 0.65, 0.11, 0.06], swing=0.25, lag=0.8, order=-1)
    parts.append(Part(_draw_fan(0.3, 0.26, 2), tail, (0.13, 0), 0.0, 0.35, -1.6, order=-1.5))
    parts.append(Part(_draw_fan(0.22, 0.24, 5), 0, (-0.02, -deep * 0.75), -np.pi / 2 - 0.3, 0.12, order=-2))
    parts.append(Part(_draw_fan(0.18, 0.12, 3), 0, (-0.1, deep * 0.8), np.pi / 2 + 0.5, 0.15, 1.0, order=-2))
    parts.append(Part(_draw_fan(0.22, 0.09, 4), 0, (0.1, 0.06), np.pi - 0.6, 0.4, 2.0, order=1, role="trim"))
    parts.append(Part(draw_blob(rng, 0.035, 0.035, rough=0.0), 0, (0.33, -0.06), order=2, role="eye"))
    return parts


def _octopus(rng: np.random.Generator) -> list[Part]:
    parts = [Part(draw_blob(rng, 0.36, 0.3), swing=0.05)]
    for i, angle in enumerate(np.linspace(0.35, np.pi - 0.35, int(rng.integers(5, 8)))):
        place = (0.24 * np.cos(angle), 0.2 * np.sin(angle))
        _add_limb(parts, 0, place, angle + rng.normal() * 0.1, [0.22, 0.2, 0.18, 0.14], [0.11, 0.09, 0.07, 0.05, 0.03],
               swing=0.28, lag=0.9, phase=i * 1.3, order=(-1) ** i, role="far" if i % 2 else "skin")  # fmt: skip
    for x in (-0.1, 0.14):
        parts.append(Part(draw_blob(rng, 0.045, 0.05, rough=0.0), 0, (x, 0.08), order=3, role="eye"))
    return parts


def _lizard(rng: np.random.Generator) -> list[Part]:
    parts = [Part(draw_blob(rng, 0.36, rng.uniform(0.17, 0.22)), swing=0.14)]
    _add_limb(parts, 0, (-0.3, 0), np.pi, [0.2, 0.2, 0.18, 0.16], [0.15, 0.11, 0.08, 0.06, 0.03], swing=0.26, lag=0.8,
           phase=1.0, order=-1)  # fmt: skip
    for i, (x, side) in enumerate(((0.22, 1), (0.22, -1), (-0.22, 1), (-0.22, -1))):
        _add_limb(parts, 0, (x, side * 0.12), side * (1.0 if x > 0 else 2.1), [0.22, 0.2], [0.1, 0.07, 0.06], swing=0.4,
               lag=0.5, phase=np.pi * (i in (1, 2)), bend=side * (0.5 if x > 0 else -0.5), order=-0.5)  # fmt: skip
    parts.append(Part(_draw_capsule(0.28, 0.16, 0.09), 0, (0.34, 0), 0.0, 0.2, 2.5, order=1))
    head = len(parts) - 1
    for y in (-0.1, 0.1):
        parts.append(Part(draw_blob(rng, 0.03, 0.025, rough=0.0), head, (0.1, y), order=2, role="eye"))
    return parts


def _digger(rng: np.random.Generator) -> list[Part]:
    wheel = rng.uniform(0.13, 0.18)
    parts = [Part(draw_blob(rng, 0.5, 0.17, power=0.35, rough=0.02), swing=0.015)]
    cabin = draw_blob(rng, 0.19, 0.2, power=0.4, rough=0.03)
    parts.append(Part(cabin, 0, (-rng.uniform(0.0, 0.25), -0.26), 0.0, 0.03, order=-0.2))
    parts.append(Part(draw_blob(rng, 0.1, 0.1, power=0.4, rough=0.02), 1, (0.05, -0.03), order=0.3, role="eye"))
    for x in (-0.32, 0.32):
        parts.append(Part(draw_blob(rng, wheel, wheel, rough=0.01), 0, (x, 0.17), spin=0.4, order=1, role="trim"))
        parts.append(Part(draw_blob(rng, wheel / 2, wheel / 2, rough=0.2), len(parts) - 1, (0, 0), order=1.1))
    arm = _add_limb(parts, 0, (0.34, -0.1), -rng.uniform(0.7, 1.1), [0.45, 0.4], [0.1, 0.08, 0.06], swing=0.22, lag=1.0,
                 bend=1.4, order=0.5)  # fmt: skip
    parts.append(Part(draw_blob(rng, 0.13, 0.1, power=0.6), arm, (0.4, 0.03), 0.3, 0.4, 1.5, order=0.6, role="trim"))
    return parts


BODIES = {
    "quadruped": _quadruped, "bird": _bird, "fish": _fish, "octopus": _octopus, "lizard": _lizard, "digger": _digger,
}  # fmt: skip
UPRIGHT = ("quadruped", "digger", "bird", "octopus")  # the ones that look right in front of a horizon


def _measure_rest_area(parts: list[Part]) -> float:
    """Measure the area of an actor at rest, in squared body units."""
    still = Actor(tuple(parts), lambda u: np.zeros(4), 1.0, 1, 1.0, 0.0)
    scene = Scene((still,), (), lambda u: np.zeros(4), aspect=4.0)
    view = np.array([[0.25, 0, 96.0], [0, 0.25, 96.0]])  # 64 pixels per unit
    mask = np.zeros((256, 256), np.uint8)
    for part, matrix in zip(parts, make_part_maps(scene, still, 0.0, height=256), strict=True):
        matrix[:, 2] -= (512, 128)
        cv2.fillPoly(mask, [np.round(map_points(compose(view, matrix), part.outline)).astype(np.int32)], 1)
    return float(mask.sum()) / 64**2


# ------------------------------------------------------------------ motion


def _fit_spline(times: list[float], values: list[np.ndarray]) -> Callable[[float], np.ndarray]:
    """Fit a smooth curve through the values at the times."""
    return PchipInterpolator(times, np.array(values), extrapolate=True)


def _draw_path(
    rng: np.random.Generator, kind: str, anchor: np.ndarray, outside: float
) -> Callable[[float], np.ndarray]:
    """Draw a random path, u -> (x, y, log scale, angle).

    Args:
        kind: wander, cross, leave, enter or exit.
        anchor: (x, y) around which the actor moves.
        outside: |x| of places beyond the edge of the picture.
    """

    def near(spread: float) -> np.ndarray:
        return anchor + rng.uniform(-1, 1, 2) * (spread, 0.3 * spread)

    away = np.array([outside * (np.sign(anchor[0]) or 1.0), anchor[1]])
    first, second = near(0.1), near(0.2)
    places = {
        "wander": ([0, 0.35, 0.7, 1], [near(0.22), near(0.22), near(0.22), near(0.22)]),
        "cross": ([0, 0.4, 1], [anchor, anchor * (0.1, 1) + (0, 0.03), anchor * (-1, 1)]),
        "leave": ([0, 0.25, 0.5, 0.62, 0.9, 1], [first, second, away, away, second, first]),
        "enter": ([0, 0.35, 0.7, 1], [away, first, second, near(0.15)]),
        "exit": ([0, 0.35, 0.62, 0.95, 1], [near(0.15), second, first, away, away]),
    }
    times, points = places[kind]
    drift = np.c_[rng.normal(0, 0.13, len(times)), rng.normal(0, 0.13, len(times))]
    return _fit_spline(times, list(np.c_[np.array(points), drift]))


def _draw_camera(rng: np.random.Generator) -> Callable[[float], np.ndarray]:
    """Draw a random motion of the camera, u -> (x, y, log zoom, roll)."""
    reach = rng.uniform(0.3, 1.0)
    knots = [rng.uniform(-1, 1, 4) * (0.22 * reach, 0.07 * reach, 0.06, 0.04) for _ in range(4)]
    curve, shake = _fit_spline([0, 0.33, 0.67, 1], knots), rng.uniform(0.0, 0.004)
    beats, shifts = rng.uniform(4, 9, 2), rng.uniform(0, 6, 2)

    def camera(u: float) -> np.ndarray:
        pose = curve(u)
        pose[:2] += shake * np.sin(2 * np.pi * beats * u + shifts)
        return pose

    return camera


def _draw_occluders(rng: np.random.Generator, aspect: float, num_actors: int) -> tuple[Occluder, ...]:
    """Draw none, one or two occluders: trunks as high as the picture, or bushes."""
    found = []
    for _ in range(int(rng.choice(3, p=(0.35, 0.45, 0.2)))):
        x = rng.uniform(-0.4, 0.4) * aspect
        after = int(rng.integers(1, num_actors + 1))
        if rng.random() < 0.65:
            y = np.linspace(-1, 1, 24)
            half = rng.uniform(0.06, 0.15) * (1 + 0.25 * y**2 + 0.08 * np.sin(9 * y + rng.uniform(0, 6)))
            lean = x + rng.uniform(-0.1, 0.1) * y + 0.015 * np.sin(5 * y)
            outline = np.r_[np.c_[lean - half, y], np.c_[lean + half, y][::-1]]
        else:
            outline = draw_blob(rng, rng.uniform(0.16, 0.28), rng.uniform(0.2, 0.34), rough=0.3) + np.array([x, 0.32])
        found.append(Occluder(outline, after))
    return tuple(sorted(found, key=lambda o: o.after))


# ------------------------------------------------------------------ plans and their rating


def _draw_scene(rng: np.random.Generator, aspect: float) -> Scene:
    """Draw a random scene of two to five actors, whether or not it keeps the promises."""
    num = int(rng.choice([2, 3, 4, 5], p=(0.5, 0.3, 0.12, 0.08)))
    horizon = float(rng.uniform(-0.25, 0.1)) if rng.random() < 0.6 else None
    names = UPRIGHT if horizon is not None else tuple(n for n in BODIES if n != "digger")
    low, high = {2: (0.15, 0.24), 3: (0.11, 0.18), 4: (0.08, 0.13), 5: (0.07, 0.1)}[num]
    columns = rng.permutation(np.linspace(-0.34, 0.34, num)) * aspect
    kinds = rng.choice(["wander", "cross", "leave", "enter", "exit"], size=num, p=(0.4, 0.24, 0.14, 0.08, 0.14))
    rows = np.sort(rng.uniform(-0.16, 0.2, num))
    actors = []
    for kind, x, y in zip(kinds, columns, rows, strict=True):
        parts = BODIES[str(rng.choice(names))](rng)
        size = float(np.sqrt(rng.uniform(low, high) * aspect / _measure_rest_area(parts)))
        path = _draw_path(rng, kind, np.array([x, y]), aspect / 2 + 0.95 * size)
        facing = int(np.sign(path(0.5)[0] - path(0.0)[0]) or 1)
        actors.append(Actor(tuple(parts), path, size, facing, float(rng.uniform(1.5, 3.5)), float(rng.uniform(0, 6))))
    return Scene(tuple(actors), _draw_occluders(rng, aspect, num), _draw_camera(rng), aspect, horizon)


def draw_coarse_labels(scene: Scene, *, num_frames: int, height: int = COARSE_HEIGHT) -> np.ndarray:
    """Draw small label maps (num_frames, height, width) uint8 from outlines alone, without textures or fur."""
    width = round(height * scene.aspect)
    labels = np.zeros((num_frames, height, width), np.uint8)
    for frame, u in zip(labels, np.linspace(0, 1, num_frames), strict=True):
        for k, actor in enumerate(scene.actors):
            for part, matrix in zip(actor.parts, make_part_maps(scene, actor, u, height=height), strict=True):
                cv2.fillPoly(frame, [np.round(map_points(matrix, part.outline)).astype(np.int32)], k + 1)
            view = make_camera_map(scene, u, height=height, parallax=1.1)
            for occluder in (o for o in scene.occluders if o.after == k + 1):
                cv2.fillPoly(frame, [np.round(map_points(view, occluder.outline)).astype(np.int32)], 0)
    return labels


@dataclass
class _Rating:
    """Rate a plan.

    faults: sum of the violations of promises; 0 if all are kept.
    events: number of actors that are occluded or leave.
    present: for each actor, whether it is visible in the first frame.
    """

    faults: float = 0.0
    events: int = 0
    present: list[bool] = field(default_factory=list)


def _rate_plan(labels: np.ndarray, num_actors: int) -> _Rating:
    """Rate a plan from its coarse label maps (T, H, W)."""
    rating = _Rating()
    for k in range(1, num_actors + 1):
        area = (labels == k).mean((1, 2))
        seen = area > 0.008
        typical = float(np.median(area[seen])) if seen.any() else 0.0
        rating.faults += max(0.0, MIN_VISIBLE_SHARE - seen.mean()) * 10
        rating.faults += float(not AREA_RANGE[0] <= typical <= AREA_RANGE[1])
        rating.events += int((area < 0.4 * typical).any())
        rating.present.append(bool(seen[0]))
    rating.faults += max(0, num_actors - 1 - sum(rating.present))
    return rating


def plan_scene(rng: np.random.Generator, *, aspect: float) -> Scene:
    """Draw scenes until one keeps the promises on visibility and size and has an occlusion or an exit.

    After `MAX_PLANS` scenes the best of them is returned.
    """
    best, best_faults = None, np.inf
    for _ in range(MAX_PLANS):
        scene = _draw_scene(rng, aspect)
        rating = _rate_plan(draw_coarse_labels(scene, num_frames=20), len(scene.actors))
        faults = rating.faults + 0.5 * (rating.events == 0)
        if faults < best_faults:
            best, best_faults = scene, faults
        if faults == 0:
            break
    return best
