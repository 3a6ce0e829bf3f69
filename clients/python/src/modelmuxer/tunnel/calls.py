"""The client's half of a call, with the manners of grpc.aio's call objects.

What grpc.aio does where its documentation is silent was taken from its source: messages received before an error are
delivered before it, a stream's status shows once its messages are read, a call that nobody holds any more is cancelled.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar

import grpc
from grpc import aio
from modelmuxer.tunnel.link import (
    MAX_METADATA_BYTES,
    STATUS_CODES,
    Carrier,
    Stream,
    decode_metadata,
    encode_metadata,
)

if TYPE_CHECKING:
    from modelmuxer.tunnel.channel import TunnelChannel

_LOGGER = logging.getLogger(__name__)

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

OK = grpc.StatusCode.OK
LOCALLY_CANCELLED: Final = "Locally cancelled by application!"
DROPPED: Final = "Cancelled upon garbage collection!"
FINISHED = "RPC already finished."
HALF_CLOSED = 'RPC is half closed after calling "done_writing".'
MIXED_STYLES = "The iterator and read/write APIs may not be mixed on a single RPC."
_REPLAY_BYTES = 64 * 1024
_MAX_ATTEMPTS = 4
_AT_HAND: tuple[type, ...] = (tuple, list, type(iter(())), type(iter([])))


class Method(Generic[RequestT, ResponseT]):
    """One method of one channel, and how its messages are written."""

    __slots__ = ("channel", "deserialize", "name", "response_streaming", "serialize")

    def __init__(
        self,
        channel: "TunnelChannel",
        name: str,
        serialize: Callable[[RequestT], bytes] | None,
        deserialize: Callable[[bytes], ResponseT] | None,
        *,
        response_streaming: bool,
    ) -> None:
        self.channel = channel
        self.name = name
        self.serialize = serialize
        self.deserialize = deserialize
        self.response_streaming = response_streaming

    def renamed(self, name: str) -> "Method[RequestT, ResponseT]":
        """Another method with the same messages."""
        streaming = self.response_streaming
        return Method(self.channel, name, self.serialize, self.deserialize, response_streaming=streaming)


class ClientCall(Stream, Generic[RequestT, ResponseT], aio.Call):
    """What calls of the four kinds have in common."""

    _code: grpc.StatusCode | None = None
    _details: str = ""
    _headers: Sequence[bytes] | None = None
    _trailers: Sequence[bytes] = ()
    _ending: tuple[grpc.StatusCode, str, Sequence[bytes]] | None = None
    _cancelled_here = False
    metadata: Sequence[bytes] = ()
    metadata_bytes = 0
    wait_for_ready = False
    deadline: float | None = None
    _slot = 0
    _callbacks: list[Callable[[Any], None]] | None = None
    _finished: asyncio.Future[None] | None = None
    _greeted: asyncio.Future[None] | None = None
    _attempts = 0
    _replay_bytes = 0
    half_closed = False
    sent: list[bytes] | None = None
    """All messages from the first, to be sent again elsewhere; None if they were too many to keep."""
    carrier: Carrier | None = None
    refused_by: Carrier | None = None
    """The peer that would not start the call; another is preferred."""

    def __init__(
        self,
        method: Method[Any, Any],
        timeout: float | None,
        metadata: Iterable[tuple[str, str | bytes]] | None,
        wait_for_ready: bool | None,
    ) -> None:
        self.method = method
        self.inbox = deque()
        if metadata is not None:
            self.metadata = encode_metadata(metadata)
            self.metadata_bytes = sum(map(len, self.metadata))
        if wait_for_ready:
            self.wait_for_ready = True
        if timeout is not None:
            self.deadline = deadline = time.monotonic() + timeout
            self._slot = method.channel.deadlines.add(self, deadline)

    def __del__(self) -> None:
        if self._code is None and self.carrier is not None:
            self._finish_here(grpc.StatusCode.CANCELLED, DROPPED)

    # What generated stubs and interceptors see.

    def cancelled(self) -> bool:
        return self._code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        return self._code is not None

    def cancel(self) -> bool:
        if self._code is not None:
            return False
        self._cancelled_here = True
        self._finish_here(grpc.StatusCode.CANCELLED, LOCALLY_CANCELLED)
        return True

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self._code is not None:
            callback(self)
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    def time_remaining(self) -> float | None:
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 0)

    async def initial_metadata(self) -> aio.Metadata:
        if self._headers is None and self._code is None:
            if self._greeted is None:
                self._greeted = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._greeted)
        return _metadata(self._headers)

    async def trailing_metadata(self) -> aio.Metadata:
        await self._wait()
        return _metadata(self._trailers)

    async def code(self) -> grpc.StatusCode:
        await self._wait()
        return self._code or grpc.StatusCode.UNKNOWN

    async def details(self) -> str:
        await self._wait()
        return self._details

    async def debug_error_string(self) -> str:
        await self._wait()
        return self._debug_string()

    async def wait_for_connection(self) -> None:
        if self.carrier is None and self._code is None:
            await self._opened()
        if self._code is not None:
            self.raise_for_status()

    def _debug_string(self) -> str:
        return f"tunnel call {self.method.name}: {self._code and self._code.name} {self._details}"

    def raise_for_status(self) -> None:
        if self._cancelled_here:
            raise asyncio.CancelledError
        if self._code is not None and self._code is not OK:
            raise aio.AioRpcError(
                self._code,
                _metadata(self._headers),
                _metadata(self._trailers),
                details=self._details,
                debug_error_string=self._debug_string(),
            )

    async def _wait(self) -> None:
        if self._code is None:
            if self._finished is None:
                self._finished = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._finished)

    # Sending.

    def start(self) -> None:
        """Sends the call on its way, or has the channel keep it until there is one."""
        if self.metadata_bytes > MAX_METADATA_BYTES:
            self._finish_here(grpc.StatusCode.RESOURCE_EXHAUSTED, f"Metadata longer than {MAX_METADATA_BYTES} bytes.")
            return
        if self.deadline is not None and self.deadline <= time.monotonic():
            self._finish_here(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
            return
        self.method.channel.send_off(self)

    def serialize(self, request: Any) -> bytes | None:
        """The request's bytes; None if it has none, which ends the call."""
        serialize = self.method.serialize
        if serialize is None:
            return request  # type: ignore[no-any-return]
        try:
            return serialize(request)
        except Exception:
            _LOGGER.exception("a request of %s cannot be serialised", self.method.name)
            self._finish_here(grpc.StatusCode.INTERNAL, "Exception serializing request!")
            return None

    def deserialize(self, message: bytes) -> Any:
        deserialize = self.method.deserialize
        if deserialize is None:
            return message
        try:
            return deserialize(message)
        except Exception as error:
            _LOGGER.exception("a response of %s cannot be read", self.method.name)
            self._ending = None
            self._code = None
            self._finish_here(grpc.StatusCode.INTERNAL, "Exception deserializing response!")
            self._raise_from(error)

    def _raise_from(self, error: Exception) -> NoReturn:
        try:
            self.raise_for_status()
        except aio.AioRpcError as status:
            raise status from error
        raise AssertionError("a status that is not OK raises")

    async def _opened(self) -> None:
        """Waits until the call is on its way, or over."""
        if self.drained is None:
            self.drained = asyncio.get_running_loop().create_future()
        await asyncio.shield(self.drained)

    def _remember(self, message: bytes) -> None:
        if self.sent is None:
            return
        self._replay_bytes += len(message)
        if self._replay_bytes > _REPLAY_BYTES and self.carrier is not None:
            self.sent = None
        else:
            self.sent.append(message)

    # What the carrier tells.

    def on_headers(self, metadata: Sequence[bytes]) -> None:
        if self._headers is None:
            self._headers = metadata
            if self._greeted is not None and not self._greeted.done():
                self._greeted.set_result(None)

    def on_end(self, code: int, details: str, trailers: Sequence[bytes], not_started: bool) -> None:
        """The server's last word."""
        if not_started and self._retry():
            return
        status = STATUS_CODES.get(code, grpc.StatusCode.UNKNOWN) if code else OK
        if self.method.response_streaming and self.inbox:
            self._ending = (status, details, trailers)
            self.method.channel.unread.add(self)
        else:
            self._finish(status, details, trailers)

    def _retry(self) -> bool:
        self._attempts += 1
        if self._code is not None or self.sent is None or self._attempts >= _MAX_ATTEMPTS:
            return False
        refused_by, self.refused_by, self.carrier = self.refused_by, self.carrier, None
        self.backlog = self.tail = None
        if self.method.channel.send_off(self, only_elsewhere=True):
            return True
        self.carrier, self.refused_by = self.refused_by, refused_by
        return False

    def fail(self, code: grpc.StatusCode, details: str) -> None:
        """Ends the call without a word from the server."""
        if self._code is None:
            self._finish_here(code, details)

    def expire(self) -> None:
        self.fail(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def lost(self, details: str) -> None:
        self.on_end(grpc.StatusCode.UNAVAILABLE.value[0], details, (), not_started=False)

    def _finish_here(self, code: grpc.StatusCode, details: str) -> None:
        self.inbox.clear()
        if self.carrier is not None:
            self.carrier.cancel(self)
        else:
            self.method.channel.recall(self)
        self._finish(code, details, ())

    def _finish(self, code: grpc.StatusCode, details: str, trailers: Sequence[bytes]) -> None:
        self._code, self._details, self._trailers = code, details, trailers
        self._ending = None
        if self._slot:
            self.method.channel.deadlines.drop(self, self._slot)
            self._slot = 0
        reader = self.reader  # as `wake_reader`, without a call: every call comes by here
        if reader is not None:
            self.reader = None
            if not reader.done():
                reader.set_result(None)
        if self.backlog is not None or self.drained is not None or self.parts is not None:
            self.release()
        if self._finished is not None or self._greeted is not None:
            for waiting in (self._finished, self._greeted):
                if waiting is not None and not waiting.done():
                    waiting.set_result(None)
        if self._callbacks is not None:
            callbacks, self._callbacks = self._callbacks, None
            for callback in callbacks:
                callback(self)

    def __repr__(self) -> str:
        state = "in progress" if self._code is None else f"{self._code.name} {self._details!r}"
        return f"<{type(self).__name__} {self.method.name} {state}>"


class _UnaryResponse(ClientCall[RequestT, ResponseT]):
    """The half of a call that waits for one response."""

    awaited = True
    _response: Any = None

    def __await__(self) -> Generator[Any, None, ResponseT]:
        while self._code is None:
            if self.reader is not None:
                yield from self._wait().__await__()
                break
            carrier = self.carrier
            loop = asyncio.get_running_loop() if carrier is None else carrier.loop
            self.reader = reader = loop.create_future()
            try:
                yield from reader
            except asyncio.CancelledError:
                self.reader = None
                self.cancel()
                raise
        if self._code is not OK:
            self.raise_for_status()
        if self.inbox:
            self._response = self.deserialize(self.inbox.popleft())
        return self._response  # type: ignore[no-any-return]

    def _finish(self, code: grpc.StatusCode, details: str, trailers: Sequence[bytes]) -> None:
        if code is OK and not self.inbox and self._response is None:
            code, details = grpc.StatusCode.INTERNAL, "The call ended without a response."
        super()._finish(code, details, trailers)


class _StreamResponse(ClientCall[RequestT, ResponseT]):
    """The half of a call that reads responses."""

    _reads_by: str | None = None

    def _style(self, style: str) -> None:
        if self._reads_by is None:
            self._reads_by = style
        elif self._reads_by != style:
            raise aio.UsageError(MIXED_STYLES)

    def __aiter__(self) -> AsyncIterator[ResponseT]:
        self._style("iterator")
        return self

    async def __anext__(self) -> ResponseT:
        if self.inbox:
            return self._take()
        if not await self._arrival():
            self.raise_for_status()
            raise StopAsyncIteration
        return self._take()

    async def read(self) -> Any:
        if self._code is None:
            self._style("reader")
            if self.inbox or await self._arrival():
                return self._take()
        self.raise_for_status()
        return aio.EOF

    def _take(self) -> ResponseT:
        message = self.take()
        if self._ending is not None and not self.inbox:
            self.method.channel.unread.discard(self)
            self._finish(*self._ending)
        return self.deserialize(message)  # type: ignore[no-any-return]

    async def _arrival(self) -> bool:
        """Waits for a message; False if there will be none."""
        while not self.inbox:
            if self._code is not None:
                return False
            if self.reader is not None:
                raise aio.UsageError("Another read is waiting.")
            self.reader = reader = asyncio.get_running_loop().create_future()
            if self.carrier is not None:
                self.carrier.await_message(self)
            try:
                await reader
            except asyncio.CancelledError:
                self.reader = None
                self.cancel()
                raise
        return True


class _StreamRequest(ClientCall[RequestT, ResponseT]):
    """The half of a call that writes requests."""

    _writes_by: str = "writer"
    _poller: asyncio.Task[None] | None = None

    def __init__(
        self,
        method: Method[RequestT, ResponseT],
        timeout: float | None,
        metadata: Any,
        wait_for_ready: bool | None,
        requests: AsyncIterable[RequestT] | Iterable[RequestT] | None,
    ) -> None:
        super().__init__(method, timeout, metadata, wait_for_ready)
        self.sent = []
        if requests is not None:
            self._writes_by = "iterator"
            if not isinstance(requests, AsyncIterable) and isinstance(requests, _AT_HAND):
                self._start_with(requests)
                return
            self._poller = asyncio.get_running_loop().create_task(self._send_all(requests))
        self.start()

    def _start_with(self, requests: Iterable[RequestT]) -> None:
        """Requests that are all there need no task to send them."""
        for request in requests:
            message = self.serialize(request)
            if message is None:
                return
            self._remember(message)
        self.half_closed = True
        self.start()

    async def write(self, request: RequestT) -> None:
        if self._writes_by != "writer":
            raise aio.UsageError(MIXED_STYLES)
        await self._write(request)

    async def done_writing(self) -> None:
        if self._writes_by != "writer":
            raise aio.UsageError(MIXED_STYLES)
        self._done_writing()

    async def _write(self, request: RequestT) -> None:
        if self._code is not None:
            raise asyncio.InvalidStateError(FINISHED)
        if self.half_closed:
            raise asyncio.InvalidStateError(HALF_CLOSED)
        message = self.serialize(request)
        if message is None:
            self.raise_for_status()
            return
        self._remember(message)
        if self.carrier is None:
            waiting = self._opened()
        else:
            left = self.carrier.send(self, message)
            if left is None:
                return
            waiting = asyncio.shield(left)  # type: ignore[assignment]
        try:
            await waiting
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self._code is not None:
            self.raise_for_status()

    def _done_writing(self) -> None:
        if self._code is None and not self.half_closed:
            self.half_closed = True
            if self.carrier is not None:
                self.carrier.half_close(self)

    async def _send_all(self, requests: AsyncIterable[RequestT] | Iterable[RequestT]) -> None:
        try:
            if isinstance(requests, AsyncIterable):
                async for request in requests:
                    await self._write(request)
            else:
                for request in requests:
                    await self._write(request)
            self._done_writing()
        except (aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the call is over, and says itself how
        except BaseException as error:
            _LOGGER.debug("the requests of %s ended with %r", self.method.name, error)
            self.cancel()
            if not isinstance(error, Exception | asyncio.CancelledError):
                raise

    def _finish(self, code: grpc.StatusCode, details: str, trailers: Sequence[bytes]) -> None:
        super()._finish(code, details, trailers)
        if self._poller is not None and self._poller is not _current_task():
            self._poller.cancel()


class _UnaryRequest(ClientCall[RequestT, ResponseT]):
    """The half of a call that sends one request, at once."""

    half_closed = True

    def __init__(
        self,
        method: Method[RequestT, ResponseT],
        timeout: float | None,
        metadata: Any,
        wait_for_ready: bool | None,
        request: RequestT,
    ) -> None:
        super().__init__(method, timeout, metadata, wait_for_ready)
        message = self.serialize(request)
        if message is not None:
            self.sent = [message]
            self.start()


class UnaryUnaryCall(
    _UnaryRequest[RequestT, ResponseT], _UnaryResponse[RequestT, ResponseT], aio.UnaryUnaryCall[RequestT, ResponseT]
):
    """A unary call."""


class UnaryStreamCall(
    _UnaryRequest[RequestT, ResponseT], _StreamResponse[RequestT, ResponseT], aio.UnaryStreamCall[RequestT, ResponseT]
):
    """A server-streaming call."""


class StreamUnaryCall(
    _StreamRequest[RequestT, ResponseT], _UnaryResponse[RequestT, ResponseT], aio.StreamUnaryCall[RequestT, ResponseT]
):
    """A client-streaming call."""


class StreamStreamCall(
    _StreamRequest[RequestT, ResponseT], _StreamResponse[RequestT, ResponseT], aio.StreamStreamCall[RequestT, ResponseT]
):
    """A bidirectional call."""


def _metadata(flat: Sequence[bytes] | None) -> aio.Metadata:
    return aio.Metadata(*decode_metadata(flat)) if flat else aio.Metadata()


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
