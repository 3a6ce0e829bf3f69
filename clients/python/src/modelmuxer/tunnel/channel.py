"""`TunnelChannel`: a `grpc.aio.Channel` whose calls travel in tunnels, one to each replica behind a target."""

import asyncio
import hashlib
import uuid
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

import grpc
from grpc import aio
from modelmuxer.tunnel.calls import (
    ClientCall,
    Method,
    StreamStreamCall,
    StreamUnaryCall,
    UnaryStreamCall,
    UnaryUnaryCall,
)
from modelmuxer.tunnel.deadlines import Deadlines
from modelmuxer.tunnel.interception import (
    InterceptedStreamStream,
    InterceptedStreamUnary,
    InterceptedUnaryStream,
    InterceptedUnaryUnary,
    sort_interceptors,
)
from modelmuxer.tunnel.options import Traffic, TunnelOptions
from modelmuxer.tunnel.replica import Ready, Replica
from modelmuxer.tunnel.resolver import Resolver

KEY_METADATA = "tunnel-key"
"""Metadata that names a call's key: calls of one key go to one replica as long as the replicas stay the same."""
_KEY = KEY_METADATA.encode()

State = grpc.ChannelConnectivity


class TunnelChannel(aio.Channel):
    """Use it wherever a `grpc.aio.Channel` goes, generated stubs first of all.

    Args:
        target: `host:port`, or several with commas between. Each address of each name is a replica.
        credentials: TLS, as for `grpc.aio.secure_channel`; None is plaintext.
        options: gRPC channel arguments of the connections below.
        interceptors: client interceptors; each runs once per call.
        metadata: metadata of the tunnels themselves, such as an authorization. Calls bring their own.
        health_service: whose `grpc.health.v1.Health/Watch` says whether a replica takes calls; None asks nobody.
        tunnel: sizes and times.
        traffic: where to count what the channel carries; several channels may share one.

    Each call goes to the healthy replica with the fewest calls open, or, if its metadata has a `tunnel-key`, to the one
    that rendezvous hashing names. A peer that has no tunnel is called plainly. Per-call credentials are refused:
    put them into metadata. Compression is ignored.
    """

    def __init__(
        self,
        target: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        options: Sequence[tuple[str, Any]] = (),
        interceptors: Sequence[aio.ClientInterceptor] = (),
        metadata: Iterable[tuple[str, str | bytes]] = (),
        health_service: str | None = "",
        tunnel: TunnelOptions | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        self._resolver = Resolver(target)
        self._target = target
        self._credentials = credentials
        self._options = (*options, ("grpc.use_local_subchannel_pool", 1))
        if credentials is not None and not target.startswith("unix:"):
            self._options += (("grpc.ssl_target_name_override", self._resolver.authority),)
        self._interceptors = sort_interceptors(interceptors)
        self._metadata = aio.Metadata(*metadata)
        self._health_service = health_service
        self._tunnel = tunnel or TunnelOptions()
        self.traffic = traffic or Traffic()
        self.deadlines = Deadlines()
        self._identity = uuid.uuid4().hex
        self._replicas: dict[str, Replica] = {}
        self._departed: list[Replica] = []
        self._usable: list[tuple[str, Ready]] = []
        self._turn = 0
        self._waiting: dict[ClientCall[Any, Any], None] = {}
        self.unread: WeakSet[ClientCall[Any, Any]] = WeakSet()
        """Calls that the server has ended and whose messages are still to be read."""
        self._error = "Nothing has been resolved yet."
        self._resolved = False
        self._state = State.IDLE
        self._state_changed: asyncio.Future[None] | None = None
        self._resolving: asyncio.Task[None] | None = None
        self._resolve_now: asyncio.Event | None = None
        self._closed = False

    # Calls.

    def send_off(self, call: ClientCall[Any, Any], *, only_elsewhere: bool = False) -> bool:
        """Opens a call at a replica, or keeps it until there is one; `only_elsewhere` rather leaves it."""
        if self._closed:
            raise aio.UsageError("Channel is closed.")
        link = self._pick(call)
        if link is not None:
            link.open(call)
            return True
        if only_elsewhere:
            return False
        self._waiting[call] = None
        if self._resolving is None:
            self._start()
        else:
            self._settle()
        return True

    def recall(self, call: ClientCall[Any, Any]) -> None:
        """Forgets a call that waits for a replica."""
        self._waiting.pop(call, None)

    def _pick(self, call: ClientCall[Any, Any]) -> Ready | None:
        usable = self._usable
        count = len(usable)
        if count == 1:
            link = usable[0][1]
            return link if link.has_room and link is not call.refused_by else None
        if not count:
            return None
        if call.metadata and _KEY in call.metadata:
            return self._home(call)
        self._turn = start = (self._turn + 1) % count  # so that equals take turns
        best, fewest = None, 0
        for index in range(start - count, start):
            link = usable[index][1]
            if link is call.refused_by or not link.has_room:
                continue
            outstanding = link.outstanding
            if best is None or outstanding < fewest:
                best, fewest = link, outstanding
        return best

    def _home(self, call: ClientCall[Any, Any]) -> Ready | None:
        """Rendezvous: every caller ranks the replicas of a key alike, and the first that can takes the call."""
        flat = call.metadata
        keys = [flat[i + 1] for i in range(0, len(flat), 2) if flat[i] == _KEY]
        if not keys:
            return None
        links = dict(self._usable)
        ranked = (links[address] for address in rendezvous(links, keys[0]))
        return next((link for link in ranked if link.has_room and link is not call.refused_by), None)

    # Replicas.

    def _start(self) -> None:
        self._resolve_now = asyncio.Event()
        self._resolving = asyncio.get_running_loop().create_task(self._keep_resolving(self._resolve_now))
        self._set_state(State.CONNECTING)

    async def _keep_resolving(self, now: asyncio.Event) -> None:
        while True:
            now.clear()
            try:
                self._follow(await self._resolver.resolve())
            except (OSError, ValueError) as error:
                self._error = f"{self._target}: {error}"
                self._resolved = True
                self._settle()
            self._departed = [replica for replica in self._departed if not replica.left]
            try:
                async with asyncio.timeout(self._tunnel.resolve_interval_s):
                    await now.wait()
                    await asyncio.sleep(0.1)  # one look-up for failures that come together
            except TimeoutError:
                pass

    def _follow(self, addresses: Sequence[str]) -> None:
        self._resolved = True
        for address in self._replicas.keys() - set(addresses):
            replica = self._replicas.pop(address)
            replica.leave()
            self._departed.append(replica)
        for address in addresses:
            if address not in self._replicas:
                self._replicas[address] = self._make_replica(address)
        self._settle()

    def _make_replica(self, address: str) -> Replica:
        return Replica(
            address,
            self._dial,
            self._tunnel,
            identity=self._identity,
            metadata=self._metadata,
            health_service=self._health_service,
            on_change=self._on_change,
            traffic=self.traffic,
            direct=self._credentials is None and not address.startswith("unix:"),
        )

    def _dial(self, address: str) -> aio.Channel:
        if self._credentials is None:
            return aio.insecure_channel(address, options=self._options)
        return aio.secure_channel(address, self._credentials, options=self._options)

    def _on_change(self) -> None:
        if self._closed:
            return
        if self._resolve_now is not None and any(replica.failed for replica in self._replicas.values()):
            self._resolve_now.set()
        self._settle()

    def _settle(self) -> None:
        """Takes stock of the replicas, then sends or fails the calls that wait."""
        self._usable = self._take_stock()
        while self._waiting:
            call = next(iter(self._waiting))
            link = self._pick(call)
            if link is None:
                break
            del self._waiting[call]
            link.open(call)
        replicas = self._replicas.values()
        if self._usable:
            self._set_state(State.READY)
        elif not self._resolved or any(replica.connecting for replica in replicas):
            self._set_state(State.CONNECTING)
        else:
            self._set_state(State.TRANSIENT_FAILURE)
            self._fail_waiting()

    def _take_stock(self) -> list[tuple[str, Ready]]:
        ready = [r for r in self._replicas.values() if r.link is not None and r.serving]
        staying = [r for r in ready if not r.draining]
        if staying:
            for replica in ready:
                if replica.draining and replica.link is not None:
                    replica.link.leave()
            ready = staying
        processes: dict[str, tuple[str, Ready]] = {}
        for replica in ready:
            if (link := replica.link) is not None:
                processes.setdefault(link.identity or replica.address, (replica.address, link))
        return list(processes.values())

    def _fail_waiting(self) -> None:
        reasons = "; ".join(f"{replica.address}: {replica.error}" for replica in self._replicas.values())
        for call in list(self._waiting):
            if not call.wait_for_ready:
                call.fail(grpc.StatusCode.UNAVAILABLE, f"No replica takes calls. {reasons or self._error}")

    # What a channel is asked.

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        if try_to_connect and self._resolving is None and not self._closed:
            self._start()
        return self._state

    def _set_state(self, state: grpc.ChannelConnectivity) -> None:
        if state is not self._state:
            self._state = state
            changed, self._state_changed = self._state_changed, None
            if changed is not None and not changed.done():
                changed.set_result(None)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        while self._state is last_observed_state:
            if self._state_changed is None:
                self._state_changed = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._state_changed)

    async def channel_ready(self) -> None:
        while (state := self.get_state(try_to_connect=True)) is not State.READY:
            if state is State.SHUTDOWN:
                raise aio.UsageError("Channel is closed.")
            await self.wait_for_state_change(state)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        if self._closed:
            return
        self._closed = True
        replicas = [*self._replicas.values(), *self._departed]
        calls = [*self._waiting, *self.unread, *(call for replica in replicas for call in replica.open_calls())]
        if grace and calls:
            await asyncio.wait([asyncio.ensure_future(call.code()) for call in calls], timeout=grace)
        for call in calls:
            call.cancel()
        if self._resolving is not None:
            self._resolving.cancel()
            await asyncio.gather(self._resolving, *(r.close() for r in replicas), return_exceptions=True)
        self._usable = []
        self._set_state(State.SHUTDOWN)

    # Multicallables.

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> "aio.UnaryUnaryMultiCallable[Any, Any]":
        spec = Method(self, method, request_serializer, response_deserializer, response_streaming=False)
        return _UnaryUnary(spec, self._interceptors.unary_unary)

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> "aio.UnaryStreamMultiCallable[Any, Any]":
        spec = Method(self, method, request_serializer, response_deserializer, response_streaming=True)
        return _UnaryStream(spec, self._interceptors.unary_stream)

    def stream_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> "aio.StreamUnaryMultiCallable[Any, Any]":
        spec = Method(self, method, request_serializer, response_deserializer, response_streaming=False)
        return _StreamUnary(spec, self._interceptors.stream_unary)

    def stream_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> "aio.StreamStreamMultiCallable[Any, Any]":
        spec = Method(self, method, request_serializer, response_deserializer, response_streaming=True)
        return _StreamStream(spec, self._interceptors.stream_stream)


def rendezvous(addresses: Iterable[str], key: bytes) -> list[str]:
    """The addresses in the order in which a key prefers them: the same for everybody who knows the same ones."""
    return sorted(addresses, key=lambda address: hashlib.blake2b(address.encode() + b"\0" + key).digest())


class _Multicallable:
    """A method of a channel, ready to be called."""

    def __init__(self, method: Method[Any, Any], interceptors: Sequence[Callable[..., Any]]) -> None:
        self._method = method
        self._encoded_name = method.name.encode()
        self._interceptors = interceptors

    def _details(
        self,
        timeout: float | None,
        metadata: Any,
        credentials: grpc.CallCredentials | None,
        wait_for_ready: bool | None,
    ) -> aio.ClientCallDetails:
        given = aio.Metadata(*metadata) if metadata else aio.Metadata()
        return aio.ClientCallDetails(self._encoded_name, timeout, given, credentials, wait_for_ready)  # type: ignore[arg-type]

    def _target(self, details: aio.ClientCallDetails) -> Method[Any, Any]:
        """The method that the interceptors want called."""
        if details.credentials is not None:
            _refuse(details.credentials)
        name: Any = details.method
        if name is self._encoded_name or name == self._encoded_name:
            return self._method
        return self._method.renamed(name.decode() if isinstance(name, bytes) else name)


def _refuse(credentials: grpc.CallCredentials | None) -> None:
    if credentials is not None:
        raise aio.UsageError("A tunnelled call has no credentials of its own: put them into its metadata.")


class _UnaryUnary(_Multicallable, aio.UnaryUnaryMultiCallable[Any, Any]):
    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        if self._interceptors:
            details = self._details(timeout, metadata, credentials, wait_for_ready)
            return InterceptedUnaryUnary(self._interceptors, self._make, details, request)
        if credentials is not None:
            _refuse(credentials)
        return UnaryUnaryCall(self._method, timeout, metadata, wait_for_ready, request)

    def _make(self, details: aio.ClientCallDetails, request: Any) -> Any:
        method = self._target(details)
        return UnaryUnaryCall(method, details.timeout, details.metadata, details.wait_for_ready, request)


class _UnaryStream(_Multicallable, aio.UnaryStreamMultiCallable[Any, Any]):
    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        if self._interceptors:
            details = self._details(timeout, metadata, credentials, wait_for_ready)
            return InterceptedUnaryStream(self._interceptors, self._make, details, request)
        if credentials is not None:
            _refuse(credentials)
        return UnaryStreamCall(self._method, timeout, metadata, wait_for_ready, request)

    def _make(self, details: aio.ClientCallDetails, request: Any) -> Any:
        method = self._target(details)
        return UnaryStreamCall(method, details.timeout, details.metadata, details.wait_for_ready, request)


class _StreamUnary(_Multicallable, aio.StreamUnaryMultiCallable[Any, Any]):
    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        if self._interceptors:
            details = self._details(timeout, metadata, credentials, wait_for_ready)
            return InterceptedStreamUnary(self._interceptors, self._make, details, request_iterator)
        if credentials is not None:
            _refuse(credentials)
        return StreamUnaryCall(self._method, timeout, metadata, wait_for_ready, request_iterator)

    def _make(self, details: aio.ClientCallDetails, requests: Any) -> Any:
        method = self._target(details)
        return StreamUnaryCall(method, details.timeout, details.metadata, details.wait_for_ready, requests)


class _StreamStream(_Multicallable, aio.StreamStreamMultiCallable[Any, Any]):
    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        if self._interceptors:
            details = self._details(timeout, metadata, credentials, wait_for_ready)
            return InterceptedStreamStream(self._interceptors, self._make, details, request_iterator)
        if credentials is not None:
            _refuse(credentials)
        return StreamStreamCall(self._method, timeout, metadata, wait_for_ready, request_iterator)

    def _make(self, details: aio.ClientCallDetails, requests: Any) -> Any:
        method = self._target(details)
        return StreamStreamCall(method, details.timeout, details.metadata, details.wait_for_ready, requests)
