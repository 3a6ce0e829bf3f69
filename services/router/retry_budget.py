"""The retry budget: retries are a share of calls, so that a provider's bad day is not multiplied.

As in Finagle: every call earns a fraction of a retry, and a floor lets quiet routers retry at all.
"""

from __future__ import annotations


class RetryBudget:
    """A bucket of retries. Pure: the time comes with each question."""

    def __init__(self, *, share: float = 0.1, floor_per_s: float = 10.0, burst: float = 100.0) -> None:
        self._share = share
        self._floor_per_s = floor_per_s
        self._burst = burst
        self._left = burst
        self._updated_s: float | None = None

    def earn(self, now_s: float) -> None:
        """Counts a call."""
        self._refill(now_s)
        self._left = min(self._burst, self._left + self._share)

    def spend(self, now_s: float) -> bool:
        """Takes one retry; False if none is left."""
        self._refill(now_s)
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def _refill(self, now_s: float) -> None:
        if self._updated_s is not None:
            self._left = min(self._burst, self._left + self._floor_per_s * (now_s - self._updated_s))
        self._updated_s = now_s
