"""What one replica has told, and what that makes of it. Pure: the time comes with each question.

A replica that has not served yet is starting, not sick; one that drains is leaving, not sick; one that is full is
loaded, not sick. Sick is who has served and then says that it is not ready, or says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

UNHEARD = "It has not answered yet."
NOT_READY = "It says that it is not ready."
SILENT = "It has fallen silent."


class State(StrEnum):
    """What a replica is to the scaler."""

    STARTING = "starting"
    SERVING = "serving"
    SICK = "sick"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a replica carries."""

    cpu_percent: float = 0.0
    memory_percent: float = 0.0
    slots_percent: float = 0.0
    queue_ms: float = 0.0
    added_ms: float = 0.0
    added_calls_per_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One replica at one moment."""

    address: str
    state: State
    trouble: str = ""
    load: Load = Load()


class Record:
    """What is known of one address for as long as it is a replica's."""

    def __init__(self, address: str, *, patience_s: float) -> None:
        self.address = address
        self._patience_s = patience_s
        self._served = False
        self._draining = False
        self._trouble = UNHEARD
        self._since_s: float | None = None
        self._load = Load()
        self._reported_s: float | None = None

    def ready(self) -> None:
        """It says that it serves: whatever it was before, it is none of it now."""
        self._served = True
        self._draining = False
        self._trouble, self._since_s = "", None

    def not_ready(self, now_s: float) -> None:
        """It says that it does not serve."""
        self._worry(NOT_READY, now_s)

    def lost(self, why: str, now_s: float) -> None:
        """Nothing can be heard from it."""
        last_sign_s, self._reported_s = self._reported_s, None
        self._worry(why, now_s if last_sign_s is None else last_sign_s)

    def drains(self) -> None:
        """It is on its way out, until it serves again."""
        self._draining = self._served

    def reported(self, load: Load, now_s: float) -> None:
        """It tells its load, and by that that it lives."""
        self._load, self._reported_s = load, now_s

    def _worry(self, trouble: str, since_s: float) -> None:
        self._trouble = trouble
        if self._since_s is None:
            self._since_s = since_s

    def at(self, now_s: float) -> Replica:
        """The replica now. A trouble counts once it has lasted."""
        trouble, since_s = self._trouble, self._since_s
        if not trouble and self._reported_s is not None and now_s - self._reported_s > self._patience_s:
            trouble, since_s = SILENT, self._reported_s
        if self._draining:
            state = State.DRAINING
        elif not self._served:
            state = State.STARTING
        elif since_s is not None and now_s - since_s >= self._patience_s:
            state = State.SICK
        else:
            state = State.SERVING
        return Replica(address=self.address, state=state, trouble=trouble, load=self._load)
