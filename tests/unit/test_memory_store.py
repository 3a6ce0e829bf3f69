"""The memory store: bounded in bytes and time; what is asked for again stays longest."""

import asyncio
import os
import tracemalloc

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.cache.stores import Key, Selection
from services.cache.stores.memory import ENTRY_OVERHEAD_BYTES, MemoryStore

ROOM = 1024 * 1024
KEYS = st.builds(
    Key, st.sampled_from(["acme", "globex"]), st.sampled_from([bytes([number]) * 32 for number in range(12)])
)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(ROOM, clock)


def key(number: int, tenant: str = "acme") -> Key:
    return Key(tenant, number.to_bytes(32, "big"))


async def test_returns_what_was_stored_and_its_age(store: MemoryStore, clock: Clock) -> None:
    assert await store.put(key(1), b"answer", 60)
    clock.now_s += 12
    found = await store.get(key(1))
    assert found is not None
    assert (found.value, found.age_s) == (b"answer", 12)


async def test_no_tenant_gets_anothers_answer(store: MemoryStore) -> None:
    await store.put(key(1, "acme"), b"answer", 60)
    assert await store.get(key(1, "globex")) is None


async def test_an_answer_that_outlived_its_time_is_gone_and_frees_its_room(store: MemoryStore, clock: Clock) -> None:
    await store.put(key(1), b"answer", 60)
    clock.now_s += 60
    assert await store.get(key(1)) is None
    assert (len(store), store.size_bytes) == (0, 0)


async def test_never_takes_more_than_its_room_and_drops_the_least_recently_used(store: MemoryStore) -> None:
    value = b"x" * 10_000
    await store.put(key(0), value, 60)
    for number in range(1, 500):
        assert await store.get(key(0)) is not None
        await store.put(key(number), value, 60)
        assert store.size_bytes <= ROOM
    assert await store.get(key(1)) is None
    assert await store.get(key(499)) is not None


async def test_a_scan_of_what_nobody_asks_for_again_does_not_wash_out_what_is_asked_for(store: MemoryStore) -> None:
    value, hot = b"x" * 1_000, range(200)
    for _ in range(2):
        for number in hot:
            if await store.get(key(number)) is None:
                await store.put(key(number), value, 60)
    for number in range(10_000, 20_000):  # ten times the room
        await store.put(key(number), value, 60)
        assert store.size_bytes <= ROOM
    kept = [number for number in hot if await store.get(key(number)) is not None]
    assert len(kept) == len(hot)


async def test_what_comes_back_soon_after_it_left_is_kept_longer(store: MemoryStore) -> None:
    value = b"x" * 1_000
    await store.put(key(1), value, 60)
    number = 10_000
    while (await store.stats()).evicted == 0:  # until the first has to make room
        await store.put(key(number), value, 60)
        number += 1
    assert await store.get(key(1)) is None
    await store.put(key(1), value, 60)
    for later in range(20_000, 22_000):
        await store.put(key(later), value, 60)
    assert await store.get(key(1)) is not None


async def test_an_invalidation_frees_the_room_that_it_cuts_off(store: MemoryStore) -> None:
    for number in range(400):
        await store.put(key(number, "acme" if number % 2 else "globex"), b"x" * 1_000, 60)
    await store.invalidate(Selection(tenant="acme"))
    async with asyncio.timeout(10):
        while len(store) > 200:  # noqa: ASYNC110 - the sweep takes turns with whoever else runs
            await asyncio.sleep(0)
    assert all([await store.get(key(number, "globex")) for number in range(0, 400, 2)])


async def test_a_value_too_large_to_be_worth_the_room_is_refused_and_evicts_nothing(store: MemoryStore) -> None:
    await store.put(key(1), b"small", 60)
    assert not await store.put(key(2), b"x" * (ROOM // 4), 60)
    assert await store.get(key(1)) is not None


async def test_replacing_an_answer_counts_its_bytes_once(store: MemoryStore) -> None:
    for _ in range(3):
        await store.put(key(1), b"x" * 1000, 60)
    assert len(store) == 1
    assert store.size_bytes < 2 * 1000 + ENTRY_OVERHEAD_BYTES


async def test_the_room_it_says_it_takes_is_what_it_takes(clock: Clock) -> None:
    entries = 20_000
    store = MemoryStore(1024**3, clock)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(entries):
        clock.now_s += 0.1
        await store.put(Key("acme", number.to_bytes(32, "big")), os.urandom(200), 60)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.8 < store.size_bytes / taken < 1.25, (store.size_bytes / entries, taken / entries)


class AnyUse(RuleBasedStateMachine):
    """However it is used, the store returns what was last stored, in its time, and keeps within its room."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = MemoryStore(ROOM // 128, self.clock)
        self.stored: dict[Key, tuple[bytes, float]] = {}
        self.loop = asyncio.Runner()

    def teardown(self) -> None:
        self.loop.close()

    @rule(key=KEYS, size=st.integers(0, 1_200), ttl_s=st.floats(0.1, 60))
    def put(self, key: Key, size: int, ttl_s: float) -> None:
        value = os.urandom(size)
        if self.loop.run(self.store.put(key, value, ttl_s)):
            self.stored[key] = value, self.clock.now_s + ttl_s
        else:
            assert size + ENTRY_OVERHEAD_BYTES + 50 > self.store.largest_bytes

    @rule(key=KEYS)
    def get(self, key: Key) -> None:
        found = self.loop.run(self.store.get(key))
        if found is not None:
            value, until_s = self.stored[key]
            assert found.value == value
            assert self.clock.now_s < until_s

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds

    @invariant()
    def keeps_within_its_room(self) -> None:
        assert self.store.size_bytes <= ROOM // 128
        assert bool(self.store.size_bytes) == bool(len(self.store))


TestAnyUse = AnyUse.TestCase
TestAnyUse.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
