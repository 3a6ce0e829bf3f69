"""What a call used, by how it ended. Pure.

- Whole: what the provider said; where it said nothing, an estimate.
- An answer that is no 200, or nothing written: nothing.
- Cut, broken off or cancelled after it was written: the input as the provider said it (else estimated), and as output
  what was streamed, at a token per four bytes, or more if the provider had said more. Of an answer that is not streamed
  nothing is seen: its output is what the deployment's answers in one piece usually come to in that time, none of it
  before the usual first token, and no more than they usually have (`statistics.Figures.unseen_tokens`).

A part that is greater than its whole is no part: such a figure is dropped, and the rest counts as an estimate.
"""

from __future__ import annotations

from collections.abc import Callable

from modelmuxer.chat.v1.chat_pb2 import Block, BlockDelta, Usage, UsageSource

from shared.tokens import BYTES_PER_TOKEN


def whole_usage(stated: Usage, estimate_input: Callable[[], int], answer_bytes: int) -> Usage:
    """Of a whole answer. `estimate_input` is asked only where the provider said nothing."""
    usage = Usage()
    usage.CopyFrom(stated)
    said_all = usage.HasField("input_tokens") and usage.HasField("output_tokens")
    if not usage.HasField("input_tokens"):
        usage.input_tokens = estimate_input()
    if not usage.HasField("output_tokens"):
        usage.output_tokens = output_tokens(answer_bytes)
    possible = _drop_impossible_parts(usage)
    usage.source = UsageSource.USAGE_SOURCE_PROVIDER if said_all and possible else UsageSource.USAGE_SOURCE_ESTIMATED
    return usage


def partial_usage(stated: Usage, estimate_input: Callable[[], int], seen_output_tokens: int) -> Usage:
    """Of an answer that did not come to its end."""
    usage = Usage()
    usage.CopyFrom(stated)
    usage.output_tokens = max(usage.output_tokens, seen_output_tokens)
    usage.source = UsageSource.USAGE_SOURCE_PARTIAL
    if not usage.HasField("input_tokens"):
        usage.input_tokens = estimate_input()
        usage.source = UsageSource.USAGE_SOURCE_ESTIMATED
    if not _drop_impossible_parts(usage):
        usage.source = UsageSource.USAGE_SOURCE_ESTIMATED
    return usage


def no_usage() -> Usage:
    """Of a call that the provider bills nothing for."""
    return Usage(input_tokens=0, output_tokens=0, source=UsageSource.USAGE_SOURCE_ESTIMATED)


def output_tokens(answer_bytes: int) -> int:
    """Tokens of so much answer, rounded up."""
    return -(-answer_bytes // BYTES_PER_TOKEN)


def delta_bytes(delta: BlockDelta) -> int:
    """What a delta adds to the answer."""
    return _size(delta.text + delta.reasoning + delta.tool_arguments + delta.refusal)


def block_bytes(block: Block) -> int:
    """What a block holds of the answer."""
    match block.WhichOneof("kind"):
        case "text":
            return _size(block.text.text)
        case "reasoning":
            return _size(block.reasoning.text)
        case "tool_use":
            return _size(block.tool_use.name + block.tool_use.arguments_json)
        case "refusal":
            return _size(block.refusal.text)
        case "opaque":
            return len(block.opaque.json)
        case _:
            return 0


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _drop_impossible_parts(usage: Usage) -> bool:
    """Whether all parts fit their wholes; those that do not are cleared."""
    wholes = {
        ("cache_write_1h_tokens",): usage.cache_write_tokens,
        ("cached_input_tokens", "cache_write_tokens"): usage.input_tokens,
        ("input_audio_tokens",): usage.input_tokens,
        ("reasoning_tokens", "output_audio_tokens"): usage.output_tokens,
    }
    too_great = [parts for parts, whole in wholes.items() if sum(getattr(usage, part) for part in parts) > whole]
    for parts in too_great:
        for part in parts:
            usage.ClearField(part)
    if usage.cache_write_1h_tokens > usage.cache_write_tokens:
        usage.ClearField("cache_write_1h_tokens")
    return not too_great
