"""What every store of answers does, in memory as in Redis: one server, a Cluster of three primaries, Sentinel."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from services.cache.stores import About, Key, Selection, Store
from tests.stores.cache.stores import KEYRING, LARGEST_BYTES, key, memory_store, new_prefix, redis_store
from tests.tools import requires_tool

IN_REDIS = [pytest.param(kind, marks=requires_tool("redis-server")) for kind in ("server", "cluster", "watched")]
MANY = 600
TENANTS = ["acme", "", "a:b", "{acme}", "*", "a%3Ab", "ä", "acme ", "answer:acme"]
ABOUT = About(
    alias="fast", model="openai/gpt-4o-mini", tags=("team=search", "doc=7"), cost_nanos=1234, note=b"\x00\xff"
)


@pytest.fixture(params=["memory", *IN_REDIS, pytest.param("encrypted", marks=requires_tool("redis-server"))])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        async with memory_store() as store:
            yield store
    elif request.param == "encrypted":
        async with redis_store(request.getfixturevalue("server").url, keyring=KEYRING) as store:
            yield store
    else:
        async with redis_store(request.getfixturevalue(request.param).url) as store:
            yield store


@pytest.fixture(params=IN_REDIS)
async def two(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Store, Store]]:
    """Two replicas of the cache over the same Redis."""
    url, prefix = request.getfixturevalue(request.param).url, new_prefix()
    async with redis_store(url, prefix) as one, redis_store(url, prefix) as other:
        yield one, other


async def becomes(condition: Callable[[], Awaitable[bool]], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not await condition():
        assert time.monotonic() < deadline, "did not come true"
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("value", [b"", b"answer", b"x" * 5_000, os.urandom(5_000)], ids=len)
async def test_an_answer_comes_back_as_it_was_put(store: Store, value: bytes) -> None:
    assert await store.put(key(1), value, 60, ABOUT)
    found = await store.get(key(1))
    assert found is not None
    assert (found.value, found.about) == (value, ABOUT)
    assert 0 <= found.age_s < 10
    assert 40 < found.left_s <= 60


async def test_what_was_never_put_is_missed(store: Store) -> None:
    assert await store.get(key(1)) is None


async def test_no_tenant_gets_anothers_answer(store: Store) -> None:
    for tenant in TENANTS:
        await store.put(key(1, tenant), tenant.encode(), 60)
    for tenant in TENANTS:
        found = await store.get(key(1, tenant))
        assert found is not None
        assert found.value == tenant.encode()
    assert await store.get(key(1, "globex")) is None


async def test_an_answer_is_gone_after_its_time(store: Store) -> None:
    assert await store.put(key(1), b"answer", 0.2)
    assert await store.put(key(2), b"answer", 60)

    async def gone() -> bool:
        return await store.get(key(1)) is None

    await becomes(gone)
    assert await store.get(key(2)) is not None


async def test_no_time_at_all_is_not_stored(store: Store) -> None:
    await store.put(key(1), b"answer", 1e-9)
    assert await store.get(key(1)) is None


async def test_a_newer_answer_takes_the_place_of_the_older(store: Store) -> None:
    await store.put(key(1), b"older", 60, About(tags=("old",)))
    await store.put(key(1), b"newer", 60, About(tags=("new",)))
    found = await store.get(key(1))
    assert found is not None
    assert (found.value, found.about.tags) == (b"newer", ("new",))


async def test_what_is_too_large_is_refused(store: Store) -> None:
    assert store.largest_bytes >= LARGEST_BYTES
    assert not await store.put(key(1), bytes(store.largest_bytes + 1), 60)
    assert await store.get(key(1)) is None


async def test_an_answer_can_be_deleted(store: Store) -> None:
    await store.put(key(1), b"answer", 60)
    await store.put(key(2), b"answer", 60)
    await store.delete(key(1))
    assert await store.get(key(1)) is None
    assert await store.get(key(2)) is not None
    await store.delete(key(1))


ANSWERS = {
    1: (key(1), About(alias="fast", model="openai/a", tags=("x", "y"))),
    2: (key(2), About(alias="fast", model="openai/b", tags=("y",))),
    3: (key(3), About(model="openai/a")),
    4: (Key("globex", bytes([0xAB]) * 32), About(alias="fast", model="openai/a", tags=("x",))),
    5: (Key("globex", bytes([0xAC]) * 32), About(alias="slow", model="openai/b")),
}
SELECTIONS = {
    "tenant": (Selection(tenant="acme"), {1, 2, 3}),
    "alias": (Selection(tenant="acme", alias="fast"), {1, 2}),
    "model": (Selection(tenant="acme", model="openai/a"), {1, 3}),
    "tag": (Selection(tenant="acme", tag="x"), {1}),
    "both": (Selection(tenant="acme", alias="fast", model="openai/b"), {2}),
    "prefix": (Selection(tenant="globex", prefix="ab"), {4}),
    "half a byte": (Selection(tenant="globex", prefix="a"), {4, 5}),
    "alias everywhere": (Selection(alias="fast"), {1, 2, 4}),
    "tag everywhere": (Selection(tag="x"), {1, 4}),
    "prefix everywhere": (Selection(prefix="0000"), {1, 2, 3}),
    "everything": (Selection(), {1, 2, 3, 4, 5}),
    "nothing": (Selection(tenant="initech"), set()),
    "no such tag": (Selection(tenant="acme", tag="z"), set()),
}


async def put_all(store: Store) -> None:
    for number, (where, about) in ANSWERS.items():
        assert await store.put(where, bytes([number]), 60, about)


async def served(store: Store) -> set[int]:
    return {number for number, (where, _) in ANSWERS.items() if await store.get(where) is not None}


@pytest.mark.parametrize("name", SELECTIONS)
async def test_what_is_invalidated_is_served_no_more_and_nothing_else_is_lost(store: Store, name: str) -> None:
    selection, meant = SELECTIONS[name]
    await put_all(store)
    await store.invalidate(selection)
    assert await served(store) == set(ANSWERS) - meant
    assert {found.value async for _, found in store.entries()} == {bytes([n]) for n in set(ANSWERS) - meant}


async def test_what_is_put_after_an_invalidation_is_served(store: Store) -> None:
    await put_all(store)
    await store.invalidate(Selection(tenant="acme", tag="x"))
    await store.invalidate(Selection(tenant="acme", alias="fast"))
    await store.invalidate(Selection(model="openai/a"))
    await put_all(store)
    assert await served(store) == set(ANSWERS)
    await store.invalidate(Selection(tenant="acme", tag="x"))
    assert await served(store) == set(ANSWERS) - {1}


async def test_an_answer_that_began_before_an_invalidation_falls_under_it(store: Store) -> None:
    since = await store.mark("acme")
    assert since is not None
    await store.invalidate(Selection(tenant="acme", tag="x"))
    for number, (where, about) in ANSWERS.items():
        if where.tenant == "acme":
            await store.put(where, bytes([number]), 60, about, since=since)
    assert await served(store) == {2, 3}
    await store.put(*put_of(1), since=await store.mark("acme"))
    assert await served(store) == {1, 2, 3}


def put_of(number: int) -> tuple[Key, bytes, float, About]:
    where, about = ANSWERS[number]
    return where, bytes([number]), 60, about


async def test_an_answer_that_began_before_all_was_invalidated_is_not_served(store: Store) -> None:
    since = await store.mark("acme")
    await store.invalidate(Selection())
    await store.put(*put_of(1), since=since)
    assert await served(store) == set()


async def test_all_answers_can_be_gone_through(store: Store) -> None:
    wanted = {key(number, tenant) for number in range(40) for tenant in TENANTS[:4]}
    for each in wanted:
        await store.put(each, each.digest[-1:], 60, ABOUT)
    found = {where: found async for where, found in store.entries()}
    assert set(found) == wanted
    assert all(each.about == ABOUT and each.value == where.digest[-1:] for where, each in found.items())


async def test_it_says_what_it_holds(store: Store) -> None:
    before = await store.stats()
    for number in range(20):
        await store.put(key(number), os.urandom(200_000), 60)
    stats = await store.stats()
    assert stats.entries - before.entries >= 20
    assert stats.size_bytes > before.size_bytes


async def test_many_at_once_get_each_its_own(store: Store) -> None:
    kept = await asyncio.gather(*(store.put(key(number), b"%d" % number, 60) for number in range(MANY)))
    assert all(kept)
    found = await asyncio.gather(*(store.get(key(number)) for number in range(MANY)))
    assert [each.value if each else None for each in found] == [b"%d" % number for number in range(MANY)]


async def test_a_caller_who_leaves_takes_nobodys_answer_along(store: Store) -> None:
    await store.put(key(1), b"answer", 60)
    leaving = [asyncio.create_task(store.get(key(1))) for _ in range(5)]
    staying = [asyncio.create_task(store.get(key(1))) for _ in range(5)]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    assert all(found is not None and found.value == b"answer" for found in await asyncio.gather(*staying))
    await asyncio.gather(*leaving, return_exceptions=True)
    assert await store.get(key(1)) is not None


async def test_replicas_share_answers_and_invalidations_at_once(two: tuple[Store, Store]) -> None:
    one, other = two
    await put_all(one)
    assert await served(other) == set(ANSWERS)
    for selection, meant in SELECTIONS.values():
        await put_all(one)
        assert await served(other) == set(ANSWERS)
        await other.invalidate(selection)
        assert await served(one) == set(ANSWERS) - meant
