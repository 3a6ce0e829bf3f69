"""Strategies: how candidates are put in order. Pure; each says in a sentence why its first comes first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from services.router.scoring import Option, Scored, Size, expected_s, hybrid_scores, latency_parts, price_parts
from shared.errors import MeshError, Reason

Strategy = Callable[[Sequence[Option], Size], list[Scored]]


def cheapest(options: Sequence[Option], size: Size) -> list[Scored]:
    """The least estimated cost first."""
    return [Scored(option, part, {"price": part}) for option, part in zip(options, price_parts(options), strict=True)]


def fastest(options: Sequence[Option], size: Size) -> list[Scored]:
    """The least expected time first."""
    parts = latency_parts(options, size)
    return [Scored(option, part, {"latency": part}) for option, part in zip(options, parts, strict=True)]


def ordered(options: Sequence[Option], size: Size) -> list[Scored]:
    """As they stand."""
    places = [1 - place / len(options) for place in range(len(options))]
    return [Scored(option, part, {"order": part}) for option, part in zip(options, places, strict=True)]


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {"hybrid": hybrid_scores, "cheapest": cheapest, "fastest": fastest, "ordered": ordered}
)


def check_strategy(name: str) -> None:
    """Raises MALFORMED_REQUEST for a strategy that there is not."""
    if name not in STRATEGIES:
        known = ", ".join(STRATEGIES)
        raise MeshError(
            Reason.MALFORMED_REQUEST,
            f'There is no routing strategy "{name[:64]}"; there are {known}.',
            field="routing.strategy",
        )


def rank(name: str, options: Sequence[Option], size: Size) -> list[Scored]:
    """The candidates, best first, then the fallbacks in order. What should be left alone comes last of all."""
    scored = STRATEGIES[name](options, size)
    return sorted(scored, key=lambda each: (bool(each.option.rest_reason), each.option.fallback, -each.score))


def explain(name: str, ranked: Sequence[Scored], size: Size, *, pinned: bool) -> str:
    """Why the first one is first, in a sentence."""
    first = ranked[0]
    chosen = first.option.model.id
    if len(ranked) == 1:
        return f"{chosen} is the model that was asked for." if pinned else f"{chosen} is the only candidate."
    last = ranked[-1].option
    rested = f" {last.model.id} comes last: {last.rest_reason}." if last.rest_reason else ""
    return f"{chosen} {_because(name, first, ranked[1], size)}.{rested}"


def _because(name: str, first: Scored, second: Scored, size: Size) -> str:
    rival = second.option.model.id
    match name:
        case "cheapest":
            return f"is the cheapest: {_dollars(first)} against {_dollars(second)} of {rival}"
        case "fastest":
            time_s = expected_s(first.option.live, size)
            known = "no calls yet" if time_s is None else f"{time_s:.2f} s expected"
            return f"is the fastest: {known}, ahead of {rival}"
        case "ordered":
            return f"is the first in order that can answer, before {rival}"
        case _:
            parts = ", ".join(f"{part} {value:.2f}" for part, value in first.parts.items())
            return f"scores {first.score:.2f} ({parts}), ahead of {rival} with {second.score:.2f}"


def _dollars(scored: Scored) -> str:
    return f"${scored.option.cost_nanos / 1e9:.6f}"
