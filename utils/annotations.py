"""Ground truth as scoring sees it: label maps of some frames of a sequence, whatever files they come from."""

import hashlib
from pathlib import Path
from typing import Protocol

import numpy as np

from utils.errors import UserError
from utils.png import read_label_png


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


class LabelFolder:
    """A folder of label PNGs, one for each annotated frame.

    Args:
        folder: holds `<frame>.png`.
        merged: every id above 0 is the one foreground object; then 255 is foreground too, not void.
        flag: the option to check when the folder is missing, for messages.

    Raises:
        UserError: no such folder, or no PNG in it.
    """

    def __init__(self, folder: Path, *, merged: bool = False, flag: str = "--annotations"):
        self.folder = Path(folder)
        self.merged = merged
        if not self.folder.is_dir():
            raise UserError(f"{folder}: no such annotation folder; check {flag}")
        self._names = sorted(path.stem for path in self.folder.glob("*.png") if not path.name.startswith("."))
        if not self._names:
            raise UserError(f"{folder}: no PNG annotations in this folder; check {flag}")

    @property
    def frame_names(self) -> list[str]:
        return self._names

    def read(self, frame: str) -> np.ndarray:
        labels = read_label_png(self.folder / f"{frame}.png")
        return (labels > 0).astype(np.int32) if self.merged else labels

    def source(self, frame: str) -> str:
        return str(self.folder / f"{frame}.png")

    def digest(self) -> str:
        return digest_files([self.folder / f"{name}.png" for name in self._names], self.merged)


def digest_files(paths: list[Path], *settings: object) -> str:
    """Hash of the names and bytes of files, and of the settings they are read with. A missing file counts as such."""
    digest = hashlib.blake2b(repr(settings).encode(), digest_size=16)
    for path in paths:
        content = path.read_bytes() if path.is_file() else b"missing"
        digest.update(f"{path.name}:{len(content)}:".encode())
        digest.update(content)
    return digest.hexdigest()
