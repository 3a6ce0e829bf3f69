"""Who could answer, and why the others could not."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from modelmuxer.accounting.v1.accounting_pb2 import Principal
from modelmuxer.chat.v1.chat_pb2 import ChatRequest, RoutingOptions

from services.router.decisions import Decisions
from services.router.providers import Live
from services.router.shortlist import (
    Shortlist,
    effective_cap,
    narrow,
    needs,
    no_candidate,
    resolve,
    static_shortlist,
)
from shared.errors import MeshError, Reason
from tests.unit.router.catalogues import alias, catalogue, model

CHEAP, DEAR, SPARE = model("a/cheap", cents=1), model("b/dear", cents=100), model("c/spare")
PLAIN = model("a/plain", capabilities=frozenset())
UNPRICED = model("a/unpriced", cents=None)
WORLD = catalogue(
    CHEAP,
    DEAR,
    SPARE,
    PLAIN,
    UNPRICED,
    alias("auto", "a/cheap", "b/dear", fallbacks=("c/spare",)),
    alias("odd", "a/plain", "a/unpriced"),
)


def sift(name: str, needed: frozenset[str] = frozenset(), allowed: tuple[str, ...] = (), **routing: Any) -> Shortlist:
    options = RoutingOptions(**routing)
    return static_shortlist(WORLD, resolve(WORLD, name, options.fallbacks), needed, options, allowed)


def ids(shortlist: Shortlist) -> list[str]:
    return [candidate.id for candidate in shortlist.candidates]


def reasons(shortlist: Shortlist) -> dict[str, Reason]:
    return {each.model: each.reason for each in shortlist.excluded}


def test_an_alias_stands_for_its_targets_and_then_its_fallbacks() -> None:
    assert ids(sift("auto")) == ids(sift("")) == ["a/cheap", "b/dear", "c/spare"]
    assert resolve(WORLD, "auto", ()).fallbacks == ("c/spare",)


def test_the_requests_fallbacks_stand_in_place_of_the_aliass_own() -> None:
    asked = resolve(WORLD, "auto", ["a/plain", "b/dear"])
    assert [each.id for each in asked.models] == ["a/cheap", "b/dear", "a/plain"]
    assert asked.fallbacks == ("a/plain",)
    assert resolve(WORLD, "dear", ["cheap"]).fallbacks == ("a/cheap",)


def test_an_unknown_name_is_met_with_the_nearest() -> None:
    with pytest.raises(MeshError, match="did you mean a/cheap") as caught:
        resolve(WORLD, "a/chaep", ())
    assert caught.value.reason == Reason.UNKNOWN_MODEL


def test_a_model_must_have_what_the_chat_needs() -> None:
    shortlist = sift("odd", frozenset({"tools", "vision"}))
    assert not shortlist.candidates
    assert reasons(shortlist) == {"a/plain": Reason.UNSUPPORTED_FEATURE, "a/unpriced": Reason.UNPRICED_MODEL}
    assert shortlist.excluded[0].sentence == "it cannot call tools or see images"


def test_a_model_without_a_price_is_refused() -> None:
    shortlist = sift("a/unpriced")
    error = no_candidate(resolve(WORLD, "a/unpriced", ()), shortlist.excluded)
    assert error.reason == Reason.UNPRICED_MODEL


def test_a_key_answers_for_the_aliases_and_models_that_it_may_name() -> None:
    assert ids(sift("auto", allowed=("auto",))) == ["a/cheap", "b/dear", "c/spare"]
    assert ids(sift("auto", allowed=("dear",))) == ["b/dear"]
    assert reasons(sift("a/cheap", allowed=("auto",))) == {"a/cheap": Reason.KEY_NOT_ALLOWED}


def test_providers_can_be_chosen_and_left_out() -> None:
    assert ids(sift("auto", only_providers=["b", "c"])) == ["b/dear", "c/spare"]
    assert ids(sift("auto", exclude_providers=["b"])) == ["a/cheap", "c/spare"]
    with pytest.raises(MeshError, match='no provider "opnai"'):
        sift("auto", only_providers=["opnai"])


def test_what_cannot_be_called_now_or_is_too_short_is_out() -> None:
    states = {"a/cheap": Live(available=False, unavailable_reason="set A_KEY")}
    left = narrow(sift("auto"), states.get, 100)
    assert ids(left) == ["b/dear", "c/spare"]
    assert left.excluded[0].sentence == "set A_KEY"
    nothing_known: dict[str, Live] = {}
    assert set(reasons(narrow(sift("auto"), nothing_known.get, 100_001)).values()) == {Reason.CONTEXT_TOO_LONG}


def test_the_error_tells_what_stands_in_each_models_way() -> None:
    asked = resolve(WORLD, "odd", ())
    error = no_candidate(asked, sift("odd", frozenset({"tools"})).excluded)
    assert error.reason == Reason.UNSUPPORTED_FEATURE
    assert "a/plain: it cannot call tools; a/unpriced: it has no price" in error.message


@pytest.mark.parametrize(
    ("fields", "needed"),
    [
        ({}, set()),
        ({"tools": [{"name": "f"}]}, {"tools"}),
        ({"responseFormat": {"jsonSchema": {"schemaJson": "{}"}}}, {"json_schema"}),
        ({"reasoning": {"effort": "none"}}, set()),
        ({"reasoning": {"effort": "low"}}, {"reasoning"}),
        ({"reasoning": {"maxTokens": 100}}, {"reasoning"}),
        ({"topLogprobs": 0}, {"logprobs"}),
        ({"seed": 0, "topK": 1, "temperature": 0}, {"seed", "top_k", "temperature"}),
        ({"stopSequences": ["x"]}, {"stop"}),
        ({"messages": [{"content": [{"image": {}}]}]}, {"vision"}),
        ({"messages": [{"content": [{"document": {"citations": True}}]}]}, {"documents", "citations"}),
        ({"messages": [{"content": [{"toolResult": {"content": [{"image": {}}]}}]}]}, {"tools", "vision"}),
    ],
)
def test_needs_are_read_off_the_chat(fields: dict[str, Any], needed: set[str]) -> None:
    assert needs(ParseDict(fields, ChatRequest())) == needed


def test_the_effective_cap_is_the_least_of_all() -> None:
    assert effective_cap(CHEAP, 10, 500, None, 300) == 300
    assert effective_cap(CHEAP, 10, None, None, None) == 10_000
    assert effective_cap(model("a/unknown", max_output_tokens=0), 10, None) is None


def test_the_models_own_cap_leaves_room_for_the_input() -> None:
    small = model("a/small", context_tokens=8192, max_output_tokens=8192)
    assert effective_cap(small, 800) == 8192 - 900
    assert effective_cap(small, 8000) is None, "the provider knows better how much room is left"


def test_a_shortlist_is_kept_for_its_class_alone() -> None:
    now_s = 0.0
    decisions = Decisions(ttl_s=300, clock=lambda: now_s)
    alice, bob = Principal(tenant="a"), Principal(tenant="b", models=["dear"])
    chat, needy = ChatRequest(model="auto"), ChatRequest(model="auto", seed=1)
    first = decisions.static(WORLD, alice, chat)
    assert decisions.static(WORLD, alice, chat) is first
    assert decisions.static(WORLD, alice, needy) is not first
    assert ids(decisions.static(WORLD, bob, chat)[1]) == ["b/dear"]
    now_s = 301.0
    assert decisions.static(WORLD, alice, chat) is not first
