"""Anthropic's own package uses the simulated Anthropic over real HTTP."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest
from anthropic import Anthropic

WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather of a place",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CLOCK: Any = {"name": "get_time", "input_schema": {"type": "object", "properties": {"zone": {"type": "string"}}}}
MODEL = "claude-sonnet-5"
THINKING: Any = {"type": "enabled", "budget_tokens": 1024}


def say(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def client(simulator_url: str) -> Anthropic:
    return Anthropic(base_url=simulator_url, api_key="key", max_retries=0)


def test_a_message_is_answered_with_usage(client: Anthropic) -> None:
    message = client.messages.create(model=MODEL, max_tokens=100, messages=say("Hello"), system="Be brief.")
    assert message.content[0].type == "text"
    assert message.stop_reason == "end_turn"
    assert (
        message.usage.input_tokens
        == client.messages.count_tokens(model=MODEL, messages=say("Hello"), system="Be brief.").input_tokens
    )
    assert message._request_id is not None
    assert message._request_id.startswith("req_")


def test_a_stream_has_the_documented_order_and_says_the_same(client: Anthropic) -> None:
    whole = client.messages.create(model=MODEL, max_tokens=100, messages=say("Hello"))
    stream = client.messages.create(model=MODEL, max_tokens=100, messages=say("Hello"), stream=True)
    kinds = [event.type for event in stream]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    with client.messages.stream(model=MODEL, max_tokens=100, messages=say("Hello")) as events:
        final = events.get_final_message()
    assert [block.text for block in final.content if block.type == "text"] == [
        block.text for block in whole.content if block.type == "text"
    ]
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_parallel_tools_stream_their_input_and_their_results_are_answered(client: Anthropic) -> None:
    question = say("[[sim tool=get_weather,get_time]] Oslo?")
    with client.messages.stream(model=MODEL, max_tokens=500, messages=question, tools=[WEATHER, CLOCK]) as events:
        partial = [event for event in events if event.type == "input_json"]
        message = events.get_final_message()
    assert len(partial) > 2
    assert message.stop_reason == "tool_use"
    uses = [block for block in message.content if block.type == "tool_use"]
    assert [use.name for use in uses] == ["get_weather", "get_time"]
    assert "city" in uses[0].input
    results = [{"type": "tool_result", "tool_use_id": use.id, "content": "fine"} for use in uses]
    history = [*question, {"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
    answer = client.messages.create(model=MODEL, max_tokens=500, messages=history, tools=[WEATHER, CLOCK])
    assert answer.stop_reason == "end_turn"

    with pytest.raises(anthropic.BadRequestError, match="without `tool_result` blocks"):
        client.messages.create(model=MODEL, max_tokens=500, messages=[*history[:2], *say("?")], tools=[WEATHER, CLOCK])


def test_tool_choice_is_obeyed(client: Anthropic) -> None:
    ask: Any = {"model": MODEL, "max_tokens": 500, "messages": say("Oslo?"), "tools": [WEATHER, CLOCK]}
    assert client.messages.create(**ask).stop_reason == "end_turn"
    forced = client.messages.create(**ask, tool_choice={"type": "tool", "name": "get_time"})
    assert forced.content[-1].type == "tool_use"
    assert forced.content[-1].name == "get_time"
    assert client.messages.create(**ask, tool_choice={"type": "any"}).stop_reason == "tool_use"


def thinking_turn(client: Anthropic, orders: str = "") -> tuple[list[Any], list[dict[str, Any]]]:
    """A first turn with thinking and a tool call: the question, and the answer's blocks as they came."""
    question = say(f"[[sim tool=get_weather {orders}]] Oslo?")
    with client.messages.stream(
        model=MODEL, max_tokens=2000, messages=question, tools=[WEATHER], thinking=THINKING
    ) as events:
        message = events.get_final_message()
    return question, [block.model_dump(exclude_none=True) for block in message.content]


def second_turn(client: Anthropic, question: list[Any], blocks: list[dict[str, Any]]) -> anthropic.types.Message:
    result = {"type": "tool_result", "tool_use_id": blocks[-1]["id"], "content": "12 degrees"}
    history = [*question, {"role": "assistant", "content": blocks}, {"role": "user", "content": [result]}]
    return client.messages.create(model=MODEL, max_tokens=2000, messages=history, tools=[WEATHER], thinking=THINKING)


@pytest.mark.parametrize("orders", ["", "redacted"])
def test_thinking_survives_turns_byte_for_byte(client: Anthropic, orders: str) -> None:
    question, blocks = thinking_turn(client, orders)
    assert blocks[0]["type"] == ("redacted_thinking" if orders else "thinking")
    answer = second_turn(client, question, blocks)
    assert [block.type for block in answer.content] == ["thinking", "text"]


@pytest.mark.parametrize(("orders", "field"), [("", "thinking"), ("", "signature"), ("redacted", "data")])
def test_thinking_that_was_altered_is_refused(client: Anthropic, orders: str, field: str) -> None:
    question, blocks = thinking_turn(client, orders)
    blocks[0][field] = blocks[0][field][:-3] + "abc"
    with pytest.raises(anthropic.BadRequestError, match=r"Invalid `(signature|data)`"):
        second_turn(client, question, blocks)


def test_thinking_that_was_left_out_before_a_tool_use_is_refused(client: Anthropic) -> None:
    question, blocks = thinking_turn(client)
    with pytest.raises(anthropic.BadRequestError, match="must start with a thinking block"):
        second_turn(client, question, blocks[1:])


def test_thinking_that_is_not_shown_still_has_a_signature_that_is_accepted(client: Anthropic) -> None:
    ask: Any = {"model": MODEL, "max_tokens": 2000, "thinking": {"type": "adaptive", "display": "omitted"}}
    message = client.messages.create(**ask, messages=say("Hello"))
    thought = message.content[0]
    assert thought.type == "thinking"
    assert thought.thinking == ""
    assert thought.signature
    assert message.usage.output_tokens > 64
    history = [*say("Hello"), {"role": "assistant", "content": message.content}, *say("And?")]
    assert client.messages.create(**ask, messages=history).stop_reason == "end_turn"


def test_a_structured_output_fits_its_schema(client: Anthropic) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    config: Any = {"format": {"type": "json_schema", "schema": schema}}
    message = client.messages.create(model=MODEL, max_tokens=100, messages=say("Invent"), output_config=config)
    assert message.content[0].type == "text"
    assert message.content[0].text.startswith('{"age":')


def test_the_prompt_cache_is_written_once_and_read_afterwards(client: Anthropic) -> None:
    system: Any = [{"type": "text", "text": "Rules. " * 400, "cache_control": {"type": "ephemeral"}}]
    document: Any = {"type": "text", "text": "Data. " * 100, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    ask: Any = {"model": MODEL, "max_tokens": 100, "system": system}
    messages: list[Any] = [{"role": "user", "content": [document, {"type": "text", "text": "Test the cache"}]}]
    first = client.messages.create(**ask, messages=messages).usage
    assert first.cache_creation is not None
    assert first.cache_creation.ephemeral_5m_input_tokens == 700 + 3
    assert first.cache_creation.ephemeral_1h_input_tokens == 150 + 4
    assert first.cache_read_input_tokens == 0

    again = client.messages.create(**ask, messages=messages).usage
    assert (again.cache_read_input_tokens, again.cache_creation_input_tokens) == (857, 0)
    assert again.input_tokens == first.input_tokens

    # A later breakpoint reads the longest prefix that an earlier one wrote.
    document.pop("cache_control")
    messages[0]["content"][1]["cache_control"] = {"type": "ephemeral"}
    longer = client.messages.create(**ask, messages=messages).usage
    assert (longer.cache_read_input_tokens, longer.cache_creation_input_tokens) == (857, 4)


def test_stop_sequence_length_refusal_and_citations(client: Anthropic) -> None:
    ask: Any = {"model": MODEL, "max_tokens": 100}
    stopped = client.messages.create(**ask, messages=say('[[sim reply="one two"]]'), stop_sequences=[" two"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " two")
    short = client.messages.create(model=MODEL, max_tokens=2, messages=say("Hello"))
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 2)
    assert client.messages.create(**ask, messages=say("[[sim refusal]]")).stop_reason == "refusal"
    with client.messages.stream(**ask, messages=say("[[sim citations=2]]")) as events:
        text = events.get_final_message().content[0]
    assert text.type == "text"
    assert len(text.citations or []) == 2


def test_images_and_documents_are_taken(client: Anthropic) -> None:
    blocks: Any = [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Facts."}},
        {"type": "text", "text": "What is this?"},
    ]
    message = client.messages.create(model=MODEL, max_tokens=100, messages=[{"role": "user", "content": blocks}])
    assert message.usage.input_tokens > 256


def test_the_beta_header_is_echoed(client: Anthropic) -> None:
    raw = client.messages.with_raw_response.create(
        model=MODEL, max_tokens=9, messages=say("Hi"), extra_headers={"anthropic-beta": "context-1m-2025-08-07"}
    )
    assert raw.headers["anthropic-beta"] == "context-1m-2025-08-07"


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (413, anthropic.APIStatusError, "request_too_large"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (529, anthropic.InternalServerError, "overloaded_error"),
    ],
)
def test_ordered_statuses_become_the_sdks_errors(
    client: Anthropic, status: int, error: type[anthropic.APIStatusError], kind: str
) -> None:
    with pytest.raises(error) as caught:
        client.messages.create(model=MODEL, max_tokens=9, messages=say(f"[[sim status={status} retry_after=3]]"))
    assert caught.value.status_code == status
    assert caught.value.response.headers["retry-after"] == "3"
    body: Any = caught.value.body
    assert body["error"]["type"] == kind
    assert body["request_id"] == caught.value.request_id


def test_an_error_in_the_middle_of_a_stream_is_raised(client: Anthropic) -> None:
    stream = client.messages.create(model=MODEL, max_tokens=99, messages=say("[[sim error_at=5]]"), stream=True)
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        list(stream)


def test_wrong_requests_are_refused_as_anthropic_does(client: Anthropic, simulator_url: str) -> None:
    create: Any = client.messages.create
    cases: list[tuple[dict[str, Any], str]] = [
        ({"extra_body": {"max_tokens": "9"}}, "max_tokens: Input should be a valid integer"),
        ({"messages": []}, "at least one message"),
        ({"extra_body": {"seed": 1}}, "seed: Extra inputs are not permitted"),
        ({"messages": say("")}, "must be non-empty"),
        ({"thinking": {"type": "enabled", "budget_tokens": 10}}, "greater than or equal to 1024"),
        ({"tool_choice": {"type": "tool", "name": "none"}}, "not found"),
        ({"extra_body": {"temperature": 1.5}}, "temperature"),
    ]
    for wrong, message in cases:
        with pytest.raises(anthropic.BadRequestError, match=message):
            create(**{"model": MODEL, "max_tokens": 9, "messages": say("Hi"), **wrong})
    with pytest.raises(anthropic.NotFoundError):
        create(model="claude-none", max_tokens=9, messages=say("Hi"))
    with pytest.raises(anthropic.AuthenticationError):
        Anthropic(base_url=simulator_url, api_key="invalid", max_retries=0).messages.create(
            model=MODEL, max_tokens=9, messages=say("Hi")
        )
