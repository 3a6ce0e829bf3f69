"""The ledger in MongoDB, for any number of accounting processes.

Single-document atomic operations are all that is relied on, so that any server of MongoDB's protocol serves: no
transaction, no change stream, no retryable write; what must be unique and is raced for stands in `_id`. A step that
concerns several documents is written so that it can be cut anywhere: the first write holds what the rest follows from.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Self, TypeVar

from modelmuxer.accounting.v1.accounting_pb2 import Entry, JournalRecord, Key
from pymongo.errors import PyMongoError

from services.accounting.accounts import Account
from services.accounting.audit import Auditor
from services.accounting.keys import StoredKey
from services.accounting.ledger import Attempt
from services.accounting.operations import Answered, Busy, Granted, Operation
from services.accounting.stores import Change, EntryQuery, Leases, PolicyRecord, Spend, SpendQuery, StoreAway
from services.accounting.stores.mongodb.accounts import Accounts
from services.accounting.stores.mongodb.connection import Connections, Pool, translated
from services.accounting.stores.mongodb.entries import Entries
from services.accounting.stores.mongodb.feed import Feed
from services.accounting.stores.mongodb.hours import NANOS_PER_S, Hours
from services.accounting.stores.mongodb.keys import Keys
from services.accounting.stores.mongodb.operations import Operations
from services.accounting.stores.mongodb.policies import Policies
from services.accounting.stores.mongodb.schema import Schema
from services.accounting.stores.mongodb.trail import Trail

T = TypeVar("T")

QUIET_S = 300.0
"""How long nobody wrote entries of an hour before its sums are made."""
_FINISH_AFTER_NS = 10 * NANOS_PER_S
"""A change that was not noted by then was cut short."""


class MongoStore:
    """A Store in a MongoDB database. `open` makes one."""

    def __init__(self, connections: Connections, pool: Pool, quiet_s: float) -> None:
        self.connections = connections
        self._feed = Feed(connections)
        trail = Trail(connections, self._feed)
        self.hours = Hours(connections, int(quiet_s * NANOS_PER_S))
        self._entries = Entries(connections, self.hours)
        self._keys = Keys(connections, trail)
        self._policies = Policies(connections, trail)
        self._accounts = Accounts(connections, pool.wait_s + pool.timeout_s)
        self._operations = Operations(connections)

    @classmethod
    async def open(
        cls, url: str, pool: Pool | None = None, *, schema: Schema | None = None, quiet_s: float = QUIET_S
    ) -> Self:
        """Connects, and brings the database up to date. Raises StoreError and StoreAway."""
        pool = pool or Pool()
        connections = Connections(url, pool)
        try:
            await connections.check()
            try:
                await (schema or Schema()).prepare(connections)
            except PyMongoError as error:
                raise StoreAway(f"MongoDB at {connections.where} cannot be prepared: {error}") from error
        except BaseException:
            await connections.close()
            raise
        return cls(connections, pool, quiet_s)

    @property
    def shared(self) -> bool:
        return True

    @translated
    async def record(self, records: Sequence[JournalRecord], now_ns: int) -> list[str]:
        await self._entries.record(records, now_ns)
        return [record.id for record in records]

    @translated
    async def abandon(self, before_ns: int, now_ns: int) -> list[Attempt]:
        return await self._entries.abandon(before_ns, now_ns)

    @translated
    async def spend(self, query: SpendQuery) -> list[Spend]:
        return await self._entries.spend(query)

    @translated
    async def entries(self, query: EntryQuery) -> list[Entry]:
        return await self._entries.entries(query)

    @translated
    async def audit(self, auditor: Auditor) -> None:
        await self._entries.audit(auditor)

    @translated
    async def add_key(self, key: StoredKey, actor: str, *, first: bool = False) -> bool:
        return await self._keys.add(key, actor, first=first)

    @translated
    async def key_by_sha256(self, sha256: bytes) -> Key | None:
        return await self._keys.by_sha256(sha256)

    @translated
    async def keys(self, tenant: str, include_revoked: bool) -> list[Key]:
        return await self._keys.all(tenant, include_revoked)

    @translated
    async def revoke_key(self, key_id: str, actor: str, now_ns: int) -> StoredKey | None:
        return await self._keys.revoke(key_id, actor, now_ns)

    @translated
    async def claim_operation(self, wanted: Operation, now_ns: int) -> Granted | Answered | Busy:
        return await self._operations.claim(wanted, now_ns)

    @translated
    async def end_operation(
        self, key_id: str, operation_id: str, owner: str, answer: bytes | None, now_ns: int
    ) -> None:
        await self._operations.end(key_id, operation_id, owner, answer, now_ns)

    @translated
    async def forget_operations(self, now_ns: int) -> int:
        return await self._operations.forget(now_ns)

    @translated
    async def put_policy(self, policy: PolicyRecord, action: str, actor: str, now_ns: int, *, new: bool) -> bool:
        return await self._policies.put(policy, action, actor, now_ns, new=new)

    @translated
    async def delete_policy(self, kind: str, policy_id: str, actor: str, now_ns: int) -> PolicyRecord | None:
        return await self._policies.delete(kind, policy_id, actor, now_ns)

    @translated
    async def policies(self, kind: str, tenant: str | None = None) -> list[PolicyRecord]:
        return await self._policies.all(kind, tenant)

    @translated
    async def policy(self, kind: str, policy_id: str) -> PolicyRecord | None:
        return await self._policies.one(kind, policy_id)

    @translated
    async def change_account(self, account_id: str, change: Callable[[Account | None], tuple[Account | None, T]]) -> T:
        return await self._accounts.change(account_id, change)

    @translated
    async def accounts(self, ceilings: Sequence[str] | None = None) -> list[Account]:
        return await self._accounts.all(ceilings)

    @translated
    async def forget_accounts(self, now_ns: int) -> int:
        return await self._accounts.forget(now_ns)

    @translated
    async def lease_spends(self, leases: Leases) -> dict[tuple[str, str], int]:
        return await self._entries.lease_spends(leases)

    @translated
    async def account_spend(self, account_id: str, besides: Sequence[str] = ()) -> int:
        return await self._entries.account_spend(account_id, besides)

    @translated
    async def settled(self, attempt_ids: Sequence[str]) -> dict[str, int]:
        return await self._entries.settled(attempt_ids)

    def changes(self) -> AsyncIterator[Sequence[Change] | None]:
        return self._feed.changes()

    @translated
    async def ask_back(self, account_id: str) -> None:
        await self._feed.ask_back(account_id)

    @translated
    async def tidy(self, now_ns: int) -> None:
        await self._keys.finish(now_ns - _FINISH_AFTER_NS)
        await self._policies.finish(now_ns - _FINISH_AFTER_NS)
        await self.hours.roll_up(now_ns)

    async def close(self) -> None:
        await self.connections.close()
