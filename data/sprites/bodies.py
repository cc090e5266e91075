"""Draw the random bodies of actors: outlines of their parts, hinged to each other."""

from dataclasses import replace

import numpy as np

from data.sprites import exact
from data.sprites.exact import cos, sin
from data.sprites.scene import Part

# ------------------------------------------------------------------ outlines


def _draw_capsule(length: float, start: float, end: float) -> np.ndarray:
    """Draw a limb along +x from the origin, with round ends of radius `start` and `end`."""
    arc = np.linspace(np.pi / 2, 3 * np.pi / 2, 12)
    back = start * np.c_[cos(arc), sin(arc)]
    front = end * np.c_[-cos(arc), -sin(arc)] + (length, 0)
    return np.r_[back, front]


def draw_blob(
    rng: np.random.Generator, rx: float, ry: float, *, rough: float = 0.06, power: float = 1.0, corners: int = 72
) -> np.ndarray:
    """Draw an uneven ellipse around the origin; `power` below 1 makes it boxy, `rough` dents it with 1/f harmonics."""
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    harmonics = np.arange(2, 9)
    gain, shift = rng.normal(size=7) / harmonics, rng.uniform(0, 2 * np.pi, 7)
    waves = sum(g * sin(h * turn + s) for g, h, s in zip(gain, harmonics, shift, strict=True))
    radius = 1 + rough * waves * 2
    x, y = (np.sign(side) * exact.power(np.abs(side), power) for side in (cos(turn), sin(turn)))
    return np.c_[rx * radius * x, ry * radius * y]


def _draw_fan(length: float, width: float, lobes: int) -> np.ndarray:
    """Draw a tail fin or spread feathers along +x, with a scalloped far edge."""
    across = np.linspace(-1, 1, 8 * lobes + 1)
    edge = length * (1 - 0.18 * np.abs(across) + 0.09 * np.abs(sin(np.pi * lobes * (across + 1) / 2)))
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
        place = (0.24 * cos(angle), 0.2 * sin(angle))
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
