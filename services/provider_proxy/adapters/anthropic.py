"""Anthropic's Messages API: its endpoint, headers and errors. The form itself stands in shared.wire.anthropic."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import orjson
from modelmuxer.chat.v1.chat_pb2 import ChatEvent, ChatRequest, ChatResponse, Usage
from modelmuxer.embedding.v1.embedding_pb2 import EmbedRequest
from modelmuxer.provider.v1.provider_pb2 import EmbedResponse

from services.provider_proxy.adapters import (
    Decoder,
    ErrorsLast,
    JsonObject,
    UpstreamRequest,
    add_options,
    as_count,
    header,
    json_headers,
    malformed,
    parse_object,
    provider_failure,
    provider_said,
    retry_after_s,
    stream_cut,
    unsupported,
)
from services.provider_proxy.adapters.sse import SseParser
from shared.catalogue import Deployment
from shared.errors import MeshError, Reason
from shared.wire import anthropic as wire

# The version that still takes sampling parameters, which older models are used with. A caller's own header wins.
API_VERSION: Final = "2023-06-01"
VERSION_HEADER: Final = "anthropic-version"
# For calls that no cap reaches: no model in use takes fewer, and max_tokens is required.
DEFAULT_MAX_TOKENS: Final = 4096

_BY_TYPE: Final = {
    "invalid_request_error": Reason.PROVIDER_INVALID_REQUEST,
    "authentication_error": Reason.PROVIDER_AUTHENTICATION,
    "billing_error": Reason.PROVIDER_QUOTA_EXHAUSTED,
    "permission_error": Reason.PROVIDER_PERMISSION,
    "not_found_error": Reason.PROVIDER_NOT_FOUND,
    "conflict_error": Reason.PROVIDER_ERROR,
    "request_too_large": Reason.REQUEST_TOO_LARGE,
    "rate_limit_error": Reason.PROVIDER_RATE_LIMITED,
    "api_error": Reason.PROVIDER_ERROR,
    "timeout_error": Reason.PROVIDER_TIMEOUT,
    "overloaded_error": Reason.PROVIDER_OVERLOADED,
}
_BY_STATUS: Final = {
    401: Reason.PROVIDER_AUTHENTICATION,
    402: Reason.PROVIDER_QUOTA_EXHAUSTED,
    403: Reason.PROVIDER_PERMISSION,
    404: Reason.PROVIDER_NOT_FOUND,
    408: Reason.PROVIDER_TIMEOUT,
    409: Reason.PROVIDER_ERROR,
    413: Reason.REQUEST_TOO_LARGE,
    429: Reason.PROVIDER_RATE_LIMITED,
    503: Reason.PROVIDER_OVERLOADED,
    504: Reason.PROVIDER_TIMEOUT,
    529: Reason.PROVIDER_OVERLOADED,
}
_GENERAL: Final = ("invalid_request_error", "api_error")  # also stand for statuses without a type of their own
# What another try on the same deployment may cure.
_PASSING: Final = frozenset(
    {Reason.PROVIDER_RATE_LIMITED, Reason.PROVIDER_OVERLOADED, Reason.PROVIDER_ERROR, Reason.PROVIDER_TIMEOUT}
)
_TOO_LONG: Final = re.compile(
    r"prompt is too long|exceeds? (the )?context (limit|window)|context window exceeded", re.IGNORECASE
)
_SPENT: Final = re.compile(
    r"spend(ing)? (limit|cap)|credit balance is too low|reached your specified .*usage limits", re.IGNORECASE
)


class AnthropicAdapter:
    """Messages, whole and streamed, and the count of tokens."""

    format: Final = wire.FORMAT

    def request(
        self, chat: ChatRequest, deployment: Deployment, key: str, *, stream: bool, attempt_id: str
    ) -> UpstreamRequest:
        """POST /v1/messages. Raises UNSUPPORTED_FEATURE."""
        body = self._body(chat, deployment)
        if stream:
            body["stream"] = True
        return self._post(chat, deployment, key, "messages", body, attempt_id)

    def count_tokens_request(self, chat: ChatRequest, deployment: Deployment, key: str) -> UpstreamRequest:
        """POST /v1/messages/count_tokens."""
        body = {name: value for name, value in self._body(chat, deployment).items() if name in wire.COUNTED}
        return self._post(chat, deployment, key, "messages/count_tokens", body, "")

    def counted(self, body: bytes) -> int:
        """Input tokens of a count."""
        tokens = as_count(parse_object(body).get("input_tokens"))
        if tokens is None:
            raise malformed("it has no input_tokens")
        return tokens

    def embed_request(
        self, request: EmbedRequest, deployment: Deployment, key: str, *, attempt_id: str
    ) -> UpstreamRequest:
        """Raises UNSUPPORTED_FEATURE: Anthropic makes no embeddings."""
        raise unsupported("Anthropic", "embeddings")

    def embeddings(self, body: bytes, inputs: int) -> EmbedResponse:
        """Never called, as there is no such request."""
        raise NotImplementedError

    def decoder(self, chat: ChatRequest, headers: Mapping[str, str] | None = None) -> Decoder:
        """A decoder of events."""
        return _Decoder()

    def response(self, status: int, headers: Mapping[str, str], body: bytes) -> ChatResponse:
        """A whole message."""
        return wire.parse_message(body, _fault)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> MeshError:
        """An error answer."""
        return _failure(_said(body), status, headers)

    def _body(self, chat: ChatRequest, deployment: Deployment) -> JsonObject:
        max_tokens = chat.max_output_tokens if chat.HasField("max_output_tokens") else DEFAULT_MAX_TOKENS
        return add_options(wire.render_request(chat, model=deployment.upstream_model, max_tokens=max_tokens), chat)

    def _post(
        self, chat: ChatRequest, deployment: Deployment, key: str, path: str, body: JsonObject, attempt_id: str
    ) -> UpstreamRequest:
        own = {VERSION_HEADER: chat.provider_headers.get(VERSION_HEADER) or API_VERSION, "x-api-key": key}
        return UpstreamRequest(
            method="POST",
            url=f"{deployment.base_url}/v1/{path}",
            headers=json_headers(chat, attempt_id, own),
            body=orjson.dumps(body),
        )


class _Decoder:
    """A streamed message."""

    def __init__(self) -> None:
        self._events = SseParser()
        self._reader = wire.StreamReader(_fault, _broken_off)
        self._errors_last = ErrorsLast()

    @property
    def usage(self) -> Usage:
        return self._reader.usage

    def feed(self, data: bytes) -> list[ChatEvent]:
        events = (event for sse in self._events.feed(data) for event in self._reader.read(sse.data))
        return self._errors_last.taken(events)

    def close(self) -> list[ChatEvent]:
        self._errors_last.taken(())
        if not self._reader.done:
            raise stream_cut()
        return []


def _fault(path: str, sentence: str) -> MeshError:
    # A sentence about the whole may quote it ("is not valid JSON: …"), and with it the prompt.
    return malformed(f"{path} {sentence}" if path else "it is not a message")


def _said(body: bytes) -> JsonObject:
    """The `error` of an error body, which a proxy in between may have written in any form."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = answer.get("error") if isinstance(answer, dict) else None
    return error if isinstance(error, dict) else {}


def _broken_off(error: JsonObject) -> MeshError:
    """An error event after status 200."""
    return _failure(error, 200, {})


def _failure(error: JsonObject, status: int, headers: Mapping[str, str]) -> MeshError:
    kind, message = _word(error.get("type")), error.get("message")
    details = error.get("details")
    code = _word(details.get("error_code")) if isinstance(details, dict) else ""
    reason = _reason(kind, code, message if isinstance(message, str) else "", status)
    passing = reason in _PASSING
    asked = header(headers, "x-should-retry")
    return provider_failure(
        reason,
        _sentence(reason, status, message),
        retryable=asked == "true" or (passing and asked != "false"),
        http_status=status,
        provider_code=code or kind,
        provider_request_id=header(headers, "request-id"),
        retry_after_s=retry_after_s(headers) if passing else None,
    )


def _reason(kind: str, code: str, message: str, status: int) -> Reason:
    if code.endswith("_spend_limit_reached") or _SPENT.search(message):
        return Reason.PROVIDER_QUOTA_EXHAUSTED  # told with status 400, 402 or 429
    reason = _BY_TYPE.get(kind) or _BY_STATUS.get(status)
    if reason is None:
        return Reason.PROVIDER_INVALID_REQUEST if 400 <= status < 500 else Reason.PROVIDER_ERROR
    if reason is Reason.PROVIDER_INVALID_REQUEST and _TOO_LONG.search(message):
        return Reason.CONTEXT_TOO_LONG
    if kind in _GENERAL:
        return _BY_STATUS.get(status, reason)
    return reason


def _sentence(reason: Reason, status: int, message: object) -> str:
    if reason is Reason.PROVIDER_AUTHENTICATION:
        return "Anthropic refused the API key that the mesh has for it; its operator must set a valid one."
    answered = "Anthropic broke off its answer" if status == 200 else f"Anthropic answered {status}"
    return f"{answered}: {provider_said(message, 'it gave no reason.')}"


def _word(value: object) -> str:
    return value[:100] if isinstance(value, str) else ""
