"""What may be looked up and what may be kept."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from modelmuxer.cache.v1.cache_pb2 import CacheKey
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.chat.v1.chat_pb2 import CacheControl, ChatRequest, Completed

from services.router.cacheability import plan, storable
from services.router.refusals import Refusals
from shared.catalogue import Alias, CacheScope
from shared.errors import MeshError, Reason


@pytest.mark.parametrize("chat", [ChatRequest(), ChatRequest(temperature=0), ChatRequest(top_p=0.5)])
def test_an_unset_or_zero_temperature_is_cached(chat: ChatRequest) -> None:
    allowed = plan(chat, None, enabled=True)
    assert allowed.look_up
    assert allowed.store


def test_a_temperature_above_zero_is_cached_only_if_request_or_alias_says_so() -> None:
    warm = ChatRequest(temperature=0.7)
    assert not plan(warm, None, enabled=True).look_up
    assert "0.7" in plan(warm, None, enabled=True).bypass
    assert plan(warm, alias(cache_sampled=True), enabled=True).store
    assert plan(ChatRequest(temperature=0.7, cache=CacheControl(cache_sampled=True)), None, enabled=True).look_up


def alias(
    *,
    cache_sampled: bool = False,
    cache_ttl_s: int | None = None,
    cache_scope: CacheScope = "tenant",
    cache_tool_calls: bool = False,
) -> Alias:
    return Alias(
        name="a",
        description="",
        targets=(),
        fallbacks=(),
        strategy="ordered",
        max_output_tokens=None,
        cache_sampled=cache_sampled,
        cache_ttl_s=cache_ttl_s,
        cache_scope=cache_scope,
        cache_tool_calls=cache_tool_calls,
        version="1",
    )


def test_no_store_means_neither_and_no_cache_means_only_store() -> None:
    neither = plan(ChatRequest(cache=CacheControl(no_store=True)), None, enabled=True)
    assert (neither.look_up, neither.store) == (False, False)
    fresh = plan(ChatRequest(cache=CacheControl(no_cache=True)), None, enabled=True)
    assert (fresh.look_up, fresh.store) == (False, True)


def test_nothing_is_done_while_the_cache_is_switched_off() -> None:
    off = plan(ChatRequest(), None, enabled=False)
    assert (off.look_up, off.store) == (False, False)


def test_ages_are_handed_on() -> None:
    control = CacheControl(max_age=Duration(seconds=0), ttl=Duration(seconds=5))
    allowed = plan(ChatRequest(cache=control), None, enabled=True)
    assert allowed.max_age == Duration(seconds=0)
    assert allowed.ttl == Duration(seconds=5)


def test_the_shorter_time_to_live_counts() -> None:
    asked = ChatRequest(cache=CacheControl(ttl=Duration(seconds=5)))
    assert plan(asked, alias(cache_ttl_s=3), enabled=True).ttl == Duration(seconds=3)
    assert plan(asked, alias(cache_ttl_s=9), enabled=True).ttl == Duration(seconds=5)
    assert plan(ChatRequest(), alias(cache_ttl_s=9), enabled=True).ttl == Duration(seconds=9)


ALLOWED = plan(ChatRequest(), None, enabled=True)


@pytest.mark.parametrize("reason", chat_pb2.FinishReason.values())
def test_only_whole_answers_are_kept(reason: chat_pb2.FinishReason) -> None:
    whole = {chat_pb2.FINISH_REASON_STOP, chat_pb2.FINISH_REASON_STOP_SEQUENCE}
    assert storable(Completed(finish_reason=reason), ALLOWED) == (reason in whole)


def test_a_refusal_is_kept_only_where_the_operator_says_how_long() -> None:
    refused = Completed(finish_reason=chat_pb2.FINISH_REASON_REFUSAL)
    allowed = plan(ChatRequest(), None, enabled=True, refusal_ttl_s=2.5)
    assert storable(refused, allowed)
    assert allowed.refusal_ttl == Duration(seconds=2, nanos=500_000_000)


@pytest.mark.parametrize("reason", chat_pb2.FinishReason.values())
def test_what_is_not_to_be_stored_is_not(reason: chat_pb2.FinishReason) -> None:
    neither = plan(ChatRequest(cache=CacheControl(no_store=True)), None, enabled=True)
    assert not storable(Completed(finish_reason=reason), neither)


CALLS_A_TOOL = Completed(finish_reason=chat_pb2.FINISH_REASON_TOOL_USE)
RAN_A_TOOL = Completed(finish_reason=chat_pb2.FINISH_REASON_STOP, usage={"server_tool_calls": {"web_search": 1}})
CUT_AFTER_A_TOOL = Completed(
    finish_reason=chat_pb2.FINISH_REASON_LENGTH, usage={"server_tool_calls": {"web_search": 1}}
)


@pytest.mark.parametrize("completed", [CALLS_A_TOOL, RAN_A_TOOL])
def test_an_answer_with_tools_is_kept_only_if_request_or_alias_says_so(completed: Completed) -> None:
    asked = plan(ChatRequest(cache=CacheControl(cache_tool_calls=True)), None, enabled=True)
    assert not storable(completed, ALLOWED)
    assert storable(completed, asked)
    assert storable(completed, plan(ChatRequest(), alias(cache_tool_calls=True), enabled=True))
    assert not storable(CUT_AFTER_A_TOOL, asked)


@pytest.mark.parametrize(
    ("settings", "of_alias", "asked", "width"),
    [
        ("tenant", "tenant", chat_pb2.CACHE_SCOPE_UNSPECIFIED, "tenant"),
        ("tenant", "user", chat_pb2.CACHE_SCOPE_UNSPECIFIED, "user"),
        ("key", "user", chat_pb2.CACHE_SCOPE_TENANT, "key"),
        ("tenant", "user", chat_pb2.CACHE_SCOPE_TENANT, "user"),
        ("user", "tenant", chat_pb2.CACHE_SCOPE_KEY, "key"),
        ("tenant", "tenant", chat_pb2.CACHE_SCOPE_USER, "user"),
    ],
)
def test_the_narrowest_scope_counts(
    settings: CacheScope, of_alias: CacheScope, asked: chat_pb2.CacheScope, width: CacheScope
) -> None:
    control = CacheControl(scope=asked)
    chosen = plan(ChatRequest(cache=control), alias(cache_scope=of_alias), enabled=True, widest=settings)
    assert chosen.width == width


KEY = CacheKey(tenant="acme", digest=bytes(32))


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_refusal_that_would_come_again_is_told_again_for_seconds() -> None:
    clock = Clock()
    refusals = Refusals(5.0, clock)
    refusals.note(KEY, MeshError(Reason.CONTENT_POLICY, "No.", metadata={"request_id": "first"}))
    with pytest.raises(MeshError) as told:
        refusals.check(KEY, "second")
    assert (told.value.reason, told.value.message) == (Reason.CONTENT_POLICY, "No.")
    assert told.value.metadata["request_id"] == "second"
    refusals.check(CacheKey(tenant="globex", digest=KEY.digest), "another tenant's")
    clock.now_s += 5.0
    refusals.check(KEY, "third")


@pytest.mark.parametrize("ttl_s", [0.0, 5.0])
def test_what_has_to_do_with_the_moment_is_not_remembered_and_nothing_is_unless_asked_for(ttl_s: float) -> None:
    refusals = Refusals(ttl_s)
    refusals.note(KEY, MeshError(Reason.PROVIDER_OVERLOADED, "Later."))
    refusals.note(None, MeshError(Reason.CONTENT_POLICY, "No."))
    if not ttl_s:
        refusals.note(KEY, MeshError(Reason.CONTENT_POLICY, "No."))
    refusals.check(KEY, "second")
