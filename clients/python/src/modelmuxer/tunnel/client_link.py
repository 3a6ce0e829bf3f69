"""The client's end of one tunnel: opens calls, hands on what the server says of them."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any
from weakref import ref

import grpc
from grpc import aio
from modelmuxer.tunnel.calls import ClientCall
from modelmuxer.tunnel.direct import Connection, dial
from modelmuxer.tunnel.link import (
    CANCEL,
    END,
    EXCHANGE,
    HEADERS,
    MESSAGE,
    MESSAGE_COST,
    OPEN,
    ROOM_BYTES,
    WINDOW,
    Link,
    Stream,
    TunnelError,
)
from modelmuxer.tunnel.options import Traffic, TunnelOptions
from modelmuxer.tunnel.v1.tunnel_pb2 import ExchangeRequest, ExchangeResponse, Frame, GoingAway

_MAX_ID = 2**32 - 1
_LOGGER = logging.getLogger(__name__)


class NoTunnel(Exception):
    """The peer serves gRPC, but no tunnel."""


class ClientLink(Link):
    """One tunnel to one address. `connect` makes it, `leave` lets it end when its calls have."""

    def __init__(
        self,
        channel: aio.Channel,
        options: TunnelOptions,
        replica: str,
        on_change: Callable[[], None],
        traffic: Traffic,
    ) -> None:
        super().__init__(ExchangeRequest, options, replica, traffic)
        self.going_away: int | None = None
        """Why the server wants this tunnel to end, if it does."""
        self.over = self.loop.create_future()
        """Done when the tunnel is lost or, after `leave`, ended; its result says why."""
        self.departing = self.loop.create_future()
        """Done when no further calls should come here: the server goes away, or the tunnel is over."""
        self.max_calls = 0
        self._channel = channel
        self._on_change = on_change
        self._next_id = 1
        self._leaving = False
        self._crowded = False
        self._exchange: aio.StreamStreamCall[bytes, bytes] | None = None
        self._connection: Connection | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def identity(self) -> str:
        """Who serves at the other end."""
        return self.peer_hello.replica

    @property
    def outstanding(self) -> int:
        return len(self.streams)

    def open_calls(self) -> list[ClientCall[Any, Any]]:
        held = [item() if item.__class__ is ref else item for item in self.streams.values()]
        return [call for call in held if call is not None]

    @property
    def has_room(self) -> bool:
        """Whether another call may be opened now; `on_change` tells when one may again."""
        room = len(self.streams) < self.max_calls and self.waiting_bytes < 4 * ROOM_BYTES and self._next_id < _MAX_ID
        if not room:
            self._crowded = True
        return room

    async def connect(self, metadata: aio.Metadata, host: str | None = None) -> None:
        """Opens the tunnel and waits for the server's hello; goes direct if the server, found at `host`, offers that.

        Raises:
            NoTunnel: the peer answers UNIMPLEMENTED.
            aio.AioRpcError, TimeoutError, TunnelError: there is no such peer, or none that can be understood.
        """
        exchange: Any = self._channel.stream_stream(EXCHANGE)(metadata=metadata)
        self._exchange = exchange
        try:
            async with asyncio.timeout(self.options.connect_timeout_s):
                await exchange.write(self._next_batch().SerializeToString())
                first = await exchange.read()
        except asyncio.InvalidStateError:
            first = aio.EOF
        except BaseException as error:
            exchange.cancel()
            if isinstance(error, aio.AioRpcError) and error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise NoTunnel from None
            raise
        if first is aio.EOF:
            code, details = await exchange.code(), await exchange.details()
            if code is grpc.StatusCode.UNIMPLEMENTED:
                raise NoTunnel
            raise TunnelError(f"the peer ended the tunnel at once: {code.name} {details}")
        batch = _parse(first)
        self.greet(batch)
        self.max_calls = self.peer_hello.max_calls or _MAX_ID
        self._hear_batch(batch)
        self._take(batch.frames)
        if host is not None and self.peer_hello.HasField("direct"):
            self._connection = await self._go_direct(host)
        wire = self._connection or exchange
        create_task = self.loop.create_task
        self._tasks = [create_task(self._read(wire)), create_task(self._write(wire))]
        self.carried_by("grpc" if wire is exchange else "direct")
        if wire is not exchange:
            self._tasks.append(create_task(self._read(exchange)))
        self.watch_peer(self._peer_is_dead)

    async def _go_direct(self, host: str) -> Connection | None:
        offer = self.peer_hello.direct
        try:
            return await dial(host, offer.port, offer.ticket, self.options.direct_timeout_s)
        except (OSError, OverflowError) as error:
            reason = str(error) or type(error).__name__
            _LOGGER.warning("No direct connection to %s, port %d: %s; gRPC carries on", host, offer.port, reason)
            return None

    async def _read(self, wire: "aio.StreamStreamCall[bytes, bytes] | Connection") -> None:
        read: Callable[[], Any] = wire.read
        try:
            while (data := await read()) is not aio.EOF:
                batch = _parse(data)
                self._hear_batch(batch)
                await self.take_turns(batch.frames, self._take)
            if self._connection is not None and wire is not self._connection:
                return  # the end of Exchange may overtake what is still to come on the connection
            reason = "The tunnel ended."
        except TunnelError as error:
            reason = f"The tunnel broke: {error}."
        except aio.AioRpcError as error:
            reason = f"The tunnel broke: {error.code().name} {error.details()}"
        except ConnectionError as error:
            reason = f"The tunnel broke: {error}."
        except asyncio.CancelledError:
            reason = "The tunnel was closed."
        self.close(reason)

    async def _write(self, wire: "aio.StreamStreamCall[bytes, bytes] | Connection") -> None:
        try:
            await self.pump(wire.write)
            await wire.done_writing()
        except (aio.AioRpcError, ConnectionError, asyncio.InvalidStateError, asyncio.CancelledError):
            pass  # the reader hears of it too, and says why

    def drained(self) -> None:
        if self._crowded and self.waiting_bytes < ROOM_BYTES:
            self._tell_of_room()

    def _tell_of_room(self) -> None:
        self._crowded = False
        self._on_change()

    def _peer_is_dead(self) -> None:
        silence_s = self.options.ping_interval_s * self.options.ping_limit
        self.close(f"The peer has been silent for more than {silence_s:g} s.")

    # Calls.

    def open(self, call: ClientCall[Any, Any]) -> None:
        """Opens a call, with the messages that it has already got."""
        call.id = call_id = self._next_id
        self._next_id = call_id + 1
        self.traffic.calls += 1
        call.send_window = self.peer_window
        call.recv_window = self._recv_window
        call.carrier = call.link = self
        method = call.method
        self.streams[call_id] = ref(call, self._abandon(call_id)) if method.response_streaming else call
        messages = call.sent or ()
        if call.half_closed and len(messages) == 1:
            message = messages[0]
            size = len(message)
            if self.fits(call, size):
                call.send_window -= size + MESSAGE_COST
                self._begin(
                    call, self._add(id=call_id, kind=OPEN, method=method.name, message=message, half_close=True)
                )
                self._touch(size + call.metadata_bytes + 64)
                return
        self._begin(call, self._add(id=call_id, kind=OPEN, method=method.name))
        self._touch(call.metadata_bytes + 64)
        for message in messages:
            self.send(call, message)
        if call.half_closed:
            self.half_close(call)
        if call.backlog is None:
            call.release()

    @staticmethod
    def _begin(call: ClientCall[Any, Any], frame: Frame) -> None:
        """Puts into the call's first frame what not every call has."""
        if call.metadata:
            frame.metadata.extend(call.metadata)
        if call.deadline is not None:
            frame.timeout_us = max(int((call.deadline - time.monotonic()) * 1e6), 0)

    def _abandon(self, call_id: int) -> "Callable[[ref[Any]], None]":
        def abandoned(_: "ref[Any]") -> None:
            if self.streams.pop(call_id, None) is not None and not self.closed and not self.loop.is_closed():
                self.put(8, id=call_id, kind=CANCEL)
                self._after_call()

        return abandoned

    def cancel(self, stream: Stream) -> None:
        if stream.id in self.streams and not self.closed and not self.loop.is_closed():
            self.put(8, id=stream.id, kind=CANCEL)
            self.forget(stream)

    def forget(self, stream: Stream) -> None:
        self.streams.pop(stream.id, None)  # as `super().forget`, without a call: every call comes by here
        if stream.reserved:
            self._unreserve(stream)
        if self._crowded or self._leaving:
            self._after_call()

    def _after_call(self) -> None:
        if self._crowded:
            self._tell_of_room()
        if self._leaving and not self.streams:
            self.finish()

    def _hear_batch(self, batch: ExchangeResponse) -> None:
        self.hear(batch)
        if batch.HasField("going_away"):
            self._hear_farewell(batch.going_away)

    def _take(self, frames: Sequence[Frame]) -> None:
        find = self.streams.get
        for frame in frames:
            stream = find(frame.id)
            if stream is None:
                continue
            if stream.__class__ is ref:
                stream = stream()
                if stream is None:
                    continue
            kind = frame.kind
            if kind == MESSAGE:
                self.accept(stream, frame)
            elif kind == END:
                if frame.HasField("message"):
                    if frame.rest or stream.parts is not None:
                        self.violate(stream, "a part of a message as its last")
                        continue
                    stream.inbox.append(frame.message)
                self.forget(stream)
                trailers = frame.metadata
                stream.on_end(frame.code, frame.details, trailers[:] if trailers else (), frame.not_started)
            elif kind == WINDOW:
                self.credit(stream, frame.credit)
            elif kind == HEADERS:
                stream.on_headers(frame.metadata[:])
            else:
                raise TunnelError(f"a frame of kind {kind} from a server")

    # The end.

    def _hear_farewell(self, farewell: GoingAway) -> None:
        self.going_away = farewell.reason
        self._depart()
        if not farewell.HasField("last_id"):
            return
        self._next_id = _MAX_ID
        for call_id, held in list(self.streams.items()):
            if call_id > farewell.last_id:
                del self.streams[call_id]
                if (call := held() if held.__class__ is ref else held) is not None:
                    call.on_end(grpc.StatusCode.UNAVAILABLE.value[0], "The peer is going away.", (), not_started=True)
        self.leave()

    def _depart(self) -> None:
        if not self.departing.done():
            self.departing.set_result(None)
            self._on_change()

    def leave(self) -> None:
        """Opens no further calls; the tunnel ends when the open ones have."""
        self._leaving = True
        if not self.streams:
            self.finish()

    def close(self, details: str) -> None:
        self.max_calls = 0
        super().close(details)
        if not self.over.done():
            self.over.set_result(details)
        self._depart()
        if self._exchange is not None:
            self._exchange.cancel()
        if self._connection is not None:
            self._connection.abort()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()


def _parse(data: bytes) -> ExchangeResponse:
    try:
        return ExchangeResponse.FromString(data)
    except Exception as error:
        raise TunnelError("a batch that cannot be read") from error


DRAIN = int(GoingAway.REASON_DRAIN)
