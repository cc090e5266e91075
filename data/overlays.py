"""Draw the masks of results over the frames of their videos."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.videos import Video
from utils.png import read_label_png
from utils.results import CONTACT_SHEET, OVERLAYS
from utils.video import write_video
from utils.visual import draw_contact_sheet, draw_overlay, write_picture

SHEET_FRAMES = 4  # of each video on a contact sheet


def draw_results(videos: Sequence[Video], predictions: Path, folder: Path, *, with_overlays: bool) -> None:
    """Write a contact sheet of all videos, and with `with_overlays` each video with its masks; print their paths.

    Args:
        predictions: folder of label PNGs, `<predictions>/<video>/<frame>.png`.
        folder: the folder of results.
    """
    for video in videos if with_overlays else ():
        print(f"overlay: {write_overlay(video, predictions, folder / OVERLAYS)}")
    rows = ((video.name, list(draw_frames(video, predictions, count=SHEET_FRAMES))) for video in videos)
    write_picture(path := folder / CONTACT_SHEET, draw_contact_sheet(rows))
    print(f"contact sheet: {path}")


def write_overlay(video: Video, predictions: Path, folder: Path) -> Path:
    """Write a video of the frames with their masks, `<folder>/<video>.mp4` or in another format; return its path."""
    count = len(video.frame_names)
    frames = tqdm(draw_frames(video, predictions), f"overlay {video.name}", count, unit="frame", leave=False)
    path = folder / f"{video.name}.mp4"
    return write_video(path, frames, rate=video.frame_rate, pixel_aspect=video.pixel_aspect)


def draw_frames(video: Video, predictions: Path, *, count: int | None = None) -> Iterator[np.ndarray]:
    """Yield frames (H, W, 3) uint8 RGB with their masks drawn in: all of them, or `count` spread over the video."""
    names = video.frame_names
    chosen = set(np.linspace(0, len(names) - 1, count or len(names)).round().astype(int).tolist())
    for index, frame in enumerate(video.read()):
        if index in chosen:
            labels = read_label_png(predictions / video.name / f"{names[index]}.png")
            yield draw_overlay(frame.permute(1, 2, 0).numpy(), labels)
