"""A streamed answer of Anthropic's Messages form: its events to ChatEvents, and ChatEvents to its events.

Blocks that the canonical form carries as Opaque (a server's tools) are held back until they are whole; everything else
passes as it comes. Framing of the events' bytes is the reader's caller's: an event is its `data`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from typing import Any

import orjson
from modelmuxer.chat.v1.chat_pb2 import (
    Block,
    BlockDelta,
    BlockStart,
    BlockStop,
    ChatEvent,
    Completed,
    Opaque,
    Started,
    Usage,
)

from shared.wire.anthropic.blocks import FORMAT, block_from_json, citation_from_json, citation_to_json
from shared.wire.anthropic.message import (
    MESSAGE_MEMBERS,
    Counts,
    answer_block,
    message_id,
    read_stop,
    reasoning_to_json,
    stop_to_json,
    text_to_json,
    tool_use_to_json,
    usage_to_json,
)
from shared.wire.json_text import Fault, Json, JsonObject, join

Failure = Callable[[JsonObject], Exception]

MAX_INDEX = 2**31 - 1
_EVENTS = (
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
)
# kind of block: {type of delta: (its member, the canonical delta)}
_GROWTH = {
    "text": {"text_delta": ("text", "text")},
    "tool_use": {"input_json_delta": ("partial_json", "tool_arguments")},
    "reasoning": {"thinking_delta": ("thinking", "reasoning"), "signature_delta": ("signature", "signature")},
}
_DELTAS = frozenset({"text_delta", "input_json_delta", "thinking_delta", "signature_delta", "citations_delta"})
_OF_DELTA = frozenset({"container", "stop_details"})  # extras that stand in the delta of message_delta


class _Open:
    """A block that grows: its kind, and what of it has to wait for its end."""

    __slots__ = ("arguments", "held", "kind")

    def __init__(self, kind: str, arguments: str = "", held: _Held | None = None) -> None:
        self.kind = kind
        self.arguments = arguments  # a tool's, as the start gave them; they count if no delta comes
        self.held = held


class _Held:
    """An opaque block on its way to being whole."""

    __slots__ = ("_grown", "_partial", "_start")

    def __init__(self, block: Json) -> None:
        self._start = block
        self._partial: list[str] = []
        self._grown: JsonObject = {}

    def grow(self, delta: Json) -> None:
        """Takes a delta: input is pieces of text, a citation is one more, all else is appended by its kind."""
        for name, member in delta.members():
            if name == "partial_json":
                self._partial.append(member.string())
            elif name == "citation":
                self._append("citations", [member.value])
            elif name != "type":
                self._append(name, member.value)

    def _append(self, name: str, value: Any) -> None:
        present = self._grown.get(name, self._start.object().get(name))
        grows = isinstance(present, str | list) and type(present) is type(value)
        self._grown[name] = present + value if grows else value

    def whole(self) -> Block:
        """The block, to the letter where it did not grow."""
        members = {name: member.text for name, member in self._start.members()}
        members |= {name: orjson.dumps(value) for name, value in self._grown.items()}
        partial = "".join(self._partial).encode()
        if partial and _is_json(partial):
            members["input"] = partial
        return Block(opaque=Opaque(format=FORMAT, json=join(members)))


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


class StreamReader:
    """Events to ChatEvents.

    `fault` makes the error for an event of the wrong form, `failure` the one for an error event from its `error`.
    """

    def __init__(self, fault: Fault, failure: Failure) -> None:
        self.done = False
        self._begun = False
        self._fault = fault
        self._failure = failure
        self._counts = Counts()
        self._open: dict[int, _Open] = {}
        self._numbers: set[int] = set()
        self._completed = Completed()
        self._extra: dict[str, bytes] = {}

    @property
    def usage(self) -> Usage:
        """What the provider has said so far."""
        return self._counts.usage

    def read(self, data: bytes) -> list[ChatEvent]:
        """The ChatEvents of one event; none for pings, unknown events, and what comes after the end."""
        if self.done:
            return []
        event = Json.parse(data, self._fault)
        kind = event.need("type").value
        if kind in _EVENTS and self._begun == (kind == "message_start"):
            raise event.fault("comes before message_start, or is a second one")
        match kind:
            case "content_block_delta":
                return self._delta(event)
            case "content_block_start":
                return self._block_start(event)
            case "content_block_stop":
                return self._block_stop(event)
            case "message_start":
                return self._message_start(event)
            case "message_delta":
                return self._message_delta(event)
            case "message_stop":
                return self._message_stop(event)
            case "error":
                raise self._failure(event.need("error").object())
        return []

    def _message_start(self, event: Json) -> list[ChatEvent]:
        self._begun = True
        message = event.need("message")
        self._counts.update(message.need("usage").object(), final=False)
        self._note_extra(message, MESSAGE_MEMBERS)
        return [
            ChatEvent(started=Started(provider_model=message.need("model").string())),
            ChatEvent(usage=self._counts.usage),
        ]

    def _block_start(self, event: Json) -> list[ChatEvent]:
        index = self._index(event)
        if index in self._numbers:
            raise event.fault(f"starts block {index} twice")
        self._numbers.add(index)
        start = event.need("content_block")
        block = block_from_json(start, FORMAT)
        kind = block.WhichOneof("kind") or ""
        if kind == "opaque":
            self._open[index] = _Open(kind, held=_Held(start))
            return []
        arguments = ""
        if kind == "tool_use":
            arguments, block.tool_use.arguments_json = block.tool_use.arguments_json, ""
        self._open[index] = _Open(kind, arguments)
        return [ChatEvent(block_start=BlockStart(index=index, block=block))]

    def _delta(self, event: Json) -> list[ChatEvent]:
        index = self._index(event)
        block = self._open.get(index)
        if block is None:
            raise event.fault(f"goes on with block {index}, which is not open")
        delta = event.need("delta")
        if block.held is not None:
            block.held.grow(delta)
            return []
        kind = delta.need("type").string()
        if growth := _GROWTH.get(block.kind, {}).get(kind):
            member, field = growth
            text = delta.need(member).string()
            if kind == "input_json_delta" and text:
                block.arguments = ""
            return [ChatEvent(delta=BlockDelta(index=index, **{field: text}))] if text else []  # type: ignore[arg-type]
        if kind == "citations_delta" and block.kind == "text":
            citation = citation_from_json(delta.need("citation"))
            return [ChatEvent(delta=BlockDelta(index=index, citation=citation))]
        if kind in _DELTAS:
            raise delta.fault(f"is of a type that does not fit a block of kind {block.kind}")
        return [ChatEvent(delta=BlockDelta(index=index, opaque=Opaque(format=FORMAT, json=delta.text)))]

    def _block_stop(self, event: Json) -> list[ChatEvent]:
        index = self._index(event)
        block = self._open.pop(index, None)
        if block is None:
            raise event.fault(f"ends block {index}, which is not open")
        events: list[ChatEvent] = []
        if block.held is not None:
            events.append(ChatEvent(block_start=BlockStart(index=index, block=block.held.whole())))
        elif block.arguments:
            events.append(ChatEvent(delta=BlockDelta(index=index, tool_arguments=block.arguments)))
        return [*events, ChatEvent(block_stop=BlockStop(index=index))]

    def _message_delta(self, event: Json) -> list[ChatEvent]:
        if (usage := event.get("usage")) is not None:
            self._counts.update(usage.object(), final=True)
        delta = event.need("delta")
        read_stop(delta, self._completed)
        self._note_extra(delta, {"stop_reason", "stop_sequence"})
        self._note_extra(event, {"type", "delta", "usage"})
        return []

    def _message_stop(self, event: Json) -> list[ChatEvent]:
        if self._open or not self._completed.provider_finish_reason:
            raise event.fault("comes before the message is whole")
        self.done = True
        completed = self._completed
        completed.usage.CopyFrom(self._counts.usage)
        if self._extra:
            completed.extra.CopyFrom(Opaque(format=FORMAT, json=join(self._extra)))
        return [ChatEvent(completed=completed)]

    def _note_extra(self, told: Json, known: Set[str]) -> None:
        self._extra |= {name: member.text for name, member in told.members() if name not in known}

    def _index(self, event: Json) -> int:
        index = event.need("index").integer()
        if not 0 <= index <= MAX_INDEX:
            raise event.need("index").fault("is out of range")
        return index


class MessageStream:
    """ChatEvents to events, as frames."""

    def __init__(self, *, model: str = "") -> None:
        """`model` is what the answer is said to come from; by default, what `started` says."""
        self._model = model
        self._started: Started | None = Started()
        self._usage = Usage()
        self._numbers: dict[int, tuple[int, str]] = {}  # canonical index: (ours, kind), of blocks not left out

    def encode(self, event: ChatEvent) -> bytes:
        """The frames of one event; empty where this format has none for it."""
        match event.WhichOneof("event"):
            case "started":
                self._started = event.started
                return b""
            case "usage":
                self._usage = event.usage
                return self._message_start()
            case "block_start":
                return self._message_start() + self._block_start(event.block_start)
            case "delta":
                return self._delta(event.delta)
            case "block_stop":
                return self._block_stop(event.block_stop.index)
            case "completed":
                return self._message_start() + _end(event.completed)
        return b""

    @staticmethod
    def ping() -> bytes:
        """The event that keeps a silent stream alive."""
        return _frame("ping", {})

    def _message_start(self) -> bytes:
        started, self._started = self._started, None
        if started is None:
            return b""
        message: JsonObject = {
            "id": message_id(started),
            "type": "message",
            "role": "assistant",
            "model": self._model or started.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_to_json(self._usage),
        }
        return _frame("message_start", {"message": message})

    def _block_start(self, start: BlockStart) -> bytes:
        block = start.block
        begun, deltas = _begun(block)
        if begun is None:
            return b""
        number = len(self._numbers)
        self._numbers[start.index] = (number, _foreign_or_kind(block))
        frames = _frame("content_block_start", {"index": number, "content_block": begun})
        return frames + b"".join(_delta_frame(number, delta) for delta in deltas)

    def _delta(self, delta: BlockDelta) -> bytes:
        number, kind = self._numbers.get(delta.index, (-1, ""))
        written = None if number < 0 else _delta_to_json(delta, kind)
        return b"" if written is None else _delta_frame(number, written)

    def _block_stop(self, index: int) -> bytes:
        number, _ = self._numbers.get(index, (-1, ""))
        return b"" if number < 0 else _frame("content_block_stop", {"index": number})


def _begun(block: Block) -> tuple[Any, list[JsonObject]]:
    """A block as it begins, and deltas for what of it is there already; None for one that is left out."""
    match block.WhichOneof("kind"):
        case "text":
            citations = [d for c in block.text.citations if (d := _citation_delta(citation_to_json(c))) is not None]
            bare = Block()
            bare.CopyFrom(block)
            del bare.text.citations[:]
            return text_to_json(bare, ""), [*_said("text_delta", "text", block.text.text), *citations]
        case "refusal":
            return text_to_json(block, ""), list(_said("text_delta", "text", block.refusal.text))
        case "reasoning":
            whole = reasoning_to_json(block)
            if whole is None or whole["type"] != "thinking":
                return whole, []
            deltas = [
                *_said("thinking_delta", "thinking", whole["thinking"]),
                *_said("signature_delta", "signature", whole["signature"]),
            ]
            return {**whole, "thinking": "", "signature": ""}, deltas
        case "tool_use":
            deltas = list(_said("input_json_delta", "partial_json", block.tool_use.arguments_json))
            return tool_use_to_json(block, {}), deltas
        case "opaque" if block.opaque.format == FORMAT:
            return _opaque_begun(block.opaque.json)
        case _:
            return answer_block(block), []


def _opaque_begun(text: bytes) -> tuple[Any, list[JsonObject]]:
    """A server's tool call begins with empty input, like any other."""
    block = Json.parse(text, _unreadable)
    arguments = block.get("input") if str(block.object().get("type")).endswith("tool_use") else None
    if arguments is None or not arguments.value:
        return orjson.Fragment(text), []
    begun = {name: orjson.Fragment(member.text) for name, member in block.members()}
    return begun | {"input": {}}, [{"type": "input_json_delta", "partial_json": arguments.text.decode()}]


def _unreadable(_path: str, sentence: str) -> Exception:
    return ValueError(f"an opaque block {sentence}")


def _said(kind: str, member: str, text: str) -> Iterator[JsonObject]:
    if text:
        yield {"type": kind, member: text}


def _citation_delta(citation: JsonObject | None) -> JsonObject | None:
    return None if citation is None else {"type": "citations_delta", "citation": citation}


def _foreign_or_kind(block: Block) -> str:
    """The block's kind; "foreign" for reasoning whose signature is none of Anthropic's."""
    if block.reasoning.format not in ("", FORMAT):
        return "foreign"
    return block.WhichOneof("kind") or ""


def _delta_to_json(delta: BlockDelta, kind: str) -> Any:
    match delta.WhichOneof("delta"):
        case "text":
            return {"type": "text_delta", "text": delta.text}
        case "refusal":
            return {"type": "text_delta", "text": delta.refusal}
        case "reasoning":
            return {"type": "thinking_delta", "thinking": delta.reasoning}
        case "signature" if kind == "reasoning":
            return {"type": "signature_delta", "signature": delta.signature}
        case "tool_arguments":
            return {"type": "input_json_delta", "partial_json": delta.tool_arguments}
        case "citation":
            return _citation_delta(citation_to_json(delta.citation))
        case "opaque" if delta.opaque.format == FORMAT:
            return orjson.Fragment(delta.opaque.json)
    return None


def _end(completed: Completed) -> bytes:
    delta, beside = stop_to_json(completed), JsonObject()
    for name, member in _extras(completed.extra):
        (delta if name in _OF_DELTA else beside)[name] = orjson.Fragment(member)
    body = {"delta": delta, "usage": usage_to_json(completed.usage), **beside}
    return _frame("message_delta", body) + _frame("message_stop", {})


def _extras(extra: Opaque) -> Iterator[tuple[str, bytes]]:
    if extra.format == FORMAT:
        for name, member in Json.parse(extra.json, _unreadable).members():
            yield name, member.text


def _delta_frame(number: int, delta: Any) -> bytes:
    return _frame("content_block_delta", {"index": number, "delta": delta})


def _frame(kind: str, body: JsonObject) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps({"type": kind, **body}) + b"\n\n"
