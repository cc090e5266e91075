"""Pictures of 16 bits become 8, the same grey in every frame of a video."""

import struct

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from data.clips import ClipDataset
from data.frames import FrameReader, UnreadableImage
from data.loading import load_videos
from tests.data.pictures import COLOURS, GREY, SIZE, pixels, png, read_image
from utils.pictures import find_value_range, read_picture


def test_full_16_bits_are_their_8_bit_copy(tmp_path):
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "g.png")
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "g.tif")
    cv2.imwrite(str(tmp_path / "c.png"), COLOURS[..., ::-1].astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "c.tif"), COLOURS[..., ::-1].astype(np.uint16) * 257)
    (tmp_path / "g.pgm").write_bytes(b"P5 16 12 65535\n" + (GREY.astype(">u2") * 257).tobytes())
    for name, expected in {"g.png": GREY, "g.tif": GREY, "c.png": COLOURS, "c.tif": COLOURS, "g.pgm": GREY}.items():
        expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, axis=2)
        assert np.array_equal(pixels(tmp_path / name), expected), name


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (3000, 54000, (0, 65535)),  # most of 16 bits
        (1, 4090, (0, 4095)),  # a sensor of 12 bits
        (7000, 8500, (7000, 8500)),  # a thermal scene of 14 bits: a few hundred steps above an offset
        (20, 200, (0, 255)),  # 8 bits kept in 16
        (30000, 30100, (29923, 30178)),  # steps are never spread
    ],
)
def test_the_range_of_values(low, high, expected):
    values = np.linspace(low, high, 192).round().astype(np.uint16).reshape(SIZE)
    marked = values.copy()
    marked[0, :4], marked[1, :4] = 0, 65535  # nothing was measured there
    for each in (values, marked):
        assert find_value_range([read_picture(png(each, 0))]) == pytest.approx(expected, abs=(high - low) // 20)


def test_dead_pixels_do_not_flatten_a_video():
    frames = [np.random.default_rng(seed).integers(7000, 8500, (240, 320), dtype=np.uint16) for seed in range(2)]
    for frame in frames:
        frame[7, 7] = 60000
    low, high = find_value_range(read_picture(png(frame, 0)) for frame in frames)
    assert (low, high) == pytest.approx((7000, 8500), abs=5)
    frames[1][100:105, 100:105] = 20000  # an object, small but there
    assert find_value_range(read_picture(png(frame, 0)) for frame in frames)[1] >= 20000


def test_a_value_is_the_same_grey_in_every_frame_of_a_video(tmp_path, capsys):
    """Frames that reach as far as others or not, and colours in 16 bits alike."""
    for name, shape in (("grey", SIZE), ("colour", (*SIZE, 3))):
        folder = tmp_path / name
        folder.mkdir()
        for index in range(40):
            frame = np.full(shape, 7300, np.uint16)
            frame[:, 0] = 7000
            frame[:4, index % 12 : index % 12 + 4] = 7000 + 40 * index
            cv2.imwrite(str(folder / f"{index}.png"), frame)
        (video,) = load_videos("video", folder, flag="")
        frames = torch.stack(list(video.read()))
        assert frames[:, :, 8, 8].unique().numel() == 1
        assert frames[:, :, 8, 0].unique().tolist() == [0]
        assert frames.max() == 255
        assert 40 < int(frames[0, 0, 8, 8]) < 60
        told = capsys.readouterr().err.splitlines()
        assert told == [f"note: video {name}: 16-bit {name}; values 7000 to 8560 become 0 to 255"]
        list(video.read())
        assert not capsys.readouterr().err  # said once
        clips = ClipDataset({"a": video.paths}, resolution=SIZE, num_frames=2, augment=False)
        again = clips.read(0, [3, 30], np.random.default_rng())
        assert torch.equal(again, frames[[3, 30]])
        assert clips.conversions == set(video.conversions)


def test_alpha_in_16_bits_and_a_clear_value():
    values = np.linspace(0, 60000, 192).round().astype(np.uint16).reshape(SIZE)
    alpha = np.where(np.arange(16) < 8, 65535, 0).astype(np.uint16) * np.ones((12, 1), np.uint16)
    for content in (
        png(np.dstack([values, alpha]), 4),
        png(np.dstack([values, values, values, alpha]), 6),
    ):
        reader = FrameReader([content])
        found = reader.read(0)
        assert (found[:, :, 8:] == 255).all()
        assert np.abs(found[0, :, :8].numpy().astype(int) - values[:, :8] // 257).max() <= 1
        assert "alpha; composited over white" in reader.conversions
    clear = FrameReader([png(values, 0, [(b"tRNS", struct.pack(">H", int(values[3, 3])))])]).read(0)
    assert (clear[:, 3, 3] == 255).all()
    assert (clear == 255).all(0).sum() == 1


def test_a_tiff_whose_white_is_zero(tmp_path):
    info = {262: 0}
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "a.tif", tiffinfo=info)
    with Image.open(tmp_path / "a.tif") as image:
        if image.tag_v2[262] != 0:
            pytest.skip("Pillow writes it otherwise")
    assert np.array_equal(pixels(tmp_path / "a.tif")[..., 0], 255 - GREY)


@pytest.mark.parametrize("kind", ["grey", "tiff", "colour"])
def test_a_cut_16_bit_file_is_refused(tmp_path, kind):
    path = tmp_path / ("a.tif" if kind == "tiff" else "a.png")
    noise = np.random.default_rng(0).integers(0, 65536, (50, 50, 3) if kind == "colour" else (50, 50), dtype=np.uint16)
    cv2.imwrite(str(path), noise)
    assert read_image(path).shape == (3, 50, 50)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UnreadableImage):
        read_image(path)
