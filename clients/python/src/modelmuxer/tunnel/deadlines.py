"""Deadlines of many calls, with one timer of the event loop for all: most calls end long before theirs, and a timer
that is set and never fires costs a call as much as its frames do.
"""

import asyncio
import math
import time
from typing import Any, Protocol
from weakref import ref


class Expiring(Protocol):
    """What has a deadline."""

    def expire(self) -> None:
        """The deadline has passed."""


class Deadlines:
    """Calls by the millisecond in which their time is over. They are held weakly: a deadline keeps no call alive."""

    def __init__(self) -> None:
        self._due: dict[int, set[ref[Any]]] = {}
        self._next: float = math.inf

    def add(self, call: Expiring, deadline: float) -> int:
        """Has `call.expire` called at `deadline`, in seconds of `time.monotonic`; the slot is what `drop` wants."""
        slot = int(deadline * 1000) + 1
        due = self._due.get(slot)
        if due is None:
            self._due[slot] = {ref(call)}
            if slot < self._next:
                self._arm(slot)
        else:
            due.add(ref(call))
        return slot

    def drop(self, call: Expiring, slot: int) -> None:
        """Forgets a call that has ended."""
        due = self._due.get(slot)
        if due is not None:
            due.discard(ref(call))
            if not due:
                del self._due[slot]

    def _arm(self, slot: int) -> None:
        self._next = slot
        delay_s = max(slot / 1000 - time.monotonic(), 0.001)
        asyncio.get_running_loop().call_later(delay_s, self._expire, slot)

    def _expire(self, slot: int) -> None:
        if slot != self._next:
            return  # an earlier one was added since
        now = time.monotonic() * 1000
        self._next = math.inf
        for passed in [slot for slot in self._due if slot <= now]:
            for held in self._due.pop(passed):
                call = held()
                if call is not None:
                    call.expire()
        if self._due:
            self._arm(min(self._due))
