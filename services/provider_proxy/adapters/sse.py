"""Server-sent events as the WHATWG's HTML standard parses them (section 9.2.6), from bytes in any chunking.

The parser knows bytes and lines only; what an event's data means is its reader's business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from shared.errors import MeshError, Reason

MAX_EVENT_BYTES = 32 * 1024 * 1024
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One dispatched event. `event` is "message" where the stream names none."""

    event: str
    data: bytes


class SseParser:
    """Bytes to events; keeps what has not ended yet, at most `max_event_bytes` of it."""

    __slots__ = ("_at_start", "_buffer", "_data", "_data_bytes", "_event", "_max_event_bytes", "_scanned", "_skip_lf")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._buffer = bytearray()
        self._scanned = 0  # bytes of the buffer known to hold no line end: a huge line is scanned once
        self._at_start = True
        self._skip_lf = False
        self._event = b""
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, data: bytes) -> list[SseEvent]:
        """Events that `data` completes. Raises PROVIDER_MALFORMED_ANSWER if an event outgrows its bound."""
        if not data:
            return []
        if self._skip_lf:
            # A CR ended the last line; if an LF follows in the next chunk, it belongs to it.
            self._skip_lf = False
            if data[:1] == b"\n":
                data = data[1:]
        buffer = self._buffer
        buffer += data
        if self._at_start and not self._take_bom():
            return []
        events: list[SseEvent] = []
        start = 0
        for end in _LINE_END.finditer(buffer, self._scanned):
            self._line(bytes(buffer[start : end.start()]), events)
            start = end.end()
        if start and start == len(buffer) and buffer[-1:] == b"\r":
            self._skip_lf = True
        del buffer[:start]
        self._scanned = len(buffer)
        self._check_bound(len(buffer))
        return events

    def _take_bom(self) -> bool:
        """Drops a byte order mark; False while too little has come to know."""
        if len(self._buffer) < len(_BOM) and _BOM.startswith(self._buffer):
            return False
        if self._buffer.startswith(_BOM):
            del self._buffer[: len(_BOM)]
        self._at_start = False
        return True

    def _line(self, line: bytes, events: list[SseEvent]) -> None:
        if not line:
            self._dispatch(events)
            return
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._data.append(value)
            self._data_bytes += len(value) + 1
            self._check_bound(0)
        elif name == b"event":
            self._event = value
        # "id" and "retry" are for reconnecting, which no answer that is paid by the token does; comments have no name.

    def _dispatch(self, events: list[SseEvent]) -> None:
        if self._data:
            name = self._event.decode("utf-8", "replace") if self._event else "message"
            events.append(SseEvent(name, b"\n".join(self._data)))
        self._data = []
        self._data_bytes = 0
        self._event = b""

    def _check_bound(self, pending: int) -> None:
        if self._data_bytes + pending > self._max_event_bytes:
            raise MeshError(
                Reason.PROVIDER_MALFORMED_ANSWER,
                f"The provider's stream holds an event of more than {self._max_event_bytes} bytes.",
            )
