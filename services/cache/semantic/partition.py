"""The questions that may stand for one another, and their vectors.

New vectors stand in a tail that is searched exactly; from `TAIL` of them on, they move into a graph (HNSW), one with
each that is added, so that no call waits for many. Not safe for threads: it lives on the event loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from usearch.index import Index
from usearch.index import search as exact_search

TAIL = 4096  # exact search of so many takes about a millisecond
CONNECTIVITY = 16
EXPANSION_ADD = 40
EXPANSION_SEARCH = 64
ENTRY_BYTES = 420  # a question's record beside its text and vector, measured over 100,000 on CPython 3.11
_GROWTH = 64

Vector = npt.NDArray[np.float32]
Half = npt.NDArray[np.float16]


class Entry(NamedTuple):
    """A question: what was said, where its answer stands, until when."""

    text: str
    digest: bytes
    expires_s: float


class Near(NamedTuple):
    """A question near another."""

    similarity: float
    entry: Entry


class Partition:
    """Vectors of one length with their questions."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self.text_bytes = 0
        self._entries: dict[int, Entry] = {}
        self._by_digest: dict[bytes, int] = {}
        self._next = 0
        self._tail: Half = np.empty((_GROWTH, dimensions), np.float16)
        self._labels: list[int] = []  # of the tail's rows
        self._graph: Index | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, vector: Vector, entry: Entry) -> None:
        """Adds a question in place of an earlier one with the same answer."""
        self.remove(entry.digest)
        self._append(vector, entry)
        if len(self._labels) > TAIL:
            self._settle(1)

    def extend(self, vectors: Sequence[Vector], entries: Sequence[Entry]) -> None:
        """Adds many at once: takes as long as it takes."""
        for vector, entry in zip(vectors, entries, strict=True):
            self.remove(entry.digest)
            self._append(vector, entry)
        if len(self._labels) > TAIL:
            self._settle(len(self._labels) - TAIL)

    def remove(self, digest: bytes) -> None:
        """Forgets the question of an answer, if it is there."""
        label = self._by_digest.pop(digest, None)
        if label is None:
            return
        self.text_bytes -= len(self._entries.pop(label).text)
        if self._graph is not None and label in self._graph:
            self._graph.remove(label)
            return
        row, last = self._labels.index(label), len(self._labels) - 1
        self._tail[row] = self._tail[last]
        self._labels[row] = self._labels[last]
        self._labels.pop()

    def remove_oldest(self) -> None:
        """Forgets the question that was added first."""
        self.remove(next(iter(self._entries.values())).digest)

    def nearest(self, vector: Vector, count: int) -> list[Near]:
        """The nearest questions, the nearest first."""
        found: dict[int, float] = {}
        half = vector.astype(np.float16)
        if self._labels:
            matches = exact_search(
                self._tail[: len(self._labels)], half, min(count, len(self._labels)), "cos", exact=True, threads=1
            )
            for row, distance in zip(matches.keys, matches.distances, strict=True):
                found[self._labels[int(row)]] = float(distance)
        if self._graph is not None and len(self._graph):
            matches = self._graph.search(half, count, threads=1)
            for label, distance in zip(matches.keys, matches.distances, strict=True):
                found[int(label)] = float(distance)
        best = sorted(found.items(), key=lambda each: each[1])[:count]
        return [Near(1.0 - distance, self._entries[label]) for label, distance in best]

    @property
    def size_bytes(self) -> int:
        """What it takes in memory, near enough: vectors, graph, questions."""
        graph = 0 if self._graph is None else len(self._graph) * (2 * self.dimensions + 10 * CONNECTIVITY)
        return graph + self._tail.nbytes + self.text_bytes + ENTRY_BYTES * len(self._entries)

    def _append(self, vector: Vector, entry: Entry) -> None:
        row = len(self._labels)
        if row == len(self._tail):
            self._tail = np.concatenate((self._tail, np.empty((max(_GROWTH, row // 2), self.dimensions), np.float16)))
        self._tail[row] = vector
        label, self._next = self._next, self._next + 1
        self._labels.append(label)
        self._entries[label] = entry
        self._by_digest[entry.digest] = label
        self.text_bytes += len(entry.text)

    def _settle(self, count: int) -> None:
        """Moves the tail's first rows into the graph."""
        if self._graph is None:
            self._graph = Index(
                ndim=self.dimensions,
                metric="cos",
                dtype="f16",
                connectivity=CONNECTIVITY,
                expansion_add=EXPANSION_ADD,
                expansion_search=EXPANSION_SEARCH,
            )
        keys = np.array(self._labels[:count], np.uint64)
        self._graph.add(keys, self._tail[:count], threads=1 if count == 1 else 0)
        last = len(self._labels) - count
        moved = min(count, last)  # the tail has no order: its end fills the gap
        self._tail[:moved] = self._tail[len(self._labels) - moved : len(self._labels)].copy()
        self._labels[:moved] = self._labels[len(self._labels) - moved :]
        del self._labels[last:]
