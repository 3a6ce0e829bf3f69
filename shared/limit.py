"""A time limit that is fair to whoever is waited for: counted in turns of our own loop, each an equal part of it.

That our loop is late to look does not tell that the other is late to answer: after a late turn the answer, which may
have long been there, still has the turns that are left to be read in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

TURNS = 4


class Limit:
    """Calls `give_up` after a time in which our own loop had its turns."""

    def __init__(self, seconds: float, give_up: Callable[[], object]) -> None:
        self.reached = False
        self._late_turns = 0
        self._turn_s = seconds / TURNS
        self._turns = 0
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._turn_s, self._turn, self._loop.time() + self._turn_s)

    @property
    def late(self) -> bool:
        """Whether it was rather our own loop that was slow."""
        return self._late_turns > TURNS // 2

    def end(self) -> None:
        """Stops the clock."""
        self._timer.cancel()

    def _turn(self, due_s: float) -> None:
        now_s = self._loop.time()
        self._late_turns += now_s - due_s > self._turn_s
        self._turns += 1
        if self._turns < TURNS:
            self._timer = self._loop.call_later(self._turn_s, self._turn, now_s + self._turn_s)
        else:
            self.reached = True
            self._give_up()
