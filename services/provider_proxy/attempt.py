"""One upstream call on record: announced before it is written, its outcome journalled before anybody hears of it.

A provider may bill from the moment a request is written to its socket. How much it is then said to have used is
`tally`'s rule; money is not known here.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from google.protobuf.duration_pb2 import Duration
from modelmuxer.accounting.v1.accounting_pb2 import Announced, JournalRecord, Outcome
from modelmuxer.chat.v1.chat_pb2 import (
    ChatEvent,
    ChatRequest,
    ChatResponse,
    Completed,
    Started,
    Usage,
)
from modelmuxer.provider.v1.provider_pb2 import AttemptFailure, EmbedRequest, GenerateRequest

from services.provider_proxy import tally
from services.provider_proxy.statistics import Figures
from shared.catalogue import Deployment
from shared.errors import MeshError, Reason
from shared.journal import Journal
from shared.telemetry import metrics, names
from shared.tokens import estimate_embedding_tokens, estimate_input_tokens

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Attempt:
    """One call of one deployment."""

    request: GenerateRequest | EmbedRequest
    deployment: Deployment
    journal: Journal
    figures: Figures
    streams: bool
    began_s: float = field(default_factory=time.monotonic)
    announced: bool = False
    written: bool = False
    http_status: int = 0
    provider_request_id: str = ""
    provider_model: str = ""
    first_token_s: float | None = None
    answer_bytes: int = 0
    stated: Usage = field(default_factory=Usage)
    completed: Completed | None = None
    ended: bool = False

    @property
    def chat(self) -> ChatRequest:
        """What is asked for; empty for an embedding."""
        return self.request.chat if isinstance(self.request, GenerateRequest) else ChatRequest()

    @property
    def operation(self) -> str:
        """What kind of call it is, in the words of the GenAI conventions."""
        return names.CHAT if isinstance(self.request, GenerateRequest) else names.EMBEDDINGS

    def estimated_input_tokens(self) -> int:
        """What goes in, should nobody ever say."""
        if isinstance(self.request, GenerateRequest):
            return estimate_input_tokens(self.request.chat)
        return estimate_embedding_tokens(self.request.embedding)

    def started(self) -> Started:
        """Who answers."""
        deployment = self.deployment
        started = Started(
            model=deployment.model,
            provider=deployment.provider,
            deployment=deployment.name,
            region=deployment.region,
            provider_model=deployment.upstream_model,
            attempt_id=self.request.attempt_id,
        )
        started.create_time.GetCurrentTime()
        if self.chat.HasField("max_output_tokens"):
            started.max_output_tokens = self.chat.max_output_tokens
        return started

    async def announce(self) -> None:
        """Puts on record that the request is about to be written. Raises JOURNAL_FULL and LEASE_EXPIRED."""
        self._check_lease()
        deployment = self.deployment
        announced = Announced(
            billing_context=self.request.billing_context,
            provider=deployment.provider,
            model=deployment.model,
            deployment=deployment.name,
            region=deployment.region,
            estimated_input_tokens=self.estimated_input_tokens(),
        )
        self.journal.append(JournalRecord(attempt_id=self.request.attempt_id, announced=announced))
        self.announced = True
        await self.journal.sync()
        self.written = True
        metrics.ADDED_TIME.observe(time.monotonic() - self.began_s)

    def _check_lease(self) -> None:
        """A router that was stopped for long holds nothing any more, though it may think so when it wakes."""
        expires = self.request.lease_expire_time
        if self.request.HasField("lease_expire_time") and expires.ToNanoseconds() <= time.time_ns():
            failure = AttemptFailure(retryable=True)
            message = "The budget lease that the attempt was held on has expired; it was not begun."
            raise MeshError(Reason.LEASE_EXPIRED, message, details=[failure])

    def saw(self, event: ChatEvent) -> None:
        """Counts what is streamed to the caller."""
        match event.WhichOneof("event"):
            case "delta":
                self.answer_bytes += tally.delta_bytes(event.delta)
            case "block_start":
                self.answer_bytes += tally.block_bytes(event.block_start.block)
            case _:
                return
        if self.first_token_s is None:
            self.first_token_s = time.monotonic() - self.began_s

    def saw_whole(self, response: ChatResponse) -> None:
        """Counts an answer that was not streamed."""
        self.answer_bytes += sum(tally.block_bytes(block) for block in response.content)

    async def succeed(self, completed: Completed) -> None:
        """Ends the record of a whole answer, and completes `completed` with what only the call knows."""
        self.provider_request_id = self.provider_request_id or completed.provider_request_id
        completed.provider_request_id = self.provider_request_id
        completed.usage.CopyFrom(await self.settle(completed.usage))
        self.completed = completed

    async def settle(self, stated: Usage) -> Usage:
        """Ends the record of a whole answer by what the provider said of usage. Gives what counts."""
        usage = self._regional(tally.whole_usage(stated, self.estimated_input_tokens, self.answer_bytes))
        self._append(usage, status="OK", complete=True)
        self._succeeded(usage)
        await self.journal.sync()
        return usage

    async def fail(self, error: MeshError) -> MeshError:
        """Ends the record of a failed call. Gives the error to raise, with all that is known in its AttemptFailure."""
        failure = AttemptFailure()
        if known := error.detail(AttemptFailure):
            failure.CopyFrom(known)
        deployment = self.deployment
        failure.announced = self.written
        failure.provider = deployment.provider
        failure.deployment = deployment.name
        failure.region = deployment.region
        failure.http_status = failure.http_status or self.http_status
        failure.provider_request_id = failure.provider_request_id or self.provider_request_id
        self.provider_request_id = failure.provider_request_id
        if not self._unbilled:
            failure.usage.CopyFrom(self._partial_usage())
        error.details = (failure, *(detail for detail in error.details if not isinstance(detail, AttemptFailure)))
        error.metadata.setdefault("provider", deployment.provider)
        error.metadata.setdefault("model", deployment.model)
        self.end(error.code.name, error.reason, error.retry_after_s)
        if self.announced:
            await self.journal.sync()
        return error

    def end(self, status: str, reason: str, retry_after_s: float | None = None) -> None:
        """Ends the record of a call that is not whole. Never raises: whatever ended the call matters more."""
        if self.ended:
            return
        self.figures.failed(reason, retry_after_s, time.monotonic())
        self._observe(reason)
        if not self.announced:
            self.ended = True
            return
        try:
            self._append(self._partial_usage(), status=status, reason=reason)
        except MeshError as error:
            log.error("the outcome of attempt %s could not be journalled: %s", self.request.attempt_id, error.message)

    @property
    def _unbilled(self) -> bool:
        return not self.written or self.http_status not in (0, 200)

    def _partial_usage(self) -> Usage:
        if self._unbilled:
            return tally.no_usage()
        return self._regional(tally.partial_usage(self.stated, self.estimated_input_tokens, self._seen_output()))

    def _seen_output(self) -> int:
        if self.streams:
            return tally.output_tokens(self.answer_bytes)
        generated = self.figures.unseen_tokens(time.monotonic() - self.began_s)
        return min(generated, self.chat.max_output_tokens) if self.chat.HasField("max_output_tokens") else generated

    def _regional(self, usage: Usage) -> Usage:
        """Prices may depend on the region: the deployment's, where the provider names none."""
        usage.region = usage.region or self.deployment.region
        return usage

    def _append(self, usage: Usage, *, status: str, reason: str = "", complete: bool = False) -> None:
        deployment = self.deployment
        outcome = Outcome(
            usage=usage,
            provider_request_id=self.provider_request_id,
            status=status,
            reason=reason,
            complete=complete,
            unbilled=self._unbilled,
            duration=_duration(time.monotonic() - self.began_s),
            billing_context=self.request.billing_context,
            provider=deployment.provider,
            model=deployment.model,
            deployment=deployment.name,
            region=deployment.region,
        )
        if self.first_token_s is not None:
            outcome.time_to_first_token.CopyFrom(_duration(self.first_token_s))
        self.ended = True
        self.journal.append(JournalRecord(attempt_id=self.request.attempt_id, outcome=outcome))

    def _succeeded(self, usage: Usage) -> None:
        duration_s = time.monotonic() - self.began_s
        first_token_s = self.first_token_s if self.streams else None
        self.figures.succeeded(first_token_s, usage.output_tokens, duration_s - (first_token_s or 0.0))
        self._observe("")
        labels = (self.operation, self._provider_label, self.deployment.model)
        if first_token_s is not None:
            metrics.GEN_AI_TIME_TO_FIRST_CHUNK.labels(*labels).observe(first_token_s)
        metrics.GEN_AI_TOKEN_USAGE.labels(*labels, "input").observe(usage.input_tokens)
        metrics.GEN_AI_TOKEN_USAGE.labels(*labels, "output").observe(usage.output_tokens)

    def _observe(self, error_type: str) -> None:
        labels = (self.operation, self._provider_label, self.deployment.model, error_type)
        metrics.GEN_AI_DURATION.labels(*labels).observe(time.monotonic() - self.began_s)

    @property
    def _provider_label(self) -> str:
        return names.GEN_AI_PROVIDERS.get(self.deployment.provider, self.deployment.provider)


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
