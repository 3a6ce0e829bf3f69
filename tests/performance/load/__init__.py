"""What callers are to do, and what came of it. The callers themselves stand in a module per face."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

NUMBER = "{number}"
"""Stands in a prompt where distinct prompts differ."""

NUMBER_DIGITS = 19  # of time.time_ns(), until the year 2286: every request of a load has the same size
ANSWER_TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Load:
    """Callers of which each asks, waits for the whole answer and asks again, until the time is up."""

    address: str
    """host:port"""
    key: str
    model: str
    """Empty leaves the choice to the mesh, by its hybrid strategy."""
    prompt: str
    """Holds NUMBER once."""
    distinct: bool
    """Every prompt is new, so that no cache can answer."""
    stream: bool
    callers: int
    seconds: float
    ramp_s: float = 0.0
    """Callers begin evenly over this time, which `seconds` includes."""
    once: bool = False
    """Each asks once and leaves, whatever the time."""

    def begins_after_s(self, caller: int) -> float:
        return self.ramp_s * caller / self.callers


@dataclass
class Measured:
    """What callers saw. Sums up over runs."""

    seconds: float = 0.0
    requests: int = 0
    errors: int = 0
    first_error: str = ""
    hits: int = 0
    """Answers from the response cache."""
    shared: int = 0
    """Answers of a call that another request had begun."""
    messages: int = 0
    """Events of streams."""
    client_cpu_s: float = 0.0
    latencies_ms: array[float] = field(default_factory=lambda: array("d"))
    first_tokens_ms: array[float] = field(default_factory=lambda: array("d"))

    def succeed(self, latency_s: float) -> None:
        self.requests += 1
        self.latencies_ms.append(latency_s * 1e3)

    def fail(self, why: str) -> None:
        self.errors += 1
        self.first_error = self.first_error or why

    def add(self, other: Measured) -> None:
        self.seconds += other.seconds
        self.requests += other.requests
        self.errors += other.errors
        self.first_error = self.first_error or other.first_error
        self.hits += other.hits
        self.shared += other.shared
        self.messages += other.messages
        self.client_cpu_s += other.client_cpu_s
        self.latencies_ms.extend(other.latencies_ms)
        self.first_tokens_ms.extend(other.first_tokens_ms)
