"""All partitions of this replica, bounded in bytes: what was used least recently goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from modelmuxer.likeness import Difference, compare, read, score

from services.cache.semantic.partition import Entry, Near, Partition, Vector
from services.cache.stores import Key
from shared.telemetry import metrics

CANDIDATES = 3  # the right one is among them for 97.6 % of questions that have one (5,000 stored)


class Match(NamedTuple):
    """A stored question beside another: how near, how they differ, and the highest threshold that lets it through."""

    near: Near
    difference: Difference
    score: float


class SemanticIndex:
    """Questions by partition. ``clock`` returns seconds since the epoch, which survive a restart."""

    def __init__(self, max_bytes: int, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._partitions: OrderedDict[Key, Partition] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return sum(map(len, self._partitions.values()))

    @property
    def size_bytes(self) -> int:
        """What the partitions take."""
        return self._bytes

    def add(self, partition: Key, vector: Vector, entry: Entry) -> None:
        """Adds a question, in place of an earlier one with the same answer."""
        self.extend(partition, [vector], [entry])

    def extend(self, key: Key, vectors: list[Vector], entries: list[Entry]) -> None:
        """Adds questions of one partition."""
        partition = self._partitions.get(key)
        before = partition.size_bytes if partition is not None else 0
        if partition is None or partition.dimensions != len(vectors[0]):
            partition = self._partitions[key] = Partition(len(vectors[0]))
        if len(vectors) == 1:
            partition.add(vectors[0], entries[0])
        else:
            partition.extend(vectors, entries)
        self._partitions.move_to_end(key)
        self._bytes += partition.size_bytes - before
        self._make_room()
        self._report()

    def best(self, key: Key, vector: Vector, text: str) -> Match | None:
        """The stored question that stands best for another, whether or not it stands well enough."""
        partition = self._partitions.get(key)
        if partition is None or partition.dimensions != len(vector):
            return None
        self._partitions.move_to_end(key)
        asked, now_s = read(text), self._clock()
        matches = []
        for near in partition.nearest(vector, CANDIDATES):
            if near.entry.expires_s <= now_s:
                self._forget(partition, near.entry.digest)
                continue
            difference = compare(asked, read(near.entry.text))
            matches.append(Match(near, difference, score(near.similarity, difference)))
        return max(matches, key=lambda match: match.score, default=None)

    def forget(self, key: Key, digest: bytes) -> None:
        """Forgets the question of an answer."""
        if (partition := self._partitions.get(key)) is not None:
            self._forget(partition, digest)

    def drop(self, keys: Iterable[Key]) -> None:
        """Forgets whole partitions."""
        for key in list(keys):
            if (partition := self._partitions.pop(key, None)) is not None:
                self._bytes -= partition.size_bytes
        self._report()

    def _forget(self, partition: Partition, digest: bytes) -> None:
        before = partition.size_bytes
        partition.remove(digest)
        self._bytes += partition.size_bytes - before
        self._report()

    def _make_room(self) -> None:
        while self._bytes > self._max_bytes and self._partitions:
            key, oldest = next(iter(self._partitions.items()))
            before = oldest.size_bytes
            # The one that was just used keeps what it can; another that was not for long goes whole.
            if len(self._partitions) > 1:
                del self._partitions[key]
                self._bytes -= before
                continue
            if not len(oldest):
                break
            oldest.remove_oldest()
            self._bytes += oldest.size_bytes - before
            if oldest.size_bytes == before:
                break

    def _report(self) -> None:
        metrics.SEMANTIC_BYTES.set(self._bytes)
        metrics.SEMANTIC_PARTITIONS.set(len(self._partitions))


def vector_of(packed: bytes) -> Vector | None:
    """A vector of length 1 from little-endian 32-bit floats; None for bytes that are none."""
    if not packed or len(packed) % 4:
        return None
    vector = np.frombuffer(packed, "<f4").astype(np.float32)
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length == 0.0:
        return None
    return vector / np.float32(length)
