"""What the simulated model says: the same script for the same request, made of tokens that can be counted.

A token is four bytes of UTF-8 text (fewer at the end, or where a character would be split). Input is counted by the
same rule, with fixed numbers for what is not text (README.md has the table). How a script looks on a provider's wire is
left to that provider's module.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from services.simulator.behaviour import (
    DIRECTIVE_MARK,
    Behaviour,
    OrderError,
    Orders,
    model_orders,
    read_directives,
    read_model_name,
)

MESSAGE_TOKENS = 4
TOOL_TOKENS = 8
IMAGE_TOKENS = 256
FILE_TOKENS = 1024

PROSE = (
    "A sender starts with a small window and doubles it each round trip until a loss tells it to slow down. "
    "From there on the window grows by one segment per round trip, and halves when the network drops a packet. "
    "The receiver's own window is the other limit, and the smaller of the two decides how much may be in flight. "
    "A queue that is never empty adds delay to everyone, so good senders leave some room in it. "
)
_SENTENCES = tuple(sentence + "." for sentence in PROSE.strip().rstrip(".").split(". "))


def count_text(text: str) -> int:
    """Tokens of a text."""
    return len(text) + 3 >> 2 if text.isascii() else len(text.encode()) + 3 >> 2


def pieces(text: str) -> list[str]:
    """A text as its tokens; joined they are the text again."""
    if text.isascii():
        return [text[i : i + 4] for i in range(0, len(text), 4)]
    cut: list[str] = []
    piece, size = "", 0
    for character in text:
        width = len(character.encode())
        if size + width > 4:
            cut.append(piece)
            piece, size = "", 0
        piece += character
        size += width
    return [*cut, piece] if piece else cut


@dataclass(slots=True)
class Tool:
    """A function that the caller offers."""

    name: str
    schema: dict[str, Any]


@dataclass(slots=True)
class Reading:
    """What one pass over a request's messages finds: input tokens, a seed, and the orders that hold.

    An order in a system prompt holds for the whole conversation; one elsewhere only for the turn it stands in, so a
    history that is sent again does not repeat its faults and tool calls.
    """

    tokens: int = 3
    seed: int = 0
    after_tool_result: bool = False
    lasting: dict[str, Any] = field(default_factory=dict)
    passing: dict[str, Any] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)  # input tokens after each block, where a provider caches by block

    def text(self, text: str, *, system: bool = False) -> None:
        data = text.encode()
        self.tokens += len(data) + 3 >> 2
        self.seed = zlib.crc32(data, self.seed)
        if DIRECTIVE_MARK in text:
            (self.lasting if system else self.passing).update(read_directives(text))

    def model_turn(self) -> None:
        """A message of the model's has been read: what came before it has been answered."""
        self.passing.clear()
        self.after_tool_result = False

    def tools(self, tools: list[Any]) -> None:
        for tool in tools:
            self.tokens += TOOL_TOKENS + (len(orjson.dumps(tool)) + 3 >> 2)

    def behaviour(self, model: str, ordered: dict[str, Orders]) -> Behaviour:
        """The orders that hold for the call, the most particular winning: name, `PUT /behaviour`, system, turn."""
        if not self.lasting and not self.passing and model not in ordered:
            return read_model_name(model)
        orders = {**model_orders(model), **ordered.get(model, {}), **self.lasting}
        if self.after_tool_result:
            orders.pop("tool", None)
        return Behaviour(**{**orders, **self.passing})


@dataclass(slots=True)
class Ask:
    """A request, reduced to what decides the reply."""

    seed: int
    behaviour: Behaviour
    tools: list[Tool] = field(default_factory=list)
    must_call: bool = False
    only_tool: str | None = None
    may_call: bool = True
    parallel: bool = True
    schema: dict[str, Any] | None = None
    max_tokens: int | None = None
    stop: list[str] = field(default_factory=list)
    thinking_tokens: int = 0


@dataclass(slots=True)
class Call:
    """A tool call. Its name costs tokens too."""

    name: str
    name_tokens: int
    arguments: list[str]


Ending = Literal["end", "length", "stop_sequence", "tool_calls", "refusal", "filter"]


@dataclass(slots=True)
class Script:
    """A whole reply in tokens, and why it ends."""

    text: list[str]
    thinking: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    ending: Ending = "end"
    stop_sequence: str | None = None

    @property
    def tokens(self) -> int:
        called = sum(call.name_tokens + len(call.arguments) for call in self.calls) if self.calls else 0
        return len(self.thinking) + len(self.text) + called


def write_script(ask: Ask) -> Script:
    """The reply to a request. Raises OrderError for a tool that is not offered and a schema that is none."""
    orders = ask.behaviour
    script = Script(text=[])
    if ask.thinking_tokens:
        script.thinking = pieces(_prose(ask.seed, ask.thinking_tokens))
    if orders.refusal:
        script.text, script.ending = pieces("I can't help with that request."), "refusal"
    else:
        script.calls = _calls(ask)
        script.ending = "tool_calls" if script.calls else "end"
        if not script.calls or orders.reply is not None or orders.tokens is not None:
            _write_text(script, ask)
    if orders.filter:
        script.text, script.calls, script.ending = script.text[: len(script.text) // 2], [], "filter"
    if ask.max_tokens is not None and script.tokens > ask.max_tokens:
        _shorten(script, ask.max_tokens)
    return script


def _write_text(script: Script, ask: Ask) -> None:
    orders = ask.behaviour
    if orders.reply is not None:
        text = orders.reply
    elif ask.schema is not None:
        text = orjson.dumps(sample(ask.schema, ask.seed)).decode()
    elif orders.tokens is not None:
        text = _prose(ask.seed, orders.tokens)
    else:
        text = f"Answer {ask.seed & 0xFFFF:04x}. {_SENTENCES[ask.seed % len(_SENTENCES)]}"
    if ask.stop:
        found = [(text.find(stop), stop) for stop in ask.stop if stop and stop in text]
        if found:
            end, script.stop_sequence = min(found)
            text, script.ending = text[:end], "stop_sequence"
            script.calls = []
    script.text = pieces(text)


def _prose(seed: int, tokens: int) -> str:
    """Exactly so many tokens of plain ASCII prose."""
    start = seed % len(_SENTENCES) * 4
    size = tokens * 4
    return (PROSE * ((start + size) // len(PROSE) + 1))[start : start + size]


def _calls(ask: Ask) -> list[Call]:
    orders = ask.behaviour
    offered = {tool.name: tool for tool in ask.tools}
    if orders.tool is not None and ask.may_call:
        names = orders.tool.split(",")
    elif ask.only_tool is not None:
        names = [ask.only_tool]
    elif ask.must_call and ask.tools:
        names = [ask.tools[0].name]
    else:
        return []
    if missing := [name for name in names if name not in offered]:
        raise OrderError(f"tool {missing[0]!r} is not among the tools of the request")
    calls = []
    for position, name in enumerate(names if ask.parallel else names[:1]):
        arguments = orders.tool_args
        if arguments is None:
            arguments = orjson.dumps(sample(offered[name].schema, ask.seed + position)).decode()
        calls.append(Call(name, count_text(name), pieces(arguments)))
    return calls


def _shorten(script: Script, limit: int) -> None:
    script.ending, script.stop_sequence = "length", None
    script.thinking = script.thinking[:limit]
    limit -= len(script.thinking)
    script.text = script.text[:limit]
    limit -= len(script.text)
    kept = []
    for call in script.calls:
        if limit <= call.name_tokens:
            break
        limit -= call.name_tokens
        call.arguments = call.arguments[:limit]
        limit -= len(call.arguments)
        kept.append(call)
    script.calls = kept


def sample(schema: Any, seed: int) -> Any:
    """A value that fits a JSON schema, the same for the same seed. Raises OrderError when it is no schema."""
    root = schema if isinstance(schema, dict) else {}
    try:
        return _sample(root, root, seed, "value", 0)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise OrderError(f"not a valid JSON schema: {error}") from error


def _sample(schema: Any, root: dict[str, Any], seed: int, name: str, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > 24:
        return None
    if isinstance(reference := schema.get("$ref"), str):
        return _sample(_resolve(reference, root), root, seed, name, depth + 1)
    for key in ("const", "default", "example"):
        if key in schema:
            return schema[key]
    if enum := schema.get("enum"):
        return enum[seed % len(enum)]
    for key in ("anyOf", "oneOf"):
        if options := schema.get(key):
            chosen = next((option for option in options if option.get("type") != "null"), options[0])
            return _sample(chosen, root, seed, name, depth + 1)
    if parts := schema.get("allOf"):
        schema = {**schema, **_merged(parts, root)}
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    kind = str(kind).lower() if kind else ("object" if "properties" in schema else "string")
    return _sample_of_kind(kind, schema, root, seed, name, depth)


def _sample_of_kind(kind: str, schema: dict[str, Any], root: dict[str, Any], seed: int, name: str, depth: int) -> Any:
    match kind:
        case "object":
            required = schema.get("required", ())
            return {
                key: _sample(value, root, seed + position, key, depth + 1)
                for position, (key, value) in enumerate((schema.get("properties") or {}).items())
                if key in required or depth < 6  # a recursive schema ends where it may
            }
        case "array":
            count = max(int(schema.get("minItems", 0)), min(1, int(schema.get("maxItems", 1))) if depth < 6 else 0)
            return [_sample(schema.get("items", {}), root, seed + i, name, depth + 1) for i in range(count)]
        case "integer":
            return int(_number(schema, seed))
        case "number":
            return _number(schema, seed)
        case "boolean":
            return seed % 2 == 0
        case "null":
            return None
    return _string(schema, seed, name)


def _number(schema: dict[str, Any], seed: int) -> float:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    step = schema.get("multipleOf", 1)
    if low is None:
        low = 0 if high is None else min(0, high - 100 * step)
    number = (low // step + 1) * step + seed % 40 * step
    return number if high is None or number < high else ((low + high) / 2 if step == 1 else low)


_FORMATS = {
    "date": "2025-01-31",
    "date-time": "2025-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "ada@example.com",
    "uri": "https://example.com/",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
    "ipv4": "192.0.2.1",
}


def _string(schema: dict[str, Any], seed: int, name: str) -> str:
    if known := _FORMATS.get(schema.get("format", "")):
        return known
    text = f"{name} {seed % 100}"
    text = text.ljust(int(schema.get("minLength", 0)), "x")
    return text[: int(schema.get("maxLength", len(text)))]


def _resolve(reference: str, root: dict[str, Any]) -> Any:
    found: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            found = found.get(part) if isinstance(found, dict) else None
    return found


def _merged(parts: list[Any], root: dict[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {"properties": {}, "required": []}
    for part in parts:
        if isinstance(part, dict) and "$ref" in part:
            part = _resolve(part["$ref"], root)
        if isinstance(part, dict):
            merged["properties"].update(part.get("properties", {}))
            merged["required"] += part.get("required", [])
            merged.update({key: value for key, value in part.items() if key not in ("properties", "required")})
    return merged
