"""The whole mesh on a MongoDB ledger, with two accounting processes: it does what it does on SQLite, loses nothing when
one of them or the database dies, and what one changes the other's routers heed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import pytest
from modelmuxer.accounting.v1 import accounting_pb2 as pb
from modelmuxer.accounting.v1.accounting_pb2_grpc import AdminServiceStub
from modelmuxer.chat.v1.chat_pb2 import CacheControl, ChatRequest
from modelmuxer.client import CallError, Client, text_message

from shared.channels import MeshChannel, connect
from tests.mesh.mesh import Mesh, until
from tests.mesh.test_books import calls, mux, mux_json, settled
from tests.tools import tool
from tests.tools.mongodb.server import MongoServer

if TYPE_CHECKING:
    from modelmuxer.accounting.v1.accounting_pb2_grpc import AdminServiceAsyncStub

ACCOUNTING = ("accounting", "accounting-2")
pytestmark = pytest.mark.timeout(300)  # seven services and a database start for the first of them


@pytest.fixture(scope="module")
def server() -> Iterator[MongoServer]:
    tool("mongodb")
    with MongoServer() as server:
        yield server


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, server: MongoServer) -> Iterator[Mesh]:
    environ = {
        "MODELMUXER_LEDGER_STORE": "mongodb",
        "MONGODB_URL": f"{server.url}mesh",
        "DATABASE_POOL_SIZE": "2",
        "MODELMUXER_DATABASE_TIMEOUT_S": "2",
    }
    home = tmp_path_factory.mktemp("mongodb") / "home"
    with Mesh(home, environ, ("--replicas", "accounting=2", "--replicas", "router=2")) as mesh:
        yield mesh


@asynccontextmanager
async def admin(mesh: Mesh, replica: str) -> AsyncIterator[AdminServiceAsyncStub]:
    """The one accounting process and no other."""
    channel = MeshChannel(connect(mesh.grpc(replica), 1 << 20), mesh.token, None)
    yield AdminServiceStub(channel)
    await channel.close()


def question(text: str) -> ChatRequest:
    return ChatRequest(
        model="openai/gpt-4o-mini", messages=[text_message(text)], cache=CacheControl(no_store=True, no_cache=True)
    )


def books_are_right(mesh: Mesh) -> None:
    """Every call on the bill has its entry, at the same price, and the audit is clean."""
    until(lambda: mux(mesh, "spend").returncode == 0, 60)  # mux asks the one accounting, which may just be starting
    until(lambda: settled(mesh), 60)
    assert mux(mesh, "reconcile", "--write").returncode == 0
    assert until(lambda: settled(mesh), 30)["differences"] == []
    assert mux_json(mesh, "spend")["total_nanos"] == mesh.bill()["total_nanos"] > 0
    assert mux_json(mesh, "audit")["ok"] is True


async def test_chat_spend_reconcile_and_audit_work_as_on_sqlite(mesh: Mesh) -> None:
    await calls(mesh, "on MongoDB")
    books_are_right(mesh)
    assert [path.name for path in mesh.home.iterdir() if "sqlite" in path.name] == []
    for replica in ACCOUNTING:
        assert 'modelmuxer_store_connections_max{pool="money"} 32.0' in mesh.metrics(replica)
        assert 'modelmuxer_store_connection_wait_seconds_count{pool="money"}' in mesh.metrics(replica)


async def test_a_key_revoked_at_one_accounting_stops_at_once_at_every_router(mesh: Mesh) -> None:
    async with admin(mesh, "accounting") as one, admin(mesh, "accounting-2") as other:
        for maker, revoker in ((one, other), (other, one)):
            made = await maker.CreateKey(pb.CreateKeyRequest(name="short-lived"))
            clients = [Client(mesh.grpc(router), api_key=made.secret) for router in ("router", "router-2")]
            for client in clients:
                await client.chat(question("Am I in?"))
            await revoker.RevokeKey(pb.RevokeKeyRequest(key_id=made.key.id))
            revoked_s = time.monotonic()
            for client in clients:
                while await _is_let_in(client):
                    assert time.monotonic() - revoked_s < 3, "a tenth of a second where nothing else runs"
                await client.close()


async def _is_let_in(client: Client) -> bool:
    try:
        await client.chat(question("Am I still in?"))
    except CallError as error:
        if error.code is not grpc.StatusCode.UNAUTHENTICATED:
            raise
        return False
    return True


async def test_a_budget_made_at_one_accounting_holds_at_every_router(mesh: Mesh) -> None:
    async with admin(mesh, "accounting") as one, admin(mesh, "accounting-2") as other:
        made = await one.CreateKey(pb.CreateKeyRequest(name="poor", tenant="poor"))
        async with Client(mesh.grpc("router"), api_key=made.secret) as client:
            await client.chat(question("Still rich"))
            budget = pb.Budget(name="nothing", tenant="poor", scope=pb.CEILING_SCOPE_TENANT, limit_nanos=1)
            await other.CreateBudget(pb.CreateBudgetRequest(budget=budget))
            made_s = time.monotonic()
            while await _is_paid_for(client):
                assert time.monotonic() - made_s < 3


async def _is_paid_for(client: Client) -> bool:
    try:
        await client.chat(question("Rich?"))
    except CallError as error:
        if error.code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return False
    return True


async def test_one_accounting_dies_under_load_and_nothing_is_lost(mesh: Mesh) -> None:
    async with Client(mesh.grpc(), api_key=mesh.key, timeout_s=30) as client:
        for round_ in range(2):
            running = [client.chat(question(f"[[sim ttft=200ms]] {round_} {number}")) for number in range(20)]
            answers = asyncio.gather(*running)
            await asyncio.to_thread(mesh.kill, "accounting")
            assert len(await answers) == 20
    books_are_right(mesh)


async def test_the_database_hangs_and_dies_and_the_ledger_gets_everything_later(
    mesh: Mesh, server: MongoServer
) -> None:
    async with Client(mesh.grpc(), api_key=mesh.key, timeout_s=30) as client:
        await client.chat(question("The key is known from here on"))
        server.pause()
        try:
            await asyncio.gather(*(client.chat(question(f"while it hangs {number}")) for number in range(20)))
        finally:
            server.resume()
        await asyncio.to_thread(server.kill)
        await asyncio.gather(*(client.chat(question(f"while it is dead {number}")) for number in range(20)))
        server.start()  # in no thread: it would end with the one that started it
    books_are_right(mesh)
