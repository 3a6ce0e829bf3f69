"""One request is one trace over all hops, received by a real OTLP endpoint; without one nothing is made."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.provider.v1 import provider_pb2
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.trace import INVALID_SPAN, SpanKind
from prometheus_client import REGISTRY

from shared.errors import MeshError, Reason
from shared.settings import SettingsError
from shared.telemetry import names, tracing
from tests.contract.collector import collecting
from tests.contract.example import PROVIDER, Example, calling, serving, until

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
COUNT = provider_pb2.CountTokensRequest(model="four")


@pytest.fixture(autouse=True)
def _no_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")


def attributes(span: Span) -> dict[str, str]:
    return {each.key: each.value.string_value for each in span.attributes}


async def test_a_streamed_request_is_one_trace_over_two_hops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        async with serving(Example(), tmp_path) as inner, calling(inner) as inner_stub:

            async def forward(request: Any, context: Any) -> AsyncIterator[chat_pb2.ChatEvent]:
                with tracing.span("chat gpt", kind=SpanKind.CLIENT, attributes={names.GEN_AI_OPERATION: "chat"}):
                    async for event in inner_stub.StreamGenerate(request):
                        yield event

            async with serving(Example(events=forward), tmp_path) as outer, calling(outer, traced=False) as stub:
                headers = (("traceparent", PARENT), ("tracestate", "a=b"))
                call = stub.StreamGenerate(provider_pb2.GenerateRequest(), metadata=headers)
                assert len([event async for event in call]) == 3
        await until(lambda: len(collector.spans) >= 4)
    spans = [span for _, span in collector.spans]
    assert {span.trace_id.hex() for span in spans} == {PARENT[3:35]}
    assert {span.trace_state for span in spans} == {"a=b"}
    by_id = {span.span_id.hex(): span for span in spans}
    path, last = [], next(span for span in spans if span.span_id not in {other.parent_span_id for other in spans})
    while True:
        path.append((last.name, last.kind))
        if last.parent_span_id.hex() not in by_id:
            break
        last = by_id[last.parent_span_id.hex()]
    method = f"{PROVIDER}/StreamGenerate"
    server, client = Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT
    assert path == [(method, server), (method, client), ("chat gpt", client), (method, server)]
    assert last.parent_span_id.hex() == PARENT[36:52]
    assert {name for name, _ in collector.spans} == {"provider-proxy"}


async def test_failures_and_cancellations_end_their_spans_with_the_right_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def count(request: Any, context: Any) -> Any:
        if request.model == "hang":
            await asyncio.Event().wait()
        if request.model == "crash":
            raise KeyError("a prompt")
        raise MeshError(Reason.UNKNOWN_MODEL, "No such model.")

    async with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        async with serving(Example(count), tmp_path) as app, calling(app) as stub:
            for model, timeout_s in (("none", 5.0), ("crash", 5.0), ("hang", 0.05)):
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub.CountTokens(provider_pb2.CountTokensRequest(model=model), timeout=timeout_s)
            await until(lambda: app.slots.taken == 0)
            call = stub.CountTokens(provider_pb2.CountTokensRequest(model="hang"))
            await until(lambda: app.slots.taken == 1)
            call.cancel()
        await until(lambda: len(collector.spans) == 8)
    for kind in (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT):
        spans = sorted(
            (span for _, span in collector.spans if span.kind == kind), key=lambda span: span.start_time_unix_nano
        )
        codes = [attributes(span)[names.RPC_STATUS] for span in spans]
        assert codes == ["NOT_FOUND", "INTERNAL", "DEADLINE_EXCEEDED", "CANCELLED"]
        assert {span.status.code for span in spans} == {Status.STATUS_CODE_ERROR}
    assert "a prompt" not in str(collector.spans)


async def test_a_trace_that_is_not_sampled_is_not_exported_but_travels_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    async def count(request: Any, context: Any) -> Any:
        seen.append(dict(context.invocation_metadata())["traceparent"])
        return provider_pb2.CountTokensResponse()

    unsampled = PARENT[:-2] + "00"
    async with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        async with serving(Example(count), tmp_path) as app, calling(app) as stub:
            tracing.receive({"traceparent": unsampled})
            await stub.CountTokens(COUNT)
    assert seen[0][3:35] == PARENT[3:35]
    assert seen[0].endswith("-00")
    assert collector.spans == []


async def test_without_an_endpoint_no_span_is_made_and_the_callers_trace_still_reaches_the_next_hop_and_the_logs(
    tmp_path: Path,
) -> None:
    seen: list[str] = []

    async def count(request: Any, context: Any) -> Any:
        seen.append(dict(context.invocation_metadata())["traceparent"])
        here = tracing.current()
        assert here is not None
        assert here.trace_id == PARENT[3:35]
        with tracing.span("child") as span:
            assert span is INVALID_SPAN
        return provider_pb2.CountTokensResponse()

    async with serving(Example(count), tmp_path) as inner, calling(inner) as inner_stub:

        async def forward(request: Any, context: Any) -> Any:
            return await inner_stub.CountTokens(request)

        async with serving(Example(forward), tmp_path) as outer, calling(outer) as stub:
            await stub.CountTokens(COUNT, metadata=(("traceparent", PARENT),))
            assert outer.tracer is None
    assert seen == [PARENT]


async def test_an_endpoint_that_is_away_costs_calls_nothing_and_what_is_dropped_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    before = dropped()
    loop = asyncio.get_running_loop()
    with caplog.at_level(logging.CRITICAL):
        async with serving(Example(), tmp_path) as app, calling(app) as stub:
            started = loop.time()
            for _ in range(20):
                await stub.CountTokens(COUNT)
            assert loop.time() - started < 1
            await until(lambda: dropped() - before >= 30)
            stopping = loop.time()
    assert loop.time() - stopping < 8


def dropped() -> float:
    return REGISTRY.get_sample_value("modelmuxer_spans_dropped_total") or 0.0


async def test_http_protobuf_is_a_protocol_and_an_unknown_one_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon")
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_PROTOCOL"):
        async with serving(Example(), tmp_path):
            pass
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    async with serving(Example(), tmp_path) as app:
        assert app.tracer is not None
