"""Turn a video and its masks into the files of a page: JPEG frames, masks as PNG in a script, figures over time."""

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.errors import UserError
from utils.files import digest_files
from utils.png import find_pngs, read_label_png
from utils.report import jpegs
from utils.report.attention import ABOUT as EXPLANATION
from utils.report.attention import link_explanation
from utils.report.results import Results, choose_main_protocol, is_background
from utils.report.sources import Source
from utils.scoring.annotations import VOID, Annotations
from utils.scoring.protocols import PROTOCOLS
from utils.visual import make_distinct_colours

VERSION = 5  # raise it with every change of the files; reports of older versions are then made again
ABOUT, DATA = "about.json", "data.js"
PICTURES = ("frame", "truth", "masks")  # small ones, for the list of videos


@dataclass(frozen=True)
class About:
    """What a report keeps of a video beside its pictures and masks.

    Attributes:
        digest: of `compute_digest`.
        frames: number of frames of the video.
        names: of the frames that are shown.
        pictures: those of `PICTURES` that there are; "frame" only if the frames are shown.
        attention: JPEGs of the key frames; empty without frames, None without --explore.
    """

    digest: str
    frames: int
    names: list[str]
    pictures: list[str]
    attention: list[str] | None = None

    def __post_init__(self) -> None:
        lists = (self.names, self.pictures, [] if self.attention is None else self.attention)
        known = isinstance(self.digest, str) and isinstance(self.frames, int)
        if not known or not all(isinstance(each, list) for each in lists):
            raise TypeError("about.json has a value of another type")


def read_about(folder: Path) -> About | None:
    """Read what a report keeps of the video in `folder`; None if that is missing, damaged, or of an older version."""
    try:
        return About(**json.loads((folder / ABOUT).read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def compute_digest(source: Source, results: Results, *, pixels: int) -> str:
    """Hash everything that the files of a video depend on, so that they are made again only if it has changed."""
    files = [*find_pngs(results.predictions / source.name).values(), results.path / f"stats/{source.name}.json"]
    files += results.find_scores(source.name).values()
    files += find_pngs(results.foreground / source.name).values() if results.foreground else []
    files += [path] if (path := results.explanation(source.name) / EXPLANATION).is_file() else []
    truth = source.annotations.digest() if source.annotations else ""
    text = repr((VERSION, jpegs.LIMITS, pixels, digest_files(files), source.fingerprint, truth))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def write_video(folder: Path, source: Source, results: Results, *, pixels: int, digest: str) -> None:
    """Write the frames, the data and the small pictures of a video to an existing folder.

    Only one frame is in memory at a time. Frames are decoded only if eval.py has not kept them while it made the masks.

    Args:
        pixels: number of pixels of every frame, about.
        digest: of `compute_digest`; kept in `about.json`.

    Raises:
        UserError: a frame or mask is missing, damaged, or of another size than the others.
    """
    positions = jpegs.choose_positions(len(source.frame_names))
    names = [source.frame_names[position] for position in positions]
    explained = (kept := results.explanation(source.name)).is_dir()
    key_frames = link_explanation(folder, kept) if explained else []
    frames = jpegs.take_frames(folder, source, results.path, pixels=pixels, key_frames=key_frames)
    scores, protocol = _choose_scores(results, source.name)
    curves = ScoreCurves(scores, source.annotations, protocol)
    poster, (_, told) = jpegs.choose_poster(names, source.annotations), results.read_stats(source.name)
    foregrounds = _read_masks(source, results.foreground, positions, frames) if results.foreground else None
    masks, truths, areas, foreground, size = [], [], [], [], (0, 0)
    for index, labels in enumerate(_read_masks(source, results.predictions, positions, frames)):
        size = size if index else jpegs.choose_size(labels.shape, pixels, source.pixel_aspect)
        truth = curves.add(names[index], labels)
        areas.append(np.bincount(labels.ravel()) / labels.size)
        small = _resize_labels(labels, size)
        masks.append(_encode_labels(small))
        foreground += [_encode_mask(_resize_labels(next(foregrounds), size))] if foregrounds else []
        small_truth = None if truth is None else _resize_labels(truth, size)
        truths.append(None if truth is None else _encode_labels(small_truth))
        if index == poster:
            background = [id_ for id_, about in told.items() if is_background(about, kind=results.kind)]
            shown = np.where(np.isin(small, background), 0, small)
            pictures = _write_pictures(folder, frames and frames.poster, shown, small_truth)
    data = {
        "video": source.name, "size": size, "count": len(names), "total": len(source.frame_names),
        "positions": positions, "names": names, "rate": float(source.frame_rate) * len(names) / len(source.frame_names),
        "frames": frames is not None, "masks": masks, "foreground": foreground or None,
        "truth": truths if any(truths) else None,
        "proposals": _describe_proposals(told, areas, results), "scores": curves.describe(),
    }  # fmt: skip
    (folder / DATA).write_text(f"addRun({json.dumps(data, separators=(',', ':'))});\n", encoding="utf-8")
    attention = [frames.files[position] for position in key_frames] if frames and explained else []
    about = About(digest, len(source.frame_names), names, pictures, attention if explained else None)
    (folder / ABOUT).write_text(json.dumps(asdict(about), indent=1) + "\n", encoding="utf-8")


def _read_masks(
    source: Source, predictions: Path, positions: Sequence[int], frames: jpegs.ReportFrames | None
) -> Iterator[np.ndarray]:
    """Yield the label map (H, W) int32 in a folder of predictions at each position, of the size of the frame there."""
    there, shape = find_pngs(predictions / source.name), None
    for position in positions:
        name = source.frame_names[position]
        path = there.get(name, predictions / source.name / f"{name}.png")
        labels = read_label_png(path)
        shape = shape or labels.shape
        if labels.shape != shape:
            raise UserError(f"{path}: {_format(labels.shape)} pixels, but the masks before it have {_format(shape)}; "
                            "a video has masks of one size")  # fmt: skip
        if frames is not None and frames.shapes[position] != shape:
            raise UserError(f"{path}: {_format(shape)} pixels, but its frame has {_format(frames.shapes[position])}; "
                            "give the frames that it was made of")  # fmt: skip
        yield labels


def _format(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"


# ------------------------------------------------------------------ figures


def _choose_scores(results: Results, video: str) -> tuple[Any, str | None]:
    """Choose the scores of which J over time is drawn: those of the kind of predictions that is shown."""
    scores = results.read_scores(video)
    fitting = {name for name in scores if results.kind in (None, PROTOCOLS[name].predictions)}
    protocol = choose_main_protocol(fitting)
    return scores.get(protocol), protocol


class ScoreCurves:
    """J of every object over the frames, with the proposals that were matched to it when the results were scored.

    Args:
        scores: of the video, or None; J of single frames is not saved with them and computed again here.
        annotations: ground truth, or None.
        protocol: name of the protocol of `scores`.
    """

    def __init__(self, scores: Any, annotations: Annotations | None, protocol: str | None):
        self.scores = scores
        self.annotations = annotations
        self.protocol = protocol
        self.annotated = {name: k for k, name in enumerate(annotations.frame_names)} if annotations else {}
        merged = protocol in ("foreground", "oracle")
        self.num_objects = 0 if scores is None else min(len(scores.j), 1) if merged else len(scores.j)
        self.merged = merged
        self.j: list[list[float | None]] = [[] for _ in range(self.num_objects)]
        self.matched: list[list[int | None]] = [[] for _ in range(self.num_objects)]

    def add(self, name: str, labels: np.ndarray) -> np.ndarray | None:
        """Add the next frame; return its ground truth (H, W), None if there is none.

        Raises:
            UserError: masks and ground truth differ in size.
        """
        if name not in self.annotated:
            for values in (*self.j, *self.matched):
                values.append(None)
            return None
        truth = self.annotations.read(name)
        if truth.shape != labels.shape:
            raise UserError(f"{self.annotations.source(name)}: {_format(truth.shape)} pixels, but the masks have "
                            f"{_format(labels.shape)}; give the ground truth of these masks")  # fmt: skip
        known = truth != VOID
        for k in range(self.num_objects):
            proposal = self._find_match(k, self.annotated[name])
            if self.merged:
                wanted = np.isin(labels, np.add(self.scores.assignment, 1)) if self.protocol == "oracle" else labels > 0
                object_ = truth > 0
            else:
                wanted, object_ = labels == (-1 if proposal is None else proposal + 1), truth == k + 1
            self.matched[k].append(None if proposal is None else proposal + 1)
            self.j[k].append(_compute_j(object_ & known, wanted & known))
        return truth

    def _find_match(self, k: int, frame: int) -> int | None:
        """Find the proposal (id minus one) that was matched to the object `k`, in one of the annotated frames."""
        if self.merged:
            return None
        return self.scores.assignment[frame][k] if self.protocol == "paper" else self.scores.assignment[k]

    def describe(self) -> dict[str, Any] | None:
        """Describe J of every object over the shown frames, and the scores; None if the video was not scored."""
        if self.scores is None or not self.num_objects:
            return None
        objects = []
        for k in range(self.num_objects):
            j = [None if value is None else round(value, 4) for value in self.j[k]]
            mean = {"J": self.scores.j[k].mean, "F": self.scores.f[k].mean}
            objects.append({"id": k + 1, "matched": self.matched[k], "j": j, **mean})
        return {"protocol": self.protocol, "merged": self.merged, "objects": objects}


def _compute_j(first: np.ndarray, second: np.ndarray) -> float:
    """Compute the IoU of two masks (H, W) bool; 1 for two empty ones, as `utils.scoring.metrics` does."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


def _describe_proposals(
    told: dict[int, dict[str, Any]], areas: list[np.ndarray], results: Results
) -> list[dict[str, Any]]:
    """Describe each proposal: score and components as eval.py recorded them, share of the pixels of every frame.

    Args:
        told: id -> what eval.py recorded, see `Results.read_stats`.
        areas: of each frame, the share of the pixels of each label, (labels,) float.
    """
    width = max(len(area) for area in areas)
    table = np.stack([np.pad(area, (0, width - len(area))) for area in areas])
    found = []
    for id_ in sorted({*told, *(np.flatnonzero(table[:, 1:].any(axis=0)) + 1).tolist()}):
        shares = table[:, id_] if id_ < width else np.zeros(len(areas))
        visible = np.flatnonzero(shares)
        about = told.get(id_, {})
        components = {key: about[key] for key in ("size", "border", "motion") if key in about}
        found.append({
            "id": id_, "score": about.get("score"), "components": components,
            "background": is_background(about, kind=results.kind),
            "first": int(visible[0]) if len(visible) else None, "last": int(visible[-1]) if len(visible) else None,
            "frames": len(visible), "area": [float(f"{share:.4g}") for share in shares],
        })  # fmt: skip
    return found


# ------------------------------------------------------------------ pictures


def _resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(labels.astype(np.uint16), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def _encode_labels(labels: np.ndarray) -> str:
    """Encode a label map (H, W) as a PNG in base64: grey up to 255; beyond, red holds the low and green the high byte.

    Scripts may not read the pixels of image files that lie beside a page, but of images in the script itself.
    """
    if labels.max(initial=0) > 255:
        labels = np.stack([np.zeros_like(labels), labels >> 8, labels & 255], axis=-1)  # OpenCV has BGR
    runs = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]  # label maps are smallest and fastest by it
    content = cv2.imencode(".png", labels.astype(np.uint8), runs)[1]
    return base64.b64encode(content).decode()


def _encode_mask(labels: np.ndarray) -> str:
    """Encode where a label map (H, W) is above 0 as a PNG of one bit a pixel in base64."""
    options = [cv2.IMWRITE_PNG_BILEVEL, 1, cv2.IMWRITE_PNG_COMPRESSION, 6]  # a third of the bytes of the default
    content = cv2.imencode(".png", np.uint8(labels > 0) * 255, options)[1]
    return base64.b64encode(content).decode()


def _write_pictures(
    folder: Path, frame: np.ndarray | None, labels: np.ndarray, truth: np.ndarray | None
) -> list[str]:  # fmt: skip
    """Write the small pictures of a video: the frame, the ground truth and the masks over it; return which there are.

    Without frames, masks are drawn over grey.
    """
    ground = np.full((*labels.shape, 3), 120, np.uint8) if frame is None else frame
    drawn = {"frame": frame, "masks": _paint(ground, labels)}
    if truth is not None:
        drawn["truth"] = _paint(ground, np.where(truth == VOID, 0, truth))
    width = jpegs.LIMITS.picture
    for name, picture in drawn.items():
        if picture is not None:
            height = max(round(picture.shape[0] * width / picture.shape[1]), 1)
            small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            (folder / f"{name}.jpg").write_bytes(jpegs.encode_jpeg(small, jpegs.LIMITS.picture_quality))
    return [name for name in PICTURES if drawn.get(name) is not None]


def _paint(frame: np.ndarray, labels: np.ndarray, *, alpha: float = 0.55) -> np.ndarray:
    """Draw a label map (H, W) over a frame (H, W, 3) as the player does: tinted, with outlines in the full colour."""
    colours = make_distinct_colours()[labels % 256]
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        changed = np.diff(labels.astype(np.int32), axis=axis) != 0
        before, after = [slice(None)] * 2, [slice(None)] * 2
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        edge[tuple(before)] |= changed
        edge[tuple(after)] |= changed
    share = np.where(edge, 1.0, alpha)[..., None] * (labels > 0)[..., None]
    return np.uint8(frame * (1 - share) + colours * share)
