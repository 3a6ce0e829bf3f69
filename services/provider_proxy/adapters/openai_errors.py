"""Errors of chat completions and of the servers that speak it, as reasons.

Codes and types are those of OpenAI's error guide; shapes are OpenAI's `{"error": {…}}`, vLLM's and Mistral's flat
`{"object": "error", …}`, xAI's `{"code": …, "error": "…"}` and FastAPI's `{"detail": …}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from services.provider_proxy.adapters import JsonObject, header, provider_failure, provider_said, retry_after_s
from shared.errors import MeshError, Reason

_BY_CODE: Final = {
    "insufficient_quota": Reason.PROVIDER_QUOTA_EXHAUSTED,
    "credit_balance_exhausted": Reason.PROVIDER_QUOTA_EXHAUSTED,
    "billing_hard_limit_reached": Reason.PROVIDER_QUOTA_EXHAUSTED,
    "billing_not_active": Reason.PROVIDER_QUOTA_EXHAUSTED,
    "context_length_exceeded": Reason.CONTEXT_TOO_LONG,
    "content_policy_violation": Reason.CONTENT_POLICY,
    "content_filter": Reason.CONTENT_POLICY,
    "invalid_prompt": Reason.CONTENT_POLICY,
    "moderation_blocked": Reason.CONTENT_POLICY,
    "invalid_api_key": Reason.PROVIDER_AUTHENTICATION,
    "model_not_found": Reason.PROVIDER_NOT_FOUND,
    "invalid_model": Reason.PROVIDER_NOT_FOUND,
    "rate_limit_exceeded": Reason.PROVIDER_RATE_LIMITED,
    "slow_down": Reason.PROVIDER_RATE_LIMITED,
    "server_is_overloaded": Reason.PROVIDER_OVERLOADED,
    "overloaded_error": Reason.PROVIDER_OVERLOADED,
    "server_error": Reason.PROVIDER_ERROR,
    # Groq: what the model wrote fits neither the tools nor the schema. Another try may.
    "tool_use_failed": Reason.PROVIDER_MALFORMED_ANSWER,
    "json_validate_failed": Reason.PROVIDER_MALFORMED_ANSWER,
}
_BY_STATUS: Final = {
    400: Reason.PROVIDER_INVALID_REQUEST,
    401: Reason.PROVIDER_AUTHENTICATION,
    402: Reason.PROVIDER_QUOTA_EXHAUSTED,
    403: Reason.PROVIDER_PERMISSION,
    404: Reason.PROVIDER_NOT_FOUND,
    405: Reason.PROVIDER_NOT_FOUND,
    408: Reason.PROVIDER_TIMEOUT,
    409: Reason.PROVIDER_ERROR,
    413: Reason.REQUEST_TOO_LARGE,
    422: Reason.PROVIDER_INVALID_REQUEST,
    425: Reason.PROVIDER_ERROR,
    429: Reason.PROVIDER_RATE_LIMITED,
    498: Reason.PROVIDER_OVERLOADED,  # Groq: no flex capacity
    503: Reason.PROVIDER_OVERLOADED,
    504: Reason.PROVIDER_TIMEOUT,
    529: Reason.PROVIDER_OVERLOADED,
}
# What another try on the same deployment may cure; the rest wants another request, key or account.
_PASSING: Final = frozenset(
    {
        Reason.PROVIDER_RATE_LIMITED,
        Reason.PROVIDER_OVERLOADED,
        Reason.PROVIDER_ERROR,
        Reason.PROVIDER_TIMEOUT,
        Reason.PROVIDER_MALFORMED_ANSWER,
    }
)
_TOO_LONG: Final = re.compile(
    r"context[ _](length|window)|maximum (context|prompt) length|too many tokens|prompt is too long|too large for model"
    r"|exceeds? the (model'?s )?(maximum|max) (context|number of tokens)",
    re.IGNORECASE,
)
_GO_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:h|ms|m|s|us|µs|ns))+")
_GO_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")
_GO_UNIT_S: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


@dataclass(frozen=True, slots=True)
class OpenAIErrors:
    """Errors of one server; `provider` is its name for messages."""

    provider: str

    def answered(self, status: int, headers: Mapping[str, str], body: bytes) -> MeshError:
        """An answer whose status is not 200."""
        said = _Said.of(_lenient_json(body))
        reason = self._reason(status, said)
        return provider_failure(
            reason,
            self._message(reason, status, said),
            retryable=reason in _PASSING or header(headers, "x-should-retry") == "true",
            http_status=status,
            provider_code=said.code,
            provider_request_id=header(headers, "x-request-id"),
            retry_after_s=retry_after_s(headers) or _exhausted_s(headers) if reason in _PASSING else None,
        )

    def in_stream(self, chunk: JsonObject) -> MeshError:
        """An error event after status 200."""
        said = _Said.of(chunk)
        status = int(said.code) if re.fullmatch(r"[45]\d\d", said.code) else 500
        reason = self._reason(status, said)
        return provider_failure(
            reason,
            self._message(reason, 0, said),
            retryable=reason in _PASSING,
            http_status=200,
            provider_code=said.code,
        )

    def ended_with(self, finish_reason: str) -> MeshError:
        """A generation that broke and says so in its finish reason."""
        overloaded = finish_reason == "insufficient_system_resource"
        return provider_failure(
            Reason.PROVIDER_OVERLOADED if overloaded else Reason.PROVIDER_ERROR,
            f'{self.provider} broke off its answer with the finish reason "{finish_reason}".',
            retryable=True,
            http_status=200,
            provider_code=finish_reason,
        )

    def _reason(self, status: int, said: _Said) -> Reason:
        for word in (said.code, said.type):
            if word in _BY_CODE:
                return _BY_CODE[word]
            if word.endswith("_spend_limit_exceeded"):
                return Reason.PROVIDER_QUOTA_EXHAUSTED
        if status in (400, 413, 422) and _TOO_LONG.search(said.message):
            return Reason.CONTEXT_TOO_LONG
        if status == 403 and said.moderated:
            return Reason.CONTENT_POLICY
        if status in _BY_STATUS:
            return _BY_STATUS[status]
        if 400 <= status < 500:
            return Reason.PROVIDER_INVALID_REQUEST
        return Reason.PROVIDER_ERROR

    def _message(self, reason: Reason, status: int, said: _Said) -> str:
        answered = f"{self.provider} answered {status}" if status else f"{self.provider} broke off its answer"
        if reason is Reason.PROVIDER_AUTHENTICATION:
            # Its words may quote a part of the key.
            return f"{self.provider} refused the API key that the mesh has for it; its operator must set a valid one."
        return f"{answered}: {provider_said(said.message, 'it gave no reason.')}"


@dataclass(frozen=True, slots=True)
class _Said:
    """What an error body says, whichever shape it has."""

    code: str = ""
    type: str = ""
    message: str = ""
    moderated: bool = False

    @classmethod
    def of(cls, answer: object) -> _Said:
        if isinstance(answer, list) and answer:
            answer = answer[0]
        if isinstance(answer, str):
            return cls(message=answer)
        if not isinstance(answer, dict):
            return cls()
        error = answer.get("error")
        if isinstance(error, str):
            return cls(code=_word(answer.get("code")), message=error)
        if not isinstance(error, dict):
            error = answer
        metadata = error.get("metadata")
        return cls(
            code=_word(error.get("code")) or _word(error.get("type")),
            type=_word(error.get("type")),
            message=_sentence(error.get("message") or error.get("detail")),
            moderated=isinstance(metadata, dict) and "reasons" in metadata,  # OpenRouter's moderation
        )


def _word(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value)[:100]


def _sentence(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        return orjson.dumps(value).decode()
    return ""


def _lenient_json(body: bytes) -> Any:
    """An error body may be anything: a gateway's HTML page says nothing that helps a caller."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _exhausted_s(headers: Mapping[str, str]) -> float | None:
    """When the limit that ran out is whole again, by the rate-limit headers."""
    waits = [
        go_duration_s(header(headers, f"x-ratelimit-reset-{kind}"))
        for kind in ("requests", "tokens")
        if header(headers, f"x-ratelimit-remaining-{kind}") == "0"
    ]
    return max((wait for wait in waits if wait is not None), default=None)


def go_duration_s(text: str) -> float | None:
    """Seconds in a Go duration ("6m0s", "17ms"); None if it is none."""
    text = text.strip()
    if not _GO_DURATION.fullmatch(text):
        return None
    return sum(float(number) * _GO_UNIT_S[unit] for number, unit in _GO_PART.findall(text))
