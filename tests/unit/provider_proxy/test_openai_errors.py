"""Every documented error of chat completions has its reason, says whether another try helps, and how long to wait."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelmuxer.provider.v1.provider_pb2 import AttemptFailure

from services.provider_proxy.adapters import retry_after_s
from services.provider_proxy.adapters.openai_errors import go_duration_s
from shared.errors import MeshError, Reason
from tests.unit.provider_proxy import examples


def answered(status: int, body: Any = None, **headers: str) -> MeshError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return examples.adapter().error(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def failure(error: MeshError) -> AttemptFailure:
    found = error.detail(AttemptFailure)
    assert found is not None
    return found


def openai_error(code: str | None, kind: str = "invalid_request_error", message: str = "No.") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


@pytest.mark.parametrize(
    ("status", "body", "reason", "retryable"),
    [
        (400, openai_error(None), Reason.PROVIDER_INVALID_REQUEST, False),
        (400, openai_error("context_length_exceeded"), Reason.CONTEXT_TOO_LONG, False),
        (400, openai_error("content_policy_violation"), Reason.CONTENT_POLICY, False),
        (400, openai_error("invalid_prompt"), Reason.CONTENT_POLICY, False),
        (401, openai_error("invalid_api_key"), Reason.PROVIDER_AUTHENTICATION, False),
        (403, openai_error("unsupported_country_region_territory"), Reason.PROVIDER_PERMISSION, False),
        (404, openai_error("model_not_found"), Reason.PROVIDER_NOT_FOUND, False),
        (408, None, Reason.PROVIDER_TIMEOUT, True),
        (409, openai_error(None), Reason.PROVIDER_ERROR, True),
        (413, None, Reason.REQUEST_TOO_LARGE, False),
        (422, {"detail": [{"loc": ["body", "top_k"], "msg": "extra"}]}, Reason.PROVIDER_INVALID_REQUEST, False),
        (429, openai_error("rate_limit_exceeded", "requests"), Reason.PROVIDER_RATE_LIMITED, True),
        (429, openai_error("slow_down"), Reason.PROVIDER_RATE_LIMITED, True),
        (429, openai_error("insufficient_quota", "insufficient_quota"), Reason.PROVIDER_QUOTA_EXHAUSTED, False),
        (429, openai_error(None, "insufficient_quota"), Reason.PROVIDER_QUOTA_EXHAUSTED, False),
        (429, openai_error("credit_balance_exhausted"), Reason.PROVIDER_QUOTA_EXHAUSTED, False),
        (429, openai_error("project_spend_limit_exceeded"), Reason.PROVIDER_QUOTA_EXHAUSTED, False),
        (402, {"error": {"message": "Insufficient Balance"}}, Reason.PROVIDER_QUOTA_EXHAUSTED, False),
        (498, None, Reason.PROVIDER_OVERLOADED, True),
        (500, openai_error(None, "server_error"), Reason.PROVIDER_ERROR, True),
        (502, b"<html>Bad Gateway</html>", Reason.PROVIDER_ERROR, True),
        (503, openai_error("server_is_overloaded", "server_error"), Reason.PROVIDER_OVERLOADED, True),
        (503, b"", Reason.PROVIDER_OVERLOADED, True),
        (504, None, Reason.PROVIDER_TIMEOUT, True),
        (529, None, Reason.PROVIDER_OVERLOADED, True),
        (302, b"", Reason.PROVIDER_ERROR, True),
        # Mistral, vLLM
        (
            400,
            {"object": "error", "message": "Invalid model: x", "type": "invalid_model"},
            Reason.PROVIDER_NOT_FOUND,
            False,
        ),
        (
            400,
            {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400},
            Reason.CONTEXT_TOO_LONG,
            False,
        ),
        # xAI
        (400, {"code": "Client specified an invalid argument", "error": "No."}, Reason.PROVIDER_INVALID_REQUEST, False),
        # OpenRouter: flagged by moderation
        (
            403,
            {"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["x"]}}},
            Reason.CONTENT_POLICY,
            False,
        ),
        # Groq: the model's own mistake
        (400, openai_error("tool_use_failed"), Reason.PROVIDER_MALFORMED_ANSWER, True),
        # Gemini's compatible endpoint
        (
            404,
            [{"error": {"code": 404, "message": "not found", "status": "NOT_FOUND"}}],
            Reason.PROVIDER_NOT_FOUND,
            False,
        ),
    ],
)
def test_documented_errors(status: int, body: Any, reason: Reason, retryable: bool) -> None:
    error = answered(status, body, x_request_id="req_1")
    assert error.reason == reason
    detail = failure(error)
    assert (detail.http_status, detail.retryable, detail.provider_request_id) == (status, retryable, "req_1")


def test_the_message_is_the_providers_own_but_bounded() -> None:
    error = answered(400, openai_error("x", message="Unknown parameter: 'foo'."))
    assert error.message == "openai answered 400: Unknown parameter: 'foo'."
    assert failure(error).provider_code == "x"
    assert len(answered(400, openai_error("x", message="y" * 100_000)).message) < 1100


def test_words_about_our_key_stay_here() -> None:
    error = answered(401, openai_error("invalid_api_key", message="Incorrect API key provided: sk-ab***yz."))
    assert "sk-" not in error.message
    assert "sk-" not in str(error.to_status())


def test_how_long_to_wait() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for headers, expected in (
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"Retry-After": "2.5"}, 2.5),
        ({"retry-after": format_datetime(now + timedelta(seconds=30), usegmt=True)}, 30.0),
        ({"retry-after": format_datetime(now - timedelta(seconds=30), usegmt=True)}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ):
        assert retry_after_s(headers, now) == expected


def test_rate_limit_headers_are_the_fallback() -> None:
    exhausted = {
        "x_ratelimit_remaining_requests": "0",
        "x_ratelimit_reset_requests": "6m0s",
        "x_ratelimit_remaining_tokens": "10",
        "x_ratelimit_reset_tokens": "9h",
    }
    limited = openai_error("rate_limit_exceeded")
    assert answered(429, limited, **exhausted).retry_after_s == 360
    assert answered(429, limited, **exhausted, retry_after="1").retry_after_s == 1
    assert answered(429, openai_error("insufficient_quota"), **exhausted).retry_after_s is None
    assert answered(400, openai_error(None), retry_after="1").retry_after_s is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("17ms", 0.017),
        ("1h2m3.5s", 3723.5),
        ("12µs", 12e-6),
        ("", None),
        ("1", None),
        ("1d", None),
    ],
)
def test_go_durations(text: str, seconds: float | None) -> None:
    assert go_duration_s(text) == pytest.approx(seconds)


@given(
    st.integers(300, 599),
    st.binary(max_size=80) | st.text(max_size=20).map(lambda t: json.dumps({"error": t}).encode()),
)
def test_any_error_answer_is_a_mesh_error(status: int, body: bytes) -> None:
    error = examples.adapter().error(status, {}, body)
    assert isinstance(error.reason, Reason)
    assert failure(error).http_status == status
