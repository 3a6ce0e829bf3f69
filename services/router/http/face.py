"""What the HTTP application asks of a wire format: one class per format, pure functions over bytes and messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from modelmuxer.chat.v1 import chat_pb2
from multidict import CIMultiDictProxy

from shared.errors import MeshError

Headers = CIMultiDictProxy[str]


class EventStream(Protocol):
    """Encodes the events of one answer as server-sent events."""

    def encode(self, event: chat_pb2.ChatEvent) -> bytes:
        """Returns the frames of one event; empty for events that the format has no word for."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A request body, understood."""

    chat: chat_pb2.ChatRequest
    stream: EventStream | None
    """Encoder of the answer, if it is to be streamed."""


class Face(Protocol):
    """One wire format."""

    def read(self, body: bytes, headers: Headers) -> Reading:
        """Turns a request body into a ChatRequest. Raises MeshError naming the field that is wrong."""

    def render(self, response: chat_pb2.ChatResponse) -> dict[str, Any]:
        """Turns a whole answer into a body."""

    def render_error(self, error: MeshError, request_id: str) -> dict[str, Any]:
        """Turns an error into the body that the format's SDKs parse."""

    def error_frame(self, error: MeshError, request_id: str) -> bytes:
        """Turns an error in mid-stream into the frame that the format's SDKs raise for."""
