"""The direct connection: a tunnel's batches on a TCP connection of the event loop's own, past gRPC and its threads.

`tunnel.proto` states the rules. A `Connection` is used as the stream that it stands for: `read`, `write`,
`done_writing`. The `Door` is where a server lets them in.
"""

import asyncio
import secrets
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from grpc import aio
from modelmuxer.tunnel.link import TunnelError

MAX_BATCH_BYTES = 1024 * 1024
MAX_TICKET_BYTES = 64
_LENGTH_BYTES = 4
_HELD_BYTES = 256 * 1024
"""Batches that may wait to be read before the peer is held back."""
_UNSENT_BYTES = 128 * 1024
"""Bytes that may wait, in the kernel and again before it, until they can be sent; then writers do."""
_KERNEL_BYTES = 512 * 1024
"""Bytes that the kernel takes before the peer is held back."""
_TICKET_S = 5.0
"""How long a stranger may take to show a ticket."""
_LINGER_S = 2.0
"""How long a connection that is finished waits for its peer to have read everything."""

_ACCEPTED = bytes(_LENGTH_BYTES)
"""A batch of no bytes."""
_LOST = "the direct connection is lost"


class Unanswered(TunnelError):
    """A ticket was sent, and nobody says what became of it: the tunnel may have moved or not."""


class Connection(asyncio.Protocol):
    """One end. Batches come out of `read` in order, then `aio.EOF`; a loss without that is an error.

    With `admit`, this is a server's end, whose first batch is a ticket: `admit` says whether it is good.
    """

    def __init__(self, admit: "Callable[[Connection, bytes], bool] | None" = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._admit = admit
        self._limit = MAX_BATCH_BYTES if admit is None else MAX_TICKET_BYTES
        self._transport = cast(asyncio.Transport, None)
        self._batches: deque[bytes] = deque()
        self._held_bytes = 0
        self._rest = b""
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._resting = self._full = self._finished = self._ended = self._lost = False
        self._alarm: asyncio.TimerHandle | None = None

    # What a link does with a stream.

    async def read(self) -> Any:
        """The next batch, or `aio.EOF`."""
        batches = self._batches
        while not batches:
            if self._lost and not self._ended:
                raise ConnectionResetError(_LOST)
            if self._ended:
                return aio.EOF
            self._reader = self._loop.create_future()
            await self._reader
        batch = batches.popleft()
        self._held_bytes -= len(batch)
        if self._resting and self._held_bytes < _HELD_BYTES:
            self._resting = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        return batch

    async def write(self, batch: bytes) -> None:
        """Sends a batch; returns when there is room for another. Raises ConnectionError if the connection is lost."""
        if self._transport.is_closing():
            raise ConnectionResetError(_LOST)
        self._transport.write(len(batch).to_bytes(_LENGTH_BYTES, "big") + batch)
        if self._full:
            self._writer = self._loop.create_future()
            await self._writer

    async def done_writing(self) -> None:
        """Shuts this end's direction down once all is sent."""
        if not self._transport.is_closing():
            self._transport.write_eof()

    def finish(self) -> None:
        """Ends the connection once the peer has had the time to read what is on its way."""
        self._finished = True
        if self._transport.is_closing():
            return
        self._transport.write_eof()
        if self._ended:
            self._transport.close()
        else:  # closed with something unread, a socket would tell the peer to forget what it has not read either
            self._transport.resume_reading()
            self._alarm = self._loop.call_later(_LINGER_S, self._transport.abort)

    def abort(self) -> None:
        """Ends the connection at once."""
        self._transport.abort()

    # What the event loop does with a protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=_UNSENT_BYTES)
        _bound_buffers(transport.get_extra_info("socket"))
        if self._admit is not None:
            self._alarm = self._loop.call_later(_TICKET_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._finished:
            return
        if self._rest:
            data = self._rest + data
        start, end = 0, len(data)
        while (body := start + _LENGTH_BYTES) <= end:
            stop = body + int.from_bytes(data[start:body], "big")
            if stop - body > self._limit:
                self._transport.abort()
                return
            if stop > end:
                break
            start = stop
            if self._admit is None:
                self._batches.append(data[body:stop])
                self._held_bytes += stop - body
            elif not self._enter(data[body:stop]):
                return
        self._rest = data[start:]
        if self._held_bytes >= _HELD_BYTES and not self._resting:
            self._resting = True
            self._transport.pause_reading()
        if self._reader is not None:
            self._wake_reader()

    def _enter(self, ticket: bytes) -> bool:
        admit, self._admit = self._admit, None
        if self._alarm is not None:
            self._alarm.cancel()
        if admit is None or not admit(self, ticket):
            self._transport.abort()
            return False
        self._limit = MAX_BATCH_BYTES
        self._transport.write(_ACCEPTED)
        return True

    def eof_received(self) -> bool:
        self._ended = True
        self._wake_reader()
        return self._admit is None and not self._finished  # whether there may still be something to send

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        if self._alarm is not None:
            self._alarm.cancel()
        self._wake_reader()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        writer, self._writer = self._writer, None
        if writer is not None and not writer.done():
            writer.set_result(None)

    def _wake_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)


def _bound_buffers(connected: socket.socket) -> None:
    """What lies in the kernel's buffers is ahead of every later frame: they hold little more than is on its way."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KERNEL_BYTES)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)


async def dial(host: str, port: int, ticket: bytes, timeout_s: float) -> Connection:
    """Connects to a server's door. Raises OSError where that leads nowhere, TimeoutError being one, and Unanswered."""
    async with asyncio.timeout(timeout_s):
        _, connection = await asyncio.get_running_loop().create_connection(Connection, host, port)
    try:
        await connection.write(ticket)
        async with asyncio.timeout(timeout_s):
            answer = await connection.read()
        if answer != _ACCEPTED[_LENGTH_BYTES:]:
            raise ConnectionRefusedError("the ticket was refused")
    except TimeoutError:
        connection.abort()
        raise Unanswered(f"port {port} did not answer within {timeout_s:g} s") from None
    except BaseException:
        connection.abort()
        raise
    return connection


class Door:
    """A server's port for direct connections: lets in whoever shows a ticket, each once."""

    def __init__(self) -> None:
        self.port = 0
        """0 while the door is shut."""
        self._guests: dict[bytes, Callable[[Connection], None]] = {}
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> None:
        """Raises OSError where the port cannot be had; 0 is any free one. "::" is all of IPv4 too, as it is to gRPC."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        dual = host == "::" and socket.has_dualstack_ipv6()
        listening = socket.create_server((host, port), family=family, dualstack_ipv6=dual)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self._admit), sock=listening)
        self.port = listening.getsockname()[1]

    def issue(self, guest: Callable[[Connection], None]) -> bytes:
        """A ticket; `guest` is called with the connection of whoever shows it."""
        ticket = secrets.token_bytes(16)
        self._guests[ticket] = guest
        return ticket

    def revoke(self, ticket: bytes) -> None:
        self._guests.pop(ticket, None)

    def _admit(self, connection: Connection, ticket: bytes) -> bool:
        guest = self._guests.pop(ticket, None)
        if guest is not None:
            guest(connection)
        return guest is not None

    def shut(self) -> None:
        """Lets nobody in any more; who is in stays."""
        self.port = 0
        if self._server is not None:
            self._server.close()
