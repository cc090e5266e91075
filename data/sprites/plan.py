"""Plan a Sprites video: draw random scenes until one keeps the promises on visibility and size."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from data.sprites.bodies import BODIES, UPRIGHT, draw_blob
from data.sprites.exact import compose, map_points, sin
from data.sprites.scene import Actor, Occluder, Part, Scene, make_camera_map, make_part_maps
from data.sprites.shapes import rasterise

COARSE = (20, 48)  # frames and rows of the label maps on which a plan is rated before it is painted
MAX_PLANS = 40  # drawn for one video; the best is taken if none keeps all promises
MIN_VISIBLE_SHARE = 0.68  # of the coarse frames in which an actor is visible; 60 % of all frames are promised
SEEN_AREA = 0.008  # share of the image from which an actor counts as visible
AREA_RANGE = (0.04, 0.3)  # share of the image that an actor covers, as the median over its visible frames


# ------------------------------------------------------------------ motion


def fit_path(times: list[float], values: np.ndarray) -> Callable[[float], np.ndarray]:
    """Fit a monotone cubic spline through the values at the times: Fritsch and Butland, SIAM J. Sci. Comput. 1984.

    Before the first and after the last time the outer pieces go on.
    """
    times = np.array(times)
    step = np.diff(times)[:, None]
    slope = np.diff(values, axis=0) / step
    bends = [_bend_end(step[:2], slope[:2]), *_bend_between(step, slope), _bend_end(step[:-3:-1], slope[:-3:-1])]
    first, last = np.array(bends[:-1]), np.array(bends[1:])
    square, cube = (3 * slope - 2 * first - last) / step, (first + last - 2 * slope) / (step * step)

    def curve(u: float) -> np.ndarray:
        i = int(np.clip(np.searchsorted(times, u, side="right") - 1, 0, len(times) - 2))
        past = u - times[i]
        return values[i] + past * (first[i] + past * (square[i] + past * cube[i]))

    return curve


def _bend_between(step: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Return the derivatives (N - 2, C) of a monotone spline between its pieces: harmonic means of their slopes."""
    before, after = slope[:-1], slope[1:]
    left, right = 2 * step[1:] + step[:-1], step[1:] + 2 * step[:-1]
    same = before * after > 0
    before, after = np.where(same, before, 1.0), np.where(same, after, 1.0)
    return np.where(same, (left + right) / (left / before + right / after), 0.0)


def _bend_end(step: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Return the derivative (C,) of a monotone spline at its end, of the two pieces (2, C) next to it."""
    (near, next_), (own, other) = step, slope
    bend = ((2 * near + next_) * own - near * other) / (near + next_)
    bend = np.where((own * other < 0) & (np.abs(bend) > 3 * np.abs(own)), 3 * own, bend)
    return np.where(bend * own > 0, bend, 0.0)


def draw_path(rng: np.random.Generator, kind: str, anchor: np.ndarray, outside: float) -> Callable[[float], np.ndarray]:
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
    return fit_path(times, np.c_[np.array(points), drift])


def draw_camera(rng: np.random.Generator) -> Callable[[float], np.ndarray]:
    """Draw a random motion of the camera, u -> (x, y, log zoom, roll)."""
    reach = rng.uniform(0.3, 1.0)
    knots = [rng.uniform(-1, 1, 4) * (0.22 * reach, 0.07 * reach, 0.06, 0.04) for _ in range(4)]
    curve, shake = fit_path([0, 0.33, 0.67, 1], np.array(knots)), rng.uniform(0.0, 0.004)
    beats, shifts = rng.uniform(4, 9, 2), rng.uniform(0, 6, 2)

    def camera(u: float) -> np.ndarray:
        pose = curve(u)
        pose[:2] += shake * sin(2 * np.pi * beats * u + shifts)
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
            half = rng.uniform(0.06, 0.15) * (1 + 0.25 * y**2 + 0.08 * sin(9 * y + rng.uniform(0, 6)))
            lean = x + rng.uniform(-0.1, 0.1) * y + 0.015 * sin(5 * y)
            outline = np.r_[np.c_[lean - half, y], np.c_[lean + half, y][::-1]]
        else:
            outline = draw_blob(rng, rng.uniform(0.16, 0.28), rng.uniform(0.2, 0.34), rough=0.3) + np.array([x, 0.32])
        found.append(Occluder(outline, after))
    return tuple(sorted(found, key=lambda o: o.after))


# ------------------------------------------------------------------ plans and their rating


def _measure_rest_area(parts: list[Part]) -> float:
    """Measure the area of an actor at rest, in squared body units."""
    still = Actor(tuple(parts), lambda u: np.zeros(4), 1.0, 1, 1.0, 0.0)
    scene = Scene((still,), (), lambda u: np.zeros(4), aspect=4.0)
    view = np.array([[0.25, 0, 96.0], [0, 0.25, 96.0]])  # 64 pixels per unit
    outlines = []
    for part, matrix in zip(parts, make_part_maps(scene, still, 0.0, height=256), strict=True):
        matrix[:, 2] -= (512, 128)
        outlines.append(map_points(compose(view, matrix), part.outline))
    return float(rasterise(outlines, (256, 256)).sum()) / 64**2


def _choose_size(parts: list[Part], area: float) -> float:
    """Choose the world units of one body unit so that an actor covers an area, in squared world units."""
    return math.sqrt(area / _measure_rest_area(parts))


def make_actor(rng: np.random.Generator, parts: list[Part], area: float, path: Callable[[float], np.ndarray]) -> Actor:
    """Make an actor that covers an area, in squared world units, and faces where it goes in the first half."""
    facing = int(np.sign(path(0.5)[0] - path(0.0)[0]) or 1)
    gait, phase = float(rng.uniform(1.5, 3.5)), float(rng.uniform(0, 6))
    return Actor(tuple(parts), path, _choose_size(parts, area), facing, gait, phase)


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
        area = rng.uniform(low, high) * aspect
        outside = aspect / 2 + 0.95 * _choose_size(parts, area)
        actors.append(make_actor(rng, parts, area, draw_path(rng, kind, np.array([x, y]), outside)))
    return Scene(tuple(actors), _draw_occluders(rng, aspect, num), draw_camera(rng), aspect, horizon)


def draw_coarse_labels(scene: Scene, *, num_frames: int, height: int = COARSE[1]) -> np.ndarray:
    """Draw small label maps (num_frames, height, width) uint8 from outlines alone, without textures or fur."""
    width = round(height * scene.aspect)
    labels = np.zeros((num_frames, height, width), np.uint8)
    for frame, u in zip(labels, np.linspace(0, 1, num_frames), strict=True):
        view = make_camera_map(scene, u, height=height, parallax=1.1)
        for k, actor in enumerate(scene.actors):
            maps = make_part_maps(scene, actor, u, height=height)
            outlines = [map_points(matrix, part.outline) for part, matrix in zip(actor.parts, maps, strict=True)]
            frame[rasterise(outlines, frame.shape)] = k + 1
            for occluder in (o for o in scene.occluders if o.after == k + 1):
                frame[rasterise([map_points(view, occluder.outline)], frame.shape)] = 0
    return labels


def rate_visibility(labels: np.ndarray, k: int) -> float:
    """Return by how much object k breaks the promises on visibility and size, from coarse label maps (T, H, W)."""
    area = (labels == k).mean((1, 2))
    seen = area > SEEN_AREA
    typical = float(np.median(area[seen])) if seen.any() else 0.0
    hidden = max(0.0, MIN_VISIBLE_SHARE - float(seen.mean()))
    return 10 * hidden + float(not AREA_RANGE[0] <= typical <= AREA_RANGE[1])


def _rate_plan(labels: np.ndarray, num_actors: int) -> float:
    """Return by how much a plan breaks the promises, among them an occlusion or an exit, from its coarse label maps."""
    areas = [(labels == k).mean((1, 2)) for k in range(1, num_actors + 1)]
    eventful = any((area < 0.4 * np.median(area[area > SEEN_AREA])).any() for area in areas if area.max() > SEEN_AREA)
    present = sum(area[0] > SEEN_AREA for area in areas)
    faults = sum(rate_visibility(labels, k) for k in range(1, num_actors + 1))
    return faults + max(0, num_actors - 1 - present) + 0.5 * (not eventful)


def choose_scene(
    draw: Callable[[], Scene], rate: Callable[[np.ndarray, int], float], *, sizes: Sequence[tuple[int, int]] = (COARSE,)
) -> Scene:  # fmt: skip
    """Draw scenes until `rate` finds no fault; after `MAX_PLANS` scenes return the best of them.

    Args:
        rate: returns the faults of a scene, from label maps (T, H, W) and the number of actors.
        sizes: T and H of label maps; all must be without fault, the smaller and faster ones come first.
    """
    best, best_faults = None, np.inf
    for _ in range(MAX_PLANS):
        scene = draw()
        for num_frames, height in sizes:
            labels = draw_coarse_labels(scene, num_frames=num_frames, height=height)
            faults = rate(labels, len(scene.actors))
            if faults > 0:
                break
        if best is None or faults < best_faults:
            best, best_faults = scene, faults
        if faults == 0:
            break
    return best


def plan_scene(rng: np.random.Generator, *, aspect: float) -> Scene:
    """Plan a scene of two to five actors that are large and mostly in view, with an occlusion or an exit."""
    return choose_scene(lambda: _draw_scene(rng, aspect), _rate_plan)
