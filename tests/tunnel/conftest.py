"""A server with both transports on one port, and a channel of either kind to it."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
import pytest
from grpc import aio
from modelmuxer.tunnel import TunnelChannel, TunnelOptions, TunnelServicer

SERVICE = "test.Interop"


def dump(message: Any) -> bytes:
    return json.dumps(message).encode()


class Interop:
    """The service that gRPC's interoperability tests describe, in JSON, and a few methods of our own."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.contexts: list[Any] = []

    async def EmptyCall(self, request: Any, context: Any) -> Any:
        return {}

    async def UnaryCall(self, request: Any, context: Any) -> Any:
        self.contexts.append(context)
        await echo_metadata(context)
        if status := request.get("status"):
            context.set_code(grpc.StatusCode(_code(status["code"])))
            context.set_details(status["message"])
            return {}
        return {"body": "0" * request.get("size", 0), "got": len(request.get("body", ""))}

    async def StreamingInputCall(self, requests: Any, context: Any) -> Any:
        return {"total": sum([len(request["body"]) async for request in requests])}

    async def StreamingOutputCall(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for size in request["sizes"]:
            yield {"body": "0" * size}

    async def FullDuplexCall(self, requests: Any, context: Any) -> None:
        await echo_metadata(context)
        async for request in requests:
            if status := request.get("status"):
                await context.abort(grpc.StatusCode(_code(status["code"])), status["message"])
            for size in request["sizes"]:
                await context.write({"body": "0" * size})

    async def Hang(self, request: Any, context: Any) -> Any:
        name = request["name"]
        self.started.append(name)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise

    async def Run(self, request: Any, context: Any) -> Any:
        """Does what the test put in `self.behaviour`."""
        return await self.behaviour(request, context)

    async def RunStream(self, request: Any, context: Any) -> None:
        await self.behaviour(request, context)

    async def RunDuplex(self, requests: Any, context: Any) -> None:
        await self.behaviour(requests, context)

    behaviour: Callable[[Any, Any], Awaitable[Any]]

    def handlers(self) -> dict[str, "grpc.RpcMethodHandler[Any, Any]"]:
        kinds: dict[Callable[..., Any], Sequence[Any]] = {
            grpc.unary_unary_rpc_method_handler: (self.EmptyCall, self.UnaryCall, self.Hang, self.Run),
            grpc.stream_unary_rpc_method_handler: (self.StreamingInputCall,),
            grpc.unary_stream_rpc_method_handler: (self.StreamingOutputCall, self.RunStream),
            grpc.stream_stream_rpc_method_handler: (self.FullDuplexCall, self.RunDuplex),
        }
        return {
            method.__name__: make(method, request_deserializer=json.loads, response_serializer=dump)
            for make, methods in kinds.items()
            for method in methods
        }


async def echo_metadata(context: Any) -> None:
    """What the custom_metadata case wants."""
    for key, value in context.invocation_metadata():
        if key == "x-grpc-test-echo-initial":
            await context.send_initial_metadata(((key, value),))
        elif key == "x-grpc-test-echo-trailing-bin":
            context.set_trailing_metadata(((key, value),))


def _code(number: int) -> Any:
    return next(code.value for code in grpc.StatusCode if code.value[0] == number)


class Server:
    """A gRPC server whose port serves plain calls and tunnels, with direct connections if `direct` is set."""

    direct = False

    def __init__(
        self,
        service: Interop | None = None,
        *,
        interceptors: Sequence[aio.ServerInterceptor] = (),
        options: TunnelOptions | None = None,
        with_tunnel: bool = True,
    ) -> None:
        self.service = service or Interop()
        self.grpc = aio.server(interceptors=interceptors)
        self.tunnel = TunnelServicer(interceptors=interceptors, options=options)
        registrars: list[Any] = [self.grpc, self.tunnel] if with_tunnel else [self.grpc]
        for registrar in registrars:
            registrar.add_registered_method_handlers(SERVICE, self.service.handlers())
        if with_tunnel:
            self.tunnel.add_to_server(self.grpc)
        self.address = ""

    async def start(self, address: str = "127.0.0.1:0") -> "Server":
        self.address = f"127.0.0.1:{self.grpc.add_insecure_port(address)}"
        await self.grpc.start()
        if self.direct:
            await self.tunnel.listen("127.0.0.1")
        return self

    async def stop(self) -> None:
        self.tunnel.door.shut()
        await self.grpc.stop(None)

    async def __aenter__(self) -> "Server":
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class Client:
    """The methods of `Interop` on a channel."""

    def __init__(self, channel: aio.Channel, service: str = SERVICE) -> None:
        self.channel = channel

        def method(kind: Callable[..., Any], name: str) -> Any:
            return kind(f"/{service}/{name}", request_serializer=dump, response_deserializer=json.loads)

        self.empty = method(channel.unary_unary, "EmptyCall")
        self.unary = method(channel.unary_unary, "UnaryCall")
        self.hang = method(channel.unary_unary, "Hang")
        self.run = method(channel.unary_unary, "Run")
        self.input = method(channel.stream_unary, "StreamingInputCall")
        self.output = method(channel.unary_stream, "StreamingOutputCall")
        self.run_stream = method(channel.unary_stream, "RunStream")
        self.duplex = method(channel.stream_stream, "FullDuplexCall")
        self.run_duplex = method(channel.stream_stream, "RunDuplex")
        self.missing = method(channel.unary_unary, "Missing")


async def eventually(condition: Callable[[], Any], seconds: float = 5.0) -> Any:
    """Polls a condition until it holds; fails when it does not in time."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s")
        await asyncio.sleep(0.005)
    return result


@pytest.fixture(params=["plain", "tunnel", "direct"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(Server, "direct", request.param == "direct")
    return str(request.param)


@pytest.fixture(params=["grpc", "direct"])
def carrier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What carries the tunnels: every test of a file that uses it runs on both."""
    monkeypatch.setattr(Server, "direct", request.param == "direct")
    return str(request.param)


Connect = Callable[..., aio.Channel]


@pytest.fixture
async def connect(transport: str) -> AsyncIterator[Connect]:
    """Makes channels of the transport under test; they are closed at the end."""
    async with contextlib.AsyncExitStack() as stack:
        channels: list[aio.Channel] = []

        def make(target: str, interceptors: Sequence[aio.ClientInterceptor] = ()) -> aio.Channel:
            if transport == "plain":
                channel: aio.Channel = aio.insecure_channel(target, interceptors=list(interceptors))
            else:
                channel = TunnelChannel(target, interceptors=interceptors)
            channels.append(channel)
            stack.push_async_callback(channel.close)
            return channel

        yield make


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server() as server:
        yield server


@pytest.fixture
def client(server: Server, connect: Connect) -> Client:
    return Client(connect(server.address))
