"""Several replicas behind one channel: which one gets a call, and how they come and go without losing one."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from modelmuxer.tunnel import KEY_METADATA, TunnelChannel, TunnelOptions, TunnelServicer

from tests.tunnel.conftest import Client, Interop, Server, eventually

pytestmark = pytest.mark.usefixtures("carrier")

Code = grpc.StatusCode
QUICK = TunnelOptions(resolve_interval_s=0.1, backoff_s=0.02, max_backoff_s=0.1)


class Named(Interop):
    """Says which replica it is, and can be made to wait."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def Run(self, request: Any, context: Any) -> Any:
        self.calls += 1
        await self.gate.wait()
        return self.name


@asynccontextmanager
async def replicas(
    count: int, options: TunnelOptions | None = None, **channel_options: Any
) -> AsyncIterator[tuple[list[Server], Client]]:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(Server(Named(str(i)), options=options)) for i in range(count)]
        target = ",".join(server.address for server in servers)
        channel = await stack.enter_async_context(TunnelChannel(target, tunnel=QUICK, **channel_options))
        await eventually(lambda: channel.get_state(try_to_connect=True) and len(channel._usable) == count)
        yield servers, Client(channel)


async def names(client: Client, count: int, metadata: Sequence[tuple[str, str]] = ()) -> Counter[str]:
    return Counter(await asyncio.gather(*(_run(client, metadata) for _ in range(count))))


async def _run(client: Client, metadata: Any = ()) -> Any:
    return await client.run({}, metadata=metadata)


class TestChoice:
    async def test_fewest_outstanding(self) -> None:
        async with replicas(3) as (servers, client):
            slow: Named = servers[0].service  # type: ignore[assignment]
            slow.gate.clear()
            waiting = [asyncio.ensure_future(_run(client)) for _ in range(9)]
            await eventually(lambda: sum(not call.done() for call in waiting) == slow.calls)
            before = slow.calls
            for _ in range(20):
                assert await _run(client) != "0"
            assert slow.calls == before
            slow.gate.set()
            await asyncio.gather(*waiting)

    async def test_equals_take_turns(self) -> None:
        async with replicas(3) as (_, client):
            assert sorted((await names(client, 30)).values()) == [10, 10, 10]

    async def test_a_key_has_a_home(self) -> None:
        async with replicas(3) as (servers, client):
            homes = {key: await names(client, 5, ((KEY_METADATA, key),)) for key in map(str, range(30))}
            assert all(len(home) == 1 for home in homes.values())
            assert {next(iter(home)) for home in homes.values()} == {"0", "1", "2"}
            async with TunnelChannel(",".join(s.address for s in reversed(servers)), tunnel=QUICK) as channel:
                await eventually(lambda: channel.get_state(try_to_connect=True) and len(channel._usable) == 3)
                for key, home in homes.items():
                    assert await names(Client(channel), 1, ((KEY_METADATA, key),)) == {next(iter(home)): 1}

    async def test_losing_a_replica_moves_its_keys_only(self) -> None:
        async with replicas(3) as (servers, client):
            before = {key: next(iter(await names(client, 1, ((KEY_METADATA, key),)))) for key in map(str, range(30))}
            await servers[2].stop()
            await eventually(lambda: len(client.channel._usable) == 2)  # type: ignore[attr-defined]
            for key, home in before.items():
                after = next(iter(await names(client, 1, ((KEY_METADATA, key),))))
                assert after == home if home != "2" else after != "2"

    async def test_a_process_with_two_addresses_is_one_replica(self) -> None:
        server = await Server(Named("a")).start("0.0.0.0:0")
        port = server.address.rpartition(":")[2]
        try:
            async with TunnelChannel(f"127.0.0.1:{port},127.0.0.2:{port}", tunnel=QUICK) as channel:
                await channel.channel_ready()
                await eventually(lambda: all(r.link is not None for r in channel._replicas.values()), 2)
                assert len(channel._usable) == 1
        finally:
            await server.stop()


class TestComingAndGoing:
    async def test_a_name_is_looked_up_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with (
            Server(Named("a")) as first,
            Server(Named("b")) as second,
            TunnelChannel("x:1", tunnel=QUICK) as channel,
        ):
            addresses = [first.address]

            async def resolve() -> Sequence[str]:
                return list(addresses)

            monkeypatch.setattr(channel._resolver, "resolve", resolve)
            client = Client(channel)
            assert await names(client, 4) == {"a": 4}
            addresses.append(second.address)
            await eventually(lambda: len(channel._usable) == 2, 3)
            assert await names(client, 4) == {"a": 2, "b": 2}
            addresses.remove(first.address)
            await eventually(lambda: len(channel._usable) == 1, 3)
            assert await names(client, 4) == {"b": 4}

    async def test_a_name_that_cannot_be_looked_up_fails_calls(self) -> None:
        async with TunnelChannel("no-such-host.invalid:1", tunnel=QUICK) as channel:
            with pytest.raises(aio.AioRpcError) as error:
                await Client(channel).empty({})
            assert error.value.code() is Code.UNAVAILABLE

    async def test_localhost_is_found_by_name(self) -> None:
        async with Server() as server, TunnelChannel(f"localhost:{server.address.rpartition(':')[2]}") as channel:
            assert await Client(channel).empty({}) == {}

    async def test_not_serving_gets_no_new_call_and_serving_gets_some_again(self) -> None:
        async with AsyncExitStack() as stack:
            checks, servers = [], []
            for name in "ab":
                server = Server(Named(name))
                check = health.aio.HealthServicer()
                health_pb2_grpc.add_HealthServicer_to_server(check, server.grpc)
                checks.append(check)
                servers.append(await stack.enter_async_context(server))
            channel = TunnelChannel(",".join(server.address for server in servers), tunnel=QUICK)
            client = Client(await stack.enter_async_context(channel))
            await eventually(lambda: channel.get_state(try_to_connect=True) and len(channel._usable) == 2)
            await checks[0].set("", health_pb2.HealthCheckResponse.NOT_SERVING)
            await eventually(lambda: len(channel._usable) == 1, 1)
            assert await names(client, 6) == {"b": 6}
            await checks[1].set("", health_pb2.HealthCheckResponse.NOT_SERVING)
            await eventually(lambda: not channel._usable, 1)
            with pytest.raises(aio.AioRpcError) as error:
                await _run(client)
            assert error.value.code() is Code.UNAVAILABLE
            await checks[0].set("", health_pb2.HealthCheckResponse.SERVING)
            await eventually(lambda: channel._usable, 1)
            assert await names(client, 3) == {"a": 3}

    async def test_a_drain_loses_no_call(self) -> None:
        async with replicas(2) as (servers, client):
            failures: list[BaseException] = []
            stop = asyncio.Event()

            async def caller() -> None:
                while not stop.is_set():
                    try:
                        await _run(client)
                    except BaseException as error:
                        failures.append(error)
                        raise

            callers = [asyncio.create_task(caller()) for _ in range(16)]
            await asyncio.sleep(0.1)
            await asyncio.wait_for(servers[0].tunnel.drain(), 5)
            assert servers[0].tunnel.open_calls == 0
            await servers[0].stop()
            await asyncio.sleep(0.1)
            stop.set()
            await asyncio.gather(*callers)
            assert not failures

    async def test_a_drain_waits_for_running_calls(self) -> None:
        async with replicas(2) as (servers, client):
            for server in servers:
                server.service.gate.clear()  # type: ignore[attr-defined]
            running = [asyncio.ensure_future(_run(client)) for _ in range(4)]
            await eventually(lambda: servers[0].tunnel.open_calls == 2)
            drain = asyncio.create_task(servers[0].tunnel.drain())
            await asyncio.sleep(0.05)
            assert not drain.done()
            for server in servers:
                server.service.gate.set()  # type: ignore[attr-defined]
            assert Counter(await asyncio.gather(*running)) == {"0": 2, "1": 2}
            await asyncio.wait_for(drain, 5)

    async def test_a_drain_cuts_what_runs_after_its_grace(self) -> None:
        async with replicas(1) as (servers, client):
            servers[0].service.gate.clear()  # type: ignore[attr-defined]
            running = asyncio.ensure_future(_run(client))
            await eventually(lambda: servers[0].tunnel.open_calls)
            await asyncio.wait_for(servers[0].tunnel.drain(0.05), 2)
            with pytest.raises(aio.AioRpcError) as error:
                await running
            assert error.value.code() is Code.UNAVAILABLE
            await asyncio.wait_for(servers[0].grpc.stop(5), 2)

    async def test_a_lone_drain_ends_without_its_client(self) -> None:
        async with replicas(1) as (servers, client):
            assert await _run(client) == "0"
            await asyncio.wait_for(servers[0].tunnel.drain(), 5)

    async def test_an_old_tunnel_makes_way_for_a_new_one_without_losing_a_call(self) -> None:
        async with replicas(1, TunnelOptions(max_age_s=0.1)) as (servers, client):
            servers[0].service.gate.clear()  # type: ignore[attr-defined]
            held = asyncio.ensure_future(_run(client))
            await eventually(lambda: servers[0].tunnel.open_calls)
            first = client.channel._usable[0][1]  # type: ignore[attr-defined]
            await eventually(lambda: client.channel._usable[0][1] is not first)  # type: ignore[attr-defined]
            servers[0].service.gate.set()  # type: ignore[attr-defined]
            assert await held == "0"
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                assert await _run(client) == "0"
            await eventually(lambda: len(servers[0].tunnel._links) <= 2)

    async def test_a_restarted_replica_is_found_again(self, unused_tcp_port: int) -> None:
        server = await Server(Named("a")).start(f"127.0.0.1:{unused_tcp_port}")
        async with TunnelChannel(server.address, tunnel=QUICK) as channel:
            client = Client(channel)
            assert await _run(client) == "a"
            await server.stop()
            await eventually(lambda: not channel._usable)
            server = await Server(Named("b")).start(f"127.0.0.1:{unused_tcp_port}")
            assert await client.run({}, wait_for_ready=True, timeout=5) == "b"
        await server.stop()


class TestRefusal:
    async def test_a_call_that_was_not_started_goes_elsewhere(self) -> None:
        async with replicas(2, TunnelOptions(max_calls=2)) as (servers, client):
            for server in servers:
                server.service.gate.clear()  # type: ignore[attr-defined]
            for _, link in client.channel._usable:  # type: ignore[attr-defined]
                link.max_calls = 1000  # a client that does not know the server's limit
            calls = [asyncio.ensure_future(_run(client)) for _ in range(2)]
            await eventually(lambda: sum(server.tunnel.open_calls for server in servers) == 2)
            key = ((KEY_METADATA, "k"),)
            calls += [asyncio.ensure_future(_run(client, key)) for _ in range(2)]
            await eventually(lambda: sum(server.tunnel.open_calls for server in servers) == 4)
            with pytest.raises(aio.AioRpcError) as error:
                await _run(client, key)
            assert error.value.code() is Code.RESOURCE_EXHAUSTED
            for server in servers:
                server.service.gate.set()  # type: ignore[attr-defined]
            assert len(await asyncio.gather(*calls)) == 4

    async def test_calls_beyond_the_limit_wait_their_turn(self) -> None:
        async with replicas(1, TunnelOptions(max_calls=4)) as (servers, client):
            assert await names(client, 50) == {"0": 50}
            servers[0].service.gate.clear()  # type: ignore[attr-defined]
            calls = [asyncio.ensure_future(_run(client)) for _ in range(9)]
            await eventually(lambda: servers[0].tunnel.open_calls == 4)
            servers[0].service.gate.set()  # type: ignore[attr-defined]
            assert Counter(await asyncio.gather(*calls)) == {"0": 9}

    async def test_a_call_that_may_have_started_is_not_repeated(self) -> None:
        async with replicas(2) as (servers, client):
            for server in servers:
                server.service.gate.clear()  # type: ignore[attr-defined]
            calls = [asyncio.ensure_future(_run(client)) for _ in range(2)]
            await eventually(lambda: all(server.tunnel.open_calls for server in servers))
            await servers[0].stop()
            servers[1].service.gate.set()  # type: ignore[attr-defined]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            (lost,) = [answer for answer in answers if isinstance(answer, aio.AioRpcError)]
            assert lost.code() is Code.UNAVAILABLE
            assert [server.service.calls for server in servers] == [1, 1]  # type: ignore[attr-defined]


class TestPeerWithoutTunnel:
    async def test_is_called_plainly(self) -> None:
        async with Server(with_tunnel=False) as server, TunnelChannel(server.address, tunnel=QUICK) as channel:
            client = Client(channel)
            metadata = (("x-grpc-test-echo-initial", "value"), ("x-grpc-test-echo-trailing-bin", b"\x01"))
            call = client.unary({"size": 3, "body": "ab"}, metadata=metadata, timeout=5)
            assert await call == {"body": "000", "got": 2}
            assert (await call.initial_metadata())["x-grpc-test-echo-initial"] == "value"
            assert (await call.trailing_metadata())["x-grpc-test-echo-trailing-bin"] == b"\x01"
            assert len([m async for m in client.output({"sizes": [1] * 100})]) == 100
            assert await client.input([{"body": "ab"}] * 50) == {"total": 100}
            duplex = client.duplex()
            await duplex.write({"sizes": [2]})
            assert await duplex.read() == {"body": "00"}
            await duplex.done_writing()
            assert await duplex.read() is aio.EOF
            with pytest.raises(aio.AioRpcError) as error:
                await client.unary({"status": {"code": 5, "message": "none"}})
            assert (error.value.code(), error.value.details()) == (Code.NOT_FOUND, "none")
            hang = client.hang({"name": "h"})
            await eventually(lambda: server.service.started)
            hang.cancel()
            await eventually(lambda: server.service.cancelled)

    async def test_is_asked_again_from_time_to_time(self) -> None:
        options = TunnelOptions(plain_retry_s=0.1)
        async with Server(with_tunnel=False) as server, TunnelChannel(server.address, tunnel=options) as channel:
            client = Client(channel)
            await client.empty({})
            first = channel._usable[0][1]
            await eventually(lambda: channel._usable[0][1] is not first)
            assert await client.empty({}) == {}


async def test_outer_metadata_reaches_the_outer_call_and_is_checked_once() -> None:
    seen: list[str] = []

    class Token(aio.ServerInterceptor):
        async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
            seen.append(str(dict(handler_call_details.invocation_metadata).get("authorization")))
            return await continuation(handler_call_details)

    server = aio.server(interceptors=[Token()])
    tunnel = TunnelServicer()
    tunnel.add_registered_method_handlers("test.Interop", Interop().handlers())
    tunnel.add_to_server(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    metadata = (("authorization", "Bearer mesh"),)
    async with TunnelChannel(f"127.0.0.1:{port}", metadata=metadata, health_service=None) as channel:
        for _ in range(5):
            await Client(channel).empty({})
    await server.stop(None)
    assert seen == ["Bearer mesh"]
