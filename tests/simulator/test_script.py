"""The simulated model's words: tokens that can be counted, JSON that fits its schema."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.simulator.behaviour import Behaviour
from services.simulator.prompt_cache import PromptCache
from services.simulator.script import Ask, Tool, count_text, pieces, sample, write_script
from services.simulator.signature import is_sealed, is_signed, seal, sign


@given(st.text())
def test_tokens_joined_are_the_text_and_hold_at_most_four_bytes(text: str) -> None:
    tokens = pieces(text)
    assert "".join(tokens) == text
    assert all(0 < len(token.encode()) <= 4 for token in tokens)
    assert len(tokens) >= count_text(text)


@given(tokens=st.integers(0, 500), seed=st.integers(0, 2**32), limit=st.integers(1, 100), reasoning=st.integers(0, 50))
def test_a_reply_is_as_long_as_ordered_and_never_longer_than_the_limit(
    tokens: int, seed: int, limit: int, reasoning: int
) -> None:
    orders = Behaviour(tokens=tokens)
    assert write_script(Ask(seed, orders)).tokens == tokens
    short = write_script(Ask(seed, orders, max_tokens=limit, thinking_tokens=reasoning))
    assert short.tokens == min(limit, tokens + reasoning)
    assert (short.ending == "length") == (limit < tokens + reasoning)


def test_a_limit_cuts_a_tool_call_too() -> None:
    tool = Tool("get_weather", {"type": "object", "properties": {"city": {"type": "string"}}})
    script = write_script(Ask(1, Behaviour(), tools=[tool], must_call=True, max_tokens=5))
    assert (script.ending, script.tokens) == ("length", 5)
    assert script.calls[0].name_tokens == 3


SCHEMA: dict[str, Any] = {
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
            },
            "required": ["value"],
        }
    },
    "type": "object",
    "properties": {
        "kind": {"enum": ["a", "b"]},
        "fixed": {"const": 7},
        "ratio": {"type": "number", "minimum": 0, "maximum": 1},
        "many": {"type": "array", "items": {"type": "string", "minLength": 12}, "minItems": 3},
        "maybe": {"type": ["string", "null"]},
        "node": {"$ref": "#/$defs/Node"},
        "both": {"allOf": [{"properties": {"x": {"type": "boolean"}}}, {"properties": {"y": {"type": "null"}}}]},
        "when": {"type": "string", "format": "date-time"},
    },
}


@pytest.mark.parametrize("seed", range(5))
def test_json_fits_its_schema(seed: int) -> None:
    value = sample(SCHEMA, seed)
    assert value == sample(SCHEMA, seed)
    assert set(value) == set(SCHEMA["properties"])
    assert value["kind"] in ("a", "b")
    assert value["fixed"] == 7
    assert 0 <= value["ratio"] <= 1
    assert len(value["many"]) == 3
    assert all(len(item) >= 12 for item in value["many"])
    assert isinstance(value["maybe"], str)
    assert isinstance(value["node"]["value"], int)
    assert set(value["both"]) == {"x", "y"}


@given(st.text(), st.text(min_size=1))
def test_a_signature_is_good_for_its_text_only(text: str, more: str) -> None:
    assert is_signed("thinking", text, sign("thinking", text))
    assert not is_signed("thinking", text + more, sign("thinking", text))
    assert not is_signed("other", text, sign("thinking", text))
    sealed = seal("redacted", text)
    assert is_sealed("redacted", sealed)
    assert not is_sealed("redacted", sealed[:8] + ("A" if sealed[8] != "A" else "B") + sealed[9:])


def test_a_cached_prefix_expires_unless_it_is_read() -> None:
    now = 0.0
    cache = PromptCache(clock=lambda: now)
    cache.add(b"x", 300)
    now = 299
    assert cache.has(b"x", 300)
    now = 500
    assert cache.has(b"x", 300)
    now = 900
    assert not cache.has(b"x", 300)
