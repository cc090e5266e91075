"""What users and their label tools hand in: other names, other zips, other ways to write the same."""

import codecs
import json
import shutil

import numpy as np
import pytest

import eval as eval_program
import train as train_program
from data import check
from data.layouts.folders import list_video_files
from data.loading import check_root, guess_own_video, list_training_videos, load_videos
from data.registry import DATASETS
from tests.data.layout_edits import edit_json
from tests.data.layout_trees import TREES, load, problems
from tests.data.tree_files import FRAMES, labels_of, write_frames
from utils.errors import UserError
from utils.flags.choices import parse_dataset_name
from utils.names import read_names

# ------------------------------------------------------------------ names

LABELS = "Annotations_unsupervised/480p"


@pytest.mark.parametrize(
    ("given", "name"),
    [("DAVIS2017", "davis17u"), ("DAVIS", "davis17u"), ("Davis17U", "davis17u"),
     ("DAVIS-2017-Unsupervised", "davis17u"),
     ("DAVIS17", "davis17"), ("DAVIS16", "davis16"), ("DAVIS2016", "davis16"), ("FBMS", "fbms59"),
     ("FBMS-59", "fbms59"),
     ("STv2", "segtrackv2"), ("SegTrack", "segtrackv2"), ("SegTrack-v2", "segtrackv2"), ("YTVIS", "ytvis19"),
     ("YouTube-VIS 2021", "ytvis21"), ("ytvos_2019", "ytvos19"), ("MOVI-C", "movi-c"), ("movi_e", "movi-e")],
)  # fmt: skip
def test_names_of_datasets_are_understood_and_recorded_as_one(given, name):
    for parser in (eval_program.make_parser(), train_program.make_parser()):
        assert parser.parse(["--dataset", given]).dataset == name
    assert all(parse_dataset_name(known) == known for known in DATASETS)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError, match="--dataset: .*'DAVIZ2016'; did you mean davis16"):
        eval_program.make_parser().parse(["--dataset", "DAVIZ2016"])


def test_own_video_needs_no_dataset(tmp_path, capsys):
    TREES["video"].build(tmp_path / "own")
    (tmp_path / "clip.mp4").touch()
    for path in (tmp_path / "own", tmp_path / "own/ant", tmp_path / "clip.mp4"):
        assert guess_own_video(str(path), otherwise="davis17u") == "video"
        assert capsys.readouterr().err == f"note: --basepath {path} is taken as --dataset video\n"
    TREES["davis17u"].build(tmp_path / "davis")
    (tmp_path / "DAVIS.zip").touch()
    for path in (tmp_path / "davis", tmp_path / "DAVIS.zip", tmp_path / "none", None):
        assert guess_own_video(path and str(path), otherwise="davis17u") == "davis17u"
    assert capsys.readouterr().err == ""


def test_a_folder_is_listed_once_for_all_its_videos(tmp_path, monkeypatch):
    """Listing it for each took 30 s of 2,000 videos."""
    for name in "abcde":
        write_frames(tmp_path / name, ["00000", "00001"])
    listed = []

    def list_and_count(folder):
        listed.append(folder)
        return list_video_files(folder)

    monkeypatch.setattr("data.layouts.folders.list_video_files", list_and_count)
    assert [video.name for video in load_videos("video", tmp_path, flag="--basepath")] == list("abcde")
    assert listed == [tmp_path]


def test_own_video_without_dataset_is_segmented_even_beside_a_recipe_of_another(tmp_path, run_eval):
    write_frames(tmp_path / "own", FRAMES)
    (tmp_path / "r.yaml").write_text("dataset: sprites\n")
    run_eval("--config", tmp_path / "r.yaml", "--basepath", tmp_path / "own", "--training_free", "--no-overlay",
             "--save_path", tmp_path / "out")  # fmt: skip
    assert json.loads((tmp_path / "out/settings.json").read_text())["dataset"] == "video"


def test_a_single_file_cannot_be_trained_on(tmp_path, run_train):
    write_frames(tmp_path, FRAMES)
    with pytest.raises(UserError, match="--basepath .*00000.jpg: .*give the folder"):
        run_train("--basepath", tmp_path / "00000.jpg", "--output_path", tmp_path / "t")
    with pytest.raises(UserError, match="--basepath .*00000.jpg: .*give the folder"):
        run_train("--basepath", tmp_path / "00000.jpg", "--dataset", "pairs", "--output_path", tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_pairs_are_trained_on(tmp_path, run_train):
    TREES["pairs"].build(tmp_path / "p")
    run_train(
        "--dataset", "pairs", "--basepath", tmp_path / "p", "--output_path", tmp_path / "t", "--num_train_steps", 1
    )
    assert (tmp_path / "t/last.pt").is_file()


# ------------------------------------------------------------------ lists


WRITINGS = {
    "mark": codecs.BOM_UTF8 + b"val-ant\nval-bee\n",
    "mark between": b"val-ant\n" + codecs.BOM_UTF8 + b"val-bee\n",
    "windows": codecs.BOM_UTF8 + b"val-ant\r\nval-bee\r\n",
    "utf-16": "val-ant\r\nval-bee\r\n".encode("utf-16"),
    "spaces and blanks": b"\n  val-ant \t\n\nval-bee  \n\n",
    "comments": b"# the two of val\nval-ant\n #none\nval-bee",
}


@pytest.mark.parametrize("writing", WRITINGS)
def test_lists_are_read_however_they_are_written(build, writing):
    tree, root = build("davis17u")
    (root / "ImageSets/2017/val.txt").write_bytes(WRITINGS[writing])
    assert [video.name for video in load(tree, root)] == ["val-ant", "val-bee"]
    assert not problems(tree, root)


def test_names_with_spaces_stand_on_a_line(build, tmp_path):
    tree, root = build("davis17u")
    for folder in ("JPEGImages/480p", LABELS):
        shutil.move(root / folder / "val-ant", root / folder / "my ant")
        shutil.move(root / folder / "train-ant", root / folder / "# 1")
    (root / "ImageSets/2017/val.txt").write_text("my ant\n# 1\nval-bee train-bee\n")
    assert [video.name for video in load(tree, root)] == ["my ant", "# 1", "val-bee", "train-bee"]
    (tmp_path / "list.txt").write_text("my ant\n")
    videos = list_training_videos("video", root, train_list=str(tmp_path / "list.txt"))
    assert list(videos) == ["JPEGImages/480p/my ant"]


def test_other_lists_of_downloads_with_marks(build):
    for key, pattern in (
        ("ytvos18", "meta.json"),
        ("ytvis19", "train.json"),
        ("davis16", "*.txt"),
        ("fbms59-one", "*.bmf"),
    ):
        tree, root = build(key)
        for path in root.rglob(pattern):
            path.write_bytes(codecs.BOM_UTF8 + path.read_bytes().replace(b"\n", b"\r\n"))
        assert load(tree, root)
        assert not problems(tree, root)
        shutil.rmtree(root)


def test_definition_of_fbms_with_a_mark(build):
    tree, root = build("fbms59-one")
    path = next(root.rglob("*.dat"))
    body = path.read_bytes().split(b"\n", 5)[5]  # begins with the regions
    path.write_bytes(codecs.BOM_UTF8 + b"# mine\r\n" + body.replace(b"\n", b"\r\n"))
    np.testing.assert_array_equal(load(tree, root)[0].annotations.read("camel01_0001"), labels_of(0) > 0)


def test_a_train_list_of_another_encoding_is_refused(tmp_path):
    (tmp_path / "l.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(UserError, match=r"l\.txt: not a text file .*; restore it"):
        read_names(tmp_path / "l.txt")


# ------------------------------------------------------------------ YouTube-VIS of label tools


def without(*keys):
    return lambda entry: [entry.pop(key, None) for key in keys]


EXPORTS = {
    "no categories": lambda c: c.pop("categories"),
    "no iscrowd": lambda c: [a.pop("iscrowd") for a in c["annotations"]],
    "iscrowd null": lambda c: [a.update(iscrowd=None) for a in c["annotations"]],
    "iscrowd as text": lambda c: [a.update(iscrowd="0") for a in c["annotations"]],
    "no sizes": lambda c: [without("height", "width", "length")(v) for v in c["videos"]],
    "ids as text": lambda c: [a.update(video_id=str(a["video_id"])) for a in c["annotations"]],
    "ids with a point": lambda c: [v.update(id=float(v["id"])) for v in c["videos"]],
    "backslashes": lambda c: [
        v.update(file_names=[f.replace("/", "\\") for f in v["file_names"]]) for v in c["videos"]
    ],
}  # fmt: skip


@pytest.mark.parametrize("export", EXPORTS)
def test_exports_of_label_tools_are_read(build, export):
    tree, root = build("ytvis19")
    edit_json(root / "train.json", EXPORTS[export])
    assert not problems(tree, root)
    for video in load(tree, root):
        for index, frame in enumerate(FRAMES):
            np.testing.assert_array_equal(video.annotations.read(frame), labels_of(index))


SQUARE = [2, 2, 7, 2, 7, 7, 2, 7]


@pytest.mark.parametrize(
    ("written", "seen"),
    [(None, False), ([], False), ([[]], False), ({}, False), ([[], SQUARE], True), ([SQUARE], True), (SQUARE, True)],
)
def test_segmentations_with_and_without_objects(build, written, seen):
    tree, root = build("ytvis19")
    edit_json(root / "train.json", lambda c: c["annotations"][0]["segmentations"].__setitem__(0, written))
    labels = load(tree, root)[0].annotations.read("00000")
    assert (1 in labels) == seen
    assert 2 in labels
    if seen:
        assert labels[5, 5] == 1


@pytest.mark.parametrize(
    "where", ["annotations/instances_train.json", "annotations/train.json", "annotations/instances.json"]
)
def test_other_places_of_the_json(build, where):
    tree, root = build("ytvis19")
    (root / "annotations").mkdir()
    shutil.move(root / "train.json", root / where)
    shutil.move(root / "train/JPEGImages", root / "JPEGImages")
    assert len(load(tree, root)) == 3
    assert not problems(tree, root)


@pytest.mark.parametrize(
    ("change", "told"),
    [(lambda c: c["annotations"][0].pop("video_id"), r"annotations\[0\] .*'video_id'"),
     (lambda c: c["annotations"][0].update(video_id=1.5), r"annotations\[0\] .*1\.5 "),
     (lambda c: c["annotations"][0].update(video_id=True), r"annotations\[0\] .*True "),
     (lambda c: c["videos"][1].update(id=1.5), r"videos\[1\] .*1\.5 "),
     (lambda c: c["annotations"][0].update(segmentations=None), r"annotations\[0\] .*for each frame"),
     (lambda c: c["annotations"][0]["segmentations"].pop(), "give one, or null, for each frame"),
     (lambda c: c.update(images=c.pop("videos")), "export it as YouTube-VIS")],
)  # fmt: skip
def test_exports_that_cannot_be_read_are_refused(build, change, told):
    tree, root = build("ytvis19")
    edit_json(root / "train.json", change)
    with pytest.raises(UserError, match=rf"train\.json.*{told}"):
        load(tree, root)


# ------------------------------------------------------------------ zips


def move_size(root):
    for folder in ("JPEGImages", "Annotations_unsupervised"):
        shutil.move(root / folder / "480p", root / folder / "Full-Resolution")


ZIPS = {
    "semi-supervised": ("davis17", "davis17u", None, "lacks .*; give --dataset davis17,"),
    "unsupervised": ("davis17u", "davis17", None, "lacks .*; give --dataset davis17u,"),
    "of 2016": ("davis16", "davis17u", None, "lacks ImageSets/2017/val.txt; .*; give --dataset davis16,"),
    "of 2017 as 2016": ("davis17u", "davis16", None, "; give --dataset davis17u,"),
    "full resolution": ("davis17u", "davis17u", move_size, "has the full resolution, .* DAVIS-2017-Unsuper.*480p.zip"),
    "frames alone": (
        "davis17u", "davis17u", lambda r: shutil.rmtree(r / "Annotations_unsupervised"),
        "; unpack there DAVIS-2017-Unsupervised.*480p.zip",
    ),
    "test-dev": (
        "davis17u", "davis17u", lambda r: (r / "ImageSets/2017/val.txt").unlink(), "--dataset davis17u --split train,",
    ),
    "another dataset": ("ytvis19", "ytvos18", None, "; give --dataset ytvis19,"),
    "pairs": ("pairs", "davis17u", None, "; give --dataset pairs,"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ZIPS)
@pytest.mark.parametrize("level", ["", "DAVIS"])
def test_a_download_of_another_dataset_is_refused_with_the_dataset_that_it_is(tmp_path, kind, level):
    there, asked, change, told = ZIPS[kind]
    root = tmp_path / "root"
    TREES[there].build(root / level)
    if change:
        change(root / level)
    with pytest.raises(UserError, match=f"^--davis_path {root}: .*{told}") as caught:
        load_videos(asked, root, flag="--davis_path")
    assert (f"in {root / 'DAVIS'}" in str(caught.value)) == bool(level) or "480p.zip" in str(caught.value)
    report = check.check(DATASETS[asked], root, split=DATASETS[asked].default_split)
    assert len(report.problems) == 1


@pytest.mark.parametrize("level", ["DAVIS", "DAVIS-data/DAVIS"])
@pytest.mark.parametrize("key", ["davis17u", "davis16", "ytvis19", "ytvos18", "fbms59-png", "movi-c-folders"])
def test_a_download_is_read_from_the_folder_it_was_unpacked_to(tmp_path, key, level, capsys):
    tree = TREES[key]
    tree.build(tmp_path / level)
    assert load(tree, tmp_path)
    assert capsys.readouterr().err == f"note: {DATASETS[tree.dataset].title} is read from {tmp_path / level}\n"
    assert not problems(tree, tmp_path)


def test_a_file_is_no_root(tmp_path):
    (tmp_path / "DAVIS.zip").touch()
    with pytest.raises(UserError, match=r"--davis_path .*DAVIS.zip: .*give the folder where"):
        check_root("davis17u", tmp_path / "DAVIS.zip", split=None, flag="--davis_path")


# ------------------------------------------------------------------ gaps in ids, places of scores
