"""The provider-proxy over real gRPC, before simulated providers that speak the real wire formats and keep a bill."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from modelmuxer.chat.v1.chat_pb2 import Block, ChatRequest, FinishReason, Message, Role, Text, Tool, UsageSource
from modelmuxer.provider.v1.provider_pb2 import (
    AttemptFailure,
    CountTokensRequest,
    GenerateRequest,
)
from modelmuxer.provider.v1.provider_pb2_grpc import ProviderServiceStub
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from services.provider_proxy.engine import Engine
from services.provider_proxy.settings import ProviderProxySettings
from services.simulator import Simulator
from shared import catalogue
from shared.errors import MeshError, Reason
from shared.journal import Journal
from shared.telemetry import names
from shared.telemetry.tracing import Tracing
from tests.contract.proxy_under_test import BILLING, ProxyUnderTest, proxy, self_signed, simulator, until

FORMATS = ["openai", "anthropic", "gemini"]


@pytest.fixture
async def provider() -> AsyncIterator[Simulator]:
    async with simulator() as running:
        yield running


@pytest.fixture
async def mesh(tmp_path: Path, provider: Simulator) -> AsyncIterator[ProxyUnderTest]:
    async with proxy(tmp_path, provider, MODELMUXER_PROVIDER_STALL_TIMEOUT_S="0.3") as running:
        yield running


@pytest.mark.parametrize("wire", FORMATS)
async def test_a_stream_is_told_recorded_and_billed_alike(mesh: ProxyUnderTest, wire: str) -> None:
    request = mesh.request('reply="Hello you"', model=f"{wire}/sim-test", max_output_tokens=50)
    ended = await mesh.stream(request)
    assert ended.error is None
    assert (ended.kinds[0], ended.kinds[-1], ended.kinds.count("completed")) == ("started", "completed", 1)
    assert ended.text == "Hello you"
    started, completed = ended.events[0].started, ended.events[-1].completed
    assert (started.provider, started.model, started.deployment) == (wire, request.model, f"{request.model}@{wire}")
    assert (started.provider_model, started.attempt_id) == ("sim-test", request.attempt_id)
    assert started.max_output_tokens == 50
    assert completed.finish_reason == FinishReason.FINISH_REASON_STOP
    announced, outcome = await mesh.announced(request.attempt_id), await mesh.outcome(request.attempt_id)
    assert (announced.billing_context, outcome.billing_context) == (BILLING, BILLING)
    assert (announced.deployment, announced.estimated_input_tokens > 0) == (started.deployment, True)
    assert (outcome.status, outcome.complete, outcome.unbilled) == ("OK", True, False)
    assert outcome.usage == completed.usage
    assert outcome.usage.source == UsageSource.USAGE_SOURCE_PROVIDER
    assert outcome.HasField("time_to_first_token")
    (line,) = await mesh.billed(request.attempt_id)
    assert (line["id"], line["complete"]) == (outcome.provider_request_id, True)
    assert (line["input_tokens"], line["output_tokens"]) == (outcome.usage.input_tokens, outcome.usage.output_tokens)


@pytest.mark.parametrize("wire", FORMATS)
async def test_a_whole_answer_is_recorded_before_it_is_told(mesh: ProxyUnderTest, wire: str) -> None:
    request = mesh.request('reply="Hello you"', model=f"{wire}/sim-test", max_output_tokens=50)
    answer = await mesh.stub.Generate(request, timeout=5)
    assert [block.text.text for block in answer.content] == ["Hello you"]
    assert answer.started.attempt_id == request.attempt_id
    outcome = await mesh.outcome(request.attempt_id)
    assert outcome.usage == answer.completed.usage
    assert outcome.provider_request_id == answer.completed.provider_request_id
    (line,) = await mesh.billed(request.attempt_id)
    assert line["output_tokens"] == answer.completed.usage.output_tokens


@pytest.mark.parametrize("wire", FORMATS)
async def test_a_callers_cancel_closes_the_providers_socket_at_once(mesh: ProxyUnderTest, wire: str) -> None:
    request = mesh.request("tps=50 tokens=500", model=f"{wire}/sim-test")
    call = mesh.stub.StreamGenerate(request, timeout=30)
    async for event in call:
        if event.HasField("delta"):
            break
    cancelled_at = time.monotonic()
    call.cancel()
    assert await mesh.closed_at(request.attempt_id) - cancelled_at < 0.1
    outcome = await mesh.outcome(request.attempt_id)
    assert (outcome.status, outcome.reason, outcome.complete) == ("CANCELLED", Reason.CANCELLED, False)
    assert (outcome.unbilled, outcome.usage.output_tokens > 0) == (False, True)
    assert outcome.usage.source in (UsageSource.USAGE_SOURCE_PARTIAL, UsageSource.USAGE_SOURCE_ESTIMATED)
    (line,) = await mesh.billed(request.attempt_id)
    assert line["complete"] is False


async def test_a_cancel_before_the_first_token_and_of_a_whole_answer_closes_the_socket(mesh: ProxyUnderTest) -> None:
    requests = [mesh.request("ttft=20s"), mesh.request("ttft=20s")]
    calls = [mesh.stub.StreamGenerate(requests[0], timeout=30), mesh.stub.Generate(requests[1], timeout=30)]
    for request in requests:
        await mesh.announced(request.attempt_id)
    cancelled_at = time.monotonic()
    for call in calls:
        call.cancel()
    for request in requests:
        assert await mesh.closed_at(request.attempt_id) - cancelled_at < 0.1
        assert (await mesh.outcome(request.attempt_id)).status == "CANCELLED"


async def test_the_deadline_closes_the_providers_socket_at_once(mesh: ProxyUnderTest) -> None:
    request = mesh.request("tps=20 tokens=500")
    due_at = time.monotonic() + 0.3
    ended = await mesh.stream(request, timeout_s=0.3)
    assert ended.reason == Reason.DEADLINE_EXCEEDED
    assert await mesh.closed_at(request.attempt_id) - due_at < 0.1
    outcome = await mesh.outcome(request.attempt_id)
    assert (outcome.status, outcome.reason) == ("DEADLINE_EXCEEDED", Reason.DEADLINE_EXCEEDED)
    assert outcome.usage.output_tokens > 0


async def test_a_call_without_a_deadline_gets_ours(tmp_path: Path, provider: Simulator) -> None:
    async with proxy(tmp_path, provider, MODELMUXER_PROVIDER_CALL_TIMEOUT_S="1") as mesh:
        call = mesh.stub.Generate(mesh.request("ttft=20s"))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("wire", FORMATS)
@pytest.mark.parametrize(
    ("orders", "reason"),
    [
        ("tokens=20 cut_at=6", Reason.PROVIDER_STREAM_CUT),
        ("tokens=20 cut_at=6 torn", Reason.PROVIDER_STREAM_CUT),
        ("tokens=20 stall_at=6", Reason.PROVIDER_TIMEOUT),
        ("tokens=20 malformed_at=6", Reason.PROVIDER_MALFORMED_ANSWER),
    ],
)
async def test_a_broken_stream_ends_in_an_error_and_is_billed_in_part(
    mesh: ProxyUnderTest, wire: str, orders: str, reason: Reason
) -> None:
    request = mesh.request(orders, model=f"{wire}/sim-test")
    ended = await mesh.stream(request)
    assert (ended.reason, "completed" in ended.kinds) == (reason, False)
    assert ended.error is not None
    assert ended.error.code is grpc.StatusCode.UNAVAILABLE
    assert (ended.failure.announced, ended.failure.retryable, ended.failure.http_status) == (True, True, 200)
    outcome = await mesh.outcome(request.attempt_id)
    assert (outcome.reason, outcome.complete, outcome.unbilled) == (reason, False, False)
    assert outcome.usage == ended.failure.usage
    assert outcome.usage.source in (UsageSource.USAGE_SOURCE_PARTIAL, UsageSource.USAGE_SOURCE_ESTIMATED)
    (line,) = await mesh.billed(request.attempt_id)
    assert line["id"] == outcome.provider_request_id
    assert abs(line["output_tokens"] - outcome.usage.output_tokens) <= 3
    if wire == "anthropic":
        assert outcome.usage.source == UsageSource.USAGE_SOURCE_PARTIAL
        assert outcome.usage.input_tokens == line["input_tokens"]


@pytest.mark.parametrize("wire", FORMATS)
async def test_the_providers_own_error_in_mid_stream(mesh: ProxyUnderTest, wire: str) -> None:
    request = mesh.request("tokens=20 error_at=6", model=f"{wire}/sim-test")
    ended = await mesh.stream(request)
    assert ended.reason in (Reason.PROVIDER_ERROR, Reason.PROVIDER_OVERLOADED)
    assert ended.text
    assert (await mesh.outcome(request.attempt_id)).unbilled is False


@pytest.mark.parametrize("wire", FORMATS)
@pytest.mark.parametrize(
    ("orders", "code", "reasons", "retryable"),
    [
        ("status=429 retry_after=7", grpc.StatusCode.RESOURCE_EXHAUSTED, {Reason.PROVIDER_RATE_LIMITED}, True),
        ("status=500", grpc.StatusCode.UNAVAILABLE, {Reason.PROVIDER_ERROR}, True),
        ("status=503", grpc.StatusCode.UNAVAILABLE, {Reason.PROVIDER_OVERLOADED, Reason.PROVIDER_ERROR}, True),
        ("status=401", grpc.StatusCode.FAILED_PRECONDITION, {Reason.PROVIDER_AUTHENTICATION}, False),
        ("status=403", grpc.StatusCode.FAILED_PRECONDITION, {Reason.PROVIDER_PERMISSION}, False),
        ("status=400", grpc.StatusCode.INVALID_ARGUMENT, {Reason.PROVIDER_INVALID_REQUEST}, False),
    ],
)
async def test_an_error_answer_is_billed_nothing(
    mesh: ProxyUnderTest, wire: str, orders: str, code: grpc.StatusCode, reasons: set[Reason], retryable: bool
) -> None:
    request = mesh.request(orders, model=f"{wire}/sim-test")
    ended = await mesh.stream(request)
    assert ended.error is not None
    assert (ended.error.code, ended.error.reason in reasons) == (code, True)
    assert (ended.failure.retryable, ended.failure.announced) == (retryable, True)
    assert f"status={ended.failure.http_status}" in orders
    assert ended.failure.provider_request_id
    assert not ended.failure.HasField("usage")
    outcome = await mesh.outcome(request.attempt_id)
    assert (outcome.unbilled, outcome.status, outcome.reason) == (True, code.name, ended.reason)
    assert await mesh.billed(request.attempt_id) == []
    if "retry_after" in orders:
        assert ended.error.retry_after_s == 7


async def test_a_provider_that_cannot_be_reached_leaves_no_record(tmp_path: Path, provider: Simulator) -> None:
    nowhere = "http://127.0.0.1:9"
    async with proxy(tmp_path, provider, MODELMUXER_SIMULATOR_URL=nowhere) as mesh:
        request = mesh.request()
        ended = await mesh.stream(request)
        assert ended.reason == Reason.PROVIDER_UNREACHABLE
        assert (ended.failure.announced, ended.failure.retryable) == (False, True)
        other = await mesh.stream(mesh.request())
        assert other.reason == Reason.PROVIDER_UNREACHABLE
        assert not mesh.has_records(request.attempt_id)


async def test_a_provider_without_a_key_is_not_called(tmp_path: Path, provider: Simulator) -> None:
    keyless = {"MODELMUXER_SIMULATOR_URL": "", "OPENAI_API_KEY": "", "OPENAI_BASE_URL": f"{provider.url}/v1"}
    async with proxy(tmp_path, provider, **keyless) as mesh:
        ended = await mesh.stream(mesh.request(model="openai/gpt-4o-mini"))
        assert ended.reason == Reason.NO_PROVIDER_KEY
        assert "OPENAI_API_KEY" in str(ended.error)
        state = await mesh.state("openai/gpt-4o-mini@openai")
        assert (state.available, "OPENAI_API_KEY" in state.unavailable_reason) == (False, True)


async def test_a_real_key_goes_to_the_configured_address(tmp_path: Path, provider: Simulator) -> None:
    keyed = {"MODELMUXER_SIMULATOR_URL": "", "OPENAI_API_KEY": "sk-real", "OPENAI_BASE_URL": f"{provider.url}/v1"}
    async with proxy(tmp_path, provider, **keyed) as mesh:
        request = mesh.request('reply="Yes"', model="openai/gpt-4o-mini")
        assert (await mesh.stream(request)).text == "Yes"
        (call,) = (await mesh.get(f"/calls/{request.attempt_id}"))["calls"]
        assert call["headers"]["x-client-request-id"] == request.attempt_id
        assert call["headers"]["user-agent"] == "ModelMuxer"
        assert call["body"]["stream_options"] == {"include_usage": True, "include_obfuscation": False}


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (GenerateRequest(attempt_id="att_x", model="openai/no-such-model"), Reason.UNKNOWN_MODEL),
        (GenerateRequest(attempt_id="att_x", model="openai/sim-a", deployments=["other"]), Reason.UNKNOWN_MODEL),
        (GenerateRequest(model="openai/sim-a"), Reason.MALFORMED_REQUEST),
        (
            GenerateRequest(attempt_id="att_x", model="openai/sim-a", chat=ChatRequest(top_k=3)),
            Reason.UNSUPPORTED_FEATURE,
        ),
    ],
)
async def test_what_cannot_be_called_is_refused_unrecorded(
    mesh: ProxyUnderTest, request_: GenerateRequest, reason: Reason
) -> None:
    assert (await mesh.stream(request_)).reason == reason
    later = mesh.request()
    await mesh.stream(later)
    await mesh.outcome(later.attempt_id)
    assert not mesh.has_records("att_x")


@pytest.mark.parametrize("streams", [True, False])
async def test_an_attempt_whose_lease_has_expired_is_not_begun(mesh: ProxyUnderTest, streams: bool) -> None:
    """A router that was stopped for long holds nothing any more, though it may think so when it wakes."""
    request = mesh.request()
    request.lease_expire_time.FromNanoseconds(time.time_ns() - 1)
    if streams:
        error = (await mesh.stream(request)).error
    else:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await mesh.stub.Generate(request, timeout=10)
        error = MeshError.from_rpc(caught.value)
    assert error is not None
    assert error.reason == Reason.LEASE_EXPIRED
    failure = error.detail(AttemptFailure)
    assert failure is not None
    assert (failure.announced, failure.retryable) == (False, True)
    assert not mesh.has_records(request.attempt_id)
    assert await mesh.billed(request.attempt_id) == []
    again = mesh.request()
    again.lease_expire_time.FromNanoseconds(time.time_ns() + 60 * 10**9)
    assert (await mesh.stream(again)).error is None


async def test_connections_are_kept_and_used_again(mesh: ProxyUnderTest) -> None:
    for _ in range(10):
        assert (await mesh.stream(mesh.request("tokens=3"))).error is None
        await mesh.stub.Generate(mesh.request("tokens=3"), timeout=5)
    assert len(mesh.simulator._connections) == 1


async def test_no_more_connections_are_kept_than_the_pool_may(tmp_path: Path, provider: Simulator) -> None:
    async with proxy(tmp_path, provider, HTTP_POOL_CONNECTIONS="2") as mesh:
        calls = [mesh.stream(mesh.request("ttft=100ms tokens=3")) for _ in range(8)]
        assert [ended.error for ended in await asyncio.gather(*calls)] == [None] * 8
        await until(lambda: len(provider._connections) <= 2)


async def test_a_busy_pool_uses_its_connections_again(tmp_path: Path, provider: Simulator) -> None:
    async with proxy(tmp_path, provider, HTTP_POOL_CONNECTIONS="2") as mesh:
        busy = [asyncio.ensure_future(mesh.stream(mesh.request("ttft=60s"))) for _ in range(4)]
        await until(lambda: len(provider._connections) == 4)
        await mesh.stream(mesh.request("tokens=3"))
        kept = set(provider._connections)
        for _ in range(5):
            assert (await mesh.stream(mesh.request("tokens=3"))).error is None
        assert set(provider._connections) == kept
        for call in busy:
            call.cancel()
        await asyncio.wait(busy)


async def test_callers_wait_for_a_connection_if_the_pool_blocks(tmp_path: Path, provider: Simulator) -> None:
    async with proxy(tmp_path, provider, HTTP_POOL_MAXSIZE="2", HTTP_POOL_BLOCK="true") as mesh:
        most = 0
        calls = asyncio.gather(*(mesh.stream(mesh.request("ttft=50ms tokens=3")) for _ in range(8)))
        while not calls.done():
            most = max(most, len(provider._connections))
            await asyncio.sleep(0.005)
        assert [ended.error for ended in calls.result()] == [None] * 8
        assert most == 2


async def test_a_kept_connection_that_died_costs_no_call(tmp_path: Path, provider: Simulator) -> None:
    """A server that closes each kept connection after its answer, without saying that it will."""
    requests: list[bytes] = []
    body = b'{"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}'
    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[16:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        requests.append(await reader.readexactly(length))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body))
        writer.write(body)
        await writer.drain()
        writer.close()
        closed.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, proxy(tmp_path, provider, MODELMUXER_SIMULATOR_URL=url) as mesh:
        for number in range(1, 6):
            answer = await mesh.stub.Generate(mesh.request(), timeout=5)
            assert answer.content[0].text.text == "Hi"
            assert len(requests) == number, "a request is written once"
            await closed.wait()
            closed.clear()


async def test_an_answer_of_any_bytes_is_an_error_not_a_crash(tmp_path: Path, provider: Simulator) -> None:
    answers = [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n\xff\xfe\x00{]",
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nnope",
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>",
        b"",
    ]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(next(pending))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, proxy(tmp_path, provider, MODELMUXER_SIMULATOR_URL=url) as mesh:
        pending = iter([answer for answer in answers for _ in range(2)])
        for answer in answers:
            streamed = await mesh.stream(mesh.request())
            assert streamed.reason.startswith("PROVIDER_"), answer
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await mesh.stub.Generate(mesh.request(), timeout=5)
            assert str(MeshError.from_rpc(refused.value).reason).startswith("PROVIDER_"), answer


async def test_a_server_that_cannot_prove_who_it_is_gets_nothing(tmp_path: Path, provider: Simulator) -> None:
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=self_signed(tmp_path))
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, proxy(tmp_path, provider, MODELMUXER_SIMULATOR_URL=url) as mesh:
        ended = await mesh.stream(mesh.request())
    assert ended.reason == Reason.PROVIDER_UNREACHABLE
    assert "certificate" in str(ended.error)
    assert not any(received)


async def test_providers_are_reached_through_the_proxy_that_the_environment_names(
    tmp_path: Path, provider: Simulator
) -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    forward = {"http_proxy": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}
    async with server, proxy(tmp_path, provider, MODELMUXER_SIMULATOR_URL="http://provider.example", **forward) as mesh:
        assert (await mesh.stream(mesh.request())).reason == Reason.PROVIDER_OVERLOADED
    assert asked == [b"POST http://provider.example/v1/chat/completions HTTP/1.1\r\n"]


async def test_an_answer_past_the_bound_is_refused(tmp_path: Path, provider: Simulator) -> None:
    async with proxy(tmp_path, provider, MODELMUXER_PROVIDER_MAX_ANSWER_BYTES="2000") as mesh:
        assert (await mesh.stream(mesh.request("tokens=500"))).reason == Reason.PROVIDER_MALFORMED_ANSWER
        assert (await mesh.stream(mesh.request("tokens=2"))).error is None


async def test_calls_that_a_shutdown_cuts_are_on_record(tmp_path: Path, provider: Simulator) -> None:
    async with proxy(tmp_path, provider) as mesh:
        request = mesh.request("tps=20 tokens=1000")
        call = mesh.stub.StreamGenerate(request, timeout=30)
        async for event in call:
            if event.HasField("delta"):
                break
    outcome = await mesh.outcome(request.attempt_id)
    assert (outcome.status, outcome.reason) == ("UNAVAILABLE", Reason.SHUTTING_DOWN)


async def test_the_watch_tells_the_whole_state_at_once_and_what_calls_teach(mesh: ProxyUnderTest) -> None:
    model = "openai/gpt-4o-mini"
    deployment = f"{model}@openai"
    async with asyncio.timeout(1), mesh.watch() as told:
        first = await anext(told)
    assert len(first.deployments) > 60
    assert first.catalogue_version
    before = await mesh.state(deployment)
    assert (before.available, before.calls, before.HasField("time_to_first_token")) == (True, 0, False)
    assert (await mesh.stream(mesh.request("ttft=20ms tps=200 tokens=20", model=model))).error is None
    after = await mesh.state(deployment)
    assert (after.calls, after.in_flight, after.error_rate) == (1, 0, 0)
    assert 0.02 <= after.time_to_first_token.ToTimedelta().total_seconds() < 1
    assert 50 < after.tokens_per_second < 1000
    for _ in range(5):
        await mesh.stream(mesh.request("status=503", model=model))
    assert (await mesh.state(deployment)).error_rate > 0.5


async def test_the_watch_tells_at_once_that_a_provider_wants_to_be_left_alone(mesh: ProxyUnderTest) -> None:
    model = "openai/gpt-4o-mini"
    async with asyncio.timeout(2), mesh.watch() as told:
        await anext(told)
        asked_at = time.monotonic()
        await mesh.stream(mesh.request("status=429 retry_after=30", model=model))
        states = (await anext(told)).deployments
    assert time.monotonic() - asked_at < 0.5
    rests = {state.deployment: state.retry_after.ToTimedelta().total_seconds() for state in states}
    assert 29 < rests[f"{model}@openai"] <= 30


async def test_a_changed_catalogue_is_used_without_a_restart(tmp_path: Path, provider: Simulator) -> None:
    config = tmp_path / "catalogue.yaml"
    config.write_text("{}\n")
    async with proxy(tmp_path, provider, MODELMUXER_CONFIG=str(config)) as mesh:
        async with asyncio.timeout(5), mesh.watch() as told:
            before = (await anext(told)).catalogue_version
            config.write_text("models:\n  openai/gpt-4o-mini: {description: changed}\n")
            while (await anext(told)).catalogue_version == before:
                pass
        assert (await mesh.stream(mesh.request("tokens=2", model="openai/gpt-4o-mini"))).error is None


async def test_tokens_are_counted_by_the_provider_where_it_counts(mesh: ProxyUnderTest) -> None:
    for wire in FORMATS:
        chat = mesh.request(model=f"{wire}/sim-test").chat
        counted = await mesh.stub.CountTokens(CountTokensRequest(model=f"{wire}/sim-test", chat=chat), timeout=5)
        expected = UsageSource.USAGE_SOURCE_ESTIMATED if wire == "openai" else UsageSource.USAGE_SOURCE_PROVIDER
        assert (counted.source, counted.input_tokens > 0) == (expected, True)


async def test_provider_options_reach_the_provider(mesh: ProxyUnderTest) -> None:
    options = Struct()
    options.update({"prompt_cache_key": "k"})
    request = mesh.request("tokens=2", provider_options=options)
    await mesh.stream(request)
    (call,) = (await mesh.get(f"/calls/{request.attempt_id}"))["calls"]
    assert call["body"]["prompt_cache_key"] == "k"


async def test_every_provider_of_the_catalogue_calls_tools_and_says_what_it_used(mesh: ProxyUnderTest) -> None:
    models = catalogue.load(None, {"MODELMUXER_SIMULATOR_URL": mesh.simulator.url}).models.values()
    for provider, model in {model.provider: model.id for model in models}.items():
        tools = [Tool(name="weather", parameters_json='{"type": "object"}')]
        request = mesh.request("tool=weather reasoning=5", model=model, tools=tools, max_output_tokens=100)
        ended = await mesh.stream(request)
        assert ended.error is None, provider
        completed = ended.events[-1].completed
        assert completed.finish_reason == FinishReason.FINISH_REASON_TOOL_USE, provider
        (line,) = await mesh.billed(request.attempt_id)
        used = (line["provider"], line["input_tokens"], line["output_tokens"])
        assert used == (line["provider"], completed.usage.input_tokens, completed.usage.output_tokens), provider


async def test_only_the_mesh_gets_in(mesh: ProxyUnderTest) -> None:
    async with grpc.aio.insecure_channel(mesh.app.address) as stranger:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ProviderServiceStub(stranger).Generate(mesh.request(), timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_full_journal_refuses_calls_before_they_are_written(tmp_path: Path, provider: Simulator) -> None:
    environ = {"MODELMUXER_SIMULATOR_URL": provider.url}
    journal = Journal(tmp_path, witness="provider-proxy/test", max_bytes=2000)
    engine = Engine(ProviderProxySettings.load(environ), catalogue.load(None, environ), journal, environ)
    chat = ChatRequest(messages=[Message(role=Role.ROLE_USER, content=[Block(text=Text(text="Hello"))])])

    async def ask(number: int) -> str:
        request = GenerateRequest(attempt_id=f"att_{number}", model="openai/sim-tokens2", chat=chat)
        try:
            await engine.generate(request)
        except MeshError as error:
            failure = error.detail(AttemptFailure) or AttemptFailure(announced=True)
            return f"{error.reason}, announced: {failure.announced}"
        return "answered"

    ends = [await ask(number) for number in range(20)]
    answered = ends.count("answered")
    assert 0 < answered < 20
    assert ends == ["answered"] * answered + ["JOURNAL_FULL, announced: False"] * (20 - answered)
    assert len(provider.bill.report()["calls"]) == answered
    await engine.close()
    journal.close()


async def test_an_attempt_is_one_client_span_that_quotes_nobody(tmp_path: Path, provider: Simulator) -> None:
    spans = InMemorySpanExporter()
    traces = TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(spans))
    tracing = Tracing(traces.get_tracer("test"), traces.shutdown)
    environ = {"MODELMUXER_SIMULATOR_URL": provider.url}
    journal = Journal(tmp_path, witness="provider-proxy/test", max_bytes=1_000_000)
    engine = Engine(ProviderProxySettings.load(environ), catalogue.load(None, environ), journal, environ)
    chat = ChatRequest(
        messages=[Message(role=Role.ROLE_USER, content=[Block(text=Text(text="Secret [[sim reply=secret]]"))])]
    )
    with tracing.span("caller", None, SpanKind.SERVER, {}):
        async with aclosing(engine.stream(GenerateRequest(attempt_id="a", model="openai/sim-a", chat=chat))) as events:
            async for _ in events:
                pass
        with pytest.raises(MeshError):
            await engine.generate(GenerateRequest(attempt_id="b", model="openai/sim-status503", chat=chat))
    await engine.close()
    journal.close()
    streamed, failed, caller = spans.get_finished_spans()
    assert (streamed.name, streamed.kind, failed.name) == ("chat sim-a", SpanKind.CLIENT, "chat sim-status503")
    assert streamed.parent is not None
    assert caller.context is not None
    assert streamed.parent.span_id == caller.context.span_id
    told = dict(streamed.attributes or {})
    assert told[names.GEN_AI_PROVIDER] == "openai"
    assert told[names.GEN_AI_REQUEST_STREAM] is True
    assert told[names.MUX_ATTEMPT_ID] == "a"
    assert told[names.GEN_AI_RESPONSE_FINISH_REASONS] == ("stop",)
    assert told[names.GEN_AI_USAGE_OUTPUT_TOKENS] == 2
    assert dict(failed.attributes or {})[names.ERROR_TYPE] == Reason.PROVIDER_OVERLOADED
    assert "ecret" not in streamed.to_json() + failed.to_json()
