"""Masks to look at: overlays, an overlay video, a contact sheet."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from utils.errors import UserError
from utils.png import palette


def overlay(frame: np.ndarray, labels: np.ndarray, *, alpha: float = 0.5) -> np.ndarray:
    """Label map (H, W) over a frame (H, W, 3) uint8 RGB, outlines drawn full; background (0) as it is."""
    colours = palette()[labels % 256]
    mixed = np.where(labels[..., None] > 0, (1 - alpha) * frame + alpha * colours, frame).astype(np.uint8)
    edge = np.zeros(labels.shape, dtype=bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    mixed[edge] = 255
    return mixed


def write_video(path: Path, frames: Iterable[np.ndarray], *, fps: float = 24.0) -> None:
    """Frames (H, W, 3) uint8 RGB to an .mp4, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    writer = None
    for frame in frames:
        if writer is None:
            writer = cv2.VideoWriter(str(partial), cv2.VideoWriter_fourcc(*"mp4v"), fps, frame.shape[1::-1])
            if not writer.isOpened():
                raise UserError(f"{path}: OpenCV cannot write this video; check that the folder is writable")
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    partial.replace(path)


def contact_sheet(rows: Iterable[tuple[str, list[np.ndarray]]], *, cell_width: int = 320) -> np.ndarray:
    """One row of pictures per name. rows: (name, pictures (H, W, 3) uint8). Returns one picture, RGB uint8."""
    drawn = []
    for name, pictures in rows:
        cells = []
        for picture in pictures:
            height = round(picture.shape[0] * cell_width / picture.shape[1])
            cells.append(cv2.resize(picture, (cell_width, height), interpolation=cv2.INTER_AREA))
        row = np.concatenate(cells, axis=1)
        cv2.rectangle(row, (0, 0), (12 + 10 * len(name), 24), (0, 0, 0), -1)
        cv2.putText(row, name, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
        drawn.append(row)
    width = max(row.shape[1] for row in drawn)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in drawn])


def write_picture(path: Path, picture: np.ndarray) -> None:
    """(H, W, 3) uint8 RGB to an image file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise UserError(f"{path}: cannot be written; check the folder and its free space")
