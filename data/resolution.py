"""Choose the resolution at which the network sees a video: its shape, a number of pixels, whole patches."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from utils.errors import UserError

Size = tuple[int, int]  # (height, width) in pixels

USUAL_PATCH = 8  # pixels; of the backbones that the default resolutions are meant for
MAX_SHAPE_CHANGE = 1.25  # factor; the usual resolutions of data sets change shapes by less (320x480: DAVIS by 1.19)
NOTED_SHAPE_CHANGE = 1.05  # factor; a smaller change at a resolution that the user has chosen is not worth a note


def measure_shape_change(resolution: Size, shape: tuple[float, float]) -> float:
    """Return the factor, at least 1, by which resizing to a resolution changes the aspect ratio of a shape.

    Args:
        resolution: (height, width).
        shape: (height, width) in any unit.
    """
    ratio = (resolution[1] / resolution[0]) / (shape[1] / shape[0])
    return max(ratio, 1 / ratio)


def scale_to_patches(resolution: Size, patch_size: Size) -> Size:
    """Return a resolution with as many patches as `resolution` has of `USUAL_PATCH` pixels.

    A resolution that has a whole number of patches of `patch_size` anyway is returned unchanged.
    """
    if all(side % patch == 0 for side, patch in zip(resolution, patch_size, strict=True)):
        return resolution
    return tuple(side // USUAL_PATCH * patch for side, patch in zip(resolution, patch_size, strict=True))


def fit_resolution(budget: Size, shape: tuple[float, float], *, patch_size: Size) -> Size:
    """Return the (height, width) with the shape of a video, about as many pixels as `budget`, and whole patches.

    The sizes in whole patches around the exact solution are compared by their errors in shape and in number of pixels.

    Args:
        budget: (height, width), of which only the number of pixels matters.
        shape: (height, width) of the video as displayed, in any unit.
        patch_size: (height, width) of a patch of the backbone.
    """
    pixels, ratio = math.prod(budget), shape[1] / shape[0]
    exact = (math.sqrt(pixels / ratio) / patch_size[0], math.sqrt(pixels * ratio) / patch_size[1])

    def measure_error(counts: Size) -> float:
        size = (counts[0] * patch_size[0], counts[1] * patch_size[1])
        return math.log(measure_shape_change(size, shape)) ** 2 + math.log(math.prod(size) / pixels) ** 2

    candidates = [{max(math.floor(count), 1), math.ceil(count)} for count in exact]
    rows, columns = min(sorted(itertools.product(*candidates)), key=measure_error)
    return rows * patch_size[0], columns * patch_size[1]


@dataclass(frozen=True)
class ResolutionRule:
    """Choose the resolution of each video from the flags of the program.

    Attributes:
        resolution: (height, width) of `--resolution`, or its default.
        patch_size: (height, width) of a patch of the backbone.
        explicit: the user gave `--resolution`, so every video gets it. Otherwise it is a number of pixels to fit to.
        fit_every_video: fit every video; otherwise only those whose shape `resolution` would change by more than
            `MAX_SHAPE_CHANGE`, since data sets are usually evaluated at a resolution that changes shapes a little.
    """

    resolution: Size
    patch_size: Size
    explicit: bool
    fit_every_video: bool

    def choose(self, shape: tuple[float, float]) -> Size:
        """Return the resolution for a video that is displayed as (height, width)."""
        if self.explicit:
            return self.resolution
        if self.fit_every_video or measure_shape_change(self.resolution, shape) > MAX_SHAPE_CHANGE:
            return fit_resolution(self.resolution, shape, patch_size=self.patch_size)
        return self.resolution

    def describe_changes(self, shapes: Mapping[str, tuple[float, float]]) -> str | None:
        """Describe for the user which videos change their shape or get another resolution; None if none does.

        Args:
            shapes: name of a video -> (height, width) as displayed.
        """
        if self.fit_every_video and not self.explicit:
            return None
        changes = {name: measure_shape_change(self.resolution, shape) for name, shape in shapes.items()}
        noted = NOTED_SHAPE_CHANGE if self.explicit and self.fit_every_video else MAX_SHAPE_CHANGE
        changed = [name for name in shapes if changes[name] > noted]
        if not changed:
            return None
        worst = max(changed, key=changes.get)
        height, width = (round(side) for side in shapes[worst])
        flag, count = "--resolution {} {}".format(*self.resolution), f"{len(changed)} of {len(shapes)} videos"
        if self.explicit:
            return (f"{flag}: changes the shape of {count}, by up to a factor of {changes[worst]:.2f} ({worst}, "
                    f"{height}x{width}); without the flag each keeps its shape")  # fmt: skip
        fitted_height, fitted_width = self.choose(shapes[worst])
        return (f"{flag}: would change the shape of {count} by more than a factor of {MAX_SHAPE_CHANGE}; these get one "
                f"of their own with as many pixels, such as {fitted_height}x{fitted_width} for {worst} of "
                f"{height}x{width}")  # fmt: skip


def check_resolution(resolution: tuple[int, int], patch_size: tuple[int, int]) -> None:
    """Refuse a resolution (height, width) that is not a multiple of the patch size.

    Raises:
        UserError: it names the nearest two resolutions that are multiples.
    """
    below = [max(side // patch, 1) * patch for side, patch in zip(resolution, patch_size, strict=True)]
    above = [-(-side // patch) * patch for side, patch in zip(resolution, patch_size, strict=True)]
    if list(resolution) not in (below, above):
        raise UserError(
            f"--resolution {resolution[0]} {resolution[1]}: not a multiple of the patch size {patch_size[0]}; "
            f"nearest are {below[0]} {below[1]} and {above[0]} {above[1]}"
        )
