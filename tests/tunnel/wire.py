"""An outer stream in memory: both ends of a tunnel, or one end and a test in the other's place, without sockets."""

import asyncio
from collections import deque
from typing import Any

import grpc
from grpc import aio
from modelmuxer.tunnel.servicer import ServerLink, TunnelServicer


class Pipe:
    """One direction."""

    def __init__(self) -> None:
        self.items: deque[Any] = deque()
        self._reader: asyncio.Future[None] | None = None

    def put(self, item: Any) -> None:
        self.items.append(item)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def get(self) -> Any:
        while not self.items:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        item = self.items.popleft()
        if isinstance(item, Exception):
            self.items.append(item)
            raise item
        return item


BROKEN = aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, aio.Metadata(), aio.Metadata(), "cut")


class Wire:
    """A stream; also what `ClientLink` sees of its exchange."""

    def __init__(self) -> None:
        self.to_server, self.to_client = Pipe(), Pipe()
        self.broken = False

    def cut(self) -> None:
        if not self.broken:
            self.broken = True
            self.to_server.put(BROKEN)
            self.to_client.put(BROKEN)

    async def read(self) -> Any:
        return await self.to_client.get()

    async def write(self, data: bytes) -> None:
        if self.broken:
            raise BROKEN
        self.to_server.put(data)

    async def done_writing(self) -> None:
        self.to_server.put(aio.EOF)

    def cancel(self) -> bool:
        self.cut()
        return True


class ServerContext:
    """What `ServerLink` sees of the stream."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.read = wire.to_server.get

    async def write(self, data: bytes) -> None:
        if self._wire.broken:
            raise BROKEN
        self._wire.to_client.put(data)

    def peer(self) -> str:
        return "memory"


async def serve(servicer: TunnelServicer, wire: Wire) -> str:
    """Serves a tunnel over a wire until it ends; says what broke it."""
    link = ServerLink(servicer, ServerContext(wire))  # type: ignore[arg-type]
    servicer._links.add(link)
    try:
        return await link.run()
    except aio.AioRpcError:
        return "cut"
    finally:
        servicer._links.discard(link)
        link.close("The tunnel ended.")
        wire.cut()


class FakeChannel:
    """What a replica dials: each dial makes a wire, and hands it to whoever plays the server."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def stream_stream(self, method: str) -> Any:
        def exchange(metadata: Any) -> Wire:
            wire = Wire()
            self._answer(wire)
            return wire

        return exchange

    async def close(self) -> None:
        pass
