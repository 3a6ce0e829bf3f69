"""Chat completions' answers become canonical events, however their bytes are cut, and never anything but MeshError."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelmuxer.chat.v1.chat_pb2 import (
    ChatEvent,
    ChatRequest,
    ChatResponse,
    FinishReason,
    ReasoningOptions,
    UsageSource,
)

from services.provider_proxy.adapters import Decoder
from shared.errors import MeshError, Reason
from tests.unit.provider_proxy import examples
from tests.unit.provider_proxy.wire import cut_everywhere, decode, folded, sse

HEAD: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "gpt-4o-mini-2024-07-18",
    "system_fingerprint": "fp_1",
    "service_tier": "default",
}
USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 9,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 0},
}


def chunk(delta: dict[str, Any] | None = None, *, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta or {}, "logprobs": more.pop("logprobs", None), "finish_reason": finish}
    return {**HEAD, "choices": [choice | more.pop("choice", {})], "usage": None, **more}


def usage_chunk(usage: dict[str, Any] = USAGE) -> dict[str, Any]:
    return {**HEAD, "choices": [], "usage": usage}


def decoder(chat: ChatRequest | None = None) -> Decoder:
    return examples.adapter().decoder(chat or examples.chat())


def answer(*chunks: dict[str, Any] | str, chat: ChatRequest | None = None) -> ChatResponse:
    """A stream's answer, the same however its bytes are cut."""
    events, error = cut_everywhere(lambda: decoder(chat), sse(*chunks))
    assert error is None
    assert [event.WhichOneof("event") for event in events].count("completed") == 1
    assert events[-1].HasField("completed")
    return folded(events)


TEXT = (
    chunk({"role": "assistant", "content": "", "refusal": None}),
    chunk({"content": "Hel"}, obfuscation="x"),
    chunk({"content": "lo – 你好"}),
    chunk(finish="stop"),
)


def test_a_text() -> None:
    response = answer(*TEXT, usage_chunk(), "[DONE]")
    assert [block.text.text for block in response.content] == ["Hello – 你好"]
    assert response.started.provider_model == "gpt-4o-mini-2024-07-18"
    assert response.started.system_fingerprint == "fp_1"
    completed = response.completed
    assert completed.finish_reason == FinishReason.FINISH_REASON_STOP
    assert (completed.provider_finish_reason, completed.provider_request_id) == ("stop", "chatcmpl-1")
    usage = completed.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens) == (20, 9, 8)
    assert (usage.cache_write_tokens, usage.reasoning_tokens, usage.service_tier) == (4, 5, "default")
    assert usage.source == UsageSource.USAGE_SOURCE_PROVIDER
    assert usage.HasField("input_audio_tokens"), "an explicit 0 is a value"


def test_line_ends_comments_and_pings_do_not_matter() -> None:
    plain, _ = decode(decoder(), [sse(*TEXT, usage_chunk(), "[DONE]")])
    stream = b": OPENROUTER PROCESSING\r\n\r\n" + sse(*TEXT, usage_chunk(), "[DONE]", newline="\r\n")
    assert cut_everywhere(decoder, stream) == (plain, None)
    assert decode(decoder(), [b"\xef\xbb\xbf" + stream]) == (plain, None)
    assert decode(decoder(), [sse(*TEXT, "", usage_chunk(), "[DONE]")]) == (plain, None)


def test_a_huge_delta_arrives_whole() -> None:
    text = "x" * 3_000_000
    stream = sse(chunk({"content": text}), chunk(finish="stop"), "[DONE]")
    pieces = [stream[at : at + 16_384] for at in range(0, len(stream), 16_384)]
    events, error = decode(decoder(), pieces)
    assert error is None
    assert folded(events).content[0].text.text == text


def test_usage_counts_wherever_it_comes() -> None:
    beside = answer(*TEXT[:-1], chunk(finish="stop", usage=USAGE), "[DONE]").completed.usage
    assert (beside.input_tokens, beside.output_tokens) == (20, 9)
    growing = answer(
        chunk({"content": "a"}, usage=USAGE | {"completion_tokens": 1}), *TEXT[1:], usage_chunk(), "[DONE]"
    )
    assert growing.completed.usage.output_tokens == 9
    groq = answer(*TEXT[:-1], chunk(finish="stop", x_groq={"id": "req_1", "usage": USAGE}), "[DONE]")
    assert groq.completed.usage.input_tokens == 20
    deepseek = answer(
        *TEXT, usage_chunk({"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 4}), "[DONE]"
    )
    assert deepseek.completed.usage.cached_input_tokens == 4


def test_reasoning_that_a_server_counts_apart_is_output_too() -> None:
    apart = {"prompt_tokens": 32, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 94}}
    assert answer(*TEXT, usage_chunk(apart | {"total_tokens": 135}), "[DONE]").completed.usage.output_tokens == 103
    assert answer(*TEXT, usage_chunk(apart | {"total_tokens": 41}), "[DONE]").completed.usage.output_tokens == 9


def test_usage_that_nobody_stated_stays_unset() -> None:
    usage = answer(*TEXT, "[DONE]").completed.usage
    assert not usage.HasField("input_tokens")
    assert usage.source == UsageSource.USAGE_SOURCE_UNSPECIFIED
    zero = answer(*TEXT, usage_chunk({"prompt_tokens": 0, "completion_tokens": 0}), "[DONE]").completed.usage
    assert (zero.HasField("input_tokens"), zero.input_tokens) == (True, 0)


def call(index: int, call_id: str | None = None, name: str | None = None, arguments: str = "") -> dict[str, Any]:
    piece: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
    if call_id:
        piece |= {"id": call_id, "type": "function"}
        piece["function"]["name"] = name
    return {"tool_calls": [piece]}


def test_parallel_tool_calls_with_streamed_arguments() -> None:
    response = answer(
        chunk({"role": "assistant", "content": None}),
        chunk(call(0, "call_a", "weather")),
        chunk(call(0, arguments='{"city":')),
        chunk(call(0, arguments=' "Oslo"}')),
        chunk(call(1, "call_b", "time", "{}")),
        chunk(finish="tool_calls"),
        "[DONE]",
    )
    calls = [(b.tool_use.id, b.tool_use.name, b.tool_use.arguments_json) for b in response.content]
    assert calls == [("call_a", "weather", '{"city": "Oslo"}'), ("call_b", "time", "{}")]
    assert response.completed.finish_reason == FinishReason.FINISH_REASON_TOOL_USE


def test_tool_calls_of_servers_that_number_them_badly() -> None:
    same_index = answer(
        chunk(call(0, "a", "f", "{}")), chunk(call(0, "b", "g", '{"x":1}')), chunk(finish="stop"), "[DONE]"
    )
    assert [(b.tool_use.id, b.tool_use.arguments_json) for b in same_index.content] == [("a", "{}"), ("b", '{"x":1}')]
    assert same_index.completed.finish_reason == FinishReason.FINISH_REASON_TOOL_USE, "a forced call ends with stop"
    repeated = answer(chunk(call(0, "a", "f", '{"x"')), chunk(call(0, "a", "f", ":1}")), chunk(finish="stop"), "[DONE]")
    assert [b.tool_use.arguments_json for b in repeated.content] == ['{"x":1}']
    whole = {"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}]}
    assert answer(chunk(whole, finish="stop"), "[DONE]").content[0].tool_use.arguments_json == '{"x":1}'


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_under_each_of_its_names(name: str) -> None:
    chunks = (chunk({name: "Hm", "content": None}), chunk({name: "m."}), *TEXT, "[DONE]")
    response = answer(*chunks)
    assert [b.WhichOneof("kind") for b in response.content] == ["reasoning", "text"]
    assert (response.content[0].reasoning.text, response.content[0].reasoning.format) == ("Hmm.", "openai")
    hidden = answer(*chunks, chat=examples.chat(reasoning=ReasoningOptions(include=False)))
    assert [b.WhichOneof("kind") for b in hidden.content] == ["text"]


def test_reasoning_under_both_names_is_read_once() -> None:
    response = answer(chunk({"reasoning": "Hm", "reasoning_content": "Hm"}), *TEXT, "[DONE]")
    assert response.content[0].reasoning.text == "Hm"


def test_mistrals_thoughts_and_texts_in_parts() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    response = answer(
        chunk({"content": [thinking]}),
        chunk({"content": [{"type": "text", "text": "Yes"}, {"type": "reference", "reference_ids": [1]}]}),
        chunk({"content": "."}, finish="stop", usage=USAGE),
        "[DONE]",
    )
    assert [(b.reasoning.text, b.text.text) for b in response.content] == [("Hm.", ""), ("", "Yes.")]


def test_openrouters_reasoning_details_keep_signature_and_members() -> None:
    def detail(**members: Any) -> dict[str, Any]:
        return {"reasoning": members.get("text"), "reasoning_details": [{"index": 0, **members}]}

    response = answer(
        chunk(detail(type="reasoning.text", text="Let", format="anthropic-claude-v1")),
        chunk(detail(type="reasoning.text", text=" me.")),
        chunk(detail(type="reasoning.text", signature="c2ln")),
        chunk(detail(type="reasoning.encrypted", data="ZW5j")),
        *TEXT,
        "[DONE]",
    )
    thought, sealed, text = response.content
    assert (thought.reasoning.text, thought.reasoning.signature) == ("Let me.", "c2ln")
    assert orjson.loads(thought.extra.json) == {"index": 0, "type": "reasoning.text", "format": "anthropic-claude-v1"}
    assert sealed.reasoning.encrypted == "ZW5j"
    assert text.text.text == "Hello – 你好"


def test_a_refusal() -> None:
    response = answer(chunk({"refusal": "I can"}), chunk({"refusal": "not."}), chunk(finish="stop"), "[DONE]")
    assert response.content[0].refusal.text == "I cannot."
    assert response.completed.finish_reason == FinishReason.FINISH_REASON_REFUSAL
    assert response.completed.provider_finish_reason == "stop"


def test_citations_stand_on_the_text() -> None:
    cited = {"url": "https://x/", "title": "X", "start_index": 0, "end_index": 5}
    annotation = {"type": "url_citation", "url_citation": cited}
    response = answer(*TEXT[:3], chunk({"annotations": [annotation]}), chunk(finish="stop"), "[DONE]")
    (citation,) = response.content[0].text.citations
    assert (citation.url, citation.title, citation.start_index, citation.end_index) == ("https://x/", "X", 0, 5)
    assert citation.raw.fields["type"].string_value == "url_citation"
    listed = answer(*(each | {"citations": ["https://a/", "https://b/"]} for each in TEXT), "[DONE]")
    assert [c.url for c in listed.content[0].text.citations] == ["https://a/", "https://b/"]


def test_log_probabilities_go_with_their_tokens() -> None:
    token = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": [{"token": "Yo", "logprob": -1}]}
    stream = sse(
        chunk({"content": "Hi"}, logprobs={"content": [token], "refusal": None}), chunk(finish="stop"), "[DONE]"
    )
    events, _ = cut_everywhere(decoder, stream)
    (probability,) = next(event.delta.logprobs for event in events if event.delta.logprobs)
    assert (probability.token, probability.logprob, probability.token_bytes) == ("Hi", -0.5, b"Hi")
    assert [other.token for other in probability.top] == ["Yo"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("stop", FinishReason.FINISH_REASON_STOP),
        ("length", FinishReason.FINISH_REASON_LENGTH),
        ("model_length", FinishReason.FINISH_REASON_CONTEXT_LENGTH),
        ("content_filter", FinishReason.FINISH_REASON_CONTENT_FILTER),
        ("function_call", FinishReason.FINISH_REASON_TOOL_USE),
        ("a_word_of_tomorrow", FinishReason.FINISH_REASON_STOP),
    ],
)
def test_finish_reasons(word: str, expected: FinishReason) -> None:
    completed = answer(*TEXT[:3], chunk(finish=word), "[DONE]").completed
    assert (completed.finish_reason, completed.provider_finish_reason) == (expected, word)


def test_the_stop_sequence_where_the_server_tells_it() -> None:
    completed = answer(*TEXT[:3], chunk(finish="stop", choice={"stop_reason": "END"}), "[DONE]").completed
    assert (completed.finish_reason, completed.stop_sequence) == (FinishReason.FINISH_REASON_STOP_SEQUENCE, "END")


def test_the_end_of_the_body_is_enough_once_a_finish_reason_came() -> None:
    assert answer(*TEXT, usage_chunk()).completed.usage.output_tokens == 9


def failed(*chunks: dict[str, Any] | str) -> tuple[list[ChatEvent], str]:
    events, reason = cut_everywhere(decoder, sse(*chunks))
    assert reason is not None
    assert not any(event.HasField("completed") for event in events)
    return events, reason


def test_a_stream_without_a_finish_reason_is_cut() -> None:
    for end in ((), ("[DONE]",), (usage_chunk(), "[DONE]")):
        events, reason = failed(*TEXT[:3], *end)
        assert reason == Reason.PROVIDER_STREAM_CUT
        assert folded(events).content[0].text.text == "Hello – 你好"


def test_a_stream_cut_at_any_byte_before_its_finish_reason_is_never_whole() -> None:
    stream = sse(*TEXT)
    last = len(sse(*TEXT[:3]))
    for at in range(last):
        events, reason = decode(decoder(), [stream[:at]])
        assert reason == Reason.PROVIDER_STREAM_CUT
        assert not any(event.HasField("completed") for event in events)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"error": {"message": "Overloaded", "code": "server_is_overloaded"}}, Reason.PROVIDER_OVERLOADED),
        ({"error": {"message": "Bad gateway", "code": 502}, "choices": []}, Reason.PROVIDER_ERROR),
        ({"error": {"message": "Slow down", "code": 429}}, Reason.PROVIDER_RATE_LIMITED),
        ({"error": "model runner has unexpectedly stopped"}, Reason.PROVIDER_ERROR),
        ({"object": "error", "message": "boom", "type": "InternalServerError", "code": 500}, Reason.PROVIDER_ERROR),
        (chunk(finish="error"), Reason.PROVIDER_ERROR),
        (chunk(finish="insufficient_system_resource"), Reason.PROVIDER_OVERLOADED),
        ("{", Reason.PROVIDER_MALFORMED_ANSWER),
        ("[]", Reason.PROVIDER_MALFORMED_ANSWER),
        ({"choices": {}}, Reason.PROVIDER_MALFORMED_ANSWER),
        (chunk({"content": 5}), Reason.PROVIDER_MALFORMED_ANSWER),
        (chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}), Reason.PROVIDER_MALFORMED_ANSWER),
    ],
)
def test_errors_in_the_stream_come_after_what_came_before_them(broken: Any, reason: Reason) -> None:
    events, found = failed(*TEXT[:3], broken, *TEXT[3:], "[DONE]")
    assert found == reason
    assert folded(events).content[0].text.text == "Hello – 你好"


FIELDS = (
    *("id", "model", "choices", "index", "delta", "message", "content", "role", "refusal", "tool_calls", "function"),
    *("name", "arguments", "finish_reason", "logprobs", "token", "logprob", "bytes", "top_logprobs", "usage", "type"),
    *("prompt_tokens", "completion_tokens", "prompt_tokens_details", "cached_tokens", "annotations", "url_citation"),
    *("url", "start_index", "reasoning_details", "reasoning", "text", "thinking", "error", "code", "citations"),
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.binary(max_size=60)), st.lists(json_values, max_size=4))
def test_any_bytes_give_events_or_a_mesh_error(noise: list[bytes], values: list[Any]) -> None:
    chunks = [{"choices": [{"delta": value}]} for value in values] + values
    pieces = [b"data: " + json.dumps(value).encode() + b"\n\n" for value in chunks] + noise
    for stream in (pieces, pieces[::-1], [sse(*TEXT[:2]), *pieces]):
        decode(decoder(), stream)  # raises nothing but MeshError, which `decode` takes


@given(json_values, st.binary(max_size=60))
def test_any_whole_answer_gives_a_response_or_a_mesh_error(value: Any, noise: bytes) -> None:
    bodies = [noise, json.dumps(value).encode(), json.dumps({"choices": [{"message": value}], "usage": value}).encode()]
    for body in bodies:
        with contextlib.suppress(MeshError):
            examples.adapter().response(200, {}, body)


def whole(message: dict[str, Any], finish: str = "stop", **more: Any) -> ChatResponse:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish} | more.pop("choice", {})
    body = HEAD | {"object": "chat.completion", "choices": [choice], "usage": USAGE} | more
    return examples.adapter().response(200, {}, json.dumps(body).encode())


def test_a_whole_answer_is_the_streamed_one() -> None:
    streamed = answer(*TEXT, usage_chunk(), "[DONE]")
    assert whole({"content": "Hello – 你好", "refusal": None, "annotations": []}) == streamed


def test_a_whole_answer_with_everything() -> None:
    annotation = {"type": "url_citation", "url_citation": {"url": "https://x/", "title": "X"}}
    response = whole(
        {
            "reasoning_content": "Hm.",
            "content": "See x.",
            "annotations": [annotation],
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{bad json"}}],
        },
        finish="tool_calls",
        choice={"logprobs": {"content": [{"token": "See", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}},
    )
    assert [b.WhichOneof("kind") for b in response.content] == ["reasoning", "text", "tool_use"]
    assert response.content[1].text.citations[0].url == "https://x/"
    assert response.content[2].tool_use.arguments_json == "{bad json"
    assert [token.token for token in response.completed.logprobs] == ["See"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<html>502</html>", Reason.PROVIDER_MALFORMED_ANSWER),
        (b'{"choices": []}', Reason.PROVIDER_MALFORMED_ANSWER),
        (b'{"error": {"message": "no", "code": 429}}', Reason.PROVIDER_RATE_LIMITED),
        (b'{"choices": [{"message": {}, "finish_reason": "error"}]}', Reason.PROVIDER_ERROR),
    ],
)
def test_a_whole_answer_that_is_none(body: bytes, reason: Reason) -> None:
    with pytest.raises(MeshError) as refused:
        examples.adapter().response(200, {}, body)
    assert refused.value.reason == reason
