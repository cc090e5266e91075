"""Check the keywords of `Predictor`, as eval.py checks its flags when it reads them."""

import os
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from numbers import Integral, Real
from pathlib import Path

import numpy as np

from model.segmenter import SegmenterSettings
from utils.device import AMP_DTYPES
from utils.errors import UserError
from utils.flags.choices import AUTO, CLUSTERINGS, STEPS
from utils.scoring.protocols import MAX_PROPOSALS


def check_settings(settings: SegmenterSettings) -> SegmenterSettings:
    """Refuse impossible settings; return the others with folders as `Path`.

    Raises:
        UserError: it begins with the name of the field.
    """
    check_choice("clustering", settings.clustering, CLUSTERINGS)
    check_choice("amp", settings.amp, (*AMP_DTYPES, AUTO))
    check_whole("key_stride", settings.key_stride)
    check_whole("frame_batch", settings.frame_batch)
    if settings.max_key_frames is not None:
        check_whole("max_key_frames", settings.max_key_frames)
    check_positive("tau", settings.tau)
    check_positive("memory_gb", settings.memory_gb)
    check_choice("motion", settings.motion, (True, False))
    if settings.explain is not False:
        raise UserError(f"explain={settings.explain!r}: has no effect on a Result; leave it out")
    if settings.clusters is not None:
        _check_clusters(settings.clusters)
    if settings.objects is not None:
        _check_objects(settings.objects)
    folders = {name: _to_folder(name, getattr(settings, name)) for name in ("spill_path", "feature_cache")}
    return replace(settings, **folders)


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Refuse a value that is none of `choices`, or of another type, as 1 for True."""
    if not any(isinstance(value, type(choice)) and value == choice for choice in choices):
        raise UserError(f"{name}={value!r}: give one of {', '.join(map(str, choices))}")


def check_positive(name: str, value: object) -> None:
    """Refuse all but finite numbers above 0."""
    if not (_is_number(value, Real) and isfinite(value) and value > 0):
        raise UserError(f"{name}={value!r}: give a number above 0")


def check_whole(name: str, value: object, *, most: int | None = None) -> None:
    """Refuse all but whole numbers above 0, up to `most`."""
    if not (_is_number(value, Integral) and value > 0 and (most is None or value <= most)):
        wanted = "a whole number above 0" if most is None else f"a whole number from 1 to {most}"
        raise UserError(f"{name}={value!r}: give {wanted}")


def check_max_objects(value: object) -> None:
    """Refuse all but None and numbers of proposals that masks can have."""
    if value is not None:
        check_whole("max_objects", value, most=MAX_PROPOSALS)


def check_two_sides(name: str, value: object) -> None:
    """Refuse all but None and two whole numbers above 0, (height, width)."""
    if value is not None and not (_is_pair(value, Integral) and min(value) > 0):
        raise UserError(f"{name}={value!r}: give (height, width), two whole numbers above 0, or None")


def check_frame(value: object, count: int) -> None:
    """Refuse all but positions in a video of `count` frames."""
    if not (_is_number(value, Integral) and 0 <= value < count):
        raise UserError(f"frame {value!r}: the video has frames 0 to {count - 1}; give one of these")


def check_point(value: object, size: tuple[int, int]) -> None:
    """Refuse all but (x, y) inside a frame of `size` (height, width)."""
    height, width = size
    if not _is_pair(value, Real):
        raise UserError(f"point {value!r}: give two numbers, (x, y) in pixels")
    if not (0 <= value[0] < width and 0 <= value[1] < height):
        raise UserError(f"point {value!r}: outside the frame of {width}x{height} pixels; give (x, y) inside it")


def _check_clusters(value: object) -> None:
    if not (_is_pair(value, Integral) and 1 <= value[0] <= value[1]):
        raise UserError(f"clusters={value!r}: give two whole numbers above 0, the lower one first, or None")


def _check_objects(value: object) -> None:
    if not (isinstance(value, dict) and value.keys() <= set(STEPS) and all(type(on) is bool for on in value.values())):
        raise UserError(f"objects={value!r}: give a dict of {', '.join(STEPS)} to True or False, or None")


def _to_folder(name: str, value: object) -> Path | None:
    if value is None:
        return None
    try:
        return Path(os.fsdecode(value))
    except TypeError as error:
        raise UserError(f"{name}={value!r}: give the path of a folder, or None") from error


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool | np.bool_)


def _is_pair(value: object, kind: type) -> bool:
    """Say whether a tuple, list or array holds two numbers of a kind."""
    is_sequence = isinstance(value, tuple | list) or (isinstance(value, np.ndarray) and value.ndim == 1)
    return is_sequence and len(value) == 2 and all(_is_number(item, kind) for item in value)
