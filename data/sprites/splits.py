"""Plan the videos of the splits of Sprites, of which three are named after what makes their videos hard.

train, val   2 to 5 objects that occlude one another, leave and return
small        an object enters small and far, and grows
crowd        five or six objects of one kind, with skins of one pattern, cross
leave        an object is lost behind another or outside of the picture, and returns
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from data.sprites.bodies import BODIES, UPRIGHT
from data.sprites.exact import log
from data.sprites.plan import (
    COARSE,
    MIN_VISIBLE_SHARE,
    SEEN_AREA,
    choose_scene,
    draw_camera,
    draw_path,
    fit_path,
    make_actor,
    plan_scene,
    rate_visibility,
)
from data.sprites.scene import Actor, Scene

FAR_SCALE = 0.2  # of an object that enters far away, by its size in the end
MIN_GROWTH = 10  # of its area in the coarse frames, from the second in which it is seen to the last
GROUP = 3  # objects that touch one another
MIN_CROWDED_SHARE = 0.5  # of the coarse frames that show such a group
FINE = (32, 96)  # frames and rows of label maps in which an object that seems hidden may still peep out
MIN_ABSENCE, MIN_PRESENCE = 0.25, 0.2  # share of the coarse frames in which the lost object is away; and before, after


def _draw_extra(rng: np.random.Generator, aspect: float, names: tuple[str, ...], x: float, area: float) -> Actor:
    """Draw an actor that stays in view, around the column x."""
    parts = BODIES[str(rng.choice(names))](rng)
    path = draw_path(rng, "wander", np.array([x, rng.uniform(-0.05, 0.15)]), aspect)
    return make_actor(rng, parts, area * aspect, path)


# ------------------------------------------------------------------ small


def _draw_small(rng: np.random.Generator, aspect: float) -> Scene:
    """Draw a scene of which actor 1 comes from the horizon; it is painted behind the one or two others."""
    horizon, side = float(rng.uniform(-0.25, -0.1)), float(rng.choice([-1, 1]))
    far, near = horizon + rng.uniform(0.02, 0.06), rng.uniform(0.02, 0.12)
    outside = aspect / 2 + 0.95 * FAR_SCALE
    xs = side * np.array([outside, 0.4 * aspect, 0.25 * aspect, 0.1 * aspect, rng.uniform(-0.15, 0.1) * aspect])
    ys = far + (near - far) * np.array([0, 0, 0.15, 0.6, 1])
    scales = log(FAR_SCALE) * np.array([1, 1, 0.8, 0.3, 0])
    path = fit_path([0, 0.15, 0.4, 0.75, 1], np.c_[xs, ys, scales, rng.normal(0, 0.08, 5)])
    actors = [make_actor(rng, BODIES[str(rng.choice(UPRIGHT))](rng), float(rng.uniform(0.12, 0.2)) * aspect, path)]
    for x in (-side * rng.uniform(0.25, 0.34), side * 0.34)[: int(rng.integers(1, 3))]:
        actors.append(_draw_extra(rng, aspect, UPRIGHT, x * aspect, float(rng.uniform(0.06, 0.12))))
    return Scene(tuple(actors), (), draw_camera(rng), aspect, horizon)


def _rate_small(labels: np.ndarray, num_actors: int) -> float:
    area = (labels == 1).mean((1, 2))
    frames = np.flatnonzero(area)
    if len(frames) < 2:
        return np.inf
    growth = area[-1] / area[frames[1]]
    faults = float(frames[0] == 0) + float(growth < MIN_GROWTH) + float(len(frames) < len(area) - frames[0])
    return faults + sum(rate_visibility(labels, k) for k in range(2, num_actors + 1))


# ------------------------------------------------------------------ crowd


def _draw_crowd(rng: np.random.Generator, aspect: float) -> Scene:
    """Draw a scene of actors of one kind, half of which go to the right, half to the left."""
    num, kind = int(rng.integers(5, 7)), str(rng.choice(list(BODIES)))
    horizon = float(rng.uniform(-0.25, 0.0)) if kind in UPRIGHT else None
    area, first = float(rng.uniform(0.05, 0.075)), int(rng.integers(2))
    actors = []
    for i, y in enumerate(np.linspace(-0.16, 0.22, num)):
        way = 1 if (i + first) % 2 else -1
        xs = way * aspect * np.array([-rng.uniform(0.18, 0.4), rng.uniform(-0.1, 0.1), rng.uniform(0.18, 0.4)])
        ys = y + rng.uniform(-0.05, 0.05, 3)
        path = fit_path([0, 0.5, 1], np.c_[xs, ys, rng.normal(0, 0.06, 3), rng.normal(0, 0.1, 3)])
        actors.append(make_actor(rng, BODIES[kind](rng), area * aspect, path))
    return Scene(tuple(actors), (), draw_camera(rng), aspect, horizon, alike=True)


def _count_touching(labels: np.ndarray) -> int:
    """Count the objects of the largest group of objects that touch, in one label map (H, W)."""
    num_groups, groups = cv2.connectedComponents((labels > 0).astype(np.uint8))
    return max((len(np.unique(labels[groups == group])) for group in range(1, num_groups)), default=0)


def _rate_crowd(labels: np.ndarray, num_actors: int) -> float:
    crowded = np.mean([_count_touching(frame) >= GROUP for frame in labels])
    faults = 10 * max(0.0, MIN_CROWDED_SHARE - float(crowded))
    for k in range(1, num_actors + 1):
        seen = (labels == k).mean((1, 2)) > SEEN_AREA
        faults += 10 * max(0.0, MIN_VISIBLE_SHARE - float(seen.mean()))
    return faults


# ------------------------------------------------------------------ leave


def _draw_leave(rng: np.random.Generator, aspect: float, *, behind: bool) -> Scene:
    """Draw a scene of which actor 1 is lost: behind actor 2, or outside of the picture."""
    side, y = float(rng.choice([-1, 1])), float(rng.uniform(-0.05, 0.1))
    names = tuple(BODIES)
    area = float(rng.uniform(0.022, 0.032) if behind else rng.uniform(0.08, 0.16))
    far = 0.0 if behind else aspect / 2 + 0.8
    end = -side * 0.36 * aspect if behind else side * rng.uniform(0.1, 0.3) * aspect
    xs = np.array([side * 0.36 * aspect, side * 0.24 * aspect, side * far, side * far, 0.6 * end, end])
    path = fit_path([0, 0.2, 0.4, 0.6, 0.8, 1], np.c_[xs, np.full(6, y), rng.normal(0, 0.06, (6, 2))])
    actors = [make_actor(rng, BODIES[str(rng.choice(names))](rng), area * aspect, path)]
    if behind:
        cover = BODIES[str(rng.choice(["fish", "bird", "digger"]))](rng)
        spots = np.c_[rng.uniform(-0.05, 0.05, 3), y + rng.uniform(-0.03, 0.03, 3), rng.normal(0, 0.05, (3, 2))]
        actors.append(make_actor(rng, cover, float(rng.uniform(0.23, 0.29)) * aspect, fit_path([0, 0.5, 1], spots)))
    else:
        x = -side * rng.uniform(0.15, 0.3) * aspect
        actors.append(_draw_extra(rng, aspect, names, x, float(rng.uniform(0.1, 0.16))))
    return Scene(tuple(actors), (), draw_camera(rng), aspect)


def _rate_leave(labels: np.ndarray, num_actors: int) -> float:
    area = (labels == 1).mean((1, 2))
    away = np.flatnonzero(area == 0)
    if len(away) == 0:
        return np.inf
    missing = max(0.0, MIN_ABSENCE - len(away) / len(area)) + float(len(away) < away[-1] - away[0] + 1)
    for side in (area[: away[0]], area[away[-1] + 1 :]):
        missing += max(0.0, MIN_PRESENCE - float((side > SEEN_AREA).sum()) / len(area))
    return 10 * missing + sum(rate_visibility(labels, k) for k in range(2, num_actors + 1))


# ------------------------------------------------------------------ all splits


@dataclass(frozen=True)
class Split:
    """A split: the number that seeds its videos, how its scenes are planned, and how many videos it has if fixed."""

    seed: int
    plan: Callable[..., Scene]
    num_videos: int | None = None


def _plan_small(rng: np.random.Generator, *, aspect: float) -> Scene:
    return choose_scene(lambda: _draw_small(rng, aspect), _rate_small)


def _plan_crowd(rng: np.random.Generator, *, aspect: float) -> Scene:
    return choose_scene(lambda: _draw_crowd(rng, aspect), _rate_crowd)


def _plan_leave(rng: np.random.Generator, *, aspect: float) -> Scene:
    behind = bool(rng.integers(2))  # outside of the loop, since few of these scenes keep the promises
    return choose_scene(lambda: _draw_leave(rng, aspect, behind=behind), _rate_leave, sizes=(COARSE, FINE))


PLANS = {
    "train": Split(0, plan_scene),
    "val": Split(1, plan_scene),
    "small": Split(2, _plan_small, 4),
    "crowd": Split(3, _plan_crowd, 4),
    "leave": Split(4, _plan_leave, 4),
}
