"""Spans to an OTLP endpoint in the background, as the OTEL_* variables say; what is lost is counted.

Imported only where an endpoint is set: the SDK and its exporters take a tenth of a second.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from shared.settings import SettingsError
from shared.telemetry import names
from shared.telemetry.metrics import SPANS_DROPPED
from shared.telemetry.tracing import Tracing


def start(service: str, replica: str, environ: Mapping[str, str]) -> Tracing:
    """Spans of `service`, exported until the result is stopped. Raises SettingsError."""
    attributes = {
        "service.namespace": "modelmuxer",
        "service.instance.id": replica,
        "service.version": version("modelmuxer"),
    }
    if not environ.get("OTEL_SERVICE_NAME"):
        attributes["service.name"] = service
    provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    queue = SpanQueue(Counted(_exporter(environ)))
    provider.add_span_processor(queue)
    tracer = provider.get_tracer("modelmuxer", version("modelmuxer"), schema_url=names.SEMCONV_SCHEMA)
    return Tracing(tracer, provider.shutdown)


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether the OTEL_* variables ask for spans."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return bool(environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))


class Counted(SpanExporter):
    """An exporter that counts the spans which it could not deliver, and those that still wait for it."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lock = threading.Lock()
        self.waiting = 0

    def queued(self, limit: int) -> None:
        """One more span waits; past `limit` the queue has dropped one."""
        with self._lock:
            if self.waiting < limit:
                self.waiting += 1
            else:
                SPANS_DROPPED.inc()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._lock:
            self.waiting -= len(spans)
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            SPANS_DROPPED.inc(len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class SpanQueue(BatchSpanProcessor):
    """The SDK's queue, which drops the oldest spans in silence when it is full."""

    def __init__(self, exporter: Counted) -> None:
        super().__init__(exporter)
        self._counted = exporter
        self._limit = int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE", "2048"))

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            self._counted.queued(self._limit)
        super().on_end(span)


def _exporter(environ: Mapping[str, str]) -> SpanExporter:
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "grpc"
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc()
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

        return Http()
    raise SettingsError([f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol!r} must be grpc or http/protobuf"])
