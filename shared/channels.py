"""Channels to other services: one factory, and the calls on them carry the mesh token, the trace and the deadline.

Interceptors of grpc.aio cost a task per call on the client's side; a channel that hands its own metadata to the channel
below costs almost nothing. What stands below is decided in `connect`, and nowhere else.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from modelmuxer.tunnel import KEY_METADATA, rendezvous
from opentelemetry.trace import Span, SpanKind

from shared import deadline
from shared.health import READINESS
from shared.interceptors import MESH_TOKEN
from shared.telemetry import names, tracing

# A replica that drains gets no new call: health is what tells callers before its port closes.
SERVICE_CONFIG = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": READINESS}}

Metadata = tuple[tuple[str, str | bytes], ...]


def connect(target: str, max_message_bytes: int) -> grpc.aio.Channel:
    """A channel to `host:port`, or to several replicas as `host:port,host:port`."""
    addresses = target.split(",")
    return grpc.aio.insecure_channel(
        f"ipv4:{target}" if len(addresses) > 1 else target,
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.max_metadata_size", 64 * 1024),  # a status with details outgrows the default of 8 KiB
            # A service that is back is found again at once: the default waits up to two minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
            # So are new replicas: the default looks names up every 30 s at most, though all that it knows be gone.
            ("grpc.dns_min_time_between_resolutions_ms", 1_000),
            # A peer that vanished without a word is noticed within half a minute.
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            # Retries are the router's own business.
            ("grpc.enable_retries", 0),
            # HTTP_PROXY is for the way out to providers, not for calls within the mesh.
            ("grpc.enable_http_proxy", 0),
            # Channels of one process share no connection, so that closing one closes its own.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        ],
    )


def homes(target: str, max_message_bytes: int) -> dict[str, grpc.aio.Channel]:
    """A channel to each of several replicas at `host:port,host:port`, for calls that name a key. Tunnels need none."""
    addresses = target.split(",")
    return {address: connect(address, max_message_bytes) for address in addresses} if len(addresses) > 1 else {}


class MeshChannel(grpc.aio.Channel):
    """A channel whose calls show the mesh token and belong to the trace and deadline of the call being served.

    With `homes`, channels by address, calls that name a key go to the one that rendezvous hashing names.
    """

    def __init__(
        self,
        below: grpc.aio.Channel,
        token: str,
        tracer: tracing.Tracing | None,
        homes: Mapping[str, grpc.aio.Channel] | None = None,
    ) -> None:
        self._below = below
        self._token: Metadata = ((MESH_TOKEN, token),)
        self._tracer = tracer
        self._homes = homes or {}

    def unary_unary(self, method: str, *args: Any, **options: Any) -> Any:
        return self._calls("unary_unary", method, *args, **options)

    def unary_stream(self, method: str, *args: Any, **options: Any) -> Any:
        return self._calls("unary_stream", method, *args, **options)

    def stream_unary(self, method: str, *args: Any, **options: Any) -> Any:
        return self._calls("stream_unary", method, *args, **options)

    def stream_stream(self, method: str, *args: Any, **options: Any) -> Any:
        return self._calls("stream_stream", method, *args, **options)

    def _calls(self, kind: str, method: str, *args: Any, **options: Any) -> "_Calls":
        below = getattr(self._below, kind)(method, *args, **options)
        at_homes = {
            address: (channel, getattr(channel, kind)(method, *args, **options))
            for address, channel in self._homes.items()
        }
        return _Calls(below, method, self._token, self._tracer, at_homes)

    async def close(self, grace: float | None = None) -> None:
        await self._below.close(grace)
        for channel in self._homes.values():
            await channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._below.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._below.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._below.channel_ready()

    async def __aenter__(self) -> "MeshChannel":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Calls:
    """One method of a stub, of any of gRPC's four kinds."""

    def __init__(
        self,
        below: Any,
        method: str,
        token: Metadata,
        tracer: tracing.Tracing | None,
        at_homes: Mapping[str, tuple[grpc.aio.Channel, Any]],
    ) -> None:
        self._below = below
        self._at_homes = at_homes
        self._name = method.removeprefix("/")
        self._token = token
        self._tracer = tracer

    def __call__(
        self,
        request: Any = None,
        *,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str | bytes]] | None = None,
        **options: Any,
    ) -> Any:
        if timeout is None:
            timeout = deadline.remaining_s()
        here, span = tracing.current(), None
        if self._tracer is not None:
            attributes = {names.RPC_SYSTEM: "grpc", names.RPC_METHOD: self._name}
            span = self._tracer.begin(self._name, here, SpanKind.CLIENT, attributes)
            here = self._tracer.place(span)
        carried = self._token if here is None else (*self._token, *here.headers())
        below = self._home(metadata) if self._at_homes and metadata else self._below
        call = below(request, timeout=timeout, metadata=(*carried, *(metadata or ())), **options)
        if span is not None:
            _end_with(call, span)
        return call

    def _home(self, metadata: Sequence[tuple[str, str | bytes]]) -> Any:
        """The key's home: the first replica in its order that is not known to be away."""
        key = dict(metadata).get(KEY_METADATA)
        if not isinstance(key, str):
            return self._below
        for address in rendezvous(self._at_homes, key.encode()):
            channel, calls = self._at_homes[address]
            if channel.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                return calls
        return self._below


def _end_with(call: Any, span: Span) -> None:
    """Ends a span the moment that its call has a status."""

    async def end() -> None:
        try:
            code = await call.code()
            span.set_attribute(names.RPC_STATUS, code.name)
            if code is not grpc.StatusCode.OK:
                tracing.fail(span, code.name)
        finally:
            span.end()

    task = asyncio.ensure_future(end())
    call.add_done_callback(lambda _, task=task: None)  # keeps the task referenced for as long as the call lives
