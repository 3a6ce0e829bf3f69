"""Interceptors of both sides, over both transports: each runs once per call."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc import aio

from tests.tunnel.conftest import Client, Connect, Interop, Server, eventually

Code = grpc.StatusCode


class Note(aio.ServerInterceptor):
    def __init__(self, name: str, notes: list[Any]) -> None:
        self.name, self.notes = name, notes

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        if "Interop" in handler_call_details.method:
            metadata = dict(handler_call_details.invocation_metadata)
            self.notes.append((self.name, handler_call_details.method.rpartition("/")[2], metadata.get("who")))
        return await continuation(handler_call_details)


class Deny(aio.ServerInterceptor):
    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        if handler_call_details.method.endswith("/EmptyCall"):

            async def deny(request: Any, context: Any) -> None:
                await context.abort(Code.PERMISSION_DENIED, "not you")

            return grpc.unary_unary_rpc_method_handler(deny)
        return await continuation(handler_call_details)


async def test_of_the_server_run_once_per_call_in_order(connect: Connect) -> None:
    notes: list[Any] = []
    async with Server(interceptors=[Note("outer", notes), Note("inner", notes)]) as server:
        client = Client(connect(server.address))
        await client.empty({}, metadata=(("who", "me"),))
        assert notes == [("outer", "EmptyCall", "me"), ("inner", "EmptyCall", "me")]


async def test_of_the_server_may_answer_in_the_handlers_place(connect: Connect) -> None:
    async with Server(interceptors=[Deny()]) as server:
        client = Client(connect(server.address))
        with pytest.raises(aio.AioRpcError) as error:
            await client.empty({})
        assert (error.value.code(), error.value.details()) == (Code.PERMISSION_DENIED, "not you")
        assert await client.unary({"size": 1}) == {"body": "0", "got": 0}


def with_metadata(details: Any, key: str, value: str) -> aio.ClientCallDetails:
    metadata = aio.Metadata(*(details.metadata or ()))
    metadata.add(key, value)
    return aio.ClientCallDetails(details.method, details.timeout, metadata, details.credentials, details.wait_for_ready)


class Sign(aio.UnaryUnaryClientInterceptor):
    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.notes.append(f"{self.name} in")
        call = await continuation(with_metadata(client_call_details, "who", self.name), request)
        await call
        self.notes.append(f"{self.name} out")
        return call


class SignStream(aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(with_metadata(client_call_details, "who", "stream"), request)


class SignInput(aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(with_metadata(client_call_details, "who", "input"), request_iterator)


class SignDuplex(aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(with_metadata(client_call_details, "who", "duplex"), request_iterator)


async def test_of_the_client_nest_and_change_the_call(connect: Connect, server: Server) -> None:
    notes: list[str] = []
    client = Client(connect(server.address, [Sign("a", notes), Sign("b", notes)]))
    call = client.unary({"size": 2})
    assert await call == {"body": "00", "got": 0}
    assert notes == ["a in", "b in", "b out", "a out"]
    who = [value for key, value in server.service.contexts[0].invocation_metadata() if key == "who"]
    assert who == ["a", "b"]
    assert await call.code() is Code.OK
    assert call.done()


async def test_of_the_client_run_for_calls_that_nobody_awaits(connect: Connect, server: Server) -> None:
    notes: list[str] = []
    client = Client(connect(server.address, [Sign("a", notes)]))
    done: list[Any] = []
    call = client.unary({"size": 2})
    call.add_done_callback(done.append)
    await eventually(lambda: done)
    assert notes[0] == "a in"
    assert await call == {"body": "00", "got": 0}


async def test_of_the_client_see_every_kind(connect: Connect) -> None:
    notes: list[Any] = []
    async with Server(interceptors=[Note("n", notes)]) as server:
        client = Client(connect(server.address, [SignStream(), SignInput(), SignDuplex()]))
        assert len([m async for m in client.output({"sizes": [1, 2]})]) == 2
        assert await client.input([{"body": "a"}]) == {"total": 1}
        by_hand = client.input()
        await by_hand.write({"body": "ab"})
        await by_hand.done_writing()
        assert await by_hand == {"total": 2}
        duplex = client.duplex()
        await duplex.write({"sizes": [1]})
        assert await duplex.read() == {"body": "0"}
        await duplex.done_writing()
        assert await duplex.read() is aio.EOF
        assert [who for _, _, who in notes] == ["stream", "input", "input", "duplex"]


class Invent(aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return {"invented": True}


class Double(aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        call = await continuation(client_call_details, request)

        async def doubled() -> AsyncIterator[Any]:
            async for response in call:
                yield response
                yield response

        return doubled()


class Retry(aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        for _ in range(3):
            call = await continuation(client_call_details, request)
            if await call.code() is Code.OK:
                return call
        return call


async def test_of_the_client_may_answer_themselves(connect: Connect, server: Server) -> None:
    client = Client(connect(server.address, [Invent(), Double()]))
    call = client.empty({})
    assert await call == {"invented": True}
    assert await call.code() is Code.OK
    assert len([m async for m in client.output({"sizes": [1, 2]})]) == 4


async def test_of_the_client_may_try_again(connect: Connect, server: Server) -> None:
    tries: list[int] = []

    async def behaviour(request: Any, context: Any) -> Any:
        tries.append(1)
        if len(tries) < 3:
            await context.abort(Code.UNAVAILABLE, "again")
        return {"tries": len(tries)}

    server.service.behaviour = behaviour
    assert await Client(connect(server.address, [Retry()])).run({}) == {"tries": 3}


class Fail(aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        raise aio.AioRpcError(Code.FAILED_PRECONDITION, aio.Metadata(), aio.Metadata(), "no way")


async def test_of_the_client_may_fail_the_call(connect: Connect, server: Server) -> None:
    call = Client(connect(server.address, [Fail()])).empty({})
    with pytest.raises(aio.AioRpcError):
        await call
    assert await call.code() is Code.FAILED_PRECONDITION
    assert await call.details() == "no way"
    assert call.done()


class Dawdle(aio.UnaryUnaryClientInterceptor):
    def __init__(self) -> None:
        self.cancelled = False

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.cancelled = True
            raise


@pytest.mark.parametrize("started", [True, False])
async def test_a_call_can_be_cancelled_in_their_hands(connect: Connect, server: Server, started: bool) -> None:
    dawdle = Dawdle()
    call = Client(connect(server.address, [dawdle])).empty({})
    if started:
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()
    assert await call.code() is Code.CANCELLED
    assert dawdle.cancelled is started


async def test_cancelling_an_awaited_call_leaves_its_awaiter_alive(connect: Connect, server: Server) -> None:
    call = Client(connect(server.address, [Dawdle()])).empty({})

    async def wait() -> str:
        try:
            await call
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            return "alive"
        return "answered"

    waiter = asyncio.create_task(wait())
    await asyncio.sleep(0.01)
    call.cancel()
    assert await waiter == "alive"


async def test_what_is_no_interceptor_is_refused(connect: Connect) -> None:
    with pytest.raises(ValueError, match="nterceptor"):
        connect("127.0.0.1:1", [Interop()])
