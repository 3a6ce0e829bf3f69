"""A whole answer of Anthropic's Messages form to a ChatResponse and back; usage and stop reasons, for streams too."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import orjson
from modelmuxer.chat.v1.chat_pb2 import (
    Block,
    ChatResponse,
    Completed,
    FinishReason,
    Opaque,
    Started,
    Usage,
    UsageSource,
)

from shared.wire.anthropic.blocks import FORMAT, Written, block_from_json, block_to_json, citation_to_json, splice
from shared.wire.json_text import Fault, Json, JsonObject, join

_REASONS = {
    "end_turn": FinishReason.FINISH_REASON_STOP,
    "max_tokens": FinishReason.FINISH_REASON_LENGTH,
    "stop_sequence": FinishReason.FINISH_REASON_STOP_SEQUENCE,
    "tool_use": FinishReason.FINISH_REASON_TOOL_USE,
    "pause_turn": FinishReason.FINISH_REASON_PAUSE,
    "refusal": FinishReason.FINISH_REASON_REFUSAL,
    "model_context_window_exceeded": FinishReason.FINISH_REASON_CONTEXT_LENGTH,
}
_STOP_REASONS = {reason: word for word, reason in _REASONS.items()} | {
    FinishReason.FINISH_REASON_CONTENT_FILTER: "refusal"
}
MESSAGE_MEMBERS = frozenset({"id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"})
_NOWHERE = ("", "not_available")  # regions that say nothing
_MAX_COUNT = 2**53


class Counts:
    """Usage as it is told: cumulative, in parts, input without what the prompt cache read or wrote."""

    def __init__(self) -> None:
        self._input: dict[str, int] = {}
        self._usage = Usage()

    def update(self, told: JsonObject, *, final: bool) -> None:
        """Takes what one message or event tells. Before the end (`final`) its output tokens are a placeholder."""
        for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"):
            if (count := _count(told.get(name))) is not None:
                self._input[name] = max(count, self._input.get(name, 0))
        usage = self._usage
        if final and (output := _count(told.get("output_tokens"))) is not None:
            usage.output_tokens = output
            usage.source = UsageSource.USAGE_SOURCE_PROVIDER
        if (kept := _count(_object(told.get("cache_creation")).get("ephemeral_1h_input_tokens"))) is not None:
            usage.cache_write_1h_tokens = kept
        if (thought := _count(_object(told.get("output_tokens_details")).get("thinking_tokens"))) is not None:
            usage.reasoning_tokens = thought
        for name, calls in _object(told.get("server_tool_use")).items():
            if count := _count(calls):
                usage.server_tool_calls[name.removesuffix("_requests")] = count
        if isinstance(tier := told.get("service_tier"), str):
            usage.service_tier = tier
        if told.get("speed") == "fast":
            usage.service_tier = "fast"  # priced apart, as a tier is
        if isinstance(region := told.get("inference_geo"), str) and region not in _NOWHERE:
            usage.region = region

    @property
    def usage(self) -> Usage:
        """What is known so far, input normalised to include the prompt cache's part."""
        usage = Usage()
        usage.CopyFrom(self._usage)
        told = self._input
        if "input_tokens" in told:
            usage.input_tokens = sum(told.values())
        if "cache_read_input_tokens" in told:
            usage.cached_input_tokens = told["cache_read_input_tokens"]
        if "cache_creation_input_tokens" in told:
            usage.cache_write_tokens = told["cache_creation_input_tokens"]
        return usage


def _count(value: Any) -> int | None:
    """A token count; None where there is none."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_COUNT:
        return None
    return value


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}


def finish_reason(word: str) -> FinishReason:
    """The canonical reason of a stop reason; unspecified for a word not known."""
    return _REASONS.get(word, FinishReason.FINISH_REASON_UNSPECIFIED)


def parse_message(text: bytes, fault: Fault) -> ChatResponse:
    """A whole answer. Raises `fault` where it is not of this form."""
    message = Json.parse(text, fault)
    if message.need("type").value != "message":
        raise message.need("type").fault('must be "message"')
    response = ChatResponse(started=Started(provider_model=message.need("model").string()))
    response.content.extend(block_from_json(block, FORMAT) for block in message.need("content").items())
    completed = response.completed
    read_stop(message, completed)
    if not completed.provider_finish_reason:
        raise message.fault("has no stop_reason")
    counts = Counts()
    counts.update(message.need("usage").object(), final=True)
    completed.usage.CopyFrom(counts.usage)
    if extra := {name: member.text for name, member in message.members() if name not in MESSAGE_MEMBERS}:
        completed.extra.CopyFrom(Opaque(format=FORMAT, json=join(extra)))
    return response


def read_stop(told: Json, completed: Completed) -> None:
    """Takes stop_reason and stop_sequence from a message or from the delta of a `message_delta`."""
    if (reason := told.get("stop_reason")) is not None:
        completed.provider_finish_reason = reason.string()
        completed.finish_reason = finish_reason(completed.provider_finish_reason)
    if (stop := told.get("stop_sequence")) is not None:
        completed.stop_sequence = stop.string()


def render_message(response: ChatResponse, *, model: str) -> JsonObject:
    """A whole answer as the caller of this format reads it, whichever provider made it."""
    completed = response.completed
    return {
        "id": message_id(response.started),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": _content(response.content),
        **stop_to_json(completed),
        "usage": usage_to_json(completed.usage),
        **splice(completed.extra),
    }


def _content(blocks: Sequence[Block]) -> list[Written]:
    written = (answer_block(block) for block in blocks)
    return [block for block in written if block is not None]


def message_id(started: Started) -> str:
    """An id of the form that this format's ids have."""
    return started.id if started.id.startswith("msg_") else f"msg_{started.id}"


def stop_to_json(completed: Completed) -> JsonObject:
    """stop_reason and stop_sequence."""
    word = completed.provider_finish_reason
    if finish_reason(word) != completed.finish_reason:
        word = ""  # another provider's word
    return {
        "stop_reason": _STOP_REASONS.get(completed.finish_reason) or word or "end_turn",
        "stop_sequence": completed.stop_sequence or None,
    }


def answer_block(block: Block) -> Written | None:
    """A block of an answer; None for one of another provider's own form, which callers of this one cannot read.

    Unlike in a request, reasoning is shown whoever made it, but never with a signature that Anthropic would refuse.
    """
    match block.WhichOneof("kind"):
        case "opaque" if block.opaque.format != FORMAT:
            return None
        case "text":
            return text_to_json(block, block.text.text)
        case "refusal":
            return text_to_json(block, block.refusal.text)
        case "reasoning":
            return reasoning_to_json(block)
        case "tool_use":
            return tool_use_to_json(block, _parsed_arguments(block.tool_use.arguments_json))
        case "audio" | None:
            return None
        case _:
            return block_to_json(block, "content")


def text_to_json(block: Block, text: str) -> JsonObject:
    """A text block that holds `text`."""
    citations = [found for citation in block.text.citations if (found := citation_to_json(citation)) is not None]
    return {
        "type": "text",
        "text": text,
        **({"citations": citations} if citations else {}),
        **_signature(block.text.signature),
        **splice(block.extra),
    }


def reasoning_to_json(block: Block) -> JsonObject | None:
    """A thinking block; None for what another provider encrypted."""
    reasoning = block.reasoning
    ours = reasoning.format in ("", FORMAT)
    if reasoning.encrypted:
        return {"type": "redacted_thinking", "data": reasoning.encrypted} if ours else None
    signature = reasoning.signature if ours else ""
    return {"type": "thinking", "thinking": reasoning.text, "signature": signature, **splice(block.extra)}


def tool_use_to_json(block: Block, arguments: Written) -> JsonObject:
    """A tool_use block with these arguments."""
    use = block.tool_use
    return {
        "type": "tool_use",
        "id": use.id,
        "name": use.name,
        "input": arguments,
        **_signature(use.signature),
        **splice(block.extra),
    }


def _signature(signature: bytes) -> JsonObject:
    """A part's signature by another provider (Gemini), which comes back in the next request: see `blocks`."""
    return {"signature": base64.b64encode(signature).decode("ascii")} if signature else {}


def _parsed_arguments(text: str) -> Written:
    """Arguments to the letter; {} where the model left no whole object (the answer then says that it was cut)."""
    try:
        whole = isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        whole = False
    return orjson.Fragment(text.encode()) if whole else {}


def usage_to_json(usage: Usage) -> JsonObject:
    """Usage in this format's own terms: input without what the prompt cache read or wrote."""
    written = usage.cache_write_tokens
    body: JsonObject = {
        "input_tokens": max(0, usage.input_tokens - usage.cached_input_tokens - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
    }
    if usage.HasField("cache_write_1h_tokens"):
        body["cache_creation"] = {
            "ephemeral_5m_input_tokens": max(0, written - usage.cache_write_1h_tokens),
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        }
    if usage.HasField("reasoning_tokens"):
        body["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    if usage.server_tool_calls:
        calls = {"web_search": 0, "web_fetch": 0, **usage.server_tool_calls}
        body["server_tool_use"] = {f"{name}_requests": count for name, count in calls.items()}
    if usage.service_tier == "fast":
        body |= {"service_tier": "standard", "speed": "fast"}
    elif usage.service_tier:
        body["service_tier"] = usage.service_tier
    if usage.region:
        body["inference_geo"] = usage.region
    return body
