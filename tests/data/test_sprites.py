"""Sprites on disk: the same seed gives the same bytes, and a broken folder is mended or named."""

import errno
import functools
import hashlib
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.sprites import __main__ as program
from data.sprites import writer as sprites
from data.sprites.baseline import cluster_by_color, read_video
from data.sprites.render import render_sequence
from data.sprites.writer import FRAMES, LABELS, MANIFEST, SPLITS, ensure_sprites, write_sprites
from utils.errors import UserError
from utils.flags.choices import SPRITES_ROOT
from utils.scoring.slots import count_shared_pixels, measure_agreement

SMALL = {"height": 64, "num_train": 1, "num_val": 2, "num_frames": 3, "workers": 1, "progress": False}


def digest(root: Path) -> dict[str, str]:
    files = (p for p in sorted(root.rglob("*")) if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


RENDERED = functools.cache(lambda seed, options: render_sequence(seed, **dict(options)))


@pytest.fixture(autouse=True)
def render_once(monkeypatch):
    """Render each video once in this process: it is a function of its arguments, which test_sprites_rendering tests."""
    monkeypatch.setattr(
        "data.sprites.render.render_sequence",
        lambda seed, **options: RENDERED(tuple(seed), tuple(sorted(options.items()))),
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_sprites(tmp_path_factory.mktemp("sprites") / "set", **SMALL)


@pytest.fixture(scope="module")
def video():
    return render_sequence([0, 1, 2], height=120, num_frames=10)


def test_bytes_do_not_depend_on_the_number_of_processes(dataset, tmp_path):
    write_sprites(tmp_path / "two", **(SMALL | {"workers": 2}))
    assert digest(tmp_path / "two") == digest(dataset)


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

    monkeypatch.setattr("data.sprites.render.render_sequence", fail_later)
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
    for place in (SPRITES_ROOT, Path(SPRITES_ROOT).resolve(), dataset, "empty", "left"):
        ensure_sprites(place)
    assert not capsys.readouterr().err
    ensure_sprites("new/place")
    assert "note: --basepath new/place: made" in capsys.readouterr().err
    assert [options.get("height") for _, options in begun] == [None, None, 64, None, None, None]
    for place in ("typo/clip.mp4", "full", "full/notes.txt"):
        with pytest.raises(UserError, match=f"--basepath {place}: .* --dataset video"):
            ensure_sprites(place)
    assert len(begun) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full", "left"]


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(UserError, match=MANIFEST):
        write_sprites(tmp_path, **SMALL)


def test_impossible_parameters_are_refused(tmp_path):
    with pytest.raises(UserError, match="--num_frames 0: .*at least 1"):
        write_sprites(tmp_path, **(SMALL | {"num_frames": 0}))


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/sprites: .*free space, allow writing"):
        write_sprites(tmp_path / "file" / "sprites", **SMALL)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="sprites: .*free space, allow writing"):
        write_sprites(tmp_path / "sprites", **SMALL)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that nobody may write")
def test_a_place_that_not_even_root_may_write_is_named():
    with pytest.raises(UserError, match="/proc/sprites: .*free space, allow writing"):
        write_sprites("/proc/sprites", **SMALL)


def test_a_full_disk_is_one_line_and_what_was_written_is_kept(tmp_path, monkeypatch):
    def full(path, frame, quality):
        if "val" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, frame, quality)

    real = sprites.write_jpeg
    monkeypatch.setattr(sprites, "write_jpeg", full)
    with pytest.raises(UserError, match="set: .*free space"):
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
    assert measure_agreement(count_shared_pixels(labels, clusters)).mbo < 0.35


def test_the_colour_baseline_finds_objects_that_differ_in_colour():
    frames = np.full((2, 160, 240, 3), (200, 30, 30), np.uint8)
    frames[:, 32:128, 80:176] = (20, 40, 220)
    labels = (frames[..., 2] == 220).astype(np.uint8)
    assert measure_agreement(count_shared_pixels(labels, cluster_by_color(frames, 2))).mbo > 0.9


def test_more_clusters_than_pixels_are_refused(video):
    with pytest.raises(UserError, match="--num_clusters 255: .*120"):
        cluster_by_color(video[0][:1, :32, :57], 255)


def run_sprites(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["data.sprites.writer", *map(str, arguments)])
    program.main()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_val", 0, "--color_baseline", "c"], "--color_baseline: .*validation"),
        (["--num_clusters", 0], "--num_clusters 0: give 1 to 255"),
        (["--num_clusters", 300], "--num_clusters 300: give 1 to 255"),
        (["--color_baseline", "file"], "--color_baseline file: .*choose another folder"),
        (["--seed", "x"], "--seed: .*'x'.*data.sprites --help"),
        (["--num_frame", 3], "--num_frame: .*--num_frames.*data.sprites --help"),
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


def test_the_command_line_makes_the_folder_of_its_colour_baseline(tmp_path, dataset, monkeypatch, capsys):
    colours = tmp_path / "new/colours"
    run_sprites(monkeypatch, "--output_path", dataset, "--height", 64, "--num_train", 1, "--num_val", 2, "--num_frames",
                3, "--color_baseline", colours, "--num_clusters", 255)  # fmt: skip
    assert "colour alone, 255 clusters, mean best IoU 0." in capsys.readouterr().out
    with Image.open(colours / "val-00/00002.png") as image:
        assert 250 < np.asarray(image).max() <= 255
