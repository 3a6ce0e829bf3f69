"""What the HTTP application asks of a wire format: one class per format, pure functions over JSON and messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from modelmuxer.chat.v1 import chat_pb2 as chat

from services.router.http.fields import Json
from shared.errors import MeshError


class EventStream(Protocol):
    """Encodes the events of one answer as server-sent events."""

    def encode(self, event: chat.ChatEvent) -> bytes:
        """Returns the frames of one event; empty for events that the format has no word for."""


class Face(Protocol):
    """One wire format."""

    def parse(self, body: Json, headers: Mapping[str, str]) -> chat.ChatRequest:
        """Turns a body into a ChatRequest. Raises MeshError naming the field that is wrong."""

    def wants_stream(self, body: Json) -> bool:
        """Tells whether the answer is to be streamed."""

    def render(self, response: chat.ChatResponse) -> dict[str, Any]:
        """Turns a whole answer into a body."""

    def stream(self, body: Json) -> EventStream:
        """Returns the encoder of a streamed answer to a body."""

    def render_error(self, error: MeshError, request_id: str) -> dict[str, Any]:
        """Turns an error into the body that the format's SDKs parse."""

    def stream_error(self, error: MeshError, request_id: str) -> bytes:
        """Turns an error in mid-stream into the frame that the format's SDKs raise for."""
