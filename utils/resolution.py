"""The network's resolution for a video: multiples of the patch size, the video's own shape, a budget of pixels."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

Size = tuple[int, int]  # height, width

MOST_CHANGE = 1.25  # of a video's shape, that data sets' usual resolutions may make: 320x480 changes DAVIS by 1.19
SEEN_CHANGE = 1.05  # that is worth a word where somebody has asked for the resolution


def shape_change(resolution: Size, shape: tuple[float, float]) -> float:
    """By what factor a resolution changes the width over the height of a (height, width) shape, at least 1."""
    ratio = (resolution[1] / resolution[0]) / (shape[1] / shape[0])
    return max(ratio, 1 / ratio)


def fit_resolution(budget: Size, shape: tuple[float, float], *, patch_size: Size) -> Size:
    """The (height, width) for a video of a shape: multiples of the patch size, about as many pixels as `budget` has.

    Of the sizes around the exact one it is that which is nearest in shape and number of pixels; a budget that has the
    shape already, as near as any, stays as it is.

    Args:
        budget: (height, width), of which only the number of pixels counts.
        shape: (height, width) as the video is shown, in any unit.
        patch_size: (height, width).
    """
    pixels, ratio = math.prod(budget), shape[1] / shape[0]
    exact = (math.sqrt(pixels / ratio) / patch_size[0], math.sqrt(pixels * ratio) / patch_size[1])

    def error(counts: Size) -> float:
        size = (counts[0] * patch_size[0], counts[1] * patch_size[1])
        return math.log(shape_change(size, shape)) ** 2 + math.log(math.prod(size) / pixels) ** 2

    around = [{max(math.floor(count), 1), math.ceil(count)} for count in exact]
    rows, columns = min(sorted(itertools.product(*around)), key=error)
    return rows * patch_size[0], columns * patch_size[1]


@dataclass(frozen=True)
class ResolutionRule:
    """Which resolution each video is segmented at.

    resolution: (height, width). asked: the command line gave it, so that it holds for every video; otherwise it is a
    budget of pixels. own: each video is fitted to that budget; otherwise only those whose shape the resolution would
    change by more than `MOST_CHANGE`, since the usual resolutions of data sets change shapes a little.
    """

    resolution: Size
    patch_size: Size
    asked: bool
    own: bool

    def of(self, shape: tuple[float, float]) -> Size:
        """The resolution for a video that is shown as (height, width)."""
        if self.asked or not (self.own or shape_change(self.resolution, shape) > MOST_CHANGE):
            return self.resolution
        return fit_resolution(self.resolution, shape, patch_size=self.patch_size)

    def note(self, shapes: Mapping[str, tuple[float, float]]) -> str | None:
        """What the user should know of the resolutions of videos by name, None where that is nothing."""
        changes = {name: shape_change(self.resolution, shape) for name, shape in shapes.items()}
        least = SEEN_CHANGE if self.asked and self.own else MOST_CHANGE
        odd = [name for name in shapes if changes[name] > least]
        if not odd or (self.own and not self.asked):
            return None
        name = max(odd, key=changes.get)
        height, width = (round(side) for side in shapes[name])
        beginning, counted = "--resolution {} {}".format(*self.resolution), f"{len(odd)} of {len(shapes)} videos"
        if self.asked:
            return (f"{beginning}: changes the shape of {counted}, by up to a factor of {changes[name]:.2f} ({name}, "
                    "{}x{}); without the flag each keeps its shape".format(height, width))  # fmt: skip
        return (f"{beginning}: would change the shape of {counted} by more than a factor of {MOST_CHANGE}; these get "
                "one of their own with as many pixels, such as {}x{} for {} of {}x{}".format(
                    *self.of(shapes[name]), name, height, width))  # fmt: skip
