"""What callers and operators say to the response cache, and what HTTP caches are told. Real routers and caches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from modelmuxer.accounting.v1.accounting_pb2 import SCOPE_ADMIN, SCOPE_CHAT
from modelmuxer.cache.v1 import cache_pb2
from modelmuxer.chat.v1.chat_pb2 import CacheControl, CacheInfo, ChatRequest, ChatResponse

from shared.errors import MeshError, Reason
from tests.contract.router_neighbours import (
    FIRST,
    SECRET,
    Neighbourhood,
    answer,
    beginning,
    chat,
    delta,
    neighbourhood,
    principal,
)
from tests.contract.test_flights import bearer, until

ADMIN = "mm-admin"
BODY = {"model": FIRST, "messages": [{"role": "user", "content": "How long?"}]}


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Neighbourhood]:
    async with neighbourhood(tmp_path, routers=2, caches=2) as town:
        town.accounting.principals[ADMIN] = principal("ops", "admin")
        town.accounting.principals[ADMIN].scopes[:] = [SCOPE_CHAT, SCOPE_ADMIN]
        for router in town.stubs:
            await router.Chat(chat("warm up"), metadata=bearer(), timeout=10)
        town.proxy.requests.clear()
        yield town


async def ask(town: Neighbourhood, request: ChatRequest, *, router: int = 0) -> ChatResponse:
    return await town.stubs[router].Chat(request, metadata=bearer(), timeout=10)


async def status(town: Neighbourhood, request: ChatRequest, *, router: int = 0) -> int:
    return (await ask(town, request, router=router)).completed.cache.status


async def kept(town: Neighbourhood, request: ChatRequest) -> None:
    """Asks until the cache has the answer."""
    deadline = asyncio.get_running_loop().time() + 10
    while await status(town, request) != CacheInfo.STATUS_EXACT:
        assert asyncio.get_running_loop().time() < deadline


async def invalidate(town: Neighbourhood, secret: str = ADMIN, **selection: Any) -> None:
    request = cache_pb2.InvalidateRequest(**selection)
    await town.stubs[1].InvalidateCache(request, metadata=bearer(secret), timeout=10)


@pytest.mark.parametrize(
    "selection",
    [{"tenant": "acme"}, {"model": FIRST}, {"tag": "doc=7"}, {"all": True}, {"tenant": "acme", "tag": "doc=7"}],
    ids=str,
)
async def test_what_is_invalidated_is_not_served_again_by_any_router(
    town: Neighbourhood, selection: dict[str, Any]
) -> None:
    requests = [chat(f"question {number}", tags={"doc": "7"}) for number in range(6)]
    for request in requests:
        await kept(town, request)
    await invalidate(town, **selection)
    for number, request in enumerate(requests):
        assert await status(town, request, router=number % 2) == CacheInfo.STATUS_MISS


@pytest.mark.parametrize("selection", [{"tenant": "other"}, {"model": "other/model"}, {"tag": "doc=8"}], ids=str)
async def test_what_is_not_meant_stays(town: Neighbourhood, selection: dict[str, Any]) -> None:
    await kept(town, chat("stays", tags={"doc": "7"}))
    await invalidate(town, **selection)
    assert await status(town, chat("stays", tags={"doc": "7"})) == CacheInfo.STATUS_EXACT


async def test_an_answer_that_was_being_made_when_it_was_invalidated_is_not_kept(town: Neighbourhood) -> None:
    gate = asyncio.Event()
    town.proxy.scripts[FIRST] = lambda _: [*beginning(), delta("old"), gate, *answer()[-2:]]
    old = asyncio.create_task(ask(town, chat("changed meanwhile")))
    await until(lambda: len(town.proxy.requests) == 1)
    await invalidate(town, tenant="acme")
    town.proxy.scripts[FIRST] = lambda _: answer("new")
    assert await status(town, chat("changed meanwhile"), router=1) == CacheInfo.STATUS_MISS
    gate.set()
    assert (await old).content[0].text.text == "old"
    await kept(town, chat("changed meanwhile"))
    assert "new" in (await ask(town, chat("changed meanwhile"))).content[0].text.text


async def test_only_admins_may_empty_the_cache_or_look_into_it(town: Neighbourhood) -> None:
    for call in (
        town.stub.InvalidateCache(cache_pb2.InvalidateRequest(all=True), metadata=bearer()),
        town.stub.GetCacheStats(cache_pb2.GetStatsRequest(), metadata=bearer()),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert MeshError.from_rpc(refused.value).reason == Reason.KEY_NOT_ALLOWED
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await invalidate(town)
    assert MeshError.from_rpc(refused.value).field == "all"


async def test_the_figures_of_all_replicas_are_added_up_by_tenant(town: Neighbourhood) -> None:
    for number in range(8):
        await kept(town, chat(f"counted {number}"))
    stats = await town.stub.GetCacheStats(cache_pb2.GetStatsRequest(), metadata=bearer(ADMIN))
    assert stats.entries >= 8
    assert stats.size_bytes > 0
    [acme] = [tenant for tenant in stats.tenants if tenant.tenant == "acme"]
    assert acme.hits >= 8
    assert acme.misses >= 8
    assert acme.saved_nanos > 0


async def test_a_stale_answer_is_given_at_once_and_made_anew_behind_the_callers_back(town: Neighbourhood) -> None:
    town.proxy.scripts[FIRST] = lambda _: answer("old")
    await kept(town, chat("revalidated"))
    gate = asyncio.Event()
    town.proxy.scripts[FIRST] = lambda _: [gate, *answer("new")]
    before = len(town.proxy.requests)
    control = CacheControl(max_age=Duration(), stale_while_revalidate=Duration(seconds=60))
    for router in (0, 1, 0):
        given = await ask(town, chat("revalidated", cache=control), router=router)
        assert given.completed.cache.status == CacheInfo.STATUS_STALE
        assert given.content[0].text.text.strip() == "old"
        assert given.completed.cost.nanos == 0
    await until(lambda: len(town.proxy.requests) == before + 1)
    gate.set()

    async def renewed() -> bool:
        return (await ask(town, chat("revalidated"))).content[0].text.text.strip() == "new"

    deadline = asyncio.get_running_loop().time() + 10
    while not await renewed():
        assert asyncio.get_running_loop().time() < deadline
    assert len(town.proxy.requests) == before + 1


async def test_http_caches_are_told_what_they_may_do(town: Neighbourhood) -> None:
    base = f"http://{town.apps['router 0'].listening['http']}"
    headers = {"Authorization": f"Bearer {SECRET}"}
    async with aiohttp.ClientSession(base, headers=headers) as session:
        async with session.post("/v1/chat/completions", json=BODY) as fresh:
            assert fresh.headers["Cache-Control"] == "private, no-cache"
            assert "Age" not in fresh.headers
        await kept(town, chat("How long?"))
        async with session.post("/v1/chat/completions", json=BODY) as hit:
            assert hit.headers["x-modelmuxer-cache"] == "exact"
            assert hit.headers["ETag"] == fresh.headers["ETag"]
            assert hit.headers["Age"].isdecimal()
            assert "Authorization" in hit.headers["Vary"]
        async with session.post("/v1/chat/completions", json={**BODY, "stream": True}) as streamed:
            assert streamed.headers["Cache-Control"] == "private, no-cache"
            assert streamed.headers["Age"].isdecimal()
        for refused in ({"Cache-Control": "no-store"}, {"Cache-Control": "max-age=0, no-store"}):
            async with session.post("/v1/chat/completions", json=BODY, headers=refused) as bypassed:
                assert bypassed.headers["Cache-Control"] == "no-store"
                assert "ETag" not in bypassed.headers
        directives = {"Cache-Control": "max-age=0, stale-while-revalidate=60"}
        async with session.post("/v1/chat/completions", json=BODY, headers=directives) as stale:
            assert stale.headers["x-modelmuxer-cache"] == "stale"
        async with session.post("/v1/chat/completions", json=BODY, headers={"Cache-Control": "max-age=soon"}) as bad:
            assert bad.status == 400


@pytest.mark.parametrize("sdk", [{}, {"anthropic-version": "2023-06-01"}], ids=["openai", "anthropic"])
async def test_models_that_have_not_changed_are_not_sent_again(town: Neighbourhood, sdk: dict[str, str]) -> None:
    base = f"http://{town.apps['router 0'].listening['http']}"
    async with aiohttp.ClientSession(base, headers={"Authorization": f"Bearer {SECRET}", **sdk}) as session:
        for path in ("/v1/models", f"/v1/models/{FIRST}"):
            async with session.get(path) as listed:
                assert listed.headers["Cache-Control"] == "private, no-cache"
                assert "anthropic-version" in listed.headers["Vary"]
                tag = listed.headers["ETag"]
            for known in (tag, f'"other", {tag}', "*"):
                async with session.get(path, headers={"If-None-Match": known}) as unchanged:
                    assert unchanged.status == 304
                    assert unchanged.headers["ETag"] == tag
                    assert not await unchanged.read()
            async with session.get(path, headers={"If-None-Match": 'W/"other"'}) as changed:
                assert changed.status == 200
