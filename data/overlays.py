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
    """Write a contact sheet of all videos, and with `with_overlays` each video with its masks; print where all lies.

    Each video is read once for both; without overlays, only the frames of the contact sheet.

    Args:
        predictions: folder of label PNGs, `<predictions>/<video>/<frame>.png`.
        folder: the folder of results.
    """
    overlays = folder / OVERLAYS if with_overlays else None
    rows = ((video.name, draw_sheet_row(video, predictions, overlays=overlays)) for video in videos)
    write_picture(path := folder / CONTACT_SHEET, draw_contact_sheet(rows))
    print(f"masks: {predictions}/<video>/<frame>.png\ncontact sheet: {path}")


def draw_sheet_row(video: Video, predictions: Path, *, overlays: Path | None) -> list[np.ndarray]:
    """Draw frames spread over a video, (H, W, 3) uint8 RGB; write an overlay of all its frames to `overlays` if given.

    The overlay is `<overlays>/<video>.mp4`, or in another format if there is no encoder.
    """
    count = len(video.frame_names)
    chosen = sorted(set(np.linspace(0, count - 1, SHEET_FRAMES).round().astype(int).tolist()))
    if overlays is None:
        return [picture for _, picture in draw_frames(video, predictions, chosen)]
    row = []

    def draw_all() -> Iterator[np.ndarray]:
        for index, picture in draw_frames(video, predictions, range(count)):
            if index in chosen:
                row.append(picture)
            yield picture

    pictures = tqdm(draw_all(), f"overlay {video.name}", count, unit="frame", leave=False)
    path = write_video(overlays / f"{video.name}.mp4", pictures, rate=video.frame_rate, pixel_aspect=video.pixel_aspect)
    print(f"overlay: {path}")
    return row


def draw_frames(video: Video, predictions: Path, positions: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the position and the frame, (H, W, 3) uint8 RGB with its masks drawn in, of each of `positions`."""
    names = video.frame_names
    for index, frame in zip(positions, video.read(positions), strict=True):
        labels = read_label_png(predictions / video.name / f"{names[index]}.png")
        yield index, draw_overlay(frame.permute(1, 2, 0).numpy(), labels)
