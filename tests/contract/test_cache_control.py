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
from modelmuxer.chat.v1.chat_pb2 import CacheControl, CacheInfo, ChatRequest, ChatResponse, Tool

from shared.errors import MeshError, Reason
from tests.contract.router_neighbours import (
    FIRST,
    SECRET,
    Neighbourhood,
    answer,
    beginning,
    chat,
    delta,
    failure,
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


NO_CACHE = CacheControl(no_cache=True)


async def test_who_wants_no_kept_answer_has_a_new_one_kept(town: Neighbourhood) -> None:
    town.proxy.scripts[FIRST] = lambda _: answer("old")
    await kept(town, chat("made anew"))
    town.proxy.scripts[FIRST] = lambda _: answer("new")
    given = await ask(town, chat("made anew", cache=NO_CACHE))
    assert given.completed.cache.status == CacheInfo.STATUS_BYPASS
    assert given.content[0].text.text.strip() == "new"

    async def renewed() -> bool:
        return (await ask(town, chat("made anew"), router=1)).content[0].text.text.strip() == "new"

    deadline = asyncio.get_running_loop().time() + 10
    while not await renewed():
        assert asyncio.get_running_loop().time() < deadline


@pytest.mark.parametrize(
    "apart",
    [{"cache": NO_CACHE}, {"tools": [Tool(name="clock", parameters_json="{}")]}],
    ids=["no_cache", "tools"],
)
async def test_what_nobody_shares_is_not_kept_either_if_it_was_invalidated_meanwhile(
    town: Neighbourhood, apart: dict[str, Any]
) -> None:
    gate, ended = asyncio.Event(), chat("made alone", **apart)
    town.proxy.scripts[FIRST] = lambda _: [*beginning(), delta("old"), gate, *answer()[-2:]]
    old = asyncio.create_task(ask(town, ended))
    await until(lambda: len(town.proxy.requests) == 1)
    await invalidate(town, tenant="acme")
    gate.set()
    assert (await old).content[0].text.text == "old"
    town.proxy.scripts[FIRST] = lambda _: answer("new")
    # What would have been kept would be found by now: this one has been.
    await kept(town, chat("another"))
    plain = chat("made alone", **{name: value for name, value in apart.items() if name != "cache"})
    assert "new" in (await ask(town, plain)).content[0].text.text


async def test_an_answer_that_nobody_shares_leaves_no_flight_behind_if_it_fails(town: Neighbourhood) -> None:
    async def flights() -> int:
        stats = await town.stub.GetCacheStats(cache_pb2.GetStatsRequest(), metadata=bearer(ADMIN), timeout=10)
        return int(stats.flights)

    before = await flights()  # while the mesh starts, a look-up and its answer may go to different replicas
    town.proxy.scripts[FIRST] = lambda _: [failure(Reason.PROVIDER_INVALID_REQUEST, retryable=False)]
    with pytest.raises(grpc.aio.AioRpcError):
        await ask(town, chat("fails alone", cache=NO_CACHE))
    deadline = asyncio.get_running_loop().time() + 10
    while await flights() > before:
        assert asyncio.get_running_loop().time() < deadline


async def test_an_aliass_time_is_over_for_all_but_those_who_take_a_stale_answer(tmp_path: Path) -> None:
    config = tmp_path / "catalogue.yaml"
    config.write_text(f"aliases: {{brief: {{targets: [{FIRST}], cache: {{ttl_s: 1}}}}}}\n")
    stale_too = CacheControl(stale_while_revalidate=Duration(seconds=600))
    async with neighbourhood(tmp_path, routers=2, caches=1, CONFIG=str(config)) as town:
        town.proxy.scripts[FIRST] = lambda _: answer("old")
        first = await ask(town, chat("how long?", "brief", cache=stale_too))
        assert first.completed.cache.status == CacheInfo.STATUS_MISS
        town.proxy.scripts[FIRST] = lambda _: answer("new")
        deadline = asyncio.get_running_loop().time() + 10
        while (given := await ask(town, chat("how long?", "brief", cache=stale_too))).completed.cache.status != (
            CacheInfo.STATUS_STALE
        ):
            assert given.content[0].text.text.strip() == "old"
            assert asyncio.get_running_loop().time() < deadline
        assert given.content[0].text.text.strip() == "old"
        assert given.completed.cache.age.ToNanoseconds() > 10**9

        async def newest() -> str:
            return (await ask(town, chat("how long?", "brief"), router=1)).content[0].text.text.strip()

        assert await newest() == "new"  # it takes no stale one


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
