"""Chat-completions answers, written: the canonical answer as JSON in OpenAI's form, whole or in chunks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from modelmuxer.chat.v1 import chat_pb2 as chat

_FINISH_REASONS = {
    chat.FINISH_REASON_STOP: "stop",
    chat.FINISH_REASON_STOP_SEQUENCE: "stop",
    chat.FINISH_REASON_PAUSE: "stop",
    chat.FINISH_REASON_LENGTH: "length",
    chat.FINISH_REASON_CONTEXT_LENGTH: "length",
    chat.FINISH_REASON_TOOL_USE: "tool_calls",
    chat.FINISH_REASON_CONTENT_FILTER: "content_filter",
    chat.FINISH_REASON_REFUSAL: "content_filter",
}


def render_response(response: chat.ChatResponse) -> dict[str, Any]:
    """Turns a whole answer into a chat.completion object."""
    started, completed = response.started, response.completed
    choice = {
        "index": 0,
        "message": _message(response.content),
        "logprobs": _logprobs(completed.logprobs) if completed.logprobs else None,
        "finish_reason": _finish_reason(completed),
    }
    return {
        "id": started.id,
        "object": "chat.completion",
        "created": started.create_time.seconds,
        "model": started.model,
        "choices": [choice],
        "usage": _usage(completed.usage),
        **_stamps(started, completed.usage),
        "modelmuxer": _extension(started, completed),
    }


def _finish_reason(completed: chat.Completed) -> str:
    # A refusal of OpenAI's own ends with "stop"; the SDK takes "content_filter" for a filter, and raises.
    if completed.finish_reason == chat.FINISH_REASON_REFUSAL and completed.provider_finish_reason == "stop":
        return "stop"
    return _FINISH_REASONS.get(completed.finish_reason, "stop")


def _stamps(started: chat.Started, usage: chat.Usage) -> dict[str, str]:
    stamps = {}
    if usage.service_tier:
        stamps["service_tier"] = usage.service_tier
    if started.system_fingerprint:
        stamps["system_fingerprint"] = started.system_fingerprint
    return stamps


def _message(content: Iterable[chat.Block]) -> dict[str, Any]:
    texts: list[str] = []
    refusals: list[str] = []
    thoughts: list[str] = []
    details: list[dict[str, str]] = []
    calls: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for block in content:
        match block.WhichOneof("kind"):
            case "text":
                offset = sum(map(len, texts))
                texts.append(block.text.text)
                annotations.extend(_annotation(citation, offset) for citation in block.text.citations)
            case "refusal":
                refusals.append(block.refusal.text)
            case "tool_use":
                calls.append(_tool_call(block.tool_use))
            case "reasoning":
                thoughts.append(block.reasoning.text)
                details.extend(_reasoning_details(block.reasoning))
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(texts) if texts or not (calls or refusals) else None,
        "refusal": "".join(refusals) if refusals else None,
        "annotations": annotations,
    }
    if calls:
        message["tool_calls"] = calls
    if any(thoughts):
        message["reasoning_content"] = "".join(thoughts)
    if details:
        message["reasoning_details"] = details
    return message


def _tool_call(use: chat.ToolUse) -> dict[str, Any]:
    return {"id": use.id, "type": "function", "function": {"name": use.name, "arguments": use.arguments_json}}


def _reasoning_details(reasoning: chat.Reasoning) -> list[dict[str, str]]:
    """What must come back to the letter with the next turn; the form is OpenRouter's ``reasoning_details``."""
    if reasoning.encrypted:
        return [{"type": "reasoning.encrypted", "data": reasoning.encrypted}]
    if reasoning.signature:
        return [{"type": "reasoning.text", "text": reasoning.text, "signature": reasoning.signature}]
    return []


def _annotation(citation: chat.Citation, offset: int) -> dict[str, Any]:
    return {
        "type": "url_citation",
        "url_citation": {
            "url": citation.url,
            "title": citation.title,
            "start_index": offset + citation.start_index,
            "end_index": offset + citation.end_index,
        },
    }


def _logprobs(tokens: Iterable[chat.TokenLogprob]) -> dict[str, Any]:
    return {"content": [_logprob(token) | {"top_logprobs": [_logprob(t) for t in token.top]} for token in tokens],
            "refusal": None}  # fmt: skip


def _logprob(token: chat.TokenLogprob) -> dict[str, Any]:
    raw = token.token_bytes or token.token.encode()
    return {"token": token.token, "logprob": token.logprob, "bytes": list(raw)}


def _usage(usage: chat.Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "audio_tokens": usage.input_audio_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.output_audio_tokens,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _extension(started: chat.Started, completed: chat.Completed) -> dict[str, Any]:
    """What only a gateway knows, under one name of its own."""
    return {
        "provider": started.provider,
        "deployment": started.deployment,
        "decision": started.decision.reason,
        "cache": chat.CacheInfo.Status.Name(completed.cache.status).removeprefix("STATUS_"),
        "cost_nanos": completed.cost.nanos,
        "price_version": completed.cost.price_version,
        "attempts": [
            {"id": a.id, "model": a.model, "deployment": a.deployment, "status": a.status, "cost_nanos": a.cost.nanos}
            for a in completed.attempts
        ],
    }


class ChunkStream:
    """Turns the events of one answer into chat.completion.chunk frames of server-sent events."""

    def __init__(self, *, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._head: dict[str, Any] = {}
        self._started = chat.Started()
        self._calls: dict[int, int] = {}  # block index → index in tool_calls
        self._reasoning: dict[int, list[str]] = {}  # block index → its text, until a signature asks for it
        self._offsets: dict[int, int] = {}  # block index → where its text begins in the whole answer
        self._length = 0

    def encode(self, event: chat.ChatEvent) -> bytes:
        """Returns the frames of one event; none for events that OpenAI's form has no word for."""
        match event.WhichOneof("event"):
            case "delta":
                return self._delta(event.delta)
            case "block_start":
                return self._block_start(event.block_start)
            case "started":
                return self._start(event.started)
            case "completed":
                return self._complete(event.completed)
        return b""

    def _start(self, started: chat.Started) -> bytes:
        self._started = started
        self._head = {
            "id": started.id,
            "object": "chat.completion.chunk",
            "created": started.create_time.seconds,
            "model": started.model,
        }
        if started.system_fingerprint:
            self._head["system_fingerprint"] = started.system_fingerprint
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def _block_start(self, start: chat.BlockStart) -> bytes:
        kind = start.block.WhichOneof("kind")
        if kind == "tool_use":
            index = self._calls[start.index] = len(self._calls)
            return self._chunk({"tool_calls": [{"index": index, **_tool_call(start.block.tool_use)}]})
        if kind == "reasoning":
            reasoning = start.block.reasoning
            self._reasoning[start.index] = [reasoning.text]
            delta: dict[str, Any] = {"reasoning_content": reasoning.text} if reasoning.text else {}
            if details := _reasoning_details(reasoning):
                delta["reasoning_details"] = details
            return self._chunk(delta) if delta else b""
        self._offsets[start.index] = self._length
        if kind == "text" and start.block.text.text:
            self._length += len(start.block.text.text)
            return self._chunk({"content": start.block.text.text})
        if kind == "refusal" and start.block.refusal.text:
            return self._chunk({"refusal": start.block.refusal.text})
        return b""

    def _delta(self, delta: chat.BlockDelta) -> bytes:
        kind = delta.WhichOneof("delta")
        if kind == "text":
            self._length += len(delta.text)
            return self._chunk({"content": delta.text}, logprobs=delta.logprobs)
        if kind == "tool_arguments":
            call = {"index": self._calls[delta.index], "function": {"arguments": delta.tool_arguments}}
            return self._chunk({"tool_calls": [call]})
        if kind == "reasoning":
            self._reasoning.setdefault(delta.index, []).append(delta.reasoning)
            return self._chunk({"reasoning_content": delta.reasoning})
        if kind == "signature" and delta.index in self._reasoning:
            text = "".join(self._reasoning[delta.index])
            return self._chunk(
                {"reasoning_details": [{"type": "reasoning.text", "text": text, "signature": delta.signature}]}
            )
        if kind == "refusal":
            return self._chunk({"refusal": delta.refusal})
        if kind == "citation":
            return self._chunk({"annotations": [_annotation(delta.citation, self._offsets.get(delta.index, 0))]})
        return b""

    def _complete(self, completed: chat.Completed) -> bytes:
        extension = _extension(self._started, completed)
        stamps = _stamps(self._started, completed.usage)
        finish = _finish_reason(completed)
        frames = self._chunk({}, finish_reason=finish, extra={**stamps, "modelmuxer": extension})
        if self._include_usage:
            frames += frame({**self._head, **stamps, "choices": [], "usage": _usage(completed.usage)})
        return frames + b"data: [DONE]\n\n"

    def _chunk(
        self,
        delta: dict[str, Any],
        *,
        finish_reason: str | None = None,
        logprobs: Iterable[chat.TokenLogprob] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> bytes:
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": _logprobs(logprobs) if logprobs else None,
            "finish_reason": finish_reason,
        }
        chunk = {**self._head, "choices": [choice]}
        if self._include_usage:
            chunk["usage"] = None
        if extra:
            chunk.update(extra)
        return frame(chunk)


def frame(value: dict[str, Any]) -> bytes:
    """Returns one server-sent event."""
    return b"data: %b\n\n" % orjson.dumps(value)
