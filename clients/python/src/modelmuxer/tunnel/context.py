"""The server's half of a call: a `grpc.aio.ServicerContext` that runs its own handler.

Follows grpc.aio's server in what it answers when: an exception that no one catches is UNKNOWN, a handler that sets a
code and returns has that status and no response, `abort` ends the call even if its exception is swallowed.
"""

import asyncio
import inspect
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from grpc import aio
from modelmuxer.tunnel.link import (
    MAX_METADATA_BYTES,
    STATUS_CODES,
    Metadata,
    Metadatum,
    Stream,
    decode_metadata,
    encode_metadata,
)

if TYPE_CHECKING:
    from modelmuxer.tunnel.servicer import ServerLink

_LOGGER = logging.getLogger(__name__)
_OK = grpc.StatusCode.OK
_FINISHED = "RPC already finished."


class CallDetails(grpc.HandlerCallDetails):
    """What interceptors learn of a call before its handler is found."""

    __slots__ = ("invocation_metadata", "method")

    def __init__(self, method: str, invocation_metadata: tuple[Metadatum, ...]) -> None:
        self.method = method
        self.invocation_metadata = invocation_metadata


class TunnelledContext(Stream, aio.ServicerContext[Any, Any]):
    """One call on the server."""

    link: "ServerLink"
    awaited = False
    task: asyncio.Task[None]
    deadline: float | None = None
    half_closed = False
    _handler: Any = None
    _code: grpc.StatusCode | None = None
    _details = ""
    _trailers: Metadata = ()
    _slot = 0
    _begun = False
    _headers_sent = False
    _over = False
    _cancelled = False
    _aborted: aio.AbortError | None = None
    _callbacks: list[Callable[[Any], None]] | None = None

    def __init__(self, link: "ServerLink", call_id: int, method: str, metadata: Sequence[bytes]) -> None:
        self.link = link
        self.id = call_id
        self.method = method
        self.inbox = deque()
        self._metadata = decode_metadata(metadata[:]) if metadata else ()  # protobuf's own list is slow

    # What handlers see.

    async def read(self) -> Any:
        self._check()
        message = await self._receive()
        self._check()
        if message is None:
            return aio.EOF
        deserialize = self._handler.request_deserializer
        return message if deserialize is None else deserialize(message)

    async def write(self, message: Any) -> None:
        self._check()
        serialize = self._handler.response_serializer
        data = message if serialize is None else serialize(message)
        self._headers_sent = True
        left = self.link.send(self, data)
        if left is not None:
            await asyncio.shield(left)
            if self._over:
                self._check()

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        self._check()
        if self._headers_sent:
            raise aio.UsageError("Send initial metadata failed: already sent")
        self._headers_sent = True
        self.link.send_headers(self, _encode(initial_metadata))

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        if self._aborted is not None:
            raise aio.UsageError("Abort already called!")
        self._aborted = aio.AbortError("Locally aborted.")
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        self._code = code = _status_code(code)
        self._details = details or self._details
        self._end(code, self._details)
        raise self._aborted

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self._trailers = tuple(trailing_metadata)

    def trailing_metadata(self) -> Any:
        return self._trailers

    def invocation_metadata(self) -> Any:
        return self._metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = _status_code(code)

    def code(self) -> Any:
        return self._code

    def set_details(self, details: str) -> None:
        self._details = details

    def details(self) -> str:
        return self._details

    def set_compression(self, compression: grpc.Compression) -> None:
        if self._headers_sent:
            raise RuntimeError("Compression setting must be specified before sending initial metadata")

    def disable_next_message_compression(self) -> None:
        pass  # nothing in a tunnel is compressed

    def peer(self) -> str:
        return self.link.context.peer()

    def peer_identities(self) -> Iterable[bytes] | None:
        return self.link.context.peer_identities()

    def peer_identity_key(self) -> str | None:
        return self.link.context.peer_identity_key()

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self.link.context.auth_context()

    def time_remaining(self) -> float | None:  # type: ignore[override]
        return None if self.deadline is None else max(self.deadline - time.monotonic(), 0)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append(callback)

    def done(self) -> bool:
        return self._over

    def cancelled(self) -> bool:
        return self._cancelled or self._code is grpc.StatusCode.CANCELLED

    def __aiter__(self) -> AsyncIterator[Any]:
        """The requests, for handlers that iterate over them."""
        return self

    async def __anext__(self) -> Any:
        message = await self.read()
        if message is aio.EOF:
            raise StopAsyncIteration
        return message

    # Its course.

    def start(self, timeout_s: float | None) -> None:
        if timeout_s is not None:
            self.deadline = deadline = time.monotonic() + timeout_s
            self._slot = self.link.deadlines.add(self, deadline)

    async def run(self) -> None:
        """Finds the handler, runs it and answers; never raises."""
        self._begun = True
        try:
            if self._over:
                return
            handler: Any = self.link.handlers.get(self.method)
            if handler is None:
                handler = await self.link.find_handler(CallDetails(self.method, self._metadata))
            if handler is None:
                self._end(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
                return
            self._handler = handler
            if handler.request_streaming:
                request: Any = self
            else:
                data = self.inbox.popleft() if self.inbox else await self._request()
                request = data if handler.request_deserializer is None else handler.request_deserializer(data)
            if handler.response_streaming:
                answer = (handler.stream_stream or handler.unary_stream)(request, self)
                await self._send_all(answer)
            else:
                answer = (handler.stream_unary or handler.unary_unary)(request, self)
                if answer.__class__ is not CoroutineType:
                    answer = _awaitable(answer)
                self._send_response(await answer)
        except asyncio.CancelledError:
            self._end(grpc.StatusCode.CANCELLED, "The handler was cancelled.")
        except Exception as error:
            self._answer_error(error)
        finally:
            self.link.running.discard(self.task)
            if not self._over:
                self._end(grpc.StatusCode.UNKNOWN, "The handler was stopped.")
            if self._callbacks is not None:
                self._call_back()

    def _send_response(self, response: Any) -> None:
        if self._over:
            self._check()
        if self._code is not None and self._code is not _OK:
            self._end(self._code, self._details)
            return
        serialize = self._handler.response_serializer
        data = response if serialize is None else serialize(response)
        if not isinstance(data, bytes):
            raise TypeError(f"a response of type {type(response).__name__}")
        self._end(_OK, self._details, data)

    async def _send_all(self, responses: Any) -> None:
        if not hasattr(responses, "__aiter__"):
            await _awaitable(responses)
        elif hasattr(responses, "aclose"):
            async with aclosing(responses):
                async for response in responses:
                    await self.write(response)
        else:
            async for response in responses:
                await self.write(response)
        if self._over:
            self._check()
        self._end(self._code or _OK, self._details)

    async def _request(self) -> bytes:
        self.awaited = True
        message = await self._receive()
        if message is None:
            self._check()
            await self.abort(grpc.StatusCode.INTERNAL, "The call has no request.")
        return message

    def _answer_error(self, error: Exception) -> None:
        if error is self._aborted:
            return
        if self._over:
            if not isinstance(error, aio.BaseError):
                _LOGGER.error("%s failed after its end: %r", self.method, error)
            return
        _LOGGER.error("unexpected %s in %s", type(error).__name__, self.method, exc_info=error)
        code = grpc.StatusCode.UNKNOWN if self._code is None or self._code is _OK else self._code
        self._end(code, f"Unexpected {type(error)}: {error}")

    async def _receive(self) -> bytes | None:
        """The next message, None after the last."""
        while not self.inbox:
            if self.half_closed or self._over:
                return None
            if self.reader is not None:
                raise aio.UsageError("Another read is waiting.")
            self.reader = reader = self.link.loop.create_future()
            self.link.await_message(self)
            try:
                await reader
            finally:
                self.reader = None
        return self.take()

    def _check(self) -> None:
        """Raises if the call has ended, so that a handler that goes on after its end goes no further."""
        if self._aborted is not None:
            raise self._aborted
        if self._over:
            raise aio.UsageError(_FINISHED)

    def _end(self, code: grpc.StatusCode, details: str, message: bytes | None = None) -> None:
        if self._over:
            return
        self._finish()
        trailers = _encode(self._trailers, strict=False) if self._trailers else ()
        if trailers is None:
            code, details, message, trailers = _TOO_MUCH, "Trailing metadata that cannot be sent.", None, ()
        self.link.send_end(self, 0 if code is _OK else code.value[0], details, trailers, message)

    def _finish(self) -> None:
        self._over = True
        if self._slot:
            self.link.deadlines.drop(self, self._slot)
            self._slot = 0
        if self._cancelled or (self.backlog is None and (self.drained is not None or self.parts is not None)):
            self.release()
        if self.reader is not None:
            self.wake_reader()

    def _call_back(self) -> None:
        for callback in self._callbacks or ():
            try:
                callback(self)
            except Exception:
                _LOGGER.exception("error in a callback of %s", self.method)

    # What the link tells.

    def expire(self) -> None:
        self._stop(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def fail(self, code: grpc.StatusCode, details: str) -> None:
        self._stop(code, details)

    def _stop(self, code: grpc.StatusCode, details: str) -> None:
        self.backlog = None
        self._end(code, details)
        self._stop_task()

    def cancel_call(self) -> None:
        """The client does not want the answer any more: it gets none."""
        self._cancelled = True
        over = self._over
        self._finish()
        if not over:
            self._stop_task()

    def _stop_task(self) -> None:
        """A task that is cancelled before its first step would never get to its `finally`; it sees that it is over."""
        if self._begun:
            self.task.cancel()

    def lost(self, details: str) -> None:
        self.cancel_call()


_TOO_MUCH = grpc.StatusCode.RESOURCE_EXHAUSTED


def _encode(metadata: Metadata, *, strict: bool = True) -> list[bytes] | None:
    """Metadata for the wire; if it cannot be sent, ValueError or None."""
    try:
        flat = encode_metadata(metadata) if metadata else []
        if sum(map(len, flat)) <= MAX_METADATA_BYTES:
            return flat
    except (AttributeError, TypeError, ValueError):
        pass
    if strict:
        raise ValueError("metadata that cannot be sent")
    return None


def _awaitable(result: Any) -> Any:
    if inspect.isawaitable(result):
        return result
    raise TypeError("a handler behind a tunnel must be a coroutine function or an asynchronous generator function")


def _status_code(code: Any) -> grpc.StatusCode:
    """grpc.aio takes plain numbers too, and reads what it does not know as UNKNOWN."""
    if isinstance(code, grpc.StatusCode):
        return code
    return STATUS_CODES.get(code, grpc.StatusCode.UNKNOWN)
