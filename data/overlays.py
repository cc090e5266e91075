"""Draw the masks of results over the frames of their videos."""

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from data.videos import Video
from utils.png import read_label_png
from utils.results import CONTACT_SHEET, OVERLAYS, ResultsFolder
from utils.scoring.annotations import VOID
from utils.video import write_video
from utils.visual import draw_contact_sheet, draw_overlay, write_picture

SHEET_FRAMES = 4  # of each video on a contact sheet


def draw_results(videos: Sequence[Video], results: ResultsFolder, *, with_overlays: bool) -> None:
    """Write a contact sheet of all videos, and with `with_overlays` each video with its masks; print where all lies.

    Each video is read once for both; without overlays, only the frames of the contact sheet. Masks are those of the
    first kind of predictions; objects that reach the border all around, which are background, are left out.
    """
    rows = (row for video in videos for row in draw_sheet_rows(video, results, with_overlay=with_overlays))
    write_picture(path := results.path / CONTACT_SHEET, draw_contact_sheet(rows))
    print(f"masks: {results.predictions(results.kinds[0])}/<video>/<frame>.png\ncontact sheet: {path}")


def draw_sheet_rows(
    video: Video, results: ResultsFolder, *, with_overlay: bool
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Draw frames spread over a video, bare or with the ground truth if there is any, and with masks.

    With `with_overlay` also write an overlay of all frames to the folder of results, `overlays/<video>.mp4`, or in
    another format if there is no encoder.

    Yields:
        Two rows of the sheet: a title, and pictures (H, W, 3) uint8 RGB.
    """
    count = len(video.frame_names)
    chosen = sorted(set(np.linspace(0, count - 1, SHEET_FRAMES).round().astype(int).tolist()))
    bare, masked = [], []

    def draw(positions: Sequence[int]) -> Iterator[np.ndarray]:
        for index, frame, picture in draw_frames(video, results, positions):
            if index in chosen:
                bare.append(draw_truth(video, index, frame))
                masked.append(picture)
            yield picture

    if with_overlay:
        pictures = tqdm(draw(range(count)), f"overlay {video.name}", count, unit="frame", leave=False)
        path = results.path / OVERLAYS / f"{video.name}.mp4"
        path = write_video(path, pictures, rate=video.frame_rate, pixel_aspect=video.pixel_aspect)
        print(f"overlay: {path}")
    else:
        deque(draw(chosen), maxlen=0)
    yield f"{video.name}: {'frames' if video.annotations is None else 'ground truth'}", bare
    yield f"{video.name}: masks", masked


def draw_frames(
    video: Video, results: ResultsFolder, positions: Sequence[int]
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield the position, the frame, and the frame with its masks, (H, W, 3) uint8 RGB, of each of `positions`."""
    folder = results.predictions(results.kinds[0]) / video.name
    background = results.list_background(video.name)
    for index, tensor in zip(positions, video.read(positions), strict=True):
        frame = tensor.permute(1, 2, 0).numpy()
        labels = read_label_png(folder / f"{video.frame_names[index]}.png")
        yield index, frame, draw_overlay(frame, np.where(np.isin(labels, background), 0, labels))


def draw_truth(video: Video, index: int, frame: np.ndarray) -> np.ndarray:
    """Draw the ground truth of a frame (H, W, 3) uint8 RGB into it, if the video has one for this frame."""
    name = video.frame_names[index]
    if video.annotations is None or name not in video.annotations.frame_names:
        return frame
    labels = video.annotations.read(name)
    return draw_overlay(frame, np.where(labels == VOID, 0, labels))
