"""What only a server can do to the ledger: die in the middle of a write, hang, be written by a newer release."""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pymongo
import pytest
from modelmuxer.accounting.v1 import accounting_pb2 as pb

from services.accounting.keys import new_key
from services.accounting.stores import EntryQuery, PolicyRecord, SpendQuery, Store, StoreAway, StoreError
from services.accounting.stores.mongodb import feed
from services.accounting.stores.mongodb.connection import Database, Pool
from services.accounting.stores.mongodb.schema import VERSION, Schema
from services.accounting.stores.mongodb.store import MongoStore
from shared.errors import MeshError, Reason
from tests.ports import free_port
from tests.stores.ledger.facts import announced, outcome, story
from tests.stores.ledger.test_ledger import all_entries, audit, expected
from tests.tools.mongodb.server import MongoServer

QUICK = Pool(largest=4, wait_s=0.3, timeout_s=1.0)


@asynccontextmanager
async def opened(url: str, pool: Pool = QUICK, **how: Any) -> AsyncIterator[MongoStore]:
    store = await MongoStore.open(url, pool, **how)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def database(mongodb_url: str) -> pymongo.database.Database[dict[str, Any]]:
    """The documents themselves."""
    return pymongo.MongoClient[dict[str, Any]](mongodb_url, tz_aware=True).get_default_database()


async def test_killing_the_server_in_the_middle_of_writes_loses_nothing_that_was_acknowledged(
    mongo_server: MongoServer,
) -> None:
    rng = random.Random(4)
    told = story(rng, 300)
    batches = [told[start : start + 20] for start in range(0, len(told), 20)]
    acknowledged: list[pb.JournalRecord] = []
    async with opened(mongo_server.url, quiet_s=0) as one, opened(mongo_server.url, quiet_s=0) as other:

        async def ship(store: Store, batches: list[list[pb.JournalRecord]]) -> None:
            for batch in batches:
                await _ship(store, batch)
                acknowledged.extend(batch)

        shipping = asyncio.gather(ship(one, batches[::2]), ship(other, batches[1::2]), ship(other, batches))
        for _ in range(3):
            had = len(acknowledged)
            deadline_s = time.monotonic() + 60
            while len(acknowledged) < had + 40 and not shipping.done():
                assert time.monotonic() < deadline_s
                await asyncio.sleep(0.01)
            await asyncio.to_thread(mongo_server.kill)
            known = {record.attempt_id for record in acknowledged}
            await asyncio.to_thread(mongo_server.start)
            assert known <= set(await _eventually(one))
        await asyncio.wait_for(shipping, 90)
        assert await all_entries(other) == expected(told)
        for _ in range(2):
            report = await audit(one)
            assert report.ok, report.findings
            await one.tidy(time.time_ns() + 3600 * 1_000_000_000)  # the marks of writers that were cut are old by then


async def _ship(store: Store, batch: list[pb.JournalRecord]) -> None:
    """As a journal's shipper does: again and again, until it is acknowledged."""
    while True:
        try:
            await store.record(batch, time.time_ns())
        except MeshError as error:
            if error.reason != Reason.ACCOUNTING_UNAVAILABLE:
                raise
            await asyncio.sleep(0.05)
        else:
            return


async def _eventually(store: Store) -> dict[str, pb.Entry]:
    async with asyncio.timeout(30):
        while True:
            try:
                return await all_entries(store)
            except MeshError:
                await asyncio.sleep(0.05)


async def test_a_hung_server_is_waited_for_a_little_and_then_answers_again(mongo_server: MongoServer) -> None:
    async with opened(mongo_server.url) as store:
        await store.record([announced("a")], 5)
        mongo_server.pause()
        try:
            began_s = time.monotonic()
            asked = [store.record([announced(f"b{n}")], 5) for n in range(40)]
            results = await asyncio.gather(*asked, return_exceptions=True)
            took_s = time.monotonic() - began_s
        finally:
            mongo_server.resume()
        assert all(isinstance(each, MeshError) for each in results)
        assert {each.reason for each in results if isinstance(each, MeshError)} == {Reason.ACCOUNTING_UNAVAILABLE}
        assert took_s < 10  # 40 calls, 4 connections, a second for an answer: who waited for a connection left early
        async with asyncio.timeout(30):
            await _ship(store, [outcome("a"), *(announced(f"b{n}") for n in range(40))])
        assert len(await store.entries(EntryQuery(limit=100))) == 41
        assert (await audit(store)).ok


async def test_whoever_cannot_hear_changes_says_so_and_then_that_it_can(mongo_server: MongoServer) -> None:
    async with opened(mongo_server.url) as store:
        changes = store.changes()
        assert await anext(changes) == ()
        await asyncio.to_thread(mongo_server.kill)
        assert await asyncio.wait_for(anext(changes), 30) is None
        await asyncio.to_thread(mongo_server.start)
        assert await asyncio.wait_for(anext(changes), 30) == ()


async def test_more_changes_than_are_kept_are_not_passed_over_in_silence(
    mongodb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "KEPT", 20)
    async with opened(mongodb_url) as store:
        changes = store.changes()
        assert await anext(changes) == ()
        for number in range(30):
            await store.ask_back(f"account-{number}")
        assert await asyncio.wait_for(anext(changes), 30) is None
        assert await asyncio.wait_for(anext(changes), 30) == ()


async def test_a_change_that_was_cut_before_it_was_noted_is_finished(
    mongodb_url: str, database: pymongo.database.Database[dict[str, Any]]
) -> None:
    async with opened(mongodb_url) as store:
        stored = new_key(pb.CreateKeyRequest(tenant="acme"), secrets.token_hex(16), 5)
        await store.add_key(stored, "mesh")
        policy = PolicyRecord(kind="budget", id="b1", tenant="acme", document=b"1")
        await store.put_policy(policy, "create_budget", "mesh", 6, new=True)
        # As it stands when the process dies right after the first write of each.
        note = {"id": "n1", "at_ns": 7, "actor": "ann", "kind": "key", "value": stored.sha256}
        revoked = {"revoked_ns": 7, "trail": [note | {"action": "revoke_key", "subject": stored.key.id}]}
        database["keys"].update_one({"_id": stored.sha256}, {"$set": revoked})
        note = {"id": "n2", "at_ns": 8, "actor": "ann", "kind": "tenant", "value": "acme"}
        gone = {"gone": True, "trail": [note | {"action": "delete_budget", "subject": "b1"}]}
        database["policies"].update_one({"_id": "budget/b1"}, {"$set": gone})

        changes = store.changes()
        await anext(changes)
        await store.tidy(time.time_ns())
        heard = await asyncio.wait_for(anext(changes), 30)
        assert heard is not None
        assert {(each.kind, each.value) for each in heard} == {("key", stored.sha256), ("tenant", "acme")}
    trail = [(each["at_ns"], each["actor"], each["action"], each["subject"]) for each in database["audit"].find()]
    assert sorted(trail) == [
        (5, "mesh", "create_key", stored.key.id),
        (6, "mesh", "create_budget", "b1"),
        (7, "ann", "revoke_key", stored.key.id),
        (8, "ann", "delete_budget", "b1"),
    ]
    assert database["policies"].count_documents({}) == 0


async def test_a_writer_that_is_held_up_while_its_hour_is_summed_is_not_left_out(mongodb_url: str) -> None:
    async with opened(mongodb_url, quiet_s=0) as store, opened(mongodb_url, quiet_s=0) as other:
        await store.record([announced("a"), outcome("a")], 5)
        held_up, go_on = asyncio.Event(), asyncio.Event()
        bulk_write = store._entries._apply

        async def slow(writes: Any) -> list[str]:
            held_up.set()
            await go_on.wait()
            return await bulk_write(writes)

        store._entries._apply = slow  # type: ignore[method-assign]  # a process that the machine does not run just now
        writing = asyncio.create_task(store.record([announced("b"), outcome("b")], 5))
        await held_up.wait()
        for later_s in (0, 3600):  # as long as the mark is believed, and when it is not any more
            await other.tidy(time.time_ns() + later_s * 1_000_000_000)
            (total,) = await other.spend(SpendQuery())
            assert total.amounts.attempts == 1
        go_on.set()
        await writing
        (total,) = await other.spend(SpendQuery())
        assert total.amounts.attempts == 2
        assert (await audit(other)).ok


async def test_an_audit_finds_sums_that_are_not_those_of_the_entries(
    mongodb_url: str, database: pymongo.database.Database[dict[str, Any]]
) -> None:
    async with opened(mongodb_url, quiet_s=0) as store:
        await store.record([announced("a"), outcome("a")], 5)
        await store.tidy(time.time_ns())
        assert (await audit(store)).ok
        database["hours"].update_one({}, {"$inc": {"rows.0.cost_nanos": 1}})
        assert [each.check for each in (await audit(store)).findings] == ["sums-are-those-of-entries"]
        database["entries"].update_one({}, {"$inc": {"cost_nanos": 1}})
        assert "entry-follows-from-facts" in {each.check for each in (await audit(store)).findings}


async def test_the_indexes_of_the_users_guide_are_there(
    mongodb_url: str, database: pymongo.database.Database[dict[str, Any]]
) -> None:
    async with opened(mongodb_url):
        keys = [tuple(index["key"]) for index in database["entries"].list_indexes()]
    assert ("user", "created_at") in keys
    assert ("provider", "model") in keys


async def test_a_newer_schema_is_refused_and_an_older_one_brought_up_to_date_once(
    mongodb_url: str, database: pymongo.database.Database[dict[str, Any]]
) -> None:
    async with opened(mongodb_url) as store:
        await store.record([announced("a")], 5)

    async def add_a_field(db: Database) -> None:
        await db["entries"].update_many({"colour": {"$exists": False}}, {"$set": {"colour": "blue"}})

    newer = Schema(VERSION + 1, {VERSION: add_a_field})
    async with opened(mongodb_url, schema=newer), opened(mongodb_url, schema=newer):
        (entry,) = database["entries"].find()
        assert entry["colour"] == "blue"
    with pytest.raises(StoreError, match="written by a newer release"):
        await MongoStore.open(mongodb_url, QUICK)


async def test_what_keeps_a_store_from_being_opened_is_said_with_what_to_do(
    mongodb_server_url: str,
) -> None:
    port = free_port()
    with pytest.raises(StoreAway, match=f"No MongoDB answers at 127.0.0.1:{port}/x .*start it, or set MONGODB_URL"):
        await MongoStore.open(f"mongodb://ann:secret@127.0.0.1:{port}/x", QUICK)
    with pytest.raises(StoreError, match="refuses the user or the password of MONGODB_URL") as caught:
        await MongoStore.open(mongodb_server_url.replace("://", "://ann:wrong@"), QUICK)
    assert "wrong" not in str(caught.value)
    with pytest.raises(StoreError, match="MONGODB_URL cannot be read"):
        await MongoStore.open("mongodb://", QUICK)
