"""Slots for concurrent calls: past the limit a call is refused at once rather than queued."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.errors import MeshError, Reason

REOPEN_AT = 0.8  # of the limit: full services flap less if they reopen with room to spare


class Slots:
    """Concurrent calls of one process, over all its faces.

    `taken` are held now, `given` were since the start. `on_change` hears False when the last slot is taken, and True
    when enough are free again.
    """

    def __init__(self, limit: int, on_change: Callable[[bool], None] = lambda open: None) -> None:
        self.limit = limit
        self.taken = 0
        self.given = 0
        self._reopen = int(limit * REOPEN_AT)
        self._open = True
        self._idle = asyncio.Event()
        self._idle.set()
        self._on_change = on_change

    def take(self) -> None:
        """Takes a slot; raises MeshError CONCURRENCY_LIMIT when there is none."""
        if self.taken >= self.limit:
            raise MeshError(
                Reason.CONCURRENCY_LIMIT,
                f"This replica already runs {self.limit} calls, its limit (WORKER_CONNECTIONS); try again shortly.",
                retry_after_s=1.0,
            )
        self.taken += 1
        self.given += 1
        self._idle.clear()
        if self.taken == self.limit:
            self._set(False)

    def release(self) -> None:
        """Gives a slot back."""
        self.taken -= 1
        if not self.taken:
            self._idle.set()
        if not self._open and self.taken <= self._reopen:
            self._set(True)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Holds a slot for the length of a block."""
        self.take()
        try:
            yield
        finally:
            self.release()

    @property
    def open(self) -> bool:
        """What `on_change` heard last: whether there is room."""
        return self._open

    async def idle(self) -> None:
        """Waits until no slot is taken."""
        await self._idle.wait()

    def _set(self, is_open: bool) -> None:
        self._open = is_open
        self._on_change(is_open)
