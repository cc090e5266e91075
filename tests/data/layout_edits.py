"""Edit trees of `layout_trees` by hand, and see that a fault is named."""

import json
import re

import numpy as np
from PIL import Image

from tests.data.layout_trees import problems
from tests.data.tree_files import SIZE
from utils.errors import UserError


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)


def cut(path):
    write(path, path.read_bytes()[: path.stat().st_size // 2])


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def colours(path):
    Image.fromarray(np.eye(12, 18, dtype=np.uint8)[..., None] * np.uint8([200, 10, 0])).save(path)


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))


def rgb_frame_of_another_size(path):
    Image.fromarray(np.zeros((6, 6, 3), np.uint8)).save(path)


LABELS, MASKS = "Annotations_unsupervised/480p/val-ant", "Annotations/480p/val-ant"
JPEGS = "JPEGImages/480p/val-ant"


def segmentation(change):
    """Change the first segmentation of the first object of a YouTube-VIS JSON."""

    def plant(root):
        def set_first(content):
            masks = content["annotations"][0]["segmentations"]
            masks[0] = change(masks[0])

        edit_json(root / "train.json", set_first)

    return plant


def vis(change):
    return lambda root: edit_json(root / "train.json", change)


def planted(fault, build):
    """Build a tree, plant the fault, and see it named once, in one line: the tree, its root and the message."""
    key, plant, message = fault
    tree, root = build(key)
    plant(root)
    found = problems(tree, root)
    assert len(found) == 1
    assert re.search(message, found[0])
    assert "\n" not in found[0]
    return tree, root, message


def read_everything(videos):
    for video in videos:
        list(video.read())
        for frame, shape in (
            (f, video.annotations.read(f).shape) for f in getattr(video.annotations, "frame_names", ())
        ):
            if shape != SIZE:  # which scoring compares
                raise UserError(f"{frame}.png: {shape[1]}x{shape[0]} pixels, but its frame has 18x12")
        if video.annotations and not any(
            np.isin(video.annotations.read(f), range(1, 255)).any() for f in video.annotations.frame_names
        ):
            raise UserError("00000.png: neither here nor later an object")
