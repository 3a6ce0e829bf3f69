"""The error that leaves a service: a reason from a closed list, one sentence, and google.rpc details.

Handlers raise MeshError; the errors interceptor turns it into a gRPC status, and the HTTP face into a body that its
SDKs parse. What a reason is called over HTTP is the face's business.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

DOMAIN = "modelmuxer"
STATUS_KEY = "grpc-status-details-bin"
MAX_MESSAGE_CHARS = 1_500
MAX_STATUS_BYTES = 6_000  # clients refuse more than 8 KiB of trailing metadata unless told otherwise

M = TypeVar("M", bound=Message)


class Reason(StrEnum):
    """Why a call failed: the `reason` of its ErrorInfo, and the gRPC code that goes with it."""

    code: StatusCode

    def __new__(cls, value: str, code: StatusCode) -> "Reason":
        reason = str.__new__(cls, value)
        reason._value_ = value
        reason.code = code
        return reason

    # What the caller asked for
    MALFORMED_REQUEST = "MALFORMED_REQUEST", StatusCode.INVALID_ARGUMENT
    UNSUPPORTED_FEATURE = "UNSUPPORTED_FEATURE", StatusCode.INVALID_ARGUMENT
    CONTEXT_TOO_LONG = "CONTEXT_TOO_LONG", StatusCode.INVALID_ARGUMENT
    REQUEST_TOO_LARGE = "REQUEST_TOO_LARGE", StatusCode.INVALID_ARGUMENT
    UNKNOWN_MODEL = "UNKNOWN_MODEL", StatusCode.NOT_FOUND
    UNPRICED_MODEL = "UNPRICED_MODEL", StatusCode.FAILED_PRECONDITION
    NO_PROVIDER_KEY = "NO_PROVIDER_KEY", StatusCode.FAILED_PRECONDITION
    OPERATION_MISMATCH = "OPERATION_MISMATCH", StatusCode.ALREADY_EXISTS
    CACHE_MISS = "CACHE_MISS", StatusCode.NOT_FOUND
    NOT_SERVED = "NOT_SERVED", StatusCode.NOT_FOUND  # an endpoint that we do not have
    CONTENT_POLICY = "CONTENT_POLICY", StatusCode.PERMISSION_DENIED
    # Ceilings
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED", StatusCode.RESOURCE_EXHAUSTED
    RATE_LIMITED = "RATE_LIMITED", StatusCode.RESOURCE_EXHAUSTED
    POLICY_EXISTS = "POLICY_EXISTS", StatusCode.ALREADY_EXISTS
    LEASE_LOST = "LEASE_LOST", StatusCode.NOT_FOUND
    LEASE_EXPIRED = "LEASE_EXPIRED", StatusCode.UNAVAILABLE
    UNKNOWN_CEILING = "UNKNOWN_CEILING", StatusCode.NOT_FOUND
    # Who asked
    MISSING_KEY = "MISSING_KEY", StatusCode.UNAUTHENTICATED
    INVALID_KEY = "INVALID_KEY", StatusCode.UNAUTHENTICATED
    KEY_NOT_ALLOWED = "KEY_NOT_ALLOWED", StatusCode.PERMISSION_DENIED
    MESH_TOKEN = "MESH_TOKEN", StatusCode.UNAUTHENTICATED
    # The mesh itself
    CONCURRENCY_LIMIT = "CONCURRENCY_LIMIT", StatusCode.UNAVAILABLE
    JOURNAL_FULL = "JOURNAL_FULL", StatusCode.UNAVAILABLE
    ACCOUNTING_UNAVAILABLE = "ACCOUNTING_UNAVAILABLE", StatusCode.UNAVAILABLE
    PROVIDER_PROXY_UNAVAILABLE = "PROVIDER_PROXY_UNAVAILABLE", StatusCode.UNAVAILABLE
    CACHE_UNAVAILABLE = "CACHE_UNAVAILABLE", StatusCode.UNAVAILABLE
    FLIGHT_LOST = "FLIGHT_LOST", StatusCode.UNAVAILABLE  # what was followed ended without an answer
    SHUTTING_DOWN = "SHUTTING_DOWN", StatusCode.UNAVAILABLE
    UNAVAILABLE = "UNAVAILABLE", StatusCode.UNAVAILABLE
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED", StatusCode.DEADLINE_EXCEEDED
    CANCELLED = "CANCELLED", StatusCode.CANCELLED
    INTERNAL = "INTERNAL", StatusCode.INTERNAL
    # The provider
    PROVIDER_INVALID_REQUEST = "PROVIDER_INVALID_REQUEST", StatusCode.INVALID_ARGUMENT
    PROVIDER_AUTHENTICATION = "PROVIDER_AUTHENTICATION", StatusCode.FAILED_PRECONDITION  # our key, not the caller's
    PROVIDER_PERMISSION = "PROVIDER_PERMISSION", StatusCode.FAILED_PRECONDITION
    PROVIDER_NOT_FOUND = "PROVIDER_NOT_FOUND", StatusCode.NOT_FOUND
    PROVIDER_RATE_LIMITED = "PROVIDER_RATE_LIMITED", StatusCode.RESOURCE_EXHAUSTED
    PROVIDER_QUOTA_EXHAUSTED = "PROVIDER_QUOTA_EXHAUSTED", StatusCode.RESOURCE_EXHAUSTED
    PROVIDER_OVERLOADED = "PROVIDER_OVERLOADED", StatusCode.UNAVAILABLE
    PROVIDER_ERROR = "PROVIDER_ERROR", StatusCode.UNAVAILABLE
    PROVIDER_TIMEOUT = "PROVIDER_TIMEOUT", StatusCode.UNAVAILABLE
    PROVIDER_UNREACHABLE = "PROVIDER_UNREACHABLE", StatusCode.UNAVAILABLE
    PROVIDER_STREAM_CUT = "PROVIDER_STREAM_CUT", StatusCode.UNAVAILABLE
    PROVIDER_MALFORMED_ANSWER = "PROVIDER_MALFORMED_ANSWER", StatusCode.UNAVAILABLE


# Said of a peer that no connection reaches: gRPC's own words carry addresses, which are none of the caller's business.
UNREACHABLE = {
    Reason.ACCOUNTING_UNAVAILABLE: "Accounting cannot be reached at the moment; try again shortly.",
    Reason.PROVIDER_PROXY_UNAVAILABLE: "The provider proxy cannot be reached at the moment; try again shortly.",
    Reason.CACHE_UNAVAILABLE: "The response cache cannot be reached at the moment; try again shortly.",
    Reason.UNAVAILABLE: "A part of the mesh cannot be reached at the moment; try again shortly.",
}


class MeshError(Exception):
    """A failed call. `message` is one sentence for the caller: what is wrong and what to do.

    `field` is the path of the offending request field; `details` are proto messages packed into the status (an
    `Any` that this program cannot read is passed on as it is).
    """

    def __init__(
        self,
        reason: Reason | str,
        message: str,
        *,
        code: StatusCode | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
        details: Sequence[Message] = (),
        field: str | None = None,
    ) -> None:
        super().__init__(message)
        self.reason: str = reason
        self.code: StatusCode = code or (reason.code if isinstance(reason, Reason) else StatusCode.INTERNAL)
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})
        self.retry_after_s = retry_after_s
        self.details: tuple[Message, ...] = tuple(details)
        self.field = field

    def __repr__(self) -> str:
        return f"MeshError({str(self.reason)!r}, {self.message!r})"

    def to_status(self) -> Status:
        """The status as it goes over the wire, details that would not fit left out."""
        message = self.message[:MAX_MESSAGE_CHARS]
        status = Status(code=self.code.value[0], message=message)
        status.details.add().Pack(ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata))
        if self.retry_after_s is not None:
            status.details.add().Pack(RetryInfo(retry_delay=_duration(self.retry_after_s)))
        if self.field is not None:
            violation = BadRequest.FieldViolation(field=self.field, description=message)
            status.details.add().Pack(BadRequest(field_violations=[violation]))
        for detail in self.details:
            packed = detail if isinstance(detail, Any) else _pack(detail)
            if status.ByteSize() + packed.ByteSize() <= MAX_STATUS_BYTES:
                status.details.append(packed)
        return status

    @classmethod
    def from_status(cls, status: Status) -> "MeshError":
        """The error that a status carries; a status without an ErrorInfo gets its code's name as reason."""
        code = _CODES.get(status.code, StatusCode.UNKNOWN)
        error = cls(_reason(code.name), status.message, code=code)
        rest: list[Message] = []
        for packed in status.details:
            if packed.Is(ErrorInfo.DESCRIPTOR) and (info := _unpack(packed, ErrorInfo)):
                error.reason, error.metadata = _reason(info.reason), dict(info.metadata)
            elif packed.Is(RetryInfo.DESCRIPTOR) and (retry := _unpack(packed, RetryInfo)):
                error.retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
            elif packed.Is(BadRequest.DESCRIPTOR) and (bad := _unpack(packed, BadRequest)) and bad.field_violations:
                error.field = bad.field_violations[0].field
            else:
                rest.append(packed)
        error.details = tuple(rest)
        return error

    @classmethod
    def from_rpc(cls, error: grpc.aio.AioRpcError, unreachable: Reason = Reason.UNAVAILABLE) -> "MeshError":
        """The error that a call to another service ended with.

        A bare status (gRPC's own, without details) gets the reason of its code's name; a bare UNAVAILABLE means that no
        connection reached the peer, and becomes `unreachable`.
        """
        for key, value in error.trailing_metadata() or ():
            if key == STATUS_KEY and isinstance(value, bytes):
                try:
                    return cls.from_status(Status.FromString(value))
                except DecodeError:
                    break
        code, message = error.code(), error.details() or ""
        if code is StatusCode.UNAVAILABLE:
            return cls(unreachable, UNREACHABLE[unreachable], retry_after_s=1.0)
        if code is StatusCode.RESOURCE_EXHAUSTED and "larger than max" in message:
            return cls(Reason.REQUEST_TOO_LARGE, message)
        return cls(_reason(code.name), message or f"The call ended with {code.name}.", code=code)

    def detail(self, message_type: type[M]) -> M | None:
        """The first detail of a type, if there is one."""
        for detail in self.details:
            if isinstance(detail, message_type):
                return detail
            if isinstance(detail, Any) and detail.TypeName() == message_type.DESCRIPTOR.full_name:
                return _unpack(detail, message_type)
        return None


_CODES: Mapping[int, StatusCode] = {code.value[0]: code for code in StatusCode}


def _reason(name: str) -> Reason | str:
    """A reason of a newer peer stays the string that it is."""
    return Reason.__members__.get(name, name)


def _pack(message: Message) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed


def _unpack(packed: Any, message_type: type[M]) -> M | None:
    try:
        return message_type.FromString(packed.value)
    except DecodeError:
        return None


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
