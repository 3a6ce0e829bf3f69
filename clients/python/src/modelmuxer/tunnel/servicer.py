"""`TunnelServicer`: answers tunnels with the handlers and interceptors that the plain port has."""

import asyncio
import functools
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from typing import Any, cast

import grpc
from grpc import aio
from modelmuxer.tunnel.context import CallDetails, TunnelledContext
from modelmuxer.tunnel.deadlines import Deadlines
from modelmuxer.tunnel.direct import Connection, Door
from modelmuxer.tunnel.link import (
    CANCEL,
    END,
    EXCHANGE,
    HEADERS,
    MESSAGE,
    OPEN,
    ROOM_BYTES,
    WINDOW,
    Link,
    Stream,
    TunnelError,
)
from modelmuxer.tunnel.options import Traffic, TunnelOptions
from modelmuxer.tunnel.v1.tunnel_pb2 import ExchangeRequest, ExchangeResponse, Frame, GoingAway

SERVICE, _, _METHOD = EXCHANGE.removeprefix("/").partition("/")
_IDLE_S = 0.5
_MAX_DETAILS = 4096


class TunnelServicer:
    """Serves calls that arrive in tunnels.

    It takes servicers as a server does, so the same `add_…Servicer_to_server` registers them with both:

        server = grpc.aio.server(interceptors=interceptors)
        tunnel = TunnelServicer(interceptors=interceptors)
        for registrar in (server, tunnel):
            add_EchoServicer_to_server(echo, registrar)
        tunnel.add_to_server(server)

    Interceptors run once per tunnelled call; those of the server see one call of Exchange per tunnel besides. Handlers
    must be asynchronous. `listen` opens a port of its own for direct connections, which make tunnels much cheaper.
    """

    def __init__(
        self,
        *,
        interceptors: Sequence[aio.ServerInterceptor] = (),
        options: TunnelOptions | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        self.options = options or TunnelOptions()
        self.traffic = traffic or Traffic()
        self.replica = uuid.uuid4().hex
        self._interceptors = tuple(interceptors)
        self._generic: list[grpc.GenericRpcHandler] = []
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._links: set[ServerLink] = set()
        self._draining = False
        self.door = Door()
        self.deadlines = Deadlines()

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """As `grpc.aio.Server` has it."""
        self._generic.extend(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, "grpc.RpcMethodHandler[Any, Any]"]
    ) -> None:
        """As `grpc.aio.Server` has it."""
        for method, handler in method_handlers.items():
            self._handlers[f"/{service_name}/{method}"] = handler

    def methods(self) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        """The handlers of `SERVICE`, for whoever wants to wrap them before they are registered."""
        return {_METHOD: grpc.stream_stream_rpc_method_handler(self._exchange)}

    def add_to_server(self, server: aio.Server) -> None:
        """Offers tunnels on a server's ports."""
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self.methods()),))

    async def listen(self, host: str, port: int = 0) -> int:
        """Offers direct connections at a port of `host`, any free one if it is 0, and returns it.

        Raises OSError where the port cannot be had. `drain` shuts it. Tunnels under TLS are not offered it.
        """
        await self.door.open(host, port)
        return self.door.port

    @property
    def open_calls(self) -> int:
        """Calls that run now, in all tunnels."""
        return sum(len(link.running) for link in self._links)

    async def drain(self, grace_s: float | None = None) -> None:
        """Sends every client away, now and from now on, and waits until the last call has ended.

        Belongs between health's NOT_SERVING and the server's `stop`. Calls that still run after `grace_s` are cut.
        """
        self._draining = True
        self.door.shut()
        for link in self._links:
            link.send_away(GoingAway.REASON_DRAIN)
        try:
            async with asyncio.timeout(grace_s):
                while self._links:
                    await asyncio.wait([link.over for link in self._links])
        except TimeoutError:
            for link in self._links:
                link.cut()

    @property
    def direct_handlers(self) -> "Mapping[str, grpc.RpcMethodHandler[Any, Any]]":
        """Those that no interceptor stands before, by the full names of their methods."""
        return {} if self._interceptors else self._handlers

    async def find_handler(self, details: CallDetails) -> Any:
        """The handler of a call, by way of the interceptors; None if there is none."""
        if self._interceptors:
            return await self._intercept(0, details)
        return self._lookup(details)

    async def _intercept(self, index: int, details: Any) -> Any:
        if index == len(self._interceptors):
            return self._lookup(details)
        proceed = functools.partial(self._intercept, index + 1)
        return await self._interceptors[index].intercept_service(proceed, details)

    def _lookup(self, details: Any) -> Any:
        handler = self._handlers.get(details.method)
        if handler is not None:
            return handler
        for generic in self._generic:
            if (handler := generic.service(details)) is not None:
                return handler
        return None

    async def _exchange(self, _: Any, context: "aio.ServicerContext[bytes, bytes]") -> None:
        link = ServerLink(self, context)
        if self.door.port and context.auth_context().get("transport_security_type") == [b"insecure"]:
            link.offer_direct(self.door)
        self._links.add(link)
        if self._draining:
            link.send_away(GoingAway.REASON_DRAIN)
        try:
            if broken := await link.run():
                await context.abort(grpc.StatusCode.INTERNAL, broken)
        finally:
            self._links.discard(link)
            link.close("The tunnel ended.")


class ServerLink(Link):
    """The server's end of one tunnel."""

    def __init__(self, servicer: TunnelServicer, context: "aio.ServicerContext[bytes, bytes]") -> None:
        super().__init__(ExchangeResponse, servicer.options, servicer.replica, servicer.traffic)
        self._fill.hello.max_calls = self.options.max_calls
        self.context = context
        self.running: set[asyncio.Task[None]] = set()
        self.handlers = servicer.direct_handlers
        self.find_handler: Callable[[CallDetails], Any] = servicer.find_handler
        self.over = self.loop.create_future()
        self.deadlines = servicer.deadlines
        self._last_id = 0
        self._closed_to_calls = False
        self._room: asyncio.Future[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._reading: asyncio.Task[str] | None = None
        self._wire: aio.ServicerContext[bytes, bytes] | Connection = context
        self._greeted = False

    def offer_direct(self, door: Door) -> None:
        """Tells the client in the hello where it may have a direct connection."""
        offer = self._fill.hello.direct
        offer.port, offer.ticket = door.port, door.issue(self._move)
        self.over.add_done_callback(lambda _: door.revoke(offer.ticket))

    def _move(self, connection: Connection) -> None:
        """Goes on over the direct connection that the client has made. Exchange stays open, and empty."""
        self._wire = connection
        self.carried_by("direct")
        if self._greeted and self._reading is not None:  # else the reader comes over with the client's hello
            self._reading.cancel()
            self._reading = self.loop.create_task(self._read())

    async def run(self) -> str:
        """Serves until the client leaves or the tunnel breaks; says what broke it, if the client should know."""
        self.carried_by("grpc")
        age_s = self.options.max_age_s * random.uniform(0.9, 1.1)  # noqa: S311 - jitter is no secret
        self._timers.append(self.loop.call_later(age_s, self.send_away, GoingAway.REASON_AGE))
        self._reading = self.loop.create_task(self._read())
        pumping = self.loop.create_task(self.pump(self._write))
        self.watch_peer(self.cut)
        try:
            while True:
                reading = self._reading
                await asyncio.wait((reading, pumping), return_when=asyncio.FIRST_COMPLETED)
                if pumping.done():
                    return ""
                if reading is self._reading:
                    break
            broken = reading.result()
            if not broken:
                await pumping
            return broken
        except (aio.BaseError, ConnectionError, asyncio.CancelledError):
            if (current := asyncio.current_task()) is not None and current.cancelling():
                raise
            return ""
        finally:
            self._reading.cancel()
            pumping.cancel()
            await asyncio.gather(self._reading, pumping, return_exceptions=True)

    async def _write(self, batch: bytes) -> None:
        await self._wire.write(batch)

    async def _read(self) -> str:
        """Takes batches until the client half-closes."""
        try:
            while (data := await self._wire.read()) is not aio.EOF:
                batch = _parse(data)
                if not self._greeted:
                    self.greet(batch)
                    self._greeted = True
                self.hear(batch)
                await self.take_turns(batch.frames, self._take_frames)
                if self.waiting_bytes > 4 * ROOM_BYTES:
                    await self._until_room()
        except TunnelError as error:
            return f"The tunnel broke: {error}."
        self._leave_when_idle()
        return ""

    async def _until_room(self) -> None:
        """A client that does not read its answers gets no further calls started."""
        self._room = self.loop.create_future()
        await self._room

    def drained(self) -> None:
        if self._room is None:
            return
        self._heard = True  # nothing is read meanwhile: that batches leave is the sign of life
        if self.waiting_bytes < ROOM_BYTES:
            if not self._room.done():
                self._room.set_result(None)
            self._room = None

    def _take_frames(self, frames: Sequence[Frame]) -> None:
        find = self.streams.get
        for frame in frames:
            kind = frame.kind
            if kind == OPEN:
                self._open(frame)
                continue
            context = find(frame.id)
            if kind == MESSAGE:
                if context is not None:
                    self._take(context, frame)
            elif kind == CANCEL:
                if context is not None:
                    context.cancel_call()
                    self.forget(context)
            elif kind == WINDOW:
                if context is not None:
                    self.credit(context, frame.credit)
            else:
                raise TunnelError(f"a frame of kind {kind} from a client")

    def _open(self, frame: Frame) -> None:
        call_id = frame.id
        if call_id <= self._last_id:
            raise TunnelError(f"call {call_id} opened after call {self._last_id}")
        if self._closed_to_calls:
            return  # going_away has named the last call that is served, or will before the client can wait
        self._last_id = call_id
        self.traffic.calls += 1
        if len(self.streams) >= self.options.max_calls or len(self.running) >= 2 * self.options.max_calls:
            # twice, because a cancelled call's handler may need a moment, and no more, against open-and-cancel floods
            code = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
            self.put(64, id=call_id, kind=END, code=code, details="Too many calls at once.", not_started=True)
            return
        context = TunnelledContext(self, call_id, frame.method, frame.metadata)
        context.send_window = self.peer_window
        context.recv_window = self._recv_window
        self.streams[call_id] = context
        context.task = task = self.loop.create_task(context.run(), context=Context())
        self.running.add(task)
        if frame.HasField("timeout_us"):
            context.start(frame.timeout_us / 1e6)
        if frame.HasField("message"):
            self.accept(context, frame)
        if frame.half_close:
            self._half_close(context)

    def _take(self, context: TunnelledContext, frame: Frame) -> None:
        if context.half_closed:
            self.violate(context, "a message after its last")
            return
        if frame.HasField("message"):
            self.accept(context, frame)
        if frame.half_close:
            self._half_close(context)

    def _half_close(self, context: TunnelledContext) -> None:
        context.half_closed = True
        if context.parts is not None:
            self.violate(context, "a part of a message as its last")
        elif context.reader is not None:
            context.wake_reader()

    # Answers.

    def send_headers(self, context: Stream, metadata: Sequence[bytes] | None) -> None:
        if context.id in self.streams:
            self.put(64 + sum(map(len, metadata or ())), id=context.id, kind=HEADERS, metadata=metadata)

    def send_end(
        self,
        context: TunnelledContext,
        code: int,
        details: str,
        trailers: Sequence[bytes] | None,
        message: bytes | None,
    ) -> None:
        if context.id not in self.streams:
            return
        if message is not None and context.backlog is None and not code and not trailers and not details:
            size = len(message)
            if self.fits(context, size):
                self._add(id=context.id, kind=END, message=message)
                self._touch(size + 16)
                self.forget(context)
                return
        if message is not None:
            self.send(context, message)
        end: dict[str, Any] = {"id": context.id, "kind": END, "code": code}
        if details:
            end["details"] = details[:_MAX_DETAILS].encode(errors="replace").decode()
        if trailers:
            end["metadata"] = trailers
        if context.backlog is not None:
            context.tail = end
        else:
            self.put(64 + len(details) + sum(map(len, trailers or ())), **end)
            self.forget(context)

    def forget(self, stream: Stream) -> None:
        super().forget(stream)
        if self._finish_when_idle and not self.streams:
            self.finish()

    # The end.

    _finish_when_idle = False

    def _leave_when_idle(self) -> None:
        self._finish_when_idle = True
        if not self.streams:
            self.finish()

    def send_away(self, reason: "GoingAway.Reason") -> None:
        """Asks the client to leave. A draining server leaves by itself once it has been idle for a moment."""
        if self.closed or self._closed_to_calls:
            return
        self._say_farewell(reason)
        if reason == GoingAway.REASON_DRAIN:
            self._timers.append(self.loop.call_later(_IDLE_S, self._close_if_idle, self._last_id))

    def _close_if_idle(self, last_id: int) -> None:
        if self.closed or self._finish_when_idle:
            return
        if self.streams or self._last_id != last_id:
            self._timers.append(self.loop.call_later(_IDLE_S, self._close_if_idle, self._last_id))
            return
        self._closed_to_calls = True
        self._say_farewell(GoingAway.REASON_DRAIN, last_id)
        self._leave_when_idle()

    def _say_farewell(self, reason: "GoingAway.Reason", last_id: int | None = None) -> None:
        farewell = cast(ExchangeResponse, self._fill).going_away
        farewell.reason = reason
        if last_id is not None:
            farewell.last_id = last_id
        self._press()

    def cut(self) -> None:
        """Ends the tunnel at once: the peer is dead, or there is no more time for it."""
        if self._reading is not None:
            self._reading.cancel()

    def close(self, details: str) -> None:
        super().close(details)
        for timer in self._timers:
            timer.cancel()
        if isinstance(self._wire, Connection):
            self._wire.finish()
        if not self.over.done():
            self.over.set_result(None)


def _parse(data: bytes) -> ExchangeRequest:
    try:
        return ExchangeRequest.FromString(data)
    except Exception as error:
        raise TunnelError("a batch that cannot be read") from error
