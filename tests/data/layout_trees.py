"""Tiny trees of exactly each dataset's layout, with the same little videos in all of them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_masks

from data.check import Report, check
from data.layouts.known import FBMS_TEST, FBMS_TRAIN, SEGTRACK
from data.loading import load_videos
from data.registry import DATASETS
from data.sprites.writer import write_sprites
from data.videos import Video
from tests.data.movi_trees import movi_folders, movi_records
from tests.data.tree_files import FRAMES, SIZE, labels_of, write_frames, write_labels, write_list, write_masks

# Beginnings of paths in the trees of FBMS-59 and of MOVi-C as TFRecords.
CAMEL = "Testset/camel01/GroundTruth/camel01"
SHARD = "movi_c/256x256/1.0.0/movi_c-validation.tfrecord-0000{}-of-00002"


@dataclass(frozen=True)
class Tree:
    """How to build a dataset, and what must be found in it.

    videos: some videos of the split with their frames, in order. annotated: frames with an annotation, of each video;
    none where there are only frames. void: the annotation has one pixel of 255. more: how many videos beside these.
    part: the videos of the split that are built, as --videos takes them; all if not given.
    """

    dataset: str
    split: str
    build: Callable[[Path], None]
    videos: dict[str, list[str]]
    annotated: dict[str, list[str]] | None = None
    void: bool = False
    more: int = 0
    part: str | None = None


# ------------------------------------------------------------------ DAVIS, pairs, own


def davis(annotations: str, *, years: dict[str, str], void: bool = False) -> Callable[[Path], None]:
    """years: split -> year of its split file; splits beginning with "test" have frames only."""

    def build(root: Path) -> None:
        for split, year in years.items():
            write_list(root / f"ImageSets/{year}/{split}.txt", [f"{split}-ant", f"{split}-bee"])
            for name in (f"{split}-ant", f"{split}-bee"):
                write_frames(root / "JPEGImages/480p" / name, FRAMES)
                if not split.startswith("test"):
                    write_labels(root / annotations / name, FRAMES, void=void)

    return build


def davis_2016(root: Path) -> None:
    """The download of 2016: split files name every frame, masks are 0 and 255."""
    for split in ("train", "val"):
        lines = []
        for name in (f"{split}-ant", f"{split}-bee"):
            write_frames(root / "JPEGImages/480p" / name, FRAMES)
            write_masks(root / "Annotations/480p" / name, FRAMES, (1, 2))
            lines += [f"/JPEGImages/480p/{name}/{f}.jpg /Annotations/480p/{name}/{f}.png " for f in FRAMES]
        write_list(root / f"ImageSets/480p/{split}.txt", lines)


def pairs(frames: str, annotations: str) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        for name in ("ant", "bee"):
            write_frames(root / frames / name, ["8", "9", "10"], ".png")
            write_labels(root / annotations / name, ["9", "10"], of=["8", "9", "10"], void=True)

    return build


def own(root: Path) -> None:
    for name in ("ant", "bee"):
        write_frames(root / name, FRAMES)


def sprites(root: Path) -> None:
    write_sprites(root, height=32, num_train=1, num_val=1, num_frames=3, workers=1, progress=False)


# ------------------------------------------------------------------ FBMS-59, SegTrack-v2


def fbms(**folders: tuple[str, ...]) -> Callable[[Path], None]:
    """As released: marple* with PGM ground truth on black, the others with PPM on white."""

    def build(root: Path) -> None:
        for folder, names in folders.items():
            for name in names:
                frames = [f"{name}_{number:04d}" for number in range(1, 4)]
                write_frames(root / folder / name, frames)
                write_list(root / folder / name / f"{name}.bmf", ["3 1", *(f"{frame}.ppm" for frame in frames)])
                fbms_truth(root / folder / name / "GroundTruth", name, frames, grey=name.startswith("marple"))

    return build


def fbms_truth(folder: Path, name: str, frames: list[str], *, grey: bool) -> None:
    """Ground truth of the first and the last frame, with its definition."""
    folder.mkdir(parents=True)
    values = (0, 128, 255) if grey else (0xFFFFFF, 0x00FFFF, 0xFF0001)
    lines = ["Ground truth definition file; do not change!", "", "Total number of regions:", "3", ""]
    for region, value in enumerate(values):
        lines += [f"Scale of region {region}:", str(value), ""]
    lines += ["Confusion penality matrix", "0 1 1 ", "1 0 1 ", "1 1 0 ", ""]
    lines += ["Total number of frames in this shot:", "3", "Total number of labeled frames for this shot:", "2"]
    for index in (0, 2):
        truth = f"{frames[index]}_gt{'.pgm' if grey else '.ppm'}"
        lines += ["Frame number:", str(index), "File name:", truth, "Input file name:", f"{frames[index]}.ppm"]
        codes = np.array(values, np.int64)[labels_of(index)]
        image = codes.astype(np.uint8) if grey else np.stack([codes >> 16, codes >> 8, codes], -1).astype(np.uint8)
        Image.fromarray(image).save(folder / truth)
    write_list(folder / f"{name}Def.dat", lines)


def fbms_png(root: Path, name: str = "camel01") -> None:
    """As passed on with binary images in place of the originals."""
    frames = [f"{name}_{number:04d}" for number in range(1, 4)]
    write_frames(root / "Testset" / name, frames)
    write_masks(root / "Testset" / name / "GroundTruth", frames[:1], (1, 2), "_gt.png")


def fbms_clean(root: Path, name: str = "camel01") -> None:
    """As the tools of Motion Grouping rewrite it."""
    write_frames(root / "JPEGImages" / name, FRAMES)
    write_masks(root / "Annotations" / name, FRAMES[:2], (1, 2))


def segtrack(annotations: str, names: tuple[str, ...] = SEGTRACK) -> Callable[[Path], None]:
    """Frames in PNG, JPEG or BMP; a folder for each object where there are several, masks stored as RGB."""
    several = {"bmx": 2, "cheetah": 2, "drift": 2, "hummingbird": 2, "monkeydog": 2, "penguin": 6}

    def build(root: Path) -> None:
        for number, name in enumerate(names):
            frames = [f"{name}_{index:05d}" for index in range(3)]
            write_frames(root / "JPEGImages" / name, frames, (".png", ".jpg", ".bmp")[number % 3])
            folder = root / annotations / name
            if name not in several:
                write_masks(folder, frames, (1, 2), rgb=True)
            for one in range(1, several.get(name, 0) + 1):
                ending = ".bmp" if (name, one) == ("cheetah", 1) else ".png"
                write_masks(folder / str(one), frames, (one,), ending, rgb=True)

    return build


# ------------------------------------------------------------------ YouTube


YTVOS_FRAMES = ["00000", "00005", "00010"]


def ytvos(root: Path) -> None:
    """The JSON names the frames with an object, here not the last; of valid and test only the first is annotated."""
    for split in ("train", "valid", "test"):
        names = [f"{split}0a", f"{split}1b"]
        seen = YTVOS_FRAMES[:2] if split == "train" else YTVOS_FRAMES
        objects = {"1": {"category": "ant", "frames": seen}, "2": {"category": "bee", "frames": seen[1:]}}
        write_list(root / split / "meta.json", [json.dumps({"videos": {name: {"objects": objects} for name in names}})])
        for name in names:
            write_frames(root / split / "JPEGImages" / name, YTVOS_FRAMES)
            annotated = YTVOS_FRAMES if split == "train" else YTVOS_FRAMES[:1]
            write_labels(root / split / "Annotations" / name, annotated)


def compressed(mask: np.ndarray) -> dict:
    rle = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def uncompressed(mask: np.ndarray) -> dict:
    column = mask.astype(np.uint8).ravel(order="F")
    changes = np.flatnonzero(np.diff(np.concatenate([[0], column]))).tolist()
    return {"size": list(mask.shape), "counts": np.diff([0, *changes, mask.size]).tolist()}


def ytvis(json_path: str, encode: Callable) -> Callable[[Path], None]:
    """json_path: of a split's JSON, with {split}."""

    def build(root: Path) -> None:
        for split in ("train", "valid"):
            content = ytvis_json(split, encode)
            for video in content["videos"]:
                write_frames(root / split / "JPEGImages" / video["file_names"][0].split("/")[0], FRAMES)
            write_list(root / json_path.format(split=split), [json.dumps(content)])

    return build


def ytvis_json(split: str, encode: Callable) -> dict:
    videos, annotations = [], []
    for number, name in enumerate((f"{split}b", f"{split}a", f"{split}c")):
        files = [f"{name}/{frame}.jpg" for frame in FRAMES]
        videos.append({"id": number + 1, "file_names": files, "height": SIZE[0], "width": SIZE[1], "length": 4})
        for one in (1, 2) if split == "train" else ():
            masks = [encode(labels_of(index) == one) for index in range(len(FRAMES))]
            annotations.append({"id": len(annotations) + 1, "video_id": number + 1, "category_id": 7, "iscrowd": 0,
                                "segmentations": masks})  # fmt: skip
    return {"videos": videos, "categories": [{"id": 7, "name": "ant"}], "annotations": annotations or None}


# ------------------------------------------------------------------ all of them


def _two(split: str, frames: list[str]) -> dict[str, list[str]]:
    return {f"{split}-ant": frames, f"{split}-bee": frames}


def _full(dataset: str, split: str, build: Callable, videos: dict, **options) -> Tree:
    return Tree(dataset, split, build, videos, videos, **options)


_UNSUPERVISED = davis(
    "Annotations_unsupervised/480p", void=True,
    years={"train": "2017", "val": "2017", "test-dev": "2019", "test-challenge": "2019"},
)  # fmt: skip
_FBMS = {name: [f"{name}_{number:04d}" for number in (1, 2, 3)] for name in ("camel01", "marple12")}
_CAMEL = {"camel01": _FBMS["camel01"]}
_SEGTRACK = {name: [f"{name}_{i:05d}" for i in range(3)] for name in ("birdfall", "bmx", "cheetah", "penguin")}
_MOVI = dict.fromkeys(("00000000", "00000001"), FRAMES)
_RECORDS = dict.fromkeys(("00000", "00001", "00002"), FRAMES)
_VIS = dict.fromkeys(("trainb", "traina", "trainc"), FRAMES)
TREES = {
    "davis17u": _full("davis17u", "val", _UNSUPERVISED, _two("val", FRAMES), void=True),
    "davis17u-test": Tree("davis17u", "test-dev", _UNSUPERVISED, _two("test-dev", FRAMES)),
    "davis17": _full(
        "davis17", "val", davis("Annotations/480p", years={"train": "2017", "val": "2017"}), _two("val", FRAMES)
    ),
    "davis16": _full("davis16", "val", davis_2016, _two("val", FRAMES)),
    "davis16-in-17": _full(
        "davis16", "val", davis("Annotations/480p", years={"train": "2016", "val": "2016"}), _two("val", FRAMES)
    ),
    "davis17-motion": _full(
        "davis17-motion",
        "val",
        davis("Annotations_unsupervised_motion/480p", years={"train": "2017", "val": "2017"}, void=True),
        _two("val", FRAMES),
        void=True,
    ),
    "fbms59": Tree(
        "fbms59",
        "test",
        fbms(Testset=FBMS_TEST, Trainingset=FBMS_TRAIN),
        _FBMS,
        {name: [frames[0], frames[2]] for name, frames in _FBMS.items()},
        more=28,
    ),
    "fbms59-one": Tree(
        "fbms59", "test", fbms(Testset=("camel01",)), _CAMEL, {"camel01": _CAMEL["camel01"][::2]}, part=":1"
    ),
    "fbms59-png": Tree("fbms59", "test", fbms_png, _CAMEL, {"camel01": _CAMEL["camel01"][:1]}, part=":1"),
    "fbms59-clean": Tree("fbms59", "test", fbms_clean, {"camel01": FRAMES}, {"camel01": FRAMES[:2]}, part=":1"),
    "segtrackv2": _full("segtrackv2", "all", segtrack("GroundTruth"), _SEGTRACK, more=10),
    "segtrackv2-few": _full(
        "segtrackv2",
        "all",
        segtrack("GroundTruth", SEGTRACK[:3]),
        {name: _SEGTRACK[name] for name in ("birdfall", "bmx")},
        more=1,
        part=":3",
    ),
    "segtrackv2-renamed": _full("segtrackv2", "all", segtrack("Annotations"), _SEGTRACK, more=10),
    "ytvos18": Tree(
        "ytvos18",
        "train",
        ytvos,
        {"train0a": YTVOS_FRAMES, "train1b": YTVOS_FRAMES},
        {"train0a": YTVOS_FRAMES, "train1b": YTVOS_FRAMES},
    ),
    "ytvos19-valid": Tree("ytvos19", "valid", ytvos, {"valid0a": YTVOS_FRAMES, "valid1b": YTVOS_FRAMES}),
    "ytvis19": _full("ytvis19", "train", ytvis("{split}.json", compressed), _VIS),
    "ytvis19-inside": _full("ytvis19", "train", ytvis("{split}/{split}.json", compressed), _VIS),
    "ytvis19-valid": Tree(
        "ytvis19", "valid", ytvis("{split}.json", compressed), dict.fromkeys(("validb", "valida", "validc"), FRAMES)
    ),
    "ytvis21": _full("ytvis21", "train", ytvis("{split}/instances.json", uncompressed), _VIS),
    "movi-c": _full("movi-c", "validation", movi_records("c"), _RECORDS),
    "movi-e": _full("movi-e", "validation", movi_records("e"), _RECORDS),
    "movi-c-folders": _full("movi-c", "validation", movi_folders("frames", "masks", ""), _MOVI),
    "movi-e-beside": _full("movi-e", "validation", movi_folders("", "", "_mask"), _MOVI),
    "sprites": _full("sprites", "val", sprites, {"val-00": FRAMES[:3]}),
    "pairs": Tree(
        "pairs",
        "all",
        pairs("frames", "annotations"),
        {"ant": ["8", "9", "10"], "bee": ["8", "9", "10"]},
        {"ant": ["9", "10"], "bee": ["9", "10"]},
        void=True,
    ),
    "pairs-renamed": Tree(
        "pairs",
        "all",
        pairs("JPEGImages", "Annotations"),
        {"ant": ["8", "9", "10"], "bee": ["8", "9", "10"]},
        {"ant": ["9", "10"], "bee": ["9", "10"]},
        void=True,
    ),
    "video": Tree("video", "all", own, {"ant": FRAMES, "bee": FRAMES}),
}


# ------------------------------------------------------------------ looking at them


def load(tree: Tree, root: Path) -> list[Video]:
    return load_videos(tree.dataset, root, split=tree.split, videos=tree.part, flag="--basepath")


def checked(tree: Tree, root: Path) -> Report:
    return check(DATASETS[tree.dataset], root, split=tree.split, videos=tree.part)


def problems(tree: Tree, root: Path) -> list[str]:
    return list(checked(tree, root).problems)
