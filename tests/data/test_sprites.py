"""Sprites: the same seed gives the same bytes, the labels fit the pictures, and a broken folder is mended or named."""

import errno
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data.sprites import __main__ as program
from data.sprites import exact
from data.sprites import writer as sprites
from data.sprites.exact import ExactGenerator
from data.sprites.plan import draw_coarse_labels, fit_path, plan_scene
from data.sprites.render import Stage, render_sequence
from data.sprites.shapes import rasterise
from data.sprites.splits import PLANS
from data.sprites.writer import (
    DEFAULT_ROOT,
    FRAMES,
    LABELS,
    MANIFEST,
    SPLITS,
    cluster_by_color,
    compute_mean_best_iou,
    draw_contact_sheet,
    ensure_sprites,
    read_video,
    write_sprites,
)  # fmt: skip
from utils.errors import UserError

# Of frames and masks, six characters each. They are the same on every processor and with every supported version of
# NumPy, OpenCV and SciPy. When pixels change on purpose, renew them, `VERSION` and the figures of Sprites in the docs.
DIGESTS = {
    "train": "43d64b 9c3007",
    "val": "a261f8 bf6cbf",
    "small": "801815 b0c05a",
    "crowd": "069593 809369",
    "leave": "2572cd a0bf3f",
}
NAMED = ("small", "crowd", "leave")
SMALL = {"height": 64, "num_train": 1, "num_val": 2, "num_frames": 3, "workers": 1, "progress": False}


def digest(root: Path) -> dict[str, str]:
    files = (p for p in sorted(root.rglob("*")) if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_sprites(tmp_path_factory.mktemp("sprites") / "set", **SMALL)


@pytest.fixture(scope="module")
def video():
    return render_sequence([0, 1, 2], height=120, num_frames=10)


def test_rendering_is_a_pure_function_of_the_seed():
    first, again, other = (render_sequence(seed, height=64, num_frames=2) for seed in (5, 5, 6))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def digest_split(split: str) -> str:
    """Digest the frames and the masks of a short video of a split."""
    arrays = render_sequence([0, PLANS[split].seed, 0], height=72, num_frames=4, split=split)
    return " ".join(hashlib.sha256(array.tobytes()).hexdigest()[:6] for array in arrays)


@pytest.mark.parametrize("split", PLANS)
def test_frames_and_masks_are_the_same_on_every_processor(split):
    assert digest_split(split) == DIGESTS[split]


def test_frames_and_masks_do_not_depend_on_the_instructions_of_the_processor():
    """NumPy, OpenCV and OpenBLAS without the instructions that not every processor has."""
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    plain = {"NPY_DISABLE_CPU_FEATURES": " ".join(found), "OPENBLAS_CORETYPE": "Nehalem", "OPENCV_IPP": "disabled",
             "OPENCV_CPU_DISABLE": "AVX512_SKX,AVX2,FMA3,AVX,FP16,SSE4.2,SSE4.1,SSSE3"}  # fmt: skip
    script = "from tests.data.test_sprites import PLANS, digest_split; print({s: digest_split(s) for s in PLANS})"
    run = subprocess.run([sys.executable, "-c", script], env=os.environ | plain, capture_output=True, text=True)
    assert run.stdout.strip() == str(DIGESTS), run.stderr


def test_functions_are_those_of_the_mathematics():
    x = np.linspace(-60, 60, 4001)
    assert np.abs(exact.sin(x) - np.sin(x)).max() < 1e-13
    assert np.abs(exact.cos(x) - np.cos(x)).max() < 1e-13
    assert np.allclose(exact.exp(x), np.exp(x), rtol=1e-13, atol=0)
    assert np.allclose(exact.log(np.exp(x)), x, rtol=1e-13, atol=1e-15)
    for exponent in (0.4, 1, 2.2):
        assert np.allclose(exact.power(np.abs(x), exponent), np.abs(x) ** exponent, rtol=1e-12)


@pytest.mark.parametrize("border", [cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE])
def test_interpolation_is_exact(border):
    """In whole numbers, as Python computes them, however large the steps between neighbouring pixels are."""
    rng = np.random.default_rng(0)
    image = exact.snap(rng.choice([-1.0, 1.0, 0.3], (12, 16)) * rng.random((12, 16)))
    places = rng.integers(-32, 17 * 32, (2, 40, 50))
    found = exact.sample(image, *(places / 32).astype(np.float32), border=border)
    whole = (image * 2**exact.BITS).astype(np.int64)
    whole = np.pad(whole, 20, mode="edge" if border == cv2.BORDER_REPLICATE else "constant")
    (x, y), (right, down) = places // 32 + 20, places % 32
    top = whole[y, x] * (32 - right) + whole[y, x + 1] * right
    bottom = whole[y + 1, x] * (32 - right) + whole[y + 1, x + 1] * right
    assert np.array_equal(found.astype(np.float64) * 2 ** (exact.BITS + 10), top * (32 - down) + bottom * down)


def test_blur_is_that_of_opencv():
    image = np.random.default_rng(0).random((40, 50), dtype=np.float32)
    assert np.abs(exact.blur(image, 1.7) - cv2.GaussianBlur(image, (0, 0), 1.7)).max() < 0.005
    box = cv2.blur(cv2.blur(image, (5, 5)), (5, 5))
    assert np.abs(exact.blur_box(image, 5) - box)[4:-4, 4:-4].max() < 1e-3


def test_paths_are_monotone_between_their_points():
    times, values = [0, 0.2, 0.5, 0.6, 1], np.array([[0, 1], [0, 3], [2, 2], [3, 2], [3, 0]], float)
    path = fit_path(times, values)
    drawn = np.array([path(u) for u in np.linspace(0, 1, 301)])
    assert np.allclose([path(u) for u in times], values)
    assert (np.diff(drawn[:, 0]) >= -1e-12).all()
    assert np.abs(np.diff(drawn, axis=0)).max() < 0.1  # no jumps
    assert drawn[:, 1].max() <= 3 + 1e-12


def test_polygons_are_filled_where_their_pixels_lie():
    """Whole pixels whose centres are inside; a corner may lie outside of the picture."""
    square = np.array([(2, 3), (6, 3), (6, 5), (2, 5)], float)
    triangle = np.array([(-4, -4), (40, -4), (-4, 40)], float)
    wanted = np.zeros((8, 10), bool)
    wanted[3:5, 2:6] = True
    assert np.array_equal(rasterise([square], (8, 10)), wanted)
    assert np.array_equal(rasterise([square, square + 30], (8, 10)), wanted)
    y, x = np.mgrid[:30, :30]
    assert np.array_equal(rasterise([triangle], (30, 30)), x + y < 36)


# ------------------------------------------------------------------ named splits


def list_areas(labels: np.ndarray, num_objects: int) -> np.ndarray:
    """Measure the share of the picture of each object in each frame: (K, T)."""
    return np.stack([(labels == k).mean((1, 2)) for k in range(1, num_objects + 1)])


@functools.cache
def plan_named(split: str, number: int):
    return PLANS[split].plan(ExactGenerator([0, PLANS[split].seed, number]), aspect=428 / 240)


@pytest.fixture(scope="module", params=[(split, i) for split in NAMED for i in range(PLANS[split].num_videos)])
def named(request):
    """A plan of a named split: the split, its scene, and label maps drawn from outlines."""
    split, number = request.param
    scene = plan_named(split, number)
    return split, scene, draw_coarse_labels(scene, num_frames=32, height=120)


def test_named_splits_keep_their_promise(named):
    split, scene, labels = named
    areas = list_areas(labels, len(scene.actors))
    if split == "small":  # the first object enters, is at first a hundredth of the picture, and grows
        first = int((areas[0] > 0).argmax())
        assert first > 0
        assert (areas[0, first:] > 0).all()
        assert areas[0, first + 2] < 0.015
        assert areas[0, -1] > 8 * areas[0, first + 2]
    elif split == "crowd":  # three or more of one kind touch in a third of the frames, and they cross
        crowded = 0
        for frame in labels:
            _, groups = cv2.connectedComponents((frame > 0).astype(np.uint8))
            crowded += max(len(np.unique(frame[groups == g])) for g in range(1, groups.max() + 1)) >= 3
        assert crowded >= len(labels) / 3
        assert len(scene.actors) >= 5
        assert scene.alike
        assert len({frozenset(part.role for part in actor.parts) for actor in scene.actors}) == 1
        goes_right = [actor.path(1)[0] > actor.path(0)[0] for actor in scene.actors]
        assert 2 <= sum(goes_right) <= len(goes_right) - 2
        assert ((areas > 0).mean(1) >= 0.6).all()
    else:  # the first object is away for five frames or more, in the picture before and after
        away = np.flatnonzero(areas[0] == 0)
        assert len(away) >= 5
        assert areas[0, away[0] : away[-1]].max() < 0.0005  # a few pixels may peep out
        assert (areas[0, : away[0]] > 0.005).sum() >= 5
        assert (areas[0, away[-1] + 1 :] > 0.005).sum() >= 5
        assert (areas[1] > 0.02).all()


def test_objects_are_lost_in_both_ways():
    """Behind another one, and outside of the picture."""
    scenes = [plan_named("leave", number) for number in range(PLANS["leave"].num_videos)]
    ways = {bool(abs(scene.actors[0].path(0.5)[0]) < scene.aspect / 2) for scene in scenes}
    assert ways == {False, True}


@pytest.mark.parametrize("split", NAMED)
def test_an_object_has_one_id_over_the_video(split):
    """That of its actor, in whichever frames it is seen."""
    stage = Stage([0, PLANS[split].seed, 0], height=72, split=split)
    _, labels = render_sequence([0, PLANS[split].seed, 0], height=72, num_frames=12, split=split)
    drawn = draw_coarse_labels(stage.scene, num_frames=12, height=72)
    assert labels.max() <= len(stage.scene.actors)
    for k in range(1, len(stage.scene.actors) + 1):
        for mask, outline in zip(labels == k, drawn == k, strict=True):
            if mask.sum() > 40:
                assert outline[mask].mean() > 0.7


def test_bytes_do_not_depend_on_the_number_of_processes(dataset, tmp_path):
    write_sprites(tmp_path / "two", **(SMALL | {"workers": 2}))
    assert digest(tmp_path / "two") == digest(dataset)


def test_shapes_and_types(video):
    frames, labels = video
    assert frames.shape == (10, 120, 214, 3)
    assert labels.shape == (10, 120, 214)
    assert frames.dtype == labels.dtype == np.uint8


def test_labels_are_where_the_object_is_seen(video):
    """Without object k the picture changes inside its mask, and nowhere far from it."""
    frames, labels = video
    k = int(np.bincount(labels[labels > 0]).argmax())
    without, rest = render_sequence([0, 1, 2], height=120, num_frames=10, hidden=[k])
    changed = np.abs(frames.astype(int) - without).max(-1) > 6
    assert not (rest == k).any()
    assert changed[labels == k].mean() > 0.8
    for t in range(len(frames)):
        near = cv2.dilate((labels[t] == k).astype(np.uint8), np.ones((61, 61)))  # blur and shadow reach this far
        seen_apart = changed[t][near == 0].mean() if (near == 0).any() else 0.0
        assert seen_apart < 0.01
        assert np.array_equal(labels[t][labels[t] != k], rest[t][labels[t] != k])


@pytest.mark.parametrize("seed", range(6))
def test_objects_are_large_and_mostly_in_view(seed):
    scene = plan_scene(ExactGenerator([0, 1, seed]), aspect=16 / 9)
    labels = draw_coarse_labels(scene, num_frames=24, height=60)
    areas = np.stack([(labels == k + 1).mean((1, 2)) for k in range(len(scene.actors))])
    assert 2 <= len(areas) <= 5
    assert ((areas > 0).mean(1) >= 0.6).all()
    assert (areas[:, 0] > 0).sum() >= len(areas) - 1
    assert 0.02 < np.median(areas) < 0.3


def test_layout(dataset):
    assert (dataset / SPLITS / "val.txt").read_text() == "val-00\nval-01\n"
    assert (dataset / SPLITS / "train.txt").read_text() == "train-00\n"
    for name in ("train-00", "val-00", "val-01"):
        assert sorted(os.listdir(dataset / FRAMES / name)) == [f"{t:05d}.jpg" for t in range(3)]
        assert sorted(os.listdir(dataset / LABELS / name)) == [f"{t:05d}.png" for t in range(3)]
    image = Image.open(dataset / LABELS / "val-00" / "00000.png")
    assert image.mode == "P"
    assert image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    assert {p.name for p in dataset.iterdir()} == {
        "JPEGImages", "Annotations_unsupervised", "ImageSets", MANIFEST,
    }  # fmt: skip


def test_written_labels_are_the_rendered_ones(dataset):
    frames, labels = read_video(dataset, "val-01")
    wanted_frames, wanted = render_sequence([0, 1, 1], height=64, num_frames=3)
    assert np.array_equal(labels, wanted)
    assert np.abs(frames.astype(int) - wanted_frames).mean() < 12  # JPEG


def test_a_complete_folder_is_left_alone(dataset):
    before = {p: p.stat().st_mtime_ns for p in dataset.rglob("*")}
    start = time.perf_counter()
    write_sprites(dataset, **SMALL)
    assert time.perf_counter() - start < 0.5
    assert before == {p: p.stat().st_mtime_ns for p in dataset.rglob("*")}


@pytest.mark.parametrize("damage", ["frame gone", "frame zeroed", "mask cut short", "video gone", "list gone"])
def test_a_half_written_folder_is_completed(tmp_path, dataset, damage):
    root = tmp_path / "copy"
    shutil.copytree(dataset, root)
    if damage == "frame gone":
        (root / FRAMES / "val-00" / "00001.jpg").unlink()
    elif damage == "frame zeroed":
        frame = root / FRAMES / "val-00" / "00001.jpg"
        frame.write_bytes(bytes(frame.stat().st_size))
    elif damage == "mask cut short":
        (root / LABELS / "val-00" / "00001.png").write_bytes(b"\x89PNG")
    elif damage == "video gone":
        shutil.rmtree(root / LABELS / "train-00")
    else:
        (root / SPLITS / "val.txt").unlink()
    write_sprites(root, **SMALL)
    assert digest(root) == digest(dataset)


def test_an_interrupted_run_is_completed(tmp_path, dataset, monkeypatch):
    calls = []

    def fail_later(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return render_sequence(*args, **kwargs)

    monkeypatch.setattr("data.sprites.writer.render_sequence", fail_later)
    with pytest.raises(KeyboardInterrupt):
        write_sprites(tmp_path / "set", **SMALL)
    write_sprites(tmp_path / "set", **SMALL)
    assert len(calls) == 4  # the first video was not rendered again
    assert digest(tmp_path / "set") == digest(dataset)


def test_a_named_split_is_written_when_it_is_asked_for(tmp_path, dataset):
    """The videos that are there already are kept, and a damaged one is mended when its own split is asked for."""
    root = tmp_path / "copy"
    shutil.copytree(dataset, root)
    before = digest(root)
    ensure_sprites(root, "small")
    names = [f"small-{i:02d}" for i in range(4)]
    assert (root / SPLITS / "small.txt").read_text().split() == names
    after = digest(root)
    assert {name: after[name] for name in before if name != MANIFEST} == {
        name: value for name, value in before.items() if name != MANIFEST
    }
    wanted = render_sequence([0, 2, 1], height=64, num_frames=3, split="small")[1]
    assert np.array_equal(read_video(root, "small-01")[1], wanted)
    (root / FRAMES / "small-00/00000.jpg").unlink()
    ensure_sprites(root, "val")
    assert not (root / FRAMES / "small-00/00000.jpg").exists()
    ensure_sprites(root, "small")
    assert digest(root) == after


def test_a_folder_of_an_older_version_is_refused(tmp_path, dataset):
    root = tmp_path / "copy"
    shutil.copytree(dataset, root)
    manifest = (root / MANIFEST).read_text()
    (root / MANIFEST).write_text(manifest.replace(f'"version": {sprites.VERSION}', '"version": 3'))
    for split in ("val", "crowd"):
        with pytest.raises(UserError, match=r"copy: .*version 3 there, .* asked.*delete it or name another folder"):
            ensure_sprites(root, split)


def test_other_parameters_are_refused_by_name(dataset):
    with pytest.raises(UserError, match=r"seed 0 there, 1 asked.*delete it or name another folder"):
        write_sprites(dataset, **(SMALL | {"seed": 1}))


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not Sprites"):
        write_sprites(tmp_path, **SMALL)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_files_that_a_killed_process_left_are_no_hindrance(tmp_path, dataset):
    """It was killed while it wrote the first manifest, or a list."""
    root = tmp_path / "set"
    root.mkdir()
    (root / ".lock").touch()
    (root / f".{MANIFEST}.77.partial").write_text("{")
    write_sprites(root, **SMALL)
    assert digest(root) == digest(dataset)
    (root / SPLITS / "val.txt").rename(root / SPLITS / ".val.txt.78.partial")
    write_sprites(root, **SMALL)
    assert digest(root) == digest(dataset)


def test_a_temporary_file_of_anything_else_is_not_ours(tmp_path):
    (tmp_path / ".thesis.tex.77.partial").write_text("years of work")
    with pytest.raises(UserError, match="not Sprites"):
        write_sprites(tmp_path, **SMALL)


def test_sprites_are_generated_for_programs_only_where_they_may_be(tmp_path, dataset, monkeypatch, capsys):
    """At the default root, where some were begun, in an empty or new folder; a missing file becomes no folder."""
    begun = []
    monkeypatch.setattr(sprites, "write_sprites", lambda root, **options: begun.append((root, options)))
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "left", "full"):
        Path(name).mkdir()
    Path("left", f".{MANIFEST}.77.partial").touch()
    Path("full/notes.txt").touch()
    for place in (DEFAULT_ROOT, Path(DEFAULT_ROOT).resolve(), dataset, "empty", "left"):
        ensure_sprites(place)
    assert not capsys.readouterr().err
    ensure_sprites("new/place")
    assert "note: --basepath new/place: made" in capsys.readouterr().err
    assert [options.get("height") for _, options in begun] == [None, None, 64, None, None, None]
    for place in ("typo/clip.mp4", "full", "full/notes.txt"):
        with pytest.raises(
            UserError, match=f"--basepath {place}: neither Sprites nor an empty folder.* --dataset video"
        ):
            ensure_sprites(place)
    assert len(begun) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full", "left"]


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(UserError, match=MANIFEST):
        write_sprites(tmp_path, **SMALL)


def test_impossible_parameters_are_refused(tmp_path):
    with pytest.raises(UserError, match="--num_frames 0: give at least 1"):
        write_sprites(tmp_path, **(SMALL | {"num_frames": 0}))


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/sprites: cannot write Sprites"):
        write_sprites(tmp_path / "file" / "sprites", **SMALL)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"sprites: cannot write Sprites \(Permission denied\)"):
        write_sprites(tmp_path / "sprites", **SMALL)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that nobody may write")
def test_a_place_that_not_even_root_may_write_is_named():
    with pytest.raises(UserError, match=r"/proc/sprites: cannot write Sprites \(.*\); free space, allow writing"):
        write_sprites("/proc/sprites", **SMALL)


def test_a_full_disk_is_one_line_and_what_was_written_is_kept(tmp_path, monkeypatch):
    def full(path, frame, quality):
        if "val" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, frame, quality)

    real = sprites.write_jpeg
    monkeypatch.setattr(sprites, "write_jpeg", full)
    with pytest.raises(UserError, match=r"set: cannot write Sprites \(No space left on device\); free space"):
        write_sprites(tmp_path / "set", **SMALL)
    monkeypatch.undo()
    written = (tmp_path / "set" / FRAMES / "train-00/00000.jpg").stat().st_mtime_ns
    write_sprites(tmp_path / "set", **SMALL)
    assert (tmp_path / "set" / FRAMES / "train-00/00000.jpg").stat().st_mtime_ns == written
    assert (tmp_path / "set" / SPLITS / "val.txt").read_text().split() == ["val-00", "val-01"]


def test_colour_alone_does_not_find_the_objects(video):
    frames, labels = video
    clusters = cluster_by_color(frames, 8)
    assert clusters.shape == labels.shape
    assert compute_mean_best_iou(clusters, labels) < 0.35


def test_the_colour_baseline_finds_objects_that_differ_in_colour():
    frames = np.full((2, 40, 60, 3), (200, 30, 30), np.uint8)
    frames[:, 8:32, 20:44] = (20, 40, 220)
    labels = (frames[..., 2] == 220).astype(np.uint8)
    assert compute_mean_best_iou(cluster_by_color(frames, 2, window=3), labels) > 0.9


def test_more_clusters_than_pixels_are_refused(video):
    with pytest.raises(UserError, match="--num_clusters 255: more than the 120 pixels"):
        cluster_by_color(video[0][:1, :32, :57], 255)


def spectral_slope(frames):
    grey = frames.mean(-1)
    grey = (grey - grey.mean((1, 2), keepdims=True)) * np.outer(np.hanning(120), np.hanning(214))
    power = (np.abs(np.fft.fft2(grey)) ** 2).mean(0)
    radius = np.hypot(np.fft.fftfreq(120)[:, None], np.fft.fftfreq(214)[None])
    edges = np.geomspace(0.02, 0.35, 12)
    means = [power[(radius >= a) & (radius < b)].mean() for a, b in pairwise(edges)]
    return np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(means), 1)[0]


def test_spectrum_is_that_of_natural_images():
    """Power falls about as 1/f²."""
    slopes = [spectral_slope(render_sequence([0, 1, i], height=120, num_frames=2)[0]) for i in range(4)]
    assert -3.0 < np.mean(slopes) < -1.4


def test_contact_sheet(dataset):
    assert draw_contact_sheet(dataset, columns=3).shape == (2 * 64, 3 * 114, 3)


def run_sprites(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["data.sprites.writer", *map(str, arguments)])
    program.main()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_val", 0, "--contact_sheet", "c.jpg"], "--contact_sheet: is made of the validation videos"),
        (["--num_val", 0, "--color_baseline", "c"], "--color_baseline: is made of the validation videos"),
        (["--num_clusters", 0], "--num_clusters 0: give 1 to 255"),
        (["--num_clusters", 300], "--num_clusters 300: give 1 to 255"),
        (["--contact_sheet", "file/c.jpg"], "--contact_sheet file: cannot be written"),
        (["--contact_sheet", "."], "--contact_sheet .: is a folder"),
        (["--color_baseline", "file"], "--color_baseline file: cannot be written"),
        (["--seed", "x"], "--seed: invalid int value: 'x'.*data.sprites --help"),
        (["--num_frame", 3], "unrecognized arguments: --num_frame 3.*data.sprites --help"),
    ],
)
def test_faults_of_the_command_line_are_found_before_anything_is_generated(
    tmp_path, monkeypatch, arguments, message
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(UserError, match=message):
        run_sprites(monkeypatch, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_command_line_makes_the_folder_of_its_contact_sheet(tmp_path, dataset, monkeypatch, capsys):
    sheet, colours = tmp_path / "new/sheet.jpg", tmp_path / "colours"
    run_sprites(monkeypatch, "--output_path", dataset, "--height", 64, "--num_train", 1, "--num_val", 2, "--num_frames",
                3, "--contact_sheet", sheet, "--color_baseline", colours, "--num_clusters", 255)  # fmt: skip
    with Image.open(sheet) as image:
        assert image.size == (5 * 114, 2 * 64)
    assert "colour alone, 255 clusters, mean best IoU 0." in capsys.readouterr().out
    with Image.open(colours / "val-00/00002.png") as image:
        assert 250 < np.asarray(image).max() <= 255
