"""Several replicas of a service on one machine: all of them work, and one that dies is not missed for long."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest
from modelmuxer.chat.v1.chat_pb2 import CacheControl, ChatRequest
from modelmuxer.client import Client, text_message

from tests.mesh.mesh import Mesh, until
from tests.mesh.test_main_job import mux_json

PROXIES = ("provider-proxy", "provider-proxy-2", "provider-proxy-3")


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    replicas = ("--replicas", "provider-proxy=3", "--replicas", "router=2", "--replicas", "cache=2")
    with Mesh(tmp_path_factory.mktemp("replicas") / "home", arguments=replicas) as mesh:
        yield mesh


def served(mesh: Mesh, replica: str) -> int:
    """Calls that a proxy has answered."""
    pattern = r'rpc_server_call_duration_seconds_count\{rpc_method="\S*/(?:Stream)?Generate".*\} (\d+)'
    return sum(int(float(count)) for count in re.findall(pattern, mesh.metrics(replica)))


async def test_calls_are_shared_among_the_replicas_of_a_service(replicated: Mesh) -> None:
    requests = [
        ChatRequest(messages=[text_message(f"[[sim ttft=50ms]] {number}")], cache=CacheControl(no_store=True))
        for number in range(60)
    ]
    async with Client(replicated.grpc(), api_key=replicated.key) as client:
        answers = await asyncio.gather(*(client.chat(request) for request in requests))
    assert len(answers) == 60
    shares = [served(replicated, replica) for replica in PROXIES]
    assert min(shares) > 0, shares


async def test_each_router_answers_with_the_same_key(replicated: Mesh) -> None:
    for router in ("router", "router-2"):
        async with Client(replicated.grpc(router), api_key=replicated.key) as client:
            assert (await client.chat("Which router?")).content


async def test_an_answer_is_found_again_whichever_router_asks(replicated: Mesh) -> None:
    """Every cache key has one home among the replicas."""
    for number in range(8):
        async with (
            Client(replicated.grpc("router"), api_key=replicated.key) as one,
            Client(replicated.grpc("router-2"), api_key=replicated.key) as other,
        ):
            first = await one.chat(f"Where is it kept? {number}")
            assert not first.completed.cache.age.nanos
            await _until_hit(other, f"Where is it kept? {number}")


async def _until_hit(client: Client, prompt: str) -> None:
    for _ in range(20):
        answer = await client.chat(prompt)
        if answer.completed.cost.nanos == 0:
            return
    raise AssertionError("never found in the cache")


def test_the_ledger_of_all_replicas_is_the_bill(replicated: Mesh) -> None:
    until(lambda: mux_json(replicated, "spend")["total_nanos"] == replicated.bill()["total_nanos"])
