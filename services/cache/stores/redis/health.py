"""Whether a server answers in time. While it does not, no look-up waits for it: it is only pinged now and then."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError

from shared.breaker import Breaker
from shared.telemetry import metrics

log = logging.getLogger("modelmuxer.cache")


class Health:
    """A breaker that a ping of its own closes, so that no request is spent on trying."""

    def __init__(
        self, name: str, ping: Callable[[], Awaitable[object]], *, in_time_s: float, patience_s: float
    ) -> None:
        self.name = name
        self._ping = ping
        self._in_time_s = in_time_s
        self._patience_s = patience_s
        self._breaker = Breaker(rest_s=0.25, max_rest_s=2.0)
        self._mending: asyncio.Task[None] | None = None
        metrics.CACHE_STORE_UP.labels(name).set(1)

    @property
    def well(self) -> bool:
        """Whether the server may be asked."""
        return self._breaker.closed

    def answered(self) -> None:
        """It answered in time."""
        if self._breaker.closed:  # what was under way when it opened does not close it; the ping does
            self._breaker.succeeded()

    def failed(self, why: str) -> None:
        """It did not answer, or not in time."""
        was_well = self._breaker.closed
        self._breaker.failed(time.monotonic())
        if was_well and not self._breaker.closed:
            log.warning("Redis at %s is left alone for a while: %s", self.name, why)
            metrics.CACHE_STORE_UP.labels(self.name).set(0)
            self._mending = asyncio.create_task(self._mend(), name=f"pings of {self.name}")

    def close(self) -> None:
        """Ends the pings."""
        if self._mending is not None:
            self._mending.cancel()
        metrics.CACHE_STORE_UP.remove(self.name)

    async def _mend(self) -> None:
        while not self._breaker.closed:
            await asyncio.sleep(self._breaker.rests_for_s(time.monotonic()))
            if self._breaker.allows(time.monotonic()):
                await self._try()
        log.info("Redis at %s answers again", self.name)
        metrics.CACHE_STORE_UP.labels(self.name).set(1)

    async def _try(self) -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                await self._ping()  # may have to connect first
                began_s = time.monotonic()
                await self._ping()
            slow = time.monotonic() - began_s > self._in_time_s
        except (RedisError, OSError, TimeoutError):
            slow = True
        if slow:
            self._breaker.failed(time.monotonic())
        else:
            self._breaker.succeeded()
