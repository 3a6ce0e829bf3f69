"""The bill: one line for each call that a provider would charge for, in the order in which they ended.

Nothing is ever dropped from it but by `reset`: it is the truth that ledgers are checked against.
"""

from __future__ import annotations

import time
from array import array
from typing import Any, NamedTuple

from services.simulator.prices import Prices, Tokens

# A line's whole numbers, in this order.
_NUMBERS = (
    "input_tokens",
    "cached_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "cost_nanos",
    "complete",
)
_WIDTH = len(_NUMBERS)


class Charge(NamedTuple):
    """What is known of a call's price before it has generated anything."""

    id: str  # the provider's request id
    client_id: str | None  # the caller's own id of the call
    provider: str
    model: str
    tier: str
    tokens: Tokens
    started_at: float  # seconds since the epoch


class Bill:
    """Lines are kept in columns: a million of them must neither fill the memory nor stop the world to be collected."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self.reset()

    def reset(self) -> None:
        self._opened_at = time.time()
        self._ids: list[str] = []
        self._client_ids: list[str | None] = []
        self._services: list[tuple[str, str, str]] = []  # provider, model, tier: each combination is one object
        self._known_services: dict[tuple[str, str, str], tuple[str, str, str]] = {}
        self._numbers = array("q")
        self._starts = array("d")

    def add(self, charge: Charge, output_tokens: int, *, complete: bool) -> None:
        """Charges a call that has ended; `complete` is false when its answer did not reach its end."""
        service = (charge.provider, charge.model, charge.tier)
        cost_nanos = self._prices.cost_nanos(*service, charge.tokens, output_tokens)
        self._ids.append(charge.id)
        self._client_ids.append(charge.client_id)
        self._services.append(self._known_services.setdefault(service, service))
        self._numbers.extend((*charge.tokens, output_tokens, cost_nanos, complete))
        self._starts.append(charge.started_at)

    def report(self, *, since: int = 0, client_id: str | None = None) -> dict[str, Any]:
        """The lines from a position on, or of one caller's id, and their total. `next` is the position after them.

        `opened_at` is when the bill was begun: what was called earlier is not on it.
        """
        count = len(self._ids)
        positions = (at for at in range(since, count) if client_id is None or self._client_ids[at] == client_id)
        calls = [self._line(position) for position in positions]
        total_nanos = sum(call["cost_nanos"] for call in calls)
        return {"total_nanos": total_nanos, "calls": calls, "next": count, "opened_at": self._opened_at}

    def _line(self, position: int) -> dict[str, Any]:
        provider, model, tier = self._services[position]
        numbers = self._numbers[position * _WIDTH : (position + 1) * _WIDTH]
        return {
            "id": self._ids[position],
            "client_id": self._client_ids[position],
            "provider": provider,
            "model": model,
            "service_tier": tier,
            **dict(zip(_NUMBERS, numbers, strict=True)),
            "complete": bool(numbers[-1]),
            "started_at": self._starts[position],
        }
