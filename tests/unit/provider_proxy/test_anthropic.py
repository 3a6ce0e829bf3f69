"""Anthropic's Messages form: nothing is lost on the way in, out and back, and no stream of bytes does harm."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from typing import Any

import anthropic.types as sdk
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelmuxer.chat.v1.chat_pb2 import (
    Audio,
    Block,
    ChatEvent,
    ChatRequest,
    Document,
    FinishReason,
    Image,
    JsonObject,
    Media,
    Opaque,
    Reasoning,
    ReasoningOptions,
    Refusal,
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
from pydantic import TypeAdapter

from services.provider_proxy.adapters.anthropic import AnthropicAdapter
from shared.catalogue import Deployment
from shared.errors import MeshError
from shared.transcript import replay
from shared.wire import anthropic as wire
from tests.unit.provider_proxy.wire import cut_everywhere, decode, folded

ADAPTER = AnthropicAdapter()
TOOL = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


def deployment(model: str = "claude-x") -> Deployment:
    return Deployment(
        name="anthropic/m@anthropic",
        model="anthropic/m",
        provider="anthropic",
        region="",
        base_url="https://api.anthropic.com",
        upstream_model=model,
    )


def sent(chat: ChatRequest, model: str = "claude-x", *, stream: bool = False) -> dict[str, Any]:
    request = ADAPTER.request(chat, deployment(model), "sk-secret", stream=stream, attempt_id="a1")
    body: dict[str, Any] = orjson.loads(request.body)
    return body


def there_and_back(body: dict[str, Any] | bytes) -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    chat = wire.parse_request(text).chat
    return ADAPTER.request(chat, deployment(chat.model), "k", stream=False, attempt_id="").body


def said(*blocks: Block, role: Role = Role.ROLE_USER, **fields: Any) -> ChatRequest:
    chat = ChatRequest(**fields)
    chat.messages.add(role=role, content=blocks)
    return chat


def text(words: str) -> Block:
    return Block(text=Text(text=words))


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


# --- a request, there and back ---

words = st.text(min_size=1, max_size=12)
identifiers = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False, width=32)


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(words, values, max_size=3)


anything = st.recursive(
    st.booleans() | numbers | words, lambda inner: st.lists(inner, max_size=3) | objects(inner), max_leaves=6
)


def made(kind: str, required: dict[str, st.SearchStrategy[Any]], **optional: st.SearchStrategy[Any]) -> Any:
    return st.fixed_dictionaries({"type": st.just(kind), **required}, optional=optional)


cache_controls = st.sampled_from([{"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}, {"type": "of tomorrow"}])
data = st.binary(max_size=20).map(lambda raw: base64.b64encode(raw).decode())
files = made("url", {"url": words}) | made("file", {"file_id": words})
citations = st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["char_location", "page_location", "web_search_result_location"]),
            "cited_text": words,
            "start_char_index": st.integers(0, 2**40),
        },
        optional={"document_title": words, "title": words, "url": words, "encrypted_index": words},
    ),
    min_size=1,
    max_size=2,
)
texts = made("text", {"text": words}, cache_control=cache_controls)
cited = made("text", {"text": words}, citations=citations)
images = made(
    "image",
    {"source": made("base64", {"media_type": st.just("image/png"), "data": data}) | files},
    cache_control=cache_controls,
    transformations=st.just({"oversized_image": "error"}),
)
documents = made(
    "document",
    {
        "source": made("base64", {"media_type": st.just("application/pdf"), "data": data})
        | made("text", {"media_type": st.just("text/plain"), "data": st.text(max_size=9)})
        | made("content", {"content": st.lists(texts | images, min_size=1, max_size=2)})
        | made("of tomorrow", {"where": words})
        | files
    },
    title=words,
    context=words,
    citations=st.just({"enabled": True}),
    cache_control=cache_controls,
)
foreign = made("search_result", {"source": words, "title": words, "content": st.lists(texts, max_size=1)}) | made(
    "block_of_tomorrow", {"value": anything}
)
results = made(
    "tool_result",
    {"tool_use_id": words},
    content=st.lists(texts | images | documents | foreign, min_size=1, max_size=2),
    is_error=st.just(True),
    cache_control=cache_controls,
    toolset_name=words,
)
uses = made(
    "tool_use",
    {"id": words, "name": identifiers, "input": objects(anything)},
    caller=st.just({"type": "direct"}),
    cache_control=cache_controls,
)
thoughts = made("thinking", {"thinking": st.text(max_size=9), "signature": words}) | made(
    "redacted_thinking", {"data": words}
)
server_uses = made("server_tool_use", {"id": words, "name": st.just("web_search"), "input": objects(anything)})


def turn(role: str, blocks: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    content = st.lists(blocks, min_size=1, max_size=4).map(
        lambda found: sorted(found, key=lambda block: block["type"] != "tool_result")
    )
    return st.fixed_dictionaries({"role": st.just(role), "content": content})


exchanges = st.tuples(
    turn("user", texts | images | documents | results | foreign),
    turn("assistant", texts | cited | uses | thoughts | server_uses | foreign),
)
tools = st.lists(
    st.fixed_dictionaries(
        {"name": identifiers, "input_schema": objects(anything)},
        optional={
            "description": words,
            "strict": st.booleans(),
            "cache_control": cache_controls,
            "defer_loading": st.booleans(),
            "input_examples": st.lists(objects(anything), max_size=1),
        },
    )
    | made("web_search_20250305", {"name": st.just("web_search")}, max_uses=st.integers(1, 5)),
    min_size=1,
    max_size=3,
)
thinking = (
    made("enabled", {"budget_tokens": st.integers(1024, 4000)}, display=st.sampled_from(["summarized", "omitted"]))
    | made("adaptive", {}, display=st.sampled_from(["summarized", "omitted"]))
    | made("disabled", {})
    | made("between_tools", {})
    | made("of_tomorrow", {"amount": st.integers(0, 9)})
)
requests = st.fixed_dictionaries(
    {
        "model": st.just("claude-x"),
        "max_tokens": st.integers(5000, 100000),
        "messages": st.lists(exchanges, min_size=1, max_size=2).map(lambda pairs: [m for pair in pairs for m in pair]),
    },
    optional={
        "system": st.lists(texts, min_size=1, max_size=2),
        "temperature": st.floats(0, 1),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(0, 500),
        "stop_sequences": st.lists(words, min_size=1, max_size=2),
        "tools": tools,
        "thinking": thinking,
        "output_config": st.fixed_dictionaries(
            {},
            optional={
                "effort": st.sampled_from(["low", "medium", "high", "xhigh", "max"]),
                "format": st.fixed_dictionaries({"type": st.just("json_schema"), "schema": objects(anything)}),
                "task_budget": objects(anything).filter(bool),
            },
        ).filter(bool),
        "metadata": st.fixed_dictionaries({"user_id": words}, optional={"trace": words}),
        "service_tier": st.sampled_from(["auto", "standard_only"]),
        "container": words,
        "context_management": st.just({"edits": [{"type": "clear_tool_uses_20250919", "keep": 3}]}),
    },
)


@settings(max_examples=150, deadline=None)
@given(requests)
def test_a_request_comes_back_as_it_was(body: dict[str, Any]) -> None:
    assert orjson.loads(there_and_back(body)) == body


@settings(max_examples=50, deadline=None)
@given(
    requests,
    st.sampled_from(["auto", "any", "none", "tool"]),
    st.none() | st.booleans(),
)
def test_a_tool_choice_comes_back_as_it_was(body: dict[str, Any], kind: str, alone: bool | None) -> None:
    choice: dict[str, Any] = {"type": kind}
    if kind == "tool":
        choice["name"] = "weather"
    if alone is not None and kind != "none":
        choice["disable_parallel_tool_use"] = alone
    body |= {"tools": [TOOL], "tool_choice": choice}
    assert orjson.loads(there_and_back(body)) == body


def test_what_is_signed_or_foreign_keeps_its_letter() -> None:
    arguments = rb'{ "b":1.50 ,"a":"\u00e9\/", "n": 12345678901234567890123, "b" : 1e2}'
    server_block = (
        rb'{"type": "web_search_tool_result","tool_use_id":"s1" , "content":[{"encrypted_content":"\u0041=="}]}'
    )
    provider_tool = rb'{"type":"bash_20250124" ,"name":"bash"}'
    schema = rb'{"type":"object", "properties":{"n":{"type":"number","maximum":1.0e3}} }'
    body = b"".join(
        [
            b'{"model":"claude-x","max_tokens":9000,"tools":[{"name":"f","input_schema":',
            schema,
            b"},",
            provider_tool,
            b'],"messages":[{"role":"user","content":"q"},{"role":"assistant","content":[',
            b'{"type":"thinking","thinking":"caf\\u00e9 \\ud83d\\ude00","signature":"Sig+/=="},',
            b'{"type":"redacted_thinking","data":"Data+/=="},',
            server_block,
            b',{"type":"tool_use","id":"t1","name":"f","input":',
            arguments,
            b"}]}]}",
        ]
    )
    back = there_and_back(body)
    for letter in (arguments, server_block, provider_tool, schema, b'"Sig+/=="', b'"Data+/=="'):
        assert letter in back
    assert orjson.loads(back)["messages"][1]["content"][0]["thinking"] == "café 😀"


def test_shorthands_are_spelled_out() -> None:
    body = {
        "model": "claude-x",
        "max_tokens": 5000,
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "user", "content": "b"},
            {"role": "assistant", "content": [{"type": "text", "text": "c", "citations": None}]},
        ],
        "tools": [{"type": "custom", **TOOL}],
        "temperature": None,
    }
    back = orjson.loads(there_and_back(body))
    assert back["system"] == [{"type": "text", "text": "Be brief."}]
    assert [[b["text"] for b in m["content"]] for m in back["messages"]] == [["a", "b"], ["c"]]
    assert back["tools"] == [TOOL]
    assert "temperature" not in back


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"max_tokens": 1, "messages": []}, "model"),
        ({"model": "m", "messages": []}, "max_tokens"),
        ({"model": "m", "max_tokens": "1", "messages": []}, "max_tokens"),
        ({"model": "m", "max_tokens": 1}, "messages"),
        ({"model": "m", "max_tokens": 1, "messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        (
            {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
        ),
        (
            {
                "model": "m",
                "max_tokens": 1,
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "%"}}
                        ],
                    }
                ],
            },
            "messages[0].content[0].source.data",
        ),
        ({"model": "m", "max_tokens": 1, "messages": [], "tools": [{"name": "x"}]}, "tools[0].input_schema"),
        ({"model": "m", "max_tokens": 1, "messages": [], "tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"model": "m", "max_tokens": 1, "messages": [], "metadata": "me"}, "metadata"),
    ],
)
def test_a_field_that_is_wrong_is_named(body: dict[str, Any], field: str) -> None:
    error = refused(lambda: wire.parse_request(json.dumps(body).encode()))
    assert error.reason == "MALFORMED_REQUEST"
    assert error.field == field


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | anything.map(lambda value: orjson.dumps(value)) | requests.map(orjson.dumps), st.data())
def test_no_body_does_harm(body: bytes, draw: st.DataObject) -> None:
    if body and draw.draw(st.booleans()):
        at = draw.draw(st.integers(0, len(body) - 1))
        body = body[:at] + draw.draw(st.binary(max_size=3)) + body[at + 1 :]
    assert reason_of(lambda: wire.parse_request(body)) in (None, "MALFORMED_REQUEST")


# --- what a canonical chat becomes ---


def test_headers_carry_key_version_beta_and_attempt() -> None:
    chat = said(text("Hi"), provider_headers={"Anthropic-Beta": "files-api-2025-04-14", "x-api-key": "stolen"})
    request = ADAPTER.request(chat, deployment(), "sk-secret", stream=True, attempt_id="a1")
    assert request.url == "https://api.anthropic.com/v1/messages"
    assert request.headers == {
        "x-api-key": "sk-secret",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "files-api-2025-04-14",
        "content-type": "application/json",
        "x-client-request-id": "a1",
    }
    assert "sk-secret" not in repr(request)
    assert orjson.loads(request.body)["stream"] is True
    newer = said(text("Hi"), provider_headers={"anthropic-version": "2026-10-21"})
    assert (
        ADAPTER.request(newer, deployment(), "k", stream=False, attempt_id="").headers["anthropic-version"]
        == "2026-10-21"
    )


def test_results_of_parallel_calls_stand_first_in_one_turn() -> None:
    chat = ChatRequest()
    chat.messages.add(role=Role.ROLE_DEVELOPER, content=[text("You are terse.")])
    chat.messages.add(role=Role.ROLE_USER, content=[text("Weather?")])
    chat.messages.add(
        role=Role.ROLE_ASSISTANT,
        content=[Block(tool_use=ToolUse(id=f"t{n}", name="w", arguments_json='{"n": 1.0}')) for n in (1, 2)],
    )
    chat.messages.add(role=Role.ROLE_USER, content=[text("Hurry.")])
    for n in (1, 2):
        result = ToolResult(tool_use_id=f"t{n}", content=[text("12°")], is_error=n == 2)
        chat.messages.add(role=Role.ROLE_TOOL, content=[Block(tool_result=result)], name="w")
    body = sent(chat)
    assert body["system"] == [{"type": "text", "text": "You are terse."}]
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert [block["type"] for block in body["messages"][2]["content"]] == ["tool_result", "tool_result", "text"]
    assert [block.get("is_error") for block in body["messages"][2]["content"]] == [None, True, None]


def test_media_of_every_source() -> None:
    blocks = [
        Block(image=Image(media=Media(data=b"\x00", media_type="image/png"), detail="low")),
        Block(image=Image(media=Media(url="https://x/y.png"))),
        Block(document=Document(media=Media(data=b"%PDF", media_type="application/pdf"), title="T", citations=True)),
        Block(document=Document(media=Media(data="é".encode(), media_type="text/markdown"))),
        Block(document=Document(media=Media(file_id="file_1"), context="c")),
        Block(document=Document(content=[text("piece")])),
    ]
    sources = [block["source"] for block in sent(said(*blocks))["messages"][0]["content"]]
    assert sources == [
        {"type": "base64", "media_type": "image/png", "data": "AA=="},
        {"type": "url", "url": "https://x/y.png"},
        {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
        {"type": "text", "media_type": "text/plain", "data": "é"},
        {"type": "file", "file_id": "file_1"},
        {"type": "content", "content": [{"type": "text", "text": "piece"}]},
    ]


def test_what_another_provider_made_for_itself_is_left_out() -> None:
    chat = said(text("q"))
    chat.messages.add(
        role=Role.ROLE_ASSISTANT,
        content=[
            Block(reasoning=Reasoning(text="unsigned")),
            Block(reasoning=Reasoning(text="t", signature="s", format="gemini")),
            Block(reasoning=Reasoning(text="t", signature="s", format="anthropic")),
            Block(refusal=Refusal(text="No.")),
            text(""),
            Block(tool_use=ToolUse(id="1", name="f", signature=b"gemini's")),
        ],
    )
    chat.messages.add(role=Role.ROLE_ASSISTANT, content=[text("")])
    chat.messages.add(role=Role.ROLE_USER, content=[Block(tool_result=ToolResult(tool_use_id="1"))])
    assert sent(chat)["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"},
                {"type": "text", "text": "No."},
                {"type": "tool_use", "id": "1", "name": "f", "input": {}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1"}]},
    ]


@pytest.mark.parametrize(
    ("chat", "field"),
    [
        (said(text("q"), seed=0), "seed"),
        (said(text("q"), top_logprobs=2), "top_logprobs"),
        (said(text("q"), presence_penalty=0.5), "presence_penalty"),
        (said(text("q"), frequency_penalty=-1), "frequency_penalty"),
        (said(text("q"), temperature=1.5), "temperature"),
        (said(text("q"), response_format=ResponseFormat(json_object=JsonObject())), "response_format.json_object"),
        (said(text("q"), service_tier="flex"), "service_tier"),
        (said(Block(audio=Audio())), "messages[0].content[0]"),
        (said(Block(opaque=Opaque(format="openai", json=b"{}"))), "messages[0].content[0]"),
        (said(Block(document=Document(media=Media(data=b"x", media_type="application/zip")))), None),
        (said(text("q"), tools=[Tool(opaque=Opaque(format="gemini", json=b"{}"))]), "tools[0]"),
        (said(Block(image=Image(media=Media(url="u"))), role=Role.ROLE_SYSTEM), "messages[0].content[0]"),
        (said(text("q"), reasoning=ReasoningOptions(max_tokens=100)), "reasoning"),
    ],
)
def test_what_the_form_cannot_say_is_refused_by_name(chat: ChatRequest, field: str | None) -> None:
    error = refused(lambda: sent(chat))
    assert error.reason == "UNSUPPORTED_FEATURE"
    assert error.metadata["provider"] == "anthropic"
    assert field is None or error.field == field


@pytest.mark.parametrize("arguments", ["[1]", "{", "nonsense"])
def test_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    error = refused(lambda: sent(said(Block(tool_use=ToolUse(arguments_json=arguments)), role=Role.ROLE_ASSISTANT)))
    assert (error.reason, error.field) == ("MALFORMED_REQUEST", "messages[0].content[0].tool_use.arguments_json")


def test_system_messages_within_the_conversation_go_where_the_model_takes_them() -> None:
    chat = said(text("q"))
    chat.messages.add(role=Role.ROLE_SYSTEM, content=[text("Now in French.")])
    assert sent(chat, "claude-opus-4-8")["messages"][1]["role"] == "system"
    assert refused(lambda: sent(chat, "claude-sonnet-4-5-20250929")).field == "messages[1]"


@pytest.mark.parametrize(
    ("model", "options", "thinking", "effort"),
    [
        ("claude-sonnet-4-5", ReasoningOptions(effort="low"), {"type": "enabled", "budget_tokens": 2048}, None),
        ("claude-sonnet-4-5", ReasoningOptions(effort="high"), {"type": "enabled", "budget_tokens": 4500}, None),
        (
            "claude-3-7-sonnet-20250219",
            ReasoningOptions(max_tokens=20000),
            {"type": "enabled", "budget_tokens": 8999},
            None,
        ),
        ("claude-sonnet-4-5", ReasoningOptions(effort="none"), {"type": "disabled"}, None),
        ("claude-opus-4-6", ReasoningOptions(effort="xhigh"), {"type": "adaptive"}, "high"),
        ("claude-opus-4-6", ReasoningOptions(max_tokens=2000), {"type": "enabled", "budget_tokens": 2000}, None),
        ("claude-opus-4-7", ReasoningOptions(max_tokens=2000), {"type": "adaptive"}, "low"),
        ("claude-opus-5", ReasoningOptions(effort="xhigh"), {"type": "adaptive"}, "xhigh"),
        ("claude-opus-5", ReasoningOptions(max_tokens=0), {"type": "disabled"}, None),
        ("claude-sonnet-5-5", ReasoningOptions(effort="none"), {"type": "between_tools"}, None),
        ("claude-opus-5-5", ReasoningOptions(effort="minimal"), {"type": "adaptive"}, "low"),
        ("claude-opus-5-5", ReasoningOptions(include=True), {"type": "adaptive", "display": "summarized"}, None),
        (
            "claude-haiku-4-5-20251001",
            ReasoningOptions(mode="adaptive"),
            {"type": "enabled", "budget_tokens": 4500},
            None,
        ),
    ],
)
def test_reasoning_is_said_as_the_generation_takes_it(
    model: str, options: ReasoningOptions, thinking: dict[str, Any], effort: str | None
) -> None:
    body = sent(said(text("q"), reasoning=options, max_output_tokens=9000), model)
    assert body["thinking"] == thinking
    assert body.get("output_config", {}).get("effort") == effort


@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-fable-5", "claude-mythos-preview"])
def test_reasoning_that_cannot_be_switched_off_is_refused(model: str) -> None:
    assert refused(lambda: sent(said(text("q"), reasoning=ReasoningOptions(effort="none")), model)).field == "reasoning"


def test_a_schema_and_the_options_of_the_format_meet_in_output_config() -> None:
    chat = said(text("q"), service_tier="default", end_user="u1", tool_choice=ToolChoice(mode=ToolChoice.MODE_NONE))
    chat.response_format.json_schema.schema_json = '{"type": "object"}'
    chat.provider_options.update({"output_config": {"task_budget": {"total": 5}}, "speed": "fast", "max_tokens": 7})
    body = sent(chat)
    assert body["output_config"] == {
        "format": {"type": "json_schema", "schema": {"type": "object"}},
        "task_budget": {"total": 5},
    }
    assert (body["speed"], body["max_tokens"], body["service_tier"]) == ("fast", 7, "standard_only")
    assert body["metadata"] == {"user_id": "u1"}
    assert "tool_choice" not in body


def test_tokens_are_counted_for_the_prompt_alone() -> None:
    chat = said(text("q"), temperature=1, end_user="u", max_output_tokens=5, stop_sequences=["x"])
    request = ADAPTER.count_tokens_request(chat, deployment(), "k")
    assert request.url.endswith("/v1/messages/count_tokens")
    assert orjson.loads(request.body).keys() == {"model", "messages"}
    assert ADAPTER.counted(b'{"input_tokens": 12}') == 12
    assert refused(lambda: ADAPTER.counted(b"{}")).reason == "PROVIDER_MALFORMED_ANSWER"


# --- a stream ---

MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {
        "input_tokens": 10,
        "cache_creation_input_tokens": 300,
        "cache_read_input_tokens": 4000,
        "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
        "output_tokens": 1,
        "service_tier": "priority",
        "inference_geo": "us",
    },
}
DIRECT = {"type": "direct"}
CITATION = {
    "type": "web_search_result_location",
    "cited_text": "It rains.",
    "url": "https://x",
    "title": "X",
    "encrypted_index": "Ab==",
}
WHOLE: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "Let me see…", "signature": "EqQB+/="},
    {"type": "redacted_thinking", "data": "Red+/="},
    {
        "type": "server_tool_use",
        "id": "srv_1",
        "name": "web_search",
        "input": {"query": "rain"},
        "caller": {"type": "direct"},
    },
    {
        "type": "web_search_tool_result",
        "tool_use_id": "srv_1",
        "content": [{"type": "web_search_result", "url": "https://x", "title": "X", "encrypted_content": "E=="}],
    },
    {"type": "text", "text": "It \u2028rains.", "citations": [CITATION]},
    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}, "caller": DIRECT},
    {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
]
ENDED = {
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "container": {"id": "c1", "expires_at": "2026-01-01T00:00:00Z"},
}
TOTALS = {
    "input_tokens": 12,
    "cache_creation_input_tokens": 300,
    "cache_read_input_tokens": 4000,
    "output_tokens": 77,
    "output_tokens_details": {"thinking_tokens": 40},
    "server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 0},
}


def event(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> bytes:
    return b"".join(
        [
            event("content_block_start", index=index, content_block=start),
            *(event("content_block_delta", index=index, delta=delta) for delta in deltas),
            event("content_block_stop", index=index),
        ]
    )


def pieces(kind: str, member: str, *texts: str) -> list[dict[str, Any]]:
    return [{"type": kind, member: piece} for piece in texts]


BLOCKS = [
    block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        *pieces("thinking_delta", "thinking", "Let me ", "see…"),
        *pieces("signature_delta", "signature", "EqQB", "+/="),
    ),
    block(1, WHOLE[1]),
    block(2, WHOLE[2] | {"input": {}}, *pieces("input_json_delta", "partial_json", "", '{"query": ', '"rain"}')),
    block(3, WHOLE[3]),
    block(
        4,
        {"type": "text", "text": "", "citations": []},
        *pieces("text_delta", "text", "It ", "\u2028rains."),
        {"type": "citations_delta", "citation": CITATION},
    ),
    block(5, WHOLE[5] | {"input": {}}, *pieces("input_json_delta", "partial_json", '{"city":', ' "Oslo"}')),
    block(6, WHOLE[6], *pieces("input_json_delta", "partial_json", "")),
]
STREAM = b"".join(
    [
        event("message_start", message=MESSAGE),
        event("ping"),
        *BLOCKS[:3],
        event("event_of_tomorrow", value=1),
        b": a comment\n\n",
        *BLOCKS[3:],
        event("message_delta", delta=ENDED, usage=TOTALS),
        event("message_stop"),
    ]
)
ANSWER = {**MESSAGE, **ENDED, "content": WHOLE, "usage": {**MESSAGE["usage"], **TOTALS}}


def whole_answer() -> Any:
    return ADAPTER.response(200, {}, json.dumps(ANSWER).encode())


def test_a_stream_says_the_same_however_it_is_cut() -> None:
    events, error = cut_everywhere(lambda: ADAPTER.decoder(ChatRequest()), STREAM)
    assert error is None
    assert [found.WhichOneof("event") for found in events][:3] == ["started", "usage", "block_start"]
    assert events[1].usage.input_tokens == 4310
    assert not events[1].usage.HasField("output_tokens")  # a placeholder
    assert events[-1].HasField("completed")
    response = folded(events)
    whole = whole_answer()
    assert response.content[2].opaque.json != b""
    assert orjson.loads(response.content[2].opaque.json) == WHOLE[2]
    for got, expected in zip(response.content, whole.content, strict=True):
        if got.WhichOneof("kind") != "opaque":
            assert got == expected
    assert response.completed.usage == whole.completed.usage
    assert response.started.provider_model == "claude-sonnet-4-5-20250929"


@pytest.mark.parametrize("newline", ["\r\n", "\r"])
def test_line_ends_do_not_matter(newline: str) -> None:
    expected = decode(ADAPTER.decoder(ChatRequest()), [STREAM])
    body = STREAM.decode().replace("\n", newline).encode()
    assert decode(ADAPTER.decoder(ChatRequest()), [body]) == expected
    assert decode(ADAPTER.decoder(ChatRequest()), [body[i : i + 1] for i in range(len(body))]) == expected


def test_usage_is_normalised_and_complete() -> None:
    usage = whole_answer().completed.usage
    assert usage.source == UsageSource.USAGE_SOURCE_PROVIDER
    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens) == (4312, 77, 40)
    assert (usage.cached_input_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens) == (4000, 300, 200)
    assert dict(usage.server_tool_calls) == {"web_search": 1}
    assert (usage.service_tier, usage.region) == ("priority", "us")


def test_an_answer_sent_back_is_what_it_was() -> None:
    """Three ways: whole, folded from the stream, and replayed as events through the face to its caller."""
    for response in (whole_answer(), folded(decode(ADAPTER.decoder(ChatRequest()), [STREAM])[0])):
        chat = said(text("q"))
        chat.messages.add(role=Role.ROLE_ASSISTANT, content=response.content)
        assert sent(chat)["messages"][1]["content"] == WHOLE
        rendered = orjson.loads(orjson.dumps(wire.render_message(response, model="claude-x")))
        assert rendered["content"] == WHOLE
        assert rendered["usage"]["input_tokens"] == 12
        assert rendered["container"] == ENDED["container"]
        TypeAdapter(sdk.Message).validate_python(rendered)


def reread(frames: bytes) -> Any:
    events, error = decode(ADAPTER.decoder(ChatRequest()), [frames])
    assert error is None
    return folded(events)


@pytest.mark.parametrize("replayed", [False, True])
def test_a_stream_given_out_again_reads_the_same(replayed: bool) -> None:
    events = decode(ADAPTER.decoder(ChatRequest()), [STREAM])[0]
    expected = folded(events)
    if replayed:
        events = list(replay(expected))
    encoder = wire.MessageStream(model="claude-sonnet-4-5-20250929")
    frames = b"".join(encoder.encode(found) for found in events)
    again = reread(frames)
    assert again.content == expected.content
    assert again.completed == expected.completed
    for line in frames.splitlines():
        if line.startswith(b"data: "):
            TypeAdapter(sdk.RawMessageStreamEvent).validate_json(line[6:])


def test_foreign_blocks_are_passed_over_and_numbers_stay_without_gaps() -> None:
    encoder = wire.MessageStream(model="m")
    events = list(
        replay(
            folded(
                [
                    ChatEvent(block_start={"index": 0, "block": Block(opaque=Opaque(format="openai", json=b"{}"))}),
                    ChatEvent(block_stop={"index": 0}),
                    ChatEvent(block_start={"index": 1, "block": Block(reasoning=Reasoning(text="t", format="gemini"))}),
                    ChatEvent(delta={"index": 1, "signature": "gemini's"}),
                    ChatEvent(block_stop={"index": 1}),
                    ChatEvent(block_start={"index": 2, "block": Block(refusal=Refusal())}),
                    ChatEvent(delta={"index": 2, "refusal": "No."}),
                    ChatEvent(block_stop={"index": 2}),
                    ChatEvent(completed={"finish_reason": FinishReason.FINISH_REASON_CONTENT_FILTER}),
                ]
            )
        )
    )
    frames = b"".join(encoder.encode(found) for found in events)
    again = reread(frames)
    assert [found.WhichOneof("kind") for found in again.content] == ["reasoning", "text"]
    assert again.content[0].reasoning.signature == ""
    assert again.content[1].text.text == "No."
    assert again.completed.finish_reason == FinishReason.FINISH_REASON_REFUSAL


def test_a_call_signed_by_gemini_comes_back_signed() -> None:
    use = Block(tool_use=ToolUse(id="1", name="f", arguments_json="{}", signature=b"\x00sig"))
    response = folded([ChatEvent(block_start={"index": 0, "block": use}), ChatEvent(block_stop={"index": 0})])
    content = orjson.loads(orjson.dumps(wire.render_message(response, model="m")))["content"]
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "assistant", "content": content}]}
    assert wire.parse_request(json.dumps(body).encode()).chat.messages[0].content[0].tool_use.signature == b"\x00sig"
    assert b"AHNpZw" not in there_and_back(body | {"model": "claude-x", "max_tokens": 5000})


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", FinishReason.FINISH_REASON_STOP),
        ("max_tokens", FinishReason.FINISH_REASON_LENGTH),
        ("stop_sequence", FinishReason.FINISH_REASON_STOP_SEQUENCE),
        ("tool_use", FinishReason.FINISH_REASON_TOOL_USE),
        ("pause_turn", FinishReason.FINISH_REASON_PAUSE),
        ("refusal", FinishReason.FINISH_REASON_REFUSAL),
        ("model_context_window_exceeded", FinishReason.FINISH_REASON_CONTEXT_LENGTH),
        ("of_tomorrow", FinishReason.FINISH_REASON_UNSPECIFIED),
    ],
)
def test_stop_reasons(word: str, reason: FinishReason) -> None:
    response = ADAPTER.response(200, {}, json.dumps({**ANSWER, "stop_reason": word, "stop_sequence": "END"}).encode())
    assert response.completed.finish_reason == reason
    assert response.completed.provider_finish_reason == word
    assert response.completed.stop_sequence == "END"
    assert wire.render_message(response, model="m")["stop_reason"] == word


def test_a_cut_stream_is_no_answer_and_tells_no_output() -> None:
    end = STREAM.index(b"event: message_delta")
    decoder = ADAPTER.decoder(ChatRequest())
    events, error = decode(decoder, [STREAM[:end]])
    assert error == "PROVIDER_STREAM_CUT"
    assert not any(found.HasField("completed") for found in events)
    assert decoder.usage.input_tokens == 4310
    assert not decoder.usage.HasField("output_tokens")


def test_what_came_before_an_error_is_given_out_however_the_bytes_are_cut() -> None:
    body = event("message_start", message=MESSAGE) + BLOCKS[0] + event("error", error={"type": "overloaded_error"})
    events, error = cut_everywhere(lambda: ADAPTER.decoder(ChatRequest()), body)
    assert error == "PROVIDER_OVERLOADED"
    assert folded(events).content[0].reasoning.text == "Let me see…"


def test_no_part_of_a_stream_is_taken_for_the_whole() -> None:
    for at in range(len(STREAM) - 1):
        events, error = decode(ADAPTER.decoder(ChatRequest()), [STREAM[:at]])
        assert error == "PROVIDER_STREAM_CUT"
        assert not any(found.HasField("completed") for found in events)


@pytest.mark.parametrize(
    ("error", "reason", "retryable"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, "PROVIDER_OVERLOADED", True),
        ({"type": "api_error", "message": "x"}, "PROVIDER_ERROR", True),
        ({"type": "rate_limit_error"}, "PROVIDER_RATE_LIMITED", True),
        ({"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}, "CONTEXT_TOO_LONG", False),
        ({"type": 7}, "PROVIDER_ERROR", True),
    ],
)
def test_an_error_in_mid_stream(error: dict[str, Any], reason: str, retryable: bool) -> None:
    body = event("message_start", message=MESSAGE) + event("error", error=error)
    decoder = ADAPTER.decoder(ChatRequest())
    assert decoder.feed(body), "what came before the error is not lost"
    caught = refused(lambda: decoder.feed(b""))
    assert caught.reason == reason
    failure = caught.detail(AttemptFailure)
    assert failure is not None
    assert (failure.http_status, failure.retryable) == (200, retryable)


@pytest.mark.parametrize(
    "broken",
    [
        b"data: {\n\n",
        b"data: []\n\n",
        event("message_start", message=MESSAGE),
        event("content_block_start", index=0),
        event("content_block_start", index=-1, content_block={"type": "text", "text": ""}),
        event("content_block_delta", index=3, delta={"type": "text_delta", "text": "x"}),
        event("content_block_stop", index=0),
        event("message_stop"),
        block(0, {"type": "text", "text": ""}, {"type": "input_json_delta", "partial_json": "{"}),
        block(0, {"type": "text", "text": ""}) + event("message_stop"),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}) * 2,
        block(0, {"type": "text", "text": ""}) * 2,
    ],
)
def test_events_of_the_wrong_form_are_refused_without_quoting_them(broken: bytes) -> None:
    decoder = ADAPTER.decoder(ChatRequest())
    decoder.feed(event("message_start", message=MESSAGE))
    caught = refused(lambda: [decoder.feed(broken), decoder.feed(b"")])
    assert caught.reason == "PROVIDER_MALFORMED_ANSWER"


def test_a_stream_begins_with_its_message() -> None:
    decoder = ADAPTER.decoder(ChatRequest())
    assert refused(lambda: decoder.feed(BLOCKS[0])).reason == "PROVIDER_MALFORMED_ANSWER"


def test_a_huge_line_is_read() -> None:
    huge = "x" * 3_000_000
    body = STREAM.replace(b'"It "', json.dumps(huge).encode())
    events, error = decode(ADAPTER.decoder(ChatRequest()), [body[i : i + 65536] for i in range(0, len(body), 65536)])
    assert error is None
    assert folded(events).content[4].text.text.startswith(huge)


EVENTS = [piece + b"\n\n" for piece in STREAM.split(b"\n\n") if piece]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(EVENTS) | st.binary(max_size=30), max_size=12), st.data())
def test_no_bytes_do_harm(parts: list[bytes], draw: st.DataObject) -> None:
    body = b"".join(parts)
    if body and draw.draw(st.booleans()):
        at = draw.draw(st.integers(0, len(body) - 1))
        body = body[:at] + draw.draw(st.binary(max_size=4)) + body[at + 1 :]
    events, _ = decode(ADAPTER.decoder(ChatRequest()), [body])
    folded(events)  # what was let through makes sense
    assert reason_of(lambda: ADAPTER.response(200, {}, body)) in (None, "PROVIDER_MALFORMED_ANSWER")
    ADAPTER.error(500, {}, body)


@settings(max_examples=200, deadline=None)
@given(anything, st.sampled_from(["content", "usage", "stop_reason", "model", "type"]))
def test_no_answer_does_harm(value: Any, member: str) -> None:
    answer = copy.deepcopy(ANSWER) | {member: value}
    body = json.dumps(answer).encode()
    assert reason_of(lambda: ADAPTER.response(200, {}, body)) in (None, "PROVIDER_MALFORMED_ANSWER")


# --- errors ---


@pytest.mark.parametrize(
    ("status", "kind", "message", "reason", "retryable"),
    [
        (400, "invalid_request_error", "messages: bad", "PROVIDER_INVALID_REQUEST", False),
        (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum", "CONTEXT_TOO_LONG", False),
        (
            400,
            "invalid_request_error",
            "input length and `max_tokens` exceed context limit: 1 + 2 > 2",
            "CONTEXT_TOO_LONG",
            False,
        ),
        (
            400,
            "invalid_request_error",
            "You have reached your specified workspace API usage limits.",
            "PROVIDER_QUOTA_EXHAUSTED",
            False,
        ),
        (401, "authentication_error", "invalid x-api-key sk-12", "PROVIDER_AUTHENTICATION", False),
        (402, "billing_error", "x", "PROVIDER_QUOTA_EXHAUSTED", False),
        (403, "permission_error", "x", "PROVIDER_PERMISSION", False),
        (404, "not_found_error", "model: x", "PROVIDER_NOT_FOUND", False),
        (409, "conflict_error", "x", "PROVIDER_ERROR", True),
        (413, "request_too_large", "x", "REQUEST_TOO_LARGE", False),
        (429, "rate_limit_error", "x", "PROVIDER_RATE_LIMITED", True),
        (500, "api_error", "x", "PROVIDER_ERROR", True),
        (504, "timeout_error", "x", "PROVIDER_TIMEOUT", True),
        (529, "overloaded_error", "Overloaded", "PROVIDER_OVERLOADED", True),
        (418, "teapot_error", "x", "PROVIDER_INVALID_REQUEST", False),
        (503, "", "", "PROVIDER_OVERLOADED", True),
    ],
)
def test_documented_errors(status: int, kind: str, message: str, reason: str, retryable: bool) -> None:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}).encode()
    error = ADAPTER.error(status, {"Retry-After": "7", "request-id": "req_1"}, body)
    assert error.reason == reason
    assert error.retry_after_s == (7 if retryable else None)
    failure = error.detail(AttemptFailure)
    assert failure is not None
    assert (failure.http_status, failure.provider_request_id, failure.provider_code) == (status, "req_1", kind)
    assert failure.retryable is retryable
    assert "sk-12" not in error.message


def test_a_spend_limit_is_told_by_its_code() -> None:
    error = {"type": "rate_limit_error", "message": "x", "details": {"error_code": "enforced_spend_limit_reached"}}
    caught = ADAPTER.error(429, {}, json.dumps({"type": "error", "error": error}).encode())
    assert caught.reason == "PROVIDER_QUOTA_EXHAUSTED"


@pytest.mark.parametrize("body", [b"", b"<html>Bad</html>", b"[1]", b'{"error": "x"}', b'{"error": {"type": 5}}'])
def test_an_error_body_of_any_form_is_an_error(body: bytes) -> None:
    assert ADAPTER.error(502, {}, body).reason == "PROVIDER_ERROR"
