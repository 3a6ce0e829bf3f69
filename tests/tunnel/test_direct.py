"""The direct connection: who gets one, who does not, and what its loss comes to."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import grpc
import pytest
from grpc import aio
from hypothesis import given, settings
from hypothesis import strategies as st
from modelmuxer.tunnel import TunnelChannel, TunnelOptions, TunnelServicer, direct
from modelmuxer.tunnel.direct import Connection, dial
from modelmuxer.tunnel.servicer import ServerLink
from modelmuxer.tunnel.v1.tunnel_pb2 import ExchangeRequest, ExchangeResponse, Frame, Hello

from tests.tunnel.conftest import SERVICE, Client, Server, eventually
from tests.tunnel.test_connection import self_signed
from tests.tunnel.wire import ServerContext, Wire

QUICK = TunnelOptions(resolve_interval_s=0.1, backoff_s=0.02, max_backoff_s=0.1, direct_timeout_s=0.2)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr(Server, "direct", True)
    async with Server() as server:
        yield server


def carriers(of: TunnelChannel | TunnelServicer) -> dict[str, int]:
    return {carrier: count for carrier, count in of.traffic.tunnels.items() if count}


class TestWhoGoesDirect:
    async def test_whoever_is_offered_it(self, server: Server) -> None:
        async with TunnelChannel(server.address) as channel:
            assert await Client(channel).empty({}) == {}
            assert carriers(channel) == carriers(server.tunnel) == {"direct": 1}
        await eventually(lambda: not carriers(server.tunnel))
        assert not carriers(channel)

    async def test_not_who_would_rather_not(self, server: Server) -> None:
        async with TunnelChannel(server.address, tunnel=TunnelOptions(direct_timeout_s=0)) as channel:
            assert await Client(channel).empty({}) == {}
            assert carriers(channel) == carriers(server.tunnel) == {"grpc": 1}

    async def test_no_tunnel_under_tls(self, server: Server) -> None:
        key, certificate = self_signed("localhost")
        secure = aio.server()
        server.tunnel.add_to_server(secure)
        port = secure.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
        await secure.start()
        trusting = grpc.ssl_channel_credentials(certificate)
        async with TunnelChannel(f"localhost:{port}", credentials=trusting, health_service=None) as channel:
            assert await Client(channel).empty({}) == {}
            assert carriers(channel) == {"grpc": 1}
            assert not channel._usable[0][1].peer_hello.HasField("direct")  # type: ignore[union-attr]
        await secure.stop(None)

    async def test_grpc_carries_where_the_port_cannot_be_reached(
        self, server: Server, unused_tcp_port: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.tunnel.door.port = unused_tcp_port
        with caplog.at_level(logging.WARNING):
            async with TunnelChannel(server.address, tunnel=QUICK) as channel:
                assert await Client(channel).empty({}) == {}
                assert carriers(channel) == {"grpc": 1}
        assert f"No direct connection to 127.0.0.1, port {unused_tcp_port}" in caplog.text

    async def test_grpc_carries_where_another_process_answers(self, server: Server) -> None:
        async with Server() as other:
            server.tunnel.door.port = other.tunnel.door.port
            async with TunnelChannel(server.address, tunnel=QUICK) as channel:
                assert await Client(channel).empty({}) == {}
                assert carriers(channel) == {"grpc": 1}

    async def test_grpc_carries_where_the_port_takes_connections_and_says_nothing(self, server: Server) -> None:
        silent = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        server.tunnel.door.port = silent.sockets[0].getsockname()[1]
        async with TunnelChannel(server.address, tunnel=QUICK) as channel:
            assert await Client(channel).empty({}, wait_for_ready=True, timeout=5) == {}
            assert carriers(channel) == {"grpc": 1}
        silent.close()


class TestTheDoor:
    @pytest.mark.parametrize(
        ("host", "found_at"), [("127.0.0.1", ["127.0.0.1"]), ("0.0.0.0", ["127.0.0.1"]), ("::", ["127.0.0.1", "::1"])]
    )
    async def test_it_listens_where_it_is_told(self, host: str, found_at: list[str]) -> None:
        tunnel = TunnelServicer()
        if ":" in host and not socket.has_dualstack_ipv6():
            pytest.skip("this machine has no IPv6")
        port = await tunnel.listen(host)
        for address in found_at:
            (await asyncio.open_connection(address, port))[1].close()
        await tunnel.drain()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(found_at[0], port)

    @pytest.mark.parametrize(
        "said", [b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x10" + b"t" * 16, b"\x00\x00\x00\x00", b"\xff" * 4, b"\x00"]
    )
    async def test_strangers_are_shown_out(self, server: Server, said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(direct, "_TICKET_S", 0.1)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.tunnel.door.port)
        writer.write(said)
        assert await asyncio.wait_for(anything(reader.read()), 5) == b""
        writer.close()

    async def test_a_ticket_is_good_once(self, server: Server) -> None:
        async with TunnelChannel(server.address) as channel:
            await Client(channel).empty({})
            offer = channel._usable[0][1].peer_hello.direct  # type: ignore[union-attr]
            with pytest.raises(OSError, match=r"refused|lost"):
                await dial("127.0.0.1", offer.port, offer.ticket, 1)
            assert await Client(channel).empty({}) == {}

    async def test_a_ticket_ends_with_its_tunnel(self, server: Server) -> None:
        async with TunnelChannel(server.address, tunnel=TunnelOptions(direct_timeout_s=0)) as channel:
            await Client(channel).empty({})
            offer = channel._usable[0][1].peer_hello.direct  # type: ignore[union-attr]
        await eventually(lambda: not server.tunnel.door._guests)
        with pytest.raises(OSError, match=r"refused|lost"):
            await dial("127.0.0.1", offer.port, offer.ticket, 1)

    async def test_a_ticket_may_overtake_its_hello(self, server: Server) -> None:
        wire = Wire()
        link = ServerLink(server.tunnel, ServerContext(wire))  # type: ignore[arg-type]
        link.offer_direct(server.tunnel.door)
        served = asyncio.create_task(link.run())
        offer = ExchangeResponse.FromString(await wire.read()).hello.direct
        connection = await dial("127.0.0.1", offer.port, offer.ticket, 1)
        frame = Frame(id=1, kind=Frame.KIND_OPEN, method=f"/{SERVICE}/EmptyCall", message=b"{}", half_close=True)
        await connection.write(ExchangeRequest(frames=[frame]).SerializeToString())
        await wire.write(ExchangeRequest(hello=Hello(version=1, window_bytes=1024)).SerializeToString())
        answer = ExchangeResponse.FromString(await connection.read())
        assert [(frame.kind, frame.message) for frame in answer.frames] == [(Frame.KIND_END, b"{}")]
        await connection.done_writing()
        assert await asyncio.wait_for(served, 5) == ""
        link.close("")
        assert await connection.read() is aio.EOF


class TestLoss:
    @asynccontextmanager
    async def waiting(self, server: Server) -> AsyncIterator[tuple[TunnelChannel, ServerLink]]:
        """A call that waits in a tunnel, and both ends of the tunnel."""
        async with TunnelChannel(server.address, tunnel=QUICK) as channel:
            client = Client(channel)
            call = asyncio.ensure_future(code(client.hang({"name": "h"})))
            await eventually(lambda: server.service.started)
            (link,) = server.tunnel._links
            yield channel, link
            assert await asyncio.wait_for(call, 5) is grpc.StatusCode.UNAVAILABLE
            await eventually(lambda: server.service.cancelled == ["h"])
            assert await client.empty({}, wait_for_ready=True, timeout=5) == {}
            await eventually(lambda: carriers(channel) == carriers(server.tunnel) == {"direct": 1})

    async def test_of_the_connection_at_the_server(self, server: Server) -> None:
        async with self.waiting(server) as (_, link):
            link._wire.abort()  # type: ignore[call-arg]

    async def test_of_the_connection_at_the_client(self, server: Server) -> None:
        async with self.waiting(server) as (channel, _):
            channel._usable[0][1]._connection.abort()  # type: ignore[union-attr]

    async def test_of_exchange(self, server: Server) -> None:
        async with self.waiting(server) as (channel, _):
            channel._usable[0][1]._exchange.cancel()  # type: ignore[union-attr]

    async def test_a_batch_that_cannot_be_read_breaks_the_tunnel(self, server: Server) -> None:
        async with self.waiting(server) as (channel, _):
            await channel._usable[0][1]._connection.write(b"\xff\xff\xff")  # type: ignore[union-attr]

    async def test_a_batch_beyond_the_bound_breaks_the_tunnel(self, server: Server) -> None:
        async with self.waiting(server) as (channel, _):
            channel._usable[0][1]._connection._transport.write(b"\x7f\xff\xff\xff")  # type: ignore[union-attr]


class Transport(asyncio.Transport):
    """What a connection sees of the socket."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = self.resting = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self

    def setsockopt(self, *_: int) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.resting = True

    def resume_reading(self) -> None:
        self.resting = False


def framed(batch: bytes) -> bytes:
    return len(batch).to_bytes(4, "big") + batch


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def play(work: Callable[[Connection, Transport], Any]) -> Any:
    async def run() -> Any:
        connection, transport = Connection(), Transport()
        connection.connection_made(transport)
        return await work(connection, transport)

    return asyncio.run(run())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=10), st.lists(st.integers(0, 5000), max_size=10))
def test_batches_come_out_whole_wherever_they_are_cut(batches: list[bytes], places: list[int]) -> None:
    async def work(connection: Connection, transport: Transport) -> None:
        for part in cut(b"".join(map(framed, batches)), places):
            connection.data_received(part)
        connection.eof_received()
        assert [await connection.read() for _ in batches] == batches
        assert await connection.read() is aio.EOF

    play(work)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=10))
def test_any_bytes_end_as_batches_or_as_a_loss(parts: list[bytes]) -> None:
    async def work(connection: Connection, transport: Transport) -> None:
        for part in parts:
            if not transport.aborted:
                connection.data_received(part)
        connection.connection_lost(None)
        while connection._batches:
            assert isinstance(await connection.read(), bytes)
        with pytest.raises(ConnectionError):
            await connection.read()

    play(work)


def test_a_reader_that_stalls_holds_its_peer_back() -> None:
    async def work(connection: Connection, transport: Transport) -> None:
        batch, count = b"x" * 1000, 0
        while not transport.resting:
            connection.data_received(framed(batch))
            count += 1
        assert count <= direct._HELD_BYTES // len(batch) + 1
        assert [await connection.read() for _ in range(count)] == [batch] * count
        assert not transport.resting

    play(work)


async def code(call: aio.Call) -> grpc.StatusCode:
    return await call.code()


async def anything(reading: Any) -> Any:
    try:
        return await reading
    except ConnectionError:
        return b""
