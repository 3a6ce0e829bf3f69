"""Accounts, operations, keys and policies in a store: each change is one atomic step, however many clients race."""

import asyncio
import hashlib
import secrets
import time
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
from modelmuxer.accounting.v1 import accounting_pb2 as pb

from services.accounting.accounts import Account, Closing, Lease
from services.accounting.keys import StoredKey, first_key, new_key
from services.accounting.operations import Answered, Busy, Granted, Operation, OperationMismatch
from services.accounting.stores import Change, PolicyRecord, Store

NOW_NS = 1_700_000_000_000_000_000


def account(account_id: str = "b|acme||0", forget_ns: int = 0) -> Account:
    return Account(
        id=account_id,
        ceiling=account_id.partition("|")[0],
        tenant="acme",
        subject="",
        unit=pb.CEILING_UNIT_NANOS,
        starts_ns=0,
        ends_ns=0,
        forget_ns=forget_ns,
    )


def key(tenant: str = "acme") -> StoredKey:
    return new_key(pb.CreateKeyRequest(tenant=tenant, user="ann"), secrets.token_hex(16), NOW_NS)


def policy(policy_id: str = "b1", tenant: str = "acme", document: bytes = b"1") -> PolicyRecord:
    return PolicyRecord(kind="budget", id=policy_id, tenant=tenant, document=document)


# --- accounts --------------------------------------------------------------------------------------------------------


async def test_changes_of_one_account_by_many_clients_are_one_after_the_other(clients: list[Store]) -> None:
    def spend(before: Account | None) -> tuple[Account, int]:
        before = before or account()
        return replace(before, closed=before.closed + 1), before.closed

    async def spend_often(store: Store) -> list[int]:
        return [await store.change_account("b|acme||0", spend) for _ in range(20)]

    seen = await asyncio.gather(*(spend_often(store) for store in clients for _ in range(2)))
    total = 20 * 2 * len(clients)
    assert sorted(number for numbers in seen for number in numbers) == list(range(total))
    (kept,) = await clients[-1].accounts()
    assert kept.closed == total


async def test_an_account_is_kept_whole_and_an_unchanged_one_is_not_written(store: Store) -> None:
    lease = Lease(holder="router/1", expires_ns=5, granted=1 << 61, used=3, held=2, sequence=7, closing=Closing.LEDGER)
    kept = replace(account(), leases={"lease_1": lease}, owner="key_1", notified_percent=80)
    assert await store.change_account(kept.id, lambda before: (kept, before)) is None
    assert await store.change_account(kept.id, lambda before: (before, before)) == kept
    assert await store.change_account("other", lambda before: (None, before)) is None
    assert await store.accounts() == [kept]


async def test_what_a_change_raises_changes_nothing(store: Store) -> None:
    def refuse(before: Account | None) -> tuple[Account, None]:
        raise LookupError

    with pytest.raises(LookupError):
        await store.change_account("b|acme||0", refuse)
    assert await store.accounts() == []


def _put(made: Account, before: Account | None) -> tuple[Account, None]:
    return made, None


async def test_accounts_are_found_by_ceiling_and_forgotten_in_time(store: Store) -> None:
    for each in (account("b|2"), account("b|1"), account("c|1", forget_ns=50), account("d|1", forget_ns=60)):
        await store.change_account(each.id, partial(_put, each))
    assert [each.id for each in await store.accounts()] == ["b|1", "b|2", "c|1", "d|1"]
    assert [each.id for each in await store.accounts(["b", "d"])] == ["b|1", "b|2", "d|1"]
    assert await store.accounts([]) == []
    assert await store.forget_accounts(50) == 1
    assert [each.id for each in await store.accounts()] == ["b|1", "b|2", "d|1"]


# --- operations ------------------------------------------------------------------------------------------------------


def operation(owner: str = "router/1", operation_id: str = "op", body: bytes = b"body") -> Operation:
    sha256 = hashlib.sha256(body).digest()
    return Operation(
        key_id="key_1", operation_id=operation_id, body_sha256=sha256, owner=owner, expires_ns=NOW_NS + 1000
    )


async def test_of_all_who_claim_an_operation_one_gets_it(clients: list[Store]) -> None:
    for number in range(10):
        claims = [
            store.claim_operation(operation(f"router/{place}-{n}", f"op-{number}"), NOW_NS)
            for place, store in enumerate(clients)
            for n in range(4)
        ]
        verdicts = Counter(type(verdict) for verdict in await asyncio.gather(*claims))
        assert verdicts == {Granted: 1, Busy: 4 * len(clients) - 1}


async def test_an_operation_is_answered_again_until_it_is_forgotten(clients: list[Store]) -> None:
    one, other = clients[0], clients[-1]
    await one.claim_operation(operation(), NOW_NS)
    await other.end_operation("key_1", "op", "somebody else", b"forged", NOW_NS)
    await one.end_operation("key_1", "op", "router/1", b"answer", NOW_NS)
    assert await other.claim_operation(operation("router/2"), NOW_NS) == Answered(b"answer")
    with pytest.raises(OperationMismatch):
        await other.claim_operation(operation("router/2", body=b"another"), NOW_NS)
    assert await other.forget_operations(NOW_NS + 5) == 0
    day_ns = 24 * 3600 * 1_000_000_000
    assert await other.forget_operations(NOW_NS + day_ns + 1) == 1
    assert isinstance(await one.claim_operation(operation("router/2"), NOW_NS), Granted)


async def test_a_claim_that_ended_without_answer_or_lapsed_can_be_taken(store: Store) -> None:
    await store.claim_operation(operation(), NOW_NS)
    await store.end_operation("key_1", "op", "router/1", None, NOW_NS)
    assert isinstance(await store.claim_operation(operation("router/2"), NOW_NS), Granted)
    assert isinstance(await store.claim_operation(operation("router/3"), NOW_NS + 2000), Granted)


# --- keys and policies -----------------------------------------------------------------------------------------------


async def test_of_several_that_start_at_once_one_makes_the_first_key(clients: list[Store]) -> None:
    firsts = [first_key(secrets.token_hex(16), NOW_NS) for _ in clients for _ in range(2)]
    made = await asyncio.gather(
        *(store.add_key(each, "first start", first=True) for store, each in zip(clients * 2, firsts, strict=True))
    )
    assert made.count(True) == 1
    (kept,) = await clients[-1].keys("", include_revoked=True)
    assert kept == firsts[made.index(True)].key
    assert await clients[0].add_key(key(), "mesh")


async def test_a_revoked_key_is_revoked_for_every_client_and_stays_so(clients: list[Store]) -> None:
    stored = key()
    await clients[0].add_key(stored, "mesh")
    assert await clients[-1].key_by_sha256(stored.sha256) == stored.key
    revoked = await clients[-1].revoke_key(stored.key.id, "mesh", NOW_NS + 5)
    assert revoked is not None
    assert revoked.key.revoke_time.ToNanoseconds() == NOW_NS + 5
    for store in clients:
        assert await store.key_by_sha256(stored.sha256) is None
        assert await store.revoke_key(stored.key.id, "mesh", NOW_NS + 9) == revoked
    assert await clients[0].revoke_key("key_none", "mesh", NOW_NS) is None
    assert await clients[0].keys("acme", include_revoked=False) == []
    assert await clients[0].keys("acme", include_revoked=True) == [revoked.key]
    assert await clients[0].keys("umbrella", include_revoked=True) == []


async def test_of_all_who_make_a_policy_one_does_and_it_can_be_made_again_when_it_is_gone(clients: list[Store]) -> None:
    for _ in range(3):
        made = await asyncio.gather(
            *(
                store.put_policy(policy(document=bytes([n])), "create_budget", "mesh", NOW_NS, new=True)
                for n, store in enumerate(clients * 2)
            )
        )
        assert made.count(True) == 1
        assert await clients[0].policy("budget", "b1") == policy(document=bytes([made.index(True)]))
        gone = await asyncio.gather(*(store.delete_policy("budget", "b1", "mesh", NOW_NS) for store in clients))
        assert sum(each is not None for each in gone) == 1
        assert await clients[-1].policy("budget", "b1") is None
    assert not await clients[0].put_policy(policy(), "update_budget", "mesh", NOW_NS, new=False)


async def test_policies_are_those_of_a_kind_and_a_tenant_with_those_for_all(store: Store) -> None:
    for each in (policy("b2"), policy("b1", ""), policy("b3", "umbrella")):
        await store.put_policy(each, "create_budget", "mesh", NOW_NS, new=True)
    await store.put_policy(policy("b2", document=b"2"), "update_budget", "mesh", NOW_NS, new=False)
    assert [each.id for each in await store.policies("budget")] == ["b1", "b2", "b3"]
    assert [each.id for each in await store.policies("budget", "acme")] == ["b1", "b2"]
    assert (await store.policies("budget", "acme"))[1].document == b"2"
    assert await store.policies("limit") == []


# --- changes by other processes --------------------------------------------------------------------------------------


async def test_what_one_process_changes_the_others_hear_within_a_second(clients: list[Store]) -> None:
    if not clients[0].shared:
        assert [changes async for changes in clients[0].changes()] == []
        return
    heard: list[Change] = []
    listening = asyncio.Event()

    async def listen() -> None:
        async for changes in clients[1].changes():
            assert changes is not None
            listening.set()
            heard.extend(changes)

    task = asyncio.create_task(listen())
    await asyncio.wait_for(listening.wait(), 10)
    stored = key()
    began_s = time.monotonic()
    await clients[0].add_key(stored, "mesh")
    await clients[0].revoke_key(stored.key.id, "mesh", NOW_NS)
    await clients[0].put_policy(policy(), "create_budget", "mesh", NOW_NS, new=True)
    await clients[0].delete_policy("budget", "b1", "mesh", NOW_NS)
    await clients[0].ask_back("b|acme")
    wanted = Counter([Change("key", stored.sha256), Change("tenant", "acme")] * 2 + [Change("wanted", "b|acme")])
    while Counter(heard) != wanted:
        assert time.monotonic() - began_s < 5, heard  # it takes a tenth of a second where nothing else runs
        await asyncio.sleep(0.01)
    task.cancel()
