"""Any frames in any order, to either end: the tunnel or the call ends with a status; no crash, no hang, no growth."""

import asyncio
from typing import Any

import grpc
from grpc import aio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modelmuxer.tunnel import TunnelChannel, TunnelOptions, TunnelServicer
from modelmuxer.tunnel.client_link import ClientLink
from modelmuxer.tunnel.v1.tunnel_pb2 import ExchangeRequest, ExchangeResponse, Frame, GoingAway, Hello

from tests.tunnel.conftest import SERVICE, Client, Interop, eventually
from tests.tunnel.wire import FakeChannel, Wire, serve

SMALL = TunnelOptions(
    window_bytes=1024, max_message_bytes=4096, buffer_bytes=8192, max_calls=5, ping_interval_s=60, backoff_s=0.01
)
METHODS = [
    f"/{SERVICE}/{name}"
    for name in ("EmptyCall", "StreamingOutputCall", "FullDuplexCall", "Hang", "StreamingInputCall")
]
MESSAGES = [
    b"",
    b"{}",
    b'{"sizes": [10, 900]}',
    b'{"sizes": [3000]}',
    b'{"body": "xx"}',
    b'{"name": "n"}',
    b"\xff" * 900,
]
uint32 = st.integers(0, 2**32 - 1)


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


frames = st.builds(
    lambda fields: Frame(**fields),
    st.fixed_dictionaries(
        {
            "id": st.one_of(st.integers(0, 8), uint32),
            "kind": st.one_of(st.integers(1, 6), st.integers(0, 9)),
        },
        optional={
            "message": st.one_of(st.sampled_from(MESSAGES), st.binary(max_size=1100)),
            "rest": st.one_of(st.integers(0, 2000), uint32),
            "half_close": st.booleans(),
            "method": st.one_of(st.sampled_from(METHODS), st.text(max_size=10)),
            "timeout_us": st.one_of(st.integers(0, 10_000), st.integers(0, 2**64 - 1)),
            "metadata": st.lists(st.binary(max_size=20), max_size=5),
            "code": st.one_of(st.integers(0, 20), uint32),
            "details": st.text(max_size=20),
            "not_started": st.booleans(),
            "credit": st.one_of(st.integers(0, 2000), uint32),
        },
    ),
)
extras = {"ping": st.integers(0, 2**64 - 1), "pong": st.integers(0, 2**64 - 1)}
hellos = st.builds(Hello, version=st.integers(0, 2), window_bytes=uint32, max_calls=st.integers(0, 9))
contents = st.fixed_dictionaries({"frames": st.lists(frames, max_size=8)}, optional=extras | {"hello": hellos})
farewells = st.builds(GoingAway, reason=st.integers(0, 3), last_id=st.integers(0, 5))
requests = st.one_of(contents.map(lambda c: _request(c).SerializeToString()), st.binary(max_size=30))
responses = st.one_of(
    st.builds(
        lambda content, away: ExchangeResponse(**content, **away).SerializeToString(),
        contents,
        optional(going_away=farewells),
    ),
    st.binary(max_size=30),
)
thorough = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _request(content: dict[str, Any]) -> ExchangeRequest:
    return ExchangeRequest(**content)


def hello(**fields: Any) -> Hello:
    return Hello(version=1, replica="fuzz", window_bytes=1024, **fields)


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@thorough
@given(st.lists(requests, max_size=12), st.booleans())
def test_server(batches: list[bytes], greet: bool) -> None:
    async def play() -> None:
        servicer = TunnelServicer(options=SMALL)
        servicer.add_registered_method_handlers(SERVICE, Interop().handlers())
        wire = Wire()
        served = asyncio.create_task(serve(servicer, wire))
        if greet:
            wire.to_server.put(ExchangeRequest(hello=hello()).SerializeToString())
        for batch in batches:
            wire.to_server.put(batch)
            await turns(3)
            for link in servicer._links:
                check_bounds(link)
        wire.cut()
        assert await asyncio.wait_for(served, 2) is not None
        await eventually(lambda: servicer.open_calls == 0, 2)
        for answer in wire.to_client.items:
            assert isinstance(answer, Exception) or ExchangeResponse.FromString(answer) is not None

    asyncio.run(play())


@thorough
@given(st.lists(responses, max_size=12))
def test_client(batches: list[bytes]) -> None:
    async def play() -> None:
        wires: list[Wire] = []
        channel = TunnelChannel("127.0.0.1:1", tunnel=SMALL, health_service=None)
        channel._dial = lambda address: FakeChannel(wires.append)  # type: ignore[assignment,method-assign,return-value]
        client = Client(channel)
        calls = [
            client.empty({}),
            client.output({"sizes": []}),
            client.input(),
            client.duplex(),
            client.hang({"name": "n"}),
        ]
        unread = [asyncio.ensure_future(anything(read)) for read in (calls[1].read(), calls[3].read())]
        await eventually(lambda: wires, 2)
        wires[0].to_client.put(ExchangeResponse(hello=hello()).SerializeToString())
        await turns()
        for batch in batches:
            wires[0].to_client.put(batch)
            await turns(3)
            for _, link in channel._usable:
                assert isinstance(link, ClientLink)
                check_bounds(link)
        wires[0].cut()
        await turns()
        for task in unread:
            await asyncio.wait_for(task, 2)
        for call in calls:
            if not call.done():
                while await asyncio.wait_for(anything(drain(call)), 2) is None and not call.done():
                    pass
        await channel.close()
        for call in calls:
            assert isinstance(await asyncio.wait_for(call.code(), 2), grpc.StatusCode)

    asyncio.run(play())


async def anything(awaitable: Any) -> Any:
    try:
        return await awaitable
    except (aio.AioRpcError, aio.UsageError, asyncio.CancelledError, asyncio.InvalidStateError) as error:
        return error


async def drain(call: Any) -> Any:
    """Reads a call to its end, or, where none will come, cancels it."""
    if hasattr(call, "read") and call.inbox:
        return await call.read()
    return call.cancel()


def check_bounds(link: Any) -> None:
    for held in link.streams.values():
        stream = held if hasattr(held, "inbox") else held()
        assert sum(map(len, stream.inbox)) <= SMALL.window_bytes + SMALL.max_message_bytes
        assert len(stream.inbox) <= SMALL.window_bytes // 32 + 1
    assert 0 <= link._buffer_left <= SMALL.buffer_bytes
