"""Errors on HTTP: which status an error has, and its body by RFC 9457 where no SDK asks for another form."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import grpc
from modelmuxer.accounting.v1.accounting_pb2 import BudgetRefusal, CeilingScope, CeilingUnit

from shared.errors import MeshError, Reason

# Reasons whose HTTP status says more than that of their gRPC code.
_BY_REASON: dict[str, int] = {
    Reason.REQUEST_TOO_LARGE: 413,
    Reason.BUDGET_EXCEEDED: 402,
    Reason.CACHE_MISS: 504,  # RFC 9111 5.2.1.7: only-if-cached without an answer
    Reason.JOURNAL_FULL: 503,
    Reason.PROVIDER_AUTHENTICATION: 502,
    Reason.PROVIDER_PERMISSION: 502,
    Reason.PROVIDER_NOT_FOUND: 502,
    Reason.PROVIDER_ERROR: 502,
    Reason.PROVIDER_UNREACHABLE: 502,
    Reason.PROVIDER_STREAM_CUT: 502,
    Reason.PROVIDER_MALFORMED_ANSWER: 502,
}

_BY_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.UNIMPLEMENTED: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


def http_status(error: MeshError) -> int:
    """Returns the HTTP status of an error."""
    return _BY_REASON.get(error.reason) or _BY_CODE.get(error.code, 500)


def problem_members(error: MeshError, request_id: str) -> dict[str, Any]:
    """Returns the members of an RFC 9457 problem."""
    status = http_status(error)
    members = {
        "type": f"urn:modelmuxer:error:{error.reason.lower().replace('_', '-')}",
        "title": _title(status),
        "status": status,
        "detail": error.message,
        "instance": f"urn:modelmuxer:request:{request_id}",
    }
    if refusal := budget_members(error):
        members["budget"] = refusal
    return members


def budget_members(error: MeshError) -> dict[str, Any]:
    """What is known of a ceiling that had no room, as JSON; empty for other errors."""
    refusal = error.detail(BudgetRefusal)
    if refusal is None:
        return {}
    return {
        "scope": CeilingScope.Name(refusal.scope).removeprefix("CEILING_SCOPE_").lower(),
        "subject": refusal.subject,
        "id": refusal.ceiling,
        "unit": CeilingUnit.Name(refusal.unit).removeprefix("CEILING_UNIT_").lower(),
        "limit": refusal.limit,
        "spent": refusal.spent,
        "held": refusal.held,
        "estimate": refusal.estimate,
        "resets_at": refusal.reset_time.ToJsonString() if refusal.HasField("reset_time") else None,
        "alternatives": [{"model": each.model, "estimate": each.estimate_nanos} for each in refusal.alternatives],
    }


def _title(status: int) -> str:
    return "Client Closed Request" if status == 499 else HTTPStatus(status).phrase
