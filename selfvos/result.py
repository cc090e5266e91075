"""What the predictor found in a video."""

import os
from dataclasses import dataclass, field

import numpy as np

from data.videos import Video
from model.objects.proposals import Proposals
from selfvos.sources import FrameArray
from utils.files import create_folder
from utils.png import write_label_png


@dataclass(frozen=True)
class Proposal:
    """One object of a video.

    Attributes:
        id: its value in `Result.masks`; 1 is the best.
        score: its objectness, the product of `components`; comparable within a video.
        components: `size`, `border` and `motion`, see docs/method.md, section 9.
        share: of all tokens of the video, in (0, 1].
        frames: number of frames that it occurs in, counted on the token grid.
        first, last: positions of the first and the last of these frames, from 0.
    """

    id: int
    score: float
    components: dict[str, float]
    share: float
    frames: int
    first: int
    last: int


@dataclass(frozen=True, eq=False)
class Result:
    """Masks and proposals of a video of T frames of H x W pixels. The two masks take 2 bytes a pixel.

    Attributes:
        masks: (T, H, W) uint8, the object of every pixel: 0 background, 1 the best object.
        foreground: (T, H, W) bool, what stands out, chosen apart from `masks` (docs/method.md, section 9).
        proposals: the objects in `masks`, the best first.
        seconds: time of each stage.
        tau: threshold of the clustering, in nats.
        num_clusters: number of clusters that the objects were made of.
        resolution: (height, width) in pixels at which the network saw the frames.
        key_frames: positions of the key frames, to which attention is paid.
        frame_names: names of the image files without ending, or 00000, 00001, ...
        source: the video; `source.read()` yields its frames again, (3, H, W) uint8 RGB.
    """

    masks: np.ndarray
    foreground: np.ndarray
    proposals: list[Proposal]
    seconds: dict[str, float]
    tau: float
    num_clusters: int
    resolution: tuple[int, int]
    key_frames: list[int]
    frame_names: list[str]
    source: Video | FrameArray = field(repr=False)

    def save(self, folder: str | os.PathLike) -> None:
        """Write `masks` as indexed PNGs `<frame name>.png`, like those of eval.py, into a new folder.

        Raises:
            UserError: the folder exists.
        """
        with create_folder(folder, flag="folder") as temporary:
            for name, mask in zip(self.frame_names, self.masks, strict=True):
                write_label_png(temporary / f"{name}.png", mask)


def list_proposals(proposals: Proposals, kind: str) -> list[Proposal]:
    """List the proposals of a kind, the best first."""
    found = []
    for entry in proposals.describe()[kind]:
        components = {name: entry[name] for name in proposals.components[kind]}
        (label,) = np.flatnonzero(proposals.ids[kind] == entry["id"])
        frames = np.flatnonzero((proposals.labels == label).any(axis=(1, 2)))
        found.append(Proposal(entry["id"], entry["score"], components, entry["share"], len(frames), int(frames[0]),
                              int(frames[-1])))  # fmt: skip
    return found
