"""What is seen of a request: metrics, and attributes of its server span. Never what it says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from types import TracebackType

from modelmuxer.chat.v1.chat_pb2 import Attempt, ChatRequest
from opentelemetry.trace import Span

from services.router.call import Call
from services.router.headers import cache_word
from services.router.walk import Walk
from shared.errors import MeshError
from shared.telemetry import metrics, names, tracing


class Observation:
    """One request, from its taking to its end. `walk` is given to it once it is known."""

    def __init__(self, call: Call, chat: ChatRequest, *, stream: bool) -> None:
        self.walk: Walk | None = None
        self._call = call
        self._chat = chat
        self._stream = stream
        self._begun_s = time.perf_counter()
        self._first_token_s: float | None = None
        place = tracing.current()
        self._span: Span | None = place.span if place is not None else None

    def __enter__(self) -> Observation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        walk, status = self.walk, _status(error)
        metrics.REQUESTS.labels(self._call.face, walk.asked.name if walk else "", status).inc()
        if walk is None:
            return
        if word := cache_word(walk.cache):
            tenant = metrics.TENANT(self._call.principal.tenant)
            metrics.CACHE_OUTCOMES.labels(word).inc()
            metrics.CACHE_TENANT_OUTCOMES.labels(tenant, word).inc()
            metrics.CACHE_SAVED.labels(tenant).inc(walk.cache.saved_nanos)
        if self._span is not None and self._span.is_recording():
            self._describe(self._span, walk)

    def first_token(self) -> None:
        """The caller is about to get the first token."""
        self._first_token_s = time.perf_counter() - self._begun_s
        if self.walk is not None:
            metrics.TIME_TO_FIRST_TOKEN.labels(self.walk.asked.name).observe(self._first_token_s)

    def _describe(self, span: Span, walk: Walk) -> None:
        span.set_attributes(
            {
                names.GEN_AI_OPERATION: names.CHAT,
                names.GEN_AI_REQUEST_MODEL: walk.asked.name,
                names.GEN_AI_REQUEST_STREAM: self._stream,
                names.GEN_AI_RESPONSE_ID: self._call.request_id,
                names.MUX_CACHE: cache_word(walk.cache),
                names.MUX_STRATEGY: walk.strategy,
                names.MUX_COST_NANOS: sum(attempt.cost.nanos for attempt in walk.attempts),
            }
        )
        if self._chat.HasField("max_output_tokens"):
            span.set_attribute(names.GEN_AI_REQUEST_MAX_TOKENS, self._chat.max_output_tokens)
        if self._chat.HasField("temperature"):
            span.set_attribute(names.GEN_AI_REQUEST_TEMPERATURE, self._chat.temperature)
        if self._call.run_id:
            span.set_attribute(names.MUX_RUN_ID, self._call.run_id)
        if self._call.operation_id:
            span.set_attribute(names.MUX_OPERATION_ID, self._call.operation_id)
        if self._first_token_s is not None:
            span.set_attribute(names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, self._first_token_s)
        span.add_event("decision", {names.MUX_STRATEGY: walk.strategy, names.MUX_REASON: walk.reason})
        for attempt in walk.attempts:
            span.add_event(
                "attempt",
                {
                    names.MUX_ATTEMPT_ID: attempt.id,
                    names.GEN_AI_RESPONSE_MODEL: attempt.model,
                    names.GEN_AI_PROVIDER: names.GEN_AI_PROVIDERS.get(attempt.provider, attempt.provider),
                    names.MUX_DEPLOYMENT: attempt.deployment,
                    names.RPC_STATUS: attempt.status,
                    names.MUX_REASON: attempt.reason,
                    names.MUX_COST_NANOS: attempt.cost.nanos,
                    names.GEN_AI_USAGE_INPUT_TOKENS: attempt.usage.input_tokens,
                    names.GEN_AI_USAGE_OUTPUT_TOKENS: attempt.usage.output_tokens,
                },
            )


def count_attempts(attempts: Iterable[Attempt]) -> None:
    """Counts what attempts used and cost."""
    for attempt in attempts:
        metrics.TOKENS.labels(attempt.model, "input").inc(attempt.usage.input_tokens)
        metrics.TOKENS.labels(attempt.model, "output").inc(attempt.usage.output_tokens)
        metrics.COST.labels(attempt.model).inc(attempt.cost.nanos)


def _status(error: BaseException | None) -> str:
    if error is None:
        return "OK"
    if isinstance(error, MeshError):
        return error.code.name
    return "CANCELLED" if isinstance(error, asyncio.CancelledError | GeneratorExit) else "INTERNAL"
