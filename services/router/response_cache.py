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
from google.protobuf.duration_pb2 import Duration
from modelmuxer.cache.v1.cache_pb2 import CacheKey, FillOpen, FillRequest, LookupRequest, LookupResponse
from modelmuxer.chat.v1.chat_pb2 import ChatResponse
from modelmuxer.tunnel import KEY_METADATA

from shared.breaker import Breaker

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

    async def look_up(self, key: CacheKey, max_age: Duration | None) -> LookupResponse | None:
        """The answer and its age; None if there is none, or if the cache does not tell in time."""
        if not self._breaker.allows(self._clock()):
            return None
        request, began_s = LookupRequest(key=key, max_age=max_age), self._clock()
        try:
            found = await self._cache.Lookup(request, timeout=self._timeout_s, metadata=_home(key))
        except grpc.aio.AioRpcError as error:
            now_s = self._clock()
            if now_s - began_s < OVERDUE * self._timeout_s:  # later than that, it was our own loop that was late
                self._breaker.failed(now_s)
            log.info("the response cache did not answer: %s", error.code().name)
            return None
        self._breaker.succeeded()
        return found if found.HasField("answer") else None

    def fill_later(self, key: CacheKey, answer: ChatResponse, ttl: Duration | None) -> None:
        """Stores an answer in the background. With many fills under way, or a resting cache, it is dropped."""
        if len(self._fills) >= MAX_FILLS or not self._breaker.closed:
            return
        fill = asyncio.create_task(self._fill(key, answer, ttl), name="cache fill")
        self._fills.add(fill)
        fill.add_done_callback(self._fills.discard)

    async def drain(self) -> None:
        """Waits for the fills under way."""
        if self._fills:
            await asyncio.wait(self._fills, timeout=FILL_TIMEOUT_S)

    async def _fill(self, key: CacheKey, answer: ChatResponse, ttl: Duration | None) -> None:
        opening = FillRequest(open=FillOpen(key=key, ttl=ttl, answer=answer))
        try:
            await self._cache.Fill(iter((opening,)), timeout=FILL_TIMEOUT_S, metadata=_home(key))
        except grpc.aio.AioRpcError as error:
            log.info("the response cache did not take an answer: %s", error.code().name)


def _home(key: CacheKey) -> tuple[tuple[str, str], ...]:
    """Names the key to the tunnel: among replicas with a memory each, every key has one home."""
    return ((KEY_METADATA, key.digest.hex()),)
