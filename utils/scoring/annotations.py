"""Ground truth for scoring: label maps of some frames of a sequence, read from files of any format."""

from pathlib import Path
from typing import Protocol

import numpy as np

from utils.errors import UserError
from utils.files import digest_files
from utils.png import find_pngs, read_label_png

VOID = 255
MAX_OBJECTS = VOID - 1


class Annotations(Protocol):
    """Ground truth of one sequence. Implementations can be pickled, since scoring sends them to other processes."""

    @property
    def frame_names(self) -> list[str]:
        """Names of the annotated frames in order, at least one; the result of a frame is `<name>.png`."""
        ...

    def read(self, frame: str) -> np.ndarray:
        """Read a label map (H, W) int32: 0 background, objects from 1, 255 void.

        Raises:
            UserError: the file is damaged or holds other values; names it.
        """
        ...

    def source(self, frame: str) -> str:
        """Name the file that `read` reads, for messages."""
        ...

    def digest(self) -> str:
        """Hash the content, so that saved scores of another ground truth are not reused."""
        ...


class LabelFiles:
    """Ground truth in an image of object ids for each annotated frame; 255 is void.

    Args:
        files: frame name -> PNG, in order.
    """

    def __init__(self, files: dict[str, Path]):
        self.files = files

    @property
    def frame_names(self) -> list[str]:
        return list(self.files)

    def read(self, frame: str) -> np.ndarray:
        labels = read_label_png(self.files[frame])
        if labels.max(initial=0) > VOID:
            raise UserError(f"{self.files[frame]}: holds id {labels.max()}; number objects 1 to {MAX_OBJECTS} "
                            f"({VOID} is void)")  # fmt: skip
        return labels

    def source(self, frame: str) -> str:
        return str(self.files[frame])

    def digest(self) -> str:
        return digest_files(list(self.files.values()), "labels")


def find_label_files(folder: Path) -> LabelFiles:
    """Find the label PNGs of a folder, one for each frame of the same name; 2.png comes before 10.png.

    Raises:
        UserError: there is no such folder, no PNG in it, or two of one name; names the flag to check.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such annotation folder; check --annotations")
    if not (files := find_pngs(folder)):
        raise UserError(f"{folder}: no PNG annotations in this folder; check --annotations")
    return LabelFiles(files)
