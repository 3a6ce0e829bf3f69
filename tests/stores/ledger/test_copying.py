"""A ledger is moved whole: from SQLite to MongoDB and back, also when it is cut short, and what is missing is found."""

import asyncio
import json
import os
import random
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymongo
import pytest
from modelmuxer.accounting.v1 import accounting_pb2 as pb

from services.accounting.backup import backup
from services.accounting.copying import CopyError, copy, opened, side
from services.accounting.keys import new_key
from services.accounting.operations import Operation
from services.accounting.stores import EntryQuery, PolicyRecord, SpendQuery, Store, StoreError, sqlite_moving
from services.accounting.stores.mongodb import moving
from services.accounting.stores.movers import check_complete
from services.accounting.stores.moving import Part
from services.accounting.stores.sqlite import SqliteStore
from tests.stores.ledger.facts import announced, billed, story
from tests.stores.ledger.test_ledger import all_entries, audit, expected
from tests.stores.ledger.test_money import account

ENTRIES = 400
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that several pages are moved."""
    monkeypatch.setattr(moving, "_PAGE", 150)
    monkeypatch.setattr(sqlite_moving, "_PAGE", 150)


def quiet(what: str, done: int, total: int) -> None:
    """Tells nobody."""


async def fill(store: Store) -> list[pb.JournalRecord]:
    """A ledger with something in each of its parts."""
    told = story(random.Random(7), ENTRIES)
    await store.record(told, 1_700_000_000_000_000_000)
    later = [billed(f"attempt-{n:05}", 5 * n) for n in range(100)]
    await store.record([*later, announced("odd \0 \U0001f600")], time.time_ns())
    broken = pb.JournalRecord(id="x/announced", attempt_id="x", announced=pb.Announced(billing_context=b"\xff"))
    await store.record([broken], 5)
    for number in range(5):
        stored = new_key(pb.CreateKeyRequest(tenant="acme", models=["m"]), secrets.token_hex(16), number)
        await store.add_key(stored, "mesh")
        if number % 2:
            await store.revoke_key(stored.key.id, "ann", 1000 + number)
    for kind in ("budget", "limit", "tenant"):
        policy = PolicyRecord(kind=kind, id=f"{kind}-1", tenant="acme", document=b"\x01\xff")
        await store.put_policy(policy, f"create_{kind}", "mesh", 7, new=True)
    await store.put_policy(
        PolicyRecord(kind="budget", id="gone", tenant="", document=b"2"), "create_budget", "mesh", 8, new=True
    )
    await store.delete_policy("budget", "gone", "mesh", 9)
    kept = replace(account("budget-1|acme||0", forget_ns=1 << 60), closed=1 << 61)
    await store.change_account(kept.id, lambda before: (kept, before))
    claim = Operation(key_id="key_1", operation_id="op", body_sha256=b"s", owner="r", expires_ns=1 << 62)
    await store.claim_operation(claim, 5)
    await store.end_operation("key_1", "op", "r", b"answer", time.time_ns())
    return [*told, *later, announced("odd \0 \U0001f600")]


async def test_a_ledger_moves_to_mongodb_and_back_with_all_that_it_holds(tmp_path: Path, mongodb_url: str) -> None:
    environ = {"MODELMUXER_HOME": str(tmp_path), "MONGODB_URL": mongodb_url}
    first = SqliteStore(tmp_path / "ledger.sqlite")
    told = await fill(first)
    wanted = await audit(first)
    await first.close()
    for source, target in (("sqlite", "mongodb"), ("mongodb", str(tmp_path / "back.sqlite"))):
        seen: set[str] = set()
        async with opened(source, environ, to_read=True) as one, opened(target, environ, to_read=False) as other:
            copied = await copy(one, other, lambda what, done, total, seen=seen: seen.add(what))  # type: ignore[misc]
            assert dict(copied.counts) == {
                "entries": ENTRIES + 1,
                "rejected": 1,
                "keys": 5,
                "audit": 12,
                "policies": 3,
                "accounts": 1,
                "operations": 1,
            }
            assert copied.total_nanos == wanted.total_nanos
            assert {"entries", "checking keys", "sums"} <= seen
            assert await audit(other.store) == wanted
            assert wanted.counts["corrections"] > 20
            assert await all_entries(other.store) == expected(told)
            for each in (one, other):
                assert sum((await each.store.lease_spends({"budget|acme": ["lease-1"]})).values()) > 0
                assert await each.store.account_spend("budget|acme") > 0
            assert await one.store.account_spend("budget|acme") == await other.store.account_spend("budget|acme")
            assert await one.store.keys("", include_revoked=True) == await other.store.keys("", include_revoked=True)
            assert await one.store.policies("budget") == await other.store.policies("budget")
            assert await one.store.accounts() == await other.store.accounts()
            with pytest.raises(CopyError, match="holds a complete copy"):
                await copy(one, other, quiet)


async def test_a_copy_that_is_cut_anywhere_goes_on_where_it_was_and_is_no_ledger_before(
    tmp_path: Path, mongodb_url: str
) -> None:
    environ = {"MODELMUXER_HOME": str(tmp_path), "MONGODB_URL": mongodb_url}
    first = SqliteStore(tmp_path / "ledger.sqlite")
    await fill(first)
    await first.close()

    class Cut(Exception):
        pass

    async def cut_after(steps: int, source: str, target: str) -> bool:
        left = steps

        def told(what: str, done: int, total: int) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Cut

        async with opened(source, environ, to_read=True) as one, opened(target, environ, to_read=False) as other:
            try:
                await copy(one, other, told)
            except Cut:
                with pytest.raises(StoreError, match="unfinished copy"):
                    await check_complete(other.store)
                return True
            await check_complete(other.store)
            return False

    for source, target in (("sqlite", "mongodb"), ("mongodb", str(tmp_path / "back.sqlite"))):
        cuts = 0
        while await cut_after(3 + cuts, source, target):
            cuts += 1
        assert cuts >= 3


async def test_a_killed_copy_is_finished_by_the_same_command(tmp_path: Path, mongodb_url: str) -> None:
    store = SqliteStore(tmp_path / "ledger.sqlite")
    await fill(store)
    await store.close()
    command = [sys.executable, "-m", "services.accounting.copying", "sqlite", "mongodb", "--json"]
    environ = os.environ | {"MODELMUXER_HOME": str(tmp_path), "MONGODB_URL": mongodb_url}
    entries = pymongo.MongoClient[dict[str, Any]](mongodb_url).get_default_database()["entries"]

    def kill_in_the_middle() -> None:
        process = subprocess.Popen(command, env=environ, cwd=ROOT, stdout=subprocess.DEVNULL)
        deadline_s = time.monotonic() + 60
        while not entries.estimated_document_count() and process.poll() is None:
            assert time.monotonic() < deadline_s
        process.send_signal(signal.SIGKILL)
        process.wait()

    await asyncio.to_thread(kill_in_the_middle)
    mux = [str(Path(sys.executable).with_name("mux")), "ledger", "copy", *command[3:]]
    again = await asyncio.to_thread(subprocess.run, mux, env=environ, cwd=ROOT, capture_output=True, text=True)
    if "holds a complete copy" not in again.stderr:  # the kill came too late
        assert again.returncode == 0, again.stderr
        assert json.loads(again.stdout)["counts"]["entries"] == ENTRIES + 1
    assert entries.count_documents({}) == ENTRIES + 1


async def test_a_copy_is_refused_where_it_could_mix_ledgers_and_says_what_differs(
    tmp_path: Path, mongodb_url: str
) -> None:
    one, other = SqliteStore(tmp_path / "one.sqlite"), SqliteStore(tmp_path / "other.sqlite")
    await one.record([announced("a")], 5)
    await other.record([announced("b")], 5)
    with pytest.raises(CopyError, match="no empty ledger"):
        await copy(side(one), side(other), quiet)
    target = SqliteStore(tmp_path / "target.sqlite")

    def tamper(what: str, done: int, total: int) -> None:
        if what == "checking policies":
            with sqlite3.connect(tmp_path / "target.sqlite") as db:
                db.execute("UPDATE entries SET outcome = x'00'")

    await one.put_policy(PolicyRecord(kind="budget", id="b", tenant="", document=b""), "c", "m", 1, new=True)
    with pytest.raises(CopyError, match="The entries differ"):
        await copy(side(one), side(target), tamper)
    with pytest.raises(CopyError, match="holds part of a copy of"):
        await copy(side(other), side(target), quiet)
    with pytest.raises(StoreError, match="There is no ledger"):
        async with opened(str(tmp_path / "none.sqlite"), {}, to_read=True):
            pass
    for store in (one, other, target):
        await store.close()


async def test_a_backup_taken_while_accounting_writes_is_a_whole_ledger(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ledger.sqlite")
    await fill(store)
    stop = threading.Event()

    async def write() -> int:
        written = 0
        while not stop.is_set():
            await store.record([announced(f"during-{written}")], 5)
            written += 1
        return written

    writing = asyncio.create_task(write())
    await asyncio.to_thread(backup, tmp_path / "ledger.sqlite", tmp_path / "backup.sqlite")
    stop.set()
    await writing
    await store.close()
    assert [name for name in os.listdir(tmp_path) if name.startswith("backup")] == ["backup.sqlite"]
    restored = SqliteStore(tmp_path / "backup.sqlite")
    report = await audit(restored)
    assert report.ok, report.findings
    (spend,) = await restored.spend(SpendQuery())
    assert spend.amounts.attempts >= ENTRIES
    assert len(await restored.entries(EntryQuery(limit=10_000))) == spend.amounts.attempts
    await restored.close()
    with pytest.raises(FileExistsError):
        backup(tmp_path / "ledger.sqlite", tmp_path / "backup.sqlite")


def test_every_part_of_a_ledger_is_moved(tmp_path: Path) -> None:
    asyncio.run(SqliteStore(tmp_path / "ledger.sqlite").close())
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    derived = {"corrections", "holds", "sums", "copy", "schema_version"}  # the first of them stand with their entries
    assert tables - derived == {str(part) for part in Part}
