"""Windows, splitting and fairness: no call waits for another's reader or another's size, and memory has bounds."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc import aio
from modelmuxer.tunnel import TunnelChannel, TunnelOptions
from modelmuxer.tunnel.link import UNPACED_BATCHES, Link

from tests.tunnel.conftest import Client, Server, eventually

pytestmark = pytest.mark.usefixtures("carrier")

MIB = 1024 * 1024
SMALL = TunnelOptions(window_bytes=4096, max_message_bytes=MIB, buffer_bytes=MIB)


async def test_a_stalled_reader_costs_its_window_and_stops_nobody() -> None:
    written: dict[str, int] = {}

    async def behaviour(request: Any, context: Any) -> None:
        for count in range(1, 501):
            await context.write("x" * 1000)
            written[request["name"]] = count

    async with Server() as server, TunnelChannel(server.address) as channel:
        server.service.behaviour = behaviour
        client = Client(channel)
        stalled = client.run_stream({"name": "stalled"})
        await stalled.read()

        async def read_all(name: str) -> int:
            return len([m async for m in client.run_stream({"name": name})])

        counts = await asyncio.gather(*(read_all(str(number)) for number in range(50)))
        assert counts == [500] * 50
        assert written["stalled"] <= 64 * 1024 // 1034 + 1
        assert len([m async for m in _rest(stalled)]) == 499


async def _rest(call: Any) -> AsyncIterator[Any]:
    while (message := await call.read()) is not aio.EOF:
        yield message


async def test_a_stalled_handler_holds_its_writer_back() -> None:
    go = asyncio.Event()

    async def behaviour(requests: Any, context: Any) -> None:
        await go.wait()
        count = 0
        async for _ in requests:
            count += 1
        await context.write(count)

    async with Server() as server, TunnelChannel(server.address) as channel:
        server.service.behaviour = behaviour
        client = Client(channel)
        call = client.run_duplex()
        sent = 0

        async def write_all() -> None:
            nonlocal sent
            for _ in range(1000):
                await call.write("y" * 1000)
                sent += 1
            await call.done_writing()

        writer = asyncio.create_task(write_all())
        for _ in range(20):
            await client.empty({})
        assert sent <= 64 * 1024 // 1034 + 1
        go.set()
        assert await call.read() == 1000
        await writer


async def test_empty_messages_are_not_free() -> None:
    written = 0

    async def behaviour(request: Any, context: Any) -> None:
        nonlocal written
        for _ in range(100_000):
            await context.write(0)
            written += 1

    async with Server() as server, TunnelChannel(server.address) as channel:
        server.service.behaviour = behaviour
        client = Client(channel)
        call = client.run_stream({})
        await call.read()
        for _ in range(20):
            await client.empty({})
        assert written <= 64 * 1024 // 32 + 1
        call.cancel()


@pytest.mark.parametrize("size", [0, 1, 4064, 4065, 32 * 1024, 32 * 1024 + 1, 500_000])
async def test_messages_of_any_size_arrive_whole(size: int) -> None:
    async with Server(options=SMALL) as server, TunnelChannel(server.address, tunnel=SMALL) as channel:
        client = Client(channel)
        assert await client.unary({"size": size, "body": "0" * size}) == {"body": "0" * size, "got": size}
        duplex = client.duplex()
        for _ in range(3):
            await duplex.write({"sizes": [size, 1], "body": "0" * size})
            assert len((await duplex.read())["body"]) == size
            assert len((await duplex.read())["body"]) == 1
        duplex.cancel()


async def test_a_message_too_long_ends_its_call_only() -> None:
    async with Server(options=SMALL) as server, TunnelChannel(server.address, tunnel=SMALL) as channel:
        client = Client(channel)
        other = client.duplex()
        for call in (client.unary({"body": "0" * 2 * MIB}), client.unary({"size": 2 * MIB})):
            with pytest.raises(aio.AioRpcError) as error:
                await call
            assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await other.write({"sizes": [1]})
        assert await other.read() == {"body": "0"}
        other.cancel()


async def test_long_messages_share_bounded_memory_and_all_arrive() -> None:
    async with Server(options=SMALL) as server, TunnelChannel(server.address, tunnel=SMALL) as channel:
        client = Client(channel)
        answers = await asyncio.gather(*(client.unary({"size": 700_000, "body": "0" * 700_000}) for _ in range(12)))
        assert [answer["got"] for answer in answers] == [700_000] * 12


async def test_a_long_message_lets_short_calls_pass() -> None:
    """The bound is loose because the machine may be busy; the point is that none waits for the whole transfer."""
    blob = b"\0" * (30 * MIB)

    async def swallow(request: bytes, context: Any) -> bytes:
        return b"%d" % len(request)

    async def echo(request: bytes, context: Any) -> bytes:
        return request

    async with Server() as server, TunnelChannel(server.address) as channel:
        handlers: Any = {
            "Swallow": grpc.unary_unary_rpc_method_handler(swallow),
            "Echo": grpc.unary_unary_rpc_method_handler(echo),
        }
        server.tunnel.add_registered_method_handlers("test.Bytes", handlers)
        short = channel.unary_unary("/test.Bytes/Echo")
        await short(b"warm")
        start = time.perf_counter()
        transfer = asyncio.ensure_future(_await(channel.unary_unary("/test.Bytes/Swallow")(blob)))
        delays = []
        while not transfer.done():
            began = time.perf_counter()
            await short(b"x")
            delays.append(time.perf_counter() - began)
        took = time.perf_counter() - start
        assert await transfer == b"%d" % len(blob)
        assert len(delays) > 10
        assert sorted(delays)[len(delays) // 2] < took / 5


async def _await(call: Any) -> Any:
    return await call


async def test_a_forgotten_stream_is_cancelled() -> None:
    ended: list[str] = []

    async def behaviour(request: Any, context: Any) -> None:
        try:
            while True:
                await context.write("x")
        finally:
            ended.append("yes")

    async with Server() as server, TunnelChannel(server.address) as channel:
        server.service.behaviour = behaviour

        async def read_one() -> None:
            async for _ in Client(channel).run_stream({}, timeout=60):
                return

        await read_one()
        gc.collect()
        await eventually(lambda: ended)


async def test_an_early_answer_ends_the_writing() -> None:
    async def behaviour(requests: Any, context: Any) -> None:
        await context.read()

    async def endless() -> AsyncIterator[Any]:
        while True:
            yield {"body": "x" * 10000}

    async with Server() as server, TunnelChannel(server.address) as channel:
        server.service.behaviour = behaviour
        call = Client(channel).run_duplex(endless())
        assert [response async for response in call] == []
        assert await call.code() is grpc.StatusCode.OK


async def test_nothing_is_left_of_calls_that_have_ended() -> None:
    async with Server() as server, TunnelChannel(server.address) as channel:
        client = Client(channel)

        async def some_of_each(number: int) -> None:
            await client.unary({"size": 50_000})
            doomed = client.hang({"name": str(number)})
            call = client.duplex()
            await call.write({"sizes": [70_000]})
            await call.read()
            doomed.cancel()
            call.cancel()
            with pytest.raises(aio.AioRpcError):
                await client.hang({"name": "late"}, timeout=0.001)

        await asyncio.gather(*(some_of_each(number) for number in range(30)))
        await eventually(lambda: server.tunnel.open_calls == 0)
        (server_link,) = server.tunnel._links
        assert not server_link.streams
        ((_, client_link),) = channel._usable
        assert not client_link.outstanding


async def test_calls_that_come_one_by_one_do_not_wait_for_company(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = Link._sleep

    async def noted(link: Link, enough: int, at_most_s: float | None = None) -> None:
        if at_most_s is not None:
            pauses.append(at_most_s)
        await sleep(link, enough, at_most_s)

    monkeypatch.setattr(Link, "_sleep", noted)
    slow = TunnelOptions(pace_s=0.05)
    async with Server(options=slow) as server, TunnelChannel(server.address, tunnel=slow) as channel:
        client = Client(channel)
        held = [client.hang({"name": str(number)}) for number in range(64)]
        await eventually(lambda: server.tunnel.open_calls == len(held))
        pauses.clear()
        for _ in range(UNPACED_BATCHES // 2):
            await client.empty({})
        assert len(pauses) <= 2  # one at each end, which gathers nothing


async def test_metadata_too_long_ends_its_call_only() -> None:
    async def behaviour(request: Any, context: Any) -> Any:
        context.set_trailing_metadata((("k", "v" * request["size"]),))
        return {}

    async with Server() as server, TunnelChannel(server.address) as channel:
        server.service.behaviour = behaviour
        client = Client(channel)
        for call in (client.run({"size": 100_000}), client.run({"size": 1}, metadata=(("k", "v" * 100_000),))):
            with pytest.raises(aio.AioRpcError) as error:
                await call
            assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await client.run({"size": 60_000}, metadata=(("k", "v" * 60_000),)) == {}


async def test_more_calls_than_a_peer_takes_wait_without_growing_slow() -> None:
    async with Server(options=TunnelOptions(max_calls=20)) as server, TunnelChannel(server.address) as channel:
        client = Client(channel)
        assert len(await asyncio.gather(*(_await(client.empty({})) for _ in range(3000)))) == 3000
        assert not channel._waiting
