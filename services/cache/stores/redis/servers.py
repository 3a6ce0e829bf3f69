"""The Redis servers that hold the answers, and which of them holds a key.

A Cluster's slots are looked up here rather than by redis-py's RedisCluster, whose pipelines wait for the slowest node
and try again. A look-up must do neither: each node has lanes and a breaker of its own, a slot that has moved is a miss,
and the map of slots is read anew behind the callers' backs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from services.cache.stores.redis.address import Address
from services.cache.stores.redis.health import Health
from services.cache.stores.redis.lane import Lane
from shared.telemetry import metrics

_REFRESH_AT_LEAST_S = 60.0
_REFRESH_PAUSE_S = 0.25

log = logging.getLogger("modelmuxer.cache")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much may be under way to each server, and for how long."""

    connections: int = 8
    """For look-ups."""
    write_connections: int = 2
    lookup_timeout_s: float = 0.015
    """After this a look-up is a miss."""
    timeout_s: float = 1.0
    """After this a connection is given up."""
    connect_timeout_s: float = 1.0
    most_lookups: int = 3_000
    """Commands in the batch that waits for a connection."""
    most_writes: int = 1_000
    most_write_bytes: int = 16 * 1024 * 1024


class Server:
    """One Redis server: a lane for look-ups, one for writes, and the client for what may take its time."""

    def __init__(self, name: str, client: Redis, limits: Limits, refused: Callable[[Exception], None]) -> None:
        self.name = name
        self.client = client
        self.refused = refused
        self.health = Health(name, client.ping, in_time_s=limits.lookup_timeout_s, patience_s=limits.timeout_s)
        self.reads = Lane(
            client,
            self.health,
            kind="look-up",
            connections=limits.connections,
            timeout_s=limits.lookup_timeout_s,
            patience_s=limits.timeout_s,
            most_commands=limits.most_lookups,
            most_bytes=0,
            refused=refused,
        )
        self.writes = Lane(
            client,
            self.health,
            kind="write",
            connections=limits.write_connections,
            timeout_s=limits.timeout_s,
            patience_s=limits.timeout_s,
            most_commands=limits.most_writes,
            most_bytes=limits.most_write_bytes,
            refused=refused,
        )

    async def close(self) -> None:
        """Gives up what is under way and closes the connections."""
        self.health.close()
        await self.reads.close()
        await self.writes.close()
        await self.client.aclose()


class Servers(Protocol):
    """Where keys are."""

    async def start(self) -> None:
        """Finds the servers, if they can be found at once."""

    def of(self, key: str) -> Server | None:
        """The server of a key; None while it is not known."""

    def all(self) -> Sequence[Server]:
        """Every server that holds keys."""

    async def close(self) -> None:
        """Closes all connections."""


def connect(address: Address, limits: Limits) -> Servers:
    """The servers of an address. Nothing is sent before the start."""
    for kind, seconds in (
        ("look-up", limits.lookup_timeout_s),
        ("write", limits.timeout_s),
        ("connect", limits.connect_timeout_s),
    ):
        metrics.CACHE_STORE_TIMEOUT.labels(kind).set(seconds)
    return ClusterServers(address, limits) if address.cluster else OneServer(address, limits)


class OneServer:
    """A server by itself, or the master that Sentinels name."""

    def __init__(self, address: Address, limits: Limits) -> None:
        self._sentinel: Sentinel | None = None
        if address.master:
            self._sentinel = _sentinel(address, limits)
            name, client = address.master, _master(self._sentinel, address, limits)
        else:
            name = address.options.get("path") or (
                f"{address.options.get('host', 'localhost')}:{address.options.get('port', 6379)}"
            )
            client = _client(address.options, limits)
        self._server = Server(name, client, limits, _count)

    async def start(self) -> None:
        """There is nothing to find."""

    def of(self, key: str) -> Server:
        """The server."""
        return self._server

    def all(self) -> Sequence[Server]:
        """The server."""
        return (self._server,)

    async def close(self) -> None:
        """Closes all connections."""
        await self._server.close()
        if self._sentinel is not None:
            await self._sentinel.aclose()


class ClusterServers:
    """The primaries of a Redis Cluster."""

    def __init__(self, address: Address, limits: Limits) -> None:
        self._address = address
        self._limits = limits
        self._servers: dict[tuple[str, int], Server] = {}
        self._slots: list[Server | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._moved = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Reads the map of slots, and goes on doing so."""
        await self._refresh()
        self._keeping = asyncio.create_task(self._keep(), name="map of the Redis Cluster")

    def of(self, key: str) -> Server | None:
        """The primary that has the key's slot."""
        server = self._slots[key_slot(key.encode())]
        if server is None or not server.health.well:
            self._moved.set()
        return server

    def all(self) -> Sequence[Server]:
        """Every primary."""
        return tuple(self._servers.values())

    async def close(self) -> None:
        """Closes all connections."""
        if self._keeping is not None:
            self._keeping.cancel()
        for server in self._servers.values():
            await server.close()

    async def _keep(self) -> None:
        """Reads the map again whenever something was not where it said, and now and then."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), _REFRESH_AT_LEAST_S)
            self._moved.clear()
            await self._refresh()
            await asyncio.sleep(_REFRESH_PAUSE_S)

    async def _refresh(self) -> None:
        """Takes the map of the first node that tells one: a known one that is well, else one of the address."""
        known = sorted(self._servers.items(), key=lambda item: not item[1].health.well)
        for host, server in known:
            if await self._take_map_of(host, server.client):
                return
        for host in self._address.hosts:
            client = self._client(host)
            try:
                if await self._take_map_of(host, client):
                    return
            finally:
                await client.aclose()
        log.warning("No node of the Redis Cluster tells where its slots are")

    async def _take_map_of(self, host: tuple[str, int], client: Redis) -> bool:
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                ranges: list[list[Any]] = await client.execute_command(  # type: ignore[no-untyped-call]  # it has none
                    "CLUSTER", "SLOTS"
                )
        except (RedisError, OSError, TimeoutError):
            return False
        if not ranges:
            return False
        await self._use(_primaries(ranges, host[0]))
        return True

    async def _use(self, primaries: Sequence[tuple[int, int, tuple[str, int]]]) -> None:
        before, self._servers = self._servers, {}
        self._slots = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, host in primaries:
            server = self._servers.get(host) or before.pop(host, None) or self._server(host)
            self._servers[host] = server
            self._slots[first : last + 1] = [server] * (last + 1 - first)
        for gone in before.values():
            await gone.close()

    def _server(self, host: tuple[str, int]) -> Server:
        return Server(f"{host[0]}:{host[1]}", self._client(host), self._limits, self._refused)

    def _client(self, host: tuple[str, int]) -> Redis:
        return _client({**self._address.options, "host": host[0], "port": host[1]}, self._limits)

    def _refused(self, error: Exception) -> None:
        _count(error)
        self._moved.set()


def _primaries(ranges: list[list[Any]], asked_host: str) -> list[tuple[int, int, tuple[str, int]]]:
    """First slot, last slot and primary, of CLUSTER SLOTS. A node that does not know its own host leaves it empty."""
    return [
        (first, last, (primary[0].decode() if primary[0] else asked_host, primary[1]))
        for first, last, primary, *_ in ranges
    ]


def _count(error: Exception) -> None:
    metrics.CACHE_STORE_REFUSED.labels(type(error).__name__).inc()


def _client(options: dict[str, Any], limits: Limits) -> Redis:
    return Redis(connection_pool=ConnectionPool(**{**_common(limits), **options}))


def _sentinel(address: Address, limits: Limits) -> Sentinel:
    own = {**_common(limits), **address.sentinel_options, "ssl": address.tls}
    if not address.tls:
        del own["ssl"]
    return Sentinel(address.hosts, sentinel_kwargs=own)  # type: ignore[no-untyped-call]  # it has none


def _master(sentinel: Sentinel, address: Address, limits: Limits) -> Redis:
    options = {name: value for name, value in address.options.items() if name != "connection_class"}
    client: Redis = sentinel.master_for(address.master, **{**_common(limits), **options, "ssl": address.tls})
    return client


def _common(limits: Limits) -> dict[str, Any]:
    """No retries: they would be waited for. No second timer per reply either: the lanes have one per batch."""
    return {
        "socket_timeout": None,
        "socket_connect_timeout": limits.connect_timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
