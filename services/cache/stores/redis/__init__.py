"""A store in Redis: one server, the master that Sentinels name, or a Cluster. Keys hash by themselves, and no command
spans two of them.

What is read of one answer are three keys at once: the answer, its tenant's fences' version and that of all tenants
(fences.py). Whatever does not come in time, or is not what it should be, is a miss.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, unquote

from redis.exceptions import OutOfMemoryError, RedisError

from services.cache.stores import NOTHING, About, Found, Key, Mark, Selection, Stats, StoreError
from services.cache.stores.redis.encryption import NO_KEYS, Keyring, MissingKey
from services.cache.stores.redis.fences import (
    BIRTH,
    MOST_FENCES,
    VERSION,
    Fences,
    Seen,
    fence,
    field_of,
    new_id,
    outlived,
)
from services.cache.stores.redis.form import Record, Unreadable, pack, unpack
from services.cache.stores.redis.lane import Command, Lane, Replies
from services.cache.stores.redis.servers import Server, Servers
from shared.telemetry import metrics

LONGEST_S: Final = 7 * 86_400
"""No answer is kept longer, so that a fence which is older is needed no more."""
_JITTER = 0.1
_FENCES_LIVE_S = 2 * LONGEST_S
_FENCES_RENEWED_S = LONGEST_S / 8
_MOST_TENANTS = 10_000
_ALL_TENANTS = ""
_SCAN_COUNT = 500
_SLOW_S = 5.0
_INVALIDATE_WITHIN_S = 5.0
_PAUSE_S = 0.1
_REPLICAS_WITHIN_S = 1.0

Clock = Callable[[], float]


class RedisStore:
    """Implements Store. ``clock`` returns Unix seconds."""

    def __init__(
        self,
        servers: Servers,
        *,
        prefix: str,
        largest_bytes: int,
        keyring: Keyring = NO_KEYS,
        clock: Clock = time.time,
    ) -> None:
        self._servers = servers
        self._prefix = prefix
        self._largest_bytes = largest_bytes
        self._keyring = keyring
        self._clock = clock
        self._fences: OrderedDict[str, Fences] = OrderedDict()
        self._births: dict[str, asyncio.Task[Fences | None]] = {}
        self._renewed: dict[str, float] = {}
        self._quoted = lru_cache(_MOST_TENANTS)(lambda tenant: quote(tenant, safe=""))

    @property
    def largest_bytes(self) -> int:
        """What one entry may take, before it is compressed."""
        return self._largest_bytes

    async def start(self) -> None:
        """Finds the servers. Without them the store starts all the same, and misses until they are found."""
        await self._servers.start()

    async def get(self, key: Key) -> Found | None:
        """Returns an answer, unless it is missing, was invalidated, or has outlived its time."""
        name = self._answer_name(key)
        data, seen = await self._read(name, key.tenant)
        if data is None or seen is None:
            return None
        return self._opened(name, key, data, seen)

    async def put(
        self, key: Key, value: bytes, ttl_s: float, about: About = NOTHING, *, since: Mark | None = None
    ) -> bool:
        """Stores an answer for a time, in place of an earlier one. False if it is not kept."""
        # A little less than asked for, so that answers which came together do not go together.
        ttl_ms = int(min(ttl_s, LONGEST_S) * random.uniform(1 - _JITTER, 1) * 1000)  # noqa: S311 - jitter
        if ttl_ms < 1 or len(value) + len(about.note) > self._largest_bytes:
            return False
        seen = since if isinstance(since, Seen) else await self._seen(key.tenant)
        if seen is None:
            return False
        now_ms = int(self._clock() * 1000)
        record = Record(
            key=key,
            value=value,
            about=about,
            stored_ms=now_ms,
            expires_ms=now_ms + ttl_ms,
            stamp=seen.stamp(key, about),
        )
        name = self._answer_name(key)
        data = self._keyring.seal(key, pack(record))
        return bool(await self._write(name, ("SET", name, data, "PX", ttl_ms)))

    async def mark(self, tenant: str) -> Mark | None:
        """This moment. None if Redis does not tell."""
        return await self._seen(tenant)

    async def delete(self, key: Key) -> None:
        """Removes one answer. Raises StoreError if that is not sure to have happened."""
        name = self._answer_name(key)
        if await self._write(name, ("UNLINK", name)) is None:
            raise StoreError("Redis does not take the deletion.")

    async def invalidate(self, selection: Selection) -> None:
        """From the return on no look-up finds what is selected now. Raises StoreError if Redis does not take it."""
        until_s = time.monotonic() + _INVALIDATE_WITHIN_S
        while True:
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + until_s - time.monotonic()):
                    return await self._set_fence(selection)
            except (RedisError, OSError, TimeoutError, StoreError) as error:
                if time.monotonic() + _PAUSE_S > until_s:
                    raise StoreError(f"Redis does not take the invalidation: {type(error).__name__}.") from error
                await asyncio.sleep(_PAUSE_S)

    async def entries(self) -> AsyncIterator[tuple[Key, Found]]:
        """Every answer that a get would find. Raises StoreError if Redis fails meanwhile."""
        pattern = f"{_escaped(self._prefix)}answer:*"
        for server in self._servers.all():
            cursor = 0
            while True:
                cursor, names = await _slowly(server.client.scan(cursor, match=pattern, count=_SCAN_COUNT))
                for found in await self._all_of(server, [name.decode() for name in names]):
                    yield found
                if cursor == 0:
                    break

    async def stats(self) -> Stats:
        """What the servers hold, other programs' keys included. Raises StoreError."""
        entries = size = room = evicted = 0
        for server in self._servers.all():
            entries += await _slowly(server.client.dbsize())
            memory: dict[str, Any] = await _slowly(server.client.info("memory"))
            counts: dict[str, Any] = await _slowly(server.client.info("stats"))
            size += memory["used_memory"]
            room += memory["maxmemory"]
            evicted += counts["evicted_keys"]
        return Stats(entries=entries, size_bytes=size, max_bytes=room, evicted=evicted)

    async def close(self) -> None:
        """Closes all connections."""
        await self._servers.close()

    # --- names ---

    def _answer_name(self, key: Key) -> str:
        # Quoted, a tenant's braces are no hash tag, and its stars no pattern.
        return f"{self._prefix}answer:{self._quoted(key.tenant)}:{key.digest.hex()}"

    def _fences_name(self, tenant: str) -> str:
        return f"{self._prefix}fences:{self._quoted(tenant)}"

    def _key_of(self, name: str) -> Key | None:
        tenant, _, digest = name.removeprefix(f"{self._prefix}answer:").partition(":")
        try:
            return Key(unquote(tenant), bytes.fromhex(digest))
        except ValueError:
            return None

    # --- reading ---

    async def _read(self, name: str, tenant: str) -> tuple[bytes | None, Seen | None]:
        """An answer's bytes, and the fences as they were when it was read."""
        asked = ((name, ("GET", name)), *((self._fences_name(of), self._version(of)) for of in (tenant, _ALL_TENANTS)))
        data, version, of_all = await self._ask(asked)
        if data is None or not version or not of_all:
            return None, None
        return data, await self._as_of(tenant, version, of_all)

    async def _ask(self, asked: tuple[tuple[str, Command], ...]) -> Replies:
        """The replies to commands, each from the server of its key; None for what does not come."""
        places: dict[Lane, list[int]] = {}
        replies: Replies = [None] * len(asked)
        for place, (name, _) in enumerate(asked):
            if (server := self._servers.of(name)) is not None:
                places.setdefault(server.reads, []).append(place)
        sent = [(mine, lane.send(*(asked[place][1] for place in mine))) for lane, mine in places.items()]
        for mine, future in sent:
            for place, reply in zip(mine, await future or (), strict=False):
                if not isinstance(reply, Exception):
                    replies[place] = reply
        return replies

    def _version(self, tenant: str) -> Command:
        return ("HGET", self._fences_name(tenant), VERSION)

    async def _as_of(self, tenant: str, version: bytes, of_all: bytes) -> Seen | None:
        """The fences of these versions: those that are held, else those that Redis has by now."""
        own, others = await self._fences_of(tenant, version), await self._fences_of(_ALL_TENANTS, of_all)
        return Seen(own, others) if own is not None and others is not None else None

    async def _fences_of(self, tenant: str, version: bytes) -> Fences | None:
        held = self._fences.get(tenant)
        if held is not None and held.version == version:
            return held
        name = self._fences_name(tenant)
        (fields,) = await self._ask(((name, ("HGETALL", name)),))
        return self._hold(tenant, fields) if fields else None

    def _hold(self, tenant: str, fields: dict[bytes, bytes]) -> Fences | None:
        fences = Fences.read(fields)
        if fences is not None:
            self._fences[tenant] = fences
            self._fences.move_to_end(tenant)
            if len(self._fences) > _MOST_TENANTS:
                self._fences.popitem(last=False)
        return fences

    def _opened(self, name: str, key: Key, data: bytes, seen: Seen) -> Found | None:
        """The answer in the bytes; what is no answer any more, or never was one, is deleted."""
        try:
            record = unpack(self._keyring.open(key, data), key, largest_bytes=self._largest_bytes)
        except MissingKey:
            metrics.CACHE_UNREADABLE.labels("missing key").inc()
            return None
        except Unreadable:
            metrics.CACHE_UNREADABLE.labels("damaged").inc()
            self._drop(name)
            return None
        if record.stamp != seen.stamp(key, record.about):
            metrics.CACHE_REMOVED.labels("invalidated").inc()
            self._drop(name)
            return None
        now_ms = self._clock() * 1000
        if now_ms >= record.expires_ms:
            return None
        age_s = max(0.0, now_ms - record.stored_ms) / 1000
        return Found(record.value, age_s, (record.expires_ms - now_ms) / 1000, record.about)

    async def _all_of(self, server: Server, names: list[str]) -> list[tuple[Key, Found]]:
        if not names:
            return []
        pipeline = server.client.pipeline(transaction=False)
        for name in names:
            pipeline.get(name)
        found = []
        for name, data in zip(names, await _slowly(pipeline.execute(raise_on_error=False)), strict=True):
            key = self._key_of(name)
            if key is None or not isinstance(data, bytes):
                continue
            seen = await self._seen(key.tenant)
            if seen is not None and (answer := self._opened(name, key, data, seen)) is not None:
                found.append((key, answer))
        return found

    # --- writing ---

    async def _write(self, name: str, *commands: Command) -> Any:
        """The first command's reply; None if there is none, or if Redis refuses it."""
        server = self._servers.of(name)
        if server is None:
            return None
        replies = await server.writes.send(*commands, size_bytes=_size(commands))
        return None if replies is None or isinstance(replies[0], Exception) else replies[0]

    def _drop(self, name: str) -> None:
        """Deletes without waiting."""
        if (server := self._servers.of(name)) is not None:
            server.writes.send(("UNLINK", name))

    async def _seen(self, tenant: str) -> Seen | None:
        """The fences as they are now; those that are missing are born."""
        tenants = (tenant, _ALL_TENANTS)
        versions = await self._ask(tuple((self._fences_name(of), self._version(of)) for of in tenants))
        own, of_all = [
            await self._fences_of(of, version) if version else await self._born(of)
            for of, version in zip(tenants, versions, strict=True)
        ]
        for of in tenants:
            self._renew(of)
        return Seen(own, of_all) if own is not None and of_all is not None else None

    async def _born(self, tenant: str) -> Fences | None:
        """Fences for a tenant that has none. However many answers want them, they are asked for once."""
        birth = self._births.get(tenant)
        if birth is None:
            birth = self._births[tenant] = asyncio.create_task(self._bear(tenant), name="birth of fences")
            birth.add_done_callback(lambda _: self._births.pop(tenant))
        return await asyncio.shield(birth)

    async def _bear(self, tenant: str) -> Fences | None:
        name = self._fences_name(tenant)
        server = self._servers.of(name)
        if server is None:
            return None
        replies = await server.writes.send(
            ("HSETNX", name, BIRTH, new_id()),
            ("HSETNX", name, VERSION, new_id()),
            ("EXPIRE", name, int(_FENCES_LIVE_S)),
            ("HGETALL", name),
        )
        fields = replies[-1] if replies else None
        return self._hold(tenant, fields) if isinstance(fields, dict) else None

    def _renew(self, tenant: str) -> None:
        """Fences outlive the answers that bear them: they live on while answers come."""
        now_s = time.monotonic()
        if now_s - self._renewed.get(tenant, 0.0) < _FENCES_RENEWED_S:
            return
        if len(self._renewed) >= _MOST_TENANTS:
            self._renewed.clear()
        self._renewed[tenant] = now_s
        name = self._fences_name(tenant)
        if (server := self._servers.of(name)) is not None:
            server.writes.send(("EXPIRE", name, int(_FENCES_LIVE_S)))

    # --- invalidation ---

    async def _set_fence(self, selection: Selection) -> None:
        name = self._fences_name(selection.tenant)
        server = self._servers.of(name)
        if server is None:
            raise StoreError("the server is not known")
        narrow = field_of(selection)
        if narrow == b"{}":
            await server.client.unlink(name)  # without fences all their answers are invalid
            return
        pipeline = server.client.pipeline(transaction=False)
        pipeline.hsetnx(name, BIRTH.decode(), new_id())
        pipeline.hset(name, mapping={VERSION: new_id(), narrow: fence(self._clock())})
        pipeline.expire(name, int(_FENCES_LIVE_S))
        pipeline.hlen(name)
        replicas = int((await server.client.info("replication"))["connected_slaves"])
        if replicas:
            pipeline.wait(replicas, int(_REPLICAS_WITHIN_S * 1000))
        _, is_set, _, fields, *followed = await pipeline.execute(raise_on_error=False)
        if isinstance(is_set, Exception):
            server.refused(is_set)
            if not _is_full(is_set):
                raise is_set
            await server.client.unlink(name)  # a full Redis takes no fence, but it lets go of all that it has
        elif followed and (isinstance(followed[0], Exception) or followed[0] < replicas):
            raise StoreError("a replica does not follow")  # made primary, it would know nothing of the fence
        elif fields > MOST_FENCES:
            await self._tidy(server, name)

    async def _tidy(self, server: Server, name: str) -> None:
        """Forgets fences that are needed no more; if too many are, the whole tenant begins anew."""
        fields: Any = await server.client.hgetall(name)
        old = outlived(fields, self._clock() - LONGEST_S)
        if len(fields) - len(old) > MOST_FENCES:
            await server.client.unlink(name)
        else:
            await server.client.hdel(name, *(each.decode() for each in old))
            await server.client.hset(name, VERSION.decode(), new_id().decode())


def _is_full(error: Exception) -> bool:
    return isinstance(error, OutOfMemoryError) or "OOM" in str(error)


def _size(commands: tuple[Command, ...]) -> int:
    return sum(len(part) for command in commands for part in command if isinstance(part, bytes))


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "*?[]^\\" else letter for letter in text)


async def _slowly(reply: Any) -> Any:
    try:
        async with asyncio.timeout(_SLOW_S):
            return await reply
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreError(f"Redis does not answer: {type(error).__name__}.") from error
