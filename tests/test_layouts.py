"""Every dataset of the registry, on a tiny tree of its layout: whole, and with each fault planted."""

import json
import pickle
import re
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_masks

import train
from data import tfrecord
from data.annotations import RleVideo, Track, decode_segmentation, run_lengths
from data.check import check
from data.layouts import instances
from data.layouts.records import index_records
from data.registry import DATASETS, TRAINING_NAMES, check_place, load_videos, root_of, select, training_videos
from tests.layout_trees import (
    FRAMES,
    SIZE,
    TREES,
    compressed,
    example,
    labels_of,
    png,
    record,
    slow_crc32c,
    uncompressed,
    write_frames,
    write_labels,
    write_masks,
)
from utils.errors import UserError
from utils.png import write_label_png
from utils.protocols import PROTOCOLS


@pytest.fixture
def build(tmp_path):
    """build(key): the tree and its root."""

    def make(key):
        tree = TREES[key]
        tree.build(tmp_path / "root")
        return tree, tmp_path / "root"

    return make


def load(tree, root):
    return load_videos(tree.dataset, root, split=tree.split, videos=tree.part, flag="--basepath")


def checked(tree, root):
    return check(DATASETS[tree.dataset], root, split=tree.split, videos=tree.part, progress=False)


def problems(tree, root):
    return list(checked(tree, root).problems)


def test_every_dataset_has_a_tree_and_a_full_entry():
    assert {tree.dataset for tree in TREES.values()} | {"ytvos19"} == set(DATASETS)
    for spec in DATASETS.values():
        assert all((spec.title, spec.splits, spec.licence, spec.citation, spec.download, spec.split_source))
        assert spec.default_split in spec.splits
    single = {spec.name for spec in DATASETS.values() if spec.single_object}
    assert single == {"davis16", "fbms59", "segtrackv2"}
    assert {DATASETS[name].void for name in single} == {None}
    assert {DATASETS[name].protocols for name in single} == {("foreground", "oracle")}
    several = {name: set(spec.protocols) for name, spec in DATASETS.items() if name not in {*single, "video"}}
    assert all(protocols == set(PROTOCOLS) for protocols in several.values())
    usual = {name: DATASETS[name].protocols[0] for name in several}
    assert {name for name in usual if usual[name] == "slots"} == {"ytvis19", "ytvis21", "movi-c", "movi-e"}
    assert set(usual.values()) == {"slots", "davis"}
    assert DATASETS["ytvis19"].protocols[:2] == ("slots", "tracks")
    assert {spec.name for spec in DATASETS.values() if spec.sparse} == {"fbms59", "ytvos18", "ytvos19", "pairs"}


@pytest.mark.parametrize("key", TREES)
def test_tree_loads_and_is_whole(key, build):
    tree, root = build(key)
    videos = load(tree, root)
    by_name = {video.name: video for video in videos}
    assert [name for name in by_name if name in tree.videos] == list(tree.videos)
    assert len(videos) == len(tree.videos) + tree.more
    for name, frames in tree.videos.items():
        video = by_name[name]
        assert video.frame_names == frames
        read = list(video.read())
        assert len(read) == len(frames)
        if tree.annotated is None:
            assert video.annotations is None
        else:
            check_annotations(tree, video)
    report = checked(tree, root)
    assert not report.problems
    assert not report.notes
    assert report.sequences == len(videos)
    assert (report.annotated > 0) == (tree.annotated is not None)


def check_annotations(tree, video):
    annotations = pickle.loads(pickle.dumps(video.annotations))
    assert annotations.frame_names == tree.annotated[video.name]
    assert annotations.digest() == video.annotations.digest()
    for frame in annotations.frame_names if tree.dataset != "sprites" else ():
        wanted = labels_of(video.frame_names.index(frame), void=tree.void)
        found = annotations.read(frame)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, wanted > 0 if DATASETS[tree.dataset].single_object else wanted)
        assert str(frame) in annotations.source(frame)


@pytest.mark.parametrize(
    "key", [key for key, tree in TREES.items() if tree.dataset in TRAINING_NAMES and "-" not in key]
)
def test_training_split(key, build):
    tree, root = build(key)
    if tree.dataset == "video":
        return  # train.py takes whatever frames lie there
    videos = training_videos(tree.dataset, root)
    assert videos
    assert all(name.startswith("train") for name in videos) or tree.dataset == "fbms59"
    assert all(path.is_file() for paths in videos.values() for path in paths)


def test_training_needs_no_annotations_and_takes_lists(build, tmp_path):
    _, root = build("davis17u")
    shutil.rmtree(root / "Annotations_unsupervised")
    (tmp_path / "list.txt").write_text("train-bee\n")
    assert list(training_videos("davis17u", root, train_list=str(tmp_path / "list.txt"))) == ["train-bee"]
    (tmp_path / "list.txt").write_text("cow\n")
    with pytest.raises(UserError, match="--train_list .*list.txt: cow is not among the 2 training videos"):
        training_videos("davis17u", root, train_list=str(tmp_path / "list.txt"))
    with pytest.raises(UserError, match="--train_list none.txt: no such file"):
        training_videos("davis17u", root, train_list="none.txt")


def test_tfrecords_cannot_be_trained_on(build):
    _, root = build("movi-c")
    with pytest.raises(UserError, match="TFRecords cannot be trained on; export the frames"):
        training_videos("movi-c", root)


# ------------------------------------------------------------------ faults


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
CAMEL = "Testset/camel01/GroundTruth/camel01"
SHARD = "movi_c/256x256/1.0.0/movi_c-validation.tfrecord-0000{}-of-00002"


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


FAULTS = {
    # label images in folders
    "no split file": ("davis17u", lambda r: (r / "ImageSets/2017/val.txt").unlink(), "--basepath .*: lacks ImageSets"),
    "empty split": ("davis17u", lambda r: write(r / "ImageSets/2017/val.txt", "\n"), "val.txt: names no sequence"),
    "twice": ("davis17u", lambda r: write(r / "ImageSets/2017/val.txt", "val-ant val-ant"), "names val-ant twice"),
    "binary split": ("davis17u", lambda r: write(r / "ImageSets/2017/val.txt", b"\xff\xfe"), "val.txt: not a text"),
    "up": ("davis17u", lambda r: write(r / "ImageSets/2017/val.txt", "..\n"), r"val.txt: names '\.\.', which is no"),
    "path": ("davis17u", lambda r: write(r / "ImageSets/2017/val.txt", "../../x"), r"names '\.\./\.\./x', which is no"),
    "absolute": ("davis17u", lambda r: write(r / "ImageSets/2017/val.txt", "/etc"), "names '/etc', which is no plain"),
    "no frames": ("davis17u", lambda r: shutil.rmtree(r / JPEGS), "480p/val-ant: no frames"),
    "no annotations": ("davis17u", lambda r: shutil.rmtree(r / LABELS), "480p/val-ant: no annotations"),
    "annotation gone": ("davis17u", lambda r: (r / LABELS / "00002.png").unlink(), "3 annotations for 4 .*: 00002"),
    "frame gone": ("davis17u", lambda r: (r / JPEGS / "00001.jpg").unlink(), "4 annotations for 3 frames .*: 00001"),
    "frame more": ("davis17u", lambda r: write_frames(r / JPEGS, [*FRAMES, "00009"]), "4 .* for 5 frames .*: 00009"),
    "colours": ("davis17u", lambda r: colours(r / LABELS / "00001.png"), "00001.png: .*mode RGB holds no ids"),
    "id 300": (
        "davis17u",
        lambda r: write_label_png(r / LABELS / "00001.png", np.full(SIZE, 300)),
        "00001.png: holds id 300; number objects 1 to 254",
    ),
    "annotation cut": ("davis17u", lambda r: cut(r / LABELS / "00001.png"), "00001.png: not a whole, readable PNG"),
    "frame cut": ("davis17u", lambda r: cut(r / JPEGS / "00001.jpg"), "00001.jpg: not a readable image"),
    "frame size": (
        "davis17u-test",
        lambda r: rgb_frame_of_another_size(r / "JPEGImages/480p/test-dev-ant/00001.jpg"),
        "00001.jpg: 6x6 pixels, but the frames before it have 18x12",
    ),
    "annotation size": (
        "davis17u",
        lambda r: write_label_png(r / LABELS / "00001.png", np.ones((6, 7), int)),
        "00001.png: 7x6 pixels, but its frame has 18x12",
    ),
    "no object": (
        "davis17u",
        lambda r: [write_label_png(r / LABELS / f"{f}.png", np.full(SIZE, 255)) for f in FRAMES],
        "00000.png: neither here nor later an object",
    ),
    "davis17": ("davis17", lambda r: (r / MASKS / "00002.png").unlink(), "3 annotations for 4 .*: 00002"),
    "motion": (
        "davis17-motion",
        lambda r: shutil.rmtree(r / "Annotations_unsupervised_motion/480p/val-ant"),
        "Annotations_unsupervised_motion/480p/val-ant: no annotations",
    ),
    "sprites": ("sprites", lambda r: cut(r / "JPEGImages/480p/val-00/00001.jpg"), "00001.jpg: not a readable image"),
    # masks
    "2016 path": (
        "davis16",
        lambda r: write(r / "ImageSets/480p/val.txt", "/JPEGImages/480p/../00000.jpg /x\n"),
        r"val.txt: names '\.\.', which is no plain",
    ),
    "2016 empty": ("davis16", lambda r: write(r / "ImageSets/480p/val.txt", " \n"), "val.txt: names no sequence"),
    "2016 colours": ("davis16", lambda r: colours(r / MASKS / "00001.png"), "00001.png: .*RGB in colours holds no"),
    "2016 gone": ("davis16-in-17", lambda r: (r / MASKS / "00002.png").unlink(), "3 annotations for 4 .*: 00002"),
    "segtrack mask gone": (
        "segtrackv2-few",
        lambda r: (r / "GroundTruth/bmx/2/bmx_00001.png").unlink(),
        "GroundTruth/bmx/2: not the same frames as .*bmx/1; first without a partner: bmx_00001",
    ),
    "segtrack no frames": ("segtrackv2-few", lambda r: shutil.rmtree(r / "JPEGImages/birdfall"), "birdfall: no frames"),
    "segtrack no masks": (
        "segtrackv2-few",
        lambda r: shutil.rmtree(r / "GroundTruth/bmx/1") or shutil.rmtree(r / "GroundTruth/bmx/2"),
        "GroundTruth/bmx: no annotations",
    ),
    "segtrack frame more": (
        "segtrackv2-few",
        lambda r: write_frames(r / "JPEGImages/birdfall", ["birdfall_00009"]),
        "GroundTruth/birdfall: 3 annotations for 4 frames .*: birdfall_00009",
    ),
    "segtrack mask more": (
        "segtrackv2-few",
        lambda r: write_masks(r / "GroundTruth/birdfall", ["birdfall_00009"], (1,)),
        "GroundTruth/birdfall: 4 annotations for 3 frames .*: birdfall_00009",
    ),
    "segtrack size": (
        "segtrackv2-few",
        lambda r: rgb_frame_of_another_size(r / "GroundTruth/bmx/2/bmx_00001.png"),
        "bmx/2/bmx_00001.png: 6x6 pixels, but .*1/bmx_00001.png has 18x12",
    ),
    "segtrack colours": (
        "segtrackv2-few",
        lambda r: colours(r / "GroundTruth/birdfall/birdfall_00001.png"),
        "birdfall_00001.png: .*in colours holds no mask",
    ),
    # FBMS-59
    "fbms no definition": (
        "fbms59-one", lambda r: (r / f"{CAMEL}Def.dat").unlink(), r"camel01_0001_gt.ppm but no \*.dat that defines",
    ),
    "fbms two definitions": (
        "fbms59-one", lambda r: write(r / f"{CAMEL}x.dat", ""), "camel01Def.dat and camel01x.dat; keep",
    ),
    "fbms no definition inside": ("fbms59-one", lambda r: write(r / f"{CAMEL}Def.dat", "x"), "defines 0 regions"),
    "fbms damaged definition": (
        "fbms59-one",
        lambda r: write(r / f"{CAMEL}Def.dat", (r / f"{CAMEL}Def.dat").read_text().replace("16777215", "white")),
        "camel01Def.dat: not a ground truth definition",
    ),
    "fbms path": (
        "fbms59-one",
        lambda r: write(r / f"{CAMEL}Def.dat", (r / f"{CAMEL}Def.dat").read_text().replace("camel01_0003_gt", "../x")),
        r"camel01Def.dat: names '\.\./x.ppm', which is no plain",
    ),
    "fbms truth gone": ("fbms59-one", lambda r: (r / f"{CAMEL}_0003_gt.ppm").unlink(), "0003_gt.ppm: no such file, "),
    "fbms truth cut": ("fbms59-one", lambda r: cut(r / f"{CAMEL}_0003_gt.ppm"), "0003_gt.ppm: not a readable image"),
    "fbms frame gone": (
        "fbms59-one", lambda r: (r / "Testset/camel01/camel01_0003.jpg").unlink(), "annotates frame 2 .camel01_0003",
    ),
    "fbms nothing": (
        "fbms59-one",
        shutil.rmtree,
        "--basepath .*: lacks a folder Testset or Trainingset, or a folder JPEGImages; check the root",
    ),
    "fbms sequence gone": ("fbms59-one", lambda r: shutil.rmtree(r / "Testset/camel01"), "Testset/camel01: no frames"),
    "fbms extra mask": (
        "fbms59-clean",
        lambda r: shutil.copy(r / "Annotations/camel01/00000.png", r / "Annotations/camel01/00009.png"),
        "Annotations/camel01: 3 annotations for 4 frames .*: 00009",
    ),
    "fbms mask twice": (
        "fbms59-png",
        lambda r: shutil.copy(
            r / "Testset/camel01/GroundTruth/camel01_0001_gt.png", r / "Testset/camel01/GroundTruth/camel01_0001.png"
        ),
        "is a mask of the same frame; keep one",
    ),
    # YouTube-VOS
    "vos no json": ("ytvos18", lambda r: (r / "train/meta.json").unlink(), "--basepath .*: lacks train/meta.json"),
    "vos json cut": ("ytvos18", lambda r: cut(r / "train/meta.json"), "meta.json: not valid JSON"),
    "vos json list": ("ytvos18", lambda r: write(r / "train/meta.json", "[]"), "meta.json: not a JSON object"),
    "vos no videos": ("ytvos18", lambda r: write(r / "train/meta.json", "{}"), "meta.json: has no 'videos'"),
    "vos path": (
        "ytvos18", lambda r: write(r / "train/meta.json", '{"videos": {"../x": {}}}'), r"meta.json: names '\.\./x'",
    ),
    "vos extra": (
        "ytvos18",
        lambda r: write_labels(r / "train/Annotations/train0a", ["00007"]),
        "4 annotations for 3 frames in .*first without a partner: 00007",
    ),
    # YouTube-VIS
    "vis no json": ("ytvis19", lambda r: (r / "train.json").unlink(), "lacks train/instances.json or train/train.json"),
    "vis json cut": ("ytvis19", lambda r: cut(r / "train.json"), "train.json: not valid JSON"),
    "vis no videos": ("ytvis19", vis(lambda c: c.pop("videos")), "train.json: has no list of 'videos'"),
    "vis empty": ("ytvis19", vis(lambda c: c["videos"].clear()), "train.json: describes no video"),
    "vis no height": ("ytvis19", vis(lambda c: c["videos"][1].pop("height")), r"videos\[1\] is not as .*'height'"),
    "vis no masks": (
        "ytvis19", vis(lambda c: c["annotations"][1].pop("segmentations")), r"annotations\[1\] is not as in",
    ),
    "vis path": (
        "ytvis19",
        vis(lambda c: c["videos"][0].update(file_names=["../00000.jpg"])),
        r"videos\[0\]: names '\.\.', which is no plain",
    ),
    "vis absolute": (
        "ytvis19", vis(lambda c: c["videos"][0].update(file_names=["/etc/passwd"])), r"not all <video>/<frame>",
    ),
    "vis twice": (
        "ytvis19",
        vis(lambda c: c["videos"].append(c["videos"][0])),
        "train.json: describes the video trainb twice",
    ),
    "vis same id": (
        "ytvis19",
        vis(lambda c: c["videos"][1].update(id=1)),
        "train.json: gives the id 1 to two videos",
    ),
    "vis too few masks": (
        "ytvis19",
        vis(lambda c: c["annotations"][0]["segmentations"].pop()),
        r"videos\[0\]: 3 segmentations of an object in 4 frames",
    ),
    "vis many": (
        "ytvis19",
        vis(lambda c: c["annotations"].extend([c["annotations"][0]] * 300)),
        r"videos\[0\]: 302 objects, but ids go to 254",
    ),
    "vis frame gone": (
        "ytvis19", lambda r: (r / "train/JPEGImages/traina/00001.jpg").unlink(), "00001.jpg: missing, the first of 1",
    ),
    "vis size": (
        "ytvis19",
        segmentation(lambda _: compressed(np.ones((5, 6), bool))),
        "train.json, video trainb, frame 00000: an RLE of 6x5 pixels in a video of 18x12",
    ),
    "vis runs": (
        "ytvis19",
        segmentation(lambda s: {**s, "counts": [3, 4]}),
        "frame 00000: not a segmentation of COCO .its runs cover 7 of 216 pixels",
    ),
    "vis text": ("ytvis19", segmentation(lambda s: {**s, "counts": "81"}), "runs cover .* of 216 pixels"),
    "vis text cut": ("ytvis19", segmentation(lambda s: {**s, "counts": "h"}), "its text ends within a number"),
    "vis characters": ("ytvis19", segmentation(lambda s: {**s, "counts": "!"}), "segmentation of COCO .character"),
    "vis negative": ("ytvis19", segmentation(lambda s: {**s, "counts": [-4, 220]}), "not a segmentation of COCO"),
    "vis number": ("ytvis19", segmentation(lambda s: 7), "not a segmentation of COCO"),
    "vis polygon": ("ytvis19", segmentation(lambda s: [["x"]]), "not a segmentation of COCO"),
    # MOVi
    "movi shard gone": (
        "movi-c", lambda r: (r / SHARD.format(0)).unlink(), "has 1 of the 2 files of validation, first missing: 00000",
    ),
    "movi nothing": ("movi-c", lambda r: shutil.rmtree(r / "movi_c"), "lacks files movi_c-<split>.tfrecord"),
    "movi cut": ("movi-c", lambda r: cut(r / SHARD.format(1)), "00001-of-00002: ends within record 0"),
    "movi head cut": ("movi-c", lambda r: write(r / SHARD.format(1), b"\0" * 5), "ends within the head of record 0"),
    "movi length": ("movi-c", lambda r: flip(r / SHARD.format(1), 1), "the length of record 0 is damaged"),
    "movi bytes": ("movi-c", lambda r: flip(r / SHARD.format(1), -50), "record at byte 12: the checksum does not fit"),
    "movi empty": (
        "movi-c", lambda r: [write(r / SHARD.format(i), b"") for i in (0, 1)], "its files of validation hold no record",
    ),
    "movi feature": (
        "movi-c",
        lambda r: write(r / SHARD.format(1), record(example({"image": [b"x"]}))),
        "record at byte 12: has no feature 'video'",
    ),
    "movi message": ("movi-c", lambda r: write(r / SHARD.format(1), record(b"\x0a\x7f")), "not a tf.train.Example"),
    "movi frames": (
        "movi-c",
        lambda r: write(r / SHARD.format(1), record(example({"video": [png(labels_of(0))] * 2,
                                                             "segmentations": [png(labels_of(0))]}))),
        "1 segmentations for 2 frames",
    ),
    "movi masks more": (
        "movi-c",
        lambda r: write(r / SHARD.format(1), record(example({"video": [png(labels_of(0))],
                                                             "segmentations": [png(labels_of(0))] * 2}))),
        "2 segmentations for 1 frames",
    ),
    "movi frame more": (
        "movi-c-folders",
        lambda r: write_frames(r / "validation/00000001/frames", [*FRAMES, "00009"]),
        "4 annotations for 5 frames .*: 00009",
    ),
    "movi picture": (
        "movi-c",
        lambda r: write(r / SHARD.format(1), record(example({"video": [b"x"], "segmentations": [png(labels_of(0))]}))),
        "frame 00000: not a readable PNG",
    ),
    "movi mask": (
        "movi-c",
        lambda r: write(r / SHARD.format(1), record(example({"video": [png(labels_of(0))], "segmentations": [b"x"]}))),
        "segmentations of frame 00000: not a readable PNG",
    ),
    "movi id": (
        "movi-c",
        lambda r: write(r / SHARD.format(1), record(example({"video": [png(labels_of(0))],
                                                             "segmentations": [png(labels_of(0, void=True))]}))),
        "not an image of object ids up to 254",
    ),
    "movi masks gone": (
        "movi-c-folders", lambda r: shutil.rmtree(r / "validation/00000001/masks"), "00000001/masks: no annotations",
    ),
    "movi mask beside gone": (
        "movi-e-beside", lambda r: (r / "validation/00000001/00002_mask.png").unlink(), "3 annotations for 4 .*: 00002",
    ),
    # pairs and own videos
    "pairs extra": ("pairs", lambda r: (r / "frames/bee/9.png").unlink(), "2 annotations for 2 frames .*: 9;"),
    "pairs gone": ("pairs", lambda r: shutil.rmtree(r / "annotations/bee"), "annotations/bee: no annotations"),
    "pairs none": ("pairs", lambda r: shutil.rmtree(r), "--basepath .*: lacks a folder frames, or a folder JPEG"),
    "own none": ("video", lambda r: shutil.rmtree(r), "--basepath .*: no such video file or folder"),
    "own cut": ("video", lambda r: cut(r / "bee/00001.jpg"), "bee/00001.jpg: not a readable image"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_in_one_line(fault, build):
    key, plant, message = FAULTS[fault]
    tree, root = build(key)
    plant(root)
    found = problems(tree, root)
    assert len(found) == 1
    assert re.search(message, found[0])
    assert "\n" not in found[0]
    if tree.dataset != "sprites":  # which would be completed
        with pytest.raises(UserError, match=message):
            read_everything(load(tree, root))


def extra_vis_annotation(content):
    content["annotations"] += [{**content["annotations"][0], "video_id": 99}] * 2


# What lies there beside a video that can be segmented and scored all the same.
MISMATCHES = {
    "2016 pair more": (
        "davis16",
        lambda r: write_frames(r / JPEGS, ["00009"]) or write_masks(r / MASKS, ["00009"], (1, 2)),
        "JPEGImages/480p/val-ant: 1 frames that .*ImageSets/480p/val.txt does not name, first 00009; remove them",
    ),
    "2016 pair gone": (
        "davis16",
        lambda r: (r / JPEGS / "00003.jpg").unlink() or (r / MASKS / "00003.png").unlink(),
        "480p/val-ant: 1 frames missing that .*ImageSets/480p/val.txt names, first 00003; complete the download",
    ),
    "fbms frame more": (
        "fbms59-one",
        lambda r: write_frames(r / "Testset/camel01", ["x1", "x2"]),
        "Testset/camel01: 2 frames that .*camel01.bmf does not name, first x1; remove them",
    ),
    "fbms frame more, names differ": (
        "fbms59-one",
        lambda r: (
            write_frames(r / "Testset/camel01", ["x1"])
            or write(r / "Testset/camel01/camel01.bmf", "3 1 a.ppm b.ppm c.ppm")
        ),
        "Testset/camel01: 1 frames that .*camel01.bmf does not name, first x1; remove them",
    ),
    "fbms frame fewer": (
        "fbms59-one",
        lambda r: (r / "Testset/camel01/camel01_0002.jpg").unlink() or use_numbers(r / f"{CAMEL}Def.dat"),
        "Testset/camel01: 1 frames missing that .*camel01.bmf names, first camel01_0002; complete",
    ),
    "fbms truth more": (
        "fbms59-one",
        lambda r: shutil.copy(r / f"{CAMEL}_0003_gt.ppm", r / f"{CAMEL}_0002_gt.ppm"),
        "GroundTruth: 1 images that its definition does not name, first camel01_0002_gt.ppm; remove them",
    ),
    "fbms list cut": (
        "fbms59-one",
        lambda r: write(r / "Testset/camel01/camel01.bmf", b"3 1\n\xff\xfe"),
        "camel01.bmf: not a text file",
    ),
    "vos frame more": (
        "ytvos18",
        lambda r: write_frames(r / "train/JPEGImages/train0a", ["00007", "00012"]),
        "train/JPEGImages/train0a: 2 frames that .*train/meta.json does not name, first 00007; remove them",
    ),
    "vos frame more, not annotated": (
        "ytvos19-valid",
        lambda r: write_frames(r / "valid/JPEGImages/valid0a", ["00007"]),
        "valid/JPEGImages/valid0a: 1 frames that .*valid/meta.json does not name, first 00007",
    ),
    "vos frame gone": (
        "ytvos19-valid",
        lambda r: (r / "valid/JPEGImages/valid0a/00005.jpg").unlink(),
        "valid0a: 1 frames missing that .*valid/meta.json names, first 00005; complete the download",
    ),
    "vos annotation gone": (
        "ytvos18",
        lambda r: (r / "train/Annotations/train0a/00005.png").unlink(),
        "Annotations/train0a: 1 annotations missing of frames that .*meta.json names, first 00005; complete",
    ),
    "vos annotations of no video": (
        "ytvos18",
        lambda r: write_labels(r / "train/Annotations/train2c", ["00000"]),
        "train/Annotations: 1 folders of annotations of no video, first train2c; add its frames or remove it",
    ),
    "pairs annotations of no video": (
        "pairs",
        lambda r: [write_labels(r / "annotations" / name, ["9"]) for name in ("cow", "dog")],
        "annotations: 2 folders of annotations of no video, first cow; add its frames or remove it",
    ),
    "vis frame more": (
        "ytvis19",
        lambda r: write_frames(r / "train/JPEGImages/traina", ["00009", "00010"]),
        "JPEGImages/traina: 2 images that .*train.json does not name, first 00009.jpg; remove them",
    ),
    "vis annotations of no video": (
        "ytvis19",
        vis(extra_vis_annotation),
        r"train.json: 2 annotations of videos that it does not describe, first annotations\[6\], video_id 99; download",
    ),
}


def use_numbers(definition):
    """Its last annotation is that of the second frame that is left."""
    write(definition, definition.read_text().replace("\n2\n", "\n1\n"))


@pytest.mark.parametrize("fault", MISMATCHES)
def test_a_mismatch_is_named_once_and_keeps_nobody_from_reading(fault, build):
    key, plant, message = MISMATCHES[fault]
    tree, root = build(key)
    plant(root)
    found = problems(tree, root)
    assert len(found) == 1
    assert re.search(message, found[0])
    read_everything(load(tree, root))


def test_lists_that_do_not_name_frames_are_not_compared(build):
    tree, root = build("ytvos18")
    write(root / "train/meta.json", json.dumps({"videos": {"train0a": {}, "train1b": {"objects": {"1": []}}}}))
    assert not problems(tree, root)
    tree, root = build("fbms59-one")
    (root / "Testset/camel01/camel01.bmf").unlink()
    assert not problems(tree, root)


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


@pytest.mark.parametrize("key", ["davis17u", "davis16", "fbms59-one", "segtrackv2", "ytvis19", "ytvis21", "movi-c"])
def test_digest_changes_with_content(key, build):
    tree, root = build(key)
    before = load(tree, root)[0].annotations.digest()
    changes = {
        "davis17u": lambda: write_label_png(root / LABELS / "00001.png", labels_of(2)),
        "davis16": lambda: write_label_png(root / MASKS / "00001.png", labels_of(2)),
        "fbms59-one": lambda: shutil.copy(root / f"{CAMEL}_0001_gt.ppm", root / f"{CAMEL}_0003_gt.ppm"),
        "segtrackv2": lambda: cut(root / "GroundTruth/bird_of_paradise/bird_of_paradise_00001.png"),
        "ytvis19": lambda: segmentation(lambda _: compressed(labels_of(2) == 1))(root),
        "ytvis21": lambda: edit_json(root / "train/instances.json", lambda c: c["annotations"].pop(0)),
        "movi-c": lambda: write(root / SHARD.format(0), record(example({
            "video": [png(labels_of(0))], "segmentations": [png(labels_of(0))]}))),
    }  # fmt: skip
    changes[key]()
    index_records.cache_clear()  # a process takes TFRecord files as it found them
    assert load(tree, root)[0].annotations.digest() != before


# ------------------------------------------------------------------ what single formats say


def test_merged_digest_differs_from_that_of_labels(build):
    _, root = build("davis16-in-17")
    (root / "ImageSets/2017").mkdir()
    shutil.copy(root / "ImageSets/2016/val.txt", root / "ImageSets/2017/val.txt")
    labels, merged = (load_videos(name, root, split="val", flag="")[0].annotations for name in ("davis17", "davis16"))
    assert labels.digest() != merged.digest()
    assert set(np.unique(labels.read("00000"))) == {0, 1, 2}
    assert set(np.unique(merged.read("00000"))) == {0, 1}


def test_fbms_colours_without_definition_are_background(build):
    tree, root = build("fbms59-one")
    path = root / f"{CAMEL}_0001_gt.ppm"
    image = np.array(Image.open(path))
    image[0, :3] = (9, 9, 9)
    Image.fromarray(image).save(path)
    truth = load(tree, root)[0].annotations
    np.testing.assert_array_equal(truth.read("camel01_0001"), labels_of(0) > 0)


def test_fbms_frames_are_found_by_number_where_names_differ(build):
    tree, root = build("fbms59-one")
    definition = root / f"{CAMEL}Def.dat"
    definition.write_text(definition.read_text().replace("camel01_0003.ppm", "image0003.ppm"))
    assert load(tree, root)[0].annotations.frame_names == ["camel01_0001", "camel01_0003"]


def test_overlaps_crowds_and_absences_of_rle():
    mask = np.zeros(SIZE, bool)
    mask[2:8, 2:8] = True
    other = np.roll(mask, 3, axis=1)
    crowd = Track((compressed(np.ones(SIZE, bool)), None), is_crowd=True)
    polygon = [[2.0, 2.0, 7.0, 2.0, 7.0, 7.0, 2.0, 7.0]]
    tracks = [Track((uncompressed(mask), polygon)), crowd, Track((compressed(other), None))]
    video = RleVideo("v", ["0", "1"], SIZE, tracks, "x.json")
    np.testing.assert_array_equal(video.read("0"), np.where(other, 2, np.where(mask, 1, 255)))
    drawn = video.read("1")
    assert set(np.unique(drawn)) == {0, 1}
    assert drawn[4, 4] == 1
    assert abs(int(drawn.sum()) - 25) <= 11


@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_rle_agrees_with_pycocotools(mask):
    size = mask.shape
    for segmentation in (compressed(mask), uncompressed(mask)):
        np.testing.assert_array_equal(decode_segmentation(segmentation, size, "x"), mask)
    assert run_lengths(compressed(mask)["counts"]) == uncompressed(mask)["counts"]
    theirs = coco_masks.frPyObjects(uncompressed(mask), *size)
    assert theirs["counts"].decode() == compressed(mask)["counts"]


@given(st.lists(st.integers(0, 30), min_size=6, max_size=12).filter(lambda points: len(points) % 2 == 0))
def test_polygons_are_drawn_as_pycocotools_draws_them(points):
    theirs = coco_masks.area(coco_masks.merge(coco_masks.frPyObjects([points], 20, 30)))
    assert decode_segmentation([points], (20, 30), "x").sum() == theirs


def test_json_is_read_once_for_all_videos(build, monkeypatch):
    tree, root = build("ytvis19")
    reads = []
    read_json = instances.read_json
    monkeypatch.setattr(instances, "read_json", lambda path: reads.append(path) or read_json(path))
    assert len(load(tree, root)) == 3
    assert not problems(tree, root)
    assert len(reads) == 1


def test_checksums():
    assert tfrecord.crc32c(b"123456789") == 0xE3069283  # the standard's own example
    content = np.random.default_rng(0).bytes(3 * 4096 + 77)
    assert tfrecord.crc32c(content) == slow_crc32c(content)
    assert tfrecord.crc32c(b"") == slow_crc32c(b"") == 0


def test_record_keeps_only_what_is_asked_for(build):
    _, root = build("movi-c")
    records = tfrecord.list_records(root / SHARD.format(0))
    assert len(records) == 2
    assert tfrecord.count_values(records[1], "video") == 4
    found = tfrecord.read_bytes_features(records[1], ("metadata/video_name",))
    assert found == {"metadata/video_name": [b"101"]}


# ------------------------------------------------------------------ selecting


def test_videos_select_a_slice_in_the_order_of_the_split(build):
    _, root = build("ytvis19")
    load = lambda videos: [v.name for v in load_videos("ytvis19", root, flag="", videos=videos)]  # noqa: E731
    assert load("1:3") == ["traina", "trainc"]
    assert load(":1") == ["trainb"]
    assert load("2:") == ["trainc"]
    assert load(None) == ["trainb", "traina", "trainc"]
    for wrong in ("3", "-1:2", "a:b", "1:2:3"):
        with pytest.raises(UserError, match=f"--videos {wrong}: not of the form A:B"):
            load(wrong)
    with pytest.raises(UserError, match="--videos 3:9: selects none of the 3 videos"):
        load("3:9")
    assert select(list("abc"), "0:2") == ["a", "b"]


def test_pairs_with_a_folder_of_annotations_elsewhere(tmp_path):
    TREES["pairs"].build(tmp_path / "x{y}")
    frames, annotations = tmp_path / "x{y}/frames", tmp_path / "x{y}/annotations"
    videos = load_videos("pairs", frames, flag="--basepath", annotations=annotations)
    assert [video.name for video in videos] == ["ant", "bee"]
    np.testing.assert_array_equal(videos[0].annotations.read("10"), labels_of(2, void=True))
    with pytest.raises(UserError, match="--annotations .*none: no such folder"):
        load_videos("pairs", frames, flag="--basepath", annotations=tmp_path / "none")
    with pytest.raises(UserError, match="--annotations .*: only for --dataset pairs"):
        load_videos("video", frames, flag="--basepath", annotations=annotations)


def test_unknown_splits_and_roots(build):
    _, root = build("segtrackv2")
    for name in ("segtrackv2", "pairs", "video"):
        with pytest.raises(UserError, match=f"--split val: --dataset {name} has no such split; choose from all"):
            load_videos(name, root, split="val", flag="")
    for name in ("davis17u", "ytvos18", "ytvis19", "movi-c", "fbms59"):
        for split in ("../val", "a/b", "..", "a\0"):
            with pytest.raises(UserError, match="--split '.*: not the name of a split; choose from "):
                load_videos(name, root, split=split, flag="")
    with pytest.raises(UserError, match="--davis_path is missing"):
        root_of("davis16", davis_path=None, basepath=None)
    with pytest.raises(UserError, match="--basepath is missing"):
        root_of("davis16", davis_path=None, basepath=None, davis_flag="--basepath")
    assert str(root_of("sprites", davis_path=None, basepath=None)[0]) == "datasets/sprites"


def test_a_root_of_davis_is_for_davis(tmp_path):
    with pytest.raises(UserError, match="--davis_path x: --dataset sprites is not DAVIS"):
        root_of("sprites", davis_path="x", basepath=None)
    assert root_of("davis16", davis_path=str(tmp_path), basepath="y") == (tmp_path, "--davis_path")
    with pytest.raises(UserError, match="--davis_path .*none: no such file or folder"):
        check_place("davis16", tmp_path / "none", split=None, flag="--davis_path")
    check_place("sprites", tmp_path / "none", split="train", flag="--basepath")
    with pytest.raises(UserError, match="--split tran: --dataset sprites has no such split"):
        check_place("sprites", tmp_path / "none", split="tran", flag="--basepath")


def test_records_of_another_variant_are_not_taken(build):
    _, root = build("movi-e")
    with pytest.raises(UserError, match="lacks files movi_c-<split>"):
        load_videos("movi-c", root / "movi_e/256x256/1.0.0", flag="")
    assert len(load_videos("movi-e", root / "movi_e/256x256/1.0.0", flag="")) == 3
    with pytest.raises(UserError, match="has no files of --split test; choose from train, validation"):
        load_videos("movi-e", root, split="test", flag="")


def test_train_takes_the_training_split_of_any_dataset(build):
    _, root = build("davis17u")
    args = train.make_parser().parse(["--dataset", "davis17u", "--basepath", str(root)])
    assert list(train.find_videos(args)) == ["train-ant", "train-bee"]
    args = train.make_parser().parse(["--basepath", str(root)])
    assert "JPEGImages/480p/val-ant" in train.find_videos(args)
    args = train.make_parser().parse(["--dataset", "davis16"])
    with pytest.raises(UserError, match="--basepath is missing; give the root of --dataset davis16"):
        train.find_videos(args)
