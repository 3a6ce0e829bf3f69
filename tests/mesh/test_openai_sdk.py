"""The official OpenAI package, with only base URL and key changed."""

from __future__ import annotations

import base64
import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.mesh.mesh import Mesh

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class Verdict(BaseModel):
    """What a structured answer is parsed into."""

    sound: bool
    reason: str


@pytest.fixture(scope="module")
def client(mesh: Mesh) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{mesh.http}/v1", api_key=mesh.key, max_retries=0)


def say(text: str) -> Any:
    return [{"role": "user", "content": text}]


def test_a_chat_is_answered_whole(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="openai/gpt-4o-mini", messages=say('[[sim reply="Hello you."]]'))
    assert answer.choices[0].message.content == "Hello you."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "openai/gpt-4o-mini"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "anthropic/sim-a", "gemini/sim-g", "auto", "fast"])
def test_a_chat_is_streamed_whichever_format_the_provider_speaks(client: openai.OpenAI, model: str) -> None:
    stream = client.chat.completions.create(
        model=model,
        messages=say('[[sim reply="One two three."]] ' + model),
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "One two three."
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_without_being_asked_a_stream_says_no_usage(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="openai/gpt-4o-mini", messages=say("Hi"), stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "anthropic/sim-a", "gemini/sim-g"])
def test_tools_are_called_in_parallel_and_their_results_answered(client: openai.OpenAI, model: str) -> None:
    messages = say('[[sim tool=get_weather,get_weather tool_args="{\\"city\\":\\"Oslo\\"}"]] Weather?')
    first = client.chat.completions.create(model=model, messages=messages, tools=[WEATHER]).choices[0]
    assert first.finish_reason == "tool_calls"
    calls = first.message.tool_calls
    assert calls is not None
    assert [json.loads(call.function.arguments) for call in calls if call.type == "function"] == [{"city": "Oslo"}] * 2
    assert len({call.id for call in calls}) == 2
    results = [{"role": "tool", "tool_call_id": call.id, "content": "Rain"} for call in calls]
    turn = [*messages, first.message.to_dict(), *results]
    second = client.chat.completions.create(model=model, messages=turn, tools=[WEATHER]).choices[0]
    assert second.finish_reason == "stop"
    assert second.message.content


def test_tool_arguments_are_streamed_in_pieces(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="openai/gpt-4o-mini",
        messages=say('[[sim tool=get_weather tool_args="{\\"city\\": \\"Oslo and Bergen\\"}"]]'),
        tools=[WEATHER],
    ) as stream:
        pieces = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
        message = stream.get_final_completion().choices[0].message
    assert len(pieces) > 1
    assert message.tool_calls is not None
    assert json.loads(message.tool_calls[0].function.arguments) == {"city": "Oslo and Bergen"}


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "anthropic/sim-a", "gemini/sim-g"])
def test_images_reach_the_provider(client: openai.OpenAI, mesh: Mesh, model: str) -> None:
    url = "data:image/png;base64," + base64.b64encode(PIXEL).decode()
    answer = client.chat.completions.create(
        model=model,
        messages=[
            {
                "role": "user",
                "content": [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}],
            }
        ],
    )
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.prompt_tokens >= 256


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "anthropic/sim-a", "gemini/sim-g"])
def test_an_answer_fits_the_schema(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.parse(model=model, messages=say("Is it sound?"), response_format=Verdict)
    assert isinstance(answer.choices[0].message.parsed, Verdict)


@pytest.mark.parametrize("model", ["openai/gpt-5-mini", "gemini/sim-g"])
def test_reasoning_is_asked_for_and_counted(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=say("[[sim reasoning=40]] Think."), reasoning_effort="low", max_completion_tokens=4000
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 40


def test_reasoning_is_shown_where_the_provider_shows_it(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(
        model="deepseek/deepseek-reasoner", messages=say("[[sim reasoning=40]] Think."), stream=True
    )
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    thoughts = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert thoughts
    assert "".join(delta.content or "" for delta in deltas)


def test_a_refusal_is_parsed_as_one(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="openai/gpt-4o-mini", messages=say("[[sim refusal]]"), response_format=Verdict
    )
    assert answer.choices[0].message.refusal
    assert (answer.choices[0].message.parsed, answer.choices[0].finish_reason) == (None, "stop")


def test_log_probabilities_come_with_the_tokens(client: openai.OpenAI) -> None:
    choice = client.chat.completions.create(
        model="openai/gpt-4o-mini", messages=say("Hi"), logprobs=True, top_logprobs=2
    ).choices[0]
    assert choice.logprobs is not None
    assert choice.logprobs.content
    assert "".join(token.token for token in choice.logprobs.content) == choice.message.content
    assert len(choice.logprobs.content[0].top_logprobs) == 2


def test_options_of_the_provider_reach_it_as_they_are(client: openai.OpenAI, mesh: Mesh) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="openai/gpt-4o-mini",
        messages=say("Bias"),
        logit_bias={"50256": -100},
        seed=7,
        extra_body={"verbosity": "low"},
    )
    attempt = json.loads(raw.text)["modelmuxer"]["attempts"][0]["id"]
    body = mesh.received(attempt)["body"]
    assert body["logit_bias"] == {"50256": -100}
    assert body["seed"] == 7
    assert body["verbosity"] == "low"


def test_the_models_are_listed_and_found(client: openai.OpenAI) -> None:
    listed = [model.id for model in client.models.list()]
    assert {"auto", "fast", "openai/gpt-4o-mini"} <= set(listed)
    assert len(listed) >= 60
    assert client.models.retrieve("openai/gpt-4o-mini").owned_by == "openai"


def test_the_decision_is_told_in_headers(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="auto", messages=say("Which?"))
    assert raw.headers["x-modelmuxer-model"]
    assert raw.headers["x-modelmuxer-decision"]
    assert int(raw.headers["x-modelmuxer-cost-nanos"]) > 0
    assert raw.headers["x-request-id"] == json.loads(raw.text)["id"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [(429, openai.RateLimitError), (503, openai.InternalServerError), (500, openai.InternalServerError)],
)
def test_a_providers_failure_is_the_sdks_own_error(
    client: openai.OpenAI, status: int, expected: type[openai.APIStatusError]
) -> None:
    with pytest.raises(expected) as failed:
        client.chat.completions.create(model=f"openai/sim-status{status}-retry_after30", messages=say("Hi"))
    assert failed.value.response.headers.get("x-request-id")
    assert failed.value.body is not None


def test_a_failure_in_mid_stream_is_an_error_and_not_an_end(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="openai/gpt-4o-mini", messages=say("[[sim tokens=50 cut_at=10]]"), stream=True
    )
    with pytest.raises(openai.APIError):
        list(stream)


def test_what_is_wrong_is_told_by_name(client: openai.OpenAI, mesh: Mesh) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-17", messages=say("Hi"))
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as several:
        client.chat.completions.create(model="auto", messages=say("Hi"), n=2)
    assert several.value.param == "n"
    stranger = openai.OpenAI(base_url=f"{mesh.http}/v1", api_key="mm-wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as refused:
        stranger.chat.completions.create(model="auto", messages=say("Hi"))
    assert refused.value.code == "invalid_api_key"


def test_what_is_not_served_says_so(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="not served"):
        client.images.generate(prompt="A cat")
    with pytest.raises(openai.NotFoundError, match="not served"):
        client.moderations.create(input="Hm")
