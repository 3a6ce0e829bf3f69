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

from services.router.breaker import Breaker

if TYPE_CHECKING:
    from modelmuxer.cache.v1.cache_pb2_grpc import CacheServiceAsyncStub

FILL_TIMEOUT_S = 5.0
MAX_FILLS = 64
OVERDUE = 2.0

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
        began_s = self._clock()
        try:
            found = await self._cache.Lookup(request, timeout=self._timeout_s, metadata=home(request.key))
        except grpc.aio.AioRpcError as error:
            now_s = self._clock()
            if now_s - began_s < OVERDUE * self._timeout_s:  # later than that, it was our own loop that was late
                self._breaker.failed(now_s)
            log.info("the response cache did not answer: %s", error.code().name)
            return None
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


def home(key: CacheKey) -> tuple[tuple[str, str], ...]:
    """Names the key to the channel: among replicas with a memory each, every key has one home."""
    return ((KEY_METADATA, key.digest.hex()),)
