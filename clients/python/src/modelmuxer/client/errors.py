"""What a failed call says, read from the details of its gRPC status."""

from __future__ import annotations

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"


class CallError(Exception):
    """A call that failed."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        retry_after_s: float | None = None,
        field: str = "",
        metadata: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        """The gRPC status code."""
        self.message = message
        """A sentence that says what is wrong and what to do."""
        self.reason = reason
        """The reason of the status's google.rpc.ErrorInfo ("UNKNOWN_MODEL"); empty where no service answered."""
        self.retry_after_s = retry_after_s
        """How long to wait before trying again, in seconds, where that helps."""
        self.field = field
        """The request's field that is wrong, where one is."""
        self.metadata = metadata or {}
        """The metadata of the status's google.rpc.ErrorInfo."""

    @classmethod
    def from_rpc(cls, error: grpc.aio.AioRpcError) -> CallError:
        """Reads the error that a generated stub raised."""
        call_error = cls(error.code(), error.details() or error.code().name)
        for key, value in error.trailing_metadata() or ():
            if key == _DETAILS_KEY and isinstance(value, bytes):
                call_error._read(value)
        return call_error

    def _read(self, raw: bytes) -> None:
        try:
            status = status_pb2.Status.FromString(raw)
        except DecodeError:
            return
        for detail in status.details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo.FromString(detail.value)
                self.reason, self.metadata = info.reason, dict(info.metadata)
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
                self.retry_after_s = delay.seconds + delay.nanos / 1e9
            elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                violations = error_details_pb2.BadRequest.FromString(detail.value).field_violations
                self.field = violations[0].field if violations else ""
