"""`python -m data.check` as it is called."""

import re
import shutil
import sys

import numpy as np
import pytest

from data import check
from data import export as data_export
from data.registry import DATASETS
from tests.data.layout_trees import TREES
from tests.data.tree_files import FRAMES
from utils import compare, export, visual
from utils.errors import run_main
from utils.png import read_label_png, write_label_png
from utils.report import __main__ as report
from utils.scoring import __main__ as scoring

LABELS = "Annotations_unsupervised/480p"


@pytest.fixture
def run(monkeypatch, capsys):
    """run(arguments): (exit code, lines of stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["check", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            run_main(check.main)
        captured = capsys.readouterr()
        return exit_.value.code, captured.out.splitlines(), captured.err

    return call


@pytest.fixture
def davis(tmp_path):
    TREES["davis17u"].build(tmp_path)
    return tmp_path


def test_a_whole_dataset(run, davis):
    code, lines, _ = run("--dataset", "davis17u", "--basepath", davis)
    assert code == 0
    assert lines[0].endswith(": no problems")
    assert lines[2].split() == ["2", "8", "8", "4", "18x12", "(2)"]
    code, lines, _ = run("--dataset", "davis17u", "--basepath", davis, "--split", "test-dev", "--videos", "1:2")
    assert code == 0
    assert lines[2].split() == ["1", "4", "0", "0", "18x12", "(1)"]


def test_all_problems_are_named(run, davis):
    frames, ant, bee = davis / "JPEGImages/480p", davis / LABELS / "val-ant", davis / LABELS / "val-bee"
    (frames / "val-ant/00001.jpg").write_bytes(b"no picture")
    write_label_png(ant / "00002.png", np.full((12, 18), 1000))
    write_label_png(ant / "00003.png", np.ones((5, 5), int))
    (bee / "00001.png").unlink()
    code, lines, _ = run("--dataset", "davis17u", "--basepath", davis)
    assert code == 1
    assert lines[-3].endswith(": 4 problems")
    for line, part in zip(
        lines, ("ant/00001.jpg", "ant/00002.png: holds id 1000", "5x5 pixels", "val-bee: 3"), strict=False
    ):
        assert part in line


def test_quick_looks_only_whether_files_are_there(run, davis):
    (davis / "JPEGImages/480p/val-ant/00001.jpg").write_bytes(b"no picture")
    code, lines, _ = run("--dataset", "davis17u", "--basepath", davis, "--quick")
    assert code == 0
    assert lines[2].split() == ["2", "8", "8", "-", "-"]
    shutil.rmtree(davis / LABELS / "val-bee")
    code, lines, _ = run("--dataset", "davis17u", "--basepath", davis, "--quick")
    assert code == 1
    assert "val-bee: no annotations" in lines[0]


def test_one_damaged_record_is_one_problem(run, tmp_path):
    TREES["movi-e"].build(tmp_path)
    shard = tmp_path / "movi_e/256x256/1.0.0/movi_e-validation.tfrecord-00001-of-00002"
    content = shard.read_bytes()
    shard.write_bytes(content[:-100] + b"x" + content[-99:])
    code, lines, _ = run("--dataset", "movi-e", "--basepath", tmp_path)
    assert code == 1
    assert lines[0].endswith("the checksum does not fit; download this file again")
    assert lines[1].endswith(": 1 problem")


def test_bad_flags(run, davis):
    code, lines, errors = run("--dataset", "davis17u")
    assert (code, lines) == (2, [])
    assert "error: --basepath is missing" in errors
    assert run("--dataset", "davis17u", "--basepath", davis, "--videos", "2-3")[0] == 2
    assert run("--dataset", "davis17u", "--basepath", davis, "--annotations", davis)[0] == 2
    assert run("--dataset", "nothing")[0] == 2
    assert run("--basepath", davis)[0] == 2


def test_a_split_that_cannot_be_is_a_bad_flag(run, davis, tmp_path):
    code, lines, errors = run("--dataset", "davis17u", "--basepath", davis, "--split", "../val")
    assert (code, lines) == (2, [])
    assert (
        errors == "error: --split '../val': not the name of a split; choose from val, train, test-dev, test-challenge\n"
    )
    code, lines, errors = run("--dataset", "fbms59", "--basepath", tmp_path, "--split", "val")
    assert (code, lines) == (2, [])
    assert errors == "error: --split val: --dataset fbms59 has no such split; choose from test, train\n"
    assert run("--dataset", "pairs", "--basepath", tmp_path, "--split", "val")[0] == 2


def test_a_split_without_its_file_is_a_finding(run, davis):
    code, lines, _ = run("--dataset", "davis17u", "--basepath", davis, "--split", "mine")
    assert code == 1
    assert "lacks ImageSets/2017/mine.txt; check the root of the data set and --split" in lines[0]


# ------------------------------------------------------------------ ids


def renumber(folder, numbers):
    """Objects 1 and 2 of every label PNG of a folder become these."""
    for path in folder.glob("*.png"):
        write_label_png(path, np.array([0, *numbers])[np.minimum(read_label_png(path), 2)])


@pytest.mark.parametrize(
    ("numbers", "told"),
    [((254, 254), "object ids 254 but not 1-253,"), ((1, 4), "object ids 1, 4 but not 2-3,"),
     ((2, 3), "object ids 2-3 but not 1,"), ((2, 1), None), ((1, 1), None)],
)  # fmt: skip
def test_gaps_in_ids_are_a_problem_where_davis_is_usual(run, davis, numbers, told):
    renumber(davis / LABELS / "val-bee", numbers)
    code, lines, _ = run("--dataset", "davis17u", "--basepath", davis)
    assert code == (told is not None)
    assert len(lines) == 3 + code
    if told:
        assert lines[0].startswith(f"video val-bee: has {told} which the protocol davis would count")
        assert lines[0].endswith("number its objects from 1 without gaps")


def test_gaps_in_ids_are_a_note_where_davis_is_one_of_many(run, tmp_path):
    TREES["movi-c-folders"].build(tmp_path)
    renumber(tmp_path / "validation/00000001/masks", (1, 3))
    code, lines, _ = run("--dataset", "movi-c", "--basepath", tmp_path)
    assert code == 0
    assert lines[0].startswith("note: video 00000001: has object ids 1, 3 but not 2,")
    assert "score it by slots, or number" in lines[0]
    assert lines[1].endswith(": no problems")


def test_gaps_in_ids_do_not_matter_to_one_foreground_nor_beside_damage(run, davis, tmp_path):
    renumber(davis / LABELS / "val-ant", (1, 3))
    (davis / LABELS / "val-ant/00003.png").write_bytes(b"no picture")
    code, lines, _ = run("--dataset", "davis17u", "--basepath", davis)
    assert code == 1
    assert lines[1].endswith(": 1 problem")
    TREES["davis16-in-17"].build(tmp_path / "16")
    renumber(tmp_path / "16/Annotations/480p/val-ant", (1, 3))
    assert run("--dataset", "davis16", "--basepath", tmp_path / "16")[0] == 0


# ------------------------------------------------------------------ the registry


def test_list_prints_every_dataset_in_markdown(run):
    code, lines, _ = run("--list")
    assert code == 0
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    assert {len(row) for row in cells} == {10}
    assert [row[0].strip(" `") for row in cells[2:]] == list(DATASETS)
    by_name = {row[0].strip(" `"): [cell.strip() for cell in row] for row in cells}
    assert by_name["fbms59"][2:7] == [
        "test, train", "the 30 of test; the 29 of train", "merged, no void", "some frames", "foreground, oracle"
    ]  # fmt: skip
    assert by_name["davis17u"][3] == r"ImageSets/2017/\<split\>.txt, ImageSets/2019/\<split\>.txt"
    assert by_name["davis17u"][4:6] == ["several, 255", "every frame"]
    assert by_name["video"][4:7] == ["none", "no", "none"]
    assert by_name["movi-c"][9] == "[github.com](https://github.com/google-research/kubric/tree/main/challenges/movi)"


# ------------------------------------------------------------------ other places


def test_sprites_are_not_generated(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, lines, _ = run("--dataset", "sprites")
    assert code == 1
    assert "datasets/sprites: lacks ImageSets/2017/val.txt" in lines[0]
    assert not list(tmp_path.iterdir())


def test_pairs_of_two_folders(run, tmp_path):
    TREES["pairs"].build(tmp_path)
    arguments = ("--dataset", "pairs", "--basepath", tmp_path / "frames", "--annotations", tmp_path / "annotations")
    code, lines, _ = run(*arguments)
    assert code == 0
    assert lines[2].split() == ["2", "6", "4", "4", "18x12", "(2)"]
    shutil.rmtree(tmp_path / "annotations/ant")
    assert run(*arguments)[0] == 1


def test_own_frames(run, tmp_path):
    TREES["video"].build(tmp_path)
    code, lines, _ = run("--dataset", "video", "--basepath", tmp_path / "ant")
    assert code == 0
    assert lines[2].split()[:3] == ["1", str(len(FRAMES)), "0"]


@pytest.mark.parametrize("program", [check, compare, data_export, export, report, visual, scoring])
def test_wrong_flags_are_answered_in_one_line(program, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["program", "--no_such_flag"])
    with pytest.raises(SystemExit) as exit_:
        run_main(program.main)
    said = capsys.readouterr().err
    assert exit_.value.code == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert "(see python -m " in said


def test_a_root_that_is_not_there_is_a_wrong_flag(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["data.check", "--dataset", "DAVIS2017", "--basepath", str(tmp_path / "none")])
    with pytest.raises(SystemExit) as exit_code:
        run_main(check.main)
    assert exit_code.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: --basepath {tmp_path / 'none'}: no such file or folder")


@pytest.mark.parametrize("flags", [[], ["--dataset", "davis17u"]])
def test_a_folder_that_does_not_exist_is_named_whatever_else_is_missing(run, tmp_path, flags):
    code, _, error = run("--basepath", tmp_path / "nowhere", *flags)
    assert code == 2
    assert re.fullmatch(r"error: --basepath \S*nowhere: no such file or folder\n", error)
