"""How good a candidate is, in parts that add up to its score. Pure.

Every part is between 0 and its weight, and is named in the decision, so that a choice can be read off its figures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.router.providers import Live
from shared.catalogue import Model

# A short prompt needs nothing but a cheap model; a long one is worth the ablest at hand. Length alone ranks prompts by
# difficulty better than chance: .58 to .50 on MMLU, in RouteLLM's measure.
SHORT_PROMPT_TOKENS = 100
LONG_PROMPT_TOKENS = 8_000
LATENCY_WEIGHT = 0.3


@dataclass(frozen=True, slots=True)
class Size:
    """A request's length, estimated, in tokens. `prompt` is the newest message of the user's alone."""

    prompt: int
    input: int
    output: int


@dataclass(frozen=True, slots=True)
class Option:
    """A candidate with what strategies look at."""

    model: Model
    cost_nanos: int
    live: Live | None = None
    fallback: int = 0
    """Its place among the fallbacks, from 1; 0 if it is none."""
    rest_reason: str = ""
    """Why it is better left alone for now."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A candidate with its score."""

    option: Option
    score: float
    parts: Mapping[str, float] = field(default_factory=dict)


def hybrid_scores(options: Sequence[Option], size: Size) -> list[Scored]:
    """Price, live latency and length: the longer the prompt, the less price counts and the more rank."""
    need = difficulty(size.prompt)
    price_weight, length_weight = 0.5 - 0.35 * need, 0.2 + 0.35 * need
    prices, latencies, ranks = price_parts(options), latency_parts(options, size), ranks_by_price(options)
    scored = []
    for option, price, latency, rank in zip(options, prices, latencies, ranks, strict=True):
        parts = {
            "price": price_weight * price,
            "latency": LATENCY_WEIGHT * latency,
            "length": length_weight * (1 - abs(rank - need)),
        }
        scored.append(Scored(option, sum(parts.values()), parts))
    return scored


def price_parts(options: Sequence[Option]) -> list[float]:
    """1 for the cheapest; half of it for one that costs twice as much."""
    least = min((option.cost_nanos for option in options), default=0)
    return [(least + 1) / (option.cost_nanos + 1) for option in options]


def latency_parts(options: Sequence[Option], size: Size) -> list[float]:
    """1 for the quickest; half of it for one that takes twice as long. Without calls: as the median."""
    times_s = [expected_s(option.live, size) for option in options]
    known = sorted(time_s for time_s in times_s if time_s is not None)
    if not known:
        return [1.0] * len(options)
    median_s, least_s = known[len(known) // 2], known[0]
    return [least_s / max(median_s if time_s is None else time_s, 1e-9) if least_s else 1.0 for time_s in times_s]


def expected_s(live: Live | None, size: Size) -> float | None:
    """How long the answer would take, tries that fail included; None if nothing is known."""
    if live is None or live.first_token_s is None:
        return None
    writing_s = size.output / live.tokens_per_s if live.tokens_per_s else 0.0
    return (live.first_token_s + writing_s) / max(1.0 - live.error_rate, 0.05)


def ranks_by_price(options: Sequence[Option]) -> list[float]:
    """Places from the cheapest (0) to the dearest (1): among an alias's models, price stands for ability."""
    prices = sorted({option.cost_nanos for option in options})
    last = max(len(prices) - 1, 1)
    return [prices.index(option.cost_nanos) / last for option in options]


def difficulty(prompt_tokens: int) -> float:
    """0 for a short prompt, 1 for a long one, even steps for equal ratios between."""
    span = math.log(LONG_PROMPT_TOKENS / SHORT_PROMPT_TOKENS)
    return min(1.0, max(0.0, math.log(max(prompt_tokens, 1) / SHORT_PROMPT_TOKENS) / span))
