"""What every call to every service goes through: errors, the mesh token, admission, limits, cancellation, deadlines."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode
from modelmuxer.cache.v1 import cache_pb2, cache_pb2_grpc
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.provider.v1 import provider_pb2, provider_pb2_grpc

from shared import deadline
from shared.errors import MeshError, Reason
from tests.contract.example import PROVIDER, Example, calling, serving, until

COUNT = provider_pb2.CountTokensRequest(model="four")


async def failure(call: Any) -> MeshError:
    """The error that a unary call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return MeshError.from_rpc(caught.value)


async def test_an_error_reaches_the_caller_with_its_reason_field_retry_and_details(tmp_path: Path) -> None:
    detail = provider_pb2.AttemptFailure(http_status=429, provider_code="slow_down")

    async def count(request: Any, context: Any) -> Any:
        raise MeshError(
            Reason.PROVIDER_RATE_LIMITED,
            "The provider asks for a pause – try again.",
            metadata={"provider": "openai"},
            retry_after_s=1.25,
            details=[detail],
            field="messages[0]",
        )

    async with serving(Example(count), tmp_path) as app, calling(app) as stub:
        error = await failure(stub.CountTokens(COUNT))
    assert error.reason is Reason.PROVIDER_RATE_LIMITED
    assert error.code is StatusCode.RESOURCE_EXHAUSTED
    assert error.message == "The provider asks for a pause – try again."
    assert (error.metadata, error.retry_after_s, error.field) == ({"provider": "openai"}, 1.25, "messages[0]")
    assert error.detail(provider_pb2.AttemptFailure) == detail
    assert error.detail(Duration) is None


async def test_an_error_passes_through_a_second_service_whole(tmp_path: Path) -> None:
    async def fail(request: Any, context: Any) -> Any:
        raise MeshError(Reason.UNKNOWN_MODEL, "No such model.", field="model")

    async with serving(Example(fail), tmp_path) as inner, calling(inner) as inner_stub:

        async def forward(request: Any, context: Any) -> Any:
            return await inner_stub.CountTokens(request)

        async with serving(Example(forward), tmp_path) as outer, calling(outer) as stub:
            error = await failure(stub.CountTokens(COUNT))
    assert (error.reason, error.message, error.field) == (Reason.UNKNOWN_MODEL, "No such model.", "model")


async def test_an_unforeseen_exception_is_logged_under_an_id_and_tells_the_caller_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def count(request: Any, context: Any) -> Any:
        raise KeyError("the prompt of somebody")

    with caplog.at_level(logging.ERROR):
        async with serving(Example(count), tmp_path) as app, calling(app) as stub:
            error = await failure(stub.CountTokens(COUNT))
    assert error.reason is Reason.INTERNAL
    assert "KeyError" not in error.message
    assert "prompt" not in error.message
    records = [record for record in caplog.records if record.name == "modelmuxer.rpc"]
    assert [vars(record)["error_id"] for record in records] == [error.metadata["error_id"]]


async def test_a_stream_that_fails_ends_with_the_error_after_what_was_sent(tmp_path: Path) -> None:
    async def events(request: Any, context: Any) -> AsyncIterator[chat_pb2.ChatEvent]:
        yield chat_pb2.ChatEvent()
        raise MeshError(Reason.PROVIDER_STREAM_CUT, "The provider hung up.")

    async with serving(Example(events=events), tmp_path) as app, calling(app) as stub:
        stream = stub.StreamGenerate(provider_pb2.GenerateRequest())
        assert await stream.read() == chat_pb2.ChatEvent()
        error = await failure(stream.read())
    assert error.reason is Reason.PROVIDER_STREAM_CUT


async def test_internal_methods_want_the_mesh_token_and_public_ones_do_not(tmp_path: Path) -> None:
    async with serving(Example(), tmp_path) as app, grpc.aio.insecure_channel(app.address) as channel:
        stub = provider_pb2_grpc.ProviderServiceStub(channel)
        none = await failure(stub.CountTokens(COUNT))
        wrong = await failure(stub.CountTokens(COUNT, metadata=(("x-mesh-token", "a guess"),)))
        right = await stub.CountTokens(COUNT, metadata=(("x-mesh-token", app.mesh_token),))
        public = await cache_pb2_grpc.CacheServiceStub(channel).Fill(iter([cache_pb2.FillRequest()]))
    assert none.reason is wrong.reason is Reason.MESH_TOKEN
    assert none.code is StatusCode.UNAUTHENTICATED
    assert app.mesh_token not in none.message
    assert right.input_tokens == 4
    assert public == cache_pb2.FillResponse()


@pytest.mark.parametrize("method", ["CountTokens", "StreamGenerate"])
async def test_bytes_that_are_no_protobuf_are_refused_with_a_sentence(tmp_path: Path, method: str) -> None:
    async with serving(Example(), tmp_path) as app, grpc.aio.insecure_channel(app.address) as channel:
        call: Any = channel.unary_stream(f"/{PROVIDER}/{method}")
        error = await failure(call(b"\xff\xff\xff", metadata=(("x-mesh-token", app.mesh_token),)).read())
    assert (error.reason, error.code) == (Reason.MALFORMED_REQUEST, StatusCode.INVALID_ARGUMENT)


async def test_bytes_that_are_no_protobuf_in_a_request_stream_are_refused_too(tmp_path: Path) -> None:
    async with serving(Example(), tmp_path) as app, grpc.aio.insecure_channel(app.address) as channel:
        fill: Any = channel.stream_unary("/modelmuxer.cache.v1.CacheService/Fill")
        error = await failure(fill(iter([b"\xff\xff\xff"])))
    assert error.reason is Reason.MALFORMED_REQUEST


async def test_an_oversized_message_is_refused_and_the_service_lives_on(tmp_path: Path) -> None:
    async with serving(Example(), tmp_path, MODELMUXER_MAX_MESSAGE_BYTES="65536") as app, calling(app) as own:
        options = [("grpc.max_send_message_length", -1)]
        async with grpc.aio.insecure_channel(app.address, options=options) as channel:
            stub = provider_pb2_grpc.ProviderServiceStub(channel)
            request = provider_pb2.CountTokensRequest(model="x" * 100_000)
            error = await failure(stub.CountTokens(request, metadata=(("x-mesh-token", app.mesh_token),)))
        assert (await own.CountTokens(COUNT)).input_tokens == 4
    assert error.reason is Reason.REQUEST_TOO_LARGE
    assert "65536" in error.message


async def test_oversized_metadata_is_refused_and_the_service_lives_on(tmp_path: Path) -> None:
    async with serving(Example(), tmp_path) as app, calling(app) as stub:
        error = await failure(stub.CountTokens(COUNT, metadata=(("x-large", "y" * 100_000),)))
        assert (await stub.CountTokens(COUNT)).input_tokens == 4
    assert error.code in {StatusCode.RESOURCE_EXHAUSTED, StatusCode.UNAVAILABLE, StatusCode.INTERNAL}


async def test_a_full_service_refuses_says_so_in_its_health_and_reopens_at_four_fifths(tmp_path: Path) -> None:
    release = [asyncio.Event() for _ in range(5)]
    running = 0

    async def count(request: Any, context: Any) -> Any:
        nonlocal running
        running += 1
        await release[int(request.model)].wait()
        return provider_pb2.CountTokensResponse()

    async with serving(Example(count), tmp_path, WORKER_CONNECTIONS="5") as app, calling(app) as stub:
        calls = [asyncio.ensure_future(_once(stub, str(number))) for number in range(5)]
        await until(lambda: running == 5)
        assert not app.health.serving(PROVIDER)
        assert app.health.serving("readiness")
        assert app.health.serving("")
        refused = await failure(stub.CountTokens(COUNT))
        release[0].set()
        await until(lambda: app.health.serving(PROVIDER))
        for event in release:
            event.set()
        await asyncio.gather(*calls)
        assert app.slots.taken == 0
    assert (refused.reason, refused.code) == (Reason.CONCURRENCY_LIMIT, StatusCode.UNAVAILABLE)
    assert refused.retry_after_s == 1.0


async def _once(stub: Any, model: str) -> Any:
    return await stub.CountTokens(provider_pb2.CountTokensRequest(model=model))


async def test_a_cancelled_call_is_cancelled_in_the_handler_at_once_also_two_hops_away(tmp_path: Path) -> None:
    async def hang(request: Any, context: Any) -> Any:
        await asyncio.Event().wait()

    inner = Example(hang)
    async with serving(inner, tmp_path) as inner_app, calling(inner_app) as inner_stub:

        async def forward(request: Any, context: Any) -> Any:
            return await inner_stub.CountTokens(request)

        async with serving(Example(forward), tmp_path) as outer_app, calling(outer_app) as stub:
            call = stub.CountTokens(COUNT)
            await until(lambda: inner_app.slots.taken == 1)
            call.cancel()
            started = asyncio.get_running_loop().time()
            await until(lambda: inner.ended == ["cancelled"])
            assert asyncio.get_running_loop().time() - started < 0.1
            await until(lambda: inner_app.slots.taken == outer_app.slots.taken == 0)


async def test_leaving_a_stream_closes_the_handlers_generator_at_once(tmp_path: Path) -> None:
    example = Example()
    async with serving(example, tmp_path) as app, calling(app) as stub:
        stream = stub.WatchProviders(provider_pb2.WatchProvidersRequest())
        await stream.read()
        stream.cancel()
        await until(lambda: example.ended == ["closed"])


async def test_a_deadline_travels_over_hops_by_itself(tmp_path: Path) -> None:
    seen: list[float | None] = []

    async def count(request: Any, context: Any) -> Any:
        seen.append(context.time_remaining())
        return provider_pb2.CountTokensResponse()

    async with serving(Example(count), tmp_path) as inner, calling(inner) as inner_stub:

        async def forward(request: Any, context: Any) -> Any:
            assert deadline.remaining_s() is not None or not request.model
            return await inner_stub.CountTokens(request)

        async with serving(Example(forward), tmp_path) as outer, calling(outer) as stub:
            await stub.CountTokens(COUNT, timeout=3)
            await stub.CountTokens(provider_pb2.CountTokensRequest())
    assert seen[0] is not None
    assert 2 < seen[0] < 3.5  # gRPC rounds up
    assert seen[1] is None


async def test_a_deadline_that_passes_ends_the_handler(tmp_path: Path) -> None:
    async def hang(request: Any, context: Any) -> Any:
        await asyncio.Event().wait()

    example = Example(hang)
    async with serving(example, tmp_path) as app, calling(app) as stub:
        error = await failure(stub.CountTokens(COUNT, timeout=0.05))
        await until(lambda: example.ended == ["cancelled"])
    assert error.reason is Reason.DEADLINE_EXCEEDED


async def test_a_peer_that_is_away_is_named_without_its_address(tmp_path: Path) -> None:
    async with serving(Example(), tmp_path) as app, calling(app) as stub:
        await stub.CountTokens(COUNT)
        away = app.channel("127.0.0.1:1")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await provider_pb2_grpc.ProviderServiceStub(away).CountTokens(COUNT)
    error = MeshError.from_rpc(caught.value, unreachable=Reason.PROVIDER_PROXY_UNAVAILABLE)
    assert error.reason is Reason.PROVIDER_PROXY_UNAVAILABLE
    assert "127.0.0.1" not in error.message


async def test_garbage_on_the_port_harms_nobody(tmp_path: Path) -> None:
    garbage = [
        b"",
        b"\x00" * 1000,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 500,
    ]
    async with serving(Example(), tmp_path) as app, calling(app) as stub:
        host, _, port = app.address.rpartition(":")
        for data in garbage:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(data)
            if data:
                await asyncio.wait_for(reader.read(100), 5)
            writer.close()
        assert (await stub.CountTokens(COUNT)).input_tokens == 4


async def test_any_bytes_as_a_message_get_an_answer_or_a_clear_refusal(tmp_path: Path) -> None:
    chance = random.Random(2026)
    valid, refusals = COUNT.SerializeToString(), set()
    async with serving(Example(), tmp_path) as app, grpc.aio.insecure_channel(app.address) as channel:
        count: Any = channel.unary_unary(f"/{PROVIDER}/CountTokens")
        for _ in range(300):
            message = bytearray(valid + chance.randbytes(chance.randrange(40)))
            message[chance.randrange(len(message))] = chance.randrange(256)
            try:
                await count(bytes(message), metadata=(("x-mesh-token", app.mesh_token),), timeout=5)
            except grpc.aio.AioRpcError as error:
                refusals.add(MeshError.from_rpc(error).reason)
    assert refusals == {Reason.MALFORMED_REQUEST}


async def test_a_method_that_is_not_there_is_unimplemented(tmp_path: Path) -> None:
    async with serving(Example(), tmp_path) as app, calling(app) as stub:
        error = await failure(stub.Generate(provider_pb2.GenerateRequest()))
    assert error.code is StatusCode.UNIMPLEMENTED
