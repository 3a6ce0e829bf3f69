"""Streams as providers document them, and what a decoder makes of them however they are cut."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from modelmuxer.chat.v1.chat_pb2 import ChatEvent, ChatResponse

from services.provider_proxy.adapters import Decoder
from shared.errors import MeshError
from shared.transcript import Transcript

Outcome = tuple[list[ChatEvent], str | None]
_APART = 256  # bytes between two cuts: an event or more


def sse(*chunks: dict[str, Any] | str, newline: str = "\n") -> bytes:
    """Chunks as data-only events, as chat completions send them."""
    texts = [chunk if isinstance(chunk, str) else json.dumps(chunk) for chunk in chunks]
    return "".join(f"data: {text}{newline}{newline}" for text in texts).encode()


def decode(decoder: Decoder, pieces: Iterable[bytes]) -> Outcome:
    """All events, and the reason of the error that ended them."""
    events: list[ChatEvent] = []
    try:
        for piece in pieces:
            events += decoder.feed(piece)
        events += decoder.close()
    except MeshError as error:
        return events, str(error.reason)
    return events, None


def cut_everywhere(make: Callable[[], Decoder], body: bytes) -> Outcome:
    """The outcome of `body` in one piece, which must be that of every cut and of single bytes.

    Cuts so far from each other are made together, in `_APART` decodings instead of one for each byte.
    """
    whole = decode(make(), [body])
    for first in range(_APART):
        cuts = [0, *range(first, len(body) + 1, _APART), len(body)]
        assert decode(make(), [body[at:to] for at, to in pairwise(cuts)]) == whole, f"cuts from {first} on"
    assert decode(make(), [body[at : at + 1] for at in range(len(body))]) == whole
    return whole


def folded(events: Iterable[ChatEvent]) -> ChatResponse:
    """The answer that events add up to."""
    transcript = Transcript()
    for event in events:
        transcript.add(event)
    return transcript.response
