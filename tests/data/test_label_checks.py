"""Annotations are checked before anything is segmented: kind of masks, sizes, ids; and scores go where told."""

import shutil
import sys

import numpy as np
import pytest
from PIL import Image

import eval as eval_program
from data.frames import read_image_size
from data.selection import check_sizes
from tests.data.layout_edits import edit_json
from tests.data.layout_trees import load, problems
from tests.data.tree_files import FRAMES, SIZE, labels_of, write_labels, write_masks
from utils.errors import UserError
from utils.names import check_name
from utils.png import write_label_png
from utils.scoring import __main__ as scoring
from utils.scoring import label_checks
from utils.scoring.annotations import find_label_files
from utils.scoring.label_checks import check_labels, is_smoothed

LABELS = "Annotations_unsupervised/480p"


def smooth(path):
    """As a picture that was resized: an edge becomes a ramp."""
    mask = np.zeros((48, 64), np.uint8)
    mask[10:38, 12:50] = 200
    Image.fromarray(mask).resize((31, 23)).resize((64, 48), Image.Resampling.BICUBIC).save(path)


def test_smoothed_masks_are_told_from_many_objects(tmp_path):
    smooth(tmp_path / "s.png")
    assert is_smoothed(np.asarray(Image.open(tmp_path / "s.png")).astype(np.int32))
    tiles = np.kron(np.arange(100).reshape(10, 10), np.ones((4, 4), int))
    assert not is_smoothed(tiles)
    assert not is_smoothed(labels_of(0).astype(np.int32))


def truth_of(root, **videos):
    for name, write in videos.items():
        (root / name).mkdir(parents=True)
        write(root / name)
    return {name: find_label_files(root / name) for name in videos}


def binary(folder):
    write_label_png(folder / "00000.png", np.zeros(SIZE, int))
    write_masks(folder, FRAMES[1:], (1, 2))


def test_smoothed_masks_are_warned_about(tmp_path, capsys):
    truth = truth_of(tmp_path, a=lambda f: smooth(f / "0.png"), b=lambda f: write_labels(f, FRAMES))
    assert check_labels(truth, ["davis"]) is truth
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path}/a/0.png: ")
    assert "nearest-neighbour" in line


def test_binary_masks_are_for_the_protocol_foreground(tmp_path, capsys):
    truth = truth_of(tmp_path, a=binary)
    with pytest.raises(UserError, match=r"a/00001.png: .*use --protocol foreground"):
        check_labels(truth, ["davis", "foreground"])
    taken = check_labels(truth, ["foreground", "oracle"])["a"]
    assert "note: " in capsys.readouterr().err
    assert taken.frame_names == FRAMES
    assert taken.digest() != truth["a"].digest()
    np.testing.assert_array_equal(taken.read("00002"), labels_of(1) > 0)


def test_one_binary_video_among_others_is_warned_about(tmp_path, capsys):
    truth = truth_of(tmp_path, a=lambda f: write_labels(f, FRAMES, void=True), b=binary)
    assert check_labels(truth, ["davis"]) is truth
    assert capsys.readouterr().err.startswith(f"warning: {tmp_path}/b/00001.png: b holds only 0 and 255")


def test_of_a_sequence_one_frame_is_read_where_it_has_an_object(tmp_path, monkeypatch):
    truth = truth_of(tmp_path, a=lambda f: write_labels(f, FRAMES))
    reads = []
    read = type(truth["a"]).read
    monkeypatch.setattr(type(truth["a"]), "read", lambda self, frame: reads.append(frame) or read(self, frame))
    label_checks.check_labels(truth, ["davis"])
    assert reads == ["00000"]


def test_data_check_names_binary_and_smoothed_masks(build):
    tree, root = build("davis17u")
    shutil.rmtree(root / LABELS / "val-ant")
    (root / LABELS / "val-ant").mkdir()
    write_masks(root / LABELS / "val-ant", FRAMES, (1, 2))
    (found,) = problems(tree, root)
    assert "val-ant/00000.png: " in found
    assert "--protocol foreground" in found


def test_sizes_are_compared_before_anything_is_segmented(davis, tmp_path, run_eval, monkeypatch):
    monkeypatch.setattr(eval_program, "predict", lambda *args: pytest.fail("segmented"))
    arguments = ("--davis_path", davis, "--training_free", "--save_path", tmp_path / "r")
    mask = davis / LABELS / "bee/00003.png"
    kept = mask.read_bytes()
    write_label_png(mask, np.ones((5, 7), int))
    with pytest.raises(UserError, match=r"bee/00003.png: 7x5 .*100x60"):
        run_eval(*arguments)
    mask.write_bytes(kept)
    Image.new("RGB", (20, 10)).save(davis / "JPEGImages/480p/ant/00002.jpg")
    with pytest.raises(UserError, match=r"ant/00002.jpg: 20x10 .*100x60"):
        run_eval(*arguments)
    (davis / "JPEGImages/480p/ant/00002.jpg").write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"ant/00002.jpg: not a readable image"):
        run_eval(*arguments)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("key", ["davis16", "segtrackv2-few", "fbms59-one", "ytvis19"])
def test_sizes_of_every_kind_of_annotation_are_compared(build, key):
    tree, root = build(key)
    check_sizes(load(tree, root))
    if key == "ytvis19":
        edit_json(root / "train.json", lambda c: c["videos"][0].update(height=5))
    else:
        pattern = {"davis16": "Annotations/480p/val-*/*.png", "segtrackv2-few": "GroundTruth/bmx/2/*.png",
                   "fbms59-one": "**/*_gt.ppm"}[key]  # fmt: skip
        Image.new("RGB", (20, 10)).save(sorted(root.glob(pattern))[-1])
    with pytest.raises(UserError, match=r": .*18x12; restore one"):
        check_sizes(load(tree, root))


def test_the_size_is_that_of_the_picture_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image_size(tmp_path / "a.jpg") == (20, 10)
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    assert read_image_size(tmp_path / "a.png") == (10, 20)


def renumbered(davis, name):
    for path in (davis / LABELS / name).glob("*.png"):
        write_label_png(path, np.asarray(Image.open(path)).astype(int) * 9)


def test_gaps_in_object_ids_are_noted_once_a_run_and_again_from_kept_scores(davis, tmp_path, monkeypatch, capsys):
    renumbered(davis, "bee")
    predictions = shutil.copytree(davis / LABELS, tmp_path / "predictions")
    commands = [
        (eval_program, ["eval.py", "--davis_path", davis, "--predictions", predictions, "--save_path", tmp_path / "s"]),
        (scoring, ["scoring", "--davis_path", davis, "--results", predictions,
                                        "--scores_path", tmp_path / "s"]),
    ]  # fmt: skip
    for program, command in (*commands, commands[0]):
        monkeypatch.setattr(sys, "argv", [*map(str, command), "--protocol", "both", "--workers", "1"])
        program.main()
        notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
        assert len(notes) == 1
        assert "davis, paper: gaps in the object ids of bee (ids 9: 9 objects counted)" in notes[0]
        assert "renumber" in notes[0]
        assert "ant" not in notes[0].split("bee")[0]
    assert sorted(path.name for path in predictions.iterdir()) == ["ant", "bee"]


def test_scores_go_to_the_folder_given_and_never_beside_foreign_predictions(davis, tmp_path, monkeypatch, capsys):
    predictions = shutil.copytree(davis / LABELS, tmp_path / "theirs")
    monkeypatch.chdir(tmp_path)

    def run(*extra):
        command = ["scoring", "--davis_path", davis, "--results", predictions, "--workers", 1, *extra]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        scoring.main()
        return capsys.readouterr().out

    assert "written to outputs/scores/theirs/scores/davis" in run()
    assert f"written to {tmp_path}/told/scores/davis" in run("--scores_path", tmp_path / "told")
    assert not (predictions / "scores").exists()
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours/settings.json").write_text("{}")
    with pytest.raises(UserError, match="--scores_path .*ours: "):
        run("--scores_path", tmp_path / "ours")
    (predictions / "settings.json").write_text("{}")
    assert f"written to {predictions}/scores/davis" in run()


def test_scoring_names_the_root_and_the_annotations_that_are_there(davis, tmp_path, monkeypatch):
    def run(root):
        monkeypatch.setattr(sys, "argv", ["scoring", "--davis_path", str(root), "--results", str(davis / LABELS)])
        with pytest.raises(UserError) as caught:
            scoring.main()
        return str(caught.value)

    assert f"give --davis_path {davis}" in run(davis.parent)
    shutil.copytree(davis / LABELS, davis / "Annotations/480p")
    shutil.move(davis / "Annotations_unsupervised", davis / "kept")
    monkeypatch.setattr(sys, "argv", ["scoring", "--davis_path", str(davis), "--results", str(davis / "kept/480p")])
    with pytest.raises(UserError, match="give --annotations Annotations/480p"):
        scoring.main()


@pytest.mark.parametrize("name", ["JPEGImages/\n", "a\nb", "a\tb", "a\x7f", "../a", "a/b", "a\\b", "", "..", None, 3])
def test_a_name_from_a_file_is_that_of_one_file_or_folder(name):
    with pytest.raises(UserError, match="meta.json: .*restore this file") as caught:
        check_name(name, "meta.json")
    assert "\n" not in str(caught.value)
    assert check_name("a b-é.0", "meta.json") == "a b-é.0"
