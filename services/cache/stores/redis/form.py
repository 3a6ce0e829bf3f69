"""How an answer stands in Redis: a form that says what it is, bears its own key, and shows damage. Pure.

    magic and version · CRC-32 of all that follows · codec · length of the head · head (JSON) · note and value

The key is inside, so that a reply that is another command's, by whatever fault, is not taken for the answer.
"""

from __future__ import annotations

import struct
import sys
import zlib
from dataclasses import dataclass

import orjson

from services.cache.stores import About, Key

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b"MUX\x01"
COMPRESS_FROM_BYTES = 1000
_PLAIN, _ZSTD = 0, 1
_LEVEL = 3
_START = struct.Struct(">4sI")
_NEXT = struct.Struct(">BI")


class Unreadable(Exception):
    """What is stored is damaged, of another form, or another key's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One answer as it is stored. Times are Unix milliseconds."""

    key: Key
    value: bytes
    about: About
    stored_ms: int
    expires_ms: int
    stamp: bytes
    """The invalidations that the answer has seen (fences.py)."""


def pack(record: Record) -> bytes:
    """The bytes of a record."""
    about, body, codec = record.about, record.about.note + record.value, _PLAIN
    head = orjson.dumps(
        {
            "tenant": record.key.tenant,
            "digest": record.key.digest.hex(),
            "alias": about.alias,
            "model": about.model,
            "tags": about.tags,
            "cost_nanos": about.cost_nanos,
            "note_bytes": len(about.note),
            "body_bytes": len(body),
            "stored_ms": record.stored_ms,
            "expires_ms": record.expires_ms,
            "stamp": record.stamp.hex(),
        }
    )
    if len(body) > COMPRESS_FROM_BYTES and len(smaller := zstd.compress(body, _LEVEL)) < len(body):
        body, codec = smaller, _ZSTD
    rest = _NEXT.pack(codec, len(head)) + head + body
    return _START.pack(MAGIC, zlib.crc32(rest)) + rest


def unpack(data: bytes, key: Key, *, largest_bytes: int) -> Record:
    """The record of a key. Raises Unreadable."""
    try:
        magic, checksum = _START.unpack_from(data)
        rest = memoryview(data)[_START.size :]
        if magic != MAGIC or checksum != zlib.crc32(rest):
            raise Unreadable
        codec, head_bytes = _NEXT.unpack_from(rest)
        head = orjson.loads(rest[_NEXT.size : _NEXT.size + head_bytes])
        body = bytes(rest[_NEXT.size + head_bytes :])
        if codec == _ZSTD:
            body = _decompressed(body, head["body_bytes"], largest_bytes)
        if (head["tenant"], head["digest"]) != (key.tenant, key.digest.hex()) or len(body) != head["body_bytes"]:
            raise Unreadable
        note_bytes = head["note_bytes"]
        return Record(
            key=key,
            value=body[note_bytes:],
            about=About(
                alias=head["alias"],
                model=head["model"],
                tags=tuple(head["tags"]),
                cost_nanos=head["cost_nanos"],
                note=body[:note_bytes],
            ),
            stored_ms=head["stored_ms"],
            expires_ms=head["expires_ms"],
            stamp=bytes.fromhex(head["stamp"]),
        )
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise Unreadable from error


def _decompressed(body: bytes, expected_bytes: int, largest_bytes: int) -> bytes:
    """Never more than may be stored, whatever the frame says it holds."""
    if expected_bytes > largest_bytes:
        raise Unreadable
    try:
        return zstd.ZstdDecompressor().decompress(body, max_length=expected_bytes + 1)
    except zstd.ZstdError as error:
        raise Unreadable from error
