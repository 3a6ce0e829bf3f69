"""Gemini's GenerateContentResponse as canonical events and answers.

Parts come whole. Adjacent unsigned text parts are one block; a signed part stays a block of its own, as Google asks
that it comes back so. Token counts in every chunk are totals.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterator
from typing import Final

from modelmuxer.chat.v1.chat_pb2 import (
    Audio,
    Block,
    BlockDelta,
    BlockStart,
    BlockStop,
    ChatEvent,
    ChatResponse,
    Citation,
    Completed,
    FinishReason,
    Image,
    Media,
    Opaque,
    Reasoning,
    Started,
    Text,
    TokenLogprob,
    ToolUse,
    Usage,
    UsageSource,
)

from services.provider_proxy.adapters import ErrorsLast, JsonObject, as_count, malformed, provider_failure, stream_cut
from services.provider_proxy.adapters.gemini_request import FORMAT, SYNTHETIC_ID
from services.provider_proxy.adapters.sse import SseParser
from shared.errors import MeshError, Reason
from shared.wire import structs
from shared.wire.json_text import Json, join

Failure = Callable[[JsonObject], MeshError]

_FINISH: Final = {
    "STOP": FinishReason.FINISH_REASON_STOP,
    "MAX_TOKENS": FinishReason.FINISH_REASON_LENGTH,
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "MODEL_ARMOR",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
        ),
        FinishReason.FINISH_REASON_CONTENT_FILTER,
    ),
}
# The model failed at its own form; another try may succeed.
_BROKEN: Final = frozenset(
    {"MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MALFORMED_RESPONSE"}
)
_TIERS: Final = {"ON_DEMAND": "standard", "ON_DEMAND_PRIORITY": "priority", "ON_DEMAND_FLEX": "flex"}
_CANDIDATE: Final = frozenset(
    {"content", "finishReason", "finishMessage", "index", "tokenCount", "avgLogprobs", "logprobsResult"}
)


def whole_answer(body: bytes, failure: Failure, service_tier: str = "") -> ChatResponse:
    """An unstreamed answer. `service_tier` is what its headers say of it."""
    answer = _Answer(failure, service_tier)
    candidate = answer.take(Json.parse(body, _fault))
    response = ChatResponse(started=Started(provider_model=answer.model))
    parts = _parts(candidate) if candidate else []
    response.content.extend(answer.block(part, index) for index, part in enumerate(parts))
    completed = answer.completed()
    if completed is None:
        raise malformed("it has no finish reason")
    if candidate is not None:
        texts = [block.text for block in response.content if block.text.text]
        if texts:
            texts[-1].citations.extend(_citations(candidate, "".join(text.text for text in texts)))
        completed.logprobs.extend(_logprobs(candidate))
    response.completed.CopyFrom(completed)
    return response


class GeminiDecoder:
    """A streamed answer (`alt=sse`). It ends with the body: what counts is that a finish reason came."""

    def __init__(self, failure: Failure, service_tier: str = "") -> None:
        self._events = SseParser()
        self._answer = _Answer(failure, service_tier)
        self._errors_last = ErrorsLast()
        self._started = False
        self._next = 0  # index of the next block
        self._open = ""  # the kind of the open block; only text and reasoning stay open after their part
        self._closed_to_more = False  # the open block is signed, or has members of its own: nothing is added to it
        self._text = ""  # of the whole answer, into which citations point
        self._cited: set[bytes] = set()

    @property
    def usage(self) -> Usage:
        return self._answer.usage

    def feed(self, data: bytes) -> list[ChatEvent]:
        return self._errors_last.taken(event for sse in self._events.feed(data) for event in self._chunk(sse.data))

    def close(self) -> list[ChatEvent]:
        self._errors_last.taken(())
        completed = self._answer.completed()
        if completed is None:
            raise stream_cut("before its finish reason")
        return [*self._end_block(), ChatEvent(completed=completed)]

    def _chunk(self, data: bytes) -> Iterator[ChatEvent]:
        candidate = self._answer.take(Json.parse(data, _fault))
        if not self._started:
            self._started = True
            yield ChatEvent(started=Started(provider_model=self._answer.model))
            yield ChatEvent(usage=self._answer.usage)
        if candidate is None:
            return
        blocks = [self._answer.block(part, self._next + place) for place, part in enumerate(_parts(candidate))]
        # What ends a text brings its sources, and its signature in a part, and so a block, of its own.
        last = max((place for place, block in enumerate(blocks) if block.text.text), default=-1)
        if last < 0:
            yield from self._cite(candidate)
        logprobs = _logprobs(candidate)
        for place, block in enumerate(blocks):
            for event in self._take(block):
                if logprobs and event.delta.text:
                    event.delta.logprobs.extend(logprobs)
                    logprobs = []
                yield event
            if place == last:
                yield from self._cite(candidate)

    def _take(self, block: Block) -> Iterator[ChatEvent]:
        kind = block.WhichOneof("kind") or ""
        if kind not in ("text", "reasoning"):
            yield from self._end_block()
            yield from self._whole(block)
            return
        said = block.text.text if kind == "text" else block.reasoning.text
        apart = bool(block.text.signature or block.reasoning.signature) or block.HasField("extra")
        if not said and not apart:
            return
        if kind != self._open or apart or self._closed_to_more:
            yield from self._end_block()
            (block.text if kind == "text" else block.reasoning).text = ""
            yield ChatEvent(block_start=BlockStart(index=self._next, block=block))
            self._open, self._closed_to_more, self._next = kind, apart, self._next + 1
        if not said:
            return
        delta = BlockDelta(index=self._next - 1)
        if kind == "text":
            delta.text = said
            self._text += said
        else:
            delta.reasoning = said
        yield ChatEvent(delta=delta)

    def _whole(self, block: Block) -> Iterator[ChatEvent]:
        index, self._next = self._next, self._next + 1
        arguments = block.tool_use.arguments_json if block.HasField("tool_use") else ""
        if arguments:
            block.tool_use.arguments_json = ""
        yield ChatEvent(block_start=BlockStart(index=index, block=block))
        if arguments:
            yield ChatEvent(delta=BlockDelta(index=index, tool_arguments=arguments))
        yield ChatEvent(block_stop=BlockStop(index=index))

    def _cite(self, candidate: Json) -> Iterator[ChatEvent]:
        if self._open != "text":
            return
        for citation in _citations(candidate, self._text):
            known = citation.SerializeToString(deterministic=True)  # chunks may repeat what was said before
            if known not in self._cited:
                self._cited.add(known)
                yield ChatEvent(delta=BlockDelta(index=self._next - 1, citation=citation))

    def _end_block(self) -> Iterator[ChatEvent]:
        if self._open:
            yield ChatEvent(block_stop=BlockStop(index=self._next - 1))
        self._open, self._closed_to_more = "", False


class _Answer:
    """What the chunks of one answer say beside its content."""

    def __init__(self, failure: Failure, service_tier: str) -> None:
        self.model = ""
        self.usage = Usage(service_tier=service_tier)
        self._failure = failure
        self._id = ""
        self._finish = ""
        self._blocked = ""
        self._calls = False
        self._extra: dict[str, bytes] = {}

    def take(self, chunk: Json) -> Json | None:
        """Takes a chunk; returns its candidate, if it has one. Raises for an error in place of a chunk."""
        if (error := chunk.get("error")) is not None:
            raise self._failure(error.object())
        self.model = _string(chunk, "modelVersion") or self.model
        self._id = _string(chunk, "responseId") or self._id
        if (usage := chunk.get("usageMetadata")) is not None:
            _read_usage(usage.object(), self.usage)
        if (feedback := chunk.get("promptFeedback")) is not None and (reason := _string(feedback, "blockReason")):
            self._blocked = reason
            self._extra["promptFeedback"] = feedback.text
        candidates = chunk.get("candidates")
        candidate = next(iter(candidates.items()), None) if candidates else None
        if candidate is None:
            return None
        self._finish = _string(candidate, "finishReason") or self._finish
        if not candidate.object().keys() <= _CANDIDATE:
            self._extra |= {name: member.text for name, member in candidate.members() if name not in _CANDIDATE}
        return candidate

    def block(self, part: Json, index: int) -> Block:
        """A part as a block. Calls without an id get one made from what is known of them."""
        block = _block(part)
        if block.HasField("tool_use"):
            self._calls = True
            if not block.tool_use.id:
                said = f"{self._id}\0{index}\0{block.tool_use.name}\0{block.tool_use.arguments_json}"
                block.tool_use.id = SYNTHETIC_ID + hashlib.blake2s(said.encode(), digest_size=8).hexdigest()
        return block

    def completed(self) -> Completed | None:
        """The end; None if it has not come. Raises where the model's own form broke."""
        word = self._finish or self._blocked
        if not word:
            return None
        if word in _BROKEN:
            raise provider_failure(
                Reason.PROVIDER_MALFORMED_ANSWER,
                f'Gemini broke off its answer with the finish reason "{word}".',
                retryable=True,
                http_status=200,
                provider_code=word,
            )
        reason = _FINISH.get(self._finish, FinishReason.FINISH_REASON_UNSPECIFIED)
        if not self._finish:
            reason = FinishReason.FINISH_REASON_CONTENT_FILTER
        elif reason == FinishReason.FINISH_REASON_STOP and self._calls:
            reason = FinishReason.FINISH_REASON_TOOL_USE
        completed = Completed(
            finish_reason=reason, provider_finish_reason=word, usage=self.usage, provider_request_id=self._id
        )
        if self._extra:
            completed.extra.CopyFrom(Opaque(format=FORMAT, json=join(self._extra)))
        return completed


def _parts(candidate: Json) -> list[Json]:
    content = candidate.get("content")
    parts = content.get("parts") if content else None
    return parts.items() if parts else []


def _block(part: Json) -> Block:
    """A part; of a kind that the canonical form does not know, to the letter."""
    members = part.object()
    signature = _string(part, "thoughtSignature")
    known = {"thoughtSignature"}
    if "functionCall" in members:
        block = _call(part.need("functionCall"))
        if block is None:
            return _opaque(part)
        block.tool_use.signature = _bytes(part, signature)
        known.add("functionCall")
    elif "text" in members and members.get("thought") is True:
        block = Block(reasoning=Reasoning(text=part.need("text").string(), signature=signature, format=FORMAT))
        known |= {"text", "thought"}
    elif "text" in members:
        block = Block(text=Text(text=part.need("text").string(), signature=_bytes(part, signature)))
        known |= {"text", "thought"}
    elif "inlineData" in members and not signature:
        media = _inline(part.need("inlineData"))
        if media is None:
            return _opaque(part)
        is_audio = media.media_type.startswith("audio/")
        block = Block(audio=Audio(media=media)) if is_audio else Block(image=Image(media=media))
        known.add("inlineData")
    else:
        return _opaque(part)
    if members.keys() <= known:
        return block
    if extra := {name: member.text for name, member in part.members() if name not in known}:
        block.extra.CopyFrom(Opaque(format=FORMAT, json=join(extra)))
    return block


def _opaque(part: Json) -> Block:
    return Block(opaque=Opaque(format=FORMAT, json=part.text))


def _call(call: Json) -> Block | None:
    """A whole call; None for one that comes in pieces, which nobody asked for."""
    if not call.object().keys() <= {"id", "name", "args"}:
        return None
    arguments = call.get("args")
    if arguments is not None:
        arguments.object()
    return Block(
        tool_use=ToolUse(
            id=_string(call, "id"),
            name=call.need("name").string(),
            arguments_json=arguments.text.decode() if arguments else "{}",
        )
    )


def _inline(data: Json) -> Media | None:
    kind = _string(data, "mimeType")
    if not kind.startswith(("audio/", "image/")) or not data.object().keys() <= {"mimeType", "data"}:
        return None
    return Media(data=_bytes(data, _string(data, "data")), media_type=kind)


def _bytes(where: Json, text: str) -> bytes:
    """Bytes as proto JSON writes them: base64's plain or URL-safe alphabet, padded or not."""
    if not text:
        return b""
    plain = text.rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise where.fault("is not valid base64") from None


def _read_usage(told: JsonObject, usage: Usage) -> None:
    prompt, tools = as_count(told.get("promptTokenCount")), as_count(told.get("toolUsePromptTokenCount"))
    if prompt is not None:
        usage.input_tokens = prompt + (tools or 0)
        usage.source = UsageSource.USAGE_SOURCE_PROVIDER
    said, thought = as_count(told.get("candidatesTokenCount")), as_count(told.get("thoughtsTokenCount"))
    if said is not None or thought is not None:
        usage.output_tokens = (said or 0) + (thought or 0)
    elif prompt is not None and not usage.HasField("output_tokens"):
        usage.output_tokens = 0  # counts of nothing are left out
    if thought is not None:
        usage.reasoning_tokens = thought
    if (cached := as_count(told.get("cachedContentTokenCount"))) is not None:
        usage.cached_input_tokens = cached
    if (heard := _audio_tokens(told.get("promptTokensDetails"))) is not None:
        usage.input_audio_tokens = heard
    if (spoken := _audio_tokens(told.get("candidatesTokensDetails"))) is not None:
        usage.output_audio_tokens = spoken
    traffic = told.get("trafficType")
    if isinstance(traffic, str) and traffic in _TIERS:
        usage.service_tier = _TIERS[traffic]


def _audio_tokens(details: object) -> int | None:
    if not isinstance(details, list):
        return None
    for detail in details:
        if isinstance(detail, dict) and detail.get("modality") == "AUDIO":
            return as_count(detail.get("tokenCount"))
    return None


def _citations(candidate: Json, text: str) -> Iterator[Citation]:
    """Sources by grounding and by recitation. Their offsets are bytes of UTF-8 in `text`; ours are characters."""
    encoded = text.encode()
    if (metadata := candidate.get("citationMetadata")) is not None:
        for source in _listed(metadata, "citationSources") or _listed(metadata, "citations"):
            yield _citation(source, source, encoded, url=_string(source, "uri"), title=_string(source, "title"))
    if (grounding := candidate.get("groundingMetadata")) is None:
        return
    chunks = _listed(grounding, "groundingChunks")
    for support in _listed(grounding, "groundingSupports"):
        segment = support.get("segment")
        for number in _listed(support, "groundingChunkIndices"):
            index = number.integer()
            page = _source(chunks[index]) if 0 <= index < len(chunks) else None
            if page is not None:
                yield _citation(page, segment, encoded, url=_string(page, "uri"), title=_string(page, "title"))


def _source(chunk: Json) -> Json | None:
    """What a grounding chunk names, whichever of its kinds it is."""
    return next((member for _, member in chunk.members() if isinstance(member.value, dict)), None)


def _citation(source: Json, segment: Json | None, encoded: bytes, *, url: str, title: str) -> Citation:
    citation = Citation(url=url, title=title, raw=structs.from_json(source.object()))
    if segment is None:
        return citation
    start, end = as_count(segment.object().get("startIndex")) or 0, as_count(segment.object().get("endIndex"))
    citation.start_index = _characters(encoded, start)
    if end is not None:
        citation.end_index = _characters(encoded, end)
        citation.cited_text = _string(segment, "text") or encoded[start:end].decode(errors="replace")
    return citation


def _characters(encoded: bytes, offset: int) -> int:
    return len(encoded[:offset].decode(errors="ignore"))


def _logprobs(candidate: Json) -> list[TokenLogprob]:
    result = candidate.get("logprobsResult")
    if result is None:
        return []
    alternatives = _listed(result, "topCandidates")
    tokens = []
    for place, chosen in enumerate(_listed(result, "chosenCandidates")):
        token = _logprob(chosen)
        if place < len(alternatives):
            token.top.extend(_logprob(other) for other in _listed(alternatives[place], "candidates"))
        tokens.append(token)
    return tokens


def _logprob(token: Json) -> TokenLogprob:
    logprob = token.get("logProbability")
    return TokenLogprob(token=_string(token, "token"), logprob=logprob.number() if logprob else 0.0)


def _listed(value: Json, name: str) -> list[Json]:
    member = value.get(name)
    return member.items() if member else []


def _string(value: Json, name: str) -> str:
    found = value.object().get(name)
    if isinstance(found, str):
        return found
    return value.need(name).string() if found is not None else ""


def _fault(path: str, sentence: str) -> MeshError:
    # A sentence about the whole may quote it ("is not valid JSON: …"), and with it the prompt.
    return malformed(f"{path} {sentence}" if path else "it is not a response")
