"""A store in this process's memory, bounded in bytes by S3-FIFO (Yang et al., SOSP 2023).

New answers pass through a small queue, and only those that were asked for again, or that come back soon after they
left, reach the main one: a scan of questions that nobody repeats washes through a tenth of the room. A hit moves
nothing, it only counts.

Invalidation is a fence: what is older and falls under it is gone at once; a sweep frees the room afterwards.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from services.cache.stores import NOTHING, About, Found, Key, Mark, Selection, Stats
from shared.telemetry import metrics

# What an entry costs beside its value: key, record, dictionary slot and the value's own header. Measured with
# tracemalloc over 100,000 entries on CPython 3.11 (test_memory_store holds it to that).
ENTRY_OVERHEAD_BYTES = 496
_TAG_OVERHEAD_BYTES = 64
# A key that is remembered after its answer was evicted.
GHOST_BYTES = 288
# One value may take this share of the room, so that a few giants do not empty the cache.
_LARGEST_SHARE = 8
# The small queue's share of the room, as in the paper; and the ghosts', beside which the paper counts keys.
_SMALL_SHARE = 10
_GHOST_SHARE = 50
_MOST_HITS = 3
_SWEEP_STEP = 500
_MOST_NAMES = 10_000
# Fences that are kept for answers under way. An answer that began before the oldest of them is not stored.
_MOST_FENCES = 1_000


@dataclass(slots=True)
class _Entry:
    value: bytes
    about: About
    stored_s: float
    expires_s: float
    moment: int
    hits: int = 0


@dataclass(frozen=True, slots=True)
class _Fence:
    moment: int
    selection: Selection


@dataclass(frozen=True, slots=True)
class _Moment(Mark):
    number: int


class MemoryStore:
    """Implements Store. ``clock`` returns monotonic seconds."""

    def __init__(self, max_bytes: int, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._small: OrderedDict[Key, _Entry] = OrderedDict()
        self._main: OrderedDict[Key, _Entry] = OrderedDict()
        self._ghosts: OrderedDict[Key, None] = OrderedDict()
        self._most_ghosts = max_bytes // _GHOST_SHARE // GHOST_BYTES
        self._names: dict[str, str] = {}
        self._bytes = 0
        self._small_bytes = 0
        self._evicted = 0
        self._moment = 0
        self._fences: deque[_Fence] = deque(maxlen=_MOST_FENCES)
        self._unswept: list[_Fence] = []
        self._sweep: asyncio.Task[None] | None = None

    @property
    def largest_bytes(self) -> int:
        """What one entry may take."""
        return self._max_bytes // _LARGEST_SHARE

    def __len__(self) -> int:
        return len(self._small) + len(self._main)

    @property
    def size_bytes(self) -> int:
        """What the entries take, their overhead and the ghosts included."""
        return self._bytes + len(self._ghosts) * GHOST_BYTES

    async def get(self, key: Key) -> Found | None:
        """Returns an answer, unless it is missing, was invalidated, or has outlived its time."""
        return self._found(key)

    async def put(
        self, key: Key, value: bytes, ttl_s: float, about: About = NOTHING, *, since: Mark | None = None
    ) -> bool:
        """Stores an answer for a time, in place of an earlier one. False if it is not kept."""
        size = _size(key, value, about)
        if size > self.largest_bytes or not self._still_good(key, about, since):
            return False
        self._remove(key, "replaced")
        returned = key in self._ghosts
        if returned:
            del self._ghosts[key]
        while self.size_bytes + size > self._max_bytes:
            self._evict()
        now_s = self._clock()
        entry = _Entry(value, self._shared(about), now_s, now_s + ttl_s, self._moment)
        self._bytes += size
        if returned:
            self._main[key] = entry
        else:
            self._small[key] = entry
            self._small_bytes += size
        self._report()
        return True

    async def mark(self, tenant: str) -> Mark:
        """This moment."""
        return _Moment(self._moment)

    async def delete(self, key: Key) -> None:
        """Removes one answer."""
        self._remove(key, "deleted")
        self._report()

    async def invalidate(self, selection: Selection) -> None:
        """From now on nothing that is selected is served."""
        self._moment += 1
        fence = _Fence(self._moment, selection)
        self._fences.append(fence)
        self._unswept.append(fence)
        if self._sweep is None or self._sweep.done():
            self._sweep = asyncio.create_task(self._swept(), name="sweep of invalidated answers")

    async def entries(self) -> AsyncIterator[tuple[Key, Found]]:
        """Every answer that a get would find."""
        for key in [*self._small, *self._main]:
            entry = self._small.get(key) or self._main.get(key)
            if entry is not None and (found := self._live(key, entry)) is not None:
                yield key, found

    async def stats(self) -> Stats:
        """What the store holds."""
        return Stats(entries=len(self), size_bytes=self.size_bytes, max_bytes=self._max_bytes, evicted=self._evicted)

    async def close(self) -> None:
        """Ends the sweep."""
        if self._sweep is not None:
            self._sweep.cancel()

    def _found(self, key: Key) -> Found | None:
        entry = self._small.get(key) or self._main.get(key)
        if entry is None:
            return None
        found = self._live(key, entry)
        if found is None:
            self._remove(key, "expired" if self._clock() >= entry.expires_s else "invalidated")
            self._report()
        elif entry.hits < _MOST_HITS:
            entry.hits += 1
        return found

    def _live(self, key: Key, entry: _Entry) -> Found | None:
        now_s = self._clock()
        if now_s >= entry.expires_s:
            return None
        for fence in self._unswept:
            if entry.moment < fence.moment and fence.selection.covers(key, entry.about):
                return None
        return Found(entry.value, now_s - entry.stored_s, entry.expires_s - now_s, entry.about)

    def _still_good(self, key: Key, about: About, since: Mark | None) -> bool:
        """Whether no invalidation since that moment is meant for the answer."""
        if not isinstance(since, _Moment) or since.number == self._moment:
            return True
        if since.number < self._fences[0].moment - 1:
            return False  # fences of that time are forgotten
        return not any(fence.moment > since.number and fence.selection.covers(key, about) for fence in self._fences)

    async def _swept(self) -> None:
        """Frees what the fences have cut off, a few entries at a time: look-ups go on in between."""
        while self._unswept:
            fences = tuple(self._unswept)
            for place, key in enumerate([*self._small, *self._main]):
                entry = self._small.get(key) or self._main.get(key)
                if entry is not None and self._live(key, entry) is None:
                    self._remove(key, "invalidated")
                if place % _SWEEP_STEP == 0:
                    await asyncio.sleep(0)
            self._unswept = [fence for fence in self._unswept if fence not in fences]
            self._report()

    def _shared(self, about: About) -> About:
        """The same with names that are held once, however many answers bear them."""
        if len(self._names) > _MOST_NAMES:
            self._names.clear()
        hold = self._names.setdefault
        return About(
            alias=hold(about.alias, about.alias),
            model=hold(about.model, about.model),
            tags=tuple(hold(tag, tag) for tag in about.tags),
            cost_nanos=about.cost_nanos,
            note=about.note,
        )

    def _evict(self) -> None:
        """Makes some room: S3-FIFO's eviction, by one step."""
        if self._small and (self._small_bytes * _SMALL_SHARE > self._max_bytes or not self._main):
            key, entry = self._small.popitem(last=False)
            size = _size(key, entry.value, entry.about)
            self._small_bytes -= size
            if entry.hits:
                entry.hits = 0
                self._main[key] = entry
                return
            self._remember(key)
        else:
            key, entry = self._main.popitem(last=False)
            if entry.hits:
                entry.hits -= 1
                self._main[key] = entry
                return
            size = _size(key, entry.value, entry.about)
        self._bytes -= size
        self._evicted += 1
        metrics.CACHE_REMOVED.labels("evicted").inc()

    def _remember(self, key: Key) -> None:
        self._ghosts[key] = None
        while len(self._ghosts) > self._most_ghosts:
            self._ghosts.popitem(last=False)

    def _remove(self, key: Key, why: str) -> None:
        if (entry := self._small.pop(key, None)) is not None:
            self._small_bytes -= _size(key, entry.value, entry.about)
        elif (entry := self._main.pop(key, None)) is None:
            return
        self._bytes -= _size(key, entry.value, entry.about)
        metrics.CACHE_REMOVED.labels(why).inc()

    def _report(self) -> None:
        metrics.CACHE_ENTRIES.set(len(self))
        metrics.CACHE_BYTES.set(self.size_bytes)


def _size(key: Key, value: bytes, about: About) -> int:
    texts = len(value) + len(key.tenant) + len(key.digest) + len(about.note)
    return texts + sum(len(tag) + _TAG_OVERHEAD_BYTES for tag in about.tags) + ENTRY_OVERHEAD_BYTES
