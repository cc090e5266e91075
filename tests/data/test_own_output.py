"""What the programs write is never taken for what they are to read."""

import json

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from data.loading import index_videos, load_videos
from data.own_output import find_frames
from tests.conftest import moving_disk
from utils.errors import UserError
from utils.png import write_label_png
from utils.visual import MARK, read_label_map_rows, save_figure, write_picture

OURS = "not taken for frames"


def write_frames(folder, count=3, *, ending="jpg"):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        cv2.imwrite(str(folder / f"{index}.{ending}"), moving_disk(index, size=(40, 60), seed=0)[0])


def write_results(folder, videos=("ant",), *, kinds=("davis",)):
    """As eval.py leaves them, with more than 255 ids: 16-bit grey, which nothing marks as labels."""
    for kind in kinds:
        for video in videos:
            for index in range(3):
                place = folder if len(kinds) == 1 else folder / kind
                write_label_png(place / f"{video}/{index}.png", np.full((40, 60), 300 + index))
    for video in videos:
        (folder / "stats").mkdir(exist_ok=True)
        (folder / f"stats/{video}.json").write_text("{}")
    (folder / "settings.json").write_text(json.dumps({"predictions": list(kinds), "backbone": {}, "split": "all"}))
    write_picture(folder / "contact_sheet.png", np.zeros((90, 90, 3), np.uint8))


@pytest.fixture
def clips(tmp_path):
    """Two videos, and beside them all that the programs leave."""
    root = tmp_path / "clips"
    for name in ("ant", "bee10", "bee9"):
        write_frames(root / name)
    write_results(root / "out")
    write_results(root / "deeper/both", kinds=("davis", "paper"))
    for index in range(3):
        write_label_png(root / f"ant_masks/{index}.png", np.full((40, 60), index))
    (root / "run").mkdir()
    (root / "run/log.jsonl").write_text("")
    (root / "run/last.pt").write_bytes(b"")
    write_picture(root / "run/maps.png", np.zeros((9, 9, 3), np.uint8))
    (root / "pictures").mkdir()
    save_figure(Figure(figsize=(1, 1)), root / "pictures/curve.png", dpi=50)
    write_picture(root / "pictures/sheet.png", np.zeros((9, 9, 3), np.uint8))
    return root


def test_results_below_the_root_are_no_videos(clips, capsys):
    names = [video.name for video in load_videos("video", clips, flag="--basepath")]
    assert names == ["ant", "bee9", "bee10"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: {clips}: {OURS}: ")
    assert "label PNGs or pictures of results in ant_masks, pictures" in line
    assert "results of eval.py in out" in line
    assert "a run of train.py in run" in line


def test_results_are_no_training_videos(clips, capsys):
    assert sorted(index_videos(clips)) == ["ant", "bee10", "bee9"]
    (line,) = capsys.readouterr().err.splitlines()
    assert "results of eval.py in deeper/both, out" in line


@pytest.mark.parametrize("place", ["out", "out/ant", "deeper/both/paper/ant", "deeper/both", "ant_masks", "pictures"])
def test_a_root_of_results_is_refused(clips, place):
    for read in (lambda root: load_videos("video", root, flag="--basepath"), index_videos):
        with pytest.raises(UserError, match=rf"--basepath .*{place}: (holds results of eval.py|n)"):
            read(clips / place)


def test_overlays_are_no_videos(clips):
    """Neither the folder of them nor one by itself; other video files below results are somebody's."""
    overlay, own = clips / "out/overlays/ant.mp4", clips / "out/film.mp4"
    overlay.parent.mkdir()
    for path in (overlay, own):
        path.write_bytes(b"")
    for place in (overlay, overlay.parent):
        with pytest.raises(UserError, match=r"overlays.*: .*name the video file"):
            load_videos("video", place, flag="--basepath")
    with pytest.raises(UserError, match="film.mp4") as refused:  # as it is empty
        load_videos("video", own, flag="--basepath")
    assert "results" not in str(refused.value)


def test_labels_and_pictures_among_frames_are_left_out(tmp_path, capsys):
    write_frames(tmp_path)
    for index in range(3):
        write_label_png(tmp_path / f"mask{index}.png", np.full((40, 60), index))
    write_picture(tmp_path / "contact_sheet.png", np.zeros((9, 9, 3), np.uint8))
    frames, ours = find_frames(tmp_path)
    assert [path.name for path in frames] == ["0.jpg", "1.jpg", "2.jpg"]
    assert "label PNGs" in ours
    (video,) = load_videos("video", tmp_path, flag="")
    assert video.frame_names == ["0", "1", "2"]
    assert len(list(video.read())) == 3
    assert OURS in capsys.readouterr().err


def test_frames_of_other_programs_are_frames(tmp_path, capsys):
    """Indexed PNGs of other colours, settings and logs of other programs."""
    folder = tmp_path / "v"
    folder.mkdir()
    for index in range(3):
        frame = Image.fromarray(moving_disk(index, size=(40, 60), seed=0)[0])
        frame.quantize(16).save(folder / f"{index}.png")
        Image.new("L", (60, 40)).convert("P").save(folder / f"1{index}.png")
    (folder / "settings.json").write_text('{"predictions": 1}')
    (folder / "log.jsonl").write_text("")
    for text in ('{"backbone": 1}', "[1]", "no json"):
        (folder / "settings.json").write_text(text)
        assert len(load_videos("video", folder, flag="")[0].frame_names) == 6
        assert len(index_videos(tmp_path)["v"]) == 6
    assert not capsys.readouterr().err


def test_results_beside_pairs_are_no_pairs(tmp_path, capsys):
    for name in ("ant", "bee"):
        write_frames(tmp_path / f"frames/{name}", ending="png")
        for index in range(3):
            write_label_png(tmp_path / f"truth/{name}/{index}.PNG", moving_disk(index, size=(40, 60), seed=0)[1])
    write_results(tmp_path / "frames/out")
    write_label_png(tmp_path / "frames/labels/0.png", np.full((40, 60), 1))
    found = load_videos("pairs", tmp_path / "frames", flag="", annotations=tmp_path / "truth")
    assert [video.name for video in found] == ["ant", "bee"]
    assert "results of eval.py in out" in capsys.readouterr().err


def test_a_second_run_finds_the_videos_of_the_first(clips, run_eval, capsys):
    for name in ("deeper", "out", "run", "pictures"):
        (clips / name).rename(clips.parent / name)
    arguments = ("--dataset", "video", "--basepath", clips, "--training_free", "--save_path", clips / "mine")
    run_eval(*arguments)
    made = {path: path.stat().st_mtime_ns for path in (clips / "mine").rglob("*.png")}
    run_eval(*arguments, "--no-overlay")
    assert sorted(path.stem for path in (clips / "mine/stats").iterdir()) == ["ant", "bee10", "bee9"]
    again = {path: path.stat().st_mtime_ns for path in (clips / "mine").rglob("*.png")}
    assert again == made
    assert "results of eval.py in mine" in capsys.readouterr().err


def test_results_of_another_version_of_a_frame_are_refused(clips, run_eval, tmp_path):
    arguments = ("--dataset", "video", "--basepath", clips / "ant", "--training_free", "--save_path", tmp_path / "o")
    run_eval(*arguments, "--no-overlay")
    path = clips / "ant/1.jpg"
    content = bytearray(path.read_bytes())
    content[-30] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="--save_path .*ant .*--overwrite"):
        run_eval(*arguments)


def test_a_picture_of_ours_says_so(tmp_path):
    write_picture(tmp_path / "a.png", np.full((4, 4, 3), (1, 2, 3), np.uint8))
    with Image.open(tmp_path / "a.png") as image:
        assert MARK.items() <= image.info.items()
        assert np.array(image)[0, 0].tolist() == [1, 2, 3]
    write_picture(tmp_path / "a.jpg", np.zeros((4, 4, 3), np.uint8))
    save_figure(Figure(figsize=(1, 1)), tmp_path / "a.pdf", dpi=50)
    with pytest.raises(UserError, match=r"a\.nothing: .*check its ending"):
        write_picture(tmp_path / "a.nothing", np.zeros((4, 4, 3), np.uint8))


def test_masks_in_capitals_are_drawn_in_the_order_of_their_numbers(tmp_path):
    for name in ("v10", "v9"):
        for index in (10, 9, 8):
            write_label_png(tmp_path / name / f"{index}.PNG", np.full((4, 4), index))
    rows = read_label_map_rows(tmp_path, count=3)
    assert [name for name, _ in rows] == ["v9", "v10"]
    assert len({picture[0, 0].tobytes() for picture in rows[0][1]}) == 3
    write_label_png(tmp_path / "w/8.png", np.full((4, 4), 1))
