"""One flight: whoever asks the same at the same time gets one upstream call's answer, over all routers, on both faces."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import grpc
import pytest
from modelmuxer.cache.v1 import cache_pb2
from modelmuxer.chat.v1.chat_pb2 import CacheControl, CacheInfo, ChatEvent, ChatRequest, ChatResponse, UsageSource
from modelmuxer.client import CallError, Client, text_message, text_of

from tests.mesh.mesh import Mesh, until
from tests.mesh.test_main_job import mux_json

ROUTERS = ("router", "router-2", "router-3", "router-4")
SLOW = "[[sim ttft=300ms tps=20 tokens=40]]"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    replicas = ("--replicas", "router=4", "--replicas", "cache=2")
    with Mesh(tmp_path_factory.mktemp("flights") / "home", arguments=replicas) as mesh:
        yield mesh


@asynccontextmanager
async def clients(mesh: Mesh, **options: Any) -> AsyncIterator[list[Client]]:
    """A client of each router."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                Client(mesh.grpc(router), api_key=mesh.key, tunnel=True, timeout_s=60, **options)
            )
            for router in ROUTERS
        ]


def calls(mesh: Mesh, marker: str) -> list[dict[str, Any]]:
    """The calls on the bill whose prompt has the marker."""
    return [call for call in mesh.bill()["calls"] if marker in json.dumps(mesh.received(call["client_id"]))]


async def test_a_thousand_callers_at_four_routers_are_one_upstream_call(mesh: Mesh) -> None:
    question = "[[sim ttft=1500ms tokens=20]] What is asked a thousand times?"
    async with clients(mesh) as each:
        await asyncio.gather(*(client.chat(f"warm up {number}") for number, client in enumerate(each)))
        before = len(mesh.bill()["calls"])
        began = time.monotonic()
        answers = await asyncio.gather(*(each[number % 4].chat(question) for number in range(1000)))
        print("took", time.monotonic() - began)
    assert len({text_of(answer.content) for answer in answers}) == 1
    print(len(mesh.bill()["calls"]) - before)
    from collections import Counter

    print(Counter(CacheInfo.Status.Name(a.completed.cache.status) for a in answers))
    assert len(mesh.bill()["calls"]) - before == 1
