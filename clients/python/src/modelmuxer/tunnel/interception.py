"""Client interceptors over tunnelled calls, dispatched as grpc.aio dispatches its own.

grpc.aio's dispatch ends in its Cython channel, so this is written anew. An interceptor may implement several of the
four kinds, where grpc.aio heeds only the first. The first interceptor is the outermost.
"""

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Sequence
from typing import Any, NamedTuple

import grpc
from grpc import aio
from modelmuxer.tunnel.calls import FINISHED, HALF_CLOSED, LOCALLY_CANCELLED, MIXED_STYLES

Continue = Callable[[aio.ClientCallDetails, Any], Any]


class Interceptors(NamedTuple):
    """A channel's interceptors by the kind of call that they intercept, as the methods to call."""

    unary_unary: Sequence[Callable[..., Any]]
    unary_stream: Sequence[Callable[..., Any]]
    stream_unary: Sequence[Callable[..., Any]]
    stream_stream: Sequence[Callable[..., Any]]


def sort_interceptors(interceptors: Sequence[aio.ClientInterceptor]) -> Interceptors:
    """Raises ValueError for what is no client interceptor."""
    sorted_by_kind = Interceptors(
        [i.intercept_unary_unary for i in interceptors if isinstance(i, aio.UnaryUnaryClientInterceptor)],
        [i.intercept_unary_stream for i in interceptors if isinstance(i, aio.UnaryStreamClientInterceptor)],
        [i.intercept_stream_unary for i in interceptors if isinstance(i, aio.StreamUnaryClientInterceptor)],
        [i.intercept_stream_stream for i in interceptors if isinstance(i, aio.StreamStreamClientInterceptor)],
    )
    for interceptor in interceptors:
        if not isinstance(interceptor, aio.ClientInterceptor):
            raise ValueError(f"{interceptor!r} is not a grpc.aio.ClientInterceptor")
    return sorted_by_kind


class Intercepted(aio.Call):
    """A call in the hands of its interceptors; once they have let it go, a face of the call that they made.

    Whoever awaits the call at once drives its interceptors in the own task, as a coroutine awaited is driven: that
    saves a task and a turn of the event loop for nearly every call. Otherwise a task of their own starts in the next
    turn.
    """

    _call: Any = None
    """The call that the interceptors made, once they have."""
    _error: BaseException | None = None
    _made: Any = None
    _driver: asyncio.Task[Any] | None = None
    _settled: asyncio.Future[None] | None = None
    _cancelling = False
    _callbacks: list[Callable[[Any], None]] | None = None

    def __init__(
        self,
        interceptors: Sequence[Callable[..., Any]],
        make_call: Continue,
        details: aio.ClientCallDetails,
        request: Any,
    ) -> None:
        self._interceptors = interceptors
        self._make_call = make_call
        self._arguments: tuple[aio.ClientCallDetails, Any] = (details, request)
        self._loop = loop = asyncio.get_running_loop()
        self._starter: asyncio.Handle | None = loop.call_soon(self._start)

    def _start(self) -> None:
        self._starter = None
        self._driver = self._loop.create_task(self._drive())

    async def _made_call(self) -> Any:
        """The call that the interceptors made; raises what they raised instead."""
        if self._starter is not None:
            self._starter.cancel()
            self._starter = None
            self._driver = task = asyncio.current_task(self._loop)
            try:
                await self._drive()
            finally:
                if self._cancelling and task is not None:
                    task.uncancel()
        elif self._call is None and self._error is None:
            if self._settled is None:
                self._settled = asyncio.get_running_loop().create_future()
            try:
                await asyncio.shield(self._settled)
            except asyncio.CancelledError:
                self.cancel()
                raise
        if self._error is not None:
            raise self._error
        return self._call

    async def _drive(self) -> None:
        details, request = self._arguments
        try:
            self._call = await self._run(0, details, request)
        except (Exception, asyncio.CancelledError) as error:
            self._error = error
        finally:
            self._driver = None
            if self._settled is not None and not self._settled.done():
                self._settled.set_result(None)
            if self._callbacks:
                self._arrange_callbacks()

    async def _run(self, index: int, details: aio.ClientCallDetails, request: Any) -> Any:
        interceptors = self._interceptors
        proceed = functools.partial(self._run, index + 1) if index + 1 < len(interceptors) else self._finally
        answer = await interceptors[index](proceed, details, request)
        if answer is not self._made:
            self._made = answer = answer if isinstance(answer, aio.Call) else self._wrap(answer)
        return answer

    async def _finally(self, details: aio.ClientCallDetails, request: Any) -> Any:
        self._made = call = self._make_call(details, request)
        return call

    def _wrap(self, answer: Any) -> Any:
        """Makes a call of what an interceptor returned instead of one."""
        raise NotImplementedError

    def _arrange_callbacks(self) -> None:
        """Late, because the call then holds this object and this the call, until the call ends."""
        if self._call is None or self._call.done():
            self._call_back()
        else:
            self._call.add_done_callback(self._call_back)

    def _call_back(self, _: Any = None) -> None:
        callbacks, self._callbacks = self._callbacks or (), None
        for callback in callbacks:
            callback(self)

    def cancel(self) -> bool:
        if self._call is not None:
            return bool(self._call.cancel())
        if self._error is not None or self._cancelling:
            return False
        self._cancelling = True
        if self._starter is not None:
            self._starter.cancel()
            self._starter = None
            self._error = asyncio.CancelledError()
            self._call_back()
        elif self._driver is not None:
            self._driver.cancel()
        return True

    def cancelled(self) -> bool:
        if self._call is not None:
            return bool(self._call.cancelled())
        error = self._error
        return isinstance(error, asyncio.CancelledError) or (
            isinstance(error, aio.AioRpcError) and error.code() is grpc.StatusCode.CANCELLED
        )

    def done(self) -> bool:
        return self._error is not None if self._call is None else bool(self._call.done())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self.done():
            callback(self)
        elif self._callbacks is not None:
            self._callbacks.append(callback)
        else:
            self._callbacks = [callback]
            if self._call is not None:
                self._arrange_callbacks()

    def time_remaining(self) -> float | None:
        return None if self._call is None else self._call.time_remaining()

    async def _ask(self, question: str, if_cancelled: Any) -> Any:
        try:
            call = await self._made_call()
        except aio.AioRpcError as error:
            return getattr(error, question)()
        except asyncio.CancelledError as error:
            if error is not self._error:
                raise
            return if_cancelled
        return await getattr(call, question)()

    async def initial_metadata(self) -> Any:
        return await self._ask("initial_metadata", None)

    async def trailing_metadata(self) -> Any:
        return await self._ask("trailing_metadata", None)

    async def code(self) -> grpc.StatusCode:
        return await self._ask("code", grpc.StatusCode.CANCELLED)  # type: ignore[no-any-return]

    async def details(self) -> str:
        return await self._ask("details", LOCALLY_CANCELLED)  # type: ignore[no-any-return]

    async def debug_error_string(self) -> Any:
        return await self._ask("debug_error_string", "")

    async def wait_for_connection(self) -> None:
        await (await self._made_call()).wait_for_connection()


class _UnaryResponse(Intercepted):
    def _wrap(self, answer: Any) -> Any:
        return _Answer(answer)

    def __await__(self) -> Generator[Any, None, Any]:
        call = self._call or (yield from self._made_call().__await__())
        return (yield from call.__await__())


class _StreamResponse(Intercepted):
    _responses: AsyncIterator[Any] | None = None

    def _wrap(self, answer: Any) -> Any:
        return _AnswerStream(self._made, answer)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self._responses is None:
            self._responses = aiter(await self._made_call())
        return await anext(self._responses)

    async def read(self) -> Any:
        try:
            return await self.__anext__()
        except StopAsyncIteration:
            return aio.EOF


class _StreamRequest(Intercepted):
    _requests: "_Requests | None" = None

    def __init__(
        self,
        interceptors: Sequence[Callable[..., Any]],
        make_call: Continue,
        details: aio.ClientCallDetails,
        request: AsyncIterable[Any] | Iterable[Any] | None,
    ) -> None:
        if request is None:
            request = self._requests = _Requests()
        super().__init__(interceptors, make_call, details, request)
        if self._requests is not None:
            self.add_done_callback(lambda call: call._requests.close())

    async def write(self, request: Any) -> None:
        requests = await self._writable()
        if requests.ended:
            raise asyncio.InvalidStateError(HALF_CLOSED)
        await requests.put(request)
        if self.done():
            raise asyncio.InvalidStateError(FINISHED)

    async def done_writing(self) -> None:
        (await self._writable()).end()

    async def _writable(self) -> "_Requests":
        if self._requests is None:
            raise aio.UsageError(MIXED_STYLES)
        with contextlib.suppress(aio.AioRpcError):
            await self._made_call()
        if self.done():
            raise asyncio.InvalidStateError(FINISHED)
        return self._requests


class _Requests:
    """What a caller writes, as the iterator that interceptors expect. A write waits until its request is taken."""

    def __init__(self) -> None:
        self.ended = False
        self._items: deque[tuple[Any, asyncio.Future[None]]] = deque()
        self._reader: asyncio.Future[None] | None = None

    async def put(self, request: Any) -> None:
        taken = asyncio.get_running_loop().create_future()
        self._items.append((request, taken))
        self._wake()
        await taken

    def end(self) -> None:
        self.ended = True
        self._wake()

    def close(self) -> None:
        self.end()
        while self._items:
            _, taken = self._items.popleft()
            if not taken.done():
                taken.set_result(None)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def __aiter__(self) -> "_Requests":
        return self

    async def __anext__(self) -> Any:
        while not self._items:
            if self.ended:
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        request, taken = self._items.popleft()
        if not taken.done():
            taken.set_result(None)
        return request


class InterceptedUnaryUnary(_UnaryResponse, aio.UnaryUnaryCall[Any, Any]):
    """A unary call with interceptors."""


class InterceptedUnaryStream(_StreamResponse, aio.UnaryStreamCall[Any, Any]):
    """A server-streaming call with interceptors."""


class InterceptedStreamUnary(_StreamRequest, _UnaryResponse, aio.StreamUnaryCall[Any, Any]):
    """A client-streaming call with interceptors."""


class InterceptedStreamStream(_StreamRequest, _StreamResponse, aio.StreamStreamCall[Any, Any]):
    """A bidirectional call with interceptors."""


class _Answer(aio.UnaryUnaryCall[Any, Any]):
    """A response that an interceptor gave without a call."""

    def __init__(self, response: Any) -> None:
        self._response = response

    def __await__(self) -> Generator[Any, None, Any]:
        return self._response
        yield

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        callback(self)

    def time_remaining(self) -> float | None:
        return None

    async def initial_metadata(self) -> Any:
        return None

    async def trailing_metadata(self) -> Any:
        return None

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    async def details(self) -> str:
        return ""

    async def debug_error_string(self) -> str:
        return ""

    async def wait_for_connection(self) -> None:
        pass


class _AnswerStream:
    """Responses that an interceptor puts in place of a call's own; all else is the call's."""

    def __init__(self, call: Any, responses: AsyncIterable[Any]) -> None:
        self._of_call = call
        self._responses = responses

    def __aiter__(self) -> AsyncIterator[Any]:
        return aiter(self._responses)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of_call, name)
