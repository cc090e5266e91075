"""Paint a Sprites video: procedural textures, lit and jointed actors, a layered background, exact labels.

    frames, labels = render_sequence(7, height=240, num_frames=32)

All actors and the background of a video have the same five colours, and the light changes, so that colour alone does
not show which pixels are one object. Pattern, shading, focus, shape and motion do. Colours are linear light until the
last step. Beside this module, `textures.py` draws patterns, `light.py` shades, `shapes.py` fills outlines, `actors.py`
and `background.py` paint what their names say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from data.sprites import exact
from data.sprites.actors import draw_puppet, make_puppet
from data.sprites.background import make_layers, make_plane_map
from data.sprites.exact import ExactGenerator, compose, exp, map_points, power, sin, snap, warp
from data.sprites.light import Light, draw_light
from data.sprites.scene import Actor, make_camera_map, make_root_map
from data.sprites.shapes import find_window
from data.sprites.splits import PLANS
from data.sprites.textures import GROUNDS, SKINS, draw_fractal_noise, exponentiate

ASPECT = 16 / 9
SHUTTER = 0.6  # share of the time between two frames in which the shutter is open
SUBSAMPLES = 3  # exposures averaged for motion blur; the labels are those of the middle one
GAMMA = 2.2

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


def _make_tones() -> np.ndarray:
    """Tabulate the sRGB values, 0 to 255, of linear light in steps of 1 / TONE_STEPS, with soft highlights."""
    light = np.arange(1.25 * TONE_STEPS) / TONE_STEPS
    light = 1.3 * (light * np.sqrt(light + 0.02) * 1.6) / (1 + 0.9 * light)
    return (255 * power(np.minimum(light, 1), 1 / GAMMA)).astype(np.float32)


GRAIN = 104.5  # standard deviation of the sum of two random bytes
TONE_STEPS = 2**16
TONES = _make_tones()


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

    def __init__(self, seed: int | Sequence[int], *, height: int, split: str = "val") -> None:
        rng = ExactGenerator(seed)
        self.shape = (height, 2 * round(height * ASPECT / 2))
        self.scene = PLANS[split].plan(rng, aspect=self.shape[1] / height)
        self.light = draw_light(rng)
        names = [str(n) for n in rng.permutation(SKINS)][: len(self.scene.actors)]
        if self.scene.alike:
            names = [names[0]] * len(names)
        palette = power((PALETTES[int(rng.integers(len(PALETTES)))] / 255), GAMMA).astype(np.float32)
        # Periods of the patterns, in body lengths:
        periods = rng.permutation(0.06 * power(0.25 / 0.06, np.linspace(0, 1, len(names))))
        self.puppets = [
            make_puppet(rng, actor, name, palette, period=period, height=height)
            for actor, name, period in zip(self.scene.actors, names, periods, strict=True)
        ]
        rest = [str(n) for n in rng.permutation(GROUNDS) if n not in names]
        names = (["clouds", *rest, "cracks"])[:4]
        self.layers = make_layers(rng, self.scene, names, palette, self.light(0.5), height)
        tile = tuple(int(s * 1.9) for s in self.shape)
        self.clouds = snap(exponentiate(0.32 * np.clip(draw_fractal_noise(rng, tile, 1.5), -2, 2)))
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
        dark = warp(cover, shift, slice(0, self.shape[0] // 2), slice(0, self.shape[1] // 2))
        dark = snap(exact.blur_box(dark, 2 * round(reach / 8) + 1))
        return cv2.merge([1 - 0.5 * exact.resize(dark, self.shape)] * 3)

    def pose(self, u: float, *, hidden: Sequence[int] = ()) -> Posed:
        """Light and pose every actor as at time u, except those with ids in `hidden`, and compute the sunlight."""
        light = self.light(u)
        figures = {}
        for k, puppet in enumerate(self.puppets, start=1):
            if k not in hidden and (drawn := draw_puppet(puppet, self.scene, u, light, self.shape)):
                image, window = snap(drawn[0]), drawn[1]
                root = make_root_map(self.scene, puppet.actor, u, height=self.shape[0])
                figures[k] = Figure(image, window, self._shadow(image[..., 3], window, light), root)
        return Posed(u, figures, cv2.merge([self._sunlight(u)] * 3))

    def _move(self, figure: Figure, actor: Actor, u: float) -> tuple[np.ndarray, tuple[slice, slice]] | None:
        """Move a figure to where the body of its actor is at time u; return image and window, or None if outside."""
        rows, cols = figure.window
        moved = compose(make_root_map(self.scene, actor, u, height=self.shape[0]), exact.invert(figure.root))
        moved = compose(moved, np.array([[1.0, 0, cols.start], [0, 1.0, rows.start]]))
        h, w = figure.image.shape[:2]
        window = find_window(map_points(moved, np.array([[0, 0], [w, 0], [w, h], [0, h]], float)), self.shape)
        if window is None:
            return None
        return warp(figure.image, moved, *window, border=cv2.BORDER_REPLICATE), window

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
                matrix = make_plane_map(self.scene, layer, u, height)
                self._paint_over(canvas, shares, warp(layer.image, matrix, *whole), whole, 0)
        return canvas, shares.argmax(0).astype(np.uint8) if middle else None

    def _sunlight(self, u: float) -> np.ndarray:
        """Draw the shadows of clouds and leaves that drift over the scene, as a gain (h, w)."""
        height, width = self.shape
        matrix = make_camera_map(self.scene, u, height=height)
        matrix = compose(matrix, np.array([[1 / height, 0, -0.95 * width / height], [0, 1 / height, -0.95]]))
        matrix[:, 2] += self.drift * height * u
        return warp(self.clouds, matrix, slice(0, height), slice(0, width), border=cv2.BORDER_REFLECT)


def _balance(rng: np.random.Generator, num_frames: int) -> np.ndarray:
    """Draw gains (num_frames, 3) of an exposure and a white balance that drift over the video."""
    u = np.linspace(0, 1, num_frames)[:, None]
    beats, shifts = rng.uniform(0.5, 1.2, (2, 3)), rng.uniform(0, 2 * np.pi, (2, 3))
    beats[0], shifts[0] = beats[0, 0], shifts[0, 0]  # exposure moves all channels alike
    exposure, tint = sin(2 * np.pi * beats[:, None] * u + shifts[:, None])
    return exp(0.4 * exposure + 0.2 * tint)


def _develop(rng: np.random.Generator, light: np.ndarray, *, noise: float, haze: float) -> np.ndarray:
    """Convert linear light (h, w, 3) to sRGB uint8, with vignette, haze, soft highlights and sensor noise."""
    height, width = light.shape[:2]
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    light = light * (1 - 0.13 * (x * x + y * y)).astype(np.float32)[..., None] + haze
    image = TONES[np.minimum(light * TONE_STEPS, len(TONES) - 1).astype(np.int32)]
    grain = np.zeros(light.shape, np.int16)
    for _ in range(2):
        grain += rng.integers(-128, 128, light.shape, np.int8)
    kernel = np.array([1.0, 4.0, 1.0])  # a Gaussian of 0.6 pixels; the sums are whole numbers
    grain = cv2.sepFilter2D(grain, cv2.CV_32F, kernel, kernel)
    return np.clip(image + np.float32(noise / (36 * GRAIN)) * grain + 0.5, 0, 255).astype(np.uint8)


def render_sequence(
    seed: int | Sequence[int], *, height: int = 240, num_frames: int = 32, split: str = "val",
    hidden: Sequence[int] = (),
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Render a video; the result depends on the arguments only.

    Args:
        height: rows of a frame; a frame has 16/9 as many columns, rounded to an even number.
        split: one of `PLANS`, which says what kind of scene is planned.
        hidden: ids of objects to leave out, while everything else stays the same; for tests.

    Returns:
        Frames (T, H, W, 3) uint8 RGB, and labels (T, H, W) uint8: 0 for background, k for the pixels of object k that
        are visible at the middle of the exposure.
    """
    stage = Stage(seed, height=height, split=split)
    sensor = ExactGenerator([*np.atleast_1d(seed), 1])
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
