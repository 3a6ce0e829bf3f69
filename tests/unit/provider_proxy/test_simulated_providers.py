"""Adapters against the simulated providers over real HTTP: conversations whose signatures the provider checks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest
from modelmuxer.chat.v1.chat_pb2 import (
    Block,
    ChatRequest,
    ChatResponse,
    FinishReason,
    Message,
    ReasoningOptions,
    Role,
    Text,
    Tool,
    ToolResult,
)

from services.provider_proxy.adapters import Adapter, UpstreamRequest
from services.provider_proxy.adapters.anthropic import AnthropicAdapter
from services.provider_proxy.adapters.gemini import GeminiAdapter
from services.simulator import Simulator, serve
from shared.catalogue import Deployment
from shared.errors import MeshError
from shared.wire import anthropic as wire
from tests.unit.provider_proxy.wire import folded

WEATHER = Tool(
    name="get_weather",
    parameters_json='{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}',
)
CASES = [
    pytest.param(AnthropicAdapter(), "claude-sonnet-4-5", id="anthropic, a budget of thinking"),
    pytest.param(AnthropicAdapter(), "claude-opus-5", id="anthropic, adaptive thinking"),
    pytest.param(GeminiAdapter(), "gemini-2.5-flash", id="gemini 2.5"),
    pytest.param(GeminiAdapter(), "gemini-3.1-pro-preview", id="gemini 3"),
]
BOTH_WAYS = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with serve(port=0, grace_s=0.1) as running:
        yield running


class Provider:
    """One adapter and one model at the simulator."""

    def __init__(self, adapter: Adapter, model: str, simulator: Simulator, key: str = "key") -> None:
        self._adapter = adapter
        self._key = key
        self._deployment = Deployment(
            name=f"m@{adapter.format}",
            model="m",
            provider=adapter.format,
            region="",
            base_url=simulator.url,
            upstream_model=model,
        )

    async def answer(self, chat: ChatRequest, *, stream: bool, attempt_id: str = "") -> ChatResponse:
        request = self._adapter.request(chat, self._deployment, self._key, stream=stream, attempt_id=attempt_id)
        async with aiohttp.ClientSession() as session, self._send(session, request) as answer:
            if answer.status != 200:
                raise self._adapter.error(answer.status, answer.headers, await answer.read())
            if not stream:
                return self._adapter.response(answer.status, answer.headers, await answer.read())
            decoder = self._adapter.decoder(chat, answer.headers)
            events = []
            try:
                async for data in answer.content.iter_any():
                    events += decoder.feed(data)
            except aiohttp.ClientPayloadError:  # the provider cut the connection
                pass
            return folded([*events, *decoder.close()])

    async def count(self, chat: ChatRequest) -> int:
        request = self._adapter.count_tokens_request(chat, self._deployment, self._key)
        assert request is not None
        async with aiohttp.ClientSession() as session, self._send(session, request) as answer:
            assert answer.status == 200, await answer.text()
            return self._adapter.counted(await answer.read())

    @staticmethod
    def _send(session: aiohttp.ClientSession, request: UpstreamRequest) -> Any:
        return session.request(request.method, request.url, headers=request.headers, data=request.body)


def user(text: str) -> Message:
    return Message(role=Role.ROLE_USER, content=[Block(text=Text(text=text))])


def asked(text: str, **fields: Any) -> ChatRequest:
    return ChatRequest(messages=[user(text)], max_output_tokens=4000, **fields)


def with_results(chat: ChatRequest, response: ChatResponse) -> None:
    chat.messages.add(role=Role.ROLE_ASSISTANT, content=response.content)
    for block in response.content:
        if block.HasField("tool_use"):
            result = ToolResult(tool_use_id=block.tool_use.id, content=[Block(text=Text(text="12 degrees"))])
            chat.messages.add(role=Role.ROLE_TOOL, content=[Block(tool_result=result)])


@BOTH_WAYS
@pytest.mark.parametrize(("adapter", "model"), CASES)
async def test_three_turns_with_thinking_and_tools_survive(
    adapter: Adapter, model: str, stream: bool, simulator: Simulator
) -> None:
    provider = Provider(adapter, model, simulator)
    chat = asked("[[sim tool=get_weather,get_weather reasoning=20]] Oslo?", tools=[WEATHER])
    chat.reasoning.CopyFrom(ReasoningOptions(effort="high", include=True))
    first = await provider.answer(chat, stream=stream, attempt_id="a1")
    assert first.completed.finish_reason == FinishReason.FINISH_REASON_TOOL_USE
    kinds = [block.WhichOneof("kind") for block in first.content]
    assert kinds[0] == "reasoning"
    assert kinds.count("tool_use") == 2
    with_results(chat, first)
    second = await provider.answer(chat, stream=stream, attempt_id="a2")
    assert second.completed.finish_reason == FinishReason.FINISH_REASON_STOP
    chat.messages.add(role=Role.ROLE_ASSISTANT, content=second.content)
    chat.messages.append(user("[[sim tool=get_weather]] And Rome?"))
    third = await provider.answer(chat, stream=stream, attempt_id="a3")
    with_results(chat, third)
    last = await provider.answer(chat, stream=stream, attempt_id="a4")
    assert last.completed.finish_reason == FinishReason.FINISH_REASON_STOP
    calls = {call["client_id"]: call for call in simulator.bill.report()["calls"]}
    for attempt_id, response in (("a1", first), ("a2", second), ("a3", third), ("a4", last)):
        usage, billed = response.completed.usage, calls[attempt_id]
        assert (usage.input_tokens, usage.output_tokens) == (billed["input_tokens"], billed["output_tokens"])


@BOTH_WAYS
@pytest.mark.parametrize("orders", ["", "redacted"])
async def test_an_anthropic_caller_talks_through_the_mesh_byte_for_byte(
    orders: str, stream: bool, simulator: Simulator
) -> None:
    """Caller's JSON to canonical to provider and back, three turns: the simulator refuses a signature that changed."""
    provider = Provider(AnthropicAdapter(), "claude-sonnet-4-5", simulator)
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"[[sim tool=get_weather {orders}]] Oslo? é\u2028"}]
    tool = {"name": "get_weather", "input_schema": json.loads(WEATHER.parameters_json)}
    for turn in range(3):
        body = {
            "model": "claude-sonnet-4-5",
            "max_tokens": 4000,
            "messages": messages,
            "tools": [tool],
            "thinking": {"type": "enabled", "budget_tokens": 1024},
        }
        chat = wire.parse_request(json.dumps(body).encode()).chat
        response = await provider.answer(chat, stream=stream)
        content = orjson.loads(orjson.dumps(wire.render_message(response, model="m")))["content"]
        assert content[0]["type"] == ("redacted_thinking" if orders and turn == 0 else "thinking")
        messages.append({"role": "assistant", "content": content})
        results = [
            {"type": "tool_result", "tool_use_id": block["id"], "content": "12 degrees"}
            for block in content
            if block["type"] == "tool_use"
        ]
        messages.append({"role": "user", "content": results or "[[sim tool=get_weather]] And Rome?"})


@BOTH_WAYS
@pytest.mark.parametrize(("adapter", "model"), CASES)
async def test_sources_are_told(adapter: Adapter, model: str, stream: bool, simulator: Simulator) -> None:
    response = await Provider(adapter, model, simulator).answer(asked("[[sim citations=2]] Why?"), stream=stream)
    (block,) = [block for block in response.content if block.text.text]
    assert len(block.text.citations) == 2


@BOTH_WAYS
async def test_the_tier_that_was_used_is_told(stream: bool, simulator: Simulator) -> None:
    provider = Provider(GeminiAdapter(), "gemini-2.5-flash", simulator)
    response = await provider.answer(asked("Hi", service_tier="priority"), stream=stream, attempt_id="a1")
    (call,) = simulator.bill.report(client_id="a1")["calls"]
    assert response.completed.usage.service_tier == call["service_tier"] == "priority"


@pytest.mark.parametrize(("adapter", "model"), CASES)
async def test_tokens_are_counted(adapter: Adapter, model: str, simulator: Simulator) -> None:
    provider = Provider(adapter, model, simulator)
    chat = asked("How many?", tools=[WEATHER])
    response = await provider.answer(chat, stream=False)
    assert await provider.count(chat) == response.completed.usage.input_tokens


@pytest.mark.parametrize(("adapter", "model"), CASES)
@pytest.mark.parametrize(
    ("orders", "reason"),
    [
        ("status=429 retry_after=2", "PROVIDER_RATE_LIMITED"),
        ("status=500", "PROVIDER_ERROR"),
        ("status=503", "PROVIDER_OVERLOADED"),
        ("tokens=9 error_at=3", None),
        ("tokens=9 cut_at=3", "PROVIDER_STREAM_CUT"),
        ("tokens=9 cut_at=3 torn", "PROVIDER_STREAM_CUT"),
        ("tokens=9 malformed_at=3", "PROVIDER_MALFORMED_ANSWER"),
    ],
)
async def test_every_failure_is_named(
    adapter: Adapter, model: str, orders: str, reason: str | None, simulator: Simulator
) -> None:
    with pytest.raises(MeshError) as caught:
        await Provider(adapter, model, simulator).answer(asked(f"[[sim {orders}]] Hi"), stream=True)
    assert caught.value.reason in ([reason] if reason else ["PROVIDER_ERROR", "PROVIDER_OVERLOADED"])
    if "retry_after" in orders:
        assert caught.value.retry_after_s == 2


@pytest.mark.parametrize(("adapter", "model"), CASES)
async def test_a_key_that_is_refused_is_our_fault(adapter: Adapter, model: str, simulator: Simulator) -> None:
    with pytest.raises(MeshError) as caught:
        await Provider(adapter, model, simulator, key="invalid").answer(asked("Hi"), stream=False)
    assert caught.value.reason == "PROVIDER_AUTHENTICATION"
    assert "operator" in caught.value.message
