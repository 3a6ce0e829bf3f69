"""An error keeps what it says over the wire, and stays within what a caller can receive."""

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.struct_pb2 import Struct
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import MAX_STATUS_BYTES, STATUS_KEY, MeshError, Reason


def rpc_error(
    code: grpc.StatusCode, details: str = "", trailing: tuple[tuple[str, bytes], ...] = ()
) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details)


@given(
    reason=st.sampled_from(Reason),
    message=st.text(max_size=300),
    metadata=st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3),
    retry_after_s=st.none() | st.floats(0, 1e6).map(lambda seconds: round(seconds, 6)),
    field=st.none() | st.text(min_size=1, max_size=30),
)
def test_an_error_survives_the_wire(
    reason: Reason, message: str, metadata: dict[str, str], retry_after_s: float | None, field: str | None
) -> None:
    quota = QuotaFailure(violations=[QuotaFailure.Violation(subject="tenant")])
    sent = MeshError(reason, message, metadata=metadata, retry_after_s=retry_after_s, field=field, details=[quota])
    got = MeshError.from_status(Status.FromString(sent.to_status().SerializeToString()))
    assert (got.reason, got.code, got.message, got.metadata) == (reason, reason.code, message, metadata)
    assert got.retry_after_s == pytest.approx(retry_after_s)
    assert got.field == field
    assert got.detail(QuotaFailure) == quota


def test_the_wire_form_is_googles() -> None:
    status = MeshError(Reason.PROVIDER_OVERLOADED, "Busy.", retry_after_s=1.5, field="model").to_status()
    kinds = [detail.TypeName() for detail in status.details]
    assert kinds == ["google.rpc.ErrorInfo", "google.rpc.RetryInfo", "google.rpc.BadRequest"]
    info, retry, bad = ErrorInfo(), RetryInfo(), BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert status.details[2].Unpack(bad)
    assert (status.code, info.reason, info.domain) == (14, "PROVIDER_OVERLOADED", "modelmuxer")
    assert retry.retry_delay.ToTimedelta().total_seconds() == 1.5
    assert bad.field_violations[0].field == "model"


def test_a_detail_of_an_unknown_type_is_passed_on_as_it_is() -> None:
    unknown = Any(type_url="type.googleapis.com/of.tomorrow.Detail", value=b"\xff\x00")
    first = MeshError(Reason.INTERNAL, "x", details=[unknown])
    second = MeshError.from_status(MeshError.from_status(first.to_status()).to_status())
    assert second.details == (unknown,)


def test_a_reason_of_a_newer_peer_stays_readable() -> None:
    status = MeshError("QUANTUM_FLUX", "x", code=grpc.StatusCode.ABORTED).to_status()
    error = MeshError.from_status(status)
    assert (error.reason, error.code) == ("QUANTUM_FLUX", grpc.StatusCode.ABORTED)


def test_what_would_not_fit_into_a_callers_metadata_is_left_out() -> None:
    huge = Struct()
    huge.update({"text": "x" * 20_000})
    small = RetryInfo()
    error = MeshError(Reason.INTERNAL, "m" * 50_000, details=[huge, small])
    status = error.to_status()
    assert status.ByteSize() <= MAX_STATUS_BYTES
    assert MeshError.from_status(status).reason is Reason.INTERNAL


def test_a_bare_status_becomes_a_reason_by_its_code() -> None:
    deadline = MeshError.from_rpc(rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))
    assert deadline.reason is Reason.DEADLINE_EXCEEDED
    unimplemented = MeshError.from_rpc(rpc_error(grpc.StatusCode.UNIMPLEMENTED, "no"))
    assert (unimplemented.reason, unimplemented.code) == ("UNIMPLEMENTED", grpc.StatusCode.UNIMPLEMENTED)
    large = MeshError.from_rpc(rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, "message larger than max (2 vs. 1)"))
    assert large.reason is Reason.REQUEST_TOO_LARGE


def test_a_peer_that_no_connection_reaches_is_named_without_its_address() -> None:
    error = rpc_error(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses; ipv4:10.0.0.1:50054")
    named = MeshError.from_rpc(error, unreachable=Reason.ACCOUNTING_UNAVAILABLE)
    assert named.reason is Reason.ACCOUNTING_UNAVAILABLE
    assert "10.0.0.1" not in named.message
    assert named.retry_after_s


def test_details_that_cannot_be_read_leave_the_bare_status() -> None:
    error = rpc_error(grpc.StatusCode.INTERNAL, "x", ((STATUS_KEY, b"\xff\xff"),))
    assert MeshError.from_rpc(error).reason is Reason.INTERNAL


def test_every_reason_has_a_code_that_is_an_error() -> None:
    assert {reason.code for reason in Reason} <= set(grpc.StatusCode) - {grpc.StatusCode.OK}
    assert all(reason == reason.name for reason in Reason)
