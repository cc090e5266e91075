"""What lies beside a video that can be segmented all the same is named once by the check."""

import json
import re
import shutil

import pytest

from tests.data.layout_edits import JPEGS, MASKS, planted, read_everything, vis, write
from tests.data.layout_trees import CAMEL, load, problems
from tests.data.tree_files import write_frames, write_labels, write_masks


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
def test_a_mismatch_is_named_once_and_the_video_is_read_all_the_same(fault, build):
    tree, root, _ = planted(MISMATCHES[fault], build)
    read_everything(load(tree, root))


def test_lists_that_do_not_name_frames_are_not_compared(build):
    tree, root = build("ytvos18")
    write(root / "train/meta.json", json.dumps({"videos": {"train0a": {}, "train1b": {"objects": {"1": []}}}}))
    assert not problems(tree, root)
    tree, root = build("fbms59-one")
    (root / "Testset/camel01/camel01.bmf").unlink()
    assert not problems(tree, root)


def test_annotations_that_would_be_missing_from_the_scores_are_noted(build, capsys):
    tree, root, message = planted(MISMATCHES["vis annotations of no video"], build)
    capsys.readouterr()
    load(tree, root)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(f"warning: .*{message}", line)
