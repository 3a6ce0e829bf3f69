"""OpenAI's own package uses the simulated OpenAI over real HTTP."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a place",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["C", "F"]}},
            "required": ["city", "unit"],
        },
    },
}
CLOCK: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "get_time", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}},
}


def say(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def client(simulator_url: str) -> OpenAI:
    return OpenAI(base_url=f"{simulator_url}/v1", api_key="key", max_retries=0)


def test_a_chat_is_answered_with_usage(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=say("Hello"))
    answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 3 + 4 + 2  # the request, the message, five bytes
    assert answer.usage.completion_tokens == -(-len(answer.choices[0].message.content) // 4)
    assert raw.request_id is not None
    assert raw.request_id.startswith("req_")
    assert answer.system_fingerprint
    assert answer.service_tier == "default"


def test_a_stream_says_the_same_as_the_whole_answer(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="gpt-4o", messages=say("Hello"))
    stream = client.chat.completions.create(
        model="gpt-4o", messages=say("Hello"), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


def test_a_stream_without_include_usage_has_none(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="gpt-4o", messages=say("Hello"), stream=True))
    assert all(chunk.usage is None for chunk in chunks)


def test_parallel_tool_calls_stream_their_arguments(client: OpenAI) -> None:
    messages = say("[[sim tool=get_weather,get_time]] What is it like in Oslo?")
    with client.chat.completions.stream(model="gpt-4o", messages=messages, tools=[WEATHER, CLOCK]) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()
    assert [event.name for event in done] == ["get_weather", "get_time"]
    calls = final.choices[0].message.tool_calls
    assert calls is not None
    assert final.choices[0].finish_reason == "tool_calls"
    assert json.loads(calls[0].function.arguments)["unit"] in ("C", "F")
    assert calls[0].id != calls[1].id


def test_tools_are_called_when_the_choice_demands_it_and_the_result_is_answered_with_text(client: OpenAI) -> None:
    messages = say("Weather in Oslo?")
    plain = client.chat.completions.create(model="gpt-4o", messages=messages, tools=[WEATHER])
    assert plain.choices[0].message.tool_calls is None

    forced = client.chat.completions.create(
        model="gpt-4o",
        messages=messages,
        tools=[CLOCK, WEATHER],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
    )
    message = forced.choices[0].message
    assert message.tool_calls is not None
    call = message.tool_calls[0]
    assert call.type == "function"
    assert call.function.name == "get_weather"
    history: list[Any] = [*messages, message, {"role": "tool", "tool_call_id": call.id, "content": "12 degrees"}]
    answer = client.chat.completions.create(model="gpt-4o", messages=history, tools=[WEATHER])
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content


def test_a_tool_call_without_its_result_is_refused(client: OpenAI) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    history: list[Any] = [*say("Hi"), {"role": "assistant", "tool_calls": [call]}, *say("and?")]
    with pytest.raises(openai.BadRequestError, match="must be followed by tool messages"):
        client.chat.completions.create(model="gpt-4o", messages=history)


class Person(BaseModel):
    name: str
    age: int
    tags: list[str]


def test_a_json_schema_is_kept(client: OpenAI) -> None:
    answer = client.chat.completions.parse(model="gpt-4o", messages=say("Invent someone"), response_format=Person)
    person = answer.choices[0].message.parsed
    assert isinstance(person, Person)
    assert person.tags


def test_reasoning_effort_costs_reasoning_tokens(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="gpt-5", messages=say("Think"), reasoning_effort="high")
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 128
    assert answer.usage.completion_tokens > 128


def test_a_reasoner_shows_its_reasoning_in_a_field_of_its_own(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="deepseek-reasoner", messages=say("Think"))
    reasoning = whole.choices[0].message.model_extra or {}
    assert reasoning["reasoning_content"]
    stream = client.chat.completions.create(model="deepseek-reasoner", messages=say("Think"), stream=True)
    deltas = [chunk.choices[0].delta for chunk in stream if chunk.choices]
    assert (
        "".join((delta.model_extra or {}).get("reasoning_content", "") for delta in deltas)
        == reasoning["reasoning_content"]
    )
    assert "".join(delta.content or "" for delta in deltas) == whole.choices[0].message.content


def test_length_stop_and_logprobs(client: OpenAI) -> None:
    short = client.chat.completions.create(model="gpt-4o", messages=say("Hi"), max_completion_tokens=3)
    assert short.choices[0].finish_reason == "length"
    assert short.usage is not None
    assert short.usage.completion_tokens == 3

    stopped = client.chat.completions.create(
        model="gpt-4o", messages=say('[[sim reply="one two three"]]'), stop=[" three"], logprobs=True, top_logprobs=2
    )
    choice = stopped.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("one two", "stop")
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert "".join(token.token for token in choice.logprobs.content) == "one two"
    assert len(choice.logprobs.content[0].top_logprobs) == 2


def test_refusal_filter_and_citations_by_directive(client: OpenAI) -> None:
    refused = client.chat.completions.create(model="gpt-4o", messages=say("[[sim refusal]]")).choices[0].message
    assert refused.content is None
    assert refused.refusal
    filtered = client.chat.completions.create(model="gpt-4o", messages=say("[[sim filter]]")).choices[0]
    assert filtered.finish_reason == "content_filter"
    cited = client.chat.completions.create(model="gpt-4o", messages=say("[[sim citations=2]]")).choices[0].message
    assert cited.annotations is not None
    assert [note.url_citation.url for note in cited.annotations][1].endswith("/2")


def test_images_and_files_are_taken(client: OpenAI) -> None:
    parts: Any = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
    ]
    answer = client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": parts}])
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 256


def test_cached_tokens_and_service_tier_are_reported(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="gpt-5", messages=say("[[sim cached=7]] Hello there, once more"), service_tier="flex"
    )
    assert answer.service_tier == "flex"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 7

    long = say("word " * 2000)
    uses = [
        client.chat.completions.create(model="gpt-5", messages=long, prompt_cache_key="test-cached").usage
        for _ in range(2)
    ]
    assert [use.prompt_tokens_details.cached_tokens for use in uses if use and use.prompt_tokens_details] == [0, 2432]


def test_models_are_listed(client: OpenAI) -> None:
    names = {model.id: model.owned_by for model in client.models.list()}
    assert names["gpt-4o"] == "openai"
    assert names["openai/gpt-oss-120b"] == "groq"
    assert client.models.retrieve("gpt-4o").id == "gpt-4o"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-none")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
def test_ordered_statuses_become_the_sdks_errors(
    client: OpenAI, status: int, error: type[openai.APIStatusError]
) -> None:
    with pytest.raises(error) as caught:
        client.chat.completions.create(model="gpt-4o", messages=say(f"[[sim status={status} retry_after=2]]"))
    assert caught.value.status_code == status
    assert caught.value.response.headers["retry-after"] == "2"


def test_an_exhausted_quota_is_told_from_a_rate_limit(client: OpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=say("[[sim status=429 code=insufficient_quota]]"))
    assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")


def test_wrong_requests_are_refused_as_openai_does(client: OpenAI, simulator_url: str) -> None:
    create: Any = client.chat.completions.create
    with pytest.raises(openai.NotFoundError) as caught:
        create(model="gpt-none", messages=say("Hi"))
    assert caught.value.code == "model_not_found"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"messages": "Hi"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": say("Hi"), "temperature": 3}, "temperature"),
        ({"messages": say("Hi"), "extra_body": {"top_k": 3}}, "top_k"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": say("Hi"), "tool_choice": "required"}, "tool_choice"),
        ({"messages": say("Hi"), "response_format": {"type": "xml"}}, "response_format.type"),
    ]
    for wrong, param in cases:
        with pytest.raises(openai.BadRequestError) as refused:
            create(model="gpt-4o", **wrong)
        assert refused.value.param == param
    with pytest.raises(openai.BadRequestError, match="max_completion_tokens"):
        create(model="gpt-5", messages=say("Hi"), max_tokens=5)
    with pytest.raises(openai.AuthenticationError):
        OpenAI(base_url=f"{simulator_url}/v1", api_key="invalid", max_retries=0).models.list()


def test_an_error_in_the_middle_of_a_stream_is_raised(client: OpenAI) -> None:
    stream = client.chat.completions.create(model="gpt-4o", messages=say("[[sim tokens=9 error_at=4]]"), stream=True)
    seen = []
    with pytest.raises(openai.APIError, match="server had an error"):
        seen += list(stream)
    assert seen == []


def test_compatible_servers_keep_their_peculiarities(client: OpenAI, simulator_url: str) -> None:
    mistral = OpenAI(base_url=f"{simulator_url}/mistral/v1", api_key="key", max_retries=0)
    chunks = list(mistral.chat.completions.create(model="mistral-large-latest", messages=say("Hi"), stream=True))
    assert chunks[-1].usage is not None
    assert chunks[-1].choices[0].finish_reason == "stop"
    deepseek = client.chat.completions.create(model="deepseek-chat", messages=say("Hi [[sim cached=2]]"))
    assert deepseek.usage is not None
    assert (deepseek.usage.model_extra or {})["prompt_cache_hit_tokens"] == 2
