"""Read TFRecord files of tf.train.Example messages without TensorFlow.

A file is a sequence of records. A record is its length (uint64), the checksum of the length (uint32), that many bytes,
and their checksum (uint32), all little-endian. Checksums are masked CRC-32C.
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
_NUM_PIECES = 4096  # of a long record, whose checksums NumPy computes in parallel


@dataclass(frozen=True)
class Record:
    """One record of a file: the offset, the number and the stored checksum of its bytes."""

    path: Path
    offset: int
    length: int
    checksum: int

    def __str__(self) -> str:
        return f"{self.path}, record at byte {self.offset}"


def list_records(path: Path) -> list[Record]:
    """List the records of a file in order, reading only their lengths and checksums.

    Raises:
        UserError: the file does not exist, is cut short, or the checksum of a length does not fit.
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
def read_byte_features(record: Record, keys: tuple[str, ...]) -> dict[str, list[bytes]]:
    """Read the byte strings of an Example: key -> list of byte strings. The results of the last two calls are kept.

    Raises:
        UserError: the checksum of the record does not fit, or a key is missing.
    """
    view = _map_record(record)
    if masked_crc32c(view) != record.checksum:
        raise UserError(f"{record}: the checksum does not fit; {MEND}")
    return {key: list(map(bytes, values)) for key, values in _find_features(record, view, keys).items()}


def count_values(record: Record, key: str) -> int:
    """Count the byte strings that an Example has under `key`, without reading them."""
    return len(_find_features(record, _map_record(record), (key,))[key])


def _map_record(record: Record) -> memoryview:
    """Map the bytes of a record into memory; they are read from disk when they are used."""
    with open(record.path, "rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return memoryview(content)[record.offset : record.offset + record.length]


def _find_features(record: Record, view: memoryview, keys: Collection[str]) -> dict[str, list[memoryview]]:
    """Find the features `keys` in the bytes of a record. Raises `UserError` if one of them is missing."""
    try:
        found = {key: values for key, values in _iterate_features(view) if key in keys}
    except (ValueError, IndexError) as error:
        raise UserError(f"{record}: not a tf.train.Example ({error}); {MEND}") from error
    for key in keys:
        if not found.get(key):
            raise UserError(f"{record}: has no feature '{key}'; give the folder of another data set")
    return found


# ------------------------------------------------------------------ messages


def _iterate_features(example: memoryview) -> Iterator[tuple[str, list[memoryview]]]:
    """Yield (key, values) of each feature of an Example whose values are byte strings.

    Example.features (1) -> entries (1) -> key (1) and value (2) -> BytesList (1) -> values (1).
    """
    for features in _iterate_members(example, 1):
        for entry in _iterate_members(features, 1):
            key = b"".join(map(bytes, _iterate_members(entry, 1))).decode()
            for feature in _iterate_members(entry, 2):
                for values in _iterate_members(feature, 1):
                    yield key, list(_iterate_members(values, 1))


def _iterate_members(message: memoryview, number: int) -> Iterator[memoryview]:
    """Yield the length-delimited members of a protobuf message that have this field number."""
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        kind = tag & 7
        if kind == 0:
            position = _read_varint(message, position)[1]
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f"wire type {kind}")
        length, position = _read_varint(message, position) if kind == 2 else ({1: 8, 5: 4}[kind], position)
        if position + length > len(message):
            raise ValueError("a member is longer than its message")
        if kind == 2 and tag >> 3 == number:
            yield message[position : position + length]
        position += length


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """Read a number of 7 bits a byte, lowest first, whose eighth bits say that more follow; return (number, end)."""
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
    """Compute the CRC-32C as TFRecord stores it: rotated, plus a constant."""
    checksum = crc32c(content)
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(content: bytes | memoryview) -> int:
    """Compute the CRC-32C (Castagnoli); long content is cut into pieces whose checksums are computed in parallel."""
    array = np.frombuffer(content, np.uint8)
    length = len(array) // _NUM_PIECES
    state = 0xFFFFFFFF
    if length:
        pieces = np.ascontiguousarray(array[: length * _NUM_PIECES].reshape(_NUM_PIECES, length).T)
        states = np.zeros(_NUM_PIECES, np.uint32)
        states[0] = state
        for column in pieces:
            states = _make_table()[(states ^ column) & 255] ^ (states >> 8)
        # Checksums are linear: that of A and B joined is that of A, continued over len(B) zeros, xor that of B from 0.
        zeros_operator = _make_zeros_operator(length)
        state = 0
        for piece in states.tolist():
            state = _apply_operator(zeros_operator, state) ^ piece
    table = _make_table().tolist()
    for byte in array[length * _NUM_PIECES :].tolist():
        state = table[(state ^ byte) & 255] ^ (state >> 8)
    return state ^ 0xFFFFFFFF


@lru_cache(maxsize=1)
def _make_table() -> np.ndarray:
    """Return the state that each byte leaves: (256,) uint32."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


def _make_zeros_operator(count: int) -> list[int]:
    """Return the matrix that continues a state over `count` zero bytes: 32 columns of 32 bits."""
    table = _make_table().tolist()
    power = [table[(1 << bit) & 255] ^ ((1 << bit) >> 8) for bit in range(32)]  # the matrix for one zero byte
    result = [1 << bit for bit in range(32)]
    while count:
        if count & 1:
            result = [_apply_operator(power, column) for column in result]
        power = [_apply_operator(power, column) for column in power]
        count >>= 1
    return result


def _apply_operator(operator: list[int], state: int) -> int:
    """Multiply a matrix of bits with a state, modulo 2."""
    total = 0
    for column in operator:
        if state & 1:
            total ^= column
        state >>= 1
    return total
