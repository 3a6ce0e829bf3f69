"""A TCP wire that can be cut, slowed, and torn in mid-reply: what is connected through it is connected to a target."""

from __future__ import annotations

import asyncio
import contextlib

_CHUNK_BYTES = 1 << 16


class Wire:
    """Listens on a port of its own and carries bytes to a target and back."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.delay_s = 0.0
        """How long each piece of what the target says is held back."""
        self.tear_after_bytes: int | None = None
        """Of what the target says next this much still gets through, on any connection; then that is reset."""

    async def open(self) -> None:
        """Starts to listen."""
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> int:
        """Resets every connection. Returns how many there were."""
        ends, self._ends = self._ends, set()
        for end in ends:
            end.transport.abort()
        return len(ends) // 2

    def close(self) -> None:
        """Stops to listen, and cuts."""
        if self._server is not None:
            self._server.close()
        self.cut()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
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
