"""Write label maps as JSON with run-length encoded masks: COCO's data sets and YouTube-VIS' results."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

CATEGORY = 1  # objects have no class, so all are of one category


@dataclass(frozen=True)
class LabelledVideo:
    """A video and its label maps.

    Attributes:
        id: number of the video in the file, from 1.
        name: of the video.
        files: names of its frames, for `file_name` of COCO.
        maps: one (H, W) int a frame; read once.
        scores: id of a proposal -> score.
    """

    id: int
    name: str
    files: Sequence[str]
    maps: Iterable[np.ndarray]
    scores: dict[int, float]


def encode_labels(labels: np.ndarray, ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Encode the mask of each id that occurs in a label map: id -> RLE `{"size": [H, W], "counts": text}`."""
    found = {}
    for label in sorted(set(ids) & set(np.unique(labels).tolist())):
        rle = coco_mask.encode(np.asfortranarray(labels == label, dtype=np.uint8))
        found[label] = {"size": list(labels.shape), "counts": rle["counts"].decode("ascii")}
    return found


def make_ytvis_results(videos: Iterable[LabelledVideo]) -> list[dict[str, Any]]:
    """Make the results that the server of YouTube-VIS takes: one entry for each proposal of each video.

    An entry has `video_id`, `category_id`, `score`, and `segmentations`: for each frame an RLE, or null where the
    proposal does not occur.
    """
    results = []
    for video in videos:
        frames = [encode_labels(labels, video.scores) for labels in video.maps]
        for label, score in video.scores.items():
            tracks = [frame.get(label) for frame in frames]
            results.append({"video_id": video.id, "category_id": CATEGORY, "score": score, "segmentations": tracks})
    return results


def make_coco_dataset(videos: Iterable[LabelledVideo]) -> dict[str, Any]:
    """Make a data set in COCO's format: a picture for each frame, an annotation for each object in it.

    `video_id`, `frame_id` (position, from 0) and `instance_id` (the same for an object in all frames of its video) are
    named as in CocoVID; `score` is that of the proposal.
    """
    content: dict[str, Any] = {"videos": [], "images": [], "annotations": []}
    for video in videos:
        content["videos"].append({"id": video.id, "name": video.name})
        for position, (file, labels) in enumerate(zip(video.files, video.maps, strict=True)):
            image_id = len(content["images"]) + 1
            height, width = labels.shape
            content["images"].append({"id": image_id, "file_name": file, "height": height, "width": width,
                                      "video_id": video.id, "frame_id": position})  # fmt: skip
            first = len(content["annotations"]) + 1
            content["annotations"] += _annotate(labels, video, image_id=image_id, first=first)
    return content | {"categories": [{"id": CATEGORY, "name": "object"}]}


def _annotate(labels: np.ndarray, video: LabelledVideo, *, image_id: int, first: int) -> Iterator[dict[str, Any]]:
    """Yield the annotations of a frame, with ids from `first` on."""
    for number, (label, rle) in enumerate(encode_labels(labels, video.scores).items(), first):
        yield {
            "id": number, "image_id": image_id, "video_id": video.id, "instance_id": label, "category_id": CATEGORY,
            "segmentation": rle, "area": int(coco_mask.area(rle)), "bbox": coco_mask.toBbox(rle).tolist(), "iscrowd": 0,
            "score": video.scores[label],
        }  # fmt: skip
