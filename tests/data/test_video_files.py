"""Whole video files of many kinds, read by PyAV, or by OpenCV without it."""

from dataclasses import replace
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from data.decoding.opencv import OpenCVReader
from data.decoding.pyav import PyAVReader
from data.decoding.rotation import turn_upright
from data.decoding.scan import scan
from data.loading import load_videos
from data.videos import VideoFile, compute_display_shape
from tests.data.video_files import SIZE, encode, numbers, pictures, without_pyav, write_video
from utils.errors import UserError


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
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    for path in (encode(tmp_path / "clip.mkv", pictures(9)), cut):
        assert not scan(path, trust_index=True).from_index


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_animated_pictures_are_videos(ending, tmp_path):
    first, *rest = map(Image.fromarray, pictures(8))
    first.save(path := tmp_path / f"clip.{ending}", save_all=True, append_images=rest, duration=40, lossless=True)
    video = VideoFile("clip", path)
    assert (len(video.frame_names), video.frame_rate, video.size) == (8, 25, SIZE)
    assert numbers(video) == list(range(8))


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
    with pytest.raises(UserError, match="song.m4a: .*give a file with a video"):
        VideoFile("song", tmp_path / "song.m4a")


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
    with pytest.raises(UserError, match="alone.mkv: .*give a video file"):
        VideoFile("alone", tmp_path / "alone.mkv")


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


def test_a_folder_of_clips(whole, tmp_path):
    clips = tmp_path / "clips"
    (clips / "c10").mkdir(parents=True)
    cv2.imwrite(str(clips / "c10/0.png"), pictures(1)[0])
    (clips / "b.mp4").write_bytes(whole.read_bytes())
    assert [video.name for video in load_videos("video", clips, flag="--basepath")] == ["b", "c10"]
    (clips / "b.MOV").write_bytes(whole.read_bytes())
    with pytest.raises(UserError, match="--basepath .*clips: .* b "):
        load_videos("video", clips, flag="--basepath")
    cv2.imwrite(str(clips / "cover.jpg"), pictures(1)[0])
    with pytest.raises(UserError, match="--basepath .*clips: .*cover.jpg"):
        load_videos("video", clips, flag="--basepath")
