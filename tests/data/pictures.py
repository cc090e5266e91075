"""Small pictures of one channel and three, and PNGs written by hand."""

import struct
import zlib

import numpy as np

from data.frames import FrameReader

SIZE = (12, 16)


GREY = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)


COLOURS = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def read_image(path):
    """(3, H, W) uint8."""
    return FrameReader([path]).read(0)


def pixels(path):
    """(H, W, 3) uint8."""
    return read_image(path).permute(1, 2, 0).numpy()


def png(values, colour_type, chunks=()):
    """A 16-bit PNG of values (H, W, ...), of kinds that neither Pillow nor OpenCV writes."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
