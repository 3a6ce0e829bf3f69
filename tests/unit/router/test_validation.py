"""Bad input is refused, by the field that is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from modelmuxer.chat.v1.chat_pb2 import ChatRequest

from services.router.validation import validate
from shared.errors import MeshError, Reason

USER = {"role": "ROLE_USER", "content": [{"text": {"text": "Hi"}}]}
TOOL = {"name": "search", "parametersJson": '{"type": "object"}'}


def chat(**fields: Any) -> ChatRequest:
    return ParseDict({"messages": [USER], **fields}, ChatRequest())


def message(block: dict[str, Any], role: str = "ROLE_USER") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": [block]}]}


GOOD: list[dict[str, Any]] = [
    {},
    {"temperature": 0, "topP": 1, "topK": 1, "presencePenalty": -2, "maxOutputTokens": 1},
    {"tools": [TOOL], "toolChoice": {"mode": "MODE_TOOL", "name": "search"}},
    {"tools": [TOOL], "toolChoice": {"mode": "MODE_REQUIRED"}},
    {"responseFormat": {"jsonObject": {}}},
    {"responseFormat": {"jsonSchema": {"name": "a", "schemaJson": "{}"}}},
    {"reasoning": {"effort": "high"}},
    {"providerHeaders": {"anthropic-beta": "a,b"}},
    {"cache": {"maxAge": "60s", "onlyIfCached": True}},
    {"providerOptions": {"a": {"b": [1, None, "c", True]}}},
    {"tags": {"team": "search"}},
    message({"image": {"media": {"url": "https://example.com/a.png"}}}),
    message({"document": {"text": "plain"}}),
    message({"toolUse": {"id": "1", "name": "f", "argumentsJson": "not json: kept to the letter"}}, "ROLE_ASSISTANT"),
    message({"toolResult": {"toolUseId": "1", "content": [{"text": {"text": "42"}}]}}, "ROLE_TOOL"),
]

BAD: list[tuple[str, dict[str, Any]]] = [
    ("messages", {"messages": []}),
    ("messages[0].role", {"messages": [{"content": USER["content"]}]}),
    ("messages[0].role", {"messages": [{"role": 99, "content": USER["content"]}]}),
    ("messages[1].content", {"messages": [USER, {"role": "ROLE_ASSISTANT"}]}),
    ("messages[0].content[0]", message({})),
    ("messages[0].content[0].image.media", message({"image": {}})),
    ("messages[0].content[0].image.media.media_type", message({"image": {"media": {"data": "AAAA"}}})),
    ("messages[0].content[0].audio.media", message({"audio": {"media": {"mediaType": "audio/wav"}}})),
    ("messages[0].content[0].document", message({"document": {}})),
    ("messages[0].content[0].document", message({"document": {"text": "a", "media": {"url": "b"}}})),
    ("messages[0].content[0].tool_use", message({"toolUse": {"id": "1", "name": "f"}})),
    ("messages[0].content[0].tool_use.id", message({"toolUse": {"name": "f"}}, "ROLE_ASSISTANT")),
    ("messages[0].content[0].tool_result", message({"toolResult": {"toolUseId": "1"}}, "ROLE_SYSTEM")),
    ("messages[0].content[0].tool_result.tool_use_id", message({"toolResult": {}})),
    ("messages[0].content[0].opaque.json", message({"opaque": {"format": "openai", "json": "AAAA"}})),
    ("temperature", {"temperature": 2.1}),
    ("temperature", {"temperature": "NaN"}),
    ("temperature", {"temperature": -0.1}),
    ("top_p", {"topP": "Infinity"}),
    ("top_k", {"topK": 0}),
    ("max_output_tokens", {"maxOutputTokens": 0}),
    ("presence_penalty", {"presencePenalty": 3}),
    ("frequency_penalty", {"frequencyPenalty": -3}),
    ("top_logprobs", {"topLogprobs": 21}),
    ("stop_sequences[1]", {"stopSequences": ["a", ""]}),
    ("tools[0].name", {"tools": [{}]}),
    ("tools[1].name", {"tools": [TOOL, TOOL]}),
    ("tools[0].parameters_json", {"tools": [{"name": "f", "parametersJson": "{"}]}),
    ("tools[0].parameters_json", {"tools": [{"name": "f", "parametersJson": "[]"}]}),
    ("tool_choice.name", {"tools": [TOOL], "toolChoice": {"mode": "MODE_TOOL", "name": "serch"}}),
    ("tool_choice.name", {"tools": [TOOL], "toolChoice": {"mode": "MODE_AUTO", "name": "search"}}),
    ("tool_choice.mode", {"toolChoice": {"mode": "MODE_REQUIRED"}}),
    ("tool_choice.mode", {"toolChoice": {"mode": 9}}),
    ("response_format", {"responseFormat": {}}),
    ("response_format.json_schema.schema_json", {"responseFormat": {"jsonSchema": {"name": "a"}}}),
    ("reasoning.effort", {"reasoning": {"effort": "very"}}),
    ("reasoning.max_tokens", {"reasoning": {"maxTokens": -1}}),
    ('provider_headers["host"]', {"providerHeaders": {"host": "example.com"}}),
    ('provider_headers["authorization"]', {"providerHeaders": {"authorization": "Bearer x"}}),
    ('provider_headers["anthropic-beta"]', {"providerHeaders": {"anthropic-beta": "a\r\nx: y"}}),
    ('tags[""]', {"tags": {"": "a"}}),
    ("tags", {"tags": {str(number): "" for number in range(65)}}),
    ("cache.max_age", {"cache": {"maxAge": "-1s"}}),
    ("cache.only_if_cached", {"cache": {"onlyIfCached": True, "noStore": True}}),
]


@pytest.mark.parametrize("fields", GOOD)
def test_what_is_right_passes(fields: dict[str, Any]) -> None:
    validate(chat(**fields))


@pytest.mark.parametrize(("field", "fields"), BAD)
def test_what_is_wrong_is_named(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(MeshError) as caught:
        validate(chat(**fields))
    assert caught.value.reason == Reason.MALFORMED_REQUEST
    assert caught.value.field == field
    assert caught.value.message.startswith(field)
    assert len(caught.value.message) < 400


def test_deep_nesting_is_refused_rather_than_followed() -> None:
    block: dict[str, Any] = {"text": {"text": "deep"}}
    for _ in range(40):
        block = {"document": {"content": [block]}}
    with pytest.raises(MeshError, match="nested"):
        validate(chat(**message(block)))
