"""What kept answers take, per 100,000 of them, and how long Redis itself takes to hand one out.

Each store is filled in a process of its own, whose resident memory is what is measured; for Redis it is the server's.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import psutil
import redis.asyncio as redis
import uvloop

from services.cache.stores import About, Key, Store
from services.cache.stores.memory import MemoryStore
from tests.performance.report import Row, percentile
from tests.stores.cache.servers import RedisServer, redis_server
from tests.stores.cache.stores import redis_store

ENTRIES = 100_000
ANSWER_BYTES = (200, 2_500)
_FILL_AT_ONCE = 500
# A tenth of an answer is new; the rest is words that come again, as in prose.
_WORDS = b"the window doubles with each acknowledgement until loss is seen and then it grows by one segment a turn "


def footprints(entries: int = ENTRIES) -> Iterator[Row]:
    """A row for each store and size of answers."""
    for size in ANSWER_BYTES:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            yield _row("memory", size, entries, process.submit(_in_memory, entries, size).result())
        with redis_server() as server:
            before = _used(server)
            uvloop.run(_fill_redis(server.url, entries, size))
            yield _row("Redis", size, entries, _used(server) - before)


def round_trips(callers: tuple[int, ...], seconds: float) -> Iterator[Row]:
    """What a GET of an answer takes by the same driver, without a mesh around it: the floor under a hit."""
    with redis_server() as server:
        for number in callers:
            yield uvloop.run(_round_trips(server.port, number, seconds))


def _row(store: str, size: int, entries: int, taken: int) -> Row:
    return {
        "suite": "cache-memory",
        "case": f"{store}, answers of {size:,} bytes",
        "entries": entries,
        "mb_per_100k": round(taken / entries * 100_000 / 1e6, 1),
        "bytes_beside_the_answer": round(taken / entries - size),
        "errors": 0,
    }


def _in_memory(entries: int, size: int) -> int:
    return uvloop.run(_fill_memory(entries, size))


async def _fill_memory(entries: int, size: int) -> int:
    store = MemoryStore(64 * 1024**3, time.monotonic)
    gc.collect()
    before = psutil.Process().memory_info().rss
    await _fill(store, entries, size)
    gc.collect()
    return int(psutil.Process().memory_info().rss - before)


async def _fill_redis(url: str, entries: int, size: int) -> None:
    async with redis_store(url, "modelmuxer:") as store:
        await _fill(store, entries, size)


async def _fill(store: Store, entries: int, size: int) -> None:
    about = About(alias="auto", model="openai/gpt-4o-mini", tags=("team=search",), cost_nanos=12345)
    for first in range(0, entries, _FILL_AT_ONCE):
        numbers = range(first, min(first + _FILL_AT_ONCE, entries))
        kept = await asyncio.gather(*(store.put(_key(number), _answer(size), 3600, about) for number in numbers))
        if not all(kept):
            raise RuntimeError("the store did not keep an answer")


def _key(number: int) -> Key:
    return Key("acme", hashlib.sha256(b"%d" % number).digest())


def _answer(size: int) -> bytes:
    return (os.urandom(size // 10) + _WORDS * (size // len(_WORDS) + 1))[:size]


def _used(server: RedisServer) -> int:
    with server.client() as client:
        return int(client.info("memory")["used_memory"])


async def _round_trips(port: int, callers: int, seconds: float) -> Row:
    latencies: list[float] = []
    async with redis.Redis(port=port, max_connections=callers, protocol=2) as client:
        await client.set("answer", _answer(ANSWER_BYTES[-1]))
        until = time.perf_counter() + seconds

        async def ask() -> None:
            while (began := time.perf_counter()) < until:
                await client.get("answer")
                latencies.append((time.perf_counter() - began) * 1e3)

        began = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(callers)))
        took = time.perf_counter() - began
    return {
        "suite": "redis",
        "case": "GET, by redis.asyncio",
        "callers": callers,
        "rps": round(len(latencies) / took, 1),
        "p50_ms": percentile(latencies, 50),
        "p99_ms": percentile(latencies, 99),
        "requests": len(latencies),
        "errors": 0,
    }
