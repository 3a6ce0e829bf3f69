"""Accounting over real gRPC, on each real store: what it promises the mesh, and the people who read its bill."""

import asyncio
import hashlib
import json
import os
import random
import signal
import sqlite3
import stat
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from modelmuxer.accounting.v1 import accounting_pb2 as pb
from modelmuxer.accounting.v1.accounting_pb2_grpc import AccountingServiceStub, AdminServiceStub
from modelmuxer.chat.v1.chat_pb2 import (
    USAGE_SOURCE_ESTIMATED,
    USAGE_SOURCE_PARTIAL,
    USAGE_SOURCE_PROVIDER,
    Block,
    ChatResponse,
    Text,
    Usage,
)

from services.accounting.__main__ import build
from services.accounting.settings import AccountingSettings
from services.accounting.stores import StoreError
from services.accounting.stores.sqlite import SqliteStore
from shared.channels import MeshChannel, connect
from shared.errors import MeshError
from shared.journal import Journal
from shared.runner import StartError, running
from shared.shipper import Shipper
from tests.ports import free_port
from tests.zygote import WarmForkServer

HOUR = 3600
MIDNIGHT = 1_700_006_400  # 2023-11-15 00:00 UTC
TOKEN = "a mesh token of some length"


class Accounting:
    """A running accounting, and ways to call it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._channels: list[grpc.aio.Channel] = []
        self.rpc = AccountingServiceStub(self.channel())
        self.admin = AdminServiceStub(self.channel())

    def channel(self, token: str | None = TOKEN) -> grpc.aio.Channel:
        below = connect(self.address, 1 << 25)
        channel = below if token is None else MeshChannel(below, token, None)
        self._channels.append(channel)
        return channel

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


def settings(home: Path, **variables: str) -> AccountingSettings:
    return AccountingSettings.load(
        {
            "MODELMUXER_HOME": str(home),
            "MODELMUXER_MESH_TOKEN": TOKEN,
            "MODELMUXER_ACCOUNTING_PORT": "0",
            "MODELMUXER_DRAIN_WAIT_S": "0",
            "MODELMUXER_GRACE_S": "2",
            **variables,
        }
    )


@asynccontextmanager
async def serving(home: Path, **variables: str) -> AsyncIterator[Accounting]:
    async with running("accounting", settings(home, **variables), build) as app:
        accounting = Accounting(app.address)
        yield accounting
        await accounting.close()


@pytest.fixture(params=["sqlite", "mongodb"])
def ledger(request: pytest.FixtureRequest) -> dict[str, str]:
    """Where the ledger is kept, as settings."""
    if request.param == "sqlite":
        return {}
    return {
        "MODELMUXER_LEDGER_STORE": "mongodb",
        "MONGODB_URL": request.getfixturevalue("mongodb_url"),
        "DATABASE_POOL_SIZE": "0",
    }


@pytest.fixture
async def accounting(tmp_path: Path, ledger: dict[str, str]) -> AsyncIterator[Accounting]:
    async with serving(tmp_path, **ledger) as started:
        yield started


# For tests that look into the file.
in_sqlite = pytest.mark.parametrize("ledger", ["sqlite"], indirect=True)


def context(user: str = "ann", tenant: str = "default", request: str = "req_1") -> bytes:
    return pb.BillingContext(
        principal=pb.Principal(tenant=tenant, user=user, key_id=f"key_{user}"),
        price=pb.Price(version="v1", rows=[pb.PriceRow(input=2_000_000, output=10_000_000)]),
        request_id=request,
    ).SerializeToString()


def record(attempt: str, kind: str, fact: Any, seconds: float = MIDNIGHT) -> pb.JournalRecord:
    made = pb.JournalRecord(id=f"{attempt}/{kind}", attempt_id=attempt, witness="proxy/1", **{kind: fact})
    made.time.FromNanoseconds(int(seconds * 1e9))
    return made


def announced(attempt: str, seconds: float = MIDNIGHT, model: str = "openai/m", **who: str) -> pb.JournalRecord:
    provider = model.partition("/")[0]
    fact = pb.Announced(billing_context=context(**who), provider=provider, model=model, estimated_input_tokens=7)
    return record(attempt, "announced", fact, seconds)


def outcome(
    attempt: str,
    tokens: int = 10,
    source: Any = USAGE_SOURCE_PROVIDER,
    kind: str = "outcome",
    *,
    unbilled: bool = False,
) -> pb.JournalRecord:
    usage = Usage(input_tokens=tokens, output_tokens=tokens, source=source)
    return record(attempt, kind, pb.Outcome(usage=usage, status="OK", unbilled=unbilled), MIDNIGHT + 1)


def hit(attempt: str, seconds: float = MIDNIGHT, **who: str) -> pb.JournalRecord:
    fact = pb.CacheHit(billing_context=context(**who), model="openai/m", provider="openai", saved_nanos=9)
    return record(attempt, "cache_hit", fact, seconds)


async def keep(accounting: Accounting, *records: pb.JournalRecord) -> None:
    answer = await accounting.rpc.Record(pb.RecordRequest(records=records))
    assert sorted(answer.record_ids) == sorted(each.id for each in records)


async def entries(accounting: Accounting, **query: Any) -> list[pb.Entry]:
    return list((await accounting.rpc.ListEntries(pb.ListEntriesRequest(page_size=1000, **query))).entries)


async def refused(call: Any) -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return MeshError.from_rpc(caught.value)


def ledger_files(home: Path) -> list[Path]:
    return list(home.glob("ledger.sqlite*"))


def bearer(secret: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {secret}"),)


# --- the ledger ----------------------------------------------------------------------------------------------------


async def test_each_attempt_is_one_entry_however_often_and_in_whatever_order_it_is_told(tmp_path: Path) -> None:
    facts = [
        *(announced("posted"), outcome("posted")),
        *(announced("partial"), outcome("partial", 5, USAGE_SOURCE_PARTIAL)),
        *(announced("voided"), outcome("voided", unbilled=True)),
        *(announced("lost"), outcome("lost", 3, USAGE_SOURCE_ESTIMATED), outcome("lost", 8, kind="observed")),
        announced("pending"),
        hit("hit"),
    ]
    ledgers = []
    for seed in range(4):
        chance = random.Random(seed)
        told = facts + chance.choices(facts, k=10)
        chance.shuffle(told)
        async with serving(tmp_path / str(seed)) as accounting:
            while told:
                size = chance.randint(1, 6)
                await keep(accounting, *told[:size])
                told = told[size:]
            await keep(accounting, *facts)
            found = await entries(accounting)
            total = (await accounting.rpc.GetSpend(pb.GetSpendRequest())).rows
            ledgers.append(
                ([each.SerializeToString(deterministic=True) for each in found], [str(row) for row in total])
            )
            states = {each.attempt_id: (each.state, each.cost_nanos) for each in found}
    assert all(each == ledgers[0] for each in ledgers)
    assert states == {
        "posted": (pb.ENTRY_STATE_POSTED, 120),
        "partial": (pb.ENTRY_STATE_ESTIMATED, 60),
        "voided": (pb.ENTRY_STATE_VOIDED, 0),
        "lost": (pb.ENTRY_STATE_POSTED, 96),
        "pending": (pb.ENTRY_STATE_PENDING, 0),
        "hit": (pb.ENTRY_STATE_POSTED, 0),
    }


async def test_an_outcome_stands_by_itself_until_its_announcement_comes(accounting: Accounting) -> None:
    early = outcome("a")
    await keep(accounting, early)
    (entry,) = await entries(accounting)
    assert (entry.state, entry.principal.tenant) == (pb.ENTRY_STATE_ESTIMATED, "")
    await keep(accounting, announced("a"))
    (entry,) = await entries(accounting)
    assert (entry.state, entry.cost_nanos, entry.principal.user) == (pb.ENTRY_STATE_POSTED, 120, "ann")
    by_user = await accounting.rpc.GetSpend(pb.GetSpendRequest(group_by=[pb.SPEND_DIMENSION_USER]))
    assert [(dict(row.group), row.attempts) for row in by_user.rows] == [({"user": "ann"}, 1)]


@in_sqlite
async def test_what_can_be_no_fact_is_set_aside_and_holds_up_nobody(accounting: Accounting, tmp_path: Path) -> None:
    broken = record("bad", "announced", pb.Announced(billing_context=b"\xff\xff"))
    await keep(accounting, announced("good"), broken, outcome("good"))
    assert [entry.attempt_id for entry in await entries(accounting)] == ["good"]
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        ((kept, why),) = db.execute("SELECT record, why FROM rejected").fetchall()
    assert pb.JournalRecord.FromString(kept) == broken
    assert "billing context" in why


@in_sqlite
async def test_a_correction_is_kept_beside_the_entry_that_it_changed(accounting: Accounting, tmp_path: Path) -> None:
    await keep(accounting, announced("a"), outcome("a", 3, USAGE_SOURCE_ESTIMATED))
    await keep(accounting, outcome("a", 5, kind="observed"))
    await keep(accounting, outcome("a", 5, kind="observed"))
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        corrections = db.execute("SELECT from_state, to_state, delta_nanos FROM corrections").fetchall()
    assert corrections == [(pb.ENTRY_STATE_ESTIMATED, pb.ENTRY_STATE_POSTED, 24)]


async def test_an_attempt_that_nobody_ends_becomes_an_estimate(tmp_path: Path, ledger: dict[str, str]) -> None:
    quick = {"MODELMUXER_PENDING_TIMEOUT_S": "1", "MODELMUXER_SWEEP_INTERVAL_S": "0.05"}
    async with serving(tmp_path, **quick, **ledger) as accounting:
        await keep(accounting, announced("old"), announced("fresh", time.time() + 60))
        deadline = time.monotonic() + 10
        while {entry.attempt_id: entry.state for entry in await entries(accounting)} != {
            "old": pb.ENTRY_STATE_ESTIMATED,
            "fresh": pb.ENTRY_STATE_PENDING,
        }:
            assert time.monotonic() < deadline
        (entry,) = await entries(accounting, attempt_id="old")
        assert (entry.cost_nanos, entry.reason, entry.usage.input_tokens) == (14, "OUTCOME_UNKNOWN", 7)
        await keep(accounting, outcome("old"))
        (entry,) = await entries(accounting, attempt_id="old")
        assert (entry.state, entry.cost_nanos) == (pb.ENTRY_STATE_POSTED, 120)


async def test_concurrent_batches_are_each_kept_whole(accounting: Accounting) -> None:
    await asyncio.gather(
        *(
            keep(accounting, *(each(f"{batch}-{n}") for n in range(10) for each in (announced, outcome)))
            for batch in range(20)
        )
    )
    total = await accounting.rpc.GetSpend(pb.GetSpendRequest())
    assert (total.total_nanos, total.rows[0].attempts) == (200 * 120, 200)


# --- reports -------------------------------------------------------------------------------------------------------

DIMENSIONS: dict[str, tuple[pb.SpendDimension, Callable[[pb.Entry], str]]] = {
    "model": (pb.SPEND_DIMENSION_MODEL, lambda entry: entry.model),
    "user": (pb.SPEND_DIMENSION_USER, lambda entry: entry.principal.user),
    "day": (
        pb.SPEND_DIMENSION_DAY,
        lambda entry: time.strftime("%Y-%m-%d", time.gmtime(entry.create_time.seconds)),
    ),
    "tenant": (pb.SPEND_DIMENSION_TENANT, lambda entry: entry.principal.tenant),
    "key": (pb.SPEND_DIMENSION_KEY, lambda entry: entry.principal.key_id),
    "provider": (pb.SPEND_DIMENSION_PROVIDER, lambda entry: entry.provider),
}


def some_traffic(count: int) -> Iterator[pb.JournalRecord]:
    chance = random.Random(5)
    for number in range(count):
        who = {"user": chance.choice(["ann", "bob"]), "tenant": chance.choice(["default", "acme"])}
        seconds = MIDNIGHT + chance.randrange(-30 * HOUR, 30 * HOUR) + chance.random()
        if chance.random() < 0.2:
            yield hit(f"a{number}", seconds, **who)
            continue
        yield announced(f"a{number}", seconds, chance.choice(["openai/m", "anthropic/n"]), **who)
        source = chance.choice([USAGE_SOURCE_PROVIDER, USAGE_SOURCE_PARTIAL])
        if chance.random() < 0.9:
            yield outcome(f"a{number}", chance.randrange(100), source, unbilled=chance.random() < 0.1)


def sums(found: Iterable[pb.Entry], names: list[str]) -> dict[tuple[str, ...], tuple[int, ...]]:
    """What the entries add up to, counted the slow way."""
    rows: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0] * 7)
    for entry in found:
        row = rows[tuple(DIMENSIONS[name][1](entry) for name in names)]
        is_hit = entry.saved_nanos > 0
        estimated = entry.cost_nanos if entry.state == pb.ENTRY_STATE_ESTIMATED else 0
        values = (entry.cost_nanos, estimated, entry.saved_nanos, not is_hit, is_hit)
        for place, value in enumerate((*values, entry.usage.input_tokens, entry.usage.output_tokens)):
            row[place] += value
    return {group: tuple(row) for group, row in rows.items()}


def reported(spend: pb.GetSpendResponse, names: list[str]) -> dict[tuple[str, ...], tuple[int, ...]]:
    return {
        tuple(row.group[name] for name in names): (
            *(row.cost_nanos, row.estimated_nanos, row.saved_nanos, row.attempts, row.cache_hits),
            *(row.input_tokens, row.output_tokens),
        )
        for row in spend.rows
    }


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (None, None),
        (-5 * HOUR, None),
        (None, 3 * HOUR + 17.5),
        (-4321.25, 8765.5),
        (100.5, 1900.25),
        (0, 0),
        (3, HOUR + 3),
    ],
)
async def test_spend_is_the_sum_of_the_entries_however_it_is_cut(
    accounting: Accounting, start: float | None, end: float | None
) -> None:
    await keep(accounting, *some_traffic(300))
    everything = await entries(accounting)
    times: dict[str, Any] = {
        name: Timestamp(seconds=MIDNIGHT + int(at // 1), nanos=int(at % 1 * 1e9))
        for name, at in (("start_time", start), ("end_time", end))
        if at is not None
    }
    low, high = (times[name].ToNanoseconds() if name in times else None for name in ("start_time", "end_time"))
    within = [
        entry
        for entry in everything
        if (low is None or entry.create_time.ToNanoseconds() >= low)
        and (high is None or entry.create_time.ToNanoseconds() < high)
    ]
    for names in ([], ["model"], ["user", "day"], ["tenant", "key", "provider"], ["day", "model", "user", "tenant"]):
        request = pb.GetSpendRequest(group_by=[DIMENSIONS[name][0] for name in names], **times)
        spend = await accounting.rpc.GetSpend(request)
        assert reported(spend, names) == sums(within, names)
        assert spend.total_nanos == sum(entry.cost_nanos for entry in within)
        costs = [row.cost_nanos for row in spend.rows]
        assert costs == sorted(costs, reverse=True)


async def test_reports_can_be_kept_to_one_tenant(accounting: Accounting) -> None:
    await keep(accounting, *some_traffic(100))
    found = await entries(accounting, tenant="acme")
    assert {entry.principal.tenant for entry in found} == {"acme"}
    spend = await accounting.rpc.GetSpend(
        pb.GetSpendRequest(tenant="acme", end_time=Timestamp(seconds=MIDNIGHT + 40 * HOUR + 1))
    )
    assert reported(spend, []) == sums(found, [])


async def test_entries_are_listed_newest_first_page_by_page_without_gap_or_repetition(accounting: Accounting) -> None:
    await keep(accounting, *(announced(f"a{number}", MIDNIGHT + number // 3) for number in range(25)))
    token, listed = "", []
    while True:
        page = await accounting.rpc.ListEntries(pb.ListEntriesRequest(page_size=4, page_token=token))
        listed += [entry.attempt_id for entry in page.entries]
        await keep(accounting, announced(f"new{len(listed)}", MIDNIGHT + 1000))  # must not move later pages
        token = page.next_page_token
        if not token:
            break
    assert len(listed) == len(set(listed)) == 25
    assert sorted(listed, key=lambda attempt: (int(attempt[1:]) // 3, attempt), reverse=True) == listed
    for wrong in (pb.ListEntriesRequest(page_token="what?"), pb.ListEntriesRequest(page_size=-1)):
        error = await refused(accounting.rpc.ListEntries(wrong))
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")


async def test_entries_are_found_by_attempt_request_and_state(accounting: Accounting) -> None:
    await keep(accounting, announced("a", request="r1"), announced("b", request="r2"), outcome("b"))
    assert [entry.attempt_id for entry in await entries(accounting, attempt_id="a")] == ["a"]
    assert [entry.attempt_id for entry in await entries(accounting, request_id="r2")] == ["b"]
    assert [entry.attempt_id for entry in await entries(accounting, state=pb.ENTRY_STATE_PENDING)] == ["a"]


# --- doors and keys ------------------------------------------------------------------------------------------------


async def test_the_first_start_makes_an_admin_key_that_only_its_owner_reads(
    tmp_path: Path, ledger: dict[str, str]
) -> None:
    async with serving(tmp_path, **ledger) as accounting:
        path = tmp_path / "key"
        secret = path.read_text().strip()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert len(secret) == 46
        who = await accounting.rpc.Authenticate(
            pb.AuthenticateRequest(key_sha256=hashlib.sha256(secret.encode()).digest())
        )
        assert (who.principal.tenant, list(who.principal.scopes)) == ("default", [pb.SCOPE_CHAT, pb.SCOPE_ADMIN])
        admin = AdminServiceStub(accounting.channel(None))
        assert len((await admin.ListKeys(pb.ListKeysRequest(), metadata=bearer(secret))).keys) == 1
    async with serving(tmp_path, **ledger) as accounting:
        assert path.read_text().strip() == secret
        assert len((await accounting.admin.ListKeys(pb.ListKeysRequest())).keys) == 1


async def test_a_start_cut_short_finds_the_first_key_again(tmp_path: Path) -> None:
    async with serving(tmp_path):
        secret = (tmp_path / "key").read_text()
    for path in ledger_files(tmp_path):
        path.unlink()
    async with serving(tmp_path) as accounting:
        assert (tmp_path / "key").read_text() == secret
        await AdminServiceStub(accounting.channel(None)).ListKeys(pb.ListKeysRequest(), metadata=bearer(secret.strip()))


async def test_a_key_is_made_listed_and_revoked_and_its_secret_is_told_once(
    accounting: Accounting, tmp_path: Path, ledger: dict[str, str]
) -> None:
    made = await accounting.admin.CreateKey(
        pb.CreateKeyRequest(name="ci", tenant="acme", user="ann", max_output_tokens=100, models=["fast"])
    )
    sha256 = hashlib.sha256(made.secret.encode()).digest()
    assert made.secret.startswith("mm-")
    assert made.secret.startswith(made.key.prefix)
    who = (await accounting.rpc.Authenticate(pb.AuthenticateRequest(key_sha256=sha256))).principal
    assert (who.tenant, who.user, who.key_id, list(who.scopes)) == ("acme", "ann", made.key.id, [pb.SCOPE_CHAT])
    assert (who.max_output_tokens, list(who.models)) == (100, ["fast"])
    assert list((await accounting.admin.ListKeys(pb.ListKeysRequest(tenant="acme"))).keys) == [made.key]

    revoked = (await accounting.admin.RevokeKey(pb.RevokeKeyRequest(key_id=made.key.id))).key
    assert revoked.HasField("revoke_time")
    assert (await accounting.admin.RevokeKey(pb.RevokeKeyRequest(key_id=made.key.id))).key == revoked
    error = await refused(accounting.rpc.Authenticate(pb.AuthenticateRequest(key_sha256=sha256)))
    assert error.code is grpc.StatusCode.NOT_FOUND
    assert list((await accounting.admin.ListKeys(pb.ListKeysRequest(tenant="acme"))).keys) == []
    everything = pb.ListKeysRequest(tenant="acme", include_revoked=True)
    assert list((await accounting.admin.ListKeys(everything)).keys) == [revoked]

    if ledger:
        return
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        audit = db.execute("SELECT actor, action, subject FROM audit").fetchall()
    assert audit[1:] == [("mesh", "create_key", made.key.id), ("mesh", "revoke_key", made.key.id)]
    assert made.secret.encode() not in b"".join(path.read_bytes() for path in ledger_files(tmp_path))


async def test_keys_that_make_no_sense_are_refused_by_field(accounting: Accounting) -> None:
    for field, value in {
        "name": "x" * 1000,
        "user": "a\nb",
        "scopes": [7],
        "max_output_tokens": 0,
        "models": [""],
    }.items():
        error = await refused(accounting.admin.CreateKey(pb.CreateKeyRequest(**{field: value})))  # type: ignore[arg-type]
        assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    error = await refused(accounting.admin.RevokeKey(pb.RevokeKeyRequest(key_id="key_nobody")))
    assert error.code is grpc.StatusCode.NOT_FOUND


async def test_internal_calls_want_the_mesh_token_and_reports_it_or_an_admin(accounting: Accounting) -> None:
    chat_only = (await accounting.admin.CreateKey(pb.CreateKeyRequest(name="chat"))).secret
    an_admin = (await accounting.admin.CreateKey(pb.CreateKeyRequest(scopes=[pb.SCOPE_ADMIN]))).secret
    bare = accounting.channel(None)
    rpc, admin = AccountingServiceStub(bare), AdminServiceStub(bare)
    wrong_token = AccountingServiceStub(accounting.channel("some other token"))
    internal = [
        (rpc.Authenticate, pb.AuthenticateRequest()),
        (rpc.Record, pb.RecordRequest()),
        (rpc.ClaimOperation, pb.ClaimOperationRequest()),
        (rpc.EndOperation, pb.EndOperationRequest()),
    ]
    for method, request in internal:
        error = await refused(method(request, metadata=bearer(an_admin)))  # type: ignore[operator]
        assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "MESH_TOKEN")
    assert (await refused(wrong_token.Record(pb.RecordRequest()))).reason == "MESH_TOKEN"
    assert (await refused(anext(aiter(rpc.WatchPolicies(pb.WatchPoliciesRequest()))))).reason == "MESH_TOKEN"
    for method, request in [
        (rpc.GetSpend, pb.GetSpendRequest()),
        (rpc.ListEntries, pb.ListEntriesRequest()),
        (admin.ListKeys, pb.ListKeysRequest()),
        (admin.CreateKey, pb.CreateKeyRequest()),
        (admin.RevokeKey, pb.RevokeKeyRequest(key_id="nobody")),
    ]:
        assert (await refused(method(request))).reason == "MISSING_KEY"  # type: ignore[operator]
        assert (await refused(method(request, metadata=bearer("mm-guess")))).reason == "INVALID_KEY"  # type: ignore[operator]
        error = await refused(method(request, metadata=bearer(chat_only)))  # type: ignore[operator]
        assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "KEY_NOT_ALLOWED")
    await rpc.GetSpend(pb.GetSpendRequest(), metadata=bearer(an_admin))
    await admin.CreateKey(pb.CreateKeyRequest(), metadata=bearer(an_admin))


async def test_a_watch_tells_at_once_which_keys_changed(accounting: Accounting) -> None:
    watch = accounting.rpc.WatchPolicies(pb.WatchPoliciesRequest())
    changes = aiter(watch)
    assert list((await anext(changes)).changed_key_sha256) == []
    made = await accounting.admin.CreateKey(pb.CreateKeyRequest())
    sha256 = hashlib.sha256(made.secret.encode()).digest()
    assert list((await asyncio.wait_for(anext(changes), 1)).changed_key_sha256) == [sha256]
    started = time.monotonic()
    await accounting.admin.RevokeKey(pb.RevokeKeyRequest(key_id=made.key.id))
    assert list((await asyncio.wait_for(anext(changes), 1)).changed_key_sha256) == [sha256]
    assert time.monotonic() - started < 0.5
    watch.cancel()


async def test_a_stop_does_not_wait_for_watchers(tmp_path: Path) -> None:
    async with serving(tmp_path, MODELMUXER_GRACE_S="20") as accounting:
        changes = aiter(accounting.rpc.WatchPolicies(pb.WatchPoliciesRequest()))
        await anext(changes)
        started = time.monotonic()
    assert time.monotonic() - started < 5


# --- operations ----------------------------------------------------------------------------------------------------

ANSWER = ChatResponse(content=[Block(text=Text(text="42"))])


def claim(owner: str, body: bytes = b"body", key: str = "key_1", ttl_s: float = 30) -> pb.ClaimOperationRequest:
    ttl = Duration()
    ttl.FromNanoseconds(int(ttl_s * 1e9))
    return pb.ClaimOperationRequest(key_id=key, operation_id="op", body_sha256=body, owner=owner, ttl=ttl)


def end(owner: str, answer: ChatResponse | None = None) -> pb.EndOperationRequest:
    return pb.EndOperationRequest(key_id="key_1", operation_id="op", owner=owner, answer=answer)


async def test_an_operation_runs_once_and_is_answered_again_after_a_restart_too(
    tmp_path: Path, ledger: dict[str, str]
) -> None:
    async with serving(tmp_path, **ledger) as accounting:
        assert not (await accounting.rpc.ClaimOperation(claim("one"))).HasField("answer")
        assert not (await accounting.rpc.ClaimOperation(claim("one"))).HasField("answer")  # renews
        waiting = asyncio.ensure_future(accounting.rpc.ClaimOperation(claim("two"), timeout=10))
        done, _ = await asyncio.wait([waiting], timeout=0.1)
        assert not done
        started = time.monotonic()
        await accounting.rpc.EndOperation(end("one", ANSWER))
        assert (await waiting).answer == ANSWER
        assert time.monotonic() - started < 1
    async with serving(tmp_path, **ledger) as accounting:
        assert (await accounting.rpc.ClaimOperation(claim("three"))).answer == ANSWER
        await accounting.rpc.EndOperation(end("one"))  # too late to change anything
        assert (await accounting.rpc.ClaimOperation(claim("four"))).answer == ANSWER


async def test_an_operation_that_ended_without_answer_goes_to_one_of_those_who_wait(accounting: Accounting) -> None:
    await accounting.rpc.ClaimOperation(claim("one"))
    waiting = {
        owner: asyncio.ensure_future(accounting.rpc.ClaimOperation(claim(owner), timeout=10))
        for owner in ("two", "three")
    }
    await asyncio.wait(waiting.values(), timeout=0.1)
    await accounting.rpc.EndOperation(end("somebody else"))
    await accounting.rpc.EndOperation(end("one"))
    done, pending = await asyncio.wait(waiting.values(), timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert (len(done), len(pending)) == (1, 1)
    winner = next(owner for owner, call in waiting.items() if call in done)
    await accounting.rpc.EndOperation(end(winner, ANSWER))
    assert (await pending.pop()).answer == ANSWER


async def test_an_operation_id_stands_for_one_body_of_one_key(accounting: Accounting) -> None:
    await accounting.rpc.ClaimOperation(claim("one"))
    error = await refused(accounting.rpc.ClaimOperation(claim("two", body=b"another")))
    assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "OPERATION_MISMATCH")
    await accounting.rpc.EndOperation(end("one", ANSWER))
    error = await refused(accounting.rpc.ClaimOperation(claim("two", body=b"another")))
    assert error.reason == "OPERATION_MISMATCH"
    assert not (await accounting.rpc.ClaimOperation(claim("two", body=b"another", key="key_2"))).HasField("answer")


async def test_a_claim_that_nobody_renews_lapses(accounting: Accounting) -> None:
    await accounting.rpc.ClaimOperation(claim("dead", ttl_s=0.2))
    assert not (await accounting.rpc.ClaimOperation(claim("two"), timeout=5)).HasField("answer")


async def test_waiting_for_an_operation_ends_with_the_deadline(accounting: Accounting) -> None:
    await accounting.rpc.ClaimOperation(claim("one"))
    error = await refused(accounting.rpc.ClaimOperation(claim("two"), timeout=0.1))
    assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_claims_that_make_no_sense_are_refused_by_field(accounting: Accounting) -> None:
    for field, request in {
        "key_id": claim("one", key=""),
        "owner": claim(""),
        "ttl": claim("one", ttl_s=0),
    }.items():
        error = await refused(accounting.rpc.ClaimOperation(request))
        assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)


# --- the file ------------------------------------------------------------------------------------------------------


async def test_a_ledger_has_one_process_and_no_newer_schema(tmp_path: Path) -> None:
    async with serving(tmp_path):
        with pytest.raises(StartError, match=f"in use by process {os.getpid()}"):
            async with serving(tmp_path):
                pass
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        db.execute("UPDATE schema_version SET version = 99")
    with pytest.raises(StoreError, match="newer release"):
        SqliteStore(tmp_path / "ledger.sqlite")
    (tmp_path / "other.sqlite").write_bytes(b"this is no database, not even a small one" * 100)
    with pytest.raises(StoreError, match="cannot be used as a ledger"):
        SqliteStore(tmp_path / "other.sqlite")


# --- with a journal and a shipper, through kills -------------------------------------------------------------------


class Process:
    """Accounting as a process of its own, on a port that stays the same."""

    def __init__(self, home: Path, ledger: dict[str, str]) -> None:
        port = str(free_port())
        self.address = f"127.0.0.1:{port}"
        self._fork_server = WarmForkServer(["services.accounting"])
        self._environ = {
            **os.environ,
            "MODELMUXER_HOME": str(home),
            "MODELMUXER_MESH_TOKEN": TOKEN,
            "MODELMUXER_ACCOUNTING_PORT": port,
            "MODELMUXER_ACCOUNTING_METRICS_PORT": "0",
            "MODELMUXER_LOG_LEVEL": "error",
            **ledger,
        }

    async def start(self) -> None:
        self._process = await self._fork_server.spawn("services.accounting", self._environ)
        assert json.loads(await self._process.stdout.readline())["grpc"] == self.address

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def end(self, how: signal.Signals) -> None:
        self.send(how)
        await asyncio.wait_for(self._process.wait(), 20)

    async def close(self) -> None:
        await self.end(signal.SIGTERM)
        await self._fork_server.close()


@pytest.fixture
async def process(tmp_path: Path, ledger: dict[str, str]) -> AsyncIterator[Process]:
    process = Process(tmp_path, ledger)
    await process.start()
    yield process
    await process.close()


async def test_killing_accounting_between_and_during_batches_loses_nothing(tmp_path: Path, process: Process) -> None:
    accounting = Accounting(process.address)
    journal = Journal(tmp_path / "journal", witness="proxy/1", max_bytes=1 << 24, segment_bytes=1 << 14)
    shipper = Shipper(journal, accounting.rpc, batch_records=20, linger_s=0.001, call_timeout_s=2)
    shipping = asyncio.create_task(shipper.run())
    chance = random.Random(1)
    expected = {}
    try:
        for number in range(400):
            attempt = f"a{number}"
            journal.append(announced(attempt, time.time()))
            if number % 10:
                tokens = chance.randrange(100)
                expected[attempt] = tokens * 12
                journal.append(outcome(attempt, tokens))
            if number in (50, 170, 300):
                await process.end(signal.SIGKILL)
                await process.start()
            await asyncio.sleep(0.001)
        assert await shipper.drain(20)
        everything = {entry.attempt_id: entry for entry in await entries(accounting)}
        assert len(everything) == 400
        assert {attempt: everything[attempt].cost_nanos for attempt in expected} == expected
        spend = await accounting.rpc.GetSpend(pb.GetSpendRequest())
        assert (spend.total_nanos, spend.rows[0].attempts) == (sum(expected.values()), 400)
    finally:
        shipping.cancel()
        await accounting.close()


async def test_a_hung_accounting_holds_up_nothing_and_gets_everything_later(tmp_path: Path, process: Process) -> None:
    accounting = Accounting(process.address)
    journal = Journal(tmp_path / "journal", witness="proxy/1", max_bytes=1 << 24)
    shipper = Shipper(journal, accounting.rpc, linger_s=0.001, call_timeout_s=0.2)
    shipping = asyncio.create_task(shipper.run())
    try:
        process.send(signal.SIGSTOP)
        started = time.monotonic()
        for number in range(500):
            journal.append(hit(f"a{number}"))
        assert time.monotonic() - started < 0.5
        assert not await shipper.drain(0.5)
        assert journal.waiting == 500
        process.send(signal.SIGCONT)
        assert await shipper.drain(10)
        assert len(await entries(accounting)) == 500
    finally:
        shipping.cancel()
        await accounting.close()


# --- bills and audits ----------------------------------------------------------------------------------------------


def correction(attempt: str, cost_nanos: int, *, absent: bool = False) -> pb.Correction:
    billed = pb.Billed(cost_nanos=cost_nanos, input_tokens=1, output_tokens=2, absent=absent)
    return pb.Correction(attempt_id=attempt, billed=billed)


async def correct(accounting: Accounting, *corrections: pb.Correction) -> pb.PostCorrectionsResponse:
    return await accounting.rpc.PostCorrections(pb.PostCorrectionsRequest(corrections=corrections))


async def audit(accounting: Accounting) -> pb.AuditResponse:
    return await accounting.rpc.Audit(pb.AuditRequest())


async def total_nanos(accounting: Accounting) -> int:
    return (await accounting.rpc.GetSpend(pb.GetSpendRequest())).total_nanos


async def test_a_bill_settles_estimates_and_voids_once_and_what_is_spent_follows(accounting: Accounting) -> None:
    for attempt, unbilled in (("cut", False), ("never", False), ("void", True)):
        estimate = outcome(attempt, 5, USAGE_SOURCE_ESTIMATED, unbilled=unbilled)
        await keep(accounting, announced(attempt), estimate)
    await keep(accounting, announced("posted"), outcome("posted"))
    wanted = [correction("cut", 7), correction("never", 0, absent=True), correction("void", 9), correction("posted", 1)]
    for _ in range(2):
        answer = await correct(accounting, *wanted, correction("nowhere", 3))
        assert list(answer.unknown_attempt_ids) == ["nowhere"]
        stands = {entry.attempt_id: (entry.state, entry.cost_nanos, entry.billed) for entry in answer.entries}
        assert stands == {
            "cut": (pb.ENTRY_STATE_POSTED, 7, True),
            "never": (pb.ENTRY_STATE_VOIDED, 0, True),
            "void": (pb.ENTRY_STATE_POSTED, 9, True),
            "posted": (pb.ENTRY_STATE_POSTED, 120, False),
        }
        assert await total_nanos(accounting) == 7 + 9 + 120
        report = await audit(accounting)
        assert (report.ok, report.total_nanos, report.counts["corrections"]) == (True, 7 + 9 + 120, 3)


async def test_corrections_that_make_no_sense_are_refused(accounting: Accounting) -> None:
    await keep(accounting, announced("a"), outcome("a", 5, USAGE_SOURCE_ESTIMATED))
    for wrong in (correction("a", -1), correction("a", 5, absent=True), correction("", 5)):
        error = await refused(correct(accounting, wrong))
        assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, "corrections")
    assert (await entries(accounting))[0].state == pb.ENTRY_STATE_ESTIMATED


async def test_an_audit_finds_what_was_tampered_with(tmp_path: Path) -> None:
    tampering = {
        "entry-follows-from-facts": "UPDATE entries SET cost_nanos = cost_nanos + 1 WHERE attempt_id = 'a'",
        "sums-are-those-of-entries": "UPDATE sums SET cost_nanos = cost_nanos - 1",
        "corrections-lead-to-entries": "INSERT INTO corrections VALUES ('a', 1, 3, 4, 5)",
        "every-attempt-ends": "UPDATE entries SET state = 1, outcome = x'', announced_ns = 1 WHERE attempt_id = 'a'",
    }
    for check, statement in tampering.items():
        home = tmp_path / check
        async with serving(home) as accounting:
            await keep(accounting, announced("a"), outcome("a"), announced("b"), outcome("b"))
            assert (await audit(accounting)).ok
            with sqlite3.connect(home / "ledger.sqlite") as db:
                db.execute(statement)
            report = await audit(accounting)
            assert not report.ok
            assert check in {finding.check for finding in report.findings}


async def test_a_ledger_of_an_older_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    async with serving(tmp_path) as accounting:
        await keep(accounting, announced("a"), outcome("a"))
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        db.execute("ALTER TABLE entries DROP COLUMN billed")
        db.executescript(
            "DROP TABLE holds; CREATE TABLE holds (lease_id TEXT, attempt_id TEXT, account TEXT, held_nanos INTEGER, "
            "PRIMARY KEY (lease_id, attempt_id)); CREATE INDEX holds_by_account ON holds (account); "
            "INSERT INTO holds VALUES ('lease', 'a', 'budget|acme', 5)"
        )
        db.execute("UPDATE schema_version SET version = 1")
    async with serving(tmp_path) as accounting:
        assert (await audit(accounting)).ok
        assert (await entries(accounting))[0].cost_nanos == 120
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        assert db.execute("SELECT * FROM holds").fetchall() == [("lease", "a", "budget|acme", 5)]
