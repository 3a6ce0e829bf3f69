"""The cache service: settings, wiring, runner."""

from __future__ import annotations

import time

from modelmuxer.cache.v1.cache_pb2_grpc import add_CacheServiceServicer_to_server

from services.cache.flights import Flights
from services.cache.service import CacheService
from services.cache.settings import CacheSettings
from services.cache.stores.memory import MemoryStore
from shared.runner import App, main
from shared.telemetry import metrics


async def build(settings: CacheSettings, app: App) -> None:
    """Hangs the cache onto its process."""
    store = MemoryStore(settings.max_bytes, time.monotonic)
    app.stack.push_async_callback(store.close)
    flights = Flights(time.monotonic)
    app.on_drain(flights.drain)
    metrics.CACHE_FLIGHTS.set_function(lambda: len(flights))
    app.serve(
        add_CacheServiceServicer_to_server,
        CacheService(store, flights, ttl_s=settings.ttl_s),
        "modelmuxer.cache.v1.CacheService",
    )


if __name__ == "__main__":
    main("cache", CacheSettings, build)
