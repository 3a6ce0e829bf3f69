"""CacheService as its callers see it, over a real server and channel."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from modelmuxer.cache.v1 import cache_pb2, cache_pb2_grpc
from modelmuxer.chat.v1 import chat_pb2

from services.cache.__main__ import build
from services.cache.settings import CacheSettings
from shared.errors import MeshError, Reason
from shared.runner import running
from shared.settings import SettingsError
from shared.transcript import replay

ANSWER = chat_pb2.ChatResponse(
    started=chat_pb2.Started(id="req_1", model="openai/gpt-4o-mini"),
    content=[
        chat_pb2.Block(reasoning=chat_pb2.Reasoning(text="hm", signature="c2ln")),
        chat_pb2.Block(text=chat_pb2.Text(text="Slow start doubles the window.")),
    ],
    completed=chat_pb2.Completed(
        finish_reason=chat_pb2.FINISH_REASON_STOP, usage=chat_pb2.Usage(input_tokens=4, output_tokens=0)
    ),
)


def settings_at(home: Path) -> CacheSettings:
    return CacheSettings(port=0, metrics_port=0, home=home, drain_wait_s=0, mesh_token="token")


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[cache_pb2_grpc.CacheServiceAsyncStub]:
    async with running("cache", settings_at(tmp_path), build) as app:
        yield cache_pb2_grpc.CacheServiceStub(app.channel(app.address))


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[cache_pb2_grpc.CacheServiceAsyncStub]:
    async with running("cache", replace(settings_at(tmp_path), max_bytes=1024 * 1024), build) as app:
        yield cache_pb2_grpc.CacheServiceStub(app.channel(app.address))


def key(name: str, tenant: str = "acme") -> cache_pb2.CacheKey:
    return cache_pb2.CacheKey(tenant=tenant, digest=hashlib.sha256(name.encode()).digest())


async def fill(
    cache: cache_pb2_grpc.CacheServiceAsyncStub,
    to: cache_pb2.CacheKey,
    answer: chat_pb2.ChatResponse = ANSWER,
    ttl: Duration | None = None,
) -> cache_pb2.FillResponse:
    async def parts() -> AsyncIterator[cache_pb2.FillRequest]:
        yield cache_pb2.FillRequest(open=cache_pb2.FillOpen(key=to, ttl=ttl))
        for event in replay(answer):
            yield cache_pb2.FillRequest(event=event)

    return await cache.Fill(parts())


async def test_an_answer_comes_back_as_it_was_filled(cache: cache_pb2_grpc.CacheServiceAsyncStub) -> None:
    assert (await fill(cache, key("a"))).stored
    found = await cache.Lookup(cache_pb2.LookupRequest(key=key("a")))
    assert found.answer == ANSWER


async def test_a_whole_answer_may_come_in_the_first_message(cache: cache_pb2_grpc.CacheServiceAsyncStub) -> None:
    whole = cache_pb2.FillRequest(open=cache_pb2.FillOpen(key=key("a"), answer=ANSWER))
    assert (await cache.Fill(iter((whole,)))).stored
    found = await cache.Lookup(cache_pb2.LookupRequest(key=key("a")))
    assert found.answer == ANSWER


async def test_another_tenant_does_not_see_it(cache: cache_pb2_grpc.CacheServiceAsyncStub) -> None:
    await fill(cache, key("a"))
    found = await cache.Lookup(cache_pb2.LookupRequest(key=key("a", tenant="globex")))
    assert not found.HasField("answer")


async def test_an_answer_older_than_asked_for_is_a_miss(cache: cache_pb2_grpc.CacheServiceAsyncStub) -> None:
    await fill(cache, key("a"))
    found = await cache.Lookup(cache_pb2.LookupRequest(key=key("a"), max_age=Duration()))
    assert not found.HasField("answer")


async def test_an_answer_is_kept_no_longer_than_it_may(cache: cache_pb2_grpc.CacheServiceAsyncStub) -> None:
    await fill(cache, key("a"), ttl=Duration(nanos=1))
    found = await cache.Lookup(cache_pb2.LookupRequest(key=key("a")))
    assert not found.HasField("answer")


async def test_an_answer_without_its_end_is_not_stored(cache: cache_pb2_grpc.CacheServiceAsyncStub) -> None:
    cut = chat_pb2.ChatResponse(started=ANSWER.started, content=ANSWER.content)

    async def parts() -> AsyncIterator[cache_pb2.FillRequest]:
        yield cache_pb2.FillRequest(open=cache_pb2.FillOpen(key=key("a")))
        for event in replay(cut):
            if not event.HasField("completed"):
                yield cache_pb2.FillRequest(event=event)

    response = await cache.Fill(parts())
    assert not response.stored
    assert "completed" in response.reason
    assert not (await cache.Lookup(cache_pb2.LookupRequest(key=key("a")))).HasField("answer")


async def test_a_fill_that_is_cancelled_before_its_end_stores_nothing(
    cache: cache_pb2_grpc.CacheServiceAsyncStub,
) -> None:
    call = cache.Fill()
    await call.write(cache_pb2.FillRequest(open=cache_pb2.FillOpen(key=key("a"))))
    for event in list(replay(ANSWER))[:-1]:
        await call.write(cache_pb2.FillRequest(event=event))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not (await cache.Lookup(cache_pb2.LookupRequest(key=key("a")))).HasField("answer")


@pytest.mark.parametrize(
    "reason",
    [
        chat_pb2.FINISH_REASON_LENGTH,
        chat_pb2.FINISH_REASON_CONTENT_FILTER,
        chat_pb2.FINISH_REASON_PAUSE,
        chat_pb2.FINISH_REASON_UNSPECIFIED,
    ],
)
async def test_an_answer_that_was_cut_short_is_not_stored(
    cache: cache_pb2_grpc.CacheServiceAsyncStub, reason: chat_pb2.FinishReason
) -> None:
    cut = chat_pb2.ChatResponse(content=ANSWER.content, completed=chat_pb2.Completed(finish_reason=reason))
    response = await fill(cache, key("a"), cut)
    assert not response.stored
    assert "cut" in response.reason
    assert not (await cache.Lookup(cache_pb2.LookupRequest(key=key("a")))).HasField("answer")


async def test_a_refusal_is_kept_for_its_own_time_and_only_if_one_is_given(
    cache: cache_pb2_grpc.CacheServiceAsyncStub,
) -> None:
    refusal = chat_pb2.ChatResponse(
        content=ANSWER.content, completed=chat_pb2.Completed(finish_reason=chat_pb2.FINISH_REASON_REFUSAL)
    )

    async def kept(name: str, refusal_ttl: Duration | None = None) -> bool:
        opening = cache_pb2.FillOpen(key=key(name), answer=refusal, refusal_ttl=refusal_ttl)
        await cache.Fill(iter((cache_pb2.FillRequest(open=opening),)))
        return (await cache.Lookup(cache_pb2.LookupRequest(key=key(name)))).HasField("answer")

    assert not await kept("a")
    assert await kept("b", refusal_ttl=Duration(seconds=5))
    assert not await kept("c", refusal_ttl=Duration(nanos=1))


async def test_an_answer_that_is_too_large_is_not_stored(small: cache_pb2_grpc.CacheServiceAsyncStub) -> None:
    large = chat_pb2.ChatResponse(
        content=[chat_pb2.Block(text=chat_pb2.Text(text="x" * 200_000))], completed=ANSWER.completed
    )
    response = await fill(small, key("a"), large)
    assert not response.stored
    assert "too large" in response.reason
    assert (await fill(small, key("a"))).stored


async def test_a_new_answer_stands_in_place_of_the_old_one(cache: cache_pb2_grpc.CacheServiceAsyncStub) -> None:
    newer = chat_pb2.ChatResponse(started=chat_pb2.Started(id="req_2"), completed=ANSWER.completed)
    await fill(cache, key("a"))
    await fill(cache, key("a"), newer)
    assert (await cache.Lookup(cache_pb2.LookupRequest(key=key("a")))).answer == newer


async def test_an_answer_tells_its_age(cache: cache_pb2_grpc.CacheServiceAsyncStub) -> None:
    await fill(cache, key("a"))
    first = await cache.Lookup(cache_pb2.LookupRequest(key=key("a"), max_age=Duration(seconds=60)))
    second = await cache.Lookup(cache_pb2.LookupRequest(key=key("a"), max_age=Duration(seconds=60)))
    assert 0 < first.age.ToNanoseconds() < second.age.ToNanoseconds() < 60e9


async def test_without_the_mesh_token_nothing_is_said(tmp_path: Path) -> None:
    async with running("cache", settings_at(tmp_path), build) as app, grpc.aio.insecure_channel(app.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await cache_pb2_grpc.CacheServiceStub(channel).Lookup(cache_pb2.LookupRequest(key=key("a")))
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"CACHE_BACKEND": "redis"}, "REDIS_URL is not set although MODELMUXER_CACHE_STORE is redis"),
        ({"REDIS_URL": "redis://h/0"}, "set MODELMUXER_CACHE_STORE=redis, or unset it"),
        ({"CACHE_BACKEND": "redis", "REDIS_URL": "http://u:pw@h/0"}, "REDIS_URL must begin with redis://"),
        ({"CACHE_BACKEND": "redis", "REDIS_URL": "redis+sentinel://u:pw@h:1"}, "comes the master's name"),
        ({"CACHE_BACKEND": "redis", "REDIS_URL": "redis+cluster://u:pw@h:1/3"}, "database 0 only"),
        ({"CACHE_BACKEND": "redis", "REDIS_URL": "redis://h", "CACHE_KEY_PREFIX": "{mux}:"}, "has a brace"),
        (
            {"CACHE_BACKEND": "redis", "REDIS_URL": "redis://h", "MODELMUXER_CACHE_ENCRYPTION_KEYS": "/nowhere"},
            "ENCRYPTION_KEYS=/nowhere cannot be read",
        ),
    ],
)
def test_settings_of_redis_that_cannot_be_are_refused_with_what_to_set(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(sentence)) as refused:
        CacheSettings.load(environ)
    assert "pw" not in str(refused.value)


def test_the_guides_names_set_the_cache() -> None:
    settings = CacheSettings.load(
        {"CACHE_BACKEND": "memory", "CACHE_TTL": "60", "MODELMUXER_CACHE_MAX_BYTES": "2097152"}
    )
    assert (settings.store, settings.ttl_s, settings.max_bytes) == ("memory", 60, 2097152)


async def test_a_key_without_a_tenant_is_refused_by_name(cache: cache_pb2_grpc.CacheServiceAsyncStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await cache.Lookup(cache_pb2.LookupRequest(key=key("a", tenant="")))
    error = MeshError.from_rpc(refused.value)
    assert (error.reason, error.field) == (Reason.MALFORMED_REQUEST, "key")


@pytest.mark.parametrize(
    "events",
    [
        [],
        [chat_pb2.ChatEvent()],
        [chat_pb2.ChatEvent(delta=chat_pb2.BlockDelta(index=7, text="no block has begun"))],
        [chat_pb2.ChatEvent(completed=ANSWER.completed)] * 2,
        [
            chat_pb2.ChatEvent(block_start=chat_pb2.BlockStart(block=ANSWER.content[1])),
            chat_pb2.ChatEvent(delta=chat_pb2.BlockDelta(signature="no base64!")),
        ],
    ],
)
async def test_messages_that_are_no_answer_are_refused(
    cache: cache_pb2_grpc.CacheServiceAsyncStub, events: list[chat_pb2.ChatEvent]
) -> None:
    async def parts() -> AsyncIterator[cache_pb2.FillRequest]:
        if events:
            yield cache_pb2.FillRequest(open=cache_pb2.FillOpen(key=key("a")))
        for event in events:
            yield cache_pb2.FillRequest(event=event)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await cache.Fill(parts())
    assert MeshError.from_rpc(refused.value).reason == Reason.MALFORMED_REQUEST
