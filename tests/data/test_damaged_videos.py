"""Video files that are damaged, cut short, of varying rate, or no videos: counted, noted or refused."""

import random
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import pytest
from PIL import Image

from data import check
from data.decoding.base import check_sizes
from data.decoding.scan import scan
from data.decoding.timing import find_gaps
from data.layouts.folders import OwnVideos
from data.loading import load_videos
from data.videos import VideoFile
from tests.data.video_files import cut, damage, encode, erase, has_encoder, numbers, pictures, without_pyav
from utils.errors import UserError


@pytest.mark.parametrize(("make", "library"), [
    (damage, "PyAV"), (cut, "PyAV"), (damage, "OpenCV"), (cut, "OpenCV")
])  # fmt: skip
def test_a_damaged_file_is_refused_or_counted(make, library, whole, tmp_path, monkeypatch, capfd):
    if library == "OpenCV":
        without_pyav(monkeypatch)
    path = make(whole, tmp_path / "clip.mp4")
    with pytest.raises(UserError, match=r"clip.mp4: \d+ of 20 .*--allow_damaged"):
        list(load_videos("video", path, flag="--basepath")[0].read())  # the index lists every frame
    (video,) = load_videos("video", path, flag="--basepath", allow_damaged=True)
    captured = capfd.readouterr()
    (line,) = captured.err.splitlines()  # and not a word of the decoder's
    missing = 20 - len(video.frame_names)
    assert line.startswith(f"warning: {path}: {missing} of 20 frames cannot be decoded")
    assert 0 < missing < 20
    assert len(list(video.read())) == len(video.frame_names)
    assert OwnVideos().find_mismatches(path, "all", video) == [video.damage]  # for data.check


def test_damage_behind_a_whole_index_is_found_when_frames_are_read(whole, tmp_path):
    path = damage(whole, tmp_path / "clip.mp4")
    video = VideoFile("clip", path, trust_index=True)
    assert (len(video.frame_names), video.damage) == (20, None)
    with pytest.raises(UserError, match=r"clip.mp4: \d+ of 20 .*--allow_damaged"):
        list(video.read())
    video = VideoFile("clip", whole, trust_index=True)
    video.path = encode(tmp_path / "other.mp4", pictures(4, size=(48, 64)))
    with pytest.raises(UserError, match=r"other.mp4: 0 .*20"):
        list(video.read())


def test_frames_after_a_damaged_place_keep_their_numbers(whole, tmp_path):
    video = VideoFile("clip", damage(whole, tmp_path / "clip.mp4"))
    assert video.frame_names == sorted(set(video.frame_names))
    shown = dict(zip(video.frame_names, numbers(video), strict=True))
    for index in (*range(4), *range(15, 20)):  # groups of frames that the damage leaves alone
        assert shown[f"{index:05d}"] == index


@pytest.mark.parametrize("ending", ["mkv", "webm", "avi", "ts", "gif", "webp", "png"])
def test_files_cut_short_are_known_without_an_index_too(ending, tmp_path):
    path = tmp_path / f"clip.{ending}"
    if ending in ("gif", "webp", "png"):
        first, *rest = map(Image.fromarray, pictures())
        first.save(path, save_all=True, append_images=rest, duration=100)
    else:
        codec = {"webm": "libvpx", "avi": "mpeg4"}.get(ending, "h264")
        encode(path, pictures(), codec=codec, options={} if ending != "ts" else None)
    assert VideoFile("clip", path).damage is None
    assert len(scan(path).positions) == 20
    short = cut(path, tmp_path / f"short.{ending}")
    if ending == "webp":
        with pytest.raises(UserError, match=r"short.webp: .*give a video file"):
            VideoFile("short", short)
    else:
        assert "cannot be decoded" in VideoFile("short", short).damage


WITHOUT_INDEX = [("mkv", "h264"), ("mkv", "ffv1"), ("ts", "h264"), ("ts", "mpeg2video"), ("mpg", "mpeg2video"),
                 ("webm", "libvpx"), ("webm", "libvpx-vp9"), ("flv", "h264"), ("wmv", "wmv2"), ("ogv", "libtheora"),
                 ]  # fmt: skip


@pytest.mark.parametrize(("ending", "codec"), WITHOUT_INDEX)
def test_frames_missing_from_a_file_without_an_index_are_noted(ending, codec, tmp_path, capfd):
    """Many decoders read on behind an erased place as if nothing had been there: only the times have a gap."""
    if not has_encoder(codec):
        pytest.skip(f"PyAV was built without {codec}")
    path = encode(tmp_path / f"whole.{ending}", pictures(60), codec=codec, options={"g": "5", "bf": "0"})
    (video,) = load_videos("video", path, flag="")
    assert (len(video.frame_names), video.frame_rate, video.damage, video.doubt) == (60, 30, None, None)
    path = erase(path, tmp_path / f"clip.{ending}")
    contents = scan(path)
    assert contents.rate == 30
    if contents.faults:  # certain damage: refused, and the frames after it keep their numbers
        assert (contents.total, contents.positions[-1], contents.gaps) == (60, 59, {})
        assert contents.missing > 0
        return
    capfd.readouterr()
    (video,) = load_videos("video", path, flag="")
    (line,) = capfd.readouterr().err.splitlines()
    lost, ((before, _),) = 60 - len(video.frame_names), contents.gaps.items()
    assert line.startswith(f"warning: {path}: about {lost} frames may be missing after frame {before} ")
    assert len(list(video.read())) == 60 - lost


def test_data_check_notes_missing_frames(tmp_path, capsys, monkeypatch):
    path = encode(tmp_path / "whole.mkv", pictures(40), codec="ffv1", options={})
    path = erase(path, tmp_path / "clip.mkv")
    monkeypatch.setattr(sys, "argv", ["check", "--basepath", str(path)])
    with pytest.raises(SystemExit) as done:
        check.main()
    assert done.value.code == 0
    assert f"note: {path}: about" in capsys.readouterr().out


PHONE = [round(3000 * (index + random.Random(index).uniform(-0.05, 0.05))) for index in range(40)]


@pytest.mark.parametrize(("name", "times", "unit"), [
    ("jitter.mkv", PHONE[:20] + [time + 9000 for time in PHONE[20:]], Fraction(1, 90000)),
    ("jitter.ts", PHONE[:20] + [time + 9000 for time in PHONE[20:]], Fraction(1, 90000)),
    ("dropped.mkv", [*range(0, 20), *range(20, 60, 4), *range(60, 90, 3)], Fraction(1, 30)),  # a recorded screen
    ("slow.mp4", [*range(20), *range(24, 44)], Fraction(1, 30)),  # its index says that these are all
])  # fmt: skip
def test_varying_frame_rates_are_no_damage(name, times, unit, tmp_path):
    video = VideoFile("clip", encode(tmp_path / name, pictures(40), times=times, unit=unit, options={"bf": "0"}))
    assert (len(video.frame_names), video.damage, video.doubt) == (40, None, None)


def test_gaps_in_the_times_of_frames():
    def drop(times, first, last):
        return [*times[:first], *times[last:]]

    thirds = [round(index * 1000 / 30) for index in range(90)]  # milliseconds: intervals of 33 and 34
    for times in (
        thirds,
        [512 * index for index in range(90)],
        [*range(90)],
        [round(1000 * i / 120) for i in range(90)],
    ):
        assert find_gaps(times) == {}
        assert find_gaps(drop(times, 30, 37)) == {29: 7}
        assert find_gaps(drop(drop(times, 60, 61), 20, 50)) == {19: 30, 29: 1}
    assert find_gaps(drop(thirds, 1, 60)) == {0: 59}
    assert find_gaps([*range(0, 400, 10), *range(415, 600, 10)]) == {}  # not whole intervals
    assert find_gaps([*range(40), None]) == find_gaps([3]) == find_gaps([]) == {}
    assert find_gaps([*range(20), *range(10, 40)]) == {}  # times that go back


NO_VIDEOS = {
    "nothing": (b"", "is empty; .*fetch it again"),
    "zeros": (bytes(5000), "zeros; .*fetch it again"),
    "page": (b"<html>no such page</html>", "is a web page.*download link"),
    "text": (b"404: Not Found", "is text; give the video"),
    "lines": (b"hello\n" * 500, "is text; give the video"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "archive": (b"PK\x03\x04" + bytes(200), "zip archive; unpack it and give the video"),
    "noise": (bytes(range(256)) * 20, r"no library can decode it \(PyAV: .*OpenCV: "),
}


@pytest.mark.parametrize("kind", NO_VIDEOS)
def test_files_that_are_no_videos_are_refused_in_one_line(kind, tmp_path, capfd):
    content, message = NO_VIDEOS[kind]
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(UserError, match=f"clip.mp4: .*{message}"):
        VideoFile("clip", tmp_path / "clip.mp4")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_still_picture_is_refused_though_opencv_would_read_its_neighbours(ending, tmp_path):
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index:05d}.{ending}"), pictures(1)[0])
    with pytest.raises(UserError, match=f"00000.{ending}: .*the folder"):
        VideoFile("00000", tmp_path / f"00000.{ending}")


def test_frames_of_two_sizes_are_refused_beforehand():
    with pytest.raises(UserError, match="clip.mp4: 64x48 .*frame 7 .*scale=160:96"):
        check_sizes(Path("clip.mp4"), {(96, 160): 0, (48, 64): 7})
