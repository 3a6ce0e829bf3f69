"""The OpenAI face: chat completions, and errors in the form that OpenAI's SDK parses."""

from __future__ import annotations

from typing import Any

from modelmuxer.chat.v1 import chat_pb2 as chat

from services.router.http.face import Headers, Reading
from services.router.http.fields import mapping, parse_json
from services.router.http.openai_answer import ChunkStream, frame, render_response
from services.router.http.openai_request import parse_request, wants_stream, wants_usage
from services.router.http.problems import http_status, problem_members
from shared.errors import MeshError, Reason

# What the SDK and applications compare `error.code` with.
_CODES: dict[str, str] = {
    Reason.INVALID_KEY: "invalid_api_key",
    Reason.MISSING_KEY: "invalid_api_key",
    Reason.UNKNOWN_MODEL: "model_not_found",
    Reason.CONTEXT_TOO_LONG: "context_length_exceeded",
    Reason.CONTENT_POLICY: "content_policy_violation",
    Reason.PROVIDER_RATE_LIMITED: "rate_limit_exceeded",
    Reason.CONCURRENCY_LIMIT: "rate_limit_exceeded",
    Reason.PROVIDER_QUOTA_EXHAUSTED: "insufficient_quota",
    Reason.PROVIDER_OVERLOADED: "server_is_overloaded",
}


def render_error(error: MeshError, request_id: str) -> dict[str, Any]:
    """Returns OpenAI's error object with RFC 9457's members beside it."""
    return {
        "error": {
            "message": error.message,
            "type": _error_type(error),
            "param": error.field,
            "code": _CODES.get(error.reason, error.reason.lower()),
        },
        **problem_members(error, request_id),
    }


def _error_type(error: MeshError) -> str:
    status = http_status(error)
    if status == 401:
        return "authentication_error"
    if status == 403:
        return "permission_error"
    if status == 402:
        return "insufficient_quota"
    if status == 429:
        return "insufficient_quota" if error.reason == Reason.PROVIDER_QUOTA_EXHAUSTED else "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


class OpenAIFace:
    """Chat completions, as a Face."""

    def read(self, body: bytes, headers: Headers) -> Reading:
        """Turns a chat-completions body into a ChatRequest."""
        fields = mapping(parse_json(body), "The body")
        chat_request = parse_request(fields)
        stream = ChunkStream(include_usage=wants_usage(fields)) if wants_stream(fields) else None
        return Reading(chat_request, stream)

    def render(self, response: chat.ChatResponse) -> dict[str, Any]:
        """Turns a whole answer into a chat.completion object."""
        return render_response(response)

    def render_error(self, error: MeshError, request_id: str) -> dict[str, Any]:
        """Turns an error into OpenAI's error object."""
        return render_error(error, request_id)

    def error_frame(self, error: MeshError, request_id: str) -> bytes:
        """Turns an error in mid-stream into the frame that the SDK raises an APIError for."""
        return frame(render_error(error, request_id))
