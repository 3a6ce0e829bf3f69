"""Google's own package uses the simulated Gemini over real HTTP."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from google import genai
from google.genai import errors, types
from pydantic import BaseModel

MODEL = "gemini-2.5-flash"
THREE = "gemini-3-flash-preview"


def tool(name: str, field: str) -> types.FunctionDeclaration:
    schema = types.Schema(type=types.Type.OBJECT, properties={field: types.Schema(type=types.Type.STRING)})
    return types.FunctionDeclaration(name=name, description=name, parameters=schema)


TOOLS: list[Any] = [types.Tool(function_declarations=[tool("get_weather", "city"), tool("get_time", "zone")])]


@pytest.fixture
def client(simulator_url: str) -> genai.Client:
    return genai.Client(api_key="key", http_options=types.HttpOptions(base_url=simulator_url))


def test_content_is_generated_with_usage(client: genai.Client) -> None:
    answer = client.models.generate_content(model=MODEL, contents="Hello", config={"system_instruction": "Be brief."})
    assert answer.text
    usage = answer.usage_metadata
    assert usage is not None
    assert usage.candidates_token_count == -(-len(answer.text) // 4)
    assert usage.total_token_count == (usage.prompt_token_count or 0) + (usage.candidates_token_count or 0)
    assert answer.candidates is not None
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP
    assert answer.response_id
    assert client.models.count_tokens(model=MODEL, contents="Hello").total_tokens == 9


def test_a_stream_says_the_same_and_its_usage_grows(client: genai.Client) -> None:
    whole = client.models.generate_content(model=MODEL, contents="Hello")
    chunks = list(client.models.generate_content_stream(model=MODEL, contents="Hello"))
    assert "".join(chunk.text or "" for chunk in chunks) == whole.text
    counts = [chunk.usage_metadata.candidates_token_count or 0 for chunk in chunks if chunk.usage_metadata]
    assert counts == sorted(counts)
    assert chunks[-1].usage_metadata == whole.usage_metadata


def test_parallel_function_calls_and_their_results(client: genai.Client) -> None:
    question = types.Content(role="user", parts=[types.Part(text="[[sim tool=get_weather,get_time]] Oslo?")])
    config = types.GenerateContentConfig(
        tools=TOOLS, automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True)
    )
    chunks = list(client.models.generate_content_stream(model=THREE, contents=[question], config=config))
    parts = [p for c in chunks if c.candidates and c.candidates[0].content for p in c.candidates[0].content.parts or []]
    calls = [part for part in parts if part.function_call]
    assert [part.function_call.name for part in calls if part.function_call] == ["get_weather", "get_time"]
    assert calls[0].thought_signature
    assert calls[1].thought_signature is None
    results = [
        types.Part.from_function_response(name=part.function_call.name or "", response={"result": "fine"})
        for part in calls
        if part.function_call
    ]
    turn = types.Content(role="model", parts=calls)
    history = [question, turn, types.Content(role="user", parts=results)]
    answer = client.models.generate_content(model=THREE, contents=history, config=config)
    assert answer.text

    calls[0].thought_signature = b"something else"
    with pytest.raises(errors.ClientError, match="Thought signature is not valid"):
        client.models.generate_content(model=THREE, contents=history, config=config)
    calls[0].thought_signature = None
    with pytest.raises(errors.ClientError, match="missing a thought_signature"):
        client.models.generate_content(model=THREE, contents=history, config=config)
    calls[0].thought_signature = b"skip_thought_signature_validator"
    assert client.models.generate_content(model=THREE, contents=history, config=config).text
    history[2].parts = results[:1]
    with pytest.raises(errors.ClientError, match="number of function response parts"):
        client.models.generate_content(model=THREE, contents=history, config=config)


def test_the_calling_mode_is_obeyed(client: genai.Client) -> None:
    def ask(mode: str, names: list[str] | None = None) -> list[types.FunctionCall] | None:
        calling: Any = {"mode": mode, "allowed_function_names": names}
        config: Any = {
            "tools": TOOLS,
            "tool_config": {"function_calling_config": calling},
            "automatic_function_calling": {"disable": True},
        }
        return client.models.generate_content(model=MODEL, contents="Oslo?", config=config).function_calls

    assert ask("AUTO") is None
    called = ask("ANY", ["get_time"])
    assert called is not None
    assert called[0].name == "get_time"
    assert "zone" in (called[0].args or {})


class Person(BaseModel):
    name: str
    age: int


@pytest.mark.parametrize("form", ["model", "json schema"])
def test_a_schema_is_kept(client: genai.Client, form: str) -> None:
    config: Any = {"response_mime_type": "application/json"}
    config |= {"response_schema": Person} if form == "model" else {"response_json_schema": Person.model_json_schema()}
    answer = client.models.generate_content(model=MODEL, contents="Invent someone", config=config)
    assert Person.model_validate_json(answer.text or "").name


def test_thoughts_are_counted_and_shown_when_asked(client: genai.Client) -> None:
    config: Any = {"thinking_config": {"include_thoughts": True, "thinking_budget": 64}}
    answer = client.models.generate_content(model=MODEL, contents="Think", config=config)
    assert answer.candidates is not None
    assert answer.candidates[0].content is not None
    parts = answer.candidates[0].content.parts or []
    assert [part.thought for part in parts] == [True, None]
    assert parts[1].thought_signature
    assert answer.usage_metadata is not None
    assert answer.usage_metadata.thoughts_token_count == 32

    hidden: Any = {"thinking_config": {"thinking_level": "high"}}
    chunks = list(client.models.generate_content_stream(model=THREE, contents="Think", config=hidden))
    assert chunks[-1].usage_metadata is not None
    assert chunks[-1].usage_metadata.thoughts_token_count == 64
    assert not any(
        p.thought
        for c in chunks
        if c.candidates and c.candidates[0].content
        for p in c.candidates[0].content.parts or []
    )


def test_a_conversation_keeps_its_signatures(client: genai.Client) -> None:
    config: Any = {"thinking_config": {"include_thoughts": True, "thinking_level": "low"}}
    conversation = client.chats.create(model=THREE, config=config)
    for text in ("One", "Two", "Three"):
        assert conversation.send_message(text).text


def test_safety_length_cache_and_grounding(client: genai.Client) -> None:
    def finish(text: str, **config: Any) -> types.Candidate:
        settings: Any = config or None
        answer = client.models.generate_content(model=MODEL, contents=text, config=settings)
        assert answer.candidates is not None
        return answer.candidates[0]

    assert finish("[[sim filter]]").finish_reason == types.FinishReason.SAFETY
    assert finish("Hello", max_output_tokens=2).finish_reason == types.FinishReason.MAX_TOKENS
    grounding = finish("[[sim citations=2]]").grounding_metadata
    assert grounding is not None
    assert len(grounding.grounding_chunks or []) == 2
    blocked = client.models.generate_content(model=MODEL, contents="[[sim blocked]]")
    assert blocked.prompt_feedback is not None
    assert blocked.prompt_feedback.block_reason == types.BlockedReason.SAFETY
    cached = client.models.generate_content(model=MODEL, contents="Hello again and again [[sim cached=5]]")
    assert cached.usage_metadata is not None
    assert cached.usage_metadata.cached_content_token_count == 5


def test_images_are_taken(client: genai.Client) -> None:
    image = types.Part.from_bytes(data=base64.b64decode("AAAA"), mime_type="image/png")
    answer = client.models.generate_content(model=MODEL, contents=[image, "What is this?"])
    assert answer.usage_metadata is not None
    assert (answer.usage_metadata.prompt_token_count or 0) > 256


@pytest.mark.parametrize(
    ("status", "error", "name"),
    [
        (400, errors.ClientError, "INVALID_ARGUMENT"),
        (403, errors.ClientError, "PERMISSION_DENIED"),
        (404, errors.ClientError, "NOT_FOUND"),
        (429, errors.ClientError, "RESOURCE_EXHAUSTED"),
        (500, errors.ServerError, "INTERNAL"),
        (503, errors.ServerError, "UNAVAILABLE"),
        (504, errors.ServerError, "DEADLINE_EXCEEDED"),
    ],
)
def test_ordered_statuses_become_the_sdks_errors(
    client: genai.Client, status: int, error: type[errors.APIError], name: str
) -> None:
    with pytest.raises(error) as caught:
        client.models.generate_content(model=MODEL, contents=f"[[sim status={status} retry_after=0.5]]")
    assert (caught.value.code, caught.value.status) == (status, name)
    assert '"retryDelay": "0.5s"' in json.dumps(caught.value.details)


def test_an_error_in_the_middle_of_a_stream_is_raised(client: genai.Client) -> None:
    with pytest.raises(errors.APIError, match="INTERNAL"):
        list(client.models.generate_content_stream(model=MODEL, contents="[[sim error_at=3]]"))


def test_wrong_requests_are_refused_as_gemini_does(client: genai.Client, simulator_url: str) -> None:
    with pytest.raises(errors.ClientError, match="is not found for API version"):
        client.models.generate_content(model="gemini-none", contents="Hi")
    with pytest.raises(errors.ClientError, match="temperature must be in the range"):
        client.models.generate_content(model=MODEL, contents="Hi", config={"temperature": 9})
    stranger = genai.Client(api_key="invalid", http_options=types.HttpOptions(base_url=simulator_url))
    with pytest.raises(errors.ClientError, match="API key not valid"):
        stranger.models.generate_content(model=MODEL, contents="Hi")


def test_models_are_listed(client: genai.Client) -> None:
    assert f"models/{MODEL}" in {model.name for model in client.models.list()}
    assert client.models.get(model=MODEL).name == f"models/{MODEL}"
