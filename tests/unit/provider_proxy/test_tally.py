"""What a call is said to have used can always be priced, and says where it comes from."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from modelmuxer.accounting.v1.accounting_pb2 import Price, PriceRow
from modelmuxer.chat.v1.chat_pb2 import Block, BlockDelta, Text, ToolUse, Usage, UsageSource

from services.provider_proxy.tally import block_bytes, delta_bytes, partial_usage, whole_usage
from shared.pricing import cost_nanos
from shared.tokens import estimate_input_tokens
from tests.unit.provider_proxy.examples import chat

COUNTS = (
    *("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "cache_write_1h_tokens"),
    *("reasoning_tokens", "input_audio_tokens", "output_audio_tokens"),
)
PRICE = Price(
    rows=[
        PriceRow(
            input=1,
            output=2,
            cached_input=3,
            cache_write=4,
            cache_write_1h=5,
            reasoning=6,
            input_audio=7,
            output_audio=8,
        )
    ]
)


def usage_of(counts: dict[str, int]) -> Usage:
    usage = Usage(source=UsageSource.USAGE_SOURCE_PROVIDER)
    for name, count in counts.items():
        setattr(usage, name, count)
    return usage


def estimated() -> int:
    return estimate_input_tokens(chat())


usages = st.dictionaries(st.sampled_from(COUNTS), st.integers(0, 50) | st.just(2**53)).map(usage_of)


@given(usages, st.integers(0, 1000))
def test_whatever_a_provider_says_can_be_priced(stated: Usage, seen: int) -> None:
    for usage in (whole_usage(stated, estimated, seen), partial_usage(stated, estimated, seen)):
        assert cost_nanos(PRICE, usage) >= 0
        assert usage.HasField("input_tokens")
        assert usage.HasField("output_tokens")


@given(usages, st.integers(0, 1000))
def test_only_what_the_provider_said_in_full_is_its_word(stated: Usage, seen: int) -> None:
    usage = whole_usage(stated, estimated, seen)
    if usage.source == UsageSource.USAGE_SOURCE_PROVIDER:
        assert usage == stated
    else:
        assert usage.source == UsageSource.USAGE_SOURCE_ESTIMATED


def test_what_nobody_said_is_estimated() -> None:
    usage = whole_usage(Usage(), estimated, 9)
    assert (usage.input_tokens, usage.output_tokens) == (estimate_input_tokens(chat()), 3)
    cut = partial_usage(Usage(), estimated, 5)
    assert (cut.input_tokens, cut.output_tokens) == (estimate_input_tokens(chat()), 5)
    assert usage.source == cut.source == UsageSource.USAGE_SOURCE_ESTIMATED


def test_a_cut_counts_what_was_streamed_or_what_the_provider_had_said() -> None:
    placeholder = Usage(input_tokens=7, output_tokens=1)
    cut = partial_usage(placeholder, estimated, 40)
    assert (cut.input_tokens, cut.output_tokens, cut.source) == (7, 40, UsageSource.USAGE_SOURCE_PARTIAL)
    assert partial_usage(Usage(input_tokens=7, output_tokens=90), estimated, 40).output_tokens == 90


def test_an_explicit_zero_is_the_providers_word() -> None:
    nothing = whole_usage(Usage(input_tokens=0, output_tokens=0), estimated, 100)
    assert (nothing.output_tokens, nothing.source) == (0, UsageSource.USAGE_SOURCE_PROVIDER)


def test_bytes_are_counted_in_every_script() -> None:
    assert delta_bytes(BlockDelta(text="你好")) == 6
    assert delta_bytes(BlockDelta(tool_arguments="{}")) == 2
    assert block_bytes(Block(text=Text(text="abc"))) == 3
    assert block_bytes(Block(tool_use=ToolUse(name="f", arguments_json="{}"))) == 3
