"""Clips that eval.py is given without a flag; how often videos are decoded, and what is drawn of them."""

import json
import shutil
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import eval as eval_program
from data import export
from data.decoding.animations import PillowReader
from data.decoding.pyav import PyAVReader
from data.resolution import scale_to_patches
from tests.conftest import make_davis, moving_disk, snapshot
from tests.data.video_files import write_video
from tests.processes import launch
from utils import compare
from utils.errors import UserError
from utils.pictures import read_picture
from utils.png import write_label_png

COUNT = 5  # frames of a clip
SIZE = (48, 80)


def make_clip(path: Path, *, size=SIZE, seed=0) -> Path:
    """Make a clip of a moving disk: a video file of the kind that the ending says, or a folder of frames."""
    frames = [moving_disk(index, size=size, seed=seed)[0] for index in range(COUNT)]
    if path.suffix == ".gif":
        first, *rest = map(Image.fromarray, frames)
        first.save(path, save_all=True, append_images=rest, duration=100)
    elif path.suffix == ".mkv":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("h264", rate=10)
            stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    elif path.suffix:
        write_video(path, frames, rate=Fraction(10))
    else:
        path.mkdir(parents=True)
        for index, frame in enumerate(frames):
            Image.fromarray(frame).save(path / f"{index:05d}.png")
    return path


@pytest.fixture
def decoded(monkeypatch):
    """Count the frames that are decoded, by file or folder of frames."""
    counts = Counter()

    def count_frames(decode):
        def count(self, source, *rest):
            for frame in decode(self, source, *rest):
                name = getattr(source, "filename", None) or source.name.removeprefix("file:")
                counts[Path(name).name] += 1
                yield frame

        return count

    monkeypatch.setattr(PyAVReader, "_decode", count_frames(PyAVReader._decode))
    monkeypatch.setattr(PillowReader, "_decode_frames", count_frames(PillowReader._decode_frames))

    def count_and_read(path):
        counts[path.parent.name] += 1
        return read_picture(path)

    monkeypatch.setattr("data.frames.read_picture", count_and_read)
    return counts


def run_export(*arguments) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["export", *map(str, arguments)])
        export.main()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Decoding


@pytest.mark.parametrize(("name", "first", "again"), [
    ("clip.mp4", 1 + 2 * COUNT, 1 + COUNT),  # one frame for the size, then the network and the pixels
    ("clip.mkv", 3 * COUNT, 2 * COUNT),  # has no index, so a decoding counts the frames
    ("clip.gif", 3 * COUNT, 2 * COUNT),
    ("clip", 2 * COUNT, COUNT),
])  # fmt: skip
def test_a_clip_is_decoded_once_for_the_network_and_once_for_pixels(name, first, again, here, run_eval, decoded):
    run_eval(make_clip(here / name))
    assert decoded.pop(name) == first
    overlay, sheet = here / "outputs/clip/overlays/clip.mp4", here / "outputs/clip/contact_sheet.png"
    drawn, masks = [overlay.read_bytes(), sheet.read_bytes()], snapshot(here / "outputs")
    overlay.unlink()
    sheet.unlink()
    run_eval(name)  # draws what is missing from the masks
    assert decoded.pop(name) == again
    assert [overlay.read_bytes(), sheet.read_bytes()] == drawn
    assert snapshot(here / "outputs") == masks


def test_frames_of_a_data_set_are_decoded_twice(davis, tmp_path, run_eval, decoded):
    """The annotations on the contact sheet are others' files, and are not counted here."""
    run_eval("--davis_path", davis, "--sequences", "ant", "--training_free", "--save_path", tmp_path / "out")
    assert decoded["ant"] == 7 + 7
    assert (tmp_path / "out/contact_sheet.png").is_file()
    assert not (tmp_path / "out/overlays").exists()


def test_damage_that_the_index_does_not_show_leaves_nothing_half_written(here, run_eval):
    make_clip(here / "a.mp4", size=(96, 160))
    content = bytearray((here / "a.mp4").read_bytes())
    start = content.index(b"mdat") + len(content[content.index(b"mdat") :]) // 2
    content[start : start + 300] = bytes(300)
    (here / "b.mp4").write_bytes(content)
    with pytest.raises(UserError, match=r"b\.mp4: .*--allow_damaged"):
        run_eval("a.mp4", "b.mp4")
    out = here / "outputs/videos"
    assert not {path.name for path in out.rglob("*")} & {"b", "b.mp4", "b.json", ".b.partial", ".b.partial.mp4"}
    run_eval("a.mp4", "b.mp4", "--allow_damaged")
    assert (out / "overlays/b.mp4").is_file()


def test_a_fault_while_masks_are_written_leaves_no_overlay(here, run_eval, monkeypatch):
    def fail_at_the_third(path, labels):
        if path.stem == "00002":
            raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("utils.results.write_label_png", fail_at_the_third)
    with pytest.raises(OSError, match="No space left"):
        run_eval(make_clip(here / "clip.mp4"))
    left = {path.name for path in (here / "outputs/clip").rglob("*")}
    assert left <= {".lock", "settings.json", "overlays", "davis", "foreground"}


# The command line


def test_the_launcher_segments_a_clip(tmp_path):
    make_clip(tmp_path / "my clip.mp4", size=(160, 96))
    done = launch("start_eval.sh", "my clip.mp4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "outputs/my clip"
    for word, kind in (("masks", "davis"), ("foreground", "foreground")):
        assert len(list((out / kind / "my clip").glob("*.png"))) == COUNT
        assert f"{word}: outputs/my clip/{kind}/my clip/<frame>.png\n" in done.stdout
    for file in ("overlays/my clip.mp4", "contact_sheet.png"):
        assert (out / file).is_file()
        assert f"outputs/my clip/{file}" in done.stdout


def test_several_clips_among_flags(here, run_eval):
    make_clip(here / "a.mp4")
    make_clip(here / "b.gif", seed=1)
    make_davis(here / "DAVIS", sequences=("c", "d"), num_frames=2)
    run_eval("a.mp4", "--ratio", 2, "b.gif", "DAVIS/JPEGImages/480p", "--overlay")
    out = here / "outputs/videos"
    assert sorted(path.stem for path in (out / "stats").iterdir()) == ["a", "b", "c", "d"]
    names = [f"{name}{end}.mp4" for name in "abcd" for end in ("", ".side_by_side")]
    assert sorted(path.name for path in (out / "overlays").iterdir()) == names
    with av.open(str(out / "overlays/c.side_by_side.mp4")) as container:
        (stream,) = container.streams.video
        assert (stream.width, stream.height) == (200, 60)


def test_a_clip_is_the_same_as_a_basepath(here, run_eval):
    make_clip(here / "clip.mp4")
    run_eval("clip.mp4")
    run_eval("--config", Path(eval_program.__file__).parent / "configs/own_video.yaml", "--basepath", "clip.mp4",
             "--save_path", "other")  # fmt: skip
    one, other = (here / place / "settings.json" for place in ("outputs/clip", "other"))
    assert snapshot(here / "outputs/clip") == snapshot(here / "other")
    assert one.read_text() == other.read_text()


def test_results_of_another_clip_are_kept(here, run_eval):
    run_eval(make_clip(here / "one/clip.mp4"))
    before = snapshot(here / "outputs")
    make_clip(here / "two/clip.mp4", seed=3)
    message = f"^--save_path outputs/clip: holds results of another clip, {here}/one/clip.mp4 and not .*another folder"
    with pytest.raises(UserError, match=message):
        run_eval("two/clip.mp4")
    make_clip(here / "one/clip.mp4", seed=3)
    with pytest.raises(UserError, match="--save_path outputs/clip: .*another folder"):
        run_eval("one/clip.mp4")
    assert snapshot(here / "outputs") == before


def test_several_runs_into_one_folder_keep_the_place_of_each_video(here, run_eval):
    for name, seed in (("a", 0), ("b", 1), ("c", 2)):
        make_clip(here / f"{name}.mp4", seed=seed)
    run_eval("a.mp4", "b.mp4")
    (here / "b.mp4").rename(here / "moved.mp4")
    (here / "there").mkdir()
    (here / "moved.mp4").rename(here / "there/b.mp4")
    run_eval("c.mp4", "there")
    places = {path.stem: json.loads(path.read_text())["root"] for path in (here / "outputs/videos/stats").iterdir()}
    assert places == {"a": f"{here}/a.mp4", "b": f"{here}/there", "c": f"{here}/c.mp4"}
    for chosen in ("best", "foreground"):
        run_export("outputs/videos", "--format", "cutout", "--object", chosen, "--output_path", chosen)
        assert {path.name: len(list(path.iterdir())) for path in (here / chosen).iterdir()} == dict.fromkeys(
            "abc", COUNT
        )


def test_results_without_ground_truth_are_compared_on_a_page(here, run_eval, page):
    """Objects and foreground of both agree to some degree; the video that differs most comes first."""
    for name in ("a", "b"):
        make_clip(here / f"{name}.mp4")
    run_eval("a.mp4", "b.mp4")
    shutil.copytree("outputs/videos", "other")
    for path in (here / "other/davis/b").glob("*.png"):
        write_label_png(path, np.zeros(SIZE, np.int32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["compare", "outputs/videos", "other", "--html", "pages"])
        compare.main()
    page.open(here / "pages/index.html")
    rows = page.wait("[...document.querySelectorAll('#rows tr')].map(row => row.innerText)", len)
    assert ["b" in rows[0].split(), "a" in rows[1].split()] == [True, True]
    assert "100.0" in rows[1]
    assert "Not scored" in page.run("document.getElementById('notes').innerText")
    facts = page.run("document.getElementById('facts').innerText").lower()
    assert "agreement of objects" in facts
    assert "agreement of foreground" in facts
    assert "J&F" not in page.run("document.body.innerText")
    page.open((here / "pages/report/video.html").as_uri() + "?b")
    page.wait("Number(document.getElementById('player').dataset.index) === 0")


@pytest.mark.parametrize(("words", "message"), [
    (["--basepath", "clip.mp4"], r"clip\.mp4: .*--basepath"),
    (["--davis_path", "DAVIS"], r"clip\.mp4: .*--davis_path"),
    (["--dataset", "davis17u"], r"clip\.mp4: .*--dataset davis17u"),
    (["none.mp4"], r"^none\.mp4: no such file"),
    (["clip.mp4"], r"^clip\.mp4: .*rename one"),
    (["sound.mp4"], r"^sound\.mp4: .*give a file with a video"),
    (["empty.mp4"], r"^empty\.mp4: .*copy it again, or convert it"),
    (["notes.txt"], r"^notes\.txt: .*give the video"),
    (["empty"], r"^empty: .*name a video file or folder"),
    (["outputs/done"], r"^outputs/done: .*eval\.py.*name the video file"),
    (["--clusters", "2", "6", "clip.mp4"], "--clusters: .*clip.mp4.*before the flags"),
    (["--protocol", "foreground", "clip.mp4"], "--protocol: .*clip.mp4.*before the flags"),
    (["--sequences", "a", "clip.mp4"], "--sequences a clip.mp4: .*clip.mp4.*before the flags"),
    (["--sequences", "clip", "empty"], "--sequences empty: .*before the flags"),
])  # fmt: skip
def test_faults_are_one_line_that_names_the_clip(words, message, here, run_eval):
    make_clip(here / "clip.mp4")
    (here / "empty").mkdir()
    (here / "notes.txt").write_text("no video")
    (here / "outputs/done").mkdir(parents=True)
    (here / "outputs/done/settings.json").write_text('{"backbone": 1, "predictions": []}')
    with av.open(str(here / "sound.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 4096), np.float32), format="fltp", layout="stereo")
        frame.rate = 44100
        container.mux([*sound.encode(frame), *sound.encode()])
    with av.open(str(here / "empty.mp4"), "w", options={"movflags": "frag_keyframe+empty_moov"}) as container:
        stream = container.add_stream("h264", rate=10)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        container.start_encoding()
    with pytest.raises(UserError, match=message):
        run_eval("clip.mp4", *words)
    assert [path.name for path in (here / "outputs").iterdir()] == ["done"]


def test_weights_and_resolution_fit_themselves(here):
    make_clip(here / "clip.mp4")
    args = eval_program.parse_arguments(["clip.mp4"])
    assert (args.backbone, args.temperature, args.proposals, args.save_path) == (
        "embedded",
        4.75,
        "objects",
        "outputs/clip",
    )
    args = eval_program.parse_arguments(["--dino_path", "w.pth", "clip.mp4"])
    assert (args.backbone, args.temperature) == ("vit_small_patch8_224.dino", 3.0)
    args = eval_program.parse_arguments(["clip.mp4", "--resume_path", "last.pt", "--save_path", "out"])
    assert (args.backbone, args.training_free, args.save_path) == ("embedded", False, "out")


def test_other_patches_get_as_many_as_those_of_eight_pixels():
    for patch, resolution in ((8, (160, 280)), (14, (280, 490)), (16, (320, 560))):
        assert scale_to_patches((160, 280), (patch, patch)) == resolution
    assert scale_to_patches((320, 480), (16, 16)) == (320, 480)
