"""What only the store in Redis has to withstand: damage, eviction, keys that are rotated, addresses of all kinds."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.cache.stores import About, Key, Selection
from services.cache.stores.redis import RedisStore
from services.cache.stores.redis.encryption import KEY_BYTES, KeyFileError, Keyring, read_key_file
from services.cache.stores.redis.fences import MOST_FENCES
from services.cache.stores.redis.form import Record, Unreadable, pack, unpack
from shared.telemetry import metrics
from tests.ports import free_port
from tests.stores.cache.servers import RedisCluster, RedisServer, redis_server, until
from tests.stores.cache.stores import KEYRING, key, new_prefix, redis_store
from tests.tls import self_signed
from tests.tools import requires_tool

pytestmark = requires_tool("redis-server")

SECRET = b"the caller's secret words " * 100
ABOUT = About(alias="fast", model="openai/a", tags=("x",), note=b"a note")
# What the store needs of Redis, for operators who give it a user of its own.
COMMANDS = "+ping +get +set +unlink +hget +hset +hsetnx +hgetall +hdel +hlen +expire +wait +scan +dbsize +info"


@pytest.fixture
def prefix() -> str:
    return new_prefix()


@pytest.fixture
async def store(server: RedisServer, prefix: str) -> AsyncIterator[RedisStore]:
    async with redis_store(server.url, prefix) as store:
        yield store


def stored(server: RedisServer, prefix: str, kind: str = "answer") -> dict[bytes, bytes]:
    """What stands in Redis under a prefix."""
    with server.client() as client:
        names = [name for name in client.scan_iter(count=1000) if name.startswith(f"{prefix}{kind}:".encode())]
        return {name: client.get(name) if kind == "answer" else b"" for name in names}


def overwrite(server: RedisServer, name: bytes, data: bytes) -> None:
    with server.client() as client:
        client.set(name, data, ex=60)


async def gone(server: RedisServer, prefix: str, timeout_s: float = 10) -> None:
    await asyncio.to_thread(until, lambda: not stored(server, prefix), "it was not deleted", timeout_s)


def of_another_key(data: bytes) -> bytes:
    record = unpack(data, key(1), largest_bytes=10**6)
    return pack(Record(**{**{name: getattr(record, name) for name in Record.__slots__}, "key": key(2)}))


DAMAGE = {
    "cut": lambda data: data[:-1],
    "a byte changed at the end": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "a byte changed in the head": lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:],
    "an older form": lambda data: b"MUX\x00" + data[4:],
    "no form at all": lambda data: b"{}",
    "empty": lambda data: b"",
    "another key's": of_another_key,
}


@pytest.mark.parametrize("name", DAMAGE)
async def test_what_is_damaged_or_older_is_missed_and_deleted(
    server: RedisServer, store: RedisStore, prefix: str, name: str
) -> None:
    await store.put(key(1), SECRET, 60, ABOUT)
    ((where, data),) = stored(server, prefix).items()
    overwrite(server, where, DAMAGE[name](data))
    assert await store.get(key(1)) is None
    await gone(server, prefix)
    assert await store.put(key(1), SECRET, 60, ABOUT)
    assert await store.get(key(1)) is not None


@settings(deadline=None)
@given(
    value=st.binary(max_size=3000),
    note=st.binary(max_size=50),
    tags=st.lists(st.text(max_size=5), max_size=3),
    place=st.integers(0),
    change=st.integers(1, 255),
)
def test_any_byte_that_changes_is_noticed(value: bytes, note: bytes, tags: list[str], place: int, change: int) -> None:
    record = Record(
        key=key(1), value=value, about=About(note=note, tags=tuple(tags)), stored_ms=1, expires_ms=2, stamp=b"s" * 16
    )
    data = bytearray(pack(record))
    assert unpack(bytes(data), key(1), largest_bytes=10_000) == record
    data[place % len(data)] ^= change
    with pytest.raises(Unreadable):
        unpack(bytes(data), key(1), largest_bytes=10_000)


async def test_large_answers_are_compressed(server: RedisServer, store: RedisStore, prefix: str) -> None:
    await store.put(key(1), SECRET, 60)
    ((_, data),) = stored(server, prefix).items()
    assert len(data) < len(SECRET) / 4


async def test_nothing_is_unpacked_beyond_what_may_be_stored(
    server: RedisServer, store: RedisStore, prefix: str
) -> None:
    bomb = Record(
        key=key(1), value=bytes(50 * 1024 * 1024), about=ABOUT, stored_ms=0, expires_ms=2**52, stamp=b"s" * 16
    )
    await store.put(key(1), b"answer", 60)
    ((where, _),) = stored(server, prefix).items()
    overwrite(server, where, pack(bomb))
    assert await store.get(key(1)) is None
    await gone(server, prefix)


async def test_times_to_live_are_spread_and_never_longer_than_asked_for(
    server: RedisServer, store: RedisStore, prefix: str
) -> None:
    for number in range(30):
        await store.put(key(number), b"answer", 1000)
    with server.client() as client:
        lives = [client.pttl(name) for name in stored(server, prefix)]
    assert max(lives) <= 1000_000
    assert min(lives) > 890_000
    assert len({life // 1000 for life in lives}) > 5


# --- fences under eviction ---


async def test_fences_that_are_lost_bring_nothing_back(server: RedisServer, store: RedisStore, prefix: str) -> None:
    for number in range(3):
        await store.put(key(number), b"answer", 60, ABOUT)
    await store.invalidate(Selection(tenant="acme", prefix=key(1).digest.hex()))
    for which in ("fences:acme", "fences:"):
        with server.client() as client:
            client.delete(f"{prefix}{which}")
        async with redis_store(server.url, prefix) as fresh:
            assert await fresh.get(key(1)) is None
            await fresh.put(key(9), b"newer", 60, ABOUT)  # the fences are born anew
            assert await fresh.get(key(9)) is not None
            assert await fresh.get(key(1)) is None
        assert await store.get(key(1)) is None
        assert await store.get(key(9)) is not None


async def test_a_flushed_redis_is_an_empty_cache(server: RedisServer, store: RedisStore, prefix: str) -> None:
    await store.put(key(1), b"answer", 60, ABOUT)
    with server.client() as client:
        for kind in ("answer", "fences"):
            client.delete(*stored(server, prefix, kind))
    assert await store.get(key(1)) is None
    assert await store.put(key(1), b"answer", 60, ABOUT)
    assert await store.get(key(1)) is not None


async def test_more_invalidations_than_are_kept_cost_answers_and_bring_none_back(store: RedisStore) -> None:
    await store.put(key(1), b"answer", 60, ABOUT)
    await store.invalidate(Selection(tenant="acme", tag="x"))
    await store.put(key(2), b"answer", 60, About(tags=("kept",)))
    for number in range(MOST_FENCES + 2):
        await store.invalidate(Selection(tenant="acme", tag=f"doc={number}"))
    assert await store.get(key(1)) is None
    await store.put(key(2), b"answer", 60, About(tags=("kept",)))
    assert await store.get(key(2)) is not None


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 3), st.sampled_from(["", "x", "y"])),
        st.tuples(st.just("invalidate"), st.sampled_from(["acme", ""]), st.sampled_from(["", "x", "y"])),
        st.tuples(st.just("evict"), st.sampled_from(["fences:acme", "fences:"]), st.just("")),
        st.tuples(st.just("begin"), st.integers(0, 3), st.sampled_from(["", "x", "y"])),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
async def test_whatever_happens_nothing_invalidated_is_served(
    server: RedisServer, operations: list[tuple[str, str | int, str]]
) -> None:
    """Two replicas take turns; the model knows what may be served, and without evictions what has to be."""
    prefix, model, evicted = new_prefix(), dict[Key, tuple[bytes, str]](), False
    pending = []
    async with redis_store(server.url, prefix) as one, redis_store(server.url, prefix) as other:
        for number, (what, which, tag) in enumerate(operations):
            store = (one, other)[number % 2]
            value = b"%d" % number
            about = About(tags=(tag,) if tag else ())
            if what == "put":
                assert await store.put(key(int(which)), value, 60, about)
                model[key(int(which))] = value, tag
            elif what == "begin":
                pending.append((key(int(which)), value, tag, await store.mark("acme")))
            elif what == "evict":
                evicted = True
                with server.client() as client:
                    client.delete(f"{prefix}{which}")
            else:
                await store.invalidate(Selection(tenant=str(which), tag=tag))
                meant = {each for each, (_, own) in model.items() if not tag or own == tag}
                model = {each: answer for each, answer in model.items() if each not in meant}
                pending = [each for each in pending if tag and each[2] != tag]
            for each in map(key, range(4)):
                for replica in (one, other):
                    found = await replica.get(each)
                    if found is not None:
                        assert each in model
                        assert found.value == model[each][0]
                    else:
                        assert each not in model or evicted
        for where, value, tag, since in pending:  # what no invalidation was meant for may still be put
            assert await one.put(where, value, 60, About(tags=(tag,) if tag else ()), since=since)
            found = await other.get(where)
            assert evicted or (found is not None and found.value == value)


# --- one pipeline a turn ---


def pipelines() -> float:
    return sum(
        sample.value
        for metric in metrics.CACHE_STORE_DURATION.collect()
        for sample in metric.samples
        if sample.name.endswith("_count") and sample.labels["kind"] == "look-up"
    )


async def test_look_ups_of_one_turn_are_one_pipeline(store: RedisStore) -> None:
    await store.put(key(1), b"answer", 60)
    before = pipelines()
    await asyncio.gather(*(store.get(key(number % 50)) for number in range(100)))
    assert pipelines() - before == 1


async def test_look_ups_of_one_turn_are_one_pipeline_a_node_of_a_cluster(cluster: RedisCluster) -> None:
    async with redis_store(cluster.url) as store:
        await store.put(key(1), b"answer", 60)
        before = pipelines()
        await asyncio.gather(*(store.get(key(number)) for number in range(100)))
        assert pipelines() - before == 3


async def test_the_answers_of_a_tenant_are_spread_over_a_cluster(cluster: RedisCluster) -> None:
    prefix = new_prefix()
    async with redis_store(cluster.url, prefix) as store:
        await asyncio.gather(*(store.put(key(number, "{acme}"), b"answer", 60) for number in range(60)))
    assert all(len(stored(primary, prefix)) > 5 for primary in cluster.primaries)


# --- encryption at rest ---


def keyring(*names: str) -> Keyring:
    return Keyring({"acme": {name: name.encode().ljust(KEY_BYTES, b".") for name in names}})


async def test_what_is_encrypted_shows_nothing_of_itself(server: RedisServer, prefix: str) -> None:
    async with redis_store(server.url, prefix, keyring=KEYRING) as store:
        await store.put(key(1), SECRET[:500], 60, ABOUT)
        found = await store.get(key(1))
        assert found is not None
        assert (found.value, found.about) == (SECRET[:500], ABOUT)
    ((_, data),) = stored(server, prefix).items()
    for part in (SECRET[:20], b"openai/a", b"a note", b"fast"):
        assert part not in data


async def test_keys_are_rotated_by_putting_a_new_one_on_top(server: RedisServer, prefix: str) -> None:
    async with redis_store(server.url, prefix, keyring=keyring("may")) as store:
        await store.put(key(1), b"older", 60)
    async with redis_store(server.url, prefix, keyring=keyring("november", "may")) as store:
        assert await store.get(key(1)) is not None
        await store.put(key(2), b"newer", 60)
    async with redis_store(server.url, prefix, keyring=keyring("november")) as store:
        assert await store.get(key(1)) is None
        assert await store.get(key(2)) is not None
    async with redis_store(
        server.url, prefix, keyring=keyring("may")
    ) as store:  # a key that is missing deletes nothing
        assert await store.get(key(1)) is not None


async def test_one_tenants_answer_does_not_open_as_anothers(server: RedisServer, prefix: str) -> None:
    async with redis_store(server.url, prefix, keyring=KEYRING) as store:
        await store.put(key(1), b"acme's", 60)
        await store.put(key(1, "globex"), b"globex's", 60)
        await store.put(key(2), b"acme's too", 60)
        data = stored(server, prefix)
        mine = f"{prefix}answer:acme:{key(1).digest.hex()}".encode()
        theirs = f"{prefix}answer:globex:{key(1).digest.hex()}".encode()
        second = f"{prefix}answer:acme:{key(2).digest.hex()}".encode()
        overwrite(server, mine, data[theirs])
        overwrite(server, second, data[mine])
        assert await store.get(key(1)) is None
        assert await store.get(key(2)) is None


async def test_in_the_clear_is_no_answer_for_a_tenant_with_keys(server: RedisServer, prefix: str) -> None:
    async with redis_store(server.url, prefix) as store:
        await store.put(key(1), b"answer", 60)
        await store.put(key(1, "globex"), b"answer", 60)
    async with redis_store(server.url, prefix, keyring=keyring("may")) as store:
        assert await store.get(key(1)) is None
        assert await store.get(key(1, "globex")) is not None


def test_a_key_file_gives_each_tenant_its_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    secret = base64.b64encode(os.urandom(KEY_BYTES)).decode()
    file.write_text(f'acme:\n  - {{id: "2026-11", key: "{secret}"}}\n"*":\n  - {{id: 1, key: "{secret}"}}\n')
    keys = read_key_file(file)
    for tenant in ("acme", "globex"):
        sealed = keys.seal(key(1, tenant), b"answer")
        assert b"answer" not in sealed
        assert keys.open(key(1, tenant), sealed) == b"answer"
    assert secret not in repr(keys)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- acme", "must map tenants"),
        ("acme: []", "must give a list of keys"),
        ("acme: [{id: a}]", "is not {id, key}"),
        ("acme: [{id: a, key: '!!!'}]", "is not {id, key}"),
        ("acme: [{id: a, key: c2VjcmV0}]", "needs keys of 32 bytes"),
        ("acme: [", "is not YAML"),
    ],
)
def test_a_key_file_that_is_wrong_says_so_and_shows_no_key(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(text)
    with pytest.raises(KeyFileError) as wrong:
        read_key_file(file)
    assert complaint in str(wrong.value)
    assert "c2VjcmV0" not in str(wrong.value)


# --- addresses ---


async def works(url: str) -> bool:
    async with redis_store(url) as store:
        return await store.put(key(1), b"answer", 60, ABOUT) and await store.get(key(1)) is not None


async def test_a_user_with_the_least_rights_will_do(server: RedisServer, prefix: str) -> None:
    with server.client() as client:
        rights = COMMANDS.split()
        client.execute_command("ACL", "SETUSER", "mux", "on", ">p@ss", f"~{prefix}*".replace("[", "\\["), *rights)
    async with redis_store(f"redis://mux:p%40ss@127.0.0.1:{server.port}/0", prefix) as store:
        await store.put(key(1), b"answer", 60, ABOUT)
        assert await store.get(key(1)) is not None
        assert [found.value async for _, found in store.entries()] == [b"answer"]
        await store.stats()
        await store.invalidate(Selection(tag="x"))
        assert await store.get(key(1)) is None
        await store.delete(key(1))


async def test_tls_with_a_certificate_of_ones_own(tmp_path: Path) -> None:
    pem, port = self_signed(tmp_path), free_port()
    files = ("--tls-cert-file", str(pem), "--tls-key-file", str(pem), "--tls-ca-cert-file", str(pem))
    with redis_server("--tls-port", str(port), "--tls-auth-clients", "no", *files):
        assert await works(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={pem}")
        async with redis_store(f"rediss://127.0.0.1:{port}/0") as store:  # whom nobody vouches for is not talked to
            assert not await store.put(key(1), b"answer", 60)


async def test_a_socket_in_the_file_system(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with redis_server("--unixsocket", str(path)):
        assert await works(f"unix://{path}?db=1")
