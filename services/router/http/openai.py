"""The OpenAI face: chat-completions JSON to the canonical chat and back. Pure; the application in app.py does the I/O.

Parameters without a canonical field (``logit_bias``, ``prompt_cache_key``, an OpenAI-compatible server's own) become
``provider_options``: they reach the provider as they are. What cannot work is refused by its name.
Source of the shapes: the types of the official ``openai`` package.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson
from modelmuxer.chat.v1 import chat_pb2 as chat

from services.router.http.face import Headers, Reading
from services.router.http.fields import (
    Json,
    boolean,
    integer,
    items,
    malformed,
    mapping,
    number,
    parse_json,
    string,
    string_map,
    unsupported,
)
from services.router.http.problems import http_status, problem_members
from shared.errors import MeshError, Reason

# Ours beside OpenAI's: how the model is chosen.
_ROUTING_FIELDS = ("routing_strategy", "fallbacks", "only_providers", "exclude_providers")

_ROLES = {
    "system": chat.ROLE_SYSTEM,
    "developer": chat.ROLE_DEVELOPER,
    "user": chat.ROLE_USER,
    "assistant": chat.ROLE_ASSISTANT,
    "tool": chat.ROLE_TOOL,
}

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

_MODES = {
    "none": chat.ToolChoice.MODE_NONE,
    "auto": chat.ToolChoice.MODE_AUTO,
    "required": chat.ToolChoice.MODE_REQUIRED,
}


# --- the request -----------------------------------------------------------------------------------------------------


def parse_request(body: Mapping[str, Json]) -> chat.ChatRequest:
    """Turns a chat-completions body into a ChatRequest. Raises MeshError naming the field that is wrong."""
    fields = dict(body)
    request = chat.ChatRequest()
    for name, read in _READERS.items():
        value = fields.pop(name, None)
        if value is not None:
            read(request, value, name)
    if not request.messages:
        raise malformed("messages", "must hold at least one message")
    fields.pop("stream", None)
    fields.pop("stream_options", None)
    if rest := {name: value for name, value in fields.items() if value is not None}:
        request.provider_options.update(rest)
    return request


def wants_stream(body: Mapping[str, Json]) -> bool:
    """Tells whether the answer is to be streamed."""
    value = body.get("stream")
    return value is not None and boolean(value, "stream")


def wants_usage(body: Mapping[str, Json]) -> bool:
    """Tells whether a streamed answer is to end with a usage chunk."""
    options = body.get("stream_options")
    if options is None:
        return False
    value = mapping(options, "stream_options").get("include_usage")
    return value is not None and boolean(value, "stream_options.include_usage")


def _read_messages(request: chat.ChatRequest, value: Json, path: str) -> None:
    for at, item in items(value, path):
        _read_message(request.messages.add(), mapping(item, at), at)


def _read_message(message: chat.Message, fields: Mapping[str, Json], path: str) -> None:
    role = string(fields.get("role"), f"{path}.role")
    if role not in _ROLES:
        known = ", ".join(_ROLES)
        raise malformed(f"{path}.role", f"must be one of {known}, not {role!r}")
    message.role = _ROLES[role]
    if fields.get("name") is not None:
        message.name = string(fields["name"], f"{path}.name")
    if fields.get("function_call") is not None:
        raise unsupported(f"{path}.function_call", "was replaced by tool_calls, which works here")
    if fields.get("audio") is not None:
        raise unsupported(f"{path}.audio", "audio answers are not served")
    if role == "tool":
        _read_tool_result(message, fields, path)
        return
    _read_reasoning(message, fields, path)
    _read_content(message.content, fields.get("content"), f"{path}.content")
    if fields.get("refusal") is not None:
        message.content.add().refusal.text = string(fields["refusal"], f"{path}.refusal")
    for at, item in items(fields.get("tool_calls") or [], f"{path}.tool_calls"):
        _read_tool_call(message.content.add().tool_use, mapping(item, at), at)
    if not message.content and role != "assistant":
        raise malformed(f"{path}.content", "must not be empty")


def _read_tool_result(message: chat.Message, fields: Mapping[str, Json], path: str) -> None:
    result = message.content.add().tool_result
    result.tool_use_id = string(fields.get("tool_call_id"), f"{path}.tool_call_id")
    _read_content(result.content, fields.get("content"), f"{path}.content")


def _read_reasoning(message: chat.Message, fields: Mapping[str, Json], path: str) -> None:
    details = fields.get("reasoning_details")
    if details is None:
        if fields.get("reasoning_content"):
            text = string(fields["reasoning_content"], f"{path}.reasoning_content")
            message.content.add().reasoning.text = text
        return
    for at, item in items(details, f"{path}.reasoning_details"):
        detail = mapping(item, at)
        reasoning = message.content.add().reasoning
        for name, key in (("text", "text"), ("signature", "signature"), ("encrypted", "data")):
            if detail.get(key) is not None:
                setattr(reasoning, name, string(detail[key], f"{at}.{key}"))


def _read_content(content: Any, value: Json, path: str) -> None:
    if value is None:
        return
    if isinstance(value, str):
        content.add().text.text = value
        return
    for at, item in items(value, path):
        part = mapping(item, at)
        kind = string(part.get("type"), f"{at}.type")
        reader = _PART_READERS.get(kind)
        if reader is None:
            known = ", ".join(_PART_READERS)
            raise malformed(f"{at}.type", f"must be one of {known}, not {kind!r}")
        block = content.add()
        reader(block, part, at)
        if isinstance(part.get("cache_control"), dict):
            ttl = part["cache_control"].get("ttl")
            block.cache_breakpoint.ttl = "" if ttl is None else string(ttl, f"{at}.cache_control.ttl")


def _read_text(block: chat.Block, part: Mapping[str, Json], path: str) -> None:
    block.text.text = string(part.get("text"), f"{path}.text")


def _read_refusal(block: chat.Block, part: Mapping[str, Json], path: str) -> None:
    block.refusal.text = string(part.get("refusal"), f"{path}.refusal")


def _read_image(block: chat.Block, part: Mapping[str, Json], path: str) -> None:
    image = mapping(part.get("image_url"), f"{path}.image_url")
    url = string(image.get("url"), f"{path}.image_url.url")
    _read_url(block.image.media, url, f"{path}.image_url.url")
    if image.get("detail") is not None:
        block.image.detail = string(image["detail"], f"{path}.image_url.detail")


def _read_url(media: chat.Media, url: str, path: str) -> None:
    if not url.startswith("data:"):
        media.url = url
        return
    head, comma, data = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise malformed(path, "must be an address or a base64 data URI (data:image/png;base64,…)")
    media.media_type = head[len("data:") : -len(";base64")]
    media.data = _base64(data, path)


def _read_input_audio(block: chat.Block, part: Mapping[str, Json], path: str) -> None:
    audio = mapping(part.get("input_audio"), f"{path}.input_audio")
    form = string(audio.get("format"), f"{path}.input_audio.format")
    block.audio.media.media_type = f"audio/{form}"
    block.audio.media.data = _base64(string(audio.get("data"), f"{path}.input_audio.data"), f"{path}.input_audio.data")


def _read_file(block: chat.Block, part: Mapping[str, Json], path: str) -> None:
    file = mapping(part.get("file"), f"{path}.file")
    if file.get("filename") is not None:
        block.document.title = string(file["filename"], f"{path}.file.filename")
    if file.get("file_id") is not None:
        block.document.media.file_id = string(file["file_id"], f"{path}.file.file_id")
        return
    data = string(file.get("file_data"), f"{path}.file.file_data")
    if data.startswith("data:"):
        _read_url(block.document.media, data, f"{path}.file.file_data")
        return
    block.document.media.media_type = "application/pdf"
    block.document.media.data = _base64(data, f"{path}.file.file_data")


_PART_READERS: dict[str, Callable[[chat.Block, Mapping[str, Json], str], None]] = {
    "text": _read_text,
    "image_url": _read_image,
    "input_audio": _read_input_audio,
    "file": _read_file,
    "refusal": _read_refusal,
}


def _base64(data: str, path: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise malformed(path, "must be base64") from None


def _read_tool_call(use: chat.ToolUse, call: Mapping[str, Json], path: str) -> None:
    if call.get("type", "function") != "function":
        raise unsupported(f"{path}.type", "only calls of functions are served")
    function = mapping(call.get("function"), f"{path}.function")
    use.id = string(call.get("id"), f"{path}.id")
    use.name = string(function.get("name"), f"{path}.function.name")
    use.arguments_json = string(function.get("arguments"), f"{path}.function.arguments")


def _read_tools(request: chat.ChatRequest, value: Json, path: str) -> None:
    for at, item in items(value, path):
        fields = mapping(item, at)
        if fields.get("type") != "function":
            raise unsupported(f"{at}.type", "only tools of type function are served")
        function = mapping(fields.get("function"), f"{at}.function")
        tool = request.tools.add(name=string(function.get("name"), f"{at}.function.name"))
        if function.get("description") is not None:
            tool.description = string(function["description"], f"{at}.function.description")
        if function.get("parameters") is not None:
            tool.parameters_json = _json(mapping(function["parameters"], f"{at}.function.parameters"))
        if function.get("strict") is not None:
            tool.strict = boolean(function["strict"], f"{at}.function.strict")


def _read_tool_choice(request: chat.ChatRequest, value: Json, path: str) -> None:
    if isinstance(value, str):
        if value not in _MODES:
            raise malformed(path, f"must be one of {', '.join(_MODES)} or name a function, not {value!r}")
        request.tool_choice.mode = _MODES[value]
        return
    choice = mapping(value, path)
    if choice.get("type") != "function":
        raise unsupported(f"{path}.type", "only a choice of type function is served")
    function = mapping(choice.get("function"), f"{path}.function")
    request.tool_choice.mode = chat.ToolChoice.MODE_TOOL
    request.tool_choice.name = string(function.get("name"), f"{path}.function.name")


def _read_parallel(request: chat.ChatRequest, value: Json, path: str) -> None:
    request.tool_choice.parallel = boolean(value, path)


def _read_response_format(request: chat.ChatRequest, value: Json, path: str) -> None:
    fields = mapping(value, path)
    kind = string(fields.get("type"), f"{path}.type")
    if kind == "text":
        return
    if kind == "json_object":
        request.response_format.json_object.SetInParent()
        return
    if kind != "json_schema":
        raise malformed(f"{path}.type", f"must be one of text, json_object, json_schema, not {kind!r}")
    schema = mapping(fields.get("json_schema"), f"{path}.json_schema")
    target = request.response_format.json_schema
    target.name = string(schema.get("name"), f"{path}.json_schema.name")
    if schema.get("description") is not None:
        target.description = string(schema["description"], f"{path}.json_schema.description")
    if schema.get("schema") is not None:
        target.schema_json = _json(mapping(schema["schema"], f"{path}.json_schema.schema"))
    if schema.get("strict") is not None:
        target.strict = boolean(schema["strict"], f"{path}.json_schema.strict")


def _read_stop(request: chat.ChatRequest, value: Json, path: str) -> None:
    if isinstance(value, str):
        request.stop_sequences.append(value)
        return
    request.stop_sequences.extend(string(item, at) for at, item in items(value, path))


def _read_max_tokens(request: chat.ChatRequest, value: Json, path: str) -> None:
    request.max_output_tokens = integer(value, path)


def _read_logprobs(request: chat.ChatRequest, value: Json, path: str) -> None:
    if boolean(value, path) and not request.HasField("top_logprobs"):
        request.top_logprobs = 0


def _read_top_logprobs(request: chat.ChatRequest, value: Json, path: str) -> None:
    request.top_logprobs = integer(value, path)


def _read_n(_request: chat.ChatRequest, value: Json, path: str) -> None:
    if integer(value, path) != 1:
        raise unsupported(path, "must be 1: send the request again for another answer")


def _read_modalities(_request: chat.ChatRequest, value: Json, path: str) -> None:
    if any(item != "text" for _, item in items(value, path)):
        raise unsupported(path, "only text answers are served")


def _read_effort(request: chat.ChatRequest, value: Json, path: str) -> None:
    request.reasoning.effort = string(value, path)


def _read_metadata(request: chat.ChatRequest, value: Json, path: str) -> None:
    for key, item in string_map(value, path).items():
        request.tags[key] = item


def _refuse(sentence: str) -> Callable[[chat.ChatRequest, Json, str], None]:
    def refuse(_request: chat.ChatRequest, _value: Json, path: str) -> None:
        raise unsupported(path, sentence)

    return refuse


def _read_strategy(request: chat.ChatRequest, value: Json, path: str) -> None:
    request.routing.strategy = string(value, path)


def _read_names(target: str) -> Callable[[chat.ChatRequest, Json, str], None]:
    def read(request: chat.ChatRequest, value: Json, path: str) -> None:
        getattr(request.routing, target).extend(string(item, at) for at, item in items(value, path))

    return read


def _scalar(name: str, read: Callable[[Json, str], Any]) -> Callable[[chat.ChatRequest, Json, str], None]:
    def assign(request: chat.ChatRequest, value: Json, path: str) -> None:
        setattr(request, name, read(value, path))

    return assign


def _read_store(_request: chat.ChatRequest, value: Json, path: str) -> None:
    if boolean(value, path):
        raise unsupported(path, "stored completions are not served")


_READERS: dict[str, Callable[[chat.ChatRequest, Json, str], None]] = {
    "model": _scalar("model", string),
    "messages": _read_messages,
    "max_tokens": _read_max_tokens,
    "max_completion_tokens": _read_max_tokens,
    "temperature": _scalar("temperature", number),
    "top_p": _scalar("top_p", number),
    "top_k": _scalar("top_k", integer),
    "presence_penalty": _scalar("presence_penalty", number),
    "frequency_penalty": _scalar("frequency_penalty", number),
    "stop": _read_stop,
    "seed": _scalar("seed", integer),
    "tools": _read_tools,
    "tool_choice": _read_tool_choice,
    "parallel_tool_calls": _read_parallel,
    "response_format": _read_response_format,
    "reasoning_effort": _read_effort,
    "top_logprobs": _read_top_logprobs,
    "logprobs": _read_logprobs,
    "n": _read_n,
    "modalities": _read_modalities,
    "service_tier": _scalar("service_tier", string),
    "user": _scalar("end_user", string),
    "safety_identifier": _scalar("end_user", string),
    "metadata": _read_metadata,
    "store": _read_store,
    "audio": _refuse("audio answers are not served"),
    "functions": _refuse("was replaced by tools, which works here"),
    "function_call": _refuse("was replaced by tool_choice, which works here"),
    _ROUTING_FIELDS[0]: _read_strategy,
    **{name: _read_names(name) for name in _ROUTING_FIELDS[1:]},
}


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


# --- the answer ------------------------------------------------------------------------------------------------------


def render_response(response: chat.ChatResponse) -> dict[str, Any]:
    """Turns a whole answer into a chat.completion object."""
    started, completed = response.started, response.completed
    choice = {
        "index": 0,
        "message": _message(response.content),
        "logprobs": _logprobs(completed.logprobs) if completed.logprobs else None,
        "finish_reason": _FINISH_REASONS.get(completed.finish_reason, "stop"),
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
        finish = _FINISH_REASONS.get(completed.finish_reason, "stop")
        frames = self._chunk({}, finish_reason=finish, extra={**stamps, "modelmuxer": extension})
        if self._include_usage:
            frames += _frame({**self._head, **stamps, "choices": [], "usage": _usage(completed.usage)})
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
        return _frame(chunk)


def _frame(value: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(value)


# --- errors ----------------------------------------------------------------------------------------------------------

# What the SDK and applications compare `error.code` with.
_CODES: dict[str, str] = {
    Reason.INVALID_KEY: "invalid_api_key",
    Reason.MISSING_KEY: "invalid_api_key",
    Reason.UNKNOWN_MODEL: "model_not_found",
    Reason.CONTEXT_TOO_LONG: "context_length_exceeded",
    Reason.CONTENT_POLICY: "content_policy_violation",
    Reason.PROVIDER_RATE_LIMITED: "rate_limit_exceeded",
    Reason.CONCURRENCY_LIMIT: "rate_limit_exceeded",
    Reason.PROVIDER_QUOTA_EXHAUSTED: "insufficient_quota",
    Reason.PROVIDER_OVERLOADED: "server_is_overloaded",
}


def render_error(error: MeshError, request_id: str) -> dict[str, Any]:
    """Returns OpenAI's error object with RFC 9457's members beside it."""
    return {
        "error": {
            "message": error.message,
            "type": _error_type(error),
            "param": error.field,
            "code": _CODES.get(error.reason, error.reason.lower()),
        },
        **problem_members(error, request_id),
    }


def _error_type(error: MeshError) -> str:
    status = http_status(error)
    if status == 401:
        return "authentication_error"
    if status == 403:
        return "permission_error"
    if status == 402:
        return "insufficient_quota"
    if status == 429:
        return "insufficient_quota" if error.reason == Reason.PROVIDER_QUOTA_EXHAUSTED else "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"


class OpenAIFace:
    """Chat completions, as a Face."""

    def read(self, body: bytes, headers: Headers) -> Reading:
        """Turns a chat-completions body into a ChatRequest."""
        fields = mapping(parse_json(body), "The body")
        chat_request = parse_request(fields)
        stream = ChunkStream(include_usage=wants_usage(fields)) if wants_stream(fields) else None
        return Reading(chat_request, stream)

    def render(self, response: chat.ChatResponse) -> dict[str, Any]:
        """Turns a whole answer into a chat.completion object."""
        return render_response(response)

    def render_error(self, error: MeshError, request_id: str) -> dict[str, Any]:
        """Turns an error into OpenAI's error object."""
        return render_error(error, request_id)

    def error_frame(self, error: MeshError, request_id: str) -> bytes:
        """Turns an error in mid-stream into the frame that the SDK raises an APIError for."""
        return _frame(render_error(error, request_id))
