"""gRPC's own interoperability cases, written from their public descriptions, over both transports."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc import aio

from tests.tunnel.conftest import Client, Server, eventually

REQUEST_SIZES = [27182, 8, 1828, 45904]
RESPONSE_SIZES = [31415, 9, 2653, 58979]


def sizes(responses: list[Any]) -> list[int]:
    return [len(response["body"]) for response in responses]


async def test_empty_unary(client: Client) -> None:
    assert await client.empty({}) == {}


async def test_large_unary(client: Client) -> None:
    response = await client.unary({"size": 314159, "body": "0" * 271828})
    assert response == {"body": "0" * 314159, "got": 271828}


async def test_client_streaming(client: Client) -> None:
    async def requests() -> AsyncIterator[Any]:
        for size in REQUEST_SIZES:
            yield {"body": "0" * size}

    assert await client.input(requests()) == {"total": 74922}


async def test_server_streaming(client: Client) -> None:
    responses = [response async for response in client.output({"sizes": RESPONSE_SIZES})]
    assert sizes(responses) == RESPONSE_SIZES


async def test_ping_pong(client: Client) -> None:
    call = client.duplex()
    for request_size, response_size in zip(REQUEST_SIZES, RESPONSE_SIZES, strict=True):
        await call.write({"sizes": [response_size], "body": "0" * request_size})
        assert len((await call.read())["body"]) == response_size
    await call.done_writing()
    assert await call.read() is aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_empty_stream(client: Client) -> None:
    call = client.duplex()
    await call.done_writing()
    assert await call.read() is aio.EOF
    assert await call.code() is grpc.StatusCode.OK


METADATA = (
    ("x-grpc-test-echo-initial", "test_initial_metadata_value"),
    ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab"),
)


async def test_custom_metadata_unary(client: Client) -> None:
    call = client.unary({"size": 1}, metadata=METADATA)
    await call
    assert (await call.initial_metadata())["x-grpc-test-echo-initial"] == "test_initial_metadata_value"
    assert (await call.trailing_metadata())["x-grpc-test-echo-trailing-bin"] == b"\xab\xab\xab"


async def test_custom_metadata_duplex(client: Client) -> None:
    call = client.duplex(metadata=METADATA)
    await call.write({"sizes": [1]})
    await call.done_writing()
    assert sizes([response async for response in call]) == [1]
    assert (await call.initial_metadata())["x-grpc-test-echo-initial"] == "test_initial_metadata_value"
    assert (await call.trailing_metadata())["x-grpc-test-echo-trailing-bin"] == b"\xab\xab\xab"


@pytest.mark.parametrize(
    "message",
    [
        pytest.param("test status message", id="status_code_and_message"),
        pytest.param("\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n", id="special_status_message"),
    ],
)
async def test_status_and_message(client: Client, message: str) -> None:
    status = {"code": 2, "message": message}
    with pytest.raises(aio.AioRpcError) as unary:
        await client.unary({"status": status})
    call = client.duplex()
    await call.write({"status": status})
    await call.done_writing()
    with pytest.raises(aio.AioRpcError) as duplex:
        await call.read()
    for error in (unary.value, duplex.value):
        assert error.code() is grpc.StatusCode.UNKNOWN
        assert error.details() == message


async def test_unimplemented_method(client: Client) -> None:
    with pytest.raises(aio.AioRpcError) as error:
        await client.missing({})
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_unimplemented_service(client: Client) -> None:
    with pytest.raises(aio.AioRpcError) as error:
        await Client(client.channel, "test.Unimplemented").empty({})
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_cancel_after_begin(client: Client) -> None:
    call = client.input()
    assert call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_cancel_after_first_response(client: Client) -> None:
    call = client.duplex()
    await call.write({"sizes": [31415], "body": "0" * 27182})
    await call.read()
    assert call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_timeout_on_sleeping_server(client: Client, server: Server) -> None:
    with pytest.raises(aio.AioRpcError) as error:
        await client.hang({"name": "sleeper"}, timeout=0.05)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    call = client.duplex(timeout=0.05)
    await call.write({"sizes": [], "body": "0" * 27182})
    with pytest.raises(aio.AioRpcError) as error:
        await call.read()
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: server.service.cancelled == ["sleeper"])


async def test_many_calls_at_once(client: Client) -> None:
    responses = await asyncio.gather(*(client.unary({"size": size}) for size in range(300)))
    assert sizes(responses) == list(range(300))
