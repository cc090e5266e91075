"""Draw the masks of results over the frames of their videos: overlays of each video, and a contact sheet of all."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from data.videos import Video
from utils.clock import Clock
from utils.files import digest_files, write_atomically
from utils.png import read_label_png
from utils.predictions import FOREGROUND
from utils.report.jpegs import keep_frames
from utils.results import CONTACT_SHEET, OVERLAYS, ResultsFolder
from utils.scoring.annotations import VOID
from utils.video import open_video
from utils.visual import CELL_WIDTH, draw_contact_sheet, draw_overlay, resize_to_width, write_picture

SHEET_FRAMES = 4  # of each video on a contact sheet
SHEET_VIDEOS = 200  # on a contact sheet, the first of more; its rows, 2 MB a video, are in memory until it is drawn
SHEET_DIGEST = ".contact_sheet.digest"  # of what the contact sheet shows
OVERLAY, SIDE_BY_SIDE = "", ".side_by_side"  # ends of the stems of the two files
PRESETS = {OVERLAY: "fast", SIDE_BY_SIDE: "veryfast"}  # of their encoder; frames side by side have twice the pixels
SUFFIXES = (".mp4", ".webm")  # that they can have
LabelMaps = Iterator[dict[str, np.ndarray]]  # one a frame: kind of predictions -> (H, W) int


class Illustrator:
    """Draw overlays of each video if asked to, frames of it on the contact sheet, and its frames for the report.

    Videos are drawn while their label maps are made, so that they are not decoded again. Drawn are the masks of the
    first kind of predictions; those that are background are left out.

    Args:
        results: the folder of results.
        with_overlays: write frames with masks as `overlays/<video>.mp4`, and beside the bare frames as
            `overlays/<video>.side_by_side.mp4`; in another format if there is no encoder.
        pixels: of every frame of the report, about.
    """

    def __init__(self, results: ResultsFolder, *, with_overlays: bool, pixels: int):
        self.results = results
        self.with_overlays = with_overlays
        self.pixels = pixels
        self.rows: dict[str, list[tuple[str, list[np.ndarray]]]] = {}  # of the contact sheet, by video

    def draw_along(
        self, video: Video, make_maps: Callable[[Iterable[Tensor]], LabelMaps], *, background: list[int],
        key_frames: Sequence[int], clock: Clock,
    ) -> LabelMaps:  # fmt: skip
        """Read a video once, yield the label maps that `make_maps` makes of its frames, and draw them on the way.

        Args:
            background: labels that are not drawn.
            key_frames: positions of frames that the report shows in any case.
            clock: measures the stages "upsample" and "draw".
        """
        waiting: deque[Tensor] = deque()  # frames whose label map is not made yet; they are read in another thread

        def remember_frames() -> Iterator[Tensor]:
            for frame in video.read():
                waiting.append(frame)
                yield frame

        with (
            self._open_drawing(video, background, with_overlay=self.with_overlays) as draw,
            keep_frames(self.results.path, video, pixels=self.pixels, key_frames=key_frames) as keep,
        ):
            for index, maps in enumerate(clock.iterate("upsample", make_maps(remember_frames()))):
                with clock("draw"):
                    frame = waiting.popleft().permute(1, 2, 0).numpy()
                    draw(index, frame, maps[self.results.kinds[0]])
                    keep(index, frame)
                yield maps
        if len(self.rows) > SHEET_VIDEOS:
            del self.rows[video.name]  # drawn again if it belongs on the sheet

    def finish(self, videos: Iterable[Video]) -> None:
        """Draw what is missing from finished results, write the contact sheet, and print where all lies."""
        videos = list(videos)
        for video in videos:
            if self._lacks_overlay(video.name):
                self._draw_finished(video)
            if self.with_overlays:
                print(f"overlay: {self._find_overlay(video.name, OVERLAY)}")
                print(f"side by side: {self._find_overlay(video.name, SIDE_BY_SIDE)}")
        path = self._update_sheet(videos[:SHEET_VIDEOS])
        name = videos[0].name if len(videos) == 1 else "<video>"
        for kind in self.results.kinds:
            word = "foreground" if kind == FOREGROUND else "masks"
            print(f"{word}: {self.results.predictions(kind) / name}/<frame>.png")
        part = f" (the first {SHEET_VIDEOS} of {len(videos)} videos)" if len(videos) > SHEET_VIDEOS else ""
        print(f"contact sheet: {path}{part}")

    def _update_sheet(self, videos: list[Video]) -> Path:
        """Write the contact sheet unless that there shows the same, which takes seconds, and return its path."""
        path, digest = self.results.path / CONTACT_SHEET, self._digest_sheet(videos)
        marker = self.results.path / SHEET_DIGEST
        if path.is_file() and marker.is_file() and marker.read_text() == digest:
            return path
        marker.unlink(missing_ok=True)
        for video in videos:
            if video.name not in self.rows:
                self._draw_finished(video)
        write_picture(path, draw_contact_sheet(row for video in videos for row in self.rows[video.name]))
        with write_atomically(marker) as temporary:
            temporary.write_text(digest)
        return path

    def _digest_sheet(self, videos: list[Video]) -> str:
        """Hash all that the contact sheet shows: frames, ground truth, and masks without background."""
        settings, files = [SHEET_FRAMES, CELL_WIDTH], []
        for video in videos:
            truth = video.annotations.digest() if video.annotations else ""
            settings += [video.name, video.fingerprint, truth, self.results.list_background(video.name)]
            folder = self.results.predictions(self.results.kinds[0]) / video.name
            files += [folder / f"{video.frame_names[index]}.png" for index in _choose_sheet_frames(video)]
        return digest_files(files, *settings)

    def _draw_finished(self, video: Video) -> None:
        """Draw a video from its label PNGs; without a missing overlay only the frames of the contact sheet are read."""
        folder = self.results.predictions(self.results.kinds[0]) / video.name
        with_overlay = self._lacks_overlay(video.name)
        positions = range(len(video.frame_names)) if with_overlay else _choose_sheet_frames(video)
        bar = tqdm(
            positions, f"overlay {video.name}", unit="frame", leave=False, disable=None if with_overlay else True
        )
        background = self.results.list_background(video.name)
        with self._open_drawing(video, background, with_overlay=with_overlay) as draw:
            for index, frame in zip(bar, video.read(positions), strict=True):
                draw(index, frame.permute(1, 2, 0).numpy(), read_label_png(folder / f"{video.frame_names[index]}.png"))

    @contextmanager
    def _open_drawing(
        self, video: Video, background: list[int], *, with_overlay: bool
    ) -> Iterator[Callable[[int, np.ndarray, np.ndarray], None]]:
        """Yield a function that draws a frame, given as position, frame (H, W, 3) uint8 and label map (H, W).

        After the last frame, the rows of the contact sheet are complete and the overlays are in their place.
        """
        chosen = _choose_sheet_frames(video)
        bare, masked, writers = [], [], []

        def draw(index: int, frame: np.ndarray, labels: np.ndarray) -> None:
            if not writers and index not in chosen:
                return
            picture = draw_overlay(frame, np.where(np.isin(labels, background), 0, labels))
            for write, shown in zip(writers, (picture, np.concatenate([frame, picture], axis=1)), strict=False):
                write(shown)
            if index in chosen:
                bare.append(resize_to_width(draw_truth(video, index, frame), CELL_WIDTH))
                masked.append(resize_to_width(picture, CELL_WIDTH))

        with ExitStack() as stack:
            for end, preset in PRESETS.items() if with_overlay else ():
                path = self.results.path / OVERLAYS / f"{video.name}{end}.mp4"
                options = {"rate": video.frame_rate, "pixel_aspect": video.pixel_aspect, "preset": preset}
                _, write = stack.enter_context(open_video(path, **options))
                writers.append(write)
            yield draw
        title = "frames" if video.annotations is None else "ground truth"
        self.rows[video.name] = [(f"{video.name}: {title}", bare), (f"{video.name}: masks", masked)]

    def _lacks_overlay(self, name: str) -> bool:
        """Tell whether one of the overlays of a video is wanted but missing."""
        return self.with_overlays and not all(self._find_overlay(name, end) for end in PRESETS)

    def _find_overlay(self, name: str, end: str) -> Path | None:
        paths = (self.results.path / OVERLAYS / f"{name}{end}{suffix}" for suffix in SUFFIXES)
        return next((path for path in paths if path.is_file()), None)


def _choose_sheet_frames(video: Video) -> list[int]:
    """Choose the positions of the frames for the contact sheet, spread over the video."""
    places = np.linspace(0, len(video.frame_names) - 1, SHEET_FRAMES)
    return sorted(set(places.round().astype(int).tolist()))


def draw_truth(video: Video, index: int, frame: np.ndarray) -> np.ndarray:
    """Draw the ground truth of a frame (H, W, 3) uint8 RGB into it, if the video has one for this frame."""
    name = video.frame_names[index]
    if video.annotations is None or name not in video.annotations.frame_names:
        return frame
    labels = video.annotations.read(name)
    return draw_overlay(frame, np.where(labels == VOID, 0, labels))
