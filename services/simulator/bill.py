"""The bill: one line for each call that a provider would charge for, in the order in which they ended.

Nothing is ever dropped from it but by `reset`: it is the truth that ledgers are checked against.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from services.simulator.prices import Prices, Tokens


class Charge(NamedTuple):
    """What is known of a call's price before it has generated anything."""

    id: str  # the provider's request id
    client_id: str | None  # the caller's own id of the call
    provider: str
    model: str
    tier: str
    tokens: Tokens
    started_at: float  # seconds since the epoch


class Line(NamedTuple):
    charge: Charge
    output_tokens: int
    cost_nanos: int
    complete: bool


class Bill:
    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self._lines: list[Line] = []

    def add(self, charge: Charge, output_tokens: int, *, complete: bool) -> None:
        """Charges a call that has ended; `complete` is false when its answer did not reach its end."""
        cost = self._prices.cost_nanos(charge.provider, charge.model, charge.tier, charge.tokens, output_tokens)
        self._lines.append(Line(charge, output_tokens, cost, complete))

    def reset(self) -> None:
        self._lines.clear()

    def report(self, *, since: int = 0, client_id: str | None = None) -> dict[str, Any]:
        """The lines from a position on, or of one caller's id, and their total. `next` is the position after them."""
        lines = list(self._select(since, client_id))
        return {
            "total_nanos": sum(line.cost_nanos for line in lines),
            "calls": [_entry(line) for line in lines],
            "next": len(self._lines),
        }

    def _select(self, since: int, client_id: str | None) -> Iterator[Line]:
        lines = self._lines[since:] if since else self._lines
        return (line for line in lines if client_id is None or line.charge.client_id == client_id)


def _entry(line: Line) -> dict[str, Any]:
    charge, tokens = line.charge, line.charge.tokens
    return {
        "id": charge.id,
        "client_id": charge.client_id,
        "provider": charge.provider,
        "model": charge.model,
        "service_tier": charge.tier,
        "input_tokens": tokens.input,
        "cached_tokens": tokens.cached,
        "cache_write_5m_tokens": tokens.cache_write_5m,
        "cache_write_1h_tokens": tokens.cache_write_1h,
        "output_tokens": line.output_tokens,
        "cost_nanos": line.cost_nanos,
        "complete": line.complete,
        "started_at": charge.started_at,
    }
