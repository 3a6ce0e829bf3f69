"""Framing of an append-only file: finds whole frames again after a tear, and after damage in the middle.

A frame is magic, length, CRC-32 and payload. The magic begins with a byte that no UTF-8 text holds, so text inside a
payload cannot pass for a frame when a reader searches for the next one. Files are the journal's business.
"""

import struct
import zlib
from typing import NamedTuple

MAX_PAYLOAD_BYTES = 1 << 20

_MAGIC = b"\xffM"
_HEADER = struct.Struct("<2sII")
HEADER_BYTES = _HEADER.size


class Frame(NamedTuple):
    """A whole frame: where it begins and ends, and what it carries."""

    start: int
    end: int
    payload: bytes


class Scan(NamedTuple):
    """What a piece of a file holds. From `end` on stands no whole frame."""

    frames: list[Frame]
    damage: list[tuple[int, int]]
    end: int


def frame(payload: bytes) -> bytes:
    """The payload as it is written. The length seeds the checksum, so that neither passes without the other."""
    length = len(payload)
    return _HEADER.pack(_MAGIC, length, zlib.crc32(payload, length)) + payload


def scan(data: bytes, limit: int | None = None) -> Scan:
    """The frames in `data`, at most `limit`, and the stretches between them that are none."""
    frames: list[Frame] = []
    damage: list[tuple[int, int]] = []
    offset = 0
    while offset < len(data) and len(frames) != limit:
        found = _frame_at(data, offset)
        if found is None:
            found = _next_frame(data, offset + 1)
            if found is None:
                break
            damage.append((offset, found.start))
        frames.append(found)
        offset = found.end
    return Scan(frames, damage, offset)


def is_torn(tail: bytes) -> bool:
    """Whether what follows the last whole frame is the beginning of an append that never returned."""
    if len(tail) < HEADER_BYTES:
        return _MAGIC.startswith(tail[: len(_MAGIC)]) or tail.startswith(_MAGIC)
    magic, length, _ = _HEADER.unpack_from(tail)
    return bool(magic == _MAGIC and HEADER_BYTES + length > len(tail) and length <= MAX_PAYLOAD_BYTES)


def _frame_at(data: bytes, offset: int) -> Frame | None:
    start = offset + HEADER_BYTES
    if start > len(data):
        return None
    magic, length, checksum = _HEADER.unpack_from(data, offset)
    end = start + length
    if magic != _MAGIC or not 0 < length <= MAX_PAYLOAD_BYTES or end > len(data):
        return None
    payload = data[start:end]
    return Frame(offset, end, payload) if zlib.crc32(payload, length) == checksum else None


def _next_frame(data: bytes, offset: int) -> Frame | None:
    while (offset := data.find(_MAGIC, offset)) >= 0:
        found = _frame_at(data, offset)
        if found is not None:
            return found
        offset += 1
    return None
