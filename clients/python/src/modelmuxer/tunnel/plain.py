"""Calls to a peer that has no tunnel: each becomes a gRPC call of its own, the caller notices nothing."""

import asyncio
from typing import Any

from grpc import aio
from modelmuxer.tunnel.calls import ClientCall
from modelmuxer.tunnel.link import Carrier, Stream, decode_metadata, encode_metadata

_UNREAD_MESSAGES = 16


class PlainLink(Carrier):
    """Carries calls over the peer's channel, as bytes; every kind of call looks the same on HTTP/2."""

    has_room = True
    going_away = None
    identity = ""

    def __init__(self, channel: aio.Channel, retry_s: float) -> None:
        self.loop = loop = asyncio.get_running_loop()
        self.over = loop.create_future()
        """Done when the link has been left and its last call has ended."""
        self.departing = loop.create_future()
        """Done when it is time to ask the peer again whether it has a tunnel."""
        self._retry = loop.call_later(retry_s, self._depart)
        self._leaving = False
        self._channel = channel
        self._calls: dict[Any, _PlainCall] = {}

    def _depart(self) -> None:
        if not self.departing.done():
            self.departing.set_result(None)

    @property
    def outstanding(self) -> int:
        return len(self._calls)

    def open_calls(self) -> list[ClientCall[Any, Any]]:
        return list(self._calls)

    def open(self, call: ClientCall[Any, Any]) -> None:
        call.carrier = call.link = self
        plain = self._calls[call] = _PlainCall(self._channel, call)
        plain.task.add_done_callback(lambda _: self._forget(call))
        for message in call.sent or ():
            plain.outbox.put_nowait((message, None))
        if call.half_closed:
            plain.outbox.put_nowait(None)
        call.release()

    def send(self, stream: Stream, message: bytes, *, half_close: bool = False) -> asyncio.Future[None] | None:
        plain = self._calls.get(stream)
        if plain is None:
            return None
        left = self.loop.create_future()
        plain.outbox.put_nowait((message, left))
        return left

    def half_close(self, stream: Stream) -> None:
        if (plain := self._calls.get(stream)) is not None:
            plain.outbox.put_nowait(None)

    def cancel(self, stream: Stream) -> None:
        if (plain := self._calls.pop(stream, None)) is not None:
            plain.task.cancel()

    def _forget(self, call: Stream) -> None:
        self._calls.pop(call, None)
        if self._leaving and not self._calls and not self.over.done():
            self.over.set_result("The peer is called anew.")

    def consumed(self, stream: Stream, cost: int) -> None:
        if (plain := self._calls.get(stream)) is not None and len(stream.inbox) < _UNREAD_MESSAGES:
            plain.room.set()

    def leave(self) -> None:
        """Opens no further calls."""
        self._leaving = True
        if not self._calls and not self.over.done():
            self.over.set_result("The peer is called anew.")

    def close(self, details: str) -> None:
        self.has_room = False
        self._retry.cancel()
        for call in list(self._calls):
            self.cancel(call)
            call.lost(details)
        if not self.over.done():
            self.over.set_result(details)
        self._depart()


class _PlainCall:
    """The two directions of one call."""

    def __init__(self, channel: aio.Channel, call: ClientCall[Any, Any]) -> None:
        self.outbox: asyncio.Queue[tuple[bytes, asyncio.Future[None] | None] | None] = asyncio.Queue()
        self.room = asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._run(channel, call))

    async def _run(self, channel: aio.Channel, call: ClientCall[Any, Any]) -> None:
        metadata = aio.Metadata(*decode_metadata(call.metadata))
        exchange: Any = channel.stream_stream(call.method.name)(
            timeout=call.time_remaining(), metadata=metadata, wait_for_ready=call.wait_for_ready
        )
        writer = asyncio.create_task(self._write(exchange))
        try:
            call.on_headers(encode_metadata(await exchange.initial_metadata()))
            while (message := await exchange.read()) is not aio.EOF:
                call.inbox.append(message)
                call.wake_reader()
                if len(call.inbox) >= _UNREAD_MESSAGES:
                    self.room.clear()
                    await self.room.wait()
        except aio.AioRpcError:
            pass  # its status is read below
        finally:
            writer.cancel()
            exchange.cancel()
        code, details = await exchange.code(), await exchange.details()
        trailers = encode_metadata(await exchange.trailing_metadata())
        call.on_end(code.value[0], details or "", trailers, not_started=False)

    async def _write(self, exchange: "aio.StreamStreamCall[bytes, bytes]") -> None:
        try:
            while (item := await self.outbox.get()) is not None:
                message, left = item
                await exchange.write(message)
                if left is not None and not left.done():
                    left.set_result(None)
            await exchange.done_writing()
        except (aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the reader hears of it too, and says why
