"""One flight: who asks the same at the same time shares one upstream call, over all routers, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import json
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from modelmuxer.chat.v1.chat_pb2 import CacheInfo, ChatEvent
from modelmuxer.client import CallError, Client, text_of

from tests.mesh.mesh import Mesh, until

ROUTERS = ("router", "router-2", "router-3", "router-4")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    replicas = ("--replicas", "router=4")
    # A busy machine's cache may be later than 20 ms, and a miss is then nobody's flight: that is tested elsewhere.
    environ = {"MODELMUXER_CACHE_LOOKUP_TIMEOUT_S": "1"}
    with Mesh(tmp_path_factory.mktemp("flights") / "home", arguments=replicas, environ=environ) as mesh:
        yield mesh


@asynccontextmanager
async def routers(mesh: Mesh) -> AsyncIterator[list[Client]]:
    """A client of each router."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Client(mesh.grpc(router), api_key=mesh.key, tunnel=True, timeout_s=60))
            for router in ROUTERS
        ]
        for client in clients:
            await client.chat("Are you there?")
        yield clients


def billed(mesh: Mesh) -> int:
    return len(mesh.bill()["calls"])


async def test_a_thousand_callers_at_four_routers_are_one_upstream_call(mesh: Mesh) -> None:
    async with routers(mesh) as clients:
        before = billed(mesh)
        began = time.monotonic()
        question = "[[sim ttft=3s tokens=20]] What is asked a thousand times?"
        answers = await asyncio.gather(*(clients[number % 4].chat(question) for number in range(1000)))
        print(
            "took", time.monotonic() - began, Counter(a.completed.cache.status for a in answers), billed(mesh) - before
        )
    assert billed(mesh) - before == 1
    assert len({text_of(answer.content) for answer in answers}) == 1
    statuses = Counter(answer.completed.cache.status for answer in answers)
    assert statuses[CacheInfo.STATUS_MISS] == 1
    assert statuses[CacheInfo.STATUS_COALESCED] + statuses[CacheInfo.STATUS_EXACT] == 999
    assert sum(answer.completed.cost.nanos > 0 for answer in answers) == 1
