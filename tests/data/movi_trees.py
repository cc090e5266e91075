"""MOVi as TFDS keeps it, in records of tf.train.Example, and as folders of PNGs."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.tree_files import FRAMES, frame_of, labels_of, write_frames, write_labels


def slow_crc32c(content: bytes) -> int:
    """Bit by bit, from the definition."""
    state = 0xFFFFFFFF
    for byte in content:
        state ^= byte
        for _ in range(8):
            state = (state >> 1) ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def masked(content: bytes) -> bytes:
    crc = slow_crc32c(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def member(number: int, content: bytes) -> bytes:
    """A length-delimited member of a protobuf message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    low = b""
    while value > 127:
        low, value = low + bytes([value & 127 | 128]), value >> 7
    return low + bytes([value])


def example(features: dict[str, list]) -> bytes:
    """A tf.train.Example: lists of byte strings, of floats, or of whole numbers."""
    entries = b""
    for key, values in features.items():
        if isinstance(values[0], bytes):
            feature = member(1, b"".join(member(1, value) for value in values))
        elif isinstance(values[0], float):
            feature = member(2, member(1, struct.pack(f"<{len(values)}f", *values)))
        else:
            feature = member(3, member(1, b"".join(map(varint, values))))
        entries += member(1, member(1, key.encode()) + member(2, feature))
    return member(1, entries)


def record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + masked(length) + content + masked(content)


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def movi_example(number: int) -> bytes:
    return example({
        "background": [b"dome"],
        "camera/focal_length": [35.0],
        "metadata/num_frames": [24, 300],
        "metadata/video_name": [str(100 + number).encode()],
        "segmentations": [png(labels_of(index)) for index in range(len(FRAMES))],
        "video": [png(frame_of(index)) for index in range(len(FRAMES))],
    })  # fmt: skip


def movi_records(variant: str) -> Callable[[Path], None]:
    """As TFDS keeps it: three videos of validation in two files, one of train in one."""

    def build(root: Path) -> None:
        folder = root / f"movi_{variant}/256x256/1.0.0"
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text("{}")
        for split, shards in (("validation", [(0, 1), (2,)]), ("train", [(3,)])):
            for number, videos in enumerate(shards):
                path = folder / f"movi_{variant}-{split}.tfrecord-{number:05d}-of-{len(shards):05d}"
                path.write_bytes(b"".join(record(movi_example(video)) for video in videos))

    return build


def movi_folders(frames: str, masks: str, ending: str) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        for split in ("train", "validation"):
            for name in ("00000000", "00000001"):
                write_frames(root / split / name / frames, FRAMES)
                write_labels(root / split / name / masks, FRAMES, ending=ending)

    return build
