"""The Anthropic face: the Messages form, whose mapping stands in shared.wire.anthropic, as a Face."""

from __future__ import annotations

from typing import Any

from modelmuxer.chat.v1 import chat_pb2

from services.router.http.face import Headers, Reading
from services.router.http.problems import budget_members
from shared.errors import MeshError
from shared.wire import anthropic as wire

# Headers that change the answer and so go on to the provider.
_PASSED_ON = ("anthropic-beta", "anthropic-version")


class AnthropicFace:
    """Messages."""

    def read(self, body: bytes, headers: Headers) -> Reading:
        """Turns a Messages body into a ChatRequest."""
        return _reading(wire.parse_request(body), headers)

    def read_count(self, body: bytes, headers: Headers) -> Reading:
        """Turns a count_tokens body into a ChatRequest."""
        return _reading(wire.parse_count_request(body), headers)

    def render(self, response: chat_pb2.ChatResponse) -> dict[str, Any]:
        """Turns a whole answer into a message object."""
        return wire.render_message(response, model=response.started.model)

    def render_error(self, error: MeshError, request_id: str) -> dict[str, Any]:
        """Turns an error into Anthropic's error object."""
        body = wire.render_error(error, request_id)
        if refusal := budget_members(error):
            body["error"]["details"]["budget"] = refusal
        return body

    def error_frame(self, error: MeshError, request_id: str) -> bytes:
        """Turns an error in mid-stream into an error event."""
        return wire.error_frame(error, request_id)


def _reading(request: wire.MessagesRequest, headers: Headers) -> Reading:
    for name in _PASSED_ON:
        if name in headers:
            request.chat.provider_headers[name] = ",".join(headers.getall(name))
    return Reading(request.chat, wire.MessageStream() if request.stream else None)
