"""Kinds of image files: read as they are meant, or refused by name; the same for frames, records and label PNGs."""

import os
import shutil
import struct
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from data import check
from data.annotations.fbms import FbmsOriginal
from data.annotations.images import MergedMasks, find_frame_labels
from data.frames import FrameReader, UnreadableImage
from data.loading import load_videos
from data.tfrecord import list_records
from data.videos import FrameFolder, RecordVideo
from tests.data.movi_trees import example, record
from tests.data.pictures import COLOURS, GREY, SIZE, pixels, png, read_image
from utils.errors import UserError, is_out_of_memory
from utils.png import find_pngs, make_palette, read_label_png, write_label_png

# ------------------------------------------------------------------ 8 bits


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "webp", "tif", "ppm"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_plain_pictures_are_what_pillow_reads(tmp_path, ending, mode):
    path = tmp_path / f"a.{ending}"
    try:
        Image.fromarray(COLOURS).convert(mode).save(path)
    except (OSError, ValueError):
        pytest.skip("no such file can be written")
    with Image.open(path) as image:
        expected = np.array(image.convert("RGB"))
    reader = FrameReader([path])
    assert np.array_equal(reader.read(0).permute(1, 2, 0), expected)
    assert not reader.conversions


def see_through(mode):
    """An image of random colours that is opaque on the left and clear on the right, and what a viewer shows on white.

    Hidden under the clear part are colours too.
    """
    seen = Image.fromarray(COLOURS).convert("L" if mode in ("LA", "L") else "RGB")
    clear = np.zeros(SIZE, bool)
    clear[:, 8:] = True
    expected = np.where(clear[..., None], 255, np.array(seen.convert("RGB")))
    alpha = Image.fromarray(np.where(clear, 0, 255).astype(np.uint8))
    if mode in ("LA", "RGBA"):
        image = seen.convert(mode)
        image.putalpha(alpha)
    elif mode == "P":
        image = Image.fromarray((np.arange(192).reshape(SIZE) % 8 + clear * 8).astype(np.uint8)).convert("P")
        image.putpalette(COLOURS.reshape(-1)[: 3 * 16].tobytes())
        image.info["transparency"] = bytes([255] * 8 + [0] * 8)
        expected = np.where(clear[..., None], 255, np.array(image.convert("RGB")))
    else:  # one colour is the clear one
        values = np.array(seen)
        values[clear] = 7
        image = Image.fromarray(values)
        image.info["transparency"] = 7 if mode == "L" else (7, 7, 7)
        expected = np.where(clear[..., None], 255, np.array(seen.convert("RGB")))
    return image, expected.astype(np.uint8)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_alpha_is_composited_over_white(tmp_path, mode):
    image, expected = see_through(mode)
    image.save(path := tmp_path / "a.png", **{k: v for k, v in image.info.items() if k == "transparency"})
    reader = FrameReader([path])
    found = reader.read(0).permute(1, 2, 0).numpy()
    here = np.ones(SIZE, bool) if mode != "L" else np.array(image) != 7  # grey 7 elsewhere is clear as well
    here[:, 8:] = True
    assert np.array_equal(found[here], expected[here])
    assert list(reader.conversions) == ["alpha; composited over white"]


def test_half_of_alpha_is_half_of_white_and_all_of_it_is_no_alpha(tmp_path):
    Image.new("RGBA", (4, 4), (0, 100, 200, 128)).save(tmp_path / "half.png")
    assert pixels(tmp_path / "half.png")[0, 0].tolist() == pytest.approx([127, 177, 227], abs=1)
    opaque = Image.fromarray(COLOURS).convert("RGBA")
    opaque.save(tmp_path / "opaque.png")
    reader = FrameReader([tmp_path / "opaque.png"])
    assert np.array_equal(reader.read(0).permute(1, 2, 0), COLOURS)
    assert not reader.conversions


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_exif_orientation_is_applied(tmp_path, ending, turn):
    shape = np.zeros((16, 32, 3), np.uint8)
    shape[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(shape).save(path := tmp_path / f"a.{ending}", exif=exif, quality=95)
    with Image.open(path) as image:
        expected = np.array({
            2: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 3: image.transpose(Image.Transpose.ROTATE_180),
            4: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), 5: image.transpose(Image.Transpose.TRANSPOSE),
            6: image.transpose(Image.Transpose.ROTATE_270), 7: image.transpose(Image.Transpose.TRANSVERSE),
            8: image.transpose(Image.Transpose.ROTATE_90),
        }.get(turn, image)) if ending != "tif" else None  # fmt: skip
    found = pixels(path)
    if expected is not None:
        assert np.array_equal(found, expected)
    bright = np.argwhere(found[..., 0] > 128).mean(0) / found.shape[:2]
    corner = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}[turn]
    assert tuple((bright > 0.5).astype(int)) == corner
    assert found.shape[:2] == ((16, 32) if turn < 5 else (32, 16))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_other_colour_spaces_come_out_as_the_colours_they_were(tmp_path, mode):
    flat = np.full((*SIZE, 3), (200, 60, 30), np.uint8)
    try:
        Image.fromarray(flat).convert(mode).save(path := tmp_path / "a.tif")
    except ValueError:  # LAB needs a profile to be written
        pytest.skip(f"this Pillow makes no {mode}")
    reader = FrameReader([path])
    assert np.abs(reader.read(0).permute(1, 2, 0).numpy().astype(int) - flat).max() < 12
    assert any(kind.startswith(mode) for kind in reader.conversions)


# ------------------------------------------------------------------ refused


def several(path, **options):
    Image.fromarray(COLOURS).save(path, save_all=True, append_images=[Image.fromarray(COLOURS[::-1])], **options)


REFUSED = {
    "apng.png": (several, "animated: 2 pictures"),
    "webp.webp": (several, "animated: 2 pictures"),
    "gif.png": (lambda p: several(p, format="GIF"), "animated: 2 pictures"),
    "pages.tif": (several, "pages: 2 pictures"),
    "float.tif": (lambda p: Image.fromarray(GREY.astype(np.float32)).save(p), "floating point"),
    "signed.tif": (lambda p: Image.fromarray(GREY.astype(np.int32) - 99).save(p), "32-bit values -99 to"),
    "phone.heic": (lambda p: p.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40)), "HEIC.*save it as JPEG or PNG"),
    "phone.jpg": (lambda p: p.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40)), "HEIC.*save it as JPEG or PNG"),
    "clip.jpg": (lambda p: p.write_bytes(b"\0\0\0\x18ftypisom" + bytes(40)), "a video file"),
    "page.png": (lambda p: p.write_text("<!DOCTYPE html>"), "a web page.*download link"),
    "pointer.png": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "empty.png": (lambda p: p.write_bytes(b""), "empty.*fetch it again"),
    "nothing.png": (lambda p: p.write_bytes(b"\1no picture"), "of no known image format"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unreadable_pictures_are_refused_by_name(tmp_path, name):
    make, message = REFUSED[name]
    make(tmp_path / name)
    with pytest.raises(UnreadableImage, match=f"{name}: not a readable image .*{message}"):
        read_image(tmp_path / name)


def test_a_picture_for_which_memory_is_too_small_is_not_unreadable(tmp_path, monkeypatch):
    """Pillow's decoders say so by an error that has no number, and its Python code by a `MemoryError`."""
    Image.fromarray(GREY).save(path := tmp_path / "a.png")
    for error in (OSError("out of memory when reading image file"), MemoryError()):
        monkeypatch.setattr(ImageFile.ImageFile, "load", Mock(side_effect=error))
        for read in (read_image, read_label_png):
            with pytest.raises(type(error)) as failed:
                read(path)
            assert is_out_of_memory(failed.value)


def test_a_file_is_what_it_holds_whatever_its_name(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.jpg", format="PNG")
    assert np.array_equal(pixels(tmp_path / "a.jpg"), COLOURS)
    Image.fromarray(COLOURS).save(tmp_path / "b.png", format="GIF")
    assert pixels(tmp_path / "b.png").shape == COLOURS.shape


def test_a_damaged_exif_tag_hides_no_frame(tmp_path):
    Image.fromarray(COLOURS).save(path := tmp_path / "a.jpg", exif=b"Exif\0\0" + b"no header at all", quality=95)
    assert pixels(path).shape == COLOURS.shape


def test_a_thumbnail_is_no_page(tmp_path):
    pages = [Image.fromarray(COLOURS), Image.fromarray(COLOURS).resize((8, 6))]
    pages[0].save(path := tmp_path / "a.tif", save_all=True, append_images=pages[1:], tiffinfo={254: 0})
    content = bytearray(path.read_bytes())
    with Image.open(path) as image:
        image.seek(1)
        if 254 not in image.tag_v2:
            pytest.skip("Pillow writes no NewSubfileType")
    at = content.rfind(struct.pack("<HHI", 254, 4, 1))
    content[at + 8 : at + 12] = struct.pack("<I", 1)
    path.write_bytes(content)
    assert np.array_equal(pixels(path), COLOURS)


# ------------------------------------------------------------------ the same reader everywhere


def test_records_are_read_as_files_are(tmp_path):
    content = png(GREY.astype(np.uint16) * 16, 0)
    (tmp_path / "r").write_bytes(record(example({"video": [content] * 2, "segmentations": [b"x"] * 2})))
    (tmp_path / "a.png").write_bytes(content)
    video = RecordVideo("a", list_records(tmp_path / "r")[0])
    frames = list(video.read_with_errors())
    assert torch.equal(frames[1], read_image(tmp_path / "a.png"))
    assert video.conversions == {"16-bit grey; values 0 to 4095 become 0 to 255": 2}


def test_data_check_names_the_conversions(tmp_path, monkeypatch, capsys):
    for name, count in (("thermal", 3), ("glass", 2), ("plain", 2)):
        (tmp_path / name).mkdir()
        for index in range(count):
            path = tmp_path / name / f"{index}.png"
            if name == "thermal":
                Image.fromarray(GREY.astype(np.uint16) * 16).save(path)
            else:
                Image.new("RGBA", (16, 12), (9, 9, 9, 90 if name == "glass" else 255)).save(path)
    monkeypatch.setattr("sys.argv", ["check", "--dataset", "video", "--basepath", str(tmp_path)])
    with pytest.raises(SystemExit) as exit_:
        check.main()
    assert exit_.value.code == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        "note: 2 frames of alpha in 1 video; composited over white",
        "note: 3 frames of 16-bit grey in 1 video; values 0 to 4095 become 0 to 255",
    ]


def test_frames_in_tiff_are_a_video(tmp_path):
    for index in (10, 9):
        Image.fromarray(COLOURS).save(tmp_path / f"{index}.TIF", format="TIFF")
    (video,) = load_videos("video", tmp_path, flag="")
    assert video.frame_names == ["9", "10"]
    assert torch.equal(next(video.read()), torch.from_numpy(COLOURS).permute(2, 0, 1))


# ------------------------------------------------------------------ label images


def write_ids(path, ids, **options):
    Image.fromarray(make_palette()[ids]).save(path, **options)


IDS = np.arange(12 * 16).reshape(SIZE) % 5
NO_IDS = {
    "colours of the palette": (lambda p: write_ids(p, IDS), "the DAVIS palette's colours"),
    "colours": (lambda p: Image.fromarray(COLOURS).save(p), "mode RGB holds no ids; save it as indexed PNG"),
    "alpha": (lambda p: Image.fromarray(GREY).convert("LA").save(p), "mode LA holds no ids"),
    "jpeg": (lambda p: Image.fromarray(GREY).save(p, format="JPEG"), "a JPEG, which changes ids"),
    "animated": (lambda p: several(p), "animated: 2 pictures"),
}


@pytest.mark.parametrize("kind", NO_IDS)
def test_label_images_without_ids_are_refused_by_name(tmp_path, kind):
    make, message = NO_IDS[kind]
    make(tmp_path / "a.png")
    with pytest.raises(UserError, match=rf"a\.png: .*{message}.*save|a\.png: .*{message}$"):
        read_label_png(tmp_path / "a.png")


def test_masks_are_never_composited_nor_scaled(tmp_path):
    mask = np.zeros((*SIZE, 4), np.uint8)
    mask[2:5, 2:5] = 255
    Image.fromarray(mask).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: .*alpha.*save it in grey or indexed"):
        MergedMasks({"a": (tmp_path / "a.png",)}).read("a")
    mask[..., 3] = 255
    Image.fromarray(mask).save(tmp_path / "a.png")
    assert MergedMasks({"a": (tmp_path / "a.png",)}).read("a").sum() == 9
    (tmp_path / "a.pgm").write_bytes(b"P5 16 12 65535\n" + (GREY.astype(">u2") * 16).tobytes())
    with pytest.raises(UserError, match=r"a\.pgm: .*16-bit"):
        FbmsOriginal({"a": tmp_path / "a.pgm"}, (16,)).read("a")


def test_png_in_capitals_and_two_of_one_name(tmp_path):
    for name in ("10.PNG", "9.png", "2.Png", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    assert list(find_pngs(tmp_path)) == ["2", "9", "10"]
    (tmp_path / "9.PNG").touch()
    with pytest.raises(UserError, match=r"9\.(png|PNG): 9\.(png|PNG) "):
        find_pngs(tmp_path)
    with pytest.raises(UserError, match=r"9\.(png|PNG): 9\.(png|PNG) "):
        find_frame_labels(tmp_path, [])


# ------------------------------------------------------------------ fingerprints


def test_a_replaced_frame_is_noticed_and_a_copy_is_the_same(tmp_path):
    for index in range(3):
        write_label_png(tmp_path / f"v/{index}.png", np.full(SIZE, index))
    paths = sorted((tmp_path / "v").iterdir())
    before, about = FrameFolder("v", paths).fingerprint, paths[1].stat()
    shutil.copytree(tmp_path / "v", tmp_path / "w")
    assert FrameFolder("v", sorted((tmp_path / "w").iterdir())).fingerprint == before
    content = bytearray(paths[1].read_bytes())
    content[-20] ^= 1  # of the same size, at the same time
    paths[1].write_bytes(content)
    os.utime(paths[1], ns=(about.st_atime_ns, about.st_mtime_ns))
    assert FrameFolder("v", paths).fingerprint != before
