"""The simulated providers' prices, from `prices.csv`: exact sums, rounded up once per call.

Shares nothing with the mesh's catalogue, so that the two check each other.
"""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

# One nano-dollar in the unit in which a token's price is a whole number.
UNITS_PER_NANO = 10**9
_COLUMNS = ("input", "cached_input", "cache_write_5m", "cache_write_1h", "output")


class Rates(NamedTuple):
    """Units per token."""

    input: int
    cached_input: int
    cache_write_5m: int
    cache_write_1h: int
    output: int


class Tokens(NamedTuple):
    """What a call is charged for. `input` is everything that went in, cached tokens included."""

    input: int
    cached: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0


# The steps of one service tier: (more input tokens than this, rates), the highest step first.
Ladder = tuple[tuple[int, Rates], ...]


class Prices:
    """The table. `find` names the provider that serves a model; `cost_nanos` prices a call."""

    def __init__(self, path: Path = Path(__file__).with_name("prices.csv")) -> None:
        self._ladders: dict[tuple[str, str], dict[str, Ladder]] = {}
        with path.open(newline="") as lines:
            for row in csv.DictReader(line for line in lines if not line.startswith("#")):
                tiers = self._ladders.setdefault((row["provider"], row["model"]), {})
                step = (int(row["above_input_tokens"]), _rates(row))
                tiers[row["service_tier"]] = tuple(sorted((*tiers.get(row["service_tier"], ()), step), reverse=True))
        self._simulated = self._ladders.pop(("*", "sim-*"))

    def models(self, provider: str) -> list[str]:
        return [model for owner, model in self._ladders if owner == provider]

    def serves(self, provider: str, model: str) -> bool:
        return (provider, model) in self._ladders or model.startswith("sim-")

    def has_tier(self, provider: str, model: str, tier: str) -> bool:
        return tier in self._tiers(provider, model)

    def cost_nanos(self, provider: str, model: str, tier: str, tokens: Tokens, output_tokens: int) -> int:
        tiers = self._tiers(provider, model)
        ladder = tiers.get(tier) or tiers["standard"]
        rates = next(rates for above, rates in ladder if tokens.input > above or above == 0)
        plain = tokens.input - tokens.cached - tokens.cache_write_5m - tokens.cache_write_1h
        units = (
            plain * rates.input
            + tokens.cached * rates.cached_input
            + tokens.cache_write_5m * rates.cache_write_5m
            + tokens.cache_write_1h * rates.cache_write_1h
            + output_tokens * rates.output
        )
        return -(-units // UNITS_PER_NANO)

    def _tiers(self, provider: str, model: str) -> dict[str, Ladder]:
        return self._ladders.get((provider, model)) or self._simulated


def _rates(row: dict[str, str]) -> Rates:
    return Rates(*(_units_per_token(row[column] or row["input"]) for column in _COLUMNS))


def _units_per_token(dollars_per_million: str) -> int:
    nanos_per_token = Decimal(dollars_per_million) * 1000
    units = nanos_per_token * UNITS_PER_NANO
    if units != int(units):
        raise ValueError(f"price {dollars_per_million} has more decimals than the table's unit holds")
    return int(units)
