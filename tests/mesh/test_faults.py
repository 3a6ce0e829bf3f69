"""A service that dies costs its running calls a clear error and no more: the mesh recovers, the ledger is the bill."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from functools import partial
from typing import Any

import grpc
import pytest
from modelmuxer.accounting.v1 import accounting_pb2, accounting_pb2_grpc
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.client import CallError, Client, text_of

from tests.mesh.mesh import Mesh, eventually

SERVICES = ("provider-proxy", "cache", "accounting", "router")
SLOW = "[[sim ttft=50ms tps=20 tokens=200]] slowly"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("faults") / "home", warm=False) as mesh:
        yield mesh


@pytest.fixture
async def client(mesh: Mesh) -> AsyncIterator[Client]:
    async with Client(mesh.grpc(), api_key=mesh.key, timeout_s=30) as client:
        yield client


async def entries(mesh: Mesh) -> dict[str, accounting_pb2.Entry]:
    """The ledger, by attempt; cache hits, which no provider bills, left out."""
    found: dict[str, accounting_pb2.Entry] = {}
    async with grpc.aio.insecure_channel(mesh.grpc("accounting")) as channel:
        stub = accounting_pb2_grpc.AccountingServiceStub(channel)
        request = accounting_pb2.ListEntriesRequest(page_size=1000)
        while True:
            page = await stub.ListEntries(request, metadata=(("authorization", f"Bearer {mesh.key}"),))
            found |= {entry.attempt_id: entry for entry in page.entries if entry.attempt_number}
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token


async def settled(mesh: Mesh) -> bool:
    """Every call on the bill has its entry, every entry its end, and what the provider told us is equal to the bill."""
    try:
        ledger = await entries(mesh)
    except grpc.aio.AioRpcError:
        return False
    bill = {call["client_id"]: call for call in mesh.bill()["calls"]}
    if any(entry.state == accounting_pb2.ENTRY_STATE_PENDING for entry in ledger.values()):
        return False
    told = {i: e.cost_nanos for i, e in ledger.items() if e.state == accounting_pb2.ENTRY_STATE_POSTED}
    return set(bill) <= set(ledger) and all(bill[attempt]["cost_nanos"] == nanos for attempt, nanos in told.items())


async def works(client: Client) -> bool:
    try:
        request = chat_pb2.ChatRequest(cache=chat_pb2.CacheControl(no_store=True))
        request.messages.add(role=chat_pb2.ROLE_USER).content.add().text.text = "Does it work?"
        answer = await client.chat(request)
    except CallError:
        return False
    return bool(text_of(answer.content))


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_that_is_killed_comes_back_and_the_ledger_is_the_bill(
    mesh: Mesh, client: Client, service: str
) -> None:
    assert await works(client)
    old = mesh.processes()[service].pid
    running = asyncio.create_task(_consume(client))
    await eventually(lambda: _running_calls(mesh))
    mesh.kill(service)
    ending = await running
    if service in ("router", "provider-proxy"):
        assert isinstance(ending, CallError)
        assert ending.code is grpc.StatusCode.UNAVAILABLE
    else:
        assert ending is None, "a call does not need this service any more once it streams"
    await eventually(lambda: _replaced(mesh, service, old))
    await eventually(lambda: works(client))
    await eventually(lambda: settled(mesh))


async def _consume(client: Client) -> CallError | None:
    request = chat_pb2.ChatRequest(cache=chat_pb2.CacheControl(no_store=True))
    request.messages.add(role=chat_pb2.ROLE_USER).content.add().text.text = "[[sim tps=40 tokens=60]] slowly"
    try:
        async with aclosing(client.stream_chat(request)) as events:
            async for event in events:
                last = event
    except CallError as error:
        return error
    assert last.HasField("completed")
    return None


async def _running_calls(mesh: Mesh) -> bool:
    return bool(_connections(mesh)["running"])


async def _replaced(mesh: Mesh, service: str, old: int) -> bool:
    process = mesh.processes().get(service)
    return process is not None and process.pid != old


def _connections(mesh: Mesh) -> Any:
    with urllib.request.urlopen(f"{mesh.simulator}/connections") as answer:
        return json.load(answer)


async def test_while_a_service_is_away_errors_say_what_is_wrong(mesh: Mesh, client: Client) -> None:
    assert await works(client)
    mesh.kill("provider-proxy")
    with pytest.raises(CallError) as failed:
        await _ask_until_refused(client)
    assert "Traceback" not in failed.value.message
    assert failed.value.code is grpc.StatusCode.UNAVAILABLE
    assert failed.value.reason
    await eventually(lambda: works(client))


async def _ask_until_refused(client: Client) -> None:
    for _ in range(100):
        await client.chat("Anyone?")


@pytest.mark.parametrize("face", ["grpc", "http"])
async def test_a_caller_who_leaves_closes_the_providers_socket_within_100_ms(
    mesh: Mesh, client: Client, face: str
) -> None:
    await eventually(lambda: works(client))
    leave = _leave_grpc if face == "grpc" else _leave_http
    left_at = await leave(mesh, client)
    await eventually(lambda: _none_running(mesh), timeout_s=5)
    cut = [close for close in _connections(mesh)["closed"] if close["running"] is not None][-1]
    assert cut["closed_at"] - left_at < 0.1
    await eventually(lambda: settled(mesh))


async def _none_running(mesh: Mesh) -> bool:
    return not _connections(mesh)["running"]


async def _leave_grpc(mesh: Mesh, client: Client) -> float:
    async with aclosing(client.stream_chat(SLOW)) as events:
        async for event in events:
            if event.HasField("delta"):
                break
        return time.time()


async def _leave_http(mesh: Mesh, client: Client) -> float:
    host, port = mesh.http.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps({"stream": True, "messages": [{"role": "user", "content": SLOW + " by HTTP"}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mesh.key}\r\n"
    writer.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    await reader.readuntil(b'"content":"')
    left_at = time.time()
    writer.close()
    return left_at


async def test_a_deadline_that_passes_closes_the_providers_socket(mesh: Mesh) -> None:
    async with Client(mesh.grpc(), api_key=mesh.key, timeout_s=0.5) as hasty:
        with pytest.raises(CallError) as late:
            await hasty.chat(SLOW + " and too late")
    assert late.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: _none_running(mesh), timeout_s=5)
    await eventually(lambda: settled(mesh))


@pytest.mark.skipif(sys.platform != "linux", reason="services are forked on Linux alone")
async def test_a_mesh_whose_fork_server_is_killed_comes_back_whole(mesh: Mesh, client: Client) -> None:
    assert await works(client)
    old = {service: mesh.processes()[service] for service in SERVICES}
    server = old["router"].parent()
    assert server is not None
    server.kill()
    for service in SERVICES:
        await eventually(partial(_replaced, mesh, service, old[service].pid))
    await eventually(lambda: works(client))
