"""The official Anthropic package, with only base URL and key changed."""

from __future__ import annotations

import base64
from typing import Any

import anthropic
import pytest

from tests.mesh.mesh import Mesh
from tests.mesh.test_openai_sdk import PIXEL

WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
MODEL = "anthropic/sim-a"


@pytest.fixture(scope="module")
def client(mesh: Mesh) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=mesh.http, api_key=mesh.key, max_retries=0)


def say(text: str) -> Any:
    return {"role": "user", "content": text}


def test_a_chat_is_answered_whole(client: anthropic.Anthropic) -> None:
    message = client.messages.create(model=MODEL, max_tokens=100, messages=[say('[[sim reply="Hello you."]]')])
    assert [block.text for block in message.content if block.type == "text"] == ["Hello you."]
    assert message.stop_reason == "end_turn"
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens > 0


@pytest.mark.parametrize("model", [MODEL, "openai/gpt-4o-mini", "gemini/sim-g", "auto"])
def test_a_chat_is_streamed_whichever_format_the_provider_speaks(client: anthropic.Anthropic, model: str) -> None:
    with client.messages.stream(
        model=model, max_tokens=100, messages=[say(f'[[sim reply="One two three."]] {model}')], system="Be brief."
    ) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == "One two three."
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens > 0


def test_three_turns_with_thinking_and_tools_come_back_to_the_letter(client: anthropic.Anthropic) -> None:
    """The simulated provider refuses any thinking whose text or signature was altered, as Anthropic does."""
    system: Any = [
        {"type": "text", "text": "[[sim tool=get_weather reasoning=30]]", "cache_control": {"type": "ephemeral"}}
    ]
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    messages: list[Any] = [say("Weather in Oslo?")]
    kinds: list[set[str]] = []
    for turn in range(3):
        with client.messages.stream(
            model=MODEL, max_tokens=4000, system=system, thinking=thinking, tools=[WEATHER], messages=messages
        ) as stream:
            answer = stream.get_final_message()
        kinds.append({block.type for block in answer.content})
        messages.append({"role": "assistant", "content": [block.to_dict() for block in answer.content]})
        calls = [block for block in answer.content if block.type == "tool_use"]
        if calls:
            results = [{"type": "tool_result", "tool_use_id": call.id, "content": "Rain, 4 °C"} for call in calls]
            messages.append({"role": "user", "content": results})
        else:
            messages.append(say(f"And in Bergen? ({turn})"))
    assert "thinking" in kinds[0]
    assert any("tool_use" in kind for kind in kinds)


def test_altered_thinking_is_refused_by_the_provider(client: anthropic.Anthropic) -> None:
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    tools: Any = [WEATHER]
    opening = say("[[sim tool=get_weather reasoning=30]] Weather?")
    answer = client.messages.create(model=MODEL, max_tokens=4000, thinking=thinking, tools=tools, messages=[opening])
    blocks: list[Any] = [block.to_dict() for block in answer.content]
    thought = next(block for block in blocks if block["type"] == "thinking")
    thought["thinking"] += "!"
    call = next(block for block in blocks if block["type"] == "tool_use")
    results = [{"type": "tool_result", "tool_use_id": call["id"], "content": "Rain"}]
    turn: Any = [opening, {"role": "assistant", "content": blocks}, {"role": "user", "content": results}]
    with pytest.raises(anthropic.BadRequestError, match="signature"):
        client.messages.create(model=MODEL, max_tokens=4000, thinking=thinking, tools=tools, messages=turn)


def test_redacted_thinking_comes_back_as_it_came(client: anthropic.Anthropic) -> None:
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    opening = say("[[sim reasoning=30 redacted]] Think.")
    answer = client.messages.create(model=MODEL, max_tokens=4000, thinking=thinking, messages=[opening])
    blocks: Any = [block.to_dict() for block in answer.content]
    assert blocks[0]["type"] == "redacted_thinking"
    turn: Any = [opening, {"role": "assistant", "content": blocks}, say("Go on.")]
    assert client.messages.create(model=MODEL, max_tokens=4000, thinking=thinking, messages=turn).content


def test_images_and_documents_reach_the_provider(client: anthropic.Anthropic) -> None:
    content: Any = [
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PIXEL).decode()},
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Tides turn."}},
        {"type": "text", "text": "What is it?"},
    ]
    message = client.messages.create(model=MODEL, max_tokens=100, messages=[{"role": "user", "content": content}])
    assert message.usage.input_tokens >= 256


def test_beta_headers_pass_through(client: anthropic.Anthropic, mesh: Mesh) -> None:
    raw = client.messages.with_raw_response.create(
        model=MODEL,
        max_tokens=50,
        messages=[say("Beta?")],
        extra_headers={"anthropic-beta": "interleaved-thinking-2025-05-14"},
    )
    attempt = raw.headers["x-modelmuxer-attempts"]
    bill = mesh.bill()["calls"][-1]
    assert attempt
    received = mesh.received(bill["client_id"])
    assert received["headers"]["anthropic-beta"] == "interleaved-thinking-2025-05-14"


def test_prompt_caches_are_written_and_read(client: anthropic.Anthropic) -> None:
    system: Any = [{"type": "text", "text": "A long rule. " * 400, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    first = client.messages.create(model=MODEL, max_tokens=50, system=system, messages=[say("One")])
    second = client.messages.create(model=MODEL, max_tokens=50, system=system, messages=[say("Two")])
    assert first.usage.cache_creation_input_tokens
    assert second.usage.cache_read_input_tokens == first.usage.cache_creation_input_tokens


def test_tokens_are_counted_by_the_provider(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model=MODEL, messages=[say("How many?")], tools=[WEATHER])
    assert counted.input_tokens > 10


def test_the_models_are_listed_and_found(client: anthropic.Anthropic) -> None:
    listed = [model.id for model in client.models.list(limit=1000)]
    assert {"auto", "anthropic/claude-haiku-4-5"} & set(listed)
    assert client.models.retrieve(listed[0]).type == "model"


@pytest.mark.parametrize(
    ("status", "expected"),
    [(429, anthropic.RateLimitError), (529, anthropic.InternalServerError), (500, anthropic.InternalServerError)],
)
def test_a_providers_failure_is_the_sdks_own_error(
    client: anthropic.Anthropic, status: int, expected: type[anthropic.APIStatusError]
) -> None:
    with pytest.raises(expected) as failed:
        client.messages.create(model=f"anthropic/sim-status{status}-retry_after30", max_tokens=9, messages=[say("Hi")])
    assert failed.value.response.headers["x-request-id"]


def test_a_failure_in_mid_stream_is_an_error_and_not_an_end(client: anthropic.Anthropic) -> None:
    with (
        pytest.raises(anthropic.APIError),
        client.messages.stream(model=MODEL, max_tokens=200, messages=[say("[[sim tokens=50 error_at=10]]")]) as stream,
    ):
        stream.get_final_message()


def test_what_is_wrong_is_told_by_name(client: anthropic.Anthropic, mesh: Mesh) -> None:
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="claude-17", max_tokens=9, messages=[say("Hi")])
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        client.messages.create(model=MODEL, max_tokens=9, messages=[])
    stranger = anthropic.Anthropic(base_url=mesh.http, api_key="mm-wrong", max_retries=0)
    with pytest.raises(anthropic.AuthenticationError):
        stranger.messages.create(model=MODEL, max_tokens=9, messages=[say("Hi")])
