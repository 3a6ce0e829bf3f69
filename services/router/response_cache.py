"""The router's end of the response cache: a look-up that never costs more than its few milliseconds, a fill that nobody
waits for. A cache that is slow or gone is a miss.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc
from modelmuxer.cache.v1.cache_pb2 import CacheKey, FillOpen, FillRequest, LookupRequest, LookupResponse
from modelmuxer.tunnel import KEY_METADATA

from shared.breaker import Breaker
from shared.limit import Limit
from shared.telemetry import metrics

if TYPE_CHECKING:
    from modelmuxer.cache.v1.cache_pb2_grpc import CacheServiceAsyncStub

FILL_TIMEOUT_S = 5.0
MAX_FILLS = 64
LONGEST_S = 1.0

log = logging.getLogger("modelmuxer.router")


class ResponseCache:
    """Look-ups and fills behind a breaker."""

    def __init__(
        self, cache: CacheServiceAsyncStub, *, timeout_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cache = cache
        self._timeout_s = timeout_s
        self._clock = clock
        self._breaker = Breaker()
        self._fills: set[asyncio.Task[None]] = set()

    async def look_up(self, request: LookupRequest) -> LookupResponse | None:
        """What the cache says; empty if it is not asked, None if it does not tell in time."""
        if not self._breaker.allows(self._clock()):
            return LookupResponse()
        call = self._cache.Lookup(request, timeout=max(LONGEST_S, self._timeout_s), metadata=home(request.key))
        limit, began_s = Limit(self._timeout_s, call.cancel), self._clock()
        try:
            found: LookupResponse = await call
        except grpc.aio.AioRpcError as error:
            self._breaker.failed(self._clock())
            log.info("the response cache did not answer: %s", error.code().name)
            return None
        except asyncio.CancelledError:
            if not limit.reached or _cancelled():
                raise
            if not limit.late:
                self._breaker.failed(self._clock())
            log.info("the response cache did not answer in time")
            return None
        finally:
            limit.end()
            metrics.CACHE_LOOKUP_DURATION.observe(self._clock() - began_s)
        self._breaker.succeeded()
        return found

    def fill_later(self, opening: FillOpen) -> None:
        """Stores an answer in the background. With many fills under way, or a resting cache, it is dropped."""
        if len(self._fills) >= MAX_FILLS or not self._breaker.closed:
            return
        fill = asyncio.create_task(self._fill(opening), name="cache fill")
        self._fills.add(fill)
        fill.add_done_callback(self._fills.discard)

    async def drain(self) -> None:
        """Waits for the fills under way."""
        if self._fills:
            await asyncio.wait(self._fills, timeout=FILL_TIMEOUT_S)

    async def _fill(self, opening: FillOpen) -> None:
        request = FillRequest(open=opening)
        try:
            await self._cache.Fill(iter((request,)), timeout=FILL_TIMEOUT_S, metadata=home(opening.key))
        except grpc.aio.AioRpcError as error:
            log.info("the response cache did not take an answer: %s", error.code().name)


def _cancelled() -> bool:
    """Whether the current task is being cancelled, apart from any call in it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def home(key: CacheKey) -> tuple[tuple[str, str], ...]:
    """Names the key to the channel: among replicas with a memory each, every key has one home."""
    return ((KEY_METADATA, key.digest.hex()),)
