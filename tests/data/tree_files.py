"""The little video that every tiny tree holds, and ways to write its frames, labels, masks and lists."""

import io
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from utils.png import write_label_png

SIZE = (12, 18)
FRAMES = ["00000", "00001", "00002", "00003"]


def labels_of(index: int, *, void: bool = False) -> np.ndarray:
    """(H, W) uint8 ids of frame `index`: two boxes that drift."""
    labels = np.zeros(SIZE, np.uint8)
    labels[2:6, 1 + index : 6 + index] = 1
    labels[7:11, 12 - index : 16 - index] = 2
    if void:
        labels[0, 0] = 255
    return labels


def frame_of(index: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB of frame `index`."""
    colours = np.array([[30, 60, 90], [230, 40, 40], [40, 220, 40]], np.uint8)
    return colours[labels_of(index)]


@cache
def picture(index: int, ending: str) -> bytes:
    """Frame `index` as a file with this ending holds it."""
    buffer = io.BytesIO()
    Image.fromarray(frame_of(index)).save(buffer, Image.registered_extensions()[ending])
    return buffer.getvalue()


def write_frames(folder: Path, names: list[str], ending: str = ".jpg") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        (folder / f"{name}{ending}").write_bytes(picture(index, ending))


def write_labels(folder: Path, names: list[str], *, of: list[str] | None = None, void: bool = False, ending="") -> None:
    """Indexed PNGs; `of`: the frames of the video, where they are not the same."""
    for name in names:
        write_label_png(folder / f"{name}{ending}.png", labels_of((of or names).index(name), void=void))


def write_masks(folder: Path, names: list[str], ids: tuple[int, ...], ending: str = ".png", *, rgb: bool = False):
    """Grey masks of 0 and 255: where one of `ids` is."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        mask = Image.fromarray((np.isin(labels_of(index), ids) * 255).astype(np.uint8))
        (mask.convert("RGB") if rgb else mask).save(folder / f"{name}{ending}")


def write_list(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
