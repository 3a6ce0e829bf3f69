"""What may be looked up and what may be kept."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.chat.v1.chat_pb2 import CacheControl, ChatRequest, Completed

from services.router.cacheability import plan, storable
from shared.catalogue import Alias


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


def alias(*, cache_sampled: bool = False, cache_ttl_s: int | None = None) -> Alias:
    return Alias(
        name="a",
        description="",
        targets=(),
        fallbacks=(),
        strategy="ordered",
        max_output_tokens=None,
        cache_sampled=cache_sampled,
        cache_ttl_s=cache_ttl_s,
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


@pytest.mark.parametrize("reason", chat_pb2.FinishReason.values())
def test_only_whole_answers_are_kept(reason: chat_pb2.FinishReason) -> None:
    whole = {chat_pb2.FINISH_REASON_STOP, chat_pb2.FINISH_REASON_STOP_SEQUENCE}
    assert storable(Completed(finish_reason=reason)) == (reason in whole)
