"""Moves a ledger out of a MongoDB database and into one. A page that was cut short is taken again: what is there of it
is the same."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from pymongo.errors import BulkWriteError

from services.accounting import ledger
from services.accounting.accounts import Account
from services.accounting.audit import Correction
from services.accounting.keys import StoredKey
from services.accounting.lines import line_of
from services.accounting.operations import Operation
from services.accounting.stores import PolicyRecord
from services.accounting.stores.mongodb import accounts, keys, operations
from services.accounting.stores.mongodb.connection import DUPLICATE, Document
from services.accounting.stores.mongodb.entries import attempt_of, document_of
from services.accounting.stores.mongodb.policies import record_of
from services.accounting.stores.mongodb.store import MongoStore
from services.accounting.stores.moving import AuditRow, EntryRow, Part, Placed, Progress, RejectedRow, Row

_PAGE = 1000
_ID = "copy"


class MongoMover:
    """A Mover of a MongoStore."""

    def __init__(self, store: MongoStore) -> None:
        self.where = store.connections.where
        self._database = store.connections.reports
        self._hours = store.hours

    async def count(self, part: Part) -> int:
        return await self._database[part].count_documents(_kept(part))

    async def pages(self, part: Part, after: str) -> AsyncIterator[Sequence[Placed]]:
        order = "id" if part is Part.KEYS else "_id"
        while True:
            match = {**_kept(part), order: {"$gt": after}}
            found = await self._database[part].find(match).sort(order, 1).limit(_PAGE).to_list()
            if not found:
                return
            after = found[-1][order]
            yield [Placed(document[order], _row(part, document)) for document in found]

    async def take(self, part: Part, rows: Sequence[Placed], progress: Progress) -> None:
        if part is Part.ENTRIES:
            hours = {
                ledger.hour_of(placed.row.attempt.created_ns) for placed in rows if isinstance(placed.row, EntryRow)
            }
            token = await self._hours.begin(hours)
            await self._insert(part, rows)
            await self._hours.end(hours, token)
        else:
            await self._insert(part, rows)
        state = {"source": progress.source, "part": progress.part, "after": progress.after}
        await self._database["meta"].update_one({"_id": _ID}, {"$set": state}, upsert=True)

    async def progress(self) -> Progress | None:
        state = await self._database["meta"].find_one({"_id": _ID})
        return Progress(state["source"], state["part"], state["after"]) if state else None

    async def _insert(self, part: Part, rows: Sequence[Placed]) -> None:
        if not rows:
            return
        try:
            await self._database[part].insert_many([_document(*placed) for placed in rows], ordered=False)
        except BulkWriteError as error:
            if any(each["code"] != DUPLICATE for each in error.details["writeErrors"]):
                raise


def _kept(part: Part) -> Document:
    return {"gone": False} if part is Part.POLICIES else {}


def _row(part: Part, document: Mapping[str, Any]) -> Row:
    match part:
        case Part.ENTRIES:
            corrections = (Correction(*(each[name] for name in Correction._fields)) for each in document["corrections"])
            return EntryRow(attempt_of(document), tuple(corrections))
        case Part.AUDIT:
            return AuditRow(*(document[name] for name in AuditRow._fields))
        case Part.REJECTED:
            return RejectedRow(*(document[name] for name in RejectedRow._fields))
        case Part.KEYS:
            return StoredKey(keys.key_of(document), document["_id"])
        case Part.POLICIES:
            return record_of(document)
        case Part.OPERATIONS:
            return operations.operation_of(document)
        case Part.ACCOUNTS:
            return Account.from_document(document["account"])


def _document(place: str, row: Row) -> Document:
    match row:
        case EntryRow(attempt, corrections):
            return document_of(line_of(attempt), [each._asdict() for each in corrections])
        case AuditRow() | RejectedRow():
            return {"_id": place, **row._asdict()}
        case StoredKey():
            return keys.document_of(row, trail=[])
        case PolicyRecord():
            kept = {"kind": row.kind, "id": row.id, "tenant": row.tenant, "document": row.document}
            return {"_id": place, **kept, "gone": False, "trail": []}
        case Operation():
            return operations.document_of(row)
        case Account():
            return accounts.document_of(row)
