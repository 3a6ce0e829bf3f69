"""Gemini's generateContent: what is said arrives, what is signed comes back on its part, and no bytes do harm."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from google.genai import types as sdk
from hypothesis import given, settings
from hypothesis import strategies as st
from modelmuxer.chat.v1.chat_pb2 import (
    Audio,
    Block,
    ChatRequest,
    ChatResponse,
    Document,
    FinishReason,
    Image,
    JsonObject,
    Media,
    Message,
    Opaque,
    Reasoning,
    ReasoningOptions,
    ResponseFormat,
    Role,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    UsageSource,
)
from modelmuxer.provider.v1.provider_pb2 import AttemptFailure

from services.provider_proxy.adapters.gemini import GeminiAdapter
from shared.catalogue import Deployment
from shared.errors import MeshError
from tests.unit.provider_proxy.wire import cut_everywhere, decode, folded, sse

ADAPTER = GeminiAdapter()


def deployment(model: str) -> Deployment:
    return Deployment(
        name="gemini/m@gemini",
        model="gemini/m",
        provider="gemini",
        region="",
        base_url="https://generativelanguage.googleapis.com",
        upstream_model=model,
    )


def sent(chat: ChatRequest, model: str = "gemini-2.5-flash") -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(ADAPTER.request(chat, deployment(model), "k", stream=False, attempt_id="").body)
    return body


def text(words: str, signature: bytes = b"") -> Block:
    return Block(text=Text(text=words, signature=signature))


def said(*blocks: Block, role: Role = Role.ROLE_USER, **fields: Any) -> ChatRequest:
    return ChatRequest(messages=[Message(role=role, content=blocks)], **fields)


def refused(make: Callable[[], object]) -> MeshError:
    with pytest.raises(MeshError) as caught:
        make()
    return caught.value


def reason_of(make: Callable[[], object]) -> str | None:
    try:
        make()
    except MeshError as error:
        return str(error.reason)
    return None


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# --- requests ---


def test_endpoints_and_headers() -> None:
    chat = said(text("Hi"), provider_headers={"X-Goog-Api-Key": "stolen"})
    stream = ADAPTER.request(chat, deployment("gemini-2.5-pro"), "secret", stream=True, attempt_id="a1")
    assert stream.url.endswith("/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse")
    assert stream.headers == {
        "x-goog-api-key": "secret",
        "content-type": "application/json",
        "x-client-request-id": "a1",
    }
    assert "secret" not in repr(stream)
    whole = ADAPTER.request(chat, deployment("gemini-2.5-pro"), "secret", stream=False, attempt_id="a1")
    assert whole.url.endswith(":generateContent")


def test_a_conversation_with_tools() -> None:
    chat = ChatRequest(tools=[Tool(name="f", description="d", parameters_json='{"type": "object", "x": 1.0}')])
    chat.messages.add(role=Role.ROLE_SYSTEM, content=[text("Be brief.")])
    chat.messages.add(role=Role.ROLE_USER, content=[text("q")])
    calls = [
        Block(tool_use=ToolUse(id="c1", name="f", arguments_json='{"n": 1.50}', signature=b"sig")),
        Block(tool_use=ToolUse(id="mux_2", name="g", arguments_json="")),
    ]
    chat.messages.add(role=Role.ROLE_ASSISTANT, content=calls)
    results = [
        ToolResult(tool_use_id="c1", content=[text('{"degrees": 12.0}')]),
        ToolResult(tool_use_id="mux_2", content=[text("no"), picture()], is_error=True),
    ]
    for result in results:
        chat.messages.add(role=Role.ROLE_TOOL, content=[Block(tool_result=result)])
    request = ADAPTER.request(chat, deployment("gemini-3-flash"), "k", stream=False, attempt_id="")
    assert b'{"n": 1.50}' in request.body
    assert b'{"degrees": 12.0}' in request.body
    assert b'{"type": "object", "x": 1.0}' in request.body
    assert orjson.loads(request.body) == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "q"}]},
            {
                "role": "model",
                "parts": [
                    {"functionCall": {"name": "f", "args": {"n": 1.5}, "id": "c1"}, "thoughtSignature": b64(b"sig")},
                    {"functionCall": {"name": "g", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "f", "id": "c1", "response": {"degrees": 12}}},
                    {
                        "functionResponse": {
                            "name": "g",
                            "response": {"error": "no"},
                            "parts": [{"inlineData": {"mimeType": "image/png", "data": "AA=="}}],
                        }
                    },
                ],
            },
        ],
        "tools": [
            {
                "functionDeclarations": [
                    {"name": "f", "description": "d", "parametersJsonSchema": {"type": "object", "x": 1}}
                ]
            }
        ],
    }


def picture() -> Block:
    return Block(image=Image(media=Media(data=b"\x00", media_type="image/png")))


def test_generation_settings() -> None:
    chat = said(
        text("q"),
        max_output_tokens=9,
        temperature=0,
        top_p=0.5,
        top_k=3,
        seed=0,
        presence_penalty=0.5,
        frequency_penalty=-1,
        stop_sequences=["END"],
        top_logprobs=2,
        service_tier="flex",
    )
    chat.response_format.json_schema.schema_json = '{"type": "object"}'
    chat.provider_options.update(
        {"generationConfig": {"mediaResolution": "LOW"}, "safetySettings": [{"category": "X"}], "cachedContent": "c/1"}
    )
    body = sent(chat)
    assert body["generationConfig"] == {
        "maxOutputTokens": 9,
        "temperature": 0,
        "topP": 0.5,
        "topK": 3,
        "seed": 0,
        "presencePenalty": 0.5,
        "frequencyPenalty": -1,
        "stopSequences": ["END"],
        "responseLogprobs": True,
        "logprobs": 2,
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object"},
        "mediaResolution": "LOW",
    }
    assert (body["serviceTier"], body["cachedContent"], body["safetySettings"]) == ("flex", "c/1", [{"category": "X"}])
    sdk.GenerationConfig.model_validate(body["generationConfig"] | {"mediaResolution": "MEDIA_RESOLUTION_LOW"})
    plain = said(text("q"), response_format=ResponseFormat(json_object=JsonObject()))
    assert sent(plain)["generationConfig"] == {"responseMimeType": "application/json"}


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        (ToolChoice(mode=ToolChoice.MODE_AUTO), {"mode": "AUTO"}),
        (ToolChoice(mode=ToolChoice.MODE_NONE), {"mode": "NONE"}),
        (ToolChoice(mode=ToolChoice.MODE_REQUIRED), {"mode": "ANY"}),
        (ToolChoice(mode=ToolChoice.MODE_TOOL, name="f"), {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)
def test_tool_choices(choice: ToolChoice, config: dict[str, Any]) -> None:
    chat = said(text("q"), tools=[Tool(name="f")], tool_choice=choice)
    assert sent(chat)["toolConfig"] == {"functionCallingConfig": config}


def test_strict_tools_are_validated_and_provider_tools_stand_beside() -> None:
    search = Tool(opaque=Opaque(format="gemini", json=b'{"googleSearch": {}}'))
    body = sent(said(text("q"), tools=[search, Tool(name="f", strict=True)]))
    assert body["tools"] == [{"functionDeclarations": [{"name": "f"}]}, {"googleSearch": {}}]
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "VALIDATED"}}


@pytest.mark.parametrize(
    ("model", "options", "thinking"),
    [
        (
            "gemini-2.5-flash",
            ReasoningOptions(effort="medium", include=True),
            {"thinkingBudget": 8192, "includeThoughts": True},
        ),
        ("gemini-2.5-flash", ReasoningOptions(max_tokens=0), {"thinkingBudget": 0}),
        ("gemini-2.5-pro", ReasoningOptions(max_tokens=700), {"thinkingBudget": 700}),
        ("gemini-3.1-pro-preview", ReasoningOptions(effort="xhigh"), {"thinkingLevel": "HIGH"}),
        ("gemini-3-flash-preview", ReasoningOptions(max_tokens=5000), {"thinkingLevel": "MEDIUM"}),
        ("gemini-pro-latest", ReasoningOptions(effort="minimal"), {"thinkingLevel": "LOW"}),
        ("gemini-3-flash-preview", ReasoningOptions(include=False), {"includeThoughts": False}),
    ],
)
def test_reasoning_is_said_as_the_generation_takes_it(
    model: str, options: ReasoningOptions, thinking: dict[str, Any]
) -> None:
    assert sent(said(text("q"), reasoning=options), model)["generationConfig"]["thinkingConfig"] == thinking


def test_media_of_every_kind_and_source() -> None:
    blocks = [
        picture(),
        Block(audio=Audio(media=Media(data=b"\x01", media_type="audio/wav"))),
        Block(document=Document(media=Media(file_id="https://files/1", media_type="application/pdf"))),
        Block(document=Document(text="plain")),
        Block(document=Document(content=[text("a"), text("b")])),
    ]
    assert sent(said(*blocks))["contents"][0]["parts"] == [
        {"inlineData": {"mimeType": "image/png", "data": "AA=="}},
        {"inlineData": {"mimeType": "audio/wav", "data": "AQ=="}},
        {"fileData": {"fileUri": "https://files/1", "mimeType": "application/pdf"}},
        {"text": "plain"},
        {"text": "a"},
        {"text": "b"},
    ]


def test_calls_that_no_gemini_made_are_marked_where_signatures_are_asked_for() -> None:
    chat = said(text("q"))
    calls = [Block(tool_use=ToolUse(id=str(n), name="f", arguments_json="{}")) for n in range(2)]
    thought = Block(reasoning=Reasoning(text="t", signature="s", format="anthropic"))
    chat.messages.add(role=Role.ROLE_ASSISTANT, content=[thought, *calls])
    parts = sent(chat, "gemini-3.1-pro-preview")["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == ["skip_thought_signature_validator", None]
    assert all("thoughtSignature" not in part for part in sent(chat, "gemini-2.5-pro")["contents"][1]["parts"])


@pytest.mark.parametrize(
    ("chat", "field"),
    [
        (said(Block(opaque=Opaque(format="anthropic", json=b"{}"))), "messages[0].content[0]"),
        (said(text("q"), tools=[Tool(opaque=Opaque(format="openai", json=b"{}"))]), "tools[0]"),
        (said(text("q"), tools=[Tool(name="f")], tool_choice=ToolChoice(parallel=False)), "tool_choice.parallel"),
        (said(text("q"), service_tier="scale"), "service_tier"),
        (said(Block(document=Document(text="x", citations=True))), "messages[0].content[0].document.citations"),
        (said(text("q"), reasoning=ReasoningOptions(effort="none")), "reasoning"),
        (
            ChatRequest(
                messages=[
                    Message(role=Role.ROLE_USER, content=[text("q")]),
                    Message(role=Role.ROLE_SYSTEM, content=[text("s")]),
                ]
            ),
            "messages[1]",
        ),
    ],
)
def test_what_the_form_cannot_say_is_refused_by_name(chat: ChatRequest, field: str) -> None:
    error = refused(lambda: sent(chat, "gemini-2.5-pro"))
    assert (error.reason, error.field) == ("UNSUPPORTED_FEATURE", field)


@pytest.mark.parametrize(
    ("block", "field"),
    [
        (Block(tool_result=ToolResult(tool_use_id="who")), "messages[0].content[0].tool_result.tool_use_id"),
        (Block(tool_use=ToolUse(name="f", arguments_json="[]")), "messages[0].content[0].tool_use"),
        (Block(image=Image(media=Media(data=b"x"))), "messages[0].content[0].image.media.media_type"),
        (Block(), "messages[0].content[0]"),
    ],
)
def test_what_is_wrong_is_named(block: Block, field: str) -> None:
    error = refused(lambda: sent(said(block)))
    assert (error.reason, error.field) == ("MALFORMED_REQUEST", field)


def test_tokens_are_counted_with_system_and_tools() -> None:
    chat = said(text("q"), tools=[Tool(name="f")])
    request = ADAPTER.count_tokens_request(chat, deployment("gemini-2.5-pro"), "k")
    assert request.url.endswith("/models/gemini-2.5-pro:countTokens")
    inner = orjson.loads(request.body)["generateContentRequest"]
    assert inner["model"] == "models/gemini-2.5-pro"
    assert inner.keys() == {"model", "contents", "tools"}
    assert ADAPTER.counted(b'{"totalTokens": 31}') == 31
    assert refused(lambda: ADAPTER.counted(b"[]")).reason == "PROVIDER_MALFORMED_ANSWER"


# --- answers ---

USAGE = {
    "promptTokenCount": 100,
    "toolUsePromptTokenCount": 20,
    "candidatesTokenCount": 9,
    "thoughtsTokenCount": 30,
    "cachedContentTokenCount": 64,
    "totalTokenCount": 159,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 90}, {"modality": "AUDIO", "tokenCount": 10}],
    "trafficType": "ON_DEMAND_PRIORITY",
}
GROUNDING = {
    "webSearchQueries": ["rain"],
    "searchEntryPoint": {"renderedContent": "<b>"},
    "groundingChunks": [{"web": {"uri": "https://x", "title": "X"}}, {"web": {"uri": "https://y"}}],
    "groundingSupports": [
        {"segment": {"startIndex": 3, "endIndex": 10, "text": "régnet"}, "groundingChunkIndices": [0, 1, 7]}
    ],
}


def chunk(*parts: dict[str, Any], usage: dict[str, Any] | None = None, **candidate: Any) -> dict[str, Any]:
    return {
        "candidates": [{"content": {"parts": list(parts), "role": "model"}, "index": 0, **candidate}],
        "usageMetadata": usage or {"promptTokenCount": 100, "totalTokenCount": 100},
        "modelVersion": "gemini-3-flash-preview",
        "responseId": "resp-1",
    }


CALL = {
    "functionCall": {"id": "fc1", "name": "f", "args": {"city": "Oslo", "n": 1.5}},
    "thoughtSignature": b64(b"call"),
}
CODE = {"executableCode": {"language": "PYTHON", "code": "1+1"}, "thoughtSignature": b64(b"code")}
CHUNKS = [
    chunk({"text": "Hm", "thought": True}),
    chunk({"text": "m.", "thought": True}),
    chunk({"text": "", "thought": True, "thoughtSignature": "VGg="}),
    chunk(CODE),
    chunk({"text": "Es régn"}),
    chunk({"text": "et \u2028."}, {"text": "", "thoughtSignature": b64(b"text")}, groundingMetadata=GROUNDING),
    chunk(CALL, {"functionCall": {"name": "g"}}),
    chunk(usage=USAGE, finishReason="STOP", safetyRatings=[]),
]
STREAM = sse(*CHUNKS)
PARTS: list[dict[str, Any]] = [
    {"text": "Hmm.", "thought": True},
    {"text": "", "thought": True, "thoughtSignature": "VGg="},
    CODE,
    {"text": "Es régnet \u2028."},
    {"text": "", "thoughtSignature": b64(b"text")},
    CALL,
    {"functionCall": {"name": "g", "args": {}}},
]


def whole(*parts: dict[str, Any], finish: str = "STOP", **candidate: Any) -> ChatResponse:
    return ADAPTER.response(200, {}, json.dumps(chunk(*parts, usage=USAGE, finishReason=finish, **candidate)).encode())


def sent_back(response: ChatResponse) -> list[dict[str, Any]]:
    chat = said(text("q"))
    chat.messages.add(role=Role.ROLE_ASSISTANT, content=response.content)
    parts: list[dict[str, Any]] = sent(chat, "gemini-3-flash-preview")["contents"][1]["parts"]
    return parts


def test_a_stream_says_the_same_however_it_is_cut() -> None:
    events, error = cut_everywhere(lambda: ADAPTER.decoder(ChatRequest()), STREAM)
    assert error is None
    response = folded(events)
    assert sent_back(response) == PARTS
    assert response.completed.usage == whole().completed.usage
    assert response.started.provider_model == "gemini-3-flash-preview"
    assert response.completed.provider_request_id == "resp-1"
    assert response.completed.finish_reason == FinishReason.FINISH_REASON_TOOL_USE


def test_signatures_come_back_on_the_part_that_had_them() -> None:
    assert sent_back(whole(*PARTS)) == PARTS


def test_line_ends_and_comments_do_not_matter() -> None:
    expected = decode(ADAPTER.decoder(ChatRequest()), [STREAM])
    assert decode(ADAPTER.decoder(ChatRequest()), [sse(*CHUNKS, newline="\r\n")]) == expected
    assert (
        decode(ADAPTER.decoder(ChatRequest()), [b": hello\n\n" + STREAM.replace(b"\n\n", b"\n\n: .\n\n")]) == expected
    )


def test_calls_without_an_id_get_one_of_their_own() -> None:
    content = whole({"functionCall": {"name": "f"}}, {"functionCall": {"name": "f"}}).content
    ids = [block.tool_use.id for block in content]
    assert len(set(ids)) == 2
    assert all(call_id.startswith("mux_") for call_id in ids)


def test_usage_is_normalised() -> None:
    usage = whole({"text": "x"}).completed.usage
    assert usage.source == UsageSource.USAGE_SOURCE_PROVIDER
    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens) == (120, 39, 30)
    assert (usage.cached_input_tokens, usage.input_audio_tokens, usage.service_tier) == (64, 10, "priority")


def test_sources_point_into_the_text_by_characters() -> None:
    for response in (
        whole({"text": "Es régnet \u2028."}, groundingMetadata=GROUNDING),
        folded(decode(ADAPTER.decoder(ChatRequest()), [STREAM])[0]),
    ):
        block = next(block for block in response.content if block.text.text)
        assert [(c.url, c.title) for c in block.text.citations] == [("https://x", "X"), ("https://y", "")]
        cited = block.text.citations[0]
        assert (cited.start_index, cited.end_index, cited.cited_text) == (3, 9, "régnet")
        assert orjson.loads(response.completed.extra.json)["groundingMetadata"] == GROUNDING


def test_log_probabilities() -> None:
    result = {
        "chosenCandidates": [{"token": "x", "logProbability": -0.5}],
        "topCandidates": [{"candidates": [{"token": "y", "logProbability": -1}]}],
    }
    for response in (
        whole({"text": "x"}, logprobsResult=result),
        folded(
            decode(
                ADAPTER.decoder(ChatRequest()), [sse(chunk({"text": "x"}, logprobsResult=result, finishReason="STOP"))]
            )[0]
        ),
    ):
        (token,) = response.completed.logprobs
        assert (token.token, token.logprob, token.top[0].token) == ("x", -0.5, "y")


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("STOP", FinishReason.FINISH_REASON_STOP),
        ("MAX_TOKENS", FinishReason.FINISH_REASON_LENGTH),
        ("SAFETY", FinishReason.FINISH_REASON_CONTENT_FILTER),
        ("RECITATION", FinishReason.FINISH_REASON_CONTENT_FILTER),
        ("BLOCKLIST", FinishReason.FINISH_REASON_CONTENT_FILTER),
        ("PROHIBITED_CONTENT", FinishReason.FINISH_REASON_CONTENT_FILTER),
        ("SPII", FinishReason.FINISH_REASON_CONTENT_FILTER),
        ("OTHER", FinishReason.FINISH_REASON_UNSPECIFIED),
    ],
)
def test_finish_reasons(word: str, reason: FinishReason) -> None:
    completed = whole({"text": "x"}, finish=word).completed
    assert (completed.finish_reason, completed.provider_finish_reason) == (reason, word)


def test_a_call_that_the_model_broke_is_no_answer() -> None:
    error = refused(lambda: whole({"text": "x"}, finish="MALFORMED_FUNCTION_CALL"))
    failure = error.detail(AttemptFailure)
    assert error.reason == "PROVIDER_MALFORMED_ANSWER"
    assert failure is not None
    assert (failure.retryable, failure.provider_code) == (True, "MALFORMED_FUNCTION_CALL")


def test_a_blocked_prompt_ends_with_the_filter_and_its_bill() -> None:
    blocked = {
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": 5},
        "modelVersion": "m",
    }
    for response in (
        ADAPTER.response(200, {}, json.dumps(blocked).encode()),
        folded(decode(ADAPTER.decoder(ChatRequest()), [sse(blocked)])[0]),
    ):
        assert not response.content
        assert response.completed.finish_reason == FinishReason.FINISH_REASON_CONTENT_FILTER
        assert (response.completed.usage.input_tokens, response.completed.usage.output_tokens) == (5, 0)


def test_a_cut_stream_is_no_answer_and_tells_what_was_said_so_far() -> None:
    decoder = ADAPTER.decoder(ChatRequest())
    events, error = decode(decoder, [sse(*CHUNKS[:-1])])
    assert error == "PROVIDER_STREAM_CUT"
    assert not any(event.HasField("completed") for event in events)
    assert decoder.usage.input_tokens == 100


def test_an_image_in_the_answer() -> None:
    (block,) = whole({"inlineData": {"mimeType": "image/png", "data": "AA=="}}).content
    assert block.image.media == Media(data=b"\x00", media_type="image/png")


# --- errors ---


def problem(code: str, message: str = "x", *details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": 0, "message": message, "status": code, "details": list(details)}}


KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}
DAY = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "RequestsPerDay-FreeTier"}]}
MINUTE = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "RequestsPerMinute"}]}


@pytest.mark.parametrize(
    ("status", "body", "reason", "retry_after_s"),
    [
        (400, problem("INVALID_ARGUMENT"), "PROVIDER_INVALID_REQUEST", None),
        (400, problem("INVALID_ARGUMENT", "API key not valid", KEY), "PROVIDER_AUTHENTICATION", None),
        (
            400,
            problem("INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8)."),
            "CONTEXT_TOO_LONG",
            None,
        ),
        (400, problem("FAILED_PRECONDITION"), "PROVIDER_PERMISSION", None),
        (401, problem("UNAUTHENTICATED"), "PROVIDER_AUTHENTICATION", None),
        (403, problem("PERMISSION_DENIED"), "PROVIDER_PERMISSION", None),
        (404, problem("NOT_FOUND"), "PROVIDER_NOT_FOUND", None),
        (413, {}, "REQUEST_TOO_LARGE", None),
        (429, problem("RESOURCE_EXHAUSTED", "x", MINUTE, RETRY), "PROVIDER_RATE_LIMITED", 34.5),
        (429, problem("RESOURCE_EXHAUSTED", "x", DAY, RETRY), "PROVIDER_QUOTA_EXHAUSTED", None),
        (429, [problem("RESOURCE_EXHAUSTED")], "PROVIDER_RATE_LIMITED", 7),
        (500, problem("INTERNAL"), "PROVIDER_ERROR", 7),
        (503, problem("UNAVAILABLE"), "PROVIDER_OVERLOADED", 7),
        (504, problem("DEADLINE_EXCEEDED"), "PROVIDER_TIMEOUT", 7),
        (502, "<html>", "PROVIDER_ERROR", 7),
    ],
)
def test_documented_errors(status: int, body: Any, reason: str, retry_after_s: float | None) -> None:
    error = ADAPTER.error(status, {"retry-after": "7"}, json.dumps(body).encode())
    failure = error.detail(AttemptFailure)
    assert failure is not None
    assert (error.reason, error.retry_after_s, failure.http_status) == (reason, retry_after_s, status)
    assert failure.retryable is (retry_after_s is not None)


def test_what_came_before_an_error_is_given_out_however_the_bytes_are_cut() -> None:
    body = sse(*CHUNKS[:2], problem("UNAVAILABLE"))
    events, error = cut_everywhere(lambda: ADAPTER.decoder(ChatRequest()), body)
    assert error == "PROVIDER_OVERLOADED"
    assert folded(events).content[0].reasoning.text == "Hmm."


# --- any bytes ---

words = st.text(max_size=8)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(sorted(set(CALL) | set(CODE) | {"text"})), inner, max_size=3)
    ),
    max_leaves=6,
)
some_parts = st.lists(st.sampled_from(PARTS), min_size=1, max_size=5)


@settings(max_examples=150, deadline=None)
@given(some_parts)
def test_any_turn_comes_back_as_it_was(parts: list[dict[str, Any]]) -> None:
    calls = sum("functionCall" in part for part in parts)
    back = sent_back(whole(*parts))
    if calls and not any("thoughtSignature" in part for part in parts if "functionCall" in part):
        first = next(part for part in back if "functionCall" in part)
        assert first.pop("thoughtSignature") == "skip_thought_signature_validator"
    assert back == parts


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(CHUNKS).map(sse)
        | anything.map(lambda part: sse(chunk(part, finishReason="STOP")))  # type: ignore[arg-type]
        | anything.map(lambda value: sse(chunk({"text": "x"}, groundingMetadata=value, logprobsResult=value)))
        | anything.map(lambda value: sse(json.dumps(value)))
        | st.binary(max_size=20),
        max_size=8,
    )
)
def test_no_bytes_do_harm(parts: list[bytes]) -> None:
    events, _ = decode(ADAPTER.decoder(ChatRequest()), [b"".join(parts)])
    folded(events)
    for part in parts:
        body = part.removeprefix(b"data: ")
        assert reason_of(lambda body=body: ADAPTER.response(200, {}, body)) != "INTERNAL"  # type: ignore[misc]
        ADAPTER.error(500, {}, body)
