"""Redis in every kind of trouble, under load: what callers notice of it has to be nothing but misses.

Callers ask in turns with the cache and past it (`no_store`), so that whatever else the machine does meets both alike:
those past it are the control, and what the trouble adds is the difference to them. Each caller's question to the cache
is now a new one, now one that was asked before.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

import redis
from modelmuxer.chat.v1.chat_pb2 import ROLE_USER, Block, CacheControl, CacheInfo, ChatRequest, Message, Text
from modelmuxer.client import CallError, Client

from tests.faults.wire import Wire
from tests.mesh.mesh import Mesh
from tests.stores.cache.servers import RedisServer, redis_cluster, redis_server

ADDED_P99_MS = 25.0
CALLERS = 2
ALLOWED_SHARE = 0.01
"""Of requests that may wait longer than that: the 99th percentile, said as a share."""
_Z = 3.09
_QUESTIONS = 24
_RECOVER_WITHIN_S = 30.0
_SLOW_S = 0.2
_NEW = itertools.count()


@dataclass
class Seen:
    """What callers saw of one trouble."""

    fault: str
    past_ms: list[float] = field(default_factory=list)
    cached_ms: list[float] = field(default_factory=list)
    hits: int = 0
    errors: list[str] = field(default_factory=list)
    recovered_s: float = 0.0

    @property
    def added_p50_ms(self) -> float:
        return _percentile(self.cached_ms, 0.5) - _percentile(self.past_ms, 0.5)

    @property
    def added_p99_ms(self) -> float:
        return _percentile(self.cached_ms, 0.99) - _percentile(self.past_ms, 0.99)

    @property
    def late(self) -> int:
        """Requests to the cache that took over 25 ms longer than 99 % of those past it, at the same time."""
        limit_ms = _percentile(self.past_ms, 0.99) + ADDED_P99_MS
        return sum(taken > limit_ms for taken in self.cached_ms)

    @property
    def surely_late(self) -> float:
        """The least share of requests that are late, with 99.9 % confidence (Wilson): what chance may not explain.

        A 99th percentile of some hundred requests is its second worst; this says whether it can be the promised one.
        """
        count, share = len(self.cached_ms), self.late / len(self.cached_ms)
        middle = share + _Z * _Z / (2 * count)
        return (middle - _Z * sqrt(share * (1 - share) / count + (_Z / (2 * count)) ** 2)) / (1 + _Z * _Z / count)

    @property
    def worst_added_ms(self) -> float:
        """By how much the slowest of all was slower than the slowest past the cache."""
        return max(self.cached_ms) - max(self.past_ms)

    def row(self) -> dict[str, Any]:
        """As a line of bench.json."""
        return {
            "suite": "cache-faults",
            "case": self.fault,
            "callers": CALLERS,
            "requests": len(self.past_ms) + len(self.cached_ms),
            "errors": len(self.errors),
            "first_error": self.errors[0] if self.errors else None,
            "hits": self.hits,
            "past_p99_ms": round(_percentile(self.past_ms, 0.99), 2),
            "p50_ms": round(_percentile(self.cached_ms, 0.5), 2),
            "p99_ms": round(_percentile(self.cached_ms, 0.99), 2),
            "added_p50_ms": round(self.added_p50_ms, 2),
            "added_p99_ms": round(self.added_p99_ms, 2),
            "late": self.late,
            "worst_added_ms": round(self.worst_added_ms, 2),
            "recovered_s": round(self.recovered_s, 2),
        }


@dataclass
class Bed:
    """A mesh over a Redis that can be harmed."""

    mesh: Mesh
    client: Client
    faults: Mapping[str, Callable[[], AbstractAsyncContextManager[None]]]

    async def run(self, fault: str, seconds: float, requests: int = 0) -> Seen:
        """Warms the cache, brings the trouble about, asks all the while, ends it, and waits until all is well again.

        It lasts so many seconds, and until so many requests were made to the cache.
        """
        await self._warm()
        seen = Seen(fault)
        async with self.faults[fault]():
            until = time.monotonic() + seconds
            await asyncio.gather(*(self._ask_until(until, requests, seen) for _ in range(CALLERS)))
            ended = time.monotonic()
            if fault in RECOVERS_WITHIN:
                await self._warm()
                seen.recovered_s = time.monotonic() - ended
        if fault not in RECOVERS_WITHIN:
            ended = time.monotonic()
            await self._warm()
            seen.recovered_s = time.monotonic() - ended
        return seen

    async def _warm(self) -> None:
        """Until every old question is a hit."""
        deadline = time.monotonic() + _RECOVER_WITHIN_S
        missing = set(range(_QUESTIONS))
        while missing:
            assert time.monotonic() < deadline, f"{len(missing)} of {_QUESTIONS} questions are still missed"
            for number in [*missing]:
                answer = await self.client.chat(_request(f"old {number}"))
                if answer.completed.cache.status == CacheInfo.STATUS_EXACT:
                    missing.discard(number)

    async def _ask_until(self, until: float, requests: int, seen: Seen) -> None:
        for turn in itertools.count():
            if time.monotonic() >= until and len(seen.cached_ms) >= requests and turn % 4 == 0:
                return
            past = turn % 2 == 0
            question = f"new {next(_NEW)}" if turn % 4 < 2 else f"old {turn % _QUESTIONS}"
            began = time.perf_counter()
            try:
                answer = await self.client.chat(_request(question, CacheControl(no_store=past)))
            except CallError as error:
                seen.errors.append(str(error))
                continue
            (seen.past_ms if past else seen.cached_ms).append((time.perf_counter() - began) * 1e3)
            seen.hits += answer.completed.cache.status == CacheInfo.STATUS_EXACT


RECOVERS_WITHIN = {"a primary of the Cluster killed"}
"""Troubles that the Cluster itself ends."""


@asynccontextmanager
async def one_server(home: Path) -> AsyncIterator[Bed]:
    """A mesh with one Redis, on the other end of a wire."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(redis_server())
        wire = Wire(server.port)
        await wire.open()
        stack.callback(wire.close)
        bed = await _bed(stack, home, f"redis://{wire.address}/0")
        bed.faults = {
            "none": _nothing,
            "stopped": lambda: _stopped(server),
            "hung (SIGSTOP)": lambda: _hung(server),
            "200 ms slow": lambda: _slow(wire),
            "cut in mid-reply": lambda: _torn(wire),
            "wrong password": lambda: _locked(server),
            "full (maxmemory)": lambda: _full(server),
        }
        yield bed


@asynccontextmanager
async def cluster(home: Path) -> AsyncIterator[Bed]:
    """A mesh with a Cluster of three primaries and a replica of each. Its one trouble happens once."""
    async with AsyncExitStack() as stack:
        servers = stack.enter_context(redis_cluster())
        bed = await _bed(stack, home, servers.url)
        bed.faults = {"a primary of the Cluster killed": lambda: _killed(servers.primaries[0])}
        yield bed


async def measure(seconds: float) -> list[dict[str, Any]]:
    """A row for each trouble, and one for none."""
    seen = []
    with tempfile.TemporaryDirectory(prefix="modelmuxer-faults-") as folder:
        for name, bed_of in (("one", one_server), ("cluster", cluster)):
            async with bed_of(Path(folder) / name) as bed:
                seen += [await bed.run(fault, seconds) for fault in bed.faults]
    return [each.row() for each in seen]


async def _bed(stack: AsyncExitStack, home: Path, url: str) -> Bed:
    mesh = stack.enter_context(Mesh(home, {"MODELMUXER_CACHE_STORE": "redis", "REDIS_URL": url}))
    client = await stack.enter_async_context(Client(mesh.grpc(), api_key=mesh.key, timeout_s=30))
    return Bed(mesh, client, {})


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def _stopped(server: RedisServer) -> AsyncIterator[None]:
    await asyncio.to_thread(server.kill)
    yield
    await asyncio.to_thread(server.start)


@asynccontextmanager
async def _killed(server: RedisServer) -> AsyncIterator[None]:
    await asyncio.to_thread(server.kill)
    yield


@asynccontextmanager
async def _hung(server: RedisServer) -> AsyncIterator[None]:
    server.hang()
    try:
        yield
    finally:
        server.wake()


@asynccontextmanager
async def _slow(wire: Wire) -> AsyncIterator[None]:
    wire.delay_s = _SLOW_S
    yield
    wire.delay_s = 0.0


@asynccontextmanager
async def _torn(wire: Wire) -> AsyncIterator[None]:
    wire.tear_after_bytes = 3
    yield
    wire.tear_after_bytes = None


@asynccontextmanager
async def _locked(server: RedisServer) -> AsyncIterator[None]:
    with ExitStack() as stack:
        admin = stack.enter_context(_admin(server))
        admin.config_set("requirepass", "another password")
        admin.auth("another password")
        admin.client_kill_filter(_type="normal", skipme=True)
        yield
        admin.config_set("requirepass", "")


@asynccontextmanager
async def _full(server: RedisServer) -> AsyncIterator[None]:
    with _admin(server) as admin:
        admin.config_set("maxmemory", 1)
        yield
        admin.config_set("maxmemory", 0)


@contextmanager
def _admin(server: RedisServer) -> Iterator[redis.Redis]:
    """One connection that stays."""
    with redis.Redis(port=server.port, single_connection_client=True) as admin:
        admin.ping()
        yield admin


def _request(question: str, control: CacheControl | None = None) -> ChatRequest:
    text = f"{question}: what does TCP do when it starts? [[sim tokens=8]]"
    return ChatRequest(
        model="gpt-4o-mini", messages=[Message(role=ROLE_USER, content=[Block(text=Text(text=text))])], cache=control
    )


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
