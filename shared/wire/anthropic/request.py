"""A request of Anthropic's Messages form to a ChatRequest and back.

The two are inverse but for shorthands, which come back spelled out: content that is a string becomes one text block,
adjacent turns of one role become one turn, members that are null are left out. What has no field in ChatRequest goes
into `provider_options`, which the adapter merges into the body again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson
from modelmuxer.chat.v1.chat_pb2 import ChatRequest, Message, Opaque, ResponseFormat, Role, Tool, ToolChoice

from shared.wire import structs
from shared.wire.anthropic.blocks import (
    FORMAT,
    Written,
    blocks_from_json,
    blocks_to_json,
    cache_breakpoint,
    cache_control,
    extra_members,
    malformed_request,
    splice,
    unsupported,
)
from shared.wire.anthropic.thinking import generation, parse_thinking, render_thinking
from shared.wire.json_text import Json, JsonObject

_ROLES = {"user": Role.ROLE_USER, "assistant": Role.ROLE_ASSISTANT, "system": Role.ROLE_SYSTEM}
_TURNS = {
    Role.ROLE_USER: "user",
    Role.ROLE_TOOL: "user",
    Role.ROLE_ASSISTANT: "assistant",
    Role.ROLE_SYSTEM: "system",
    Role.ROLE_DEVELOPER: "system",
}
_CHOICES = {
    "auto": ToolChoice.MODE_AUTO,
    "any": ToolChoice.MODE_REQUIRED,
    "tool": ToolChoice.MODE_TOOL,
    "none": ToolChoice.MODE_NONE,
}
_CHOICE_TYPES = {mode: name for name, mode in _CHOICES.items()} | {ToolChoice.MODE_UNSPECIFIED: "auto"}
_SERVICE_TIERS = {"auto": "auto", "standard_only": "standard_only", "default": "standard_only"}
_MESSAGE_MEMBERS = frozenset({"role", "content"})
_TOOL_MEMBERS = frozenset({"type", "name", "description", "input_schema", "strict"})
_MEMBERS = frozenset(
    [
        "model",
        "messages",
        "system",
        "max_tokens",
        "stream",
        "temperature",
        "top_p",
        "top_k",
        "stop_sequences",
        "tools",
        "tool_choice",
        "thinking",
        "output_config",
        "metadata",
        "service_tier",
    ]
)
# What the endpoint that counts tokens takes of a request.
COUNTED = frozenset(
    [
        "model",
        "messages",
        "system",
        "tools",
        "tool_choice",
        "thinking",
        "output_config",
        "cache_control",
        "speed",
        "context_management",
        "mcp_servers",
    ]
)


@dataclass(frozen=True, slots=True)
class MessagesRequest:
    """A request as it was read."""

    chat: ChatRequest
    stream: bool


# From JSON


def parse_request(text: bytes) -> MessagesRequest:
    """The body of `POST /v1/messages`. Raises MALFORMED_REQUEST naming the field that is wrong."""
    body = Json.parse(text, malformed_request)
    chat = _parse(body)
    chat.max_output_tokens = body.need("max_tokens").integer()
    stream = body.get("stream")
    return MessagesRequest(chat, stream is not None and stream.boolean())


def parse_count_request(text: bytes) -> MessagesRequest:
    """The body of `POST /v1/messages/count_tokens`."""
    return MessagesRequest(_parse(Json.parse(text, malformed_request)), stream=False)


def _parse(body: Json) -> ChatRequest:
    chat = ChatRequest(model=body.need("model").string())
    if (system := body.get("system")) is not None and (blocks := blocks_from_json(system)):
        chat.messages.add(role=Role.ROLE_SYSTEM, content=blocks)
    chat.messages.extend(_message(message) for message in body.need("messages").items())
    if (temperature := body.get("temperature")) is not None:
        chat.temperature = temperature.number()
    if (top_p := body.get("top_p")) is not None:
        chat.top_p = top_p.number()
    if (top_k := body.get("top_k")) is not None:
        chat.top_k = top_k.integer()
    if (stops := body.get("stop_sequences")) is not None:
        chat.stop_sequences.extend(stop.string() for stop in stops.items())
    if (tools := body.get("tools")) is not None:
        chat.tools.extend(_tool(tool) for tool in tools.items())
    if (choice := body.get("tool_choice")) is not None:
        chat.tool_choice.CopyFrom(_tool_choice(choice))
    if (tier := body.get("service_tier")) is not None:
        chat.service_tier = tier.string()
    options = {name: member.value for name, member in body.members() if name not in _MEMBERS}
    options |= _parse_metadata(body, chat) | _parse_output(body, chat)
    if options:
        chat.provider_options.CopyFrom(structs.from_json(options))
    return chat


def _message(message: Json) -> Message:
    role = message.need("role")
    if role.value not in _ROLES:
        raise role.fault('must be "user", "assistant" or "system"')
    parsed = Message(role=_ROLES[role.value], content=blocks_from_json(message.need("content")))
    if (extra := extra_members(message, _MESSAGE_MEMBERS)) is not None:
        parsed.extra.CopyFrom(extra)
    return parsed


def _tool(tool: Json) -> Tool:
    kind = tool.get("type")
    if kind is not None and kind.value != "custom":
        return Tool(opaque=Opaque(format=FORMAT, json=tool.text))
    parsed = Tool(name=tool.need("name").string())
    schema = tool.need("input_schema")
    schema.object()
    parsed.parameters_json = schema.text.decode()
    if (description := tool.get("description")) is not None:
        parsed.description = description.string()
    if (strict := tool.get("strict")) is not None:
        parsed.strict = strict.boolean()
    known = _TOOL_MEMBERS
    if (breakpoint_ := cache_breakpoint(tool)) is not None:
        parsed.cache_breakpoint.CopyFrom(breakpoint_)
        known |= {"cache_control"}
    if (extra := extra_members(tool, known)) is not None:
        parsed.extra.CopyFrom(extra)
    return parsed


def _tool_choice(choice: Json) -> ToolChoice:
    kind = choice.need("type")
    if kind.value not in _CHOICES:
        raise kind.fault('must be "auto", "any", "tool" or "none"')
    parsed = ToolChoice(mode=_CHOICES[kind.value])
    if parsed.mode == ToolChoice.MODE_TOOL:
        parsed.name = choice.need("name").string()
    if (alone := choice.get("disable_parallel_tool_use")) is not None:
        parsed.parallel = not alone.boolean()
    return parsed


def _parse_metadata(body: Json, chat: ChatRequest) -> JsonObject:
    """Fills `end_user`; returns the rest as members for `provider_options`."""
    metadata = body.get("metadata")
    if metadata is None:
        return {}
    if (user := metadata.get("user_id")) is not None:
        chat.end_user = user.string()
    rest = {name: member.value for name, member in metadata.members() if name != "user_id"}
    return {"metadata": rest} if rest else {}


def _parse_output(body: Json, chat: ChatRequest) -> JsonObject:
    """Fills `reasoning` and `response_format`; returns the rest as members for `provider_options`."""
    reasoning, rest = parse_thinking(body)
    if reasoning is not None:
        chat.reasoning.CopyFrom(reasoning)
    config = body.get("output_config")
    if config is None:
        return rest
    kept = {name: member.value for name, member in config.members() if name not in ("effort", "format")}
    if (form := config.get("format")) is not None:
        if form.object().get("type") == "json_schema" and form.object().keys() == {"type", "schema"}:
            schema = form.need("schema")
            schema.object()
            chat.response_format.json_schema.schema_json = schema.text.decode()
        else:
            kept["format"] = form.value
    return rest | ({"output_config": kept} if kept else {})


# To JSON


def render_request(chat: ChatRequest, *, model: str, max_tokens: int) -> JsonObject:
    """The body, `provider_options` not yet merged. Raises UNSUPPORTED_FEATURE naming what this format cannot say."""
    _refuse(chat)
    body: JsonObject = {"model": model, "max_tokens": max_tokens}
    system, turns = _conversation(chat.messages, model)
    if system:
        body["system"] = system
    body["messages"] = turns
    if chat.tools:
        body["tools"] = [_tool_to_json(tool, f"tools[{index}]") for index, tool in enumerate(chat.tools)]
    if chat.HasField("tool_choice") and (choice := _choice_to_json(chat.tool_choice, bool(chat.tools))):
        body["tool_choice"] = choice
    for name in ("temperature", "top_p", "top_k"):
        if chat.HasField(name):
            body[name] = getattr(chat, name)
    if chat.stop_sequences:
        body["stop_sequences"] = list(chat.stop_sequences)
    if chat.end_user:
        body["metadata"] = {"user_id": chat.end_user}
    if chat.service_tier:
        body["service_tier"] = _service_tier(chat.service_tier)
    _add_output(body, chat, model, max_tokens)
    return body


def _refuse(chat: ChatRequest) -> None:
    if chat.HasField("seed"):
        raise unsupported("seed", "seed")
    if chat.HasField("top_logprobs"):
        raise unsupported("log probabilities", "top_logprobs")
    if chat.presence_penalty:
        raise unsupported("presence_penalty", "presence_penalty")
    if chat.frequency_penalty:
        raise unsupported("frequency_penalty", "frequency_penalty")
    if chat.temperature > 1:
        raise unsupported("a temperature above 1", "temperature")
    if chat.response_format.WhichOneof("kind") == "json_object":
        raise unsupported("JSON without a schema", "response_format.json_object")


def _conversation(messages: Sequence[Message], model: str) -> tuple[list[Written], list[JsonObject]]:
    """The system prompt's blocks and the turns."""
    system: list[Written] = []
    turns: list[JsonObject] = []
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        role = _TURNS.get(message.role)
        if role is None:
            raise malformed_request(f"{path}.role", "is not given")
        if message.name and message.role in (Role.ROLE_USER, Role.ROLE_ASSISTANT):
            raise unsupported("a speaker's name", f"{path}.name")
        if role == "system":
            _check_system(message, path)
        content = blocks_to_json(message.content, f"{path}.content")
        if not content:
            continue  # nothing of it is for this provider: an empty turn would be refused
        if role == "system" and not turns and not message.HasField("extra"):
            system.extend(content)
            continue
        if role == "system" and not generation(model).system_turns:
            raise unsupported("system messages within the conversation, with this model", path)
        _add_turn(turns, {"role": role, "content": content, **splice(message.extra)})
    for turn in turns:
        if turn["role"] == "user":
            turn["content"].sort(key=_is_no_tool_result)  # tool results must come first; the sort is stable
    return system, turns


def _check_system(message: Message, path: str) -> None:
    for index, block in enumerate(message.content):
        if block.WhichOneof("kind") not in ("text", "opaque"):
            raise unsupported("anything but text in system prompts", f"{path}.content[{index}]")


def _add_turn(turns: list[JsonObject], turn: JsonObject) -> None:
    """Appends a turn, or adds to the last one of the same role: results of one turn's calls belong in one turn."""
    last = turns[-1] if turns else None
    if last is not None and last["role"] == turn["role"] != "system" and last.keys() == turn.keys() == _MESSAGE_MEMBERS:
        last["content"].extend(turn["content"])
    else:
        turns.append(turn)


def _is_no_tool_result(block: Written) -> bool:
    return isinstance(block, orjson.Fragment) or block["type"] != "tool_result"


def _tool_to_json(tool: Tool, path: str) -> Written:
    if tool.HasField("opaque"):
        if tool.opaque.format != FORMAT:
            raise unsupported(f"a tool of {tool.opaque.format or 'an unknown'} form", path)
        return orjson.Fragment(tool.opaque.json)
    body: JsonObject = {"name": tool.name, "input_schema": _schema(tool.parameters_json, f"{path}.parameters_json")}
    if tool.description:
        body["description"] = tool.description
    if tool.HasField("strict"):
        body["strict"] = tool.strict
    body.update(splice(tool.extra))
    if tool.HasField("cache_breakpoint"):
        body["cache_control"] = cache_control(tool.cache_breakpoint)
    return body


def _schema(text: str, path: str) -> orjson.Fragment:
    """A schema to the letter; none at all means a tool without arguments."""
    if not text:
        return orjson.Fragment(b'{"type":"object","properties":{}}')
    Json.parse(text.encode(), lambda _, sentence: malformed_request(path, sentence)).object()
    return orjson.Fragment(text.encode())


def _choice_to_json(choice: ToolChoice, has_tools: bool) -> JsonObject | None:
    kind = _CHOICE_TYPES[choice.mode]
    if not has_tools and kind in ("auto", "none"):
        return None  # the format refuses a choice without tools; without tools these say nothing
    body: JsonObject = {"type": kind}
    if kind == "tool":
        body["name"] = choice.name
    if choice.HasField("parallel") and kind != "none":
        body["disable_parallel_tool_use"] = not choice.parallel
    return body


def _service_tier(tier: str) -> str:
    if tier not in _SERVICE_TIERS:
        raise unsupported(f'the service tier "{tier}"', "service_tier")
    return _SERVICE_TIERS[tier]


def _add_output(body: JsonObject, chat: ChatRequest, model: str, max_tokens: int) -> None:
    config: JsonObject = {}
    if chat.HasField("reasoning"):
        thinking, effort = render_thinking(
            chat.reasoning,
            model=model,
            max_tokens=max_tokens,
            interleaved="interleaved-thinking" in chat.provider_headers.get("anthropic-beta", ""),
        )
        if thinking is not None:
            body["thinking"] = thinking
        if effort:
            config["effort"] = effort
    if chat.response_format.WhichOneof("kind") == "json_schema":
        config["format"] = _format_to_json(chat.response_format)
    if config:
        body["output_config"] = config


def _format_to_json(form: ResponseFormat) -> JsonObject:
    path = "response_format.json_schema.schema_json"
    if not form.json_schema.schema_json:
        raise malformed_request(path, "is required")
    return {"type": "json_schema", "schema": _schema(form.json_schema.schema_json, path)}
