"""Gemini's generateContent, streamed and whole, countTokens and batchEmbedContents: endpoints, headers and errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import orjson
from modelmuxer.chat.v1.chat_pb2 import ChatRequest, ChatResponse
from modelmuxer.embedding.v1.embedding_pb2 import EmbedRequest
from modelmuxer.provider.v1.provider_pb2 import EmbedResponse

from services.provider_proxy.adapters import (
    Decoder,
    JsonObject,
    UpstreamRequest,
    as_count,
    gemini_embeddings,
    header,
    json_headers,
    malformed,
    parse_object,
    plain_headers,
    provider_failure,
    provider_said,
    retry_after_s,
)
from services.provider_proxy.adapters.gemini_answer import GeminiDecoder, whole_answer
from services.provider_proxy.adapters.gemini_request import FORMAT, GeminiRequest
from shared.catalogue import Deployment
from shared.errors import MeshError, Reason

TIER_HEADER: Final = "x-gemini-service-tier"  # the tier that was used, which may not be the one asked for

_BY_REASON: Final = {
    "API_KEY_INVALID": Reason.PROVIDER_AUTHENTICATION,  # told with status 400
    "API_KEY_EXPIRED": Reason.PROVIDER_AUTHENTICATION,
    "API_KEY_SERVICE_BLOCKED": Reason.PROVIDER_PERMISSION,
    "BILLING_DISABLED": Reason.PROVIDER_QUOTA_EXHAUSTED,
}
_BY_CODE: Final = {
    "INVALID_ARGUMENT": Reason.PROVIDER_INVALID_REQUEST,
    "OUT_OF_RANGE": Reason.PROVIDER_INVALID_REQUEST,
    "FAILED_PRECONDITION": Reason.PROVIDER_PERMISSION,  # the account's country or plan
    "UNAUTHENTICATED": Reason.PROVIDER_AUTHENTICATION,
    "PERMISSION_DENIED": Reason.PROVIDER_PERMISSION,
    "NOT_FOUND": Reason.PROVIDER_NOT_FOUND,
    "RESOURCE_EXHAUSTED": Reason.PROVIDER_RATE_LIMITED,
    "INTERNAL": Reason.PROVIDER_ERROR,
    "ABORTED": Reason.PROVIDER_ERROR,
    "UNKNOWN": Reason.PROVIDER_ERROR,
    "CANCELLED": Reason.PROVIDER_ERROR,
    "UNAVAILABLE": Reason.PROVIDER_OVERLOADED,
    "DEADLINE_EXCEEDED": Reason.PROVIDER_TIMEOUT,
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
    499: Reason.PROVIDER_ERROR,
    503: Reason.PROVIDER_OVERLOADED,
    504: Reason.PROVIDER_TIMEOUT,
}
# What another try on the same deployment may cure.
_PASSING: Final = frozenset(
    {Reason.PROVIDER_RATE_LIMITED, Reason.PROVIDER_OVERLOADED, Reason.PROVIDER_ERROR, Reason.PROVIDER_TIMEOUT}
)
_TOO_LONG: Final = re.compile(r"exceeds the maximum number of (input )?tokens|input token count", re.IGNORECASE)
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)s")  # google.protobuf.Duration in JSON


class GeminiAdapter:
    """generateContent."""

    format: Final = FORMAT

    def request(
        self, chat: ChatRequest, deployment: Deployment, key: str, *, stream: bool, attempt_id: str
    ) -> UpstreamRequest:
        """POST models/{model}:generateContent or :streamGenerateContent. Raises UNSUPPORTED_FEATURE."""
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        body = GeminiRequest(chat, deployment.upstream_model).body()
        return _post(deployment, method, body, json_headers(chat, attempt_id, _key(key)))

    def count_tokens_request(self, chat: ChatRequest, deployment: Deployment, key: str) -> UpstreamRequest:
        """POST models/{model}:countTokens."""
        whole = GeminiRequest(chat, deployment.upstream_model).body()
        body = {"generateContentRequest": {"model": f"models/{deployment.upstream_model}", **whole}}
        return _post(deployment, "countTokens", body, json_headers(chat, "", _key(key)))

    def counted(self, body: bytes) -> int:
        """Input tokens of a count."""
        tokens = as_count(parse_object(body).get("totalTokens", 0))  # 0 is left out in proto JSON
        if tokens is None:
            raise malformed("it has no totalTokens")
        return tokens

    def embed_request(
        self, request: EmbedRequest, deployment: Deployment, key: str, *, attempt_id: str
    ) -> UpstreamRequest:
        """POST models/{model}:batchEmbedContents. Raises UNSUPPORTED_FEATURE."""
        body = gemini_embeddings.body(request, deployment.upstream_model)
        return _post(deployment, gemini_embeddings.METHOD, body, plain_headers(attempt_id, _key(key)))

    def embeddings(self, body: bytes, inputs: int) -> EmbedResponse:
        """A list of embeddings."""
        return gemini_embeddings.answer(body, inputs)

    def decoder(self, chat: ChatRequest, headers: Mapping[str, str] | None = None) -> Decoder:
        """A decoder of chunks."""
        return GeminiDecoder(_broken_off, header(headers or {}, TIER_HEADER))

    def response(self, status: int, headers: Mapping[str, str], body: bytes) -> ChatResponse:
        """A whole answer."""
        return whole_answer(body, _broken_off, header(headers, TIER_HEADER))

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> MeshError:
        """An error answer."""
        return _failure(_said(body), status, headers)


def _key(key: str) -> dict[str, str]:
    return {"x-goog-api-key": key}


def _post(deployment: Deployment, method: str, body: JsonObject, headers: dict[str, str]) -> UpstreamRequest:
    return UpstreamRequest(
        method="POST",
        url=f"{deployment.base_url}/v1beta/models/{quote(deployment.upstream_model, safe='')}:{method}",
        headers=headers,
        body=orjson.dumps(body),
    )


def _said(body: bytes) -> JsonObject:
    """The `error` of an error body, which comes in a list where a stream was asked for."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if isinstance(answer, list) and answer:
        answer = answer[0]
    error = answer.get("error") if isinstance(answer, dict) else None
    return error if isinstance(error, dict) else {}


def _broken_off(error: JsonObject) -> MeshError:
    """An error in place of a chunk, after status 200."""
    return _failure(error, 200, {})


def _failure(error: JsonObject, status: int, headers: Mapping[str, str]) -> MeshError:
    details = _details(error)
    code = _word(error.get("status"))
    cause = _word(details.get("ErrorInfo", {}).get("reason"))
    message = error.get("message")
    reason = _reason(code, cause, message if isinstance(message, str) else "", details, status)
    passing = reason in _PASSING
    return provider_failure(
        reason,
        _sentence(reason, status, message),
        retryable=passing,
        http_status=status,
        provider_code=cause or code,
        provider_request_id=header(headers, "x-request-id"),
        retry_after_s=_retry_delay_s(details) or retry_after_s(headers) if passing else None,
    )


def _details(error: JsonObject) -> dict[str, JsonObject]:
    """google.rpc details by the name of their type."""
    details = error.get("details")
    if not isinstance(details, list):
        return {}
    typed = (detail for detail in details if isinstance(detail, dict) and isinstance(detail.get("@type"), str))
    return {detail["@type"].rpartition(".")[2]: detail for detail in typed}


def _reason(code: str, cause: str, message: str, details: dict[str, JsonObject], status: int) -> Reason:
    if cause in _BY_REASON:
        return _BY_REASON[cause]
    reason = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if reason is None:
        return Reason.PROVIDER_INVALID_REQUEST if 400 <= status < 500 else Reason.PROVIDER_ERROR
    if reason is Reason.PROVIDER_INVALID_REQUEST and _TOO_LONG.search(message):
        return Reason.CONTEXT_TOO_LONG
    if reason is Reason.PROVIDER_RATE_LIMITED and _is_spent(details.get("QuotaFailure", {})):
        return Reason.PROVIDER_QUOTA_EXHAUSTED
    return reason


def _is_spent(failure: JsonObject) -> bool:
    """A quota of a day, or of nothing at all, is not back within a call's patience."""
    violations: Any = failure.get("violations")
    if not isinstance(violations, list):
        return False
    return any(
        isinstance(violation, dict)
        and ("PerDay" in str(violation.get("quotaId")) or str(violation.get("quotaValue")) == "0")
        for violation in violations
    )


def _retry_delay_s(details: dict[str, JsonObject]) -> float | None:
    match = _DURATION.fullmatch(str(details.get("RetryInfo", {}).get("retryDelay")))
    return float(match[1]) if match else None


def _sentence(reason: Reason, status: int, message: object) -> str:
    if reason is Reason.PROVIDER_AUTHENTICATION:
        return "Gemini refused the API key that the mesh has for it; its operator must set a valid one."
    answered = "Gemini broke off its answer" if status == 200 else f"Gemini answered {status}"
    return f"{answered}: {provider_said(message, 'it gave no reason.')}"


def _word(value: object) -> str:
    return value[:100] if isinstance(value, str) else ""
