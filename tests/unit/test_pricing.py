"""What a call costs is exact, rounded up once, and never invented."""

import itertools
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from modelmuxer.accounting.v1.accounting_pb2 import Price, PriceFactor, PriceRow
from modelmuxer.chat.v1.chat_pb2 import Usage

from shared.pricing import cost_nanos, estimate_nanos

TIERS = ("", "flex", "priority")
STEPS = (0, 1_000, 200_000)
rates = st.integers(0, 10**12)
maybe = st.none() | rates
counts = st.integers(0, 3_000_000)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    steps = {("", 0), *draw(st.lists(st.sampled_from([*itertools.product(TIERS, STEPS)]), max_size=5))}
    return Price(
        rows=[
            PriceRow(
                service_tier=tier,
                above_input_tokens=above,
                input=draw(rates),
                output=draw(rates),
                cached_input=draw(maybe),
                cache_write=draw(maybe),
                cache_write_1h=draw(maybe),
                reasoning=draw(maybe),
                input_audio=draw(maybe),
                output_audio=draw(maybe),
            )
            for tier, above in draw(st.permutations(sorted(steps)))
        ],
        factors=[PriceFactor(dimension="region", value="eu", numerator=11, denominator=10)] * draw(st.integers(0, 1)),
        call_nanos=draw(st.integers(0, 10**9)),
        server_tool_call_nanos={"web_search": draw(st.integers(0, 10**8))},
    )


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Usage that can be: parts within their wholes, and audio that was not read from the cache."""
    plain, cached, written, hour, audio = (draw(counts) for _ in range(5))
    said, reasoning, spoken = (draw(counts) for _ in range(3))
    return Usage(
        input_tokens=plain + cached + written + hour + audio,
        cached_input_tokens=cached,
        cache_write_tokens=written + hour,
        cache_write_1h_tokens=hour,
        input_audio_tokens=audio,
        output_tokens=said + reasoning + spoken,
        reasoning_tokens=reasoning,
        output_audio_tokens=spoken,
        server_tool_calls={"web_search": draw(st.integers(0, 9)), "unpriced": 3},
        service_tier=draw(st.sampled_from([*TIERS, "default", "standard", "batch"])),
        region=draw(st.sampled_from(["", "eu", "us"])),
    )


def by_the_book(price: Price, usage: Usage) -> Fraction:
    """The proto's words, kind by kind, in fractions of a nano-dollar."""
    tiers = {
        row.service_tier
        for row in price.rows
        if usage.input_tokens > row.above_input_tokens or not row.above_input_tokens
    }
    tier = usage.service_tier if usage.service_tier in tiers else ""
    steps = {row.above_input_tokens: row for row in price.rows if row.service_tier == tier}
    row = steps[max(above for above in steps if above == 0 or usage.input_tokens > above)]

    def rate(*names: str) -> Fraction:
        """The first rate that is set."""
        given = (getattr(row, name) for name in names if name in ("input", "output") or row.HasField(name))
        return Fraction(next(given), 10**6)

    hour = usage.cache_write_1h_tokens
    short = usage.cache_write_tokens - hour
    inputs = {
        ("cached_input", "input"): usage.cached_input_tokens,
        ("cache_write", "input"): short,
        ("cache_write_1h", "cache_write", "input"): hour,
        ("input_audio", "input"): usage.input_audio_tokens,
    }
    outputs = {("reasoning", "output"): usage.reasoning_tokens, ("output_audio", "output"): usage.output_audio_tokens}
    cost = sum((count * rate(*names) for names, count in (inputs | outputs).items()), Fraction())
    cost += (usage.input_tokens - sum(inputs.values())) * rate("input")
    cost += (usage.output_tokens - sum(outputs.values())) * rate("output")
    cost += price.call_nanos + usage.server_tool_calls["web_search"] * price.server_tool_call_nanos["web_search"]
    return cost * (Fraction(11, 10) if price.factors and usage.region == "eu" else 1)


@given(prices(), usages())
def test_the_cost_is_what_the_price_says_rounded_up_once(price: Price, usage: Usage) -> None:
    assert cost_nanos(price, usage) == ceil(by_the_book(price, usage))


@given(prices(), usages(), st.sampled_from(["input_tokens", "output_tokens"]), counts)
def test_more_tokens_never_cost_less_within_a_row(price: Price, usage: Usage, name: str, more: int) -> None:
    assume(name == "output_tokens" or len(price.rows) == 1)
    dearer = Usage()
    dearer.CopyFrom(usage)
    setattr(dearer, name, getattr(usage, name) + more)
    assert cost_nanos(price, dearer) >= cost_nanos(price, usage)


@given(rates, rates, counts, counts, counts, counts)
def test_two_calls_cost_what_one_of_both_costs_but_for_the_rounding(
    rate_in: int, rate_out: int, in_1: int, out_1: int, in_2: int, out_2: int
) -> None:
    price = Price(rows=[PriceRow(input=rate_in, output=rate_out)])
    apart = sum(cost_nanos(price, Usage(input_tokens=i, output_tokens=o)) for i, o in ((in_1, out_1), (in_2, out_2)))
    together = cost_nanos(price, Usage(input_tokens=in_1 + in_2, output_tokens=out_1 + out_2))
    assert together <= apart <= together + 1


@given(prices(), counts, counts)
def test_an_estimate_is_the_standard_cost_without_parts_tools_and_factors(
    price: Price, tokens_in: int, out: int
) -> None:
    assert estimate_nanos(price, tokens_in, out) == cost_nanos(price, Usage(input_tokens=tokens_in, output_tokens=out))


def test_a_fraction_of_a_nano_dollar_is_rounded_up_and_only_once() -> None:
    price = Price(rows=[PriceRow(input=1, output=1)])
    assert cost_nanos(price, Usage(input_tokens=1)) == 1
    assert cost_nanos(price, Usage(input_tokens=500_000, output_tokens=500_000)) == 1
    assert cost_nanos(price, Usage(input_tokens=500_000, output_tokens=500_001)) == 2
    assert cost_nanos(price, Usage()) == 0


@pytest.mark.parametrize(("tokens", "cost"), [(200_000, 200_000), (200_001, 400_002)])
def test_a_step_holds_for_calls_that_exceed_it_and_for_all_their_tokens(tokens: int, cost: int) -> None:
    rows = [PriceRow(input=10**6), PriceRow(above_input_tokens=200_000, input=2 * 10**6)]
    assert cost_nanos(Price(rows=rows), Usage(input_tokens=tokens, cached_input_tokens=9)) == cost


def test_a_tier_without_a_row_at_that_length_keeps_its_own_highest_one() -> None:
    rows = [
        PriceRow(input=10**6),
        PriceRow(above_input_tokens=100, input=2 * 10**6),
        PriceRow(service_tier="priority", input=5 * 10**6),
    ]
    assert cost_nanos(Price(rows=rows), Usage(input_tokens=101, service_tier="priority")) == 505
    assert cost_nanos(Price(rows=rows), Usage(input_tokens=101, service_tier="flex")) == 202


def test_audio_that_was_read_from_the_cache_is_not_counted_twice() -> None:
    price = Price(rows=[PriceRow(input=10**6, cached_input=10**5, input_audio=10**7)])
    assert cost_nanos(price, Usage(input_tokens=100, cached_input_tokens=60, input_audio_tokens=70)) == 6 + 400


@pytest.mark.parametrize(
    "usage",
    [
        Usage(input_tokens=-1),
        Usage(output_tokens=-1),
        Usage(input_tokens=10, cached_input_tokens=11),
        Usage(input_tokens=10, cached_input_tokens=-1),
        Usage(input_tokens=10, cached_input_tokens=6, cache_write_tokens=5),
        Usage(input_tokens=10, cache_write_tokens=5, cache_write_1h_tokens=6),
        Usage(input_tokens=10, cache_write_1h_tokens=1),
        Usage(input_tokens=10, input_audio_tokens=11),
        Usage(output_tokens=10, reasoning_tokens=11),
        Usage(output_tokens=10, reasoning_tokens=6, output_audio_tokens=6),
        Usage(output_tokens=10, output_audio_tokens=-1),
        Usage(server_tool_calls={"web_search": -1}),
    ],
)
def test_usage_that_cannot_be_is_refused_not_clamped(usage: Usage) -> None:
    row = PriceRow(input=1, output=1, cached_input=1, reasoning=1, input_audio=1, output_audio=1)
    with pytest.raises(ValueError, match=r"\w"):
        cost_nanos(Price(rows=[row]), usage)


@pytest.mark.parametrize(
    "price",
    [
        Price(),
        Price(rows=[PriceRow(above_input_tokens=5)]),
        Price(rows=[PriceRow(service_tier="flex")]),
        Price(rows=[PriceRow()], factors=[PriceFactor(dimension="weather", numerator=1, denominator=1)]),
        Price(rows=[PriceRow()], factors=[PriceFactor(dimension="region", numerator=1)]),
    ],
)
def test_a_price_that_does_not_say_what_a_call_costs_is_refused(price: Price) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        cost_nanos(price, Usage(input_tokens=1))
