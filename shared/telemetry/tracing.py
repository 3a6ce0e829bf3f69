"""Traces over all hops: W3C trace context in, OTLP out, by the standard OTEL_* variables.

Without an endpoint there is no SDK and not one span object: an incoming traceparent travels on, and into logs. The
current span is kept in a context variable of our own that is set back, never reset by token, because a stream's span
may end in another context than it began in.
"""

import asyncio
import contextlib
import random
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from shared.telemetry import names

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
_FORM = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")


class Trace(NamedTuple):
    """Where in a trace the current task stands."""

    trace_id: str
    span_id: str
    flags: str
    state: str = ""
    span: Span | None = None
    tracing: "Tracing | None" = None

    def headers(self) -> tuple[tuple[str, str], ...]:
        """What a call to another service carries."""
        parent = (TRACEPARENT, f"00-{self.trace_id}-{self.span_id}-{self.flags}")
        return (parent, (TRACESTATE, self.state)) if self.state else (parent,)


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


def current() -> Trace | None:
    """The current task's place in a trace."""
    return _current.get()


def receive(headers: Mapping[str, str]) -> None:
    """Enters the trace that a caller's headers name, or a new one that is not sampled."""
    _current.set(_received(headers) or _unsampled())


def serving(
    tracing: "Tracing | None", name: str, headers: Mapping[str, str], attributes: Mapping[str, AttributeValue]
) -> AbstractContextManager[Span]:
    """The server span of a face other than gRPC; without tracing, only the place in the caller's trace."""
    if tracing is not None:
        return tracing.serve(name, headers, attributes)
    receive(headers)
    return _NO_SPAN


def span(
    name: str, *, kind: SpanKind = SpanKind.INTERNAL, attributes: Mapping[str, AttributeValue] | None = None
) -> AbstractContextManager[Span]:
    """A child of the current span around a block; where nothing is exported, a span that does nothing.

    An exception that leaves the block marks it failed: `error.type` is a MeshError's reason or the exception's type.
    Its text, which may quote a prompt, is not recorded.
    """
    parent = _current.get()
    if parent is None or parent.tracing is None:
        return _NO_SPAN
    return parent.tracing.span(name, parent, kind, attributes)


class Tracing:
    """The tracer of one service."""

    def __init__(self, tracer: Tracer, shutdown: Callable[[], None]) -> None:
        self._tracer = tracer
        self._shutdown = shutdown

    def serve(
        self, name: str, headers: Mapping[str, str], attributes: Mapping[str, AttributeValue]
    ) -> AbstractContextManager[Span]:
        """A server span, below the caller's if `headers` name one."""
        return self.span(name, _received(headers), SpanKind.SERVER, attributes)

    @contextlib.contextmanager
    def span(
        self, name: str, parent: Trace | None, kind: SpanKind, attributes: Mapping[str, AttributeValue] | None
    ) -> Iterator[Span]:
        """A span that is the current one within the block."""
        span = self.begin(name, parent, kind, attributes)
        before = _current.get()
        _current.set(self.place(span))
        try:
            yield span
        except BaseException as error:
            fail(span, getattr(error, "reason", None) or type(error).__qualname__)
            raise
        finally:
            span.end()
            _current.set(before)

    def begin(
        self, name: str, parent: Trace | None, kind: SpanKind, attributes: Mapping[str, AttributeValue] | None
    ) -> Span:
        """A span that the caller ends."""
        return self._tracer.start_span(name, context=_context(parent), kind=kind, attributes=attributes)

    def place(self, span: Span) -> Trace:
        """Where a task stands that runs within `span`."""
        ids = span.get_span_context()
        return Trace(
            trace.format_trace_id(ids.trace_id),
            trace.format_span_id(ids.span_id),
            f"{ids.trace_flags:02x}",
            ids.trace_state.to_header(),
            span,
            self,
        )

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Exports what waits. A collector that hangs is left after `timeout_s`; its thread ends with the process."""
        done, loop = asyncio.Event(), asyncio.get_running_loop()

        def shut_down() -> None:
            self._shutdown()
            with contextlib.suppress(RuntimeError):  # the loop is closed when it took too long
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut_down, daemon=True).start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), timeout_s)


def fail(span: Span, error_type: str) -> None:
    """Marks a span failed."""
    span.set_attribute(names.ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR))


_NO_SPAN: AbstractContextManager[Span] = contextlib.nullcontext(INVALID_SPAN)


def _received(headers: Mapping[str, str]) -> Trace | None:
    if (parent := headers.get(TRACEPARENT)) and (match := _FORM.fullmatch(parent)):
        return Trace(match[1], match[2], match[3], headers.get(TRACESTATE, ""))
    return None


def _unsampled() -> Trace:
    return Trace(f"{random.getrandbits(128) or 1:032x}", f"{random.getrandbits(64) or 1:016x}", "00")


def _context(parent: Trace | None) -> Context:
    if parent is None:
        return Context()
    if parent.span is not None:
        return trace.set_span_in_context(parent.span, Context())
    ids = SpanContext(
        int(parent.trace_id, 16),
        int(parent.span_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(int(parent.flags, 16)),
        trace_state=trace.TraceState.from_header([parent.state]),
    )
    return trace.set_span_in_context(NonRecordingSpan(ids), Context())
