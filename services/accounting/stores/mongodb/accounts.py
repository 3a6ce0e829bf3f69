"""Accounts of budgets and limits: one document each with all its leases, changed by compare-and-set on its version."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar
from weakref import WeakValueDictionary

from bson import ObjectId
from pymongo.errors import DuplicateKeyError

from services.accounting.accounts import Account
from services.accounting.stores.mongodb.connection import Connections, Document, pause, retried
from shared.errors import MeshError, Reason

T = TypeVar("T")

_TRIES = 50


class Accounts:
    """The collection of accounts."""

    def __init__(self, connections: Connections, wait_s: float) -> None:
        self._accounts = connections.money["accounts"]
        self._reports = connections.reports["accounts"]
        self._wait_s = wait_s
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def change(self, account_id: str, change: Callable[[Account | None], tuple[Account | None, T]]) -> T:
        """Replaces an account by what `change` makes of it."""
        async with self._turn(account_id):
            for attempt in range(_TRIES):
                standing = await self._accounts.find_one({"_id": account_id})
                before = Account.from_document(standing["account"]) if standing else None
                after, result = change(before)
                if after is None or after is before or await self._set(standing, after):
                    return result
                await pause(min(attempt, 5))
        raise _busy()

    async def all(self, ceilings: Sequence[str] | None) -> list[Account]:
        """Accounts, by id."""
        match: Document = {} if ceilings is None else {"ceiling": {"$in": list(ceilings)}}
        return [Account.from_document(each["account"]) async for each in self._reports.find(match).sort("_id", 1)]

    async def forget(self, now_ns: int) -> int:
        """Drops what is of no use any more."""
        old = {"forget_ns": {"$gt": 0, "$lte": now_ns}}
        return (await retried(lambda: self._accounts.delete_many(old))).deleted_count

    async def _set(self, standing: Document | None, after: Account) -> bool:
        """Writes an account, unless another one stands there by now."""
        document = document_of(after)
        if standing is None:
            try:
                await retried(lambda: self._accounts.insert_one(document))
            except DuplicateKeyError:
                return False
            return True
        as_it_was = {"_id": after.id, "version": standing["version"]}
        written = await retried(lambda: self._accounts.replace_one(as_it_was, document))
        return written.matched_count > 0

    @asynccontextmanager
    async def _turn(self, account_id: str) -> AsyncIterator[None]:
        """One after the other within a process; only other processes are raced. Nobody waits long for a slow server."""
        lock = self._locks.get(account_id)
        if lock is None:
            lock = self._locks[account_id] = asyncio.Lock()
        try:
            async with asyncio.timeout(self._wait_s):
                await lock.acquire()
        except TimeoutError:
            raise _busy() from None
        try:
            yield
        finally:
            lock.release()


def document_of(account: Account) -> Document:
    """An account as it is kept."""
    return {
        "_id": account.id,
        "version": ObjectId(),
        "ceiling": account.ceiling,
        "forget_ns": account.forget_ns,
        "account": account.to_document(),
    }


def _busy() -> MeshError:
    return MeshError(
        Reason.ACCOUNTING_UNAVAILABLE, "Too many change the same account; try again shortly.", retry_after_s=1.0
    )
