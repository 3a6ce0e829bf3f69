"""Server-sent events are read as the WHATWG's standard says, however the bytes are cut."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.provider_proxy.adapters.sse import SseEvent, SseParser
from shared.errors import MeshError, Reason


def parse(*pieces: bytes) -> list[tuple[str, bytes]]:
    parser = SseParser()
    return [(event.event, event.data) for piece in pieces for event in parser.feed(piece)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_line_end_ends_a_line(end: bytes) -> None:
    assert parse(b"event: a" + end + b"data: 1" + end + end) == [("a", b"1")]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: one\ndata: two\n\n", [("message", b"one\ntwo")]),
        (b"data:no space\n\n", [("message", b"no space")]),
        (b"data:  two spaces\n\n", [("message", b" two spaces")]),
        (b": a comment\ndata: x\n\n", [("message", b"x")]),
        (b":\n\n: ping\n\n", []),
        (b"data\n\n", [("message", b"")]),
        (b"event: lost\n\ndata: x\n\n", [("message", b"x")]),
        (b"id: 7\nretry: 100\nunknown: y\ndata: x\n\n", [("message", b"x")]),
        (b"\xef\xbb\xbfdata: after a byte order mark\n\n", [("message", b"after a byte order mark")]),
        (b"data: never ended\n", []),
        (b"data: \xff\xfe\n\n", [("message", b"\xff\xfe")]),
    ],
)
def test_fields_are_read_as_the_standard_says(stream: bytes, expected: list[tuple[str, bytes]]) -> None:
    assert parse(stream) == expected


@given(
    st.lists(st.sampled_from([b"data: ", b"event: e", b"x", b"\n", b"\r", b"\r\n", b": c", b"\xef\xbb\xbf", b""])),
    st.data(),
)
def test_cuts_do_not_matter(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    at = data.draw(st.integers(0, len(stream)))
    assert parse(stream[:at], stream[at:]) == parse(stream)
    assert parse(*(stream[i : i + 1] for i in range(len(stream)))) == parse(stream)


def test_an_event_past_the_bound_is_refused() -> None:
    for stream in (b"data: " + b"x" * 200, b"data: x\n" * 60):
        with pytest.raises(MeshError) as refused:
            SseParser(max_event_bytes=100).feed(stream)
        assert refused.value.reason == Reason.PROVIDER_MALFORMED_ANSWER


def test_a_huge_line_in_many_pieces_is_scanned_once() -> None:
    parser = SseParser()
    began = time.perf_counter()
    for _ in range(4000):
        assert parser.feed(b"x" * 1024) == []
    assert time.perf_counter() - began < 2
    assert SseParser().feed(b"data: " + b"y" * 4_000_000 + b"\n\n") == [SseEvent("message", b"y" * 4_000_000)]
