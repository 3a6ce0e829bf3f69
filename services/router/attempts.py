"""One upstream call through the provider proxy: who pays for it, what came of it, what it cost.

An attempt knows nothing of other attempts; whether another one follows is the engine's decision.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from google.protobuf.duration_pb2 import Duration
from modelmuxer.accounting.v1.accounting_pb2 import BillingContext, JournalRecord, Outcome
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.chat.v1.chat_pb2 import (
    BlockDelta,
    ChatEvent,
    ChatRequest,
    ChatResponse,
    Completed,
    Cost,
    Started,
    Usage,
)
from modelmuxer.provider.v1.provider_pb2 import AttemptFailure, GenerateRequest

from services.router.call import Call, mint_attempt_id
from shared.catalogue import Model
from shared.errors import MeshError, Reason
from shared.journal import Journal
from shared.pricing import cost_nanos, estimate_nanos

if TYPE_CHECKING:
    from modelmuxer.provider.v1.provider_pb2_grpc import ProviderServiceAsyncStub

    from services.router.leases import Reservation

# Failures of one provider or model that say nothing of another: worth another model, not another try.
ELSEWHERE = frozenset(
    {
        Reason.UNSUPPORTED_FEATURE,
        Reason.CONTEXT_TOO_LONG,
        Reason.NO_PROVIDER_KEY,
        Reason.PROVIDER_AUTHENTICATION,
        Reason.PROVIDER_PERMISSION,
        Reason.PROVIDER_NOT_FOUND,
        Reason.PROVIDER_QUOTA_EXHAUSTED,
    }
)
# Failures that every model of the provider would meet.
PROVIDER_WIDE = frozenset(
    {
        Reason.NO_PROVIDER_KEY,
        Reason.PROVIDER_AUTHENTICATION,
        Reason.PROVIDER_PERMISSION,
        Reason.PROVIDER_QUOTA_EXHAUSTED,
        Reason.PROVIDER_UNREACHABLE,
    }
)
# The caller's own end of a call: the proxy sees it too and journals the outcome itself.
_OURS = frozenset({grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED})
CHARS_PER_TOKEN = 4
NEVER_CONNECTED = "failed to connect"  # gRPC's words for a peer that no byte reached

log = logging.getLogger("modelmuxer.router")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one attempt is to do: which model, at which effective cap, for whom."""

    call: Call
    chat: ChatRequest
    model: Model
    number: int
    max_output_tokens: int | None
    input_tokens: int


class Attempt:
    """One upstream call. `record` tells what is known of it at any time."""

    def __init__(
        self, order: Order, proxy: ProviderServiceAsyncStub, journal: Journal, reservation: Reservation | None = None
    ) -> None:
        self.order = order
        self.record = chat_pb2.Attempt(id=mint_attempt_id(), provider=order.model.provider, model=order.model.id)
        self._proxy = proxy
        self._journal = journal
        self._reservation = reservation
        self._expires = reservation.expire_time if reservation is not None else None
        billing = billing_context(order.call, order.chat, order.model, order.number)
        if reservation is not None:
            billing.holds.extend(reservation.money)
        self._billing = billing.SerializeToString()
        self._sent = self._known = False
        self._begun_s = time.monotonic()
        self._started: Started | None = None
        self._usage: Usage | None = None
        self._streamed_chars = 0

    async def stream(self) -> AsyncGenerator[ChatEvent, None]:
        """The proxy's events, the last of which is `completed`; or a MeshError. Closing it cancels the call."""
        call: grpc.aio.UnaryStreamCall[GenerateRequest, ChatEvent] | None = None
        whole = False
        try:
            call = self._proxy.StreamGenerate(self._request(), timeout=self._timeout_s())
            self._sent = True
            async for event in call:
                match event.WhichOneof("event"):
                    case "delta":
                        self._grew(event.delta)
                    case "started":
                        self._began(event.started)
                    case "usage":
                        self._usage = event.usage
                    case "completed":
                        self._ended(event.completed)
                        whole = True
                yield event
        except grpc.aio.AioRpcError as error:
            raise self._lost(error) from None
        finally:
            if call is not None:
                call.cancel()
            self._settle()
        if not whole:
            raise self._cut()

    async def answer(self) -> ChatResponse:
        """The whole answer, or a MeshError. Cancelling it cancels the call."""
        try:
            call = self._proxy.Generate(self._request(), timeout=self._timeout_s())
            self._sent = True
            answer = await call
            self._began(answer.started)
            self._ended(answer.completed)
        except grpc.aio.AioRpcError as error:
            raise self._lost(error) from None
        finally:
            self._settle()
        return answer

    def failed(self, error: MeshError) -> chat_pb2.Attempt:
        """The record, with the error that ended it."""
        if not self.record.status:
            self.record.duration.CopyFrom(self._elapsed())
            self.record.status = error.code.name
            self.record.reason = error.reason
        return self.record

    def may_be_retried(self, error: MeshError) -> bool:
        """Whether the same model may be asked again."""
        failure = error.detail(AttemptFailure)
        if failure is not None:
            return failure.retryable
        return error.code is grpc.StatusCode.UNAVAILABLE and error.reason != Reason.JOURNAL_FULL

    def may_go_elsewhere(self, error: MeshError) -> bool:
        """Whether another model may succeed."""
        return error.reason in ELSEWHERE or self.may_be_retried(error)

    def _request(self) -> GenerateRequest:
        order = self.order
        request = GenerateRequest(
            attempt_id=self.record.id, model=order.model.id, chat=order.chat, billing_context=self._billing
        )
        if self._expires is not None:
            request.lease_expire_time.CopyFrom(self._expires)
        if order.max_output_tokens is not None:
            request.chat.max_output_tokens = order.max_output_tokens
        return request

    def _timeout_s(self) -> float:
        remaining_s = self.order.call.remaining_s()
        if remaining_s <= 0:
            raise MeshError(Reason.DEADLINE_EXCEEDED, "The caller's deadline passed before a provider was called.")
        return remaining_s

    def _grew(self, delta: BlockDelta) -> None:
        self._streamed_chars += len(delta.text) + len(delta.reasoning) + len(delta.tool_arguments) + len(delta.refusal)
        if not self.record.HasField("time_to_first_token"):
            self.record.time_to_first_token.CopyFrom(self._elapsed())

    def _began(self, started: Started) -> None:
        self._started = started
        self.record.deployment, self.record.region = started.deployment, started.region
        if started.provider:
            self.record.provider = started.provider

    def _ended(self, completed: Completed) -> None:
        record = self.record
        record.duration.CopyFrom(self._elapsed())
        record.status = "OK"
        record.usage.CopyFrom(completed.usage)
        record.provider_request_id = completed.provider_request_id
        record.cost.CopyFrom(self._cost(completed.usage))
        self._known = True

    def _settle(self) -> None:
        """Ends the hold: at the cost that the proxy told, at nothing if none was reached; else the ledger says."""
        reservation, self._reservation = self._reservation, None
        if reservation is None:
            return
        record = self.record
        if self._known or not self._sent:
            reservation.settle(record.id, record.cost.nanos, record.usage.input_tokens + record.usage.output_tokens)
        else:
            reservation.settle(record.id, None, None)

    def _cost(self, usage: Usage) -> Cost:
        price = self.order.model.price
        assert price is not None  # noqa: S101 - the shortlist has refused models without one
        try:
            nanos = cost_nanos(price, usage)
        except ValueError as error:
            log.warning("attempt %s has an impossible usage: %s", self.record.id, error)
            nanos = estimate_nanos(price, usage.input_tokens, usage.output_tokens)
        return Cost(nanos=nanos, price_version=price.version)

    def _lost(self, rpc_error: grpc.aio.AioRpcError) -> MeshError:
        error = MeshError.from_rpc(rpc_error, Reason.PROVIDER_PROXY_UNAVAILABLE)
        failure = error.detail(AttemptFailure)
        self.failed(error)
        if failure is not None:
            self._account_for(failure)
            self._known = True
        elif NEVER_CONNECTED in (rpc_error.details() or ""):
            self._known = True
        elif self._started is not None and rpc_error.code() not in _OURS:
            self._observe(error)
            return MeshError(
                Reason.PROVIDER_PROXY_UNAVAILABLE,
                "The provider proxy was lost in the middle of the answer; the answer is not whole. Ask again.",
                retry_after_s=1.0,
            )
        return error

    def _cut(self) -> MeshError:
        error = MeshError(
            Reason.PROVIDER_STREAM_CUT, "The answer ended before it was whole; ask again.", retry_after_s=1.0
        )
        self.failed(error)
        self._observe(error)
        return error

    def _account_for(self, failure: AttemptFailure) -> None:
        record = self.record
        record.deployment, record.region = failure.deployment, failure.region
        record.provider_request_id = failure.provider_request_id
        if failure.announced and failure.HasField("usage"):
            record.usage.CopyFrom(failure.usage)
            record.cost.CopyFrom(self._cost(failure.usage))

    def _observe(self, error: MeshError) -> None:
        """Journals what we saw of a call whose end we may never be told; the proxy's outcome outranks it."""
        record = self.record
        record.usage.CopyFrom(self._seen_usage())
        record.cost.CopyFrom(self._cost(record.usage))
        observed = Outcome(
            usage=record.usage,
            status=record.status,
            reason=error.reason,
            duration=record.duration,
            billing_context=self._billing,
            provider=record.provider,
            model=record.model,
            deployment=record.deployment,
            region=record.region,
        )
        if record.HasField("time_to_first_token"):
            observed.time_to_first_token.CopyFrom(record.time_to_first_token)
        try:
            self._journal.append(JournalRecord(attempt_id=record.id, observed=observed))
        except MeshError as full:
            log.error("what was seen of attempt %s could not be journalled: %s", record.id, full.message)

    def _seen_usage(self) -> Usage:
        usage = Usage(source=chat_pb2.USAGE_SOURCE_ESTIMATED, input_tokens=self.order.input_tokens)
        if self._usage is not None and self._usage.HasField("input_tokens"):
            usage.CopyFrom(self._usage)
            usage.source = chat_pb2.USAGE_SOURCE_PARTIAL
        usage.output_tokens = max(usage.output_tokens, -(-self._streamed_chars // CHARS_PER_TOKEN))
        return usage

    def _elapsed(self) -> Duration:
        elapsed = Duration()
        elapsed.FromNanoseconds(int((time.monotonic() - self._begun_s) * 1e9))
        return elapsed


def billing_context(call: Call, chat: ChatRequest, model: Model | None = None, number: int = 0) -> BillingContext:
    """Who pays, and, for an attempt, at which prices."""
    return BillingContext(
        principal=call.principal,
        price=model.price if model is not None else None,
        operation_id=call.operation_id,
        run_id=call.run_id,
        request_id=call.request_id,
        attempt_number=number,
        tags=chat.tags,
        requested_model=chat.model,
    )
