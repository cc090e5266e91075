"""Reading TFRecord files of tf.train.Example messages without TensorFlow: found by seeking, verified by checksum.

A file is a sequence of records: length (uint64), its checksum (uint32), that many bytes, their checksum (uint32), all
little-endian; a checksum is a masked CRC-32C.
"""

import mmap
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from utils.errors import UserError

MEND = "download this file again"
_HEADER, _FOOTER = struct.Struct("<QI"), struct.Struct("<I")
_POLYNOMIAL = 0x82F63B78  # CRC-32C, reflected
_LANES = 4096  # pieces of a long record that are summed side by side


@dataclass(frozen=True)
class Record:
    """One record: its file, where its bytes start, how many they are, and the checksum stored with them."""

    path: Path
    offset: int
    length: int
    checksum: int

    def __str__(self) -> str:
        return f"{self.path}, record at byte {self.offset}"


def list_records(path: Path) -> list[Record]:
    """The records of a file in order; reads their heads only.

    Raises:
        UserError: no such file, cut short, or a length whose checksum does not fit.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; {MEND}")
    records, position, size = [], 0, path.stat().st_size
    with open(path, "rb") as file:
        while position < size:
            head = file.read(_HEADER.size)
            if len(head) < _HEADER.size:
                raise UserError(f"{path}: ends within the head of record {len(records)}; {MEND}")
            length, checksum = _HEADER.unpack(head)
            if checksum != masked_crc32c(head[:8]):
                raise UserError(f"{path}: the length of record {len(records)} is damaged; {MEND}")
            if position + _HEADER.size + length + _FOOTER.size > size:
                raise UserError(f"{path}: ends within record {len(records)}; {MEND}")
            start = position + _HEADER.size
            file.seek(start + length)
            records.append(Record(path, start, length, *_FOOTER.unpack(file.read(_FOOTER.size))))
            position = start + length + _FOOTER.size
    return records


@lru_cache(maxsize=2)
def read_bytes_features(record: Record, keys: tuple[str, ...]) -> dict[str, list[bytes]]:
    """The lists of byte strings of an Example under `keys`, after its checksum was verified. The last two are kept.

    Raises:
        UserError: the checksum does not fit, or a key is missing.
    """
    view = _view(record)
    if masked_crc32c(view) != record.checksum:
        raise UserError(f"{record}: the checksum does not fit; {MEND}")
    return {key: list(map(bytes, values)) for key, values in _select(record, view, keys).items()}


def count_values(record: Record, key: str) -> int:
    """How many byte strings an Example has under `key`, without reading them."""
    return len(_select(record, _view(record), (key,))[key])


def _view(record: Record) -> memoryview:
    """The record's bytes; they are read from the disk as they are touched."""
    with open(record.path, "rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return memoryview(content)[record.offset : record.offset + record.length]


def _select(record: Record, view: memoryview, keys: Collection[str]) -> dict[str, list[memoryview]]:
    try:
        found = {key: values for key, values in _bytes_lists(view) if key in keys}
    except (ValueError, IndexError) as error:
        raise UserError(f"{record}: not a tf.train.Example ({error}); {MEND}") from error
    for key in keys:
        if not found.get(key):
            raise UserError(f"{record}: has no feature '{key}'; give the folder of another data set")
    return found


# ------------------------------------------------------------------ messages


def _bytes_lists(example: memoryview) -> Iterator[tuple[str, list[memoryview]]]:
    """Keys and values of an Example that are byte strings.

    Example.features (1) -> entries (1) -> key (1) and value (2) -> BytesList (1) -> values (1).
    """
    for features in _members(example, 1):
        for entry in _members(features, 1):
            key = b"".join(map(bytes, _members(entry, 1))).decode()
            for feature in _members(entry, 2):
                for values in _members(feature, 1):
                    yield key, list(_members(values, 1))


def _members(message: memoryview, number: int) -> Iterator[memoryview]:
    """The length-delimited members of a protobuf message with this field number; others are stepped over."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 0:
            position = _varint(message, position)[1]
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f"wire type {kind}")
        length, position = _varint(message, position) if kind == 2 else ({1: 8, 5: 4}[kind], position)
        if position + length > len(message):
            raise ValueError("a member is longer than its message")
        if kind == 2 and tag >> 3 == number:
            yield message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """(number, position after it): 7 bits a byte, the lowest first, the eighth bit set where more follow."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("a number of more than 10 bytes")


# ------------------------------------------------------------------ checksums


def masked_crc32c(content: bytes | memoryview) -> int:
    """CRC-32C as TFRecord stores it: rotated and offset, so that checksums of checksums are no special case."""
    checksum = crc32c(content)
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(content: bytes | memoryview) -> int:
    """CRC-32C (Castagnoli). Long content is cut in equal pieces whose checksums are computed side by side."""
    array = np.frombuffer(content, np.uint8)
    length = len(array) // _LANES
    state = 0xFFFFFFFF
    if length:
        pieces = np.ascontiguousarray(array[: length * _LANES].reshape(_LANES, length).T)
        states = np.zeros(_LANES, np.uint32)
        states[0] = state
        for column in pieces:
            states = _table()[(states ^ column) & 255] ^ (states >> 8)
        # A checksum is linear: that of A then B is that of A followed by as many zeros, plus that of B started at 0.
        over_a_piece = _zeros_operator(length)
        state = 0
        for piece in states.tolist():
            state = _apply(over_a_piece, state) ^ piece
    table = _table().tolist()
    for byte in array[length * _LANES :].tolist():
        state = table[(state ^ byte) & 255] ^ (state >> 8)
    return state ^ 0xFFFFFFFF


@lru_cache(maxsize=1)
def _table() -> np.ndarray:
    """(256,) uint32: the checksum state that each byte leaves."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


def _zeros_operator(count: int) -> list[int]:
    """What `count` zero bytes make of a state: a 32 x 32 matrix of bits, column by column."""
    table = _table().tolist()
    power = [table[(1 << bit) & 255] ^ ((1 << bit) >> 8) for bit in range(32)]  # of one zero byte
    result = [1 << bit for bit in range(32)]
    while count:
        if count & 1:
            result = [_apply(power, column) for column in result]
        power = [_apply(power, column) for column in power]
        count >>= 1
    return result


def _apply(operator: list[int], state: int) -> int:
    """The operator's product with a state, over bits."""
    total = 0
    for column in operator:
        if state & 1:
            total ^= column
        state >>= 1
    return total
