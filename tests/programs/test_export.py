"""Exports of finished results: JSON that pycocotools reads, cut-outs, binary masks; nothing is overwritten."""

import base64
import json
import shutil
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

import eval as eval_program
from data import export
from tests.conftest import make_davis, moving_disk
from tests.data.video_files import write_video
from utils.errors import UserError
from utils.png import find_pngs, read_label_png

COUNT, SIZE = 6, (48, 80)


@pytest.fixture(scope="module")
def made(tiny_network, tmp_path_factory) -> Path:
    """A folder with results of two kinds of two sequences of DAVIS, and of a clip."""
    folder = tmp_path_factory.mktemp("made")
    make_davis(folder / "DAVIS", num_frames=COUNT, size=SIZE)
    write_video(folder / "clip.mp4", [moving_disk(index, size=SIZE, seed=2)[0] for index in range(COUNT)],
                rate=Fraction(10))  # fmt: skip
    runs = [["--davis_path", folder / "DAVIS", "--training_free", "--protocol", "davis", "foreground", "--workers", 1],
            [folder / "clip.mp4", "--protocol", "davis"]]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, arguments in zip(("both", "one"), runs, strict=True):
            words = [*arguments, *tiny_network, "--save_path", folder / name]
            patch.setattr(sys, "argv", ["eval.py", *map(str, words)])
            eval_program.main()
    return folder


@pytest.fixture
def run_export(monkeypatch, tmp_path):
    """Run the command into `tmp_path / "out"`, and return that path."""

    def run(*arguments) -> Path:
        out = tmp_path / "out"
        words = [*arguments] if "--output_path" in arguments else [*arguments, "--output_path", out]
        monkeypatch.setattr(sys, "argv", ["export", *map(str, words)])
        export.main()
        return out

    return run


def read_maps(folder: Path) -> np.ndarray:
    return np.stack([read_label_png(path) for path in find_pngs(folder).values()])


def test_results_of_youtube_vis_are_decoded_to_the_masks(made, run_export):
    results = json.loads(run_export(made / "both", "--format", "ytvis").read_text())
    for number, name in enumerate(("ant", "bee"), 1):
        maps = read_maps(made / "both/davis" / name)
        entries = [entry for entry in results if entry["video_id"] == number]
        recorded = json.loads((made / f"both/stats/{name}.json").read_text())["proposals"]["davis"]
        assert [entry["score"] for entry in entries] == [proposal["score"] for proposal in recorded]
        for label, entry in enumerate(entries, 1):
            assert set(entry) == {"video_id", "category_id", "score", "segmentations"}
            assert len(entry["segmentations"]) == COUNT
            for segmentation, labels in zip(entry["segmentations"], maps, strict=True):
                mask = np.zeros(SIZE) if segmentation is None else coco_mask.decode(segmentation)
                assert np.array_equal(mask, labels == label)
                assert (segmentation is None) == (not mask.any())


def test_ids_come_from_the_json_of_the_split(made, run_export, tmp_path):
    """It may list videos that were not segmented, and fewer frames."""
    videos = [{"id": 70, "file_names": ["cat/0.jpg"]}]
    videos += [{"id": 7 + index, "file_names": [f"{name}/{frame:05d}.jpg" for frame in (0, 5)]}
               for index, name in enumerate(("bee", "ant"))]  # fmt: skip
    ids = tmp_path / "valid.json"
    ids.write_text(json.dumps({"videos": videos}))
    results = json.loads(run_export(made / "both", "--format", "ytvis", "--video_ids", ids).read_text())
    assert {entry["video_id"] for entry in results} == {7, 8}
    assert {len(entry["segmentations"]) for entry in results} == {2}
    first = next(entry for entry in results if entry["video_id"] == 8)["segmentations"]
    last = read_label_png(made / "both/davis/ant/00005.png") == 1
    assert np.array_equal(coco_mask.decode(first[1]) if first[1] else np.zeros(SIZE), last)


def test_pycocotools_opens_the_data_set(made, run_export):
    coco = COCO(run_export(made / "both", "--format", "coco"))
    maps = {name: read_maps(made / "both/davis" / name) for name in ("ant", "bee")}
    assert [video["name"] for video in coco.dataset["videos"]] == list(maps)
    assert len(coco.imgs) == 2 * COUNT
    for image in coco.imgs.values():
        name, _ = image["file_name"].split("/")
        labels = maps[name][image["frame_id"]]
        found = coco.imgToAnns[image["id"]]
        assert sorted(one["instance_id"] for one in found) == sorted(set(np.unique(labels)) - {0})
        for annotation in found:
            mask = labels == annotation["instance_id"]
            assert np.array_equal(coco.annToMask(annotation), mask)
            assert annotation["area"] == mask.sum()
            rows, columns = np.nonzero(mask)
            assert annotation["bbox"][:2] == [columns.min(), rows.min()]


@pytest.mark.parametrize(("chosen", "place", "label"), [("best", "davis", 1), ("2", "davis", 2),
                                                        ("foreground", "foreground", 1)])  # fmt: skip
def test_binary_masks_of_an_object(chosen, place, label, made, run_export):
    out = run_export(made / "both", "--format", "binary", "--object", chosen)
    for name in ("ant", "bee"):
        wanted = read_maps(made / "both" / place / name) == label
        assert np.array_equal(np.stack([np.asarray(Image.open(path)) for path in sorted((out / name).iterdir())]),
                              wanted * np.uint8(255))  # fmt: skip


@pytest.mark.parametrize(("results", "name"), [("both", "ant"), ("one", "clip")])
def test_cut_outs_are_the_frames_within_the_mask(results, name, made, run_export):
    out = run_export(made / results, "--format", "cutout")
    maps = read_maps(made / ("both/davis/ant" if results == "both" else "one/clip"))
    for index, path in enumerate(sorted((out / name).iterdir())):
        picture = np.asarray(Image.open(path))
        assert picture.shape == (*SIZE, 4)
        assert np.array_equal(picture[..., 3], (maps[index] == 1) * np.uint8(255))
        assert not picture[maps[index] != 1].any()
        if results == "both":
            frame = np.asarray(Image.open(made / f"DAVIS/JPEGImages/480p/{name}/{path.stem}.jpg"))
            inside = maps[index] == 1
            assert np.abs(picture[inside][:, :3].astype(int) - frame[inside]).max(initial=0) <= 3  # decoders of JPEG
    assert index == COUNT - 1


@pytest.mark.parametrize(("results", "name"), [("both", "ant"), ("one", "clip")])
def test_videos_with_alpha_are_the_cut_outs(results, name, made, run_export, page):
    out = run_export(made / results, "--format", "webm")
    maps = read_maps(made / ("both/davis/ant" if results == "both" else "one/clip"))
    frames = []
    with av.open(str(out / f"{name}.webm")) as container:
        (stream,) = container.streams.video
        assert stream.average_rate == (10 if name == "clip" else 24)
        decoder = av.CodecContext.create("libvpx-vp9", "r")  # that of FFmpeg itself leaves out alpha
        for packet in container.demux(stream):
            frames += [frame.to_ndarray(format="rgba") for frame in decoder.decode(packet)]
    assert len(frames) == COUNT
    for frame, labels in zip(frames, maps, strict=True):
        assert frame.shape == (*SIZE, 4)
        assert ((frame[..., 3] > 127) != (labels == 1)).mean() < 0.01
    page.open("data:text/html,<video></video>")
    source = f"data:video/webm;base64,{base64.b64encode((out / f'{name}.webm').read_bytes()).decode()}"
    page.run(f"video = document.querySelector('video'); video.src = '{source}'; 0")
    page.wait("video.readyState >= 2")
    assert page.run("[video.videoHeight, video.videoWidth]") == [*SIZE]
    count_opaque = (
        "(() => { const canvas = document.createElement('canvas'); canvas.width = video.videoWidth; "
        "canvas.height = video.videoHeight; const context = canvas.getContext('2d'); context.drawImage(video, 0, 0); "
        "const { data } = context.getImageData(0, 0, canvas.width, canvas.height); "
        "return data.filter((_, k) => k % 4 === 3).reduce((sum, value) => sum + (value > 127), 0); })()"
    )
    page.wait(count_opaque)  # a frame that is loaded is drawn a little later
    assert abs(page.run(count_opaque) - (maps[0] == 1).sum()) < 0.02 * maps[0].size


def test_without_vp9_there_is_no_video_with_alpha(made, run_export, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.video.VP9", "none")
    with pytest.raises(UserError, match="--format webm: .*pip install av, or give --format cutout"):
        run_export(made / "one", "--format", "webm")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("words", "message"), [
    (["none", "--format", "coco"], "^none: .*eval.py"),
    (["DAVIS", "--format", "coco"], "^DAVIS: .*eval.py"),
    (["both/davis", "--format", "coco"], "^both/davis: .*give the whole folder, both$"),
    (["both", "--format", "binary", "--object", "99"], "--object 99: ant .*1 to"),
    (["both", "--format", "binary", "--object", "0"], "--object: 0 "),
    (["one", "--format", "binary", "--object", "foreground"], "^one: .*--protocol foreground"),
    (["both", "--format", "coco", "--object", "1"], "--object 1: .*no effect beside --format coco"),
    (["both", "--format", "coco", "--video_ids", "ids.json"], "--video_ids ids.json: .*--format coco; leave it out"),
    (["both", "--format", "ytvis", "--video_ids", "ids.json"], "--video_ids ids.json: .*ant"),
    (["both", "--format", "ytvis", "--video_ids", "bad.json"], "--video_ids bad.json: .*id"),
    (["both", "--format", "ytvis", "--video_ids", "none.json"], "--video_ids none.json: .*give the JSON of the split"),
    (["both", "--format", "coco", "--output_path", "clip.mp4"], r"--output_path clip\.mp4: .*another or remove it"),
    (["both", "--format", "cutout", "--output_path", "DAVIS"], "--output_path DAVIS: .*another or remove it"),
])  # fmt: skip
def test_faults_are_named_and_leave_nothing(words, message, made, run_export, tmp_path, monkeypatch):
    monkeypatch.chdir(made)
    (made / "ids.json").write_text(json.dumps({"videos": [{"id": 1, "file_names": ["cat/0.jpg"]}]}))
    (made / "bad.json").write_text(json.dumps({"videos": [{"id": 1}]}))
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    with pytest.raises(UserError, match=message):
        run_export(*words)
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_moved_or_changed_is_named(made, run_export, tmp_path):
    clip = made / "clip.mp4"
    content = clip.read_bytes()
    try:
        clip.rename(made / "moved.mp4")
        with pytest.raises(UserError, match=rf"^{clip}: .*gone; move them back"):
            run_export(made / "one", "--format", "cutout")
        write_video(clip, [moving_disk(index, size=SIZE, seed=3)[0] for index in range(COUNT)], rate=Fraction(10))
        with pytest.raises(UserError, match=rf"^{clip}: .*restore it, or run eval.py again"):
            run_export(made / "one", "--format", "cutout")
    finally:
        clip.write_bytes(content)
        (made / "moved.mp4").unlink()
    assert list(tmp_path.iterdir()) == []


def test_results_of_an_older_version_are_completed_by_another_run(made, run_export, tmp_path, run_eval):
    results = tmp_path / "old"
    shutil.copytree(made / "one", results)
    stats = json.loads((results / "stats/clip.json").read_text())
    (results / "stats/clip.json").write_text(json.dumps({key: stats[key] for key in stats if key != "root"}))
    with pytest.raises(UserError, match=r"stats/clip\.json: .*run eval.py on"):
        run_export(results, "--format", "cutout")
    run_eval(made / "clip.mp4", "--protocol", "davis", "--save_path", results)
    assert len(list((run_export(results, "--format", "cutout") / "clip").iterdir())) == COUNT


def test_frames_of_pairs_with_annotations_elsewhere_are_found(davis, run_export, run_eval, tmp_path):
    arguments = ("--annotations", davis / "Annotations_unsupervised/480p", "--training_free", "--sequences", "bee")
    run_eval(
        "--dataset", "pairs", "--basepath", davis / "JPEGImages/480p", *arguments, "--save_path", tmp_path / "pairs"
    )
    out = run_export(tmp_path / "pairs", "--format", "cutout")
    assert [path.name for path in out.iterdir()] == ["bee"]
    assert len(list((out / "bee").iterdir())) == len(list((davis / "JPEGImages/480p/bee").iterdir()))


def test_a_failure_leaves_no_half_folder(made, run_export, tmp_path, monkeypatch):
    calls = []

    def fail(path):
        calls.append(path)
        if len(calls) > 8:
            raise UserError(f"{path}: damaged")
        return read_label_png(path)

    monkeypatch.setattr(export, "read_label_png", fail)
    for form in ("binary", "coco"):
        calls.clear()
        with pytest.raises(UserError, match="damaged"):
            run_export(made / "both", "--format", form)
    assert list(tmp_path.iterdir()) == []
