"""Errors as callers of Anthropic's Messages form read them. HTTP statuses are the face's."""

from __future__ import annotations

import grpc
import orjson

from shared.errors import MeshError, Reason
from shared.wire.json_text import JsonObject

_BY_REASON: dict[str, str] = {
    Reason.REQUEST_TOO_LARGE: "request_too_large",
    Reason.PROVIDER_QUOTA_EXHAUSTED: "billing_error",
    Reason.PROVIDER_OVERLOADED: "overloaded_error",
    Reason.CONCURRENCY_LIMIT: "overloaded_error",
    Reason.PROVIDER_TIMEOUT: "timeout_error",
}
_BY_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: "invalid_request_error",
    grpc.StatusCode.OUT_OF_RANGE: "invalid_request_error",
    grpc.StatusCode.UNAUTHENTICATED: "authentication_error",
    grpc.StatusCode.PERMISSION_DENIED: "permission_error",
    grpc.StatusCode.NOT_FOUND: "not_found_error",
    grpc.StatusCode.ALREADY_EXISTS: "conflict_error",
    grpc.StatusCode.ABORTED: "conflict_error",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "rate_limit_error",
    grpc.StatusCode.DEADLINE_EXCEEDED: "timeout_error",
}


def render_error(error: MeshError, request_id: str = "") -> JsonObject:
    """The body of an error. `details.error_code` is the mesh's reason, where the SDKs look for one."""
    return {
        "type": "error",
        "error": {
            "type": error_type(error),
            "message": error.message,
            "details": {"error_code": error.reason.lower()},
        },
        "request_id": request_id or None,
    }


def error_type(error: MeshError) -> str:
    """The type of an error in this format's words. Spent money is billing, whatever ran out of it."""
    if "BUDGET" in error.reason:
        return "billing_error"
    return _BY_REASON.get(error.reason) or _BY_CODE.get(error.code, "api_error")


def error_frame(error: MeshError, request_id: str = "") -> bytes:
    """The event that ends a stream by an error."""
    return b"event: error\ndata: " + orjson.dumps(render_error(error, request_id)) + b"\n\n"
