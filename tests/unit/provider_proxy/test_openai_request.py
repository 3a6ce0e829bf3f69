"""What a chat becomes on OpenAI's wire, in each server's dialect; and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from modelmuxer.chat.v1.chat_pb2 import (
    Audio,
    Block,
    CacheBreakpoint,
    ChatRequest,
    Document,
    Image,
    JsonObject,
    JsonSchema,
    Media,
    Message,
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
)

from shared.catalogue import Dialect
from shared.errors import MeshError, Reason
from tests.unit.provider_proxy import examples
from tests.unit.provider_proxy.examples import DEEPSEEK, MISTRAL, OPENAI, OPENROUTER, PLAIN, chat, user

PDF = Media(data=b"%PDF-1", media_type="application/pdf")


def sent(request: ChatRequest, dialect: Dialect = OPENAI, *, stream: bool = False) -> Any:
    upstream = examples.adapter(dialect).request(
        request, examples.deployment(), "sk-secret", stream=stream, attempt_id="att_1"
    )
    return json.loads(upstream.body)


def refusal(request: ChatRequest, dialect: Dialect = OPENAI) -> MeshError:
    with pytest.raises(MeshError) as refused:
        sent(request, dialect)
    return refused.value


def options(**members: Any) -> Struct:
    struct = Struct()
    struct.update(members)
    return struct


def called(*blocks: Block, **members: Any) -> list[Message]:
    """A turn that called a tool, and its result."""
    call = Block(tool_use=ToolUse(id="call_1", name="weather", arguments_json='{"city": "Oslo"}'))
    result = ToolResult(tool_use_id="call_1", content=[Block(text=Text(text="4 °C"))], **members)
    return [
        user("Weather?"),
        user(*blocks, call, role=Role.ROLE_ASSISTANT),
        user(Block(tool_result=result), role=Role.ROLE_TOOL),
    ]


def test_the_request_is_one_post_with_our_key_and_the_attempts_id() -> None:
    upstream = examples.adapter().request(
        chat(provider_headers={"OpenAI-Beta": "x", "authorization": "Bearer theirs"}),
        examples.deployment(),
        "sk-secret",
        stream=False,
        attempt_id="att_1",
    )
    assert (upstream.method, upstream.url) == ("POST", "https://api.example/v1/chat/completions")
    assert upstream.headers == {
        "authorization": "Bearer sk-secret",
        "content-type": "application/json",
        "openai-beta": "x",
        "x-client-request-id": "att_1",
    }
    assert "sk-secret" not in repr(upstream)


def test_the_least_request() -> None:
    assert sent(chat()) == {"model": "gpt", "messages": [{"role": "user", "content": "Hi"}]}


def test_streams_ask_for_usage_and_no_padding() -> None:
    assert sent(chat(), stream=True)["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert sent(chat(), PLAIN, stream=True)["stream_options"] == {"include_usage": True}
    mistral = sent(chat(), MISTRAL, stream=True)
    assert mistral["stream"] is True
    assert "stream_options" not in mistral


def test_sampling_options() -> None:
    body = sent(
        chat(
            max_output_tokens=50,
            temperature=0.0,
            top_p=0.5,
            presence_penalty=0.1,
            frequency_penalty=-0.1,
            stop_sequences=["END"],
            seed=7,
            top_logprobs=0,
            service_tier="flex",
            end_user="user-1",
        )
    )
    del body["messages"], body["model"]
    assert body == {
        "max_completion_tokens": 50,
        "temperature": 0.0,
        "top_p": 0.5,
        "presence_penalty": 0.1,
        "frequency_penalty": -0.1,
        "stop": ["END"],
        "seed": 7,
        "logprobs": True,
        "top_logprobs": 0,
        "service_tier": "flex",
        "safety_identifier": "user-1",
    }


def test_a_dialect_has_its_own_names() -> None:
    body = sent(chat(max_output_tokens=50, seed=7, end_user="user-1"), MISTRAL)
    assert (body["max_tokens"], body["random_seed"], body["user"]) == (50, 7, "user-1")
    required = chat(tools=[Tool(name="f")], tool_choice=ToolChoice(mode=ToolChoice.MODE_REQUIRED))
    assert sent(required, MISTRAL)["tool_choice"] == "any"
    assert sent(chat(user("Be brief.", role=Role.ROLE_DEVELOPER)), PLAIN)["messages"][0]["role"] == "system"
    assert sent(chat(user("Be brief.", role=Role.ROLE_DEVELOPER)))["messages"][0]["role"] == "developer"


@pytest.mark.parametrize(
    ("request_", "dialect", "feature"),
    [
        (chat(top_k=4), OPENAI, "top_k"),
        (chat(seed=1), Dialect(seed_field=""), "a seed"),
        (chat(top_logprobs=1), MISTRAL, "logprobs"),
        (chat(presence_penalty=1), Dialect(penalties=False), "presence_penalty"),
        (chat(service_tier="flex"), PLAIN, 'the service tier "flex"'),
        (chat(reasoning=ReasoningOptions(effort="low")), Dialect(reasoning="none"), "a reasoning effort"),
        (
            chat(response_format=ResponseFormat(json_schema=JsonSchema(schema_json="{}"))),
            DEEPSEEK,
            "response_format.json_schema",
        ),
        (
            chat(tools=[Tool(name="f")], tool_choice=ToolChoice(parallel=False)),
            Dialect(parallel_tool_calls=False),
            "tool_choice.parallel",
        ),
        (
            chat(tools=[Tool(opaque=Opaque(format="anthropic", json=b'{"type":"bash_20250124"}'))]),
            OPENAI,
            'blocks of the wire format "anthropic"',
        ),
        (chat(user(Block(document=Document(media=PDF)))), PLAIN, "documents"),
        (chat(user(Block(document=Document(media=Media(url="https://x/a.pdf"))))), OPENAI, "documents by url"),
        (chat(user(Block(document=Document(media=PDF, citations=True)))), OPENAI, "citations of documents"),
        (chat(user(Block(image=Image(media=Media(file_id="f"))))), OPENAI, "images by file id"),
        (chat(user(Block(audio=Audio(media=Media(data=b"x", media_type="audio/wav"))))), PLAIN, "audio"),
        (
            chat(user(Block(audio=Audio(media=Media(data=b"x", media_type="audio/ogg"))))),
            OPENAI,
            'audio of type "audio/ogg" (only WAV and MP3)',
        ),
        (
            chat(user(Block(tool_result=ToolResult(tool_use_id="c", content=[Block(image=Image(media=PDF))])))),
            OPENAI,
            "anything but text in a tool result",
        ),
        (chat(provider_options=options(n=2)), OPENAI, "n other than 1"),
        (chat(provider_options=options(modalities=["text", "audio"])), OPENAI, "output other than text"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(request_: ChatRequest, dialect: Dialect, feature: str) -> None:
    error = refusal(request_, dialect)
    assert error.reason == Reason.UNSUPPORTED_FEATURE
    assert error.metadata["feature"] == feature
    assert feature in error.message


def test_hints_that_cannot_change_the_answer_are_left_out() -> None:
    marked = Block(text=Text(text="Hi", signature=b"s"), cache_breakpoint=CacheBreakpoint(ttl="1h"))
    request = chat(user(marked), end_user="u", service_tier="auto")
    assert sent(request, Dialect(end_user_field="")) == sent(chat())


def test_user_content() -> None:
    content = sent(
        chat(
            user(
                "Look:",
                Block(image=Image(media=Media(url="https://x/a.png"), detail="low")),
                Block(image=Image(media=Media(data=b"png", media_type="image/png"))),
                Block(document=Document(media=PDF, title="a.pdf")),
                Block(document=Document(media=Media(file_id="file-1"))),
                Block(document=Document(text="Body.", title="Title")),
                Block(audio=Audio(media=Media(data=b"wav", media_type="audio/mpeg"))),
            )
        )
    )["messages"][0]["content"]
    assert content == [
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "image_url": {"url": "https://x/a.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,cG5n"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0x"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "text", "text": "Title\n\nBody."},
        {"type": "input_audio", "input_audio": {"data": "d2F2", "format": "mp3"}},
    ]
    by_url = chat(user(Block(document=Document(media=Media(url="https://x/a.pdf"), title="a"))))
    assert sent(by_url, MISTRAL)["messages"][0]["content"] == [
        {"type": "document_url", "document_url": "https://x/a.pdf", "document_name": "a"}
    ]


def test_a_tools_turn_comes_back_to_the_letter() -> None:
    assert sent(chat(*called(Block(text=Text(text="Let me see.")))))["messages"][1:] == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "4 °C"},
    ]


def test_results_follow_their_calls_before_anything_else_is_said() -> None:
    results = [
        Block(tool_result=ToolResult(tool_use_id=f"call_{number}", content=[Block(text=Text(text="ok"))]))
        for number in (1, 2)
    ]
    messages = sent(chat(user("And now?", *results)))["messages"]
    assert [(m["role"], m.get("tool_call_id")) for m in messages] == [
        ("tool", "call_1"),
        ("tool", "call_2"),
        ("user", None),
    ]


def test_a_failed_tool_says_so() -> None:
    assert sent(chat(*called(is_error=True)))["messages"][-1]["content"] == "Error: 4 °C"


def test_a_refusal_comes_back_as_one() -> None:
    turn = user(Block(refusal=Refusal(text="No.")), role=Role.ROLE_ASSISTANT)
    assert sent(chat(user("Do it"), turn))["messages"][1] == {"role": "assistant", "content": None, "refusal": "No."}


def test_a_turn_of_nothing_but_anothers_thoughts_is_empty() -> None:
    turn = user(Block(reasoning=Reasoning(text="Hm.", format="anthropic")), role=Role.ROLE_ASSISTANT)
    assert sent(chat(user("Hi"), turn))["messages"][1] == {"role": "assistant", "content": ""}


def test_tools_keep_their_schemas_to_the_letter() -> None:
    schema = '{"type":"object","properties":{"n":{"const":12345678901234567890}}}'
    tool = Tool(name="f", description="d", parameters_json=schema, strict=True)
    upstream = examples.adapter().request(
        chat(tools=[tool], tool_choice=ToolChoice(mode=ToolChoice.MODE_TOOL, name="f", parallel=False)),
        examples.deployment(),
        "k",
        stream=False,
        attempt_id="",
    )
    assert schema.encode() in upstream.body
    body = json.loads(upstream.body)
    assert body["tools"][0]["function"]["strict"] is True
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert body["parallel_tool_calls"] is False


def test_a_broken_schema_names_its_field() -> None:
    error = refusal(chat(tools=[Tool(name="f", parameters_json="{")]))
    assert (error.reason, error.field) == (Reason.MALFORMED_REQUEST, "tools[0].parameters_json")


def test_answer_forms() -> None:
    assert sent(chat(response_format=ResponseFormat(json_object=JsonObject())))["response_format"] == {
        "type": "json_object"
    }
    schema = JsonSchema(name="answer", schema_json='{"type":"object"}', strict=True)
    assert sent(chat(response_format=ResponseFormat(json_schema=schema)))["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
    }


@pytest.mark.parametrize(
    ("asked", "dialect", "expected"),
    [
        (ReasoningOptions(effort="high"), OPENAI, {"reasoning_effort": "high"}),
        (ReasoningOptions(max_tokens=0), OPENAI, {"reasoning_effort": "none"}),
        (ReasoningOptions(max_tokens=4000), OPENAI, {"reasoning_effort": "medium"}),
        (ReasoningOptions(include=True), OPENAI, {}),
        (ReasoningOptions(effort="none"), DEEPSEEK, {"thinking": {"type": "disabled"}}),
        (ReasoningOptions(effort="low"), DEEPSEEK, {"thinking": {"type": "enabled"}}),
        (ReasoningOptions(effort="low"), OPENROUTER, {"reasoning": {"effort": "low"}}),
        (
            ReasoningOptions(max_tokens=900, include=False),
            OPENROUTER,
            {"reasoning": {"max_tokens": 900, "exclude": True}},
        ),
    ],
)
def test_reasoning_in_the_servers_own_terms(
    asked: ReasoningOptions, dialect: Dialect, expected: dict[str, Any]
) -> None:
    body = sent(chat(reasoning=asked), dialect)
    assert {name: body[name] for name in ("reasoning_effort", "reasoning", "thinking") if name in body} == expected


def test_thoughts_go_back_only_where_they_are_taken() -> None:
    thought = Block(reasoning=Reasoning(text="Hm.", format="openai"))
    turn = called(thought)
    assert "reasoning_content" not in sent(chat(*turn))["messages"][1]
    assert sent(chat(*turn), DEEPSEEK)["messages"][1]["reasoning_content"] == "Hm."
    said = [user("Hi"), user(thought, "Hello", role=Role.ROLE_ASSISTANT)]
    assert "reasoning_content" not in sent(chat(*said), DEEPSEEK)["messages"][1]
    assert sent(chat(*said), MISTRAL)["messages"][1]["content"][0]["type"] == "thinking"
    foreign = Block(reasoning=Reasoning(text="Hm.", signature="s", format="anthropic"))
    assert "reasoning_details" not in sent(chat(*called(foreign)), OPENROUTER)["messages"][1]


def test_signed_thoughts_go_back_to_openrouter_with_all_their_members() -> None:
    extra = Opaque(format="openai", json=b'{"type":"reasoning.text","format":"anthropic-claude-v1","index":0}')
    thought = Block(reasoning=Reasoning(text="Hm.", signature="c2ln", format="openai"), extra=extra)
    sealed = Block(reasoning=Reasoning(encrypted="ZW5j", format="openai"))
    assert sent(chat(*called(thought, sealed)), OPENROUTER)["messages"][1]["reasoning_details"] == [
        {
            "type": "reasoning.text",
            "format": "anthropic-claude-v1",
            "index": 0,
            "text": "Hm.",
            "signature": "c2ln",
        },
        {"type": "reasoning.encrypted", "data": "ZW5j"},
    ]


def test_provider_options_are_merged_as_they_are() -> None:
    body = sent(chat(provider_options=options(prompt_cache_key="k", logit_bias={"50256": -100}, verbosity="low")))
    assert (body["prompt_cache_key"], body["logit_bias"], body["verbosity"]) == ("k", {"50256": -100}, "low")


@pytest.mark.parametrize("name", ["model", "messages", "stream", "max_tokens", "max_completion_tokens"])
def test_provider_options_cannot_take_the_place_of_what_is_routed_and_priced(name: str) -> None:
    error = refusal(chat(provider_options=options(**{name: 1})))
    assert (error.reason, error.field) == (Reason.MALFORMED_REQUEST, f"provider_options.{name}")


def test_usage_is_asked_for_whatever_the_options_say() -> None:
    request = chat(provider_options=options(stream_options={"include_usage": False}))
    assert sent(request, stream=True)["stream_options"]["include_usage"] is True


def test_opaque_blocks_of_the_own_format_go_out_as_they_came() -> None:
    block = Block(opaque=Opaque(format="openai", json=b'{"type":"video_url","video_url":{"url":"https://x/v.mp4"}}'))
    assert sent(chat(user(block)))["messages"][0]["content"] == [
        {"type": "video_url", "video_url": {"url": "https://x/v.mp4"}}
    ]
    error = refusal(chat(user(Block(opaque=Opaque(format="openai", json=b"{")))))
    assert error.reason == Reason.MALFORMED_REQUEST
