"""What a request orders is what the wire shows: pace, errors, silence, cuts, on every provider."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from services.simulator import Simulator
from services.simulator.behaviour import Behaviour, OrderError, read_directives, read_model_name
from tests.simulator.raw_client import PROVIDERS, Reply, Wire, call_of, chat, until

each_provider = pytest.mark.parametrize("provider", PROVIDERS)


async def ask(wire: Wire, provider: str, text: str, *, stream: bool = False, model: str = "sim-test") -> Reply:
    path, body = call_of(provider, text, stream=stream, model=model)
    wire.send("POST", path, body)
    return await asyncio.wait_for(wire.reply(), 5)


def test_directives_are_read() -> None:
    text = 'Hi [[sim ttft=200ms tps=50 reply="two \\"words\\" ]]" refusal]] and [[sim tokens=7]]'
    assert read_directives(text) == {"ttft": 0.2, "tps": 50.0, "reply": 'two "words" ]]', "refusal": True, "tokens": 7}
    assert read_model_name("sim-ttft200ms-tps50-tokens100-refusal") == Behaviour(
        ttft=0.2, tps=50, tokens=100, refusal=True
    )
    assert read_model_name("sim-fast-2") == Behaviour()
    assert read_model_name("gpt-4o-tokens5") == Behaviour()


@pytest.mark.parametrize("text", ["[[sim tempo=3]]", "[[sim tokens=many]]", "[[sim tokens=-1]]", "[[sim tokens = 3]]"])
def test_a_directive_that_cannot_be_read_is_an_error(text: str) -> None:
    with pytest.raises(OrderError):
        read_directives(text)


@each_provider
async def test_an_unreadable_directive_is_refused_in_the_providers_shape(wire: Wire, provider: str) -> None:
    reply = await ask(wire, provider, "[[sim tempo=3]]")
    assert reply.status == 400
    assert "tempo" in reply.json()["error"]["message"]


@each_provider
async def test_the_same_request_gets_the_same_answer(wire: Wire, provider: str) -> None:
    def told(reply: Reply) -> str:
        said = reply.json()
        said.pop("id", None), said.pop("responseId", None), said.pop("created", None)
        return json.dumps(said)

    first, second = [await ask(wire, provider, "Hello there") for _ in range(2)]
    assert told(first) == told(second)
    assert told(first) != told(await ask(wire, provider, "Hello you"))


@each_provider
async def test_the_model_name_orders_too_and_the_message_wins(wire: Wire, provider: str) -> None:
    assert (await ask(wire, provider, "Hi", model="sim-status503")).status == 503
    assert (await ask(wire, provider, "[[sim status=500]]", model="sim-status503")).status == 500


@each_provider
async def test_tokens_come_at_the_ordered_pace(wire: Wire, provider: str) -> None:
    path, body = call_of(provider, "[[sim ttft=100ms tps=50 tokens=6]]", stream=True)
    started = time.monotonic()
    wire.send("POST", path, body)
    await wire.reader.readuntil(b"\r\n\r\n")
    assert time.monotonic() - started >= 0.09
    await wire._chunks()
    assert 0.19 <= time.monotonic() - started < 2  # 100 ms, then five more tokens at 20 ms


@each_provider
async def test_a_whole_answer_takes_as_long_as_its_tokens(wire: Wire, provider: str) -> None:
    started = time.monotonic()
    reply = await ask(wire, provider, "[[sim ttft=50ms tps=50 tokens=6]]")
    assert reply.status == 200
    assert 0.14 <= time.monotonic() - started < 2


@each_provider
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503, 504, 529])
async def test_an_ordered_status_is_answered_and_costs_nothing(
    simulator: Simulator, wire: Wire, provider: str, status: int
) -> None:
    reply = await ask(wire, provider, f"[[sim status={status} retry_after=7]]", stream=True)
    assert reply.status == status
    assert reply.json()["error"]["message"]
    if provider != "gemini":
        assert reply.headers["retry-after"] == "7"
    assert simulator.bill.report()["calls"] == []


async def count_events(wire: Wire, provider: str) -> int:
    reply = await ask(wire, provider, "[[sim tokens=3]]", stream=True)
    return reply.body.count(b"data: ")


@each_provider
async def test_an_error_may_stand_at_every_position_of_a_stream(
    simulator: Simulator, wire: Wire, provider: str
) -> None:
    for position in range(await count_events(wire, provider) + 1):
        reply = await ask(wire, provider, f"[[sim tokens=3 error_at={position}]]", stream=True)
        assert reply.body.count(b"data: ") == position + 1
        last = reply.events[-1]
        assert last["error"]["message"]
        line = simulator.bill.report()["calls"][-1]
        assert line["complete"] is False
        assert line["output_tokens"] <= 3


@each_provider
@pytest.mark.parametrize("torn", ["", "torn"])
async def test_a_stream_may_be_cut_at_every_position(simulator: Simulator, provider: str, torn: str) -> None:
    wire = await Wire.open(simulator)
    total = await count_events(wire, provider)
    wire.close()
    for position in range(total):
        wire = await Wire.open(simulator)
        reply = await ask(wire, provider, f"[[sim tokens=3 cut_at={position} {torn}]]", stream=True)
        assert not reply.is_whole
        assert reply.body.count(b"data: ") - position in ((0, 1) if torn else (0,))
        line = simulator.bill.report()["calls"][-1]
        assert line["complete"] is False
        wire.close()


@each_provider
async def test_a_stream_may_fall_silent(simulator: Simulator, wire: Wire, provider: str) -> None:
    path, body = call_of(provider, "[[sim tokens=5 stall_at=4]]", stream=True)
    wire.send("POST", path, body)
    await wire.reader.readuntil(b"\r\n\r\n")
    chunk = await wire.reader.readuntil(b"\r\n")
    events = await wire.reader.readexactly(int(chunk, 16))
    assert events.count(b"data: ") == 4
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wire.reader.readexactly(3), 0.1)
    wire.close()
    line = (await until(lambda: simulator.bill.report()["calls"]))[0]
    assert line["complete"] is False
    assert 0 < line["output_tokens"] < 5


@each_provider
async def test_an_event_may_be_malformed(wire: Wire, provider: str) -> None:
    reply = await ask(wire, provider, "[[sim tokens=5 malformed_at=4]]", stream=True)
    last = [line for line in reply.body.decode().splitlines() if line.startswith("data: ")][-1]
    with pytest.raises(json.JSONDecodeError):
        json.loads(last[6:])


@each_provider
async def test_whole_answers_have_faults_too(simulator: Simulator, provider: str) -> None:
    async def faulty(order: str) -> Reply:
        wire = await Wire.open(simulator)
        reply = await ask(wire, provider, f"[[sim {order}]]")
        wire.close()
        return reply

    failed = await faulty("error_at=0")
    assert failed.status == 500
    assert failed.json()["error"]["message"]
    assert not (await faulty("cut_at=0")).is_whole
    malformed = await faulty("malformed_at=0")
    assert malformed.is_whole
    with pytest.raises(json.JSONDecodeError):
        malformed.json()
    wire = await Wire.open(simulator)
    path, body = call_of(provider, "[[sim stall_at=0]]")
    wire.send("POST", path, body)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wire.reply(), 0.1)
    wire.close()


async def test_an_order_holds_for_its_turn_and_a_system_prompts_for_the_whole_conversation(wire: Wire) -> None:
    async def said(messages: list[dict[str, Any]]) -> Any:
        wire.send("POST", "/v1/chat/completions", {"model": "sim-test", "messages": messages})
        reply = await wire.reply()
        return reply.json()["choices"][0]["message"]["content"] if reply.status == 200 else reply.status

    failed = {"role": "user", "content": "[[sim status=503]]"}
    answered = {"role": "assistant", "content": "[[sim status=500]]"}
    assert await said([failed]) == 503
    assert isinstance(await said([failed, answered, {"role": "user", "content": "Again?"}]), str)
    system = {"role": "system", "content": "[[sim reply=always]]"}
    assert await said([system, failed, answered, {"role": "user", "content": "Again?"}]) == "always"


async def test_a_models_behaviour_can_be_ordered_from_outside(wire: Wire) -> None:
    wire.send("PUT", "/behaviour", {"model": "gpt-4o", "directive": "status=503"})
    assert (await wire.reply()).json()["orders"] == {"status": 503}
    assert (await ask(wire, "openai", "Hi", model="gpt-4o")).status == 503
    assert (await ask(wire, "openai", "Hi", model="gpt-4o-mini")).status == 200
    wire.send("PUT", "/behaviour", {"model": "gpt-4o", "directive": "status=many"})
    assert (await wire.reply()).status == 400
    wire.send("DELETE", "/behaviour")
    await wire.reply()
    assert (await ask(wire, "openai", "Hi", model="gpt-4o")).status == 200


async def test_a_reader_that_stalls_holds_the_stream_and_gets_it_whole_later(simulator: Simulator) -> None:
    wire = await Wire.open(simulator, limit=2**16)
    wire.send("POST", "/v1/chat/completions", chat("[[sim tokens=60000]]", stream=True))
    await until(lambda: any(connection.is_paused for connection in simulator._connections))
    assert simulator.bill.report()["calls"] == []
    reply = await asyncio.wait_for(wire.reply(), 10)
    assert reply.is_whole
    assert len(reply.events) == 60_002
    assert simulator.bill.report()["calls"][0]["output_tokens"] == 60_000
    wire.close()


async def test_many_streams_run_side_by_side(simulator: Simulator) -> None:
    async def one() -> Reply:
        wire = await Wire.open(simulator)
        reply = await ask(wire, "openai", "[[sim tokens=10 tps=20]]", stream=True)
        wire.close()
        return reply

    replies = await asyncio.gather(*(one() for _ in range(300)))
    assert all(reply.is_whole and len(reply.events) == 12 for reply in replies)
