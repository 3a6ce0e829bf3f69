"""No call costs more than what was held for it: the bound against prices, shapes of content, and tools."""

from __future__ import annotations

import io
import json
import wave
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelmuxer.accounting.v1 import accounting_pb2 as pb
from modelmuxer.chat.v1 import chat_pb2

from services.router.worst_case import Unbounded, worst_case
from services.simulator.script import count_text
from shared.catalogue import Model
from shared.pricing import cost_nanos

CONTEXT = 100_000


def model(price: pb.Price | None = None, **fields: object) -> Model:
    values: dict[str, object] = {
        "id": "openai/m",
        "provider": "openai",
        "name": "m",
        "context_tokens": CONTEXT,
        "max_output_tokens": 1000,
        "capabilities": frozenset(),
        "price": price or pb.Price(rows=[pb.PriceRow(input=1_000_000, output=2_000_000)]),
        "created": datetime(2026, 1, 1, tzinfo=UTC),
        "description": "",
        "deployments": (),
    }
    return Model(**{**values, **fields})  # type: ignore[arg-type]


def chat(*texts: str) -> chat_pb2.ChatRequest:
    request = chat_pb2.ChatRequest()
    for text in texts or ("hi",):
        request.messages.add(role=chat_pb2.ROLE_USER).content.add().text.text = text
    return request


@given(st.lists(st.text(max_size=60), min_size=1, max_size=5))
def test_texts_are_never_more_tokens_than_bytes_and_what_surrounds_them(texts: list[str]) -> None:
    bound = worst_case(chat(*texts), model(), 10).input_tokens
    assert bound >= sum(len(text.encode()) for text in texts)
    assert bound >= 3 + sum(4 + count_text(text) for text in texts)  # the simulated providers' rule


@given(st.text(max_size=80), st.text(max_size=80))
def test_tools_are_counted_as_they_are_written_in_json(name: str, description: str) -> None:
    request = chat()
    schema = {"type": "object", "properties": {name: {"type": "string"}}}
    request.tools.add(name=name, description=description, parameters_json=json.dumps(schema))
    written = json.dumps({"type": "function", "function": {"name": name, "description": description}})
    plain = worst_case(chat(), model(), 10).input_tokens
    # In JSON a character of three bytes may be six; the simulator takes four of these for a token.
    assert worst_case(request, model(), 10).input_tokens - plain >= 8 + (len(written) + len(json.dumps(schema))) // 4


@given(
    st.integers(0, 400),
    st.integers(0, 10),
    st.integers(0, 400),
    st.integers(0, 400),
    st.sampled_from(["", "priority", "flex"]),
    st.sampled_from(["", "eu"]),
)
def test_whatever_is_used_within_the_bound_costs_no_more_than_what_was_held(
    tokens_in: int, tokens_out: int, cached: int, written: int, tier: str, region: str
) -> None:
    price = pb.Price(
        rows=[
            pb.PriceRow(input=3_000_000, output=15_000_000, cached_input=300_000, cache_write=3_750_000),
            pb.PriceRow(input=6_000_000, output=22_500_000, cache_write_1h=12_000_000, above_input_tokens=200),
            pb.PriceRow(input=9_000_000, output=30_000_000, service_tier="priority"),
            pb.PriceRow(input=1_000_000, output=5_000_000, service_tier="flex"),
        ],
        factors=[pb.PriceFactor(dimension="region", value="eu", numerator=11, denominator=10)],
        call_nanos=7,
    )
    held = worst_case(chat("x" * 400), model(price), 10)
    cached = min(cached, tokens_in)
    written = min(written, tokens_in - cached)
    usage = chat_pb2.Usage(
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        cache_write_1h_tokens=written,
        service_tier=tier,
        region=region,
    )
    assert cost_nanos(price, usage) <= held.nanos


def test_where_worst_case_is_certain_it_is_what_the_call_costs() -> None:
    price = pb.Price(rows=[pb.PriceRow(input=0, output=1_000_000)], call_nanos=500)
    assert worst_case(chat(), model(price), 10).nanos == 510


def test_what_has_no_length_fills_the_context_at_most() -> None:
    request = chat()
    request.messages[0].content.add().document.media.url = "https://example.com/a.pdf"
    assert worst_case(request, model(), 10).input_tokens == CONTEXT
    assert worst_case(chat("x" * (2 * CONTEXT)), model(), 10).input_tokens == CONTEXT
    with pytest.raises(Unbounded, match="not known"):
        worst_case(request, model(context_tokens=0), 10)


def test_output_is_bounded_by_the_cap_else_by_the_model_else_not_at_all() -> None:
    assert worst_case(chat(), model(), 10).output_tokens == 10
    assert worst_case(chat(), model(), None).output_tokens == 1000
    with pytest.raises(Unbounded, match="set max_output_tokens"):
        worst_case(chat(), model(max_output_tokens=0, context_tokens=0), None)


def test_tools_that_the_provider_runs_are_priced_or_refused() -> None:
    request = chat()
    search = {"type": "web_search_20250305", "name": "web_search"}
    request.tools.add().opaque.json = json.dumps(search).encode()
    with pytest.raises(Unbounded, match="web_search"):
        worst_case(request, model(), 10)
    request.tools[0].opaque.json = json.dumps({**search, "max_uses": 2}).encode()
    price = pb.Price(rows=[pb.PriceRow(input=1_000_000)], server_tool_call_nanos={"web_search": 10_000_000})
    assert worst_case(request, model(price), 10).nanos == 3 * CONTEXT + 20_000_000
    request.tools[0].opaque.json = json.dumps({"type": "bash_20250124", "name": "bash"}).encode()
    assert worst_case(request, model(), 10).input_tokens < CONTEXT


def test_a_recording_of_plain_samples_is_as_long_as_it_is_and_any_other_fills_the_context() -> None:
    written = io.BytesIO()
    with wave.open(written, "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(8000)
        recording.writeframes(bytes(2 * 8000 * 10))
    request = chat()
    media = request.messages[0].content.add().audio.media
    media.data, media.media_type = written.getvalue(), "audio/wav"
    plain = worst_case(chat(), model(), 10).input_tokens
    assert 10 * 32 <= worst_case(request, model(), 10).input_tokens - plain <= 12 * 32 + 16
    media.data = b"fLaC" + bytes(1000)  # hours of silence, perhaps
    assert worst_case(request, model(), 10).input_tokens == CONTEXT


@pytest.mark.parametrize(
    "option",
    ["max_tokens", "n", "tools", "messages", "web_search_options", "mcp_servers", "prediction", "speed", "new"],
)
def test_options_that_may_change_what_a_call_costs_have_no_bound(option: str) -> None:
    request = chat()
    request.provider_options.update({"temperature": 0.5, "user": "ann"})
    worst_case(request, model(), 10)
    request.provider_options.update({option: 1})
    with pytest.raises(Unbounded, match=option):
        worst_case(request, model(), 10)


def test_options_within_a_group_are_looked_at_too() -> None:
    request = chat()
    request.provider_options.update({"generationConfig": {"topK": 3}})
    worst_case(request, model(), 10)
    request.provider_options.update({"generationConfig": {"maxOutputTokens": 3}})
    with pytest.raises(Unbounded, match="maxOutputTokens"):
        worst_case(request, model(), 10)
