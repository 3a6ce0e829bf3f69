"""The cache service: settings, wiring, runner."""

from __future__ import annotations

import time

from modelmuxer.cache.v1.cache_pb2_grpc import add_CacheServiceServicer_to_server

from services.cache.flights import Flights
from services.cache.semantic.index import SemanticIndex
from services.cache.semantic.memory import Memory
from services.cache.service import CacheService
from services.cache.settings import CacheSettings
from services.cache.stores import Store
from services.cache.stores.memory import MemoryStore
from shared.runner import App, main
from shared.telemetry import metrics


async def build(settings: CacheSettings, app: App) -> None:
    """Hangs the cache onto its process."""
    store = await _store(settings)
    app.stack.push_async_callback(store.close)
    index = SemanticIndex(settings.semantic_max_bytes, time.time)
    memory = Memory(store, index, ttl_s=settings.ttl_s, clock=time.time)
    app.background(memory.rebuild(), "rebuilding of the semantic index")
    flights = Flights(time.monotonic)
    app.on_drain(flights.drain)
    metrics.CACHE_FLIGHTS.set_function(lambda: len(flights))
    app.serve(
        add_CacheServiceServicer_to_server,
        CacheService(store, flights, memory, ttl_s=settings.ttl_s, shared=settings.store != "memory"),
        "modelmuxer.cache.v1.CacheService",
    )


async def _store(settings: CacheSettings) -> Store:
    if settings.store == "memory":
        return MemoryStore(settings.max_bytes, time.monotonic)
    return await _redis_store(settings)


async def _redis_store(settings: CacheSettings) -> Store:
    # The driver takes more than half a second to import, which a cache in memory need not pay.
    from services.cache.stores.redis import RedisStore
    from services.cache.stores.redis.address import parse
    from services.cache.stores.redis.encryption import NO_KEYS, read_key_file
    from services.cache.stores.redis.servers import Limits, connect

    assert settings.redis_url is not None  # noqa: S101 - CacheSettings.check has seen to it
    limits = Limits(
        connections=settings.redis_connections,
        lookup_timeout_s=settings.redis_lookup_timeout_s,
        timeout_s=settings.redis_timeout_s,
        connect_timeout_s=settings.redis_connect_timeout_s,
    )
    keyring = read_key_file(settings.encryption_keys) if settings.encryption_keys else NO_KEYS
    store = RedisStore(
        connect(parse(settings.redis_url), limits),
        prefix=settings.key_prefix,
        largest_bytes=settings.largest_bytes,
        keyring=keyring,
    )
    await store.start()
    return store


if __name__ == "__main__":
    main("cache", CacheSettings, build)
