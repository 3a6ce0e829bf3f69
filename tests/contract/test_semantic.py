"""The cache's semantic calls over real gRPC: what is remembered is found, tenants are walls, verdicts move the line."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from modelmuxer.cache.v1 import cache_pb2
from modelmuxer.cache.v1.cache_pb2_grpc import CacheServiceStub

from services.cache.__main__ import build
from services.cache.semantic.index import SemanticIndex
from services.cache.semantic.memory import Memory
from services.cache.settings import CacheSettings
from services.cache.stores.memory import MemoryStore
from shared.runner import running

if TYPE_CHECKING:
    from modelmuxer.cache.v1.cache_pb2_grpc import CacheServiceAsyncStub

BREAD = "How do I bake rye bread in 2 hours?"


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[CacheServiceAsyncStub]:
    settings = CacheSettings(port=0, metrics_port=0, home=tmp_path, drain_wait_s=0, mesh_token="token")
    async with running("cache", settings, build) as app:
        yield CacheServiceStub(app.channel(app.address))


def question(text: str, *, tenant: str = "acme", policy: str = "faq", turn: float = 0.0) -> Any:
    """A question whose vector is turned away from that of others by so much."""
    vector = np.array([np.cos(turn), np.sin(turn)] + [0.0] * 6, "<f4")
    partition = cache_pb2.CacheKey(tenant=tenant, digest=hashlib.sha256(policy.encode()).digest())
    return cache_pb2.SemanticQuestion(partition=partition, text=text, vector=vector.tobytes(), **{"class": policy})


def remembering(asked: Any, **fields: Any) -> cache_pb2.RememberRequest:
    digest = hashlib.sha256(asked.text.encode()).digest()
    key = cache_pb2.CacheKey(tenant=asked.partition.tenant, digest=digest)
    return cache_pb2.RememberRequest(question=asked, key=key, **fields)


def finding(asked: Any, threshold: float = 0.9, most_wrong: float = 0.0) -> cache_pb2.FindSimilarRequest:
    return cache_pb2.FindSimilarRequest(question=asked, threshold=threshold, most_wrong=most_wrong)


def verdict(score: float, *, wrong: bool) -> cache_pb2.JudgeRequest:
    named: Any = {"class": "faq"}
    return cache_pb2.JudgeRequest(tenant="acme", score=score, wrong=wrong, **named)


async def test_a_like_question_names_the_answer(cache: CacheServiceAsyncStub) -> None:
    request = remembering(question(BREAD))
    assert (await cache.Remember(request)).remembered
    found = await cache.FindSimilar(finding(question("please, how do i bake rye bread in two hours", turn=0.3)))
    assert found.key == request.key
    assert found.similarity == pytest.approx(np.cos(0.3), abs=0.001)
    assert found.difference == "same"
    assert not found.HasField("near")


async def test_a_near_one_with_another_answer_does_not(cache: CacheServiceAsyncStub) -> None:
    await cache.Remember(remembering(question(BREAD)))
    found = await cache.FindSimilar(finding(question("How do I bake rye bread in 3 hours?")))
    assert not found.HasField("key")
    assert not found.HasField("near")


@pytest.mark.parametrize("apart", [{"tenant": "globex"}, {"policy": "other"}])
async def test_tenants_and_policies_are_walls(cache: CacheServiceAsyncStub, apart: dict[str, Any]) -> None:
    await cache.Remember(remembering(question(BREAD)))
    assert not (await cache.FindSimilar(finding(question(BREAD, **apart)))).HasField("key")


async def test_two_tenants_under_load_never_meet(cache: CacheServiceAsyncStub) -> None:
    tenants = ("acme", "globex")
    for number in range(200):
        for tenant in tenants:
            text = f"{tenant}: how do I bake loaf {number}?"
            await cache.Remember(remembering(question(text, tenant=tenant)))
    for number in range(200):
        for tenant in tenants:
            text = f"{tenant}: how do I bake loaf {number}?"
            found = await cache.FindSimilar(finding(question(text, tenant=tenant)))
            assert not found.HasField("key") or found.key.tenant == tenant
            other = tenants[1 - tenants.index(tenant)]
            crossed = await cache.FindSimilar(finding(question(text, tenant=other)))
            assert not crossed.HasField("key")


async def test_verdicts_raise_the_line_and_a_near_answer_is_told(cache: CacheServiceAsyncStub) -> None:
    await cache.Remember(remembering(question("How do I keep bees?")))
    asked = question("How do I keep bees at home?", turn=0.4)  # similarity .92
    hit = await cache.FindSimilar(finding(asked, most_wrong=0.02))
    assert hit.HasField("key")
    for _ in range(20):
        counted = await cache.Judge(verdict(hit.score, wrong=True))
    assert (counted.verdicts, counted.wrong) == (20, 20)
    after = await cache.FindSimilar(finding(asked, most_wrong=0.02))
    assert after.threshold > hit.score
    assert not after.HasField("key")
    assert after.near == hit.key
    untouched = await cache.FindSimilar(finding(asked))
    assert untouched.HasField("key")


@pytest.mark.parametrize(
    "broken",
    [
        cache_pb2.SemanticQuestion(),
        question(BREAD, tenant=""),
        cache_pb2.SemanticQuestion(partition=cache_pb2.CacheKey(tenant="a", digest=bytes(32)), vector=b"abc"),
    ],
)
async def test_what_is_no_question_is_refused(cache: CacheServiceAsyncStub, broken: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await cache.FindSimilar(finding(broken))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_index_and_the_verdicts_are_made_again_from_the_store() -> None:
    store = MemoryStore(2**24, time.monotonic)
    before = Memory(store, SemanticIndex(2**24, time.time), ttl_s=60, clock=time.time)
    request = remembering(question(BREAD))
    assert (await before.remember(request)).remembered
    await before.judge(verdict(0.95, wrong=True))
    after = Memory(store, SemanticIndex(2**24, time.time), ttl_s=60, clock=time.time)
    assert not (await after.find(finding(question(BREAD)))).HasField("key")
    await after.rebuild()
    assert (await after.find(finding(question(BREAD)))).key == request.key
    counted = await after.judge(verdict(0.95, wrong=False))
    assert (counted.verdicts, counted.wrong) == (2, 1)


async def test_a_question_outlives_neither_its_answer_nor_its_time() -> None:
    now_s = 0.0
    store = MemoryStore(2**24, time.monotonic)
    memory = Memory(store, SemanticIndex(2**24, lambda: now_s), ttl_s=60, clock=lambda: now_s)
    await memory.remember(remembering(question(BREAD), ttl=Duration(seconds=5)))
    assert (await memory.find(finding(question(BREAD)))).HasField("key")
    now_s = 5.0
    assert not (await memory.find(finding(question(BREAD)))).HasField("key")
    spent = await memory.remember(remembering(question(BREAD), ttl=Duration()))
    assert not spent.remembered
