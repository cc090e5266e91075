"""Every dataset of the registry, on a tiny tree of its layout, with each fault planted."""

import shutil

import numpy as np
import pytest

from data.layouts.records import index_records
from tests.data.layout_edits import (
    JPEGS,
    LABELS,
    MASKS,
    colours,
    cut,
    edit_json,
    flip,
    planted,
    read_everything,
    rgb_frame_of_another_size,
    segmentation,
    vis,
    write,
)
from tests.data.layout_trees import CAMEL, SHARD, compressed, load
from tests.data.movi_trees import example, png, record
from tests.data.tree_files import FRAMES, SIZE, labels_of, write_frames, write_labels, write_masks
from utils.errors import UserError
from utils.png import write_label_png

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
    "vos json list": ("ytvos18", lambda r: write(r / "train/meta.json", "[]"), "meta.json: holds a list and no JSON"),
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
    "vis huge": (
        "ytvis19", vis(lambda c: c["videos"][1].update(height=10**9)), r"videos\[1\]: 1000000000 x .* is no size",
    ),
    "vis infinite": (
        "ytvis19", vis(lambda c: c["videos"][1].update(width=float("inf"))), r"videos\[1\] is not as in YouTube-VIS",
    ),
    "vis flat": ("ytvis19", vis(lambda c: c["videos"][1].update(width=0)), "x 0 is no size of a frame"),
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
    "vis fraction": ("ytvis19", segmentation(lambda s: {**s, "counts": [100.5, 115.5]}), "100.5 is no whole number"),
    "vis no counts": ("ytvis19", segmentation(lambda s: {**s, "counts": None}), "neither text nor a list"),
    "vis number": ("ytvis19", segmentation(lambda s: 7), "not a segmentation of COCO"),
    "vis far polygon": (
        "ytvis19", segmentation(lambda s: [[1, 1, 10**9, 1, 1, 10**9]]), "has corners far outside of the 18x12",
    ),
    "vis no number": (
        "ytvis19", segmentation(lambda s: [[1, 1, float("nan"), 1, 1, 5]]), "a polygon has corners far outside",
    ),
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
        "frame 00000: not a readable image .*; download this file again",
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
    tree, root, message = planted(FAULTS[fault], build)
    if tree.dataset != "sprites":  # which would be completed
        with pytest.raises(UserError, match=message):
            read_everything(load(tree, root))


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
