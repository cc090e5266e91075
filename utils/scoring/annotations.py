"""Ground truth as scoring sees it: label maps of some frames of a sequence, whatever files they come from."""

from pathlib import Path
from typing import Protocol

import numpy as np

from utils.errors import UserError
from utils.files import digest_files
from utils.png import find_pngs, read_label_png

VOID = 255
MAX_OBJECTS = VOID - 1


class Annotations(Protocol):
    """Ground truth of one sequence. Implementations are small and can be pickled: scoring sends them to processes."""

    @property
    def frame_names(self) -> list[str]:
        """Names of the annotated frames in order, at least one; the results of a frame are `<name>.png`."""
        ...

    def read(self, frame: str) -> np.ndarray:
        """(H, W) int32: 0 background, objects from 1, 255 void. Raises `UserError` that names the file at fault."""
        ...

    def source(self, frame: str) -> str:
        """What `read` reads, for messages."""
        ...

    def digest(self) -> str:
        """Changes with the content, so that scores of another ground truth are never taken for this one's."""
        ...


class LabelFiles:
    """An image of object ids for each annotated frame; 255 is void.

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


def find_label_files(folder: Path, *, flag: str = "--annotations") -> LabelFiles:
    """The label PNGs of a folder, each of a frame of the same name; 2.png comes before 10.png.

    Raises:
        UserError: no such folder, no PNG in it, or two of one name; it names the `flag` to check.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such annotation folder; check {flag}")
    if not (files := find_pngs(folder)):
        raise UserError(f"{folder}: no PNG annotations in this folder; check {flag}")
    return LabelFiles(files)
