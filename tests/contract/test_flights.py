"""One flight: who asks the same at the same time shares one upstream call, whichever router each of them asks.

Real routers and caches; the provider proxy is scripted, so that a test decides when each token comes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.chat.v1.chat_pb2 import CacheControl, CacheInfo, ChatEvent, ChatRequest, ChatResponse
from prometheus_client import REGISTRY

from shared.errors import MeshError, Reason
from tests.contract.router_neighbours import (
    FIRST,
    SECRET,
    Neighbourhood,
    Step,
    answer,
    beginning,
    chat,
    delta,
    failure,
    neighbourhood,
    principal,
)

if TYPE_CHECKING:
    from modelmuxer.router.v1.router_pb2_grpc import RouterServiceAsyncStub as Router

PATIENCE_S = 10.0


@pytest.fixture(params=["tunnel", "plain"])
async def town(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Neighbourhood]:
    async with neighbourhood(tmp_path, routers=3, caches=2, MESH_TRANSPORT=request.param) as town:
        await every_router_serves(town)
        yield town


async def every_router_serves(town: Neighbourhood) -> None:
    for number, router in enumerate(town.stubs):
        await router.Chat(chat(f"warm up {number}"), metadata=bearer(), timeout=PATIENCE_S)
    town.proxy.requests.clear()


def bearer(secret: str = SECRET) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {secret}"),)


class Stream:
    """A caller who reads a stream at their own pace."""

    def __init__(self, router: Router, request: ChatRequest, secret: str = SECRET) -> None:
        self.call: Any = router.StreamChat(request, metadata=bearer(secret), timeout=30)
        self.events: list[ChatEvent] = []

    @property
    def text(self) -> str:
        return "".join(event.delta.text for event in self.events)

    async def until(self, text: str) -> None:
        while text not in self.text:
            event = await asyncio.wait_for(self.call.read(), PATIENCE_S)
            assert isinstance(event, ChatEvent), "the stream ended too soon"
            self.events.append(event)

    async def end(self) -> chat_pb2.Completed:
        while isinstance(event := await asyncio.wait_for(self.call.read(), PATIENCE_S), ChatEvent):
            self.events.append(event)
        return self.events[-1].completed

    async def fails(self) -> MeshError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.end()
        return MeshError.from_rpc(caught.value)


def ask(router: Router, request: ChatRequest, secret: str = SECRET) -> asyncio.Task[ChatResponse]:
    async def answered() -> ChatResponse:
        return await router.Chat(request, metadata=bearer(secret), timeout=30)

    return asyncio.create_task(answered())


async def until(condition: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        await asyncio.sleep(0.005)


def shown_to_a_flight() -> float:
    """Look-ups, in all caches of this process, that were shown somebody else's flight."""
    return REGISTRY.get_sample_value("modelmuxer_cache_lookups_total", {"result": "flight"}) or 0.0


def followed(shown: float) -> bool:
    """Whether so many look-ups were."""
    return shown_to_a_flight() >= shown


async def asked(town: Neighbourhood, calls: int) -> None:
    """Waits until the provider has been asked so many times."""
    await until(lambda: len(town.proxy.requests) == calls)


class Gates:
    """A provider that gives each of its tokens when it is told to."""

    def __init__(self, town: Neighbourhood, *tokens: str) -> None:
        self.gates = [asyncio.Event() for _ in range(len(tokens) + 1)]
        self.tokens = tokens
        town.proxy.scripts[FIRST] = self.script

    def script(self, _: object) -> list[Step]:
        steps: list[Step] = [*beginning()]
        for gate, token in zip(self.gates, self.tokens, strict=False):
            steps += [gate, delta(token)]
        return [*steps, self.gates[-1], *answer()[-2:]]

    def open(self, *numbers: int) -> None:
        for number in numbers:
            self.gates[number].set()

    def open_all(self) -> None:
        self.open(*range(len(self.gates)))


async def test_streams_at_three_routers_get_one_calls_tokens_as_they_come(town: Neighbourhood) -> None:
    gates = Gates(town, "one ", "two ", "three")
    streams = [Stream(router, chat("live")) for router in town.stubs for _ in range(3)]
    await asked(town, 1)
    for number, told in enumerate(("one ", "one two ", "one two three")):
        gates.open(number)
        await asyncio.gather(*(stream.until(told) for stream in streams))
    gates.open_all()
    ends = [await stream.end() for stream in streams]
    assert len(town.proxy.requests) == 1
    statuses = [end.cache.status for end in ends]
    assert statuses.count(CacheInfo.STATUS_MISS) == 1
    assert statuses.count(CacheInfo.STATUS_COALESCED) == len(streams) - 1
    paid = [end.cost.nanos for end in ends]
    assert sum(nanos > 0 for nanos in paid) == 1
    assert all(
        end.usage.source == chat_pb2.USAGE_SOURCE_CACHE and end.cache.saved_nanos == max(paid) and not end.attempts
        for end in ends
        if not end.cost.nanos
    )
    assert len({stream.events[0].started.id for stream in streams}) == len(streams)
    await until(lambda: sum(r.HasField("cache_hit") for r in town.accounting.records) == len(streams) - 1)


async def test_whole_answers_and_streams_follow_one_another(town: Neighbourhood) -> None:
    for leads_by_stream in (True, False):
        gates = Gates(town, "one ", "two")
        request = chat(f"mixed {leads_by_stream}")
        before, shown = len(town.proxy.requests), shown_to_a_flight()
        leader = Stream(town.stubs[0], request) if leads_by_stream else ask(town.stubs[0], request)
        await asked(town, before + 1)
        stream, whole = Stream(town.stubs[1], request), ask(town.stubs[2], request)
        await until(partial(followed, shown + 2))
        if leads_by_stream:
            gates.open(0)
            await stream.until("one ")
        assert stream.text == (
            "one " if leads_by_stream else ""
        )  # what does not stream shows nothing until it is whole
        gates.open_all()
        completed, answered = await stream.end(), await whole
        assert stream.text == "".join(block.text.text for block in answered.content) == "one two"
        assert completed.cache.status == answered.completed.cache.status == CacheInfo.STATUS_COALESCED
        assert answered.started.cache.saved_nanos > 0 == answered.completed.cost.nanos
        await (leader.end() if isinstance(leader, Stream) else leader)
        assert len(town.proxy.requests) == before + 1
        again = await ask(town.stubs[1], request)
        assert again.completed.cache.status == CacheInfo.STATUS_EXACT


async def test_a_leader_who_leaves_is_not_missed_while_anybody_waits(town: Neighbourhood) -> None:
    for first_token in (False, True):
        gates = Gates(town, "one ", "two")
        request = chat(f"leaver {first_token}")
        before = len(town.proxy.requests)
        leader = Stream(town.stubs[0], request)
        await asked(town, before + 1)
        far, near = Stream(town.stubs[1], request), Stream(town.stubs[0], request)
        gates.open(0)
        await asyncio.gather(far.until("one "), near.until("one "))
        if first_token:
            await leader.until("one ")
        leader.call.cancel()
        gates.open_all()
        await asyncio.gather(far.end(), near.end())
        assert far.text == near.text == "one two"
        assert len(town.proxy.requests) == before + 1
        assert town.proxy.cancelled == 0


async def test_when_all_have_left_the_upstream_call_is_closed_at_once(town: Neighbourhood) -> None:
    gates = Gates(town, "one ", "two")
    streams = [Stream(router, chat("deserted")) for router in town.stubs for _ in range(2)]
    gates.open(0)
    await asyncio.gather(*(stream.until("one ") for stream in streams))
    for stream in streams[:-1]:
        stream.call.cancel()
    gates.open(1)
    await streams[-1].until("two")
    assert town.proxy.cancelled == 0
    streams[-1].call.cancel()
    await until(lambda: town.proxy.cancelled == 1, within_s=1.0)
    gates.open_all()
    fresh = await ask(town.stubs[2], chat("deserted"))
    assert fresh.completed.cache.status == CacheInfo.STATUS_MISS
    assert len(town.proxy.requests) == 2


async def test_a_leaders_error_is_a_followers_only_if_they_would_meet_it_too(town: Neighbourhood) -> None:
    gate, before = asyncio.Event(), shown_to_a_flight()
    bad = failure(Reason.PROVIDER_INVALID_REQUEST, retryable=False)
    town.proxy.scripts[FIRST] = lambda _: [gate, bad]
    streams = [Stream(router, chat("bad")) for router in town.stubs]
    await until(partial(followed, before + 2))
    gate.set()
    assert {(await stream.fails()).reason for stream in streams} == {Reason.PROVIDER_INVALID_REQUEST}


async def test_followers_who_have_seen_nothing_go_on_after_a_leaders_own_error(town: Neighbourhood) -> None:
    gate, before = asyncio.Event(), shown_to_a_flight()
    denied = failure(Reason.PROVIDER_QUOTA_EXHAUSTED, retryable=False)
    town.proxy.scripts[FIRST] = lambda _: answer() if gate.is_set() and len(town.proxy.requests) > 1 else [gate, denied]
    leader = Stream(town.stubs[0], chat("own error"))
    await asked(town, 1)
    others = [ask(router, chat("own error")) for router in town.stubs]
    await until(partial(followed, before + 2))
    gate.set()
    assert (await leader.fails()).reason == Reason.PROVIDER_QUOTA_EXHAUSTED
    answers = await asyncio.gather(*others)
    statuses = sorted(each.completed.cache.status for each in answers)
    assert statuses[0] == CacheInfo.STATUS_MISS
    assert len(town.proxy.requests) == 2


async def test_what_may_not_be_cached_is_not_shared_and_no_tenant_joins_another(town: Neighbourhood) -> None:
    town.accounting.principals["mm-bob"] = principal("other", "bob")
    gate = asyncio.Event()
    town.proxy.scripts[FIRST] = lambda _: [gate, *answer()]
    alone = [
        chat("alone", cache=CacheControl(no_store=True)),
        chat("alone", cache=CacheControl(no_cache=True)),
        chat("alone", temperature=0.7),
        chat("alone", tools=[chat_pb2.Tool(name="act", parameters_json="{}")]),
    ]
    asked_twice = [ask(router, request) for request in alone for router in town.stubs[:2]]
    walls = [ask(town.stubs[0], chat("wall")), ask(town.stubs[1], chat("wall"), secret="mm-bob")]
    await asked(town, len(asked_twice) + len(walls))
    gate.set()
    answers = await asyncio.gather(*asked_twice, *walls)
    assert all(each.completed.cost.nanos > 0 for each in answers)
    assert CacheInfo.STATUS_COALESCED not in {each.completed.cache.status for each in answers}


async def test_who_wants_only_what_is_kept_does_not_wait_for_what_is_made(town: Neighbourhood) -> None:
    gates = Gates(town, "one")
    leader = Stream(town.stubs[0], chat("in the making"))
    await asked(town, 1)
    hurried = chat("in the making", cache=CacheControl(only_if_cached=True))
    for router in town.stubs[:2]:
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await ask(router, hurried)
        assert MeshError.from_rpc(missing.value).reason == Reason.CACHE_MISS
    gates.open_all()
    await leader.end()


async def test_a_follower_whose_deadline_passes_leaves_and_the_others_stay(town: Neighbourhood) -> None:
    gates = Gates(town, "one ", "two")
    before = shown_to_a_flight()
    leader = Stream(town.stubs[0], chat("deadline"))
    await asked(town, 1)
    other = Stream(town.stubs[1], chat("deadline"))
    for router in town.stubs[1:]:
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await router.Chat(chat("deadline"), metadata=bearer(), timeout=0.5)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until(partial(followed, before + 2))
    gates.open_all()
    await asyncio.gather(leader.end(), other.end())
    assert leader.text == other.text == "one two"
    assert len(town.proxy.requests) == 1


async def test_a_leader_with_a_short_deadline_does_not_cut_those_who_wait_longer(town: Neighbourhood) -> None:
    gates = Gates(town, "one ", "two")
    before = shown_to_a_flight()
    leader = asyncio.ensure_future(town.stubs[0].Chat(chat("short"), metadata=bearer(), timeout=3))
    await asked(town, 1)
    others = [Stream(router, chat("short")) for router in town.stubs]
    await until(partial(followed, before + 2))
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await leader
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    gates.open_all()
    await asyncio.gather(*(other.end() for other in others))
    assert {other.text for other in others} == {"one two"}
    assert len(town.proxy.requests) == 1


async def test_a_follower_waits_for_the_first_token_for_a_bounded_time(tmp_path: Path) -> None:
    async with neighbourhood(tmp_path, routers=2, caches=1, FLIGHT_WAIT_S="0.5") as town:
        await every_router_serves(town)
        forever, before = asyncio.Event(), shown_to_a_flight()
        town.proxy.scripts[FIRST] = lambda _: answer() if len(town.proxy.requests) > 1 else [forever]
        leader = Stream(town.stubs[0], chat("never"))
        await asked(town, 1)
        follower = await ask(town.stubs[1], chat("never"))
        assert shown_to_a_flight() > before
        assert follower.completed.cache.status == CacheInfo.STATUS_MISS
        leader.call.cancel()


async def test_a_router_that_drains_makes_what_others_wait_for(town: Neighbourhood) -> None:
    gates = Gates(town, "one ", "two")
    before = shown_to_a_flight()
    leader = Stream(town.stubs[0], chat("drain"))
    await asked(town, 1)
    follower = Stream(town.stubs[1], chat("drain"))
    await until(partial(followed, before + 1))
    gates.open(0)
    await follower.until("one ")
    leader.call.cancel()
    stopping = asyncio.create_task(town.stop("router 0"))
    gates.open_all()
    await follower.end()
    assert follower.text == "one two"
    await stopping
