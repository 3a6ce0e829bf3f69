"""What a call costs: exact whole nano-dollars from a price and what was used, rounded up once at the end.

One row of a price holds for the whole call. It is one of the service tier that the provider says it used, or a standard
one if that tier has none; among these, the one with the greatest `above_input_tokens` that the input, cached tokens
included, exceeds. A part that the row prices apart (cached, written to the cache, audio, reasoning) is taken out of its
whole; one without a rate of its own stays in it. Where audio was read from the cache the provider does not say how much
of it: it is counted as uncached first, and only what does not fit as cached. A tool of the provider's that has no price
of its own costs nothing beyond its tokens.

Usage that cannot be (a part greater than its whole, a negative count) raises ValueError: clamping would invent a bill.
"""

from __future__ import annotations

from typing import Final

from modelmuxer.accounting.v1.accounting_pb2 import Price, PriceRow
from modelmuxer.chat.v1.chat_pb2 import Usage

PER: Final = 1_000_000  # tokens that a rate is for
# Words of providers for their standard tier.
_STANDARD: Final = frozenset({"", "default", "standard", "auto", "scale", "on_demand"})


def cost_nanos(price: Price, usage: Usage) -> int:
    """The exact cost in nano-dollars, rounded up. Raises ValueError for impossible usage and a price without a row."""
    tokens_in, tokens_out = usage.input_tokens, usage.output_tokens
    if tokens_in < 0 or tokens_out < 0:
        raise ValueError("a count of tokens is negative")
    row = _row(price, usage.service_tier, tokens_in)
    total = _input(row, usage, tokens_in) + _output(row, usage, tokens_out)
    total += price.call_nanos * PER
    if usage.server_tool_calls:
        total += _server_tools(price, usage) * PER
    if not price.factors:
        return -(-total // PER)
    divisor = PER
    for factor in price.factors:
        if factor.dimension != "region" or factor.denominator <= 0:
            raise ValueError(f'the price has a factor on "{factor.dimension}" that cannot be applied')
        if factor.value == usage.region:
            total *= factor.numerator
            divisor *= factor.denominator
    return -(-total // divisor)


def estimate_nanos(price: Price, input_tokens: int, output_tokens: int) -> int:
    """What so many tokens would cost at standard rates, nothing cached."""
    row = _row(price, "", input_tokens)
    return -(-(row.input * input_tokens + row.output * output_tokens) // PER) + price.call_nanos


def _row(price: Price, tier: str, input_tokens: int) -> PriceRow:
    rows = price.rows
    if len(rows) == 1 and not (row := rows[0]).above_input_tokens and not row.service_tier:
        return row  # most prices have no other
    standard = own = None
    if tier in _STANDARD:
        tier = ""
    for row in rows:
        if row.above_input_tokens and row.above_input_tokens >= input_tokens:
            continue
        if row.service_tier == tier:
            if own is None or row.above_input_tokens > own.above_input_tokens:
                own = row
        elif not row.service_tier and (standard is None or row.above_input_tokens > standard.above_input_tokens):
            standard = row
    found = own or standard
    if found is None:
        raise ValueError("the price has no row that applies")
    return found


def _input(row: PriceRow, usage: Usage, tokens: int) -> int:
    plain, total = tokens, 0
    if (cached := usage.cached_input_tokens) and row.HasField("cached_input"):
        plain -= cached
        total += cached * row.cached_input
    if written := usage.cache_write_tokens:
        hour = usage.cache_write_1h_tokens
        if hour > written or hour < 0:
            raise ValueError(f"{hour} tokens were cached for an hour, of {written} that were cached")
        rate = row.cache_write if row.HasField("cache_write") else row.input
        plain -= written
        total += (written - hour) * rate + hour * (row.cache_write_1h if row.HasField("cache_write_1h") else rate)
    elif usage.cache_write_1h_tokens:
        raise ValueError("tokens were cached for an hour, but none were cached")
    if plain < 0 or cached < 0 or written < 0:
        raise ValueError(f"{cached} cached and {written} cache-written tokens are no parts of {tokens} input tokens")
    if (audio := usage.input_audio_tokens) and row.HasField("input_audio"):
        if not 0 <= audio <= tokens:
            raise ValueError(f"{audio} audio tokens are no part of {tokens} input tokens")
        uncached = min(audio, plain)
        plain -= uncached
        total += uncached * row.input_audio
    return total + plain * row.input


def _output(row: PriceRow, usage: Usage, tokens: int) -> int:
    plain, total = tokens, 0
    if (reasoning := usage.reasoning_tokens) and row.HasField("reasoning"):
        plain -= reasoning
        total += reasoning * row.reasoning
    if (audio := usage.output_audio_tokens) and row.HasField("output_audio"):
        plain -= audio
        total += audio * row.output_audio
    if plain < 0 or reasoning < 0 or audio < 0:
        raise ValueError(f"{reasoning} reasoning and {audio} audio tokens are no parts of {tokens} output tokens")
    return total + plain * row.output


def _server_tools(price: Price, usage: Usage) -> int:
    total = 0
    for tool, calls in usage.server_tool_calls.items():
        if calls < 0:
            raise ValueError(f"{calls} calls of {tool} cannot be")
        total += calls * price.server_tool_call_nanos.get(tool, 0)
    return total
