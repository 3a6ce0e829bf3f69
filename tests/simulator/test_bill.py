"""The bill is exact, complete, and says what was generated until a cut was noticed."""

from __future__ import annotations

import csv
import time
from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.simulator import Simulator
from services.simulator.prices import Prices, Tokens
from tests.simulator.conftest import ROOT
from tests.simulator.raw_client import PROVIDERS, Wire, call_of, chat, until

PRICES = Prices()


def rows() -> list[dict[str, str]]:
    lines = (ROOT / "services/simulator/prices.csv").read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def test_the_table_holds_the_flagships_of_many_providers() -> None:
    models = {(row["provider"], row["model"]) for row in rows()}
    assert len(models) >= 80
    assert len({provider for provider, _ in models}) >= 8
    assert {("openai", "gpt-5"), ("anthropic", "claude-opus-4-5"), ("gemini", "gemini-2.5-pro")} <= models


def test_a_price_is_what_the_row_says() -> None:
    million = 1_000_000
    assert PRICES.cost_nanos("openai", "gpt-4o", "standard", Tokens(million), 0) == 2_500_000_000
    assert PRICES.cost_nanos("openai", "gpt-4o", "priority", Tokens(million, cached=million), million) == 19_125_000_000
    # Above the step every token of the request has the step's price; at it, none.
    at, above = Tokens(200_000), Tokens(200_001)
    assert PRICES.cost_nanos("gemini", "gemini-2.5-pro", "standard", at, 1) == 250_000_000 + 10_000
    assert PRICES.cost_nanos("gemini", "gemini-2.5-pro", "standard", above, 1) == 500_002_500 + 15_000
    written = Tokens(3000, cached=1000, cache_write_5m=1000, cache_write_1h=500)
    assert (
        PRICES.cost_nanos("anthropic", "claude-sonnet-5", "standard", written, 0)
        == 1_000_000 + 200_000 + 2_500_000 + 2_000_000
    )
    # An unknown tier is standard; a price that is not named is plain input's.
    assert PRICES.cost_nanos("groq", "qwen/qwen3.8-27b", "flex", Tokens(10, cached=10), 0) == 8_000


@given(
    row=st.sampled_from([row for row in rows() if row["above_input_tokens"] == "0" and row["provider"] != "*"]),
    counts=st.lists(st.integers(0, 20_000), min_size=5, max_size=5),
)
def test_every_sum_is_exact_and_rounded_up_once(row: dict[str, str], counts: list[int]) -> None:
    columns = ("input", "cached_input", "cache_write_5m", "cache_write_1h", "output")
    exact = sum(
        Fraction(row[column] or row["input"]) * 1000 * count for column, count in zip(columns, counts, strict=True)
    )
    tokens = Tokens(sum(counts[:4]), *counts[1:4])
    assert PRICES.cost_nanos(row["provider"], row["model"], row["service_tier"], tokens, counts[4]) == ceil(exact)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_complete_call_is_billed_as_its_usage_says(
    simulator: Simulator, wire: Wire, provider: str, stream: bool
) -> None:
    path, body = call_of(provider, "[[sim tokens=17]] Hello", stream=stream)
    if provider == "openai" and stream:
        body["stream_options"] = {"include_usage": True}
    wire.send("POST", path, body, x_client_request_id="a1")
    reply = await wire.reply()
    said: list[Any] = reply.events if stream else [reply.json()]
    line = simulator.bill.report(client_id="a1")["calls"][0]
    if provider == "openai":
        counts = [said[-1]["usage"][key] for key in ("prompt_tokens", "completion_tokens")]
    elif provider == "anthropic":
        usage = (said[-2] if stream else said[0])["usage"]
        counts = [usage["input_tokens"], usage["output_tokens"]]
    else:
        counts = [said[-1]["usageMetadata"][key] for key in ("promptTokenCount", "candidatesTokenCount")]
    assert [line["input_tokens"], line["output_tokens"]] == counts == [counts[0], 17]
    assert line["id"] == reply.headers["request-id" if provider == "anthropic" else "x-request-id"]
    assert line["complete"] is True
    assert line["cost_nanos"] == counts[0] * 1000 + 17 * 4000


async def test_a_client_that_leaves_pays_what_was_generated_until_then(simulator: Simulator, wire: Wire) -> None:
    wire.send(
        "POST", "/v1/chat/completions", chat("[[sim tokens=1000 tps=100]]", stream=True), x_client_request_id="a1"
    )
    for _ in range(10):
        await wire.reader.readuntil(b'"content":"')
    left_at = time.monotonic()
    wire.close()
    line = (await until(lambda: simulator.bill.report()["calls"]))[0]
    assert line["complete"] is False
    assert 9 <= line["output_tokens"] < 200
    wire = await Wire.open(simulator)
    wire.send("GET", "/connections")
    closed = (await wire.reply()).json()["closed"][-1]
    assert closed["running"]["client_id"] == "a1"
    assert closed["by"] == "client"
    assert 0 <= closed["closed_monotonic"] - left_at < 0.5
    wire.close()


async def test_a_whole_answer_that_nobody_waited_for_is_billed_by_the_time_it_ran(
    simulator: Simulator, wire: Wire
) -> None:
    wire.send("POST", "/v1/chat/completions", chat("[[sim tokens=1000 tps=100]]"))
    await wire.writer.drain()
    await until(lambda: any(c.running for c in simulator._connections))
    wire.close()
    line = (await until(lambda: simulator.bill.report()["calls"]))[0]
    assert line["complete"] is False
    assert 1 <= line["output_tokens"] < 100


async def test_a_client_that_leaves_before_the_first_token_pays_nothing(simulator: Simulator, wire: Wire) -> None:
    wire.send("POST", "/v1/chat/completions", chat("[[sim ttft=5s]]", stream=True))
    await wire.writer.drain()
    await until(lambda: any(c.running for c in simulator._connections))
    wire.close()
    await until(lambda: not simulator._connections)
    assert simulator.bill.report()["calls"] == []


async def test_hidden_reasoning_is_billed_as_output(simulator: Simulator, wire: Wire) -> None:
    wire.send("POST", "/v1/chat/completions", chat("[[sim tokens=10 reasoning=30]]", stream=True))
    await wire.reply()
    assert simulator.bill.report()["calls"][0]["output_tokens"] == 40


async def test_the_bill_can_be_read_in_parts_and_reset(simulator: Simulator, wire: Wire) -> None:
    for name in ("a", "b", "a"):
        wire.send("POST", "/v1/chat/completions", chat("Hi"), x_client_request_id=name)
        await wire.reply()

    async def bill(query: str = "", method: str = "GET") -> Any:
        wire.send(method, f"/bill{query}")
        return (await wire.reply()).json()

    whole = await bill()
    assert whole["total_nanos"] == sum(call["cost_nanos"] for call in whole["calls"])
    assert [call["client_id"] for call in whole["calls"]] == ["a", "b", "a"]
    assert len((await bill("?client_id=a"))["calls"]) == 2
    rest = await bill("?since=2")
    assert (len(rest["calls"]), rest["next"]) == (1, 3)
    assert "message" in (await bill("?since=x"))["error"]
    assert (await bill(method="DELETE"))["calls"] == []
    assert (await bill())["total_nanos"] == 0


async def test_prices_follow_the_served_tier_and_the_named_provider(simulator: Simulator, wire: Wire) -> None:
    ask = chat("Hello [[sim reply=abcd]]", model="gpt-5", service_tier="flex")
    wire.send("POST", "/v1/chat/completions", ask)
    await wire.reply()
    wire.send("POST", "/together_ai/v1/chat/completions", chat("Hello", model="zai-org/GLM-5.2"))
    assert (await wire.reply()).status == 200
    wire.send("POST", "/groq/v1/chat/completions", chat("Hello", model="gpt-5"))
    assert (await wire.reply()).status == 404
    first, second = simulator.bill.report()["calls"]
    assert (first["service_tier"], second["provider"]) == ("flex", "together_ai")
    assert first["cost_nanos"] == ceil(first["input_tokens"] * 625 + 1 * 5000)
