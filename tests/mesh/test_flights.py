"""One flight: who asks the same at the same time shares one upstream call, over all routers, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import grpc
import psutil
import pytest
from modelmuxer.chat.v1.chat_pb2 import CacheInfo, ChatEvent, Completed
from modelmuxer.client import CallError, Client, text_of

from shared.errors import Reason
from tests.mesh.mesh import Mesh, eventually

ROUTERS = ("router", "router-2", "router-3", "router-4")
BOUND_S = 20.0  # silence is heard after 1 s before the first token and after 5 s in an answer; machines are busy
BEFORE, AFTER = "before the first token", "after the first token"
HANGING = {BEFORE: "tokens=20", AFTER: "tokens=140"}  # one that has begun outlasts the silence that ends it

pytestmark = pytest.mark.timeout(300)  # eight processes start on a machine that may be busy


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    replicas = ("--replicas", "router=4")
    # A busy machine's cache may be later than 20 ms, and a miss is then nobody's flight: that is tested elsewhere.
    environ = {"MODELMUXER_CACHE_LOOKUP_TIMEOUT_S": "1"}
    with Mesh(tmp_path_factory.mktemp("flights") / "home", arguments=replicas, environ=environ) as mesh:
        yield mesh


@asynccontextmanager
async def callers(mesh: Mesh) -> AsyncIterator[list[Client]]:
    """A client of each router."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Client(mesh.grpc(router), api_key=mesh.key, timeout_s=60))
            for router in ROUTERS
        ]
        for number, client in enumerate(clients):
            await eventually(partial(serves_hits, client, f"Are you there? {number}"))
        yield clients


async def serves_hits(client: Client, prompt: str) -> bool:
    """Whether the router has its cache (again)."""
    try:
        return (await client.chat(prompt)).completed.cache.status == CacheInfo.STATUS_EXACT
    except CallError:
        return False


class Stream:
    """A caller who reads a stream as it comes."""

    def __init__(self, client: Client, prompt: str) -> None:
        self.events: list[ChatEvent] = []
        self.error: CallError | None = None
        self.task = asyncio.create_task(self._read(client, prompt))

    async def _read(self, client: Client, prompt: str) -> None:
        try:
            async for event in client.stream_chat(prompt):
                self.events.append(event)
        except CallError as error:
            self.error = error

    @property
    def text(self) -> str:
        return "".join(event.delta.text for event in self.events)

    @property
    def completed(self) -> Completed:
        return self.events[-1].completed

    async def begun(self) -> bool:
        return bool(self.text)

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


def billed(mesh: Mesh) -> int:
    return len(mesh.bill()["calls"])


def connections(mesh: Mesh) -> Any:
    with urllib.request.urlopen(f"{mesh.simulator}/connections") as answer:
        return json.load(answer)


def following(mesh: Mesh) -> int:
    """Look-ups that were shown another's flight, so far."""
    found = re.search(r'modelmuxer_cache_lookups_total\{result="flight"\} (\d+)', mesh.metrics("cache"))
    return int(found[1]) if found else 0


def replica(mesh: Mesh, name: str) -> psutil.Process:
    """The process that serves as a replica of the mesh."""
    port = int(mesh.grpc(name).rpartition(":")[2])
    for child in psutil.Process(mesh.process.pid).children(recursive=True):
        if any(c.laddr.port == port for c in child.net_connections("inet") if c.status == psutil.CONN_LISTEN):
            return child
    raise AssertionError(f"nobody serves {name}")


@asynccontextmanager
async def flight(mesh: Mesh, clients: list[Client], prompt: str, moment: str = BEFORE) -> AsyncIterator[list[Stream]]:
    """A leader at the second router, and a follower at the first and at the third: before or after the first token."""
    shown = following(mesh)
    leader = Stream(clients[1], prompt)
    await eventually(lambda: is_upstream(mesh))
    streams = [leader, Stream(clients[0], prompt), Stream(clients[2], prompt)]

    async def all_aboard() -> bool:
        return following(mesh) == shown + 2

    await eventually(all_aboard)
    if moment == AFTER:
        for follower in streams[1:]:
            await eventually(follower.begun)
    try:
        yield streams
    finally:
        for stream in streams:
            await stream.leave()


async def is_upstream(mesh: Mesh) -> bool:
    return bool(connections(mesh)["running"])


async def nothing_upstream(mesh: Mesh) -> bool:
    return not connections(mesh)["running"]


async def test_a_thousand_callers_at_four_routers_are_one_upstream_call(mesh: Mesh) -> None:
    async with callers(mesh) as clients:
        before = billed(mesh)
        question = "[[sim ttft=3s tokens=20]] What is asked a thousand times?"
        answers = await asyncio.gather(*(clients[number % 4].chat(question) for number in range(1000)))
    assert billed(mesh) - before == 1
    assert len({text_of(answer.content) for answer in answers}) == 1
    statuses = Counter(answer.completed.cache.status for answer in answers)
    assert statuses[CacheInfo.STATUS_MISS] == 1
    assert statuses[CacheInfo.STATUS_COALESCED] + statuses[CacheInfo.STATUS_EXACT] == 999
    assert sum(answer.completed.cost.nanos > 0 for answer in answers) == 1


@pytest.mark.parametrize("moment", [BEFORE, AFTER])
async def test_a_leader_who_cancels_is_not_missed(mesh: Mesh, moment: str) -> None:
    async with callers(mesh) as clients:
        before = billed(mesh)
        prompt = f"[[sim ttft=1s tps=20 tokens=30]] cancelled {moment}"
        async with flight(mesh, clients, prompt, moment) as (leader, near, far):
            await leader.leave()
            await asyncio.wait([near.task, far.task])
        assert near.error is None
        assert far.error is None
        assert near.text == far.text
        assert near.completed.cache.status == far.completed.cache.status == CacheInfo.STATUS_COALESCED
        assert billed(mesh) - before == 1
        assert mesh.bill()["calls"][-1]["complete"]


@pytest.mark.parametrize("moment", [BEFORE, AFTER])
async def test_a_leaders_router_that_is_killed_is_replaced_or_told_of(mesh: Mesh, moment: str) -> None:
    async with callers(mesh) as clients:
        prompt = f"[[sim ttft=2s tps=20 tokens=30]] killed {moment}"
        async with flight(mesh, clients, prompt, moment) as (leader, near, far):
            replica(mesh, "router-2").send_signal(signal.SIGKILL)
            await asyncio.wait([leader.task, near.task, far.task])
        assert leader.error is not None
        if moment == AFTER:
            for stream in (near, far):
                assert stream.error is not None
                assert (stream.error.reason, stream.error.code) == (Reason.FLIGHT_LOST, grpc.StatusCode.UNAVAILABLE)
        else:
            one_leads_now(near, far)
    await eventually(lambda: nothing_upstream(mesh))


@pytest.mark.parametrize("moment", [BEFORE, AFTER])
async def test_a_cache_that_is_killed_harms_nobody_who_has_seen_nothing(mesh: Mesh, moment: str) -> None:
    async with callers(mesh) as clients:
        prompt = f"[[sim ttft=2s tps=20 tokens=30]] without cache {moment}"
        async with flight(mesh, clients, prompt, moment) as (leader, near, far):
            mesh.kill("cache")
            await asyncio.wait([leader.task, near.task, far.task])
        assert leader.error is None
        for stream in (near, far):
            if moment == AFTER:
                assert stream.error is not None
                assert stream.error.code is grpc.StatusCode.UNAVAILABLE
                assert leader.text.startswith(stream.text)
            else:
                assert stream.error is None
                assert stream.text == leader.text
    await eventually(lambda: reachable(mesh))


@pytest.mark.parametrize("moment", [BEFORE, AFTER])
async def test_a_leaders_router_that_hangs_is_waited_for_a_bounded_time(mesh: Mesh, moment: str) -> None:
    async with callers(mesh) as clients:
        prompt = f"[[sim ttft=2s tps=20 {HANGING[moment]}]] hung {moment}"
        async with flight(mesh, clients, prompt, moment) as (leader, near, far):
            with hung(replica(mesh, "router-2")):
                for stream in (near, far):
                    if moment == AFTER:
                        await within(BOUND_S, stream)
                        assert stream.error is not None
                        assert stream.error.reason == Reason.FLIGHT_LOST
                    else:
                        await eventually(stream.begun, timeout_s=BOUND_S)
            await asyncio.wait([leader.task, near.task, far.task])
        # Its own caller may find that the proxy has given the router up meanwhile; then it is told so.
        assert leader.error is None or leader.error.code is grpc.StatusCode.UNAVAILABLE
        if moment == BEFORE:
            one_leads_now(near, far)


@pytest.mark.parametrize("moment", [BEFORE, AFTER])
async def test_a_cache_that_hangs_is_waited_for_a_bounded_time(mesh: Mesh, moment: str) -> None:
    async with callers(mesh) as clients:
        prompt = f"[[sim ttft=2s tps=20 {HANGING[moment]}]] hung cache {moment}"
        async with flight(mesh, clients, prompt, moment) as (leader, near, far):
            with hung(mesh.processes()["cache"]):
                late = [Stream(client, f"who comes while it hangs {moment}") for client in clients]
                for stream in late:
                    await within(BOUND_S, stream)
                    assert stream.error is None
                for stream in (near, far):
                    if moment == AFTER:
                        await within(BOUND_S, stream)
                        assert stream.error is not None
                        assert stream.error.code is grpc.StatusCode.UNAVAILABLE
                    else:
                        await eventually(stream.begun, timeout_s=BOUND_S)
            await asyncio.wait([leader.task, near.task, far.task])
        assert leader.error is None
        assert moment == AFTER or (near.error is far.error is None and near.text == far.text == leader.text)


def one_leads_now(near: Stream, far: Stream) -> None:
    """Of two followers whose leader is gone one has taken over, and both have its answer."""
    assert near.error is None
    assert far.error is None
    assert near.text == far.text
    statuses = {near.completed.cache.status, far.completed.cache.status}
    assert statuses == {CacheInfo.STATUS_MISS, CacheInfo.STATUS_COALESCED}


@contextmanager
def hung(process: psutil.Process) -> Iterator[None]:
    """A process that is there and does nothing."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


async def within(seconds: float, stream: Stream) -> None:
    """Waits for a stream's end."""
    done, _ = await asyncio.wait([stream.task], timeout=seconds)
    assert done, f"nothing ended it within {seconds} s"


async def reachable(mesh: Mesh) -> bool:
    try:
        following(mesh)
    except OSError:
        return False
    return True


async def test_when_all_have_left_the_providers_socket_closes_within_100_ms(mesh: Mesh) -> None:
    async with callers(mesh) as clients:
        await eventually(lambda: nothing_upstream(mesh))
        async with flight(mesh, clients, "[[sim ttft=100ms tps=20 tokens=400]] deserted") as (leader, near, far):
            await eventually(near.begun)
            await leader.leave()
            await near.leave()
            assert await is_upstream(mesh)
            left_at = time.time()
            await far.leave()
        await eventually(lambda: nothing_upstream(mesh), timeout_s=5)
        cut = [close for close in connections(mesh)["closed"] if close["running"] is not None][-1]
        assert cut["closed_at"] - left_at < 0.1
