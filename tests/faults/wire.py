"""A TCP wire that can be cut, slowed, and torn in mid-reply: what is connected through it is connected to a target."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

HOST = "127.0.0.2"
"""Where wires listen: beside what they lead to, so that a port may have the same number at both ends."""
_CHUNK_BYTES = 1 << 16


class Wire:
    """Listens on a port of its own and carries bytes to a target and back.

    A port that the target tells its callers of, `told`, is carried too, under its own number.
    """

    def __init__(self, target_port: int, told: int | None = None) -> None:
        self._target_port = target_port
        self._told = told
        self._servers: list[asyncio.Server] = []
        self._ends: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.delay_s = 0.0
        """How long each piece of what the target says is held back."""
        self.tear_after_bytes: int | None = None
        """Of what the target says next this much still gets through, on any connection; then that is reset."""

    async def open(self) -> None:
        """Starts to listen."""
        self._servers = [await asyncio.start_server(partial(self._connect, self._target_port), HOST, 0)]
        self.port = self._servers[0].sockets[0].getsockname()[1]
        if self._told is not None:
            self._servers.append(await asyncio.start_server(partial(self._connect, self._told), HOST, self._told))

    @property
    def address(self) -> str:
        """host:port that leads to the target."""
        return f"{HOST}:{self.port}"

    def cut(self) -> int:
        """Resets every connection. Returns how many there were."""
        ends, self._ends = self._ends, set()
        for end in ends:
            end.transport.abort()
        return len(ends) // 2

    def close(self) -> None:
        """Stops to listen, and cuts."""
        for server in self._servers:
            server.close()
        self.cut()

    async def _connect(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._ends |= ends
        there = asyncio.create_task(_carry(reader, far_writer))
        back = asyncio.create_task(self._carry_back(far_reader, writer))
        await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        # Neither HTTP nor gRPC goes on with half a connection.
        for end in ends:
            end.close()
        self._ends -= ends
        await asyncio.gather(there, back)

    async def _carry_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if self.tear_after_bytes is not None:
                    writer.write(chunk[: self.tear_after_bytes])
                    await writer.drain()
                    writer.transport.abort()
                    return
                writer.write(chunk)
                await writer.drain()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
