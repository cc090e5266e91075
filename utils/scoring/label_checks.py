"""Check ground truth before scoring: find binary masks in place of object ids, and masks saved with smoothing."""

from collections.abc import Sequence

import numpy as np

from utils.errors import UserError
from utils.progress import log_line
from utils.scoring.annotations import VOID, Annotations, LabelFiles

MANY_IDS = 12  # a frame with fewer ids is not tested for smoothing; few videos have as many objects
THIN = 0.1  # an id with a smaller share of interior pixels is an edge and no object
SHARP = "resize masks with nearest-neighbour interpolation and save them as PNG"
MERGING = ("foreground", "oracle")  # protocols that score a single object


class BinaryMasks:
    """Annotations whose label images hold only 0 and 255, read with 255 as the one object and not as void."""

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
    """Refuse, or warn about, label images that were saved wrongly. Usually reads one frame of each sequence.

    Returns:
        The annotations to score by `protocols`. If all protocols score a single object, sequences of only 0 and 255
        are replaced by `BinaryMasks`.

    Raises:
        UserError: all sequences have only 0 and 255, so every object would be void; or a file cannot be read.
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
        log_line(
            f"warning: {source}: {count} object ids, most of them only along edges{others}: saved with smoothing or "
            f"as JPEG; {SHARP}"
        )
    return _take_binary(annotations, binary, protocols) if binary else annotations


def _take_binary(
    annotations: dict[str, Annotations], binary: dict[str, str], protocols: Sequence[str]
) -> dict[str, Annotations]:
    """Replace or refuse sequences of binary masks. `binary`: sequence -> a file of it that holds only 0 and 255."""
    name, source = next(iter(binary.items()))
    if set(protocols) <= set(MERGING):
        log_line(
            f"note: {source}: holds only 0 and 255, as do {len(binary)} of {len(annotations)} sequences; 255 is taken "
            "for the object there"
        )
        return {k: BinaryMasks(v) if k in binary else v for k, v in annotations.items()}
    if len(binary) == len(annotations):
        raise UserError(f"{source}: holds only 0 and 255, and 255 is void: binary masks? use --protocol foreground, or "
                        "number objects from 1")  # fmt: skip
    log_line(
        f"warning: {source}: {name} holds only 0 and 255, and 255 is void, so there is no object ({len(binary)} such "
        "sequences): binary masks? use --protocol foreground, or number objects from 1"
    )
    return annotations


def first_labels(annotated: Annotations) -> tuple[str, np.ndarray | None]:
    """Return the first frame with an object and its label map; otherwise the first with void, otherwise ("", None)."""
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
    """Tell whether most ids of a label map (H, W) have almost no pixel whose four neighbours have the same id.

    This happens when masks are resized or compressed like photographs: each edge becomes a ramp of ids.
    """
    ids, counts = np.unique(labels, return_counts=True)
    if len(ids) < MANY_IDS:
        return False
    padded = np.pad(labels, 1, mode="edge")
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    inside = np.logical_and.reduce([labels == neighbour for neighbour in neighbours])
    thick = np.bincount(labels[inside], minlength=ids[-1] + 1)[ids] >= THIN * counts
    return bool(thick.sum() < len(ids) / 2)
