"""Chat completions' answers, whole and streamed, as canonical content.

Both read the same fields: text, refusals, reasoning under its various names, tool calls, annotations, log
probabilities, usage. What a server adds beyond the documented form is ignored; what it breaks is
PROVIDER_MALFORMED_ANSWER. n is 1: choices but the first are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import orjson
from modelmuxer.chat.v1.chat_pb2 import (
    Block,
    BlockDelta,
    BlockStart,
    BlockStop,
    ChatEvent,
    ChatResponse,
    Citation,
    Completed,
    FinishReason,
    Opaque,
    Reasoning,
    Refusal,
    Started,
    Text,
    TokenLogprob,
    ToolUse,
    Usage,
    UsageSource,
)

from services.provider_proxy.adapters import (
    ErrorsLast,
    JsonObject,
    as_count,
    as_list,
    as_object,
    as_text,
    json_to_struct,
    malformed,
    parse_object,
    stream_cut,
)
from services.provider_proxy.adapters.openai_errors import OpenAIErrors
from services.provider_proxy.adapters.openai_request import FORMAT
from services.provider_proxy.adapters.sse import SseEvent, SseParser

_FINISH: Final = {
    "stop": FinishReason.FINISH_REASON_STOP,
    "eos": FinishReason.FINISH_REASON_STOP,
    "length": FinishReason.FINISH_REASON_LENGTH,
    "model_length": FinishReason.FINISH_REASON_CONTEXT_LENGTH,
    "tool_calls": FinishReason.FINISH_REASON_TOOL_USE,
    "function_call": FinishReason.FINISH_REASON_TOOL_USE,
    "content_filter": FinishReason.FINISH_REASON_CONTENT_FILTER,
}
# Servers that end a broken generation with a finish reason in place of an error event (Mistral, DeepSeek).
_FAILED: Final = frozenset({"error", "insufficient_system_resource"})
_DONE: Final = b"[DONE]"
_EMPTY: Final = {
    "text": Block(text=Text()),
    "refusal": Block(refusal=Refusal()),
    "reasoning": Block(reasoning=Reasoning(format=FORMAT)),
}
_THOUGHTS: Final = frozenset({"reasoning_content", "reasoning", "reasoning_details"})
_DETAIL_FIELDS: Final = frozenset({"text", "summary", "data", "signature"})


class OpenAIDecoder:
    """A stream of chat completion chunks."""

    def __init__(self, errors: OpenAIErrors, *, hide_reasoning: bool) -> None:
        self._errors = errors
        self._hide_reasoning = hide_reasoning
        self._sse = SseParser()
        self._usage: Usage | None = None
        self._service_tier = ""
        self._id = ""
        self._began = False
        self._done = False
        self._errors_last = ErrorsLast()
        self._finish = ""
        self._stop_sequence = ""
        self._index = -1
        self._kind = ""
        self._refused = False
        self._calls: dict[int, tuple[int, str]] = {}  # the server's index → block's index, call's id
        self._cited: set[str] = set()
        self._detail: tuple[object, object] = (None, None)  # type and index of the reasoning detail that is open

    @property
    def usage(self) -> Usage:
        """What the server has said so far."""
        return self._usage or Usage()

    def feed(self, data: bytes) -> list[ChatEvent]:
        """The events that `data` completes."""
        return self._errors_last.taken(self._read(data))

    def close(self) -> list[ChatEvent]:
        """The end of the body: `completed` for servers that leave out [DONE]."""
        self._errors_last.taken(())
        if self._done:
            return []
        if not self._finish:
            raise stream_cut()
        events: list[ChatEvent] = []
        self._complete(events)
        return events

    def _read(self, data: bytes) -> Iterator[ChatEvent]:
        for event in self._sse.feed(data):
            if self._done:
                return
            events: list[ChatEvent] = []
            try:
                self._take(event, events)
            finally:
                yield from events

    def _take(self, event: SseEvent, events: list[ChatEvent]) -> None:
        if event.data.startswith(_DONE):
            if not self._finish:
                raise stream_cut("without a finish reason")
            self._complete(events)
            return
        if not event.data.strip():
            return
        chunk = parse_object(event.data)
        if chunk.get("error") or event.event == "error" or chunk.get("object") == "error":
            raise self._errors.in_stream(chunk)
        if not self._began:
            self._begin(chunk, events)
        if tier := chunk.get("service_tier"):
            self._service_tier = as_text(tier, "service_tier")
        if (usage := usage_of(chunk)) is not None:
            self._usage = usage
        for choice in as_list(chunk.get("choices"), "choices"):
            choice = as_object(choice, "a choice")
            if not choice.get("index"):
                self._choice(choice, events)
        if chunk.get("citations"):
            self._cite(_page_citations(chunk), events)

    def _begin(self, chunk: JsonObject, events: list[ChatEvent]) -> None:
        self._began = True
        self._id = as_text(chunk.get("id"), "id")
        started = Started(
            provider_model=as_text(chunk.get("model"), "model"),
            system_fingerprint=as_text(chunk.get("system_fingerprint"), "system_fingerprint"),
        )
        if started.provider_model or started.system_fingerprint:
            events.append(ChatEvent(started=started))

    def _choice(self, choice: JsonObject, events: list[ChatEvent]) -> None:
        # Most chunks hold one short text and nothing else: what is absent must cost nothing.
        delta = as_object(choice.get("delta"), "a delta")
        logprobs = as_object(choice.get("logprobs"), "logprobs")
        if not self._hide_reasoning and not _THOUGHTS.isdisjoint(delta):
            self._think(delta, events)
        if delta.get("content") or logprobs:
            self._say(delta.get("content"), _logprobs(logprobs.get("content")), events)
        if refusal := delta.get("refusal"):
            self._grow("refusal", as_text(refusal, "a refusal"), _logprobs(logprobs.get("refusal")), events)
        if delta.get("annotations"):
            self._cite(_annotations(delta), events)
        for call in as_list(delta.get("tool_calls"), "tool_calls"):
            self._call(as_object(call, "a tool call"), events)
        if finish := as_text(choice.get("finish_reason"), "finish_reason"):
            self._finish = finish
            self._stop_sequence = _stop_sequence(choice)
            if finish in _FAILED:
                raise self._errors.ended_with(finish)

    def _say(self, content: object, logprobs: list[TokenLogprob], events: list[ChatEvent]) -> None:
        for kind, text in _content(content):
            if kind == "text":
                self._grow(kind, text, logprobs, events)
                logprobs = []
            elif not self._hide_reasoning:
                self._grow(kind, text, [], events)
        self._grow("text", "", logprobs, events)

    # Blocks: one is open at a time; what begins another ends it.

    def _open(self, kind: str, block: Block, events: list[ChatEvent]) -> None:
        self._stop(events)
        self._index += 1
        self._kind = kind
        events.append(ChatEvent(block_start=BlockStart(index=self._index, block=block)))

    def _stop(self, events: list[ChatEvent]) -> None:
        if self._kind:
            events.append(ChatEvent(block_stop=BlockStop(index=self._index)))
            self._kind = ""

    def _grow(self, kind: str, text: str, logprobs: list[TokenLogprob], events: list[ChatEvent]) -> None:
        if not text and not logprobs:
            return
        if self._kind != kind:
            self._open(kind, _EMPTY[kind], events)
        delta = BlockDelta(index=self._index, logprobs=logprobs)
        match kind:
            case "text":
                delta.text = text
            case "refusal":
                delta.refusal = text
                self._refused = True
            case "reasoning":
                delta.reasoning = text
        events.append(ChatEvent(delta=delta))

    def _cite(self, citations: Iterable[Citation], events: list[ChatEvent]) -> None:
        for citation in citations:
            key = citation.SerializeToString(deterministic=True).hex()
            if key in self._cited:
                continue  # some servers repeat the whole list in every chunk
            self._cited.add(key)
            if self._kind != "text":
                self._open("text", Block(text=Text()), events)
            events.append(ChatEvent(delta=BlockDelta(index=self._index, citation=citation)))

    def _call(self, call: JsonObject, events: list[ChatEvent]) -> None:
        place = as_count(call.get("index")) or 0
        call_id = as_text(call.get("id"), "a tool call's id")
        function = as_object(call.get("function"), "a tool call's function")
        name = as_text(function.get("name"), "a tool's name")
        known = self._calls.get(place)
        # Some servers give every call the same index; a new id with a name is a new call.
        if known is None or (call_id and name and call_id != known[1]):
            if not name:
                raise malformed("a tool call has no name")
            use = ToolUse(id=call_id or f"call_{self._index + 1}", name=name)
            self._open("tool_use", Block(tool_use=use), events)
            known = self._calls[place] = (self._index, call_id)
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = orjson.dumps(arguments).decode()
        if piece := as_text(arguments, "a tool call's arguments"):
            if known[0] != self._index or self._kind != "tool_use":
                raise malformed("a tool call goes on after the next block began")
            events.append(ChatEvent(delta=BlockDelta(index=self._index, tool_arguments=piece)))

    def _think(self, delta: JsonObject, events: list[ChatEvent]) -> None:
        details = as_list(delta.get("reasoning_details"), "reasoning_details")
        if not details:
            self._grow("reasoning", _reasoning(delta), [], events)
        for detail in details:
            detail = as_object(detail, "a reasoning detail")
            block = _detail_block(detail)
            kind = (detail.get("type"), detail.get("index"))
            if block.reasoning.encrypted or kind != self._detail or self._kind != "reasoning":
                self._detail = kind
                self._open("reasoning", block, events)
                continue
            self._grow("reasoning", block.reasoning.text, [], events)
            if signature := block.reasoning.signature:
                events.append(ChatEvent(delta=BlockDelta(index=self._index, signature=signature)))

    def _complete(self, events: list[ChatEvent]) -> None:
        self._done = True
        self._stop(events)
        events.append(
            ChatEvent(
                completed=Completed(
                    finish_reason=_finish_reason(self._finish, bool(self._calls), self._refused, self._stop_sequence),
                    provider_finish_reason=self._finish,
                    stop_sequence=self._stop_sequence,
                    usage=_final_usage(self._usage, self._service_tier),
                    provider_request_id=self._id,
                )
            )
        )


def whole_answer(body: bytes, errors: OpenAIErrors) -> ChatResponse:
    """A chat completion. Raises MeshError for an error that came with status 200."""
    answer = parse_object(body)
    if answer.get("error") or answer.get("object") == "error":
        raise errors.in_stream(answer)
    choices = [as_object(choice, "a choice") for choice in as_list(answer.get("choices"), "choices")]
    if not choices:
        raise malformed("it has no choices")
    choice = choices[0]
    finish = as_text(choice.get("finish_reason"), "finish_reason")
    if finish in _FAILED:
        raise errors.ended_with(finish)
    message = as_object(choice.get("message"), "the message")
    content = list(_blocks(message, answer))
    stop_sequence = _stop_sequence(choice)
    kinds = {block.WhichOneof("kind") for block in content}
    logprobs = as_object(choice.get("logprobs"), "logprobs")
    return ChatResponse(
        started=Started(
            provider_model=as_text(answer.get("model"), "model"),
            system_fingerprint=as_text(answer.get("system_fingerprint"), "system_fingerprint"),
        ),
        content=content,
        completed=Completed(
            finish_reason=_finish_reason(finish, "tool_use" in kinds, "refusal" in kinds, stop_sequence),
            provider_finish_reason=finish,
            stop_sequence=stop_sequence,
            usage=_final_usage(usage_of(answer), as_text(answer.get("service_tier"), "service_tier")),
            provider_request_id=as_text(answer.get("id"), "id"),
            logprobs=_logprobs(logprobs.get("content")) + _logprobs(logprobs.get("refusal")),
        ),
    )


def _blocks(message: JsonObject, answer: JsonObject) -> Iterator[Block]:
    details = as_list(message.get("reasoning_details"), "reasoning_details")
    for detail in details:
        yield _detail_block(as_object(detail, "a reasoning detail"))
    if (thoughts := _reasoning(message)) and not details:
        yield Block(reasoning=Reasoning(text=thoughts, format=FORMAT))
    citations = [*_annotations(message), *_page_citations(answer)]
    for kind, text in _content(message.get("content")):
        if kind == "text":
            yield Block(text=Text(text=text, citations=citations))
            citations = []
        else:
            yield Block(reasoning=Reasoning(text=text, format=FORMAT))
    if refusal := as_text(message.get("refusal"), "a refusal"):
        yield Block(refusal=Refusal(text=refusal))
    for index, call in enumerate(as_list(message.get("tool_calls"), "tool_calls")):
        yield _whole_call(as_object(call, "a tool call"), index)


def _whole_call(call: JsonObject, index: int) -> Block:
    function = as_object(call.get("function"), "a tool call's function")
    name = as_text(function.get("name"), "a tool's name")
    if not name:
        raise malformed("a tool call has no name")
    arguments = function.get("arguments")
    if isinstance(arguments, dict):
        arguments = orjson.dumps(arguments).decode()
    return Block(
        tool_use=ToolUse(
            id=as_text(call.get("id"), "a tool call's id") or f"call_{index}",
            name=name,
            arguments_json=as_text(arguments, "a tool call's arguments"),
        )
    )


def usage_of(answer: JsonObject) -> Usage | None:
    """The usage that an answer or a chunk states, if it states one (Groq: within `x_groq`)."""
    stated = answer.get("usage") or as_object(answer.get("x_groq"), "x_groq").get("usage")
    if not isinstance(stated, dict):
        return None
    prompt = as_object(stated.get("prompt_tokens_details"), "prompt_tokens_details")
    completion = as_object(stated.get("completion_tokens_details"), "completion_tokens_details")
    cached = as_count(prompt.get("cached_tokens"))
    figures = {
        "input_tokens": as_count(stated.get("prompt_tokens")),
        "output_tokens": _output_tokens(stated, as_count(completion.get("reasoning_tokens"))),
        # DeepSeek names the part of the prompt that came from its cache in its own way.
        "cached_input_tokens": cached if cached is not None else as_count(stated.get("prompt_cache_hit_tokens")),
        "cache_write_tokens": as_count(prompt.get("cache_write_tokens")),
        "reasoning_tokens": as_count(completion.get("reasoning_tokens")),
        "input_audio_tokens": as_count(prompt.get("audio_tokens")),
        "output_audio_tokens": as_count(completion.get("audio_tokens")),
    }
    usage = Usage(source=UsageSource.USAGE_SOURCE_PROVIDER)
    for name, count in figures.items():
        if count is not None:
            setattr(usage, name, count)
    return usage


def _output_tokens(stated: JsonObject, reasoning: int | None) -> int | None:
    """Output, reasoning included: xAI counts it apart, which only its total shows."""
    prompt, output = as_count(stated.get("prompt_tokens")), as_count(stated.get("completion_tokens"))
    if prompt is None or output is None or not reasoning:
        return output
    return output + reasoning if stated.get("total_tokens") == prompt + output + reasoning else output


def _final_usage(usage: Usage | None, service_tier: str) -> Usage:
    final = Usage()
    if usage is not None:
        final.CopyFrom(usage)
    final.service_tier = service_tier
    return final


def _content(content: object) -> Iterator[tuple[str, str]]:
    """(kind, text) of a message's or delta's content: a string, or parts (Mistral's texts, thoughts and references)."""
    if content is None or isinstance(content, str):
        if content:
            yield "text", content
        return
    for part in as_list(content, "content"):
        part = as_object(part, "a content part")
        match part.get("type"):
            case "text":
                yield "text", as_text(part.get("text"), "a text")
            case "thinking":
                for thought in as_list(part.get("thinking"), "a thought"):
                    yield "reasoning", as_text(as_object(thought, "a thought").get("text"), "a thought")


def _reasoning(message: JsonObject) -> str:
    """Reasoning under the name that the server gives it; servers that give both names give the same text twice."""
    for name in ("reasoning_content", "reasoning"):
        value = message.get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def _annotations(message: JsonObject) -> Iterator[Citation]:
    for annotation in as_list(message.get("annotations"), "annotations"):
        annotation = as_object(annotation, "an annotation")
        cited = as_object(annotation.get("url_citation"), "a citation")
        citation = Citation(
            title=as_text(cited.get("title"), "a citation's title"),
            url=as_text(cited.get("url"), "a citation's address"),
            cited_text=as_text(cited.get("content"), "a citation's text"),
            raw=json_to_struct(annotation),
        )
        if (start := as_count(cited.get("start_index"))) is not None:
            citation.start_index = start
        if (end := as_count(cited.get("end_index"))) is not None:
            citation.end_index = end
        yield citation


def _page_citations(answer: JsonObject) -> Iterator[Citation]:
    """Addresses that some servers (xAI, Perplexity) list beside the choices."""
    for url in as_list(answer.get("citations"), "citations"):
        if isinstance(url, str):
            yield Citation(url=url)


def _logprobs(tokens: object) -> list[TokenLogprob]:
    return [_logprob(as_object(token, "a log probability")) for token in as_list(tokens, "log probabilities")]


def _logprob(token: JsonObject, *, nested: bool = False) -> TokenLogprob:
    value = token.get("logprob")
    if not isinstance(value, int | float):
        raise malformed("a log probability is not a number")
    try:
        raw = bytes(as_list(token.get("bytes"), "a token's bytes"))
        number = float(value)
    except (ValueError, TypeError, OverflowError):
        raise malformed("a token's log probability is not of its form") from None
    top = [] if nested else as_list(token.get("top_logprobs"), "top_logprobs")
    return TokenLogprob(
        token=as_text(token.get("token"), "a token"),
        logprob=number,
        token_bytes=raw,
        top=[_logprob(as_object(other, "a log probability"), nested=True) for other in top],
    )


def _stop_sequence(choice: JsonObject) -> str:
    """vLLM says in `stop_reason` which of the caller's texts ended the answer (a number is a token of its own)."""
    reason = choice.get("stop_reason")
    return reason if isinstance(reason, str) else ""


def _finish_reason(word: str, called: bool, refused: bool, stop_sequence: str) -> FinishReason:
    reason = _FINISH.get(word, FinishReason.FINISH_REASON_STOP)
    if reason != FinishReason.FINISH_REASON_STOP:
        return reason
    if called:
        return FinishReason.FINISH_REASON_TOOL_USE  # a forced call ends with "stop"
    if refused:
        return FinishReason.FINISH_REASON_REFUSAL
    return FinishReason.FINISH_REASON_STOP_SEQUENCE if stop_sequence else reason


def _detail_block(detail: JsonObject) -> Block:
    """One of OpenRouter's `reasoning_details`: what has no field goes along as it came, to be sent back."""
    rest = {name: value for name, value in detail.items() if name not in _DETAIL_FIELDS and value is not None}
    return Block(
        reasoning=Reasoning(
            text=as_text(detail.get("text"), "a thought") or as_text(detail.get("summary"), "a thought's summary"),
            signature=as_text(detail.get("signature"), "a thought's signature"),
            encrypted=as_text(detail.get("data"), "an encrypted thought"),
            format=FORMAT,
        ),
        extra=Opaque(format=FORMAT, json=orjson.dumps(rest)),
    )
