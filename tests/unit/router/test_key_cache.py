"""A key that changed is forgotten at once; without the watch, nothing is relied on for long."""

from __future__ import annotations

from modelmuxer.accounting.v1.accounting_pb2 import Principal

from services.router.principals import GRACE_S, MAX_UNKNOWN, UNKNOWN_TTL_S, KeyCache

ALICE = Principal(tenant="acme", user="alice")


def standing() -> KeyCache[Principal]:
    cache: KeyCache[Principal] = KeyCache()
    cache.watch_stands()
    return cache


def test_a_principal_is_kept_for_as_long_as_the_watch_stands() -> None:
    cache = standing()
    cache.learn(b"a", ALICE, cache.generation, 0.0)
    assert cache.principal(b"a", 1e6) == ALICE


def test_a_change_is_forgotten_at_once() -> None:
    cache = standing()
    cache.learn(b"a", ALICE, cache.generation, 0.0)
    cache.learn(b"b", ALICE, cache.generation, 0.0)
    cache.drop([b"a"])
    assert cache.principal(b"a", 0.0) is None
    assert cache.principal(b"b", 0.0) == ALICE


def test_an_answer_asked_for_before_a_change_is_not_kept() -> None:
    cache = standing()
    asked = cache.generation
    cache.drop([b"a"])
    cache.learn(b"a", ALICE, asked, 0.0)
    assert cache.principal(b"a", 0.0) is None


def test_without_the_watch_a_principal_lives_a_minute() -> None:
    cache = standing()
    cache.learn(b"a", ALICE, cache.generation, 0.0)
    cache.watch_lost(1000.0)
    assert cache.principal(b"a", 1000.0 + GRACE_S) == ALICE
    assert cache.principal(b"a", 1000.1 + GRACE_S) is None


def test_one_learnt_without_the_watch_lives_a_minute_from_then() -> None:
    cache = standing()
    cache.watch_lost(0.0)
    cache.learn(b"a", ALICE, cache.generation, 100.0)
    assert cache.principal(b"a", 100.0 + GRACE_S) == ALICE
    assert cache.principal(b"a", 100.1 + GRACE_S) is None


def test_a_watch_that_is_back_starts_from_nothing() -> None:
    cache = standing()
    cache.learn(b"a", ALICE, cache.generation, 0.0)
    cache.watch_lost(1.0)
    cache.watch_stands()
    assert cache.principal(b"a", 2.0) is None


def test_an_unknown_key_is_remembered_for_a_moment() -> None:
    cache = standing()
    cache.learn(b"x", None, cache.generation, 0.0)
    assert cache.is_unknown(b"x", UNKNOWN_TTL_S)
    assert not cache.is_unknown(b"x", UNKNOWN_TTL_S + 0.1)


def test_guessed_keys_take_bounded_room_and_drive_out_no_good_one() -> None:
    cache = standing()
    cache.learn(b"a", ALICE, cache.generation, 0.0)
    for number in range(MAX_UNKNOWN + 10):
        cache.learn(number.to_bytes(4, "big"), None, cache.generation, 0.0)
    assert not cache.is_unknown((0).to_bytes(4, "big"), 0.0)
    assert cache.principal(b"a", 0.0) == ALICE
