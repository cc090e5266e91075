"""Video files as they come: whole, damaged, turned, odd; read and written by PyAV, or by OpenCV without it."""

import random
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from data import check
from data.decoding.base import check_sizes
from data.decoding.opencv import OpenCVReader
from data.decoding.pyav import PyAVReader
from data.decoding.rotation import turn_upright
from data.decoding.scan import scan
from data.decoding.timing import find_gaps
from data.layouts.folders import OwnVideos
from data.loading import load_videos
from data.videos import VideoFile, compute_display_shape
from tests.conftest import moving_disk
from utils.errors import UserError
from utils.video import write_video

SIZE = (96, 160)


def pictures(count=20, size=SIZE):
    """Frames (H, W, 3) uint8 of a disk, each with as many white columns at its left as its number."""
    frames = []
    for index in range(count):
        frame, _ = moving_disk(index, size=size, seed=0)
        frame[:, :index] = 255
        frames.append(frame)
    return frames


def encode(
    path, frames, *, codec="h264", rate=30, options=None, pix_fmt="yuv420p", rotation=0, before=None, times=None,
    unit=None,
):  # fmt: skip
    """Write frames with PyAV, at `times` in `unit` if given; `before(container)` may add a stream that comes first, and
    gives its packets."""
    container_options = {"movflags": "+faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=container_options) as container:
        earlier = before(container) if before else []
        stream = container.add_stream(codec, rate=rate, options=options or {"g": "5", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], pix_fmt
        if rotation:
            stream.set_display_rotation(rotation)
        if unit:
            stream.codec_context.time_base = unit
        container.start_encoding()
        for packet in earlier:
            container.mux(packet)
        for index, frame in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[index], unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def damage(path, target):
    """A copy with the bytes of its middle tenth replaced at random."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + len(content) // 10] = random.Random(1).randbytes(len(content) // 10)
    target.write_bytes(content)
    return target


def erase(path, target):
    """A copy with zeros in place of its middle tenth."""
    content = path.read_bytes()
    middle, length = len(content) // 2, len(content) // 10
    target.write_bytes(content[:middle] + bytes(length) + content[middle + length :])
    return target


def cut(path, target):
    content = path.read_bytes()
    target.write_bytes(content[: len(content) * 6 // 10])
    return target


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An .mp4 of 20 frames, each fifth a key frame, with its index in front."""
    return encode(tmp_path_factory.mktemp("video") / "whole.mp4", pictures())


def numbers(video):
    """Which of `pictures` the frames of a video show, by their white columns."""
    return [int((frame.float().mean((0, 1)) > 200).sum()) for frame in video.read()]


def without_pyav(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)


# Reading


@pytest.mark.parametrize("library", ["PyAV", "OpenCV"])
def test_every_frame_in_order_at_its_rate(whole, library, monkeypatch):
    if library == "OpenCV":
        without_pyav(monkeypatch)
    video = VideoFile("whole", whole)
    assert video.contents.reader.name == library
    assert numbers(video) == list(range(20))
    assert (video.frame_rate, video.size, video.pixel_aspect, video.damage) == (30, SIZE, 1, None)


def test_some_frames_of_a_file(whole):
    video = VideoFile("whole", whole)
    wanted = torch.stack(list(video.read()))[[0, 7, 19]]
    assert torch.equal(torch.stack(list(video.read([0, 7, 19]))), wanted)


def test_both_libraries_see_the_same_colours(whole):
    by_pyav, by_opencv = (list(reader.decode(whole)) for reader in (PyAVReader(), OpenCVReader()))
    np.testing.assert_array_equal(by_pyav, by_opencv)
    assert np.abs(np.stack(by_pyav).astype(int) - np.stack(pictures())).mean() < 15  # noise, compressed


def test_colours_are_those_that_were_written(tmp_path):
    """Flat areas, in HD as well: with the wrong matrix red and green are off by a dozen."""
    for size in ((96, 160), (720, 1280)):
        frame = np.zeros((*size, 3), np.uint8)
        for place, colour in enumerate(((230, 40, 40), (40, 230, 40), (40, 40, 230), (128, 128, 128))):
            frame[:, place * size[1] // 4 : (place + 1) * size[1] // 4] = colour
        path = write_video(tmp_path / "flat.mp4", [frame] * 2, rate=Fraction(10))
        read = next(PyAVReader().decode(path))
        for place in range(4):
            middle = (2 * place + 1) * size[1] // 8
            assert np.abs(read[size[0] // 2, middle].astype(int) - frame[0, middle]).max() <= 4


@pytest.mark.parametrize(("make", "library"), [
    (damage, "PyAV"), (cut, "PyAV"), (damage, "OpenCV"), (cut, "OpenCV")
])  # fmt: skip
def test_a_damaged_file_is_refused_or_counted(make, library, whole, tmp_path, monkeypatch, capfd):
    if library == "OpenCV":
        without_pyav(monkeypatch)
    path = make(whole, tmp_path / "clip.mp4")
    with pytest.raises(UserError, match=r"clip.mp4: \d+ of 20 frames cannot be decoded, .*--allow_damaged"):
        load_videos("video", path, flag="--basepath")
    (video,) = load_videos("video", path, flag="--basepath", allow_damaged=True)
    captured = capfd.readouterr()
    (line,) = captured.err.splitlines()  # and not a word of the decoder's
    missing = 20 - len(video.frame_names)
    assert line.startswith(f"warning: {path}: {missing} of 20 frames cannot be decoded")
    assert 0 < missing < 20
    assert len(list(video.read())) == len(video.frame_names)
    assert OwnVideos().find_mismatches(path, "all", video) == [video.damage]  # for data.check


def test_an_index_tells_what_a_decoding_shows(whole, tmp_path):
    turned = encode(tmp_path / "turned.mov", pictures(6), rotation=90)
    odd = write_video(tmp_path / "odd.mp4", pictures(3), rate=Fraction(30000, 1001), pixel_aspect=Fraction(2))
    slow = encode(tmp_path / "slow.mp4", pictures(9), times=[*range(5), *range(8, 12)], unit=Fraction(1, 30))
    for path in (whole, turned, odd, slow):
        by_index, decoded = scan(path, trust_index=True), scan(path)
        assert by_index.from_index
        assert not decoded.from_index
        assert replace(by_index, reader=decoded.reader, from_index=False) == decoded
        assert len(list(by_index.reader.decode(path))) == len(decoded.positions)
    for path in (encode(tmp_path / "clip.mkv", pictures(9)), cut(whole, tmp_path / "cut.mp4")):
        assert not scan(path, trust_index=True).from_index


def test_damage_behind_a_whole_index_is_found_when_frames_are_read(whole, tmp_path):
    path = damage(whole, tmp_path / "clip.mp4")
    video = VideoFile("clip", path, trust_index=True)
    assert (len(video.frame_names), video.damage) == (20, None)
    with pytest.raises(UserError, match=r"clip.mp4: \d+ of 20 frames cannot be decoded, .*--allow_damaged"):
        list(video.read())
    video = VideoFile("clip", whole, trust_index=True)
    video.path = encode(tmp_path / "other.mp4", pictures(4, size=(48, 64)))
    with pytest.raises(UserError, match=r"other.mp4: 0 frames now, 20 before"):
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
        with pytest.raises(UserError, match=r"short.webp: a still picture, or one cut short"):
            VideoFile("short", short)
    else:
        assert "cannot be decoded" in VideoFile("short", short).damage


def has_encoder(codec):
    try:
        av.Codec(codec, "w")
    except ValueError:
        return False
    return True


WITHOUT_INDEX = [("mkv", "h264"), ("mkv", "ffv1"), ("ts", "h264"), ("ts", "mpeg2video"), ("mpg", "mpeg2video"),
                 ("webm", "libvpx"), ("webm", "libvpx-vp9"), ("flv", "h264"), ("wmv", "wmv2"), ("ogv", "libtheora"),
                 ]  # fmt: skip


@pytest.mark.parametrize(("ending", "codec"), WITHOUT_INDEX)
def test_frames_missing_from_a_file_without_an_index_are_said(ending, codec, tmp_path, capfd):
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


def test_a_check_says_so_too(tmp_path, capsys, monkeypatch):
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


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_animated_pictures_are_videos(ending, tmp_path):
    first, *rest = map(Image.fromarray, pictures(8))
    first.save(path := tmp_path / f"clip.{ending}", save_all=True, append_images=rest, duration=40, lossless=True)
    video = VideoFile("clip", path)
    assert (len(video.frame_names), video.frame_rate, video.size) == (8, 25, SIZE)
    assert numbers(video) == list(range(8))


def clear_frames(count=3):
    """Frames (H, W, 4) uint8 with red hidden under a clear right half."""
    frame = np.full((*SIZE, 4), (200, 40, 60, 255), np.uint8)
    frame[:, SIZE[1] // 2 :, 3] = 0
    return [frame.copy() for _ in range(count)]


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "mov", "mkv"])
def test_alpha_is_composited_over_white_with_one_note(ending, tmp_path, capsys):
    path, frames = tmp_path / f"clip.{ending}", clear_frames()
    if ending in ("mov", "mkv"):
        with av.open(str(path), "w") as container:
            stream = container.add_stream({"mov": "qtrle", "mkv": "ffv1"}[ending], rate=10)
            stream.pix_fmt = {"mov": "argb", "mkv": "yuva420p"}[ending]
            stream.height, stream.width = SIZE
            for frame in frames:
                frame = av.VideoFrame.from_ndarray(frame, format="rgba").reformat(format=stream.pix_fmt)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    else:
        for index, frame in enumerate(frames):
            frame[: index + 1, 0, :3] = 0  # equal frames would be one
        first, *rest = map(Image.fromarray, frames)
        options = {"disposal": 2} if ending == "gif" else {"lossless": True, "exact": True} if ending == "webp" else {}
        first.save(path, save_all=True, append_images=rest, duration=100, **options)
    video = VideoFile("clip", path)
    for _ in range(2):
        for frame in video.read():
            np.testing.assert_allclose(frame[:, 40, 20].numpy(), (200, 40, 60), atol=4)
            assert (frame[:, :, SIZE[1] // 2 + 2 :] == 255).all()
    assert dict(video.conversions) == {"alpha; composited over white": 3}
    assert capsys.readouterr().err.splitlines() == ["note: video clip: alpha; composited over white"]


def test_alpha_that_is_not_decoded_is_said(tmp_path, capsys):
    if not has_encoder("libvpx-vp9"):
        pytest.skip("PyAV was built without libvpx-vp9")
    with av.open(str(tmp_path / "clip.webm"), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=10)
        stream.pix_fmt, (stream.height, stream.width) = "yuva420p", SIZE
        for frame in clear_frames():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgba").reformat(format="yuva420p")))
        container.mux(stream.encode())
    assert len(list(VideoFile("clip", tmp_path / "clip.webm").read())) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: video clip: alpha ")


def test_a_cover_picture_is_no_video(tmp_path):
    def cover(container):
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
        stream.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        return stream.encode(frame.reformat(format="yuvj420p")) + stream.encode()

    path = encode(tmp_path / "song.mp4", pictures(5), before=cover)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 2
    video = VideoFile("song", path)
    assert (video.size, numbers(video), video.damage) == (SIZE, [0, 1, 2, 3, 4], None)
    with av.open(str(tmp_path / "song.m4a"), "w", format="mp4") as container:
        packets = cover(container)
        sound = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 4096), np.float32), format="fltp", layout="stereo")
        frame.rate = 44100
        container.mux([*sound.encode(frame), *sound.encode(), *packets])
    with pytest.raises(UserError, match="song.m4a: holds sound and a cover picture but no video"):
        VideoFile("song", tmp_path / "song.m4a")


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


def test_a_picture_that_is_not_marked_as_cover_is_no_video_either(tmp_path):
    def cover(container):
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        return stream.encode(frame.reformat(format="yuvj420p")) + stream.encode()

    video = VideoFile("clip", encode(tmp_path / "clip.mkv", pictures(5), before=cover))
    assert (video.size, numbers(video)) == (SIZE, [0, 1, 2, 3, 4])
    with av.open(str(tmp_path / "alone.mkv"), "w") as container:
        container.mux(cover(container))
    with pytest.raises(UserError, match="alone.mkv: a still picture"):
        VideoFile("alone", tmp_path / "alone.mkv")


@pytest.mark.parametrize("kind", NO_VIDEOS)
def test_what_is_no_video_is_one_line(kind, tmp_path, capfd):
    content, message = NO_VIDEOS[kind]
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(UserError, match=f"clip.mp4: .*{message}"):
        VideoFile("clip", tmp_path / "clip.mp4")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_still_picture_is_refused_though_opencv_would_read_its_neighbours(ending, tmp_path):
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index:05d}.{ending}"), pictures(1)[0])
    with pytest.raises(UserError, match=f"00000.{ending}: a still picture.*the folder"):
        VideoFile("00000", tmp_path / f"00000.{ending}")


def test_a_turned_video_is_upright(tmp_path, monkeypatch):
    path = encode(tmp_path / "phone.mp4", pictures(4), rotation=90)
    video = VideoFile("phone", path)
    assert video.size == SIZE[::-1]
    by_pyav = list(video.contents.reader.decode(path))
    without_pyav(monkeypatch)
    other = VideoFile("phone", path)
    assert (other.contents.reader.name, other.size) == ("OpenCV", SIZE[::-1])
    np.testing.assert_array_equal(by_pyav, list(other.contents.reader.decode(path)))


@pytest.mark.parametrize("matrix", [
    (1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, -1, 0),
    (0, -1, -1, 0),
])  # fmt: skip
def test_display_matrices_move_every_pixel_where_they_say(matrix):
    picture = np.arange(2 * 3).reshape(2, 3, 1)
    a, b, c, d = matrix
    moved = {(a * x + c * y, b * x + d * y): picture[y, x, 0] for y in range(2) for x in range(3)}
    left, top = (min(place[axis] for place in moved) for axis in (0, 1))
    turned = turn_upright(picture, matrix)
    assert {(x + left, y + top): turned[y, x, 0] for y, x in np.ndindex(turned.shape[:2])} == moved


def test_pixels_that_are_not_square_count_in_the_shape(tmp_path):
    path = write_video(tmp_path / "dv.mp4", pictures(3), rate=Fraction(25), pixel_aspect=Fraction(2))
    assert compute_display_shape(VideoFile("dv", path)) == (96, 320)


def test_ten_bits_odd_sides_and_varying_rates(tmp_path):
    frames = pictures(6, size=(97, 161))
    path = encode(tmp_path / "odd.mkv", frames, codec="ffv1", pix_fmt="yuv444p10le", options={})
    video = VideoFile("odd", path)
    assert video.size == (97, 161)
    assert numbers(video) == list(range(6))
    with av.open(str(tmp_path / "varying.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 161, 97, "yuv420p"
        for frame, time in zip(frames, (0, 1, 2, 6, 10, 15), strict=True):
            frame = av.VideoFrame.from_ndarray(frame, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    video = VideoFile("varying", tmp_path / "varying.mkv")
    assert len(video.frame_names) == 6
    assert float(video.frame_rate) == pytest.approx(10, rel=0.01)


def test_frames_of_two_sizes_are_said_beforehand():
    with pytest.raises(UserError, match="clip.mp4: 64x48 pixels from frame 7 on, 160x96 before.*scale=160:96"):
        check_sizes(Path("clip.mp4"), {(96, 160): 0, (48, 64): 7})


def test_a_folder_of_clips(whole, tmp_path):
    clips = tmp_path / "clips"
    (clips / "c10").mkdir(parents=True)
    cv2.imwrite(str(clips / "c10/0.png"), pictures(1)[0])
    (clips / "b.mp4").write_bytes(whole.read_bytes())
    assert [video.name for video in load_videos("video", clips, flag="--basepath")] == ["b", "c10"]
    (clips / "b.MOV").write_bytes(whole.read_bytes())
    with pytest.raises(UserError, match="--basepath .*clips: two videos are named b"):
        load_videos("video", clips, flag="--basepath")
    cv2.imwrite(str(clips / "cover.jpg"), pictures(1)[0])
    with pytest.raises(UserError, match="--basepath .*clips: holds pictures .cover.jpg, .* and video files"):
        load_videos("video", clips, flag="--basepath")


# Writing


@pytest.mark.parametrize("rate", [Fraction(60), Fraction(30000, 1001), Fraction(10)])
def test_videos_are_written_as_browsers_play_them(rate, tmp_path):
    path = write_video(tmp_path / "deep/o.mp4", pictures(6, size=(97, 161)), rate=rate)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # the index comes first
    with av.open(str(path)) as container:
        (stream,) = container.streams.video
        found = (stream.codec_context.name, stream.codec_context.pix_fmt, stream.average_rate, stream.frames)
        assert found == ("h264", "yuv420p", rate, 6)
        assert (stream.width, stream.height) == (162, 98)
    assert [path.name for path in path.parent.iterdir()] == ["o.mp4"]


def test_without_pyav_a_webm_is_written(tmp_path, monkeypatch, capfd):
    without_pyav(monkeypatch)
    path = write_video(tmp_path / "o.mp4", pictures(6), rate=Fraction(10))
    assert path == tmp_path / "o.webm"
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"note: {path}: VP8")
    contents = scan(path)
    assert (len(contents.positions), contents.rate, contents.size) == (6, 10, SIZE)


def test_a_video_is_written_whole_or_not_at_all(tmp_path):
    def frames():
        yield from pictures(3)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_video(tmp_path / "o.mp4", frames(), rate=Fraction(10))
    assert list(tmp_path.iterdir()) == []
