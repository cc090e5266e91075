"""Draw masks: overlays over frames, and contact sheets.

python -m utils.visual --results outputs/eval --picture label_maps.png      # label PNGs of any method, without frames
python -m utils.visual --results outputs/a outputs/b --count 2 --picture a_and_b.png
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from utils.run.signals import guard_imports

    guard_imports()

    from utils.errors import run_main
    from utils.flags.visual import parse_args

    run_main(lambda: parse_args(__doc__))  # help and refused flags need none of them

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from utils.errors import UserError, run_main
from utils.flags.visual import parse_args
from utils.names import list_folders
from utils.png import find_pngs, make_palette, read_label_png

# Text in the PNGs that we draw, by which no program takes them for frames of a video.
MARK = {"Software": "self-supervised video object segmentation"}

CELL_WIDTH = 320  # pixels of a picture on a contact sheet


def make_distinct_colours() -> np.ndarray:
    """Make colours of which those of near ids differ clearly, (256, 3) uint8 RGB; id 0 is black."""
    ids = np.arange(1, 256)
    hue = ids * 0.618034 % 1  # the golden ratio spreads any number of hues evenly
    saturation, value = np.where(ids // 3 % 2, 0.6, 0.9), np.where(ids % 2, 1.0, 0.8)
    hsv = np.stack([360 * hue, saturation, value], axis=-1)[None].astype(np.float32)
    return np.concatenate([np.zeros((1, 3), np.uint8), np.uint8(255 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0])])


def draw_overlay(frame: np.ndarray, labels: np.ndarray, *, alpha: float = 0.5) -> np.ndarray:
    """Draw a label map (H, W) over a frame (H, W, 3) uint8 RGB, with white outlines and the numbers of its labels.

    Background (0) is not changed.
    """
    colours = make_distinct_colours()[labels % 256]
    mixed = np.where(labels[..., None] > 0, (1 - alpha) * frame + alpha * colours, frame).astype(np.uint8)
    edge = np.zeros(labels.shape, dtype=bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    mixed[edge] = 255
    return draw_numbers(mixed, labels)


def paint_labels(labels: np.ndarray, *, shape: tuple[int, int]) -> np.ndarray:
    """Paint a label map (h, w) of clusters, of which 0 is one, in distinct colours: (H, W, 3) uint8 for `shape`."""
    painted = make_distinct_colours()[1 + labels % 255]
    return cv2.resize(painted, shape[::-1], interpolation=cv2.INTER_NEAREST)


def draw_heat(frame: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Draw a map (h, w) of values in [0, 1], from black over red to yellow, over a frame (H, W, 3) uint8 in grey."""
    height, width = frame.shape[:2]
    heat = cv2.resize(np.float32(heat), (width, height), interpolation=cv2.INTER_NEAREST)
    colours = cv2.applyColorMap(np.uint8(255 * heat.clip(0, 1)), cv2.COLORMAP_INFERNO)[..., ::-1]
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None]
    return np.uint8(0.4 * grey + 0.6 * colours)


def mark_point(picture: np.ndarray, point: tuple[float, float]) -> None:
    """Draw a ring around a point (x, y), in shares of width and height, into a picture (H, W, 3) uint8."""
    height, width = picture.shape[:2]
    centre = (round(point[0] * width), round(point[1] * height))
    radius = max(round(0.04 * height), 3)
    for colour, thickness in ((0, 3), (255, 1)):
        cv2.circle(picture, centre, radius, (colour,) * 3, thickness, cv2.LINE_AA)


def draw_numbers(picture: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Write the number of each label (H, W) int, but 0, into a picture (H, W, 3) uint8, where the label is widest."""
    step = max(min(labels.shape) // 120, 1)  # the place need not be exact
    small = np.pad(labels[::step, ::step], 1)
    size = labels.shape[1] / 711  # so that a number can be read in a cell of a contact sheet
    for label in np.unique(small[small > 0]):
        depth = cv2.distanceTransform(np.uint8(small == label), cv2.DIST_L2, 3)
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        if step * depth[row, column] < 8 * size:
            continue  # too small to be read
        (width, height), _ = cv2.getTextSize(str(label), cv2.FONT_HERSHEY_SIMPLEX, size, 1)
        place = (step * (column - 1) - width // 2, step * (row - 1) + height // 2)
        for colour, thickness in ((0, 4), (255, 1)):
            cv2.putText(
                picture, str(label), place, cv2.FONT_HERSHEY_SIMPLEX, size, (colour,) * 3,
                max(round(thickness * size), 1), cv2.LINE_AA,
            )  # fmt: skip
    return picture


def resize_to_width(picture: np.ndarray, width: int) -> np.ndarray:
    """Resize a picture (H, W, 3) uint8 to a width in pixels and keep its shape."""
    height = round(picture.shape[0] * width / picture.shape[1])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def draw_contact_sheet(rows: Iterable[tuple[str, list[np.ndarray]]], *, cell_width: int = CELL_WIDTH) -> np.ndarray:
    """Arrange pictures in one row per name; return one picture, RGB uint8. rows: (name, pictures (H, W, 3) uint8)."""
    drawn = []
    for name, pictures in rows:
        row = np.concatenate([resize_to_width(picture, cell_width) for picture in pictures], axis=1)
        cv2.rectangle(row, (0, 0), (12 + 10 * len(name), 24), (0, 0, 0), -1)
        cv2.putText(row, name, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
        drawn.append(row)
    width = max(row.shape[1] for row in drawn)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in drawn])


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a picture (H, W, 3) uint8 RGB. A PNG is marked as output, so that it is never read as a frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = PngInfo()
    for key, value in MARK.items():
        text.add_text(key, value)
    try:
        Image.fromarray(picture).save(path, quality=95, pnginfo=text)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written ({error}); check its ending, the folder and its space") from error


def save_figure(figure: Any, path: Path, *, dpi: int) -> None:
    """Write a figure of matplotlib to an image file; a PNG is marked as by `write_picture`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi, metadata=MARK if path.suffix.lower() == ".png" else None)


def read_label_map_rows(results: Path, *, count: int) -> list[tuple[str, list[np.ndarray]]]:
    """Read `count` coloured label maps, spread over the video, from every folder of label PNGs in `results`."""
    rows = []
    for folder in list_folders(results):
        if files := list(find_pngs(folder).values()):
            wanted = np.linspace(0, len(files) - 1, count).round().astype(int)
            rows.append((folder.name, [make_palette()[read_label_png(files[index]) % 256] for index in wanted]))
    return rows


def _suggest_kind(results: Path) -> str:
    """Suggest the folder of one kind of label maps, such as `davis`, if `results` are eval.py's with several kinds."""
    kinds = [path for path in sorted(results.glob("*")) if path.is_dir() and any(path.glob("*/*.png"))]
    return f"; give {kinds[0]}" if kinds else "; give a --save_path of eval.py, or a folder like it"


def main() -> None:
    args = parse_args(__doc__)
    rows_by_name: dict[str, list[np.ndarray]] = {}
    for place, results in enumerate(args.results):
        if not results.is_dir() or not (rows := read_label_map_rows(results, count=args.count)):
            raise UserError(f"--results {results}: holds no folders of label PNGs{_suggest_kind(results)}")
        if place and [name for name, _ in rows] != list(rows_by_name):
            raise UserError(f"--results {results}: holds other videos than {args.results[0]}")
        for name, pictures in rows:
            rows_by_name.setdefault(name, []).extend(pictures)
    write_picture(args.picture, draw_contact_sheet(rows_by_name.items(), cell_width=240))


if __name__ == "__main__":
    run_main(main, lower="--count")
