"""The index finds what is nearest, keeps partitions apart, forgets what it is told to, and stays within its bytes."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelmuxer.likeness import Kind

from services.cache.semantic import partition as partition_module
from services.cache.semantic.index import SemanticIndex, vector_of
from services.cache.semantic.partition import Entry, Partition, Vector
from services.cache.stores import Key

SIZE = 24
FOREVER = 2.0**40


def vectors(count: int, seed: int = 1) -> list[Vector]:
    drawn = np.random.default_rng(seed).normal(size=(count, SIZE)).astype(np.float32)
    return list(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def digest(name: object) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()


def entry(name: object, expires_s: float = FOREVER) -> Entry:
    return Entry(f"What is part {name}?", digest(name), expires_s)


def key(tenant: str, name: object = 0) -> Key:
    return Key(tenant, digest(name))


@pytest.mark.parametrize("tail", [10_000, 50], ids=["searched exactly", "mostly in the graph"])
def test_the_nearest_is_found(monkeypatch: pytest.MonkeyPatch, tail: int) -> None:
    monkeypatch.setattr(partition_module, "TAIL", tail)
    known = vectors(600)
    held = Partition(SIZE)
    for number, vector in enumerate(known[:300]):
        held.add(vector, entry(number))
    held.extend(known[300:], [entry(number) for number in range(300, 600)])
    right = 0
    for vector in vectors(100, seed=2):
        best = int(np.argmax(np.array(known) @ vector))
        near = held.nearest(vector, 3)
        right += near[0].entry.digest == digest(best)
        assert near[0].similarity == pytest.approx(float(known[best] @ vector), abs=0.01) or tail == 50
    assert right >= (100 if tail == 10_000 else 95)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "remove"]), st.integers(0, 30)), max_size=120), st.integers(4, 40))
def test_what_is_added_is_found_and_what_is_removed_is_not(orders: list[tuple[str, int]], tail: int) -> None:
    known = vectors(31)
    held = Partition(SIZE)
    model: set[int] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partition_module, "TAIL", tail)
        for order, number in orders:
            if order == "add":
                held.add(known[number], entry(number))
                model.add(number)
            else:
                held.remove(digest(number))
                model.discard(number)
    assert len(held) == len(model)
    for number, vector in enumerate(known):
        near = held.nearest(vector, 1)
        found = bool(near) and near[0].entry.digest == digest(number)
        assert found == (number in model)


def test_partitions_are_walls() -> None:
    index = SemanticIndex(2**24, lambda: 0.0)
    (vector,) = vectors(1)
    index.add(key("acme", "policy"), vector, entry("bread"))
    assert index.best(key("acme", "policy"), vector, "What is part bread?") is not None
    for apart in (key("globex", "policy"), key("acme", "another policy")):
        assert index.best(apart, vector, "What is part bread?") is None
    assert index.best(key("acme", "policy"), vectors(1)[0][:12], "What is part bread?") is None


def test_words_decide_among_the_nearest() -> None:
    index = SemanticIndex(2**24, lambda: 0.0)
    (vector,) = vectors(1)
    index.add(key("acme"), vector, Entry("Who won in 2015?", digest(1), FOREVER))
    index.add(key("acme"), vector, Entry("who won in 2016", digest(2), FOREVER))
    match = index.best(key("acme"), vector, "Who won in 2016?")
    assert match is not None
    assert (match.difference.kind, match.near.entry.digest) == (Kind.SAME, digest(2))


def test_what_has_expired_is_forgotten() -> None:
    now_s = 100.0
    index = SemanticIndex(2**24, lambda: now_s)
    (vector,) = vectors(1)
    index.add(key("acme"), vector, entry("old", 101.0))
    assert index.best(key("acme"), vector, "What is part old?") is not None
    now_s = 101.0
    assert index.best(key("acme"), vector, "What is part old?") is None
    assert len(index) == 0


def test_memory_is_bounded_and_the_least_recently_used_goes_first() -> None:
    index = SemanticIndex(2**19, lambda: 0.0)
    known = vectors(2000)
    for number, vector in enumerate(known):
        index.add(key("acme", number // 100), vector, entry(number))
        assert index.size_bytes <= 2**19
    assert index.best(key("acme", 0), known[0], "What is part 0?") is None
    assert index.best(key("acme", 19), known[1999], "What is part 1999?") is not None


def test_one_partition_alone_stays_within_its_bytes_too() -> None:
    index = SemanticIndex(2**18, lambda: 0.0)
    for number, vector in enumerate(vectors(1500)):
        index.add(key("acme"), vector, entry(number))
        assert index.size_bytes <= 2**18
    assert 0 < len(index) < 1500


@pytest.mark.parametrize("packed", [b"", b"abc", bytes(8), np.array([np.nan], "<f4").tobytes()])
def test_bytes_that_are_no_vector_are_none(packed: bytes) -> None:
    assert vector_of(packed) is None


def test_vectors_get_length_1() -> None:
    vector = vector_of(np.array([3.0, 4.0], "<f4").tobytes())
    assert vector is not None
    assert vector.tolist() == pytest.approx([0.6, 0.8])
