"""A streamed answer and a whole one are the same: folds events into a response, and replays a response as events.

Knows the canonical model only. Opaque deltas are events of one provider's stream that a whole answer has no place for;
they pass without a trace.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

from modelmuxer.chat.v1.chat_pb2 import (
    Block,
    BlockDelta,
    BlockStart,
    BlockStop,
    ChatEvent,
    ChatResponse,
    Completed,
    Started,
    TokenLogprob,
    Usage,
)

# kind of block: the delta that its text grows by
_GROWS_BY: Final = {"text": "text", "reasoning": "reasoning", "tool_use": "tool_arguments", "refusal": "refusal"}
_SIGNED: Final = frozenset({"text", "reasoning", "tool_use"})
_PIECES: Final = frozenset({*_GROWS_BY.values(), "signature"})


class _Growing:
    """A block that began, and the pieces it grew by."""

    __slots__ = ("block", "kind", "pieces", "signature", "stopped")

    def __init__(self, block: Block) -> None:
        self.block = Block()
        self.block.CopyFrom(block)
        self.kind = block.WhichOneof("kind") or ""
        self.pieces: list[str] = []
        self.signature: list[str] = []
        self.stopped = False

    def grow(self, delta: BlockDelta) -> None:
        match delta.WhichOneof("delta"):
            case "text" | "reasoning" | "tool_arguments" | "refusal" as name if _GROWS_BY.get(self.kind) == name:
                self.pieces.append(getattr(delta, name))
            case "signature" if self.kind in _SIGNED:
                self.signature.append(delta.signature)
            case "citation" if self.kind == "text":
                self.block.text.citations.append(delta.citation)
            case None | "opaque":
                pass
            case name:
                raise ValueError(f"a delta of {name} does not fit a block of kind {self.kind or 'none'}")

    def write_to(self, block: Block) -> None:
        """The block so far."""
        block.CopyFrom(self.block)
        text, signature = "".join(self.pieces), "".join(self.signature)
        match self.kind:
            case "text":
                block.text.text += text
                block.text.signature += _from_base64(signature)
            case "reasoning":
                block.reasoning.text += text
                block.reasoning.signature += signature
            case "tool_use":
                block.tool_use.arguments_json += text
                block.tool_use.signature += _from_base64(signature)
            case "refusal":
                block.refusal.text += text


class Transcript:
    """Folds the events of one answer. `add` raises ValueError for events that no answer can consist of."""

    def __init__(self) -> None:
        self._started: Started | None = None
        self._usage: Usage | None = None
        self._completed: Completed | None = None
        self._blocks: dict[int, _Growing] = {}
        self._logprobs: list[TokenLogprob] = []

    def add(self, event: ChatEvent) -> None:
        """Takes the next event. It is not kept: the caller may change it afterwards."""
        if self._completed is not None:
            raise ValueError("an event comes after completed")
        match event.WhichOneof("event"):
            case "delta":
                self._open(event.delta.index, "a delta").grow(event.delta)
                if event.delta.logprobs:
                    self._logprobs += map(_copy_logprob, event.delta.logprobs)
            case "block_start":
                self._begin(event.block_start)
            case "block_stop":
                self._open(event.block_stop.index, "a block_stop").stopped = True
            case "usage":
                self._usage = Usage()
                self._usage.CopyFrom(event.usage)
            case "started":
                if self._started is not None or self._blocks:
                    raise ValueError("started comes twice, or after a block")
                self._started = Started()
                self._started.CopyFrom(event.started)
            case "completed":
                self._completed = Completed()
                self._completed.CopyFrom(event.completed)
            case None:
                raise ValueError("an event is empty")

    @property
    def complete(self) -> bool:
        """Whether `completed` has come."""
        return self._completed is not None

    @property
    def usage(self) -> Usage | None:
        """The last usage that was told."""
        if self._completed is not None and self._completed.HasField("usage"):
            return self._completed.usage
        return self._usage

    @property
    def response(self) -> ChatResponse:
        """The answer so far, as a message of the caller's own; `completed` is unset until it has come.

        Raises ValueError where pieces of a signature are no base64 together.
        """
        response = ChatResponse(started=self._started, completed=self._completed)
        for _, growing in sorted(self._blocks.items()):
            growing.write_to(response.content.add())
        if self._completed is not None:
            if not response.completed.logprobs:
                response.completed.logprobs.extend(self._logprobs)
            if not response.completed.HasField("usage") and self._usage is not None:
                response.completed.usage.CopyFrom(self._usage)
        return response

    def _begin(self, start: BlockStart) -> None:
        if start.index < 0 or start.index in self._blocks:
            raise ValueError(f"block {start.index} begins twice or has no place")
        self._blocks[start.index] = _Growing(start.block)

    def _open(self, index: int, what: str) -> _Growing:
        growing = self._blocks.get(index)
        if growing is None or growing.stopped:
            raise ValueError(f"{what} names block {index}, which is not open")
        return growing


def replay(response: ChatResponse) -> Iterator[ChatEvent]:
    """The events of a whole answer: folding them gives the answer again.

    Log probabilities, which a whole answer holds together, stand beside the first text as in a live stream.
    """
    completed = Completed()
    completed.CopyFrom(response.completed)
    if response.HasField("started"):
        yield ChatEvent(started=response.started)
    for index, block in enumerate(response.content):
        logprobs: list[TokenLogprob] = []
        if block.WhichOneof("kind") in ("text", "refusal") and completed.logprobs:
            logprobs = [*completed.logprobs]
            completed.ClearField("logprobs")
        yield from _replay_block(index, block, logprobs)
    if response.HasField("completed"):
        yield ChatEvent(completed=completed)


def coalesce(events: Iterable[ChatEvent]) -> list[ChatEvent]:
    """The same answer in fewer events: adjacent pieces of one block become one. Deltas with log probabilities stay."""
    merged: list[ChatEvent] = []
    for key, run in groupby(events, _key):
        if key is None:
            merged += run
        else:
            merged.append(_join(*key, [*run]))
    return merged


def _replay_block(index: int, block: Block, logprobs: list[TokenLogprob]) -> Iterator[ChatEvent]:
    start = Block()
    start.CopyFrom(block)
    deltas: list[BlockDelta] = []
    match block.WhichOneof("kind"):
        case "text":
            start.text.Clear()
            deltas.append(BlockDelta(index=index, text=block.text.text))
            deltas += (BlockDelta(index=index, citation=citation) for citation in block.text.citations)
            deltas.append(BlockDelta(index=index, signature=_to_base64(block.text.signature)))
        case "reasoning":
            start.reasoning.ClearField("text")
            start.reasoning.ClearField("signature")
            deltas.append(BlockDelta(index=index, reasoning=block.reasoning.text))
            deltas.append(BlockDelta(index=index, signature=block.reasoning.signature))
        case "tool_use":
            start.tool_use.ClearField("arguments_json")
            start.tool_use.ClearField("signature")
            deltas.append(BlockDelta(index=index, tool_arguments=block.tool_use.arguments_json))
            deltas.append(BlockDelta(index=index, signature=_to_base64(block.tool_use.signature)))
        case "refusal":
            start.refusal.Clear()
            deltas.append(BlockDelta(index=index, refusal=block.refusal.text))
    if logprobs:
        deltas[0].logprobs.extend(logprobs)
    yield ChatEvent(block_start=BlockStart(index=index, block=start))
    for delta in deltas:
        if delta.logprobs or delta.WhichOneof("delta") == "citation" or getattr(delta, delta.WhichOneof("delta") or ""):
            yield ChatEvent(delta=delta)
    yield ChatEvent(block_stop=BlockStop(index=index))


def _key(event: ChatEvent) -> tuple[int, str] | None:
    """What pieces have in common that may become one; None for events that stay as they are."""
    if not event.HasField("delta") or event.delta.logprobs:
        return None
    kind = event.delta.WhichOneof("delta")
    return (event.delta.index, kind) if kind is not None and kind in _PIECES else None


def _join(index: int, kind: str, run: list[ChatEvent]) -> ChatEvent:
    if len(run) == 1:
        return run[0]
    text = "".join(getattr(event.delta, kind) for event in run)
    return ChatEvent(delta=BlockDelta(index=index, **{kind: text}))  # type: ignore[arg-type]


def _copy_logprob(logprob: TokenLogprob) -> TokenLogprob:
    copy = TokenLogprob()
    copy.CopyFrom(logprob)
    return copy


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("a signature is not base64") from None


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
