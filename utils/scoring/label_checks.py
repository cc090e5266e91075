"""Look at ground truth before it is scored: binary masks where object ids belong, and masks saved with smoothing."""

import sys
from collections.abc import Sequence

import numpy as np

from utils import distributed
from utils.errors import UserError
from utils.scoring.annotations import VOID, Annotations, LabelFiles

MANY_IDS = 12  # of a frame that may have been smoothed; few videos have as many objects
THIN = 0.1  # share of an id's pixels that lie inside of it, below which it is no object but an edge
SHARP = "resize masks with nearest-neighbour interpolation and save them as PNG"
MERGING = ("foreground", "oracle")  # protocols that know one object only


class BinaryMasks:
    """Masks of 0 and 255 in which 255 is the one object, not void: other annotations of label images, read so."""

    def __init__(self, masks: Annotations):
        self.masks = masks

    @property
    def frame_names(self) -> list[str]:
        return self.masks.frame_names

    def read(self, frame: str) -> np.ndarray:
        return (self.masks.read(frame) > 0).astype(np.int32)

    def source(self, frame: str) -> str:
        return self.masks.source(frame)

    def digest(self) -> str:
        return f"binary {self.masks.digest()}"


def check_labels(annotations: dict[str, Annotations], protocols: Sequence[str]) -> dict[str, Annotations]:
    """Refuse or warn about label images that cannot be meant as they are; of a sequence one frame is read, mostly.

    Returns:
        The annotations to score by `protocols`: where none of these tells objects apart, 255 is the object in
        sequences of nothing but 0 and 255.

    Raises:
        UserError: every sequence has but 0 and 255, so that all objects would be void; or a file cannot be read.
    """
    smoothed, binary = [], {}
    for name, annotated in annotations.items():
        if not isinstance(annotated, LabelFiles):
            continue
        frame, labels = first_labels(annotated)
        if labels is None:
            continue
        if set(np.unique(labels)) <= {0, VOID}:
            binary[name] = annotated.source(frame)
        elif is_smoothed(labels):
            smoothed.append((annotated.source(frame), len(np.unique(labels)) - 1))
    if smoothed:
        source, count = smoothed[0]
        others = f" and in {len(smoothed) - 1} other sequences" * (len(smoothed) > 1)
        _say(f"warning: {source}: {count} object ids, most of them only along edges{others}: saved with smoothing or "
             f"as JPEG; {SHARP}")  # fmt: skip
    return _take_binary(annotations, binary, protocols) if binary else annotations


def _take_binary(
    annotations: dict[str, Annotations], binary: dict[str, str], protocols: Sequence[str]
) -> dict[str, Annotations]:
    """`binary`: sequence -> a file of it that holds but 0 and 255."""
    name, source = next(iter(binary.items()))
    if set(protocols) <= set(MERGING):
        _say(f"note: {source}: holds only 0 and 255, as do {len(binary)} of {len(annotations)} sequences; 255 is taken "
             "for the object there")  # fmt: skip
        return {k: BinaryMasks(v) if k in binary else v for k, v in annotations.items()}
    if len(binary) == len(annotations):
        raise UserError(f"{source}: holds only 0 and 255, and 255 is void: binary masks? use --protocol foreground, or "
                        "number objects from 1")  # fmt: skip
    _say(f"warning: {source}: {name} holds only 0 and 255, and 255 is void, so there is no object ({len(binary)} such "
         "sequences): binary masks? use --protocol foreground, or number objects from 1")  # fmt: skip
    return annotations


def first_labels(annotated: Annotations) -> tuple[str, np.ndarray | None]:
    """The first frame with an object and its label map; else the first with void, else none."""
    void = "", None
    for frame in annotated.frame_names:
        labels = annotated.read(frame)
        values = np.unique(labels)
        if values[-1] > 0 and not set(values) <= {0, VOID}:
            return frame, labels
        if values[-1] == VOID and void[1] is None:
            void = frame, labels
    return void


def is_smoothed(labels: np.ndarray) -> bool:
    """Whether most ids of a label map (H, W) have hardly a pixel whose four neighbours are of the same id.

    So it is where masks were resized or compressed like pictures: each edge becomes a ramp of ids.
    """
    ids, counts = np.unique(labels, return_counts=True)
    if len(ids) < MANY_IDS:
        return False
    padded = np.pad(labels, 1, mode="edge")
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    inside = np.logical_and.reduce([labels == neighbour for neighbour in neighbours])
    thick = np.bincount(labels[inside], minlength=ids[-1] + 1)[ids] >= THIN * counts
    return bool(thick.sum() < len(ids) / 2)


def _say(line: str) -> None:
    if distributed.is_main():
        print(line, file=sys.stderr, flush=True)
