"""Sums per hour, derived from the entries by and by: never counted along, so nothing is counted twice, or not at all.

An hour's sums stand in one document, and count only while it is `rolled`. Who is to write entries of an hour first says
so in the document, which from then on is not rolled: reports read such hours, of which the current one always is one,
from the entries themselves. Some time after the last writer has left, the hour is rolled up: added up from its entries
and compared-and-set, so that a writer who came in between makes the attempt void. A writer that dies leaves its mark,
which is believed to be under way until it is `STALE_NS` old.
"""

import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bson import ObjectId
from pymongo.errors import DuplicateKeyError

from services.accounting import ledger
from services.accounting.ledger import Amounts
from services.accounting.lines import SumsKey
from services.accounting.stores.mongodb.connection import Connections, Document, retried

NANOS_PER_HOUR = 3_600_000_000_000
NANOS_PER_S = 1_000_000_000
LAST_NS = (1 << 63) - 1
STALE_NS = 600 * NANOS_PER_S
"""No write takes so long: a server has given it up, and so has whoever asked for it."""
MAX_ROWS = 40_000
"""More do not fit into a document; such an hour is read from its entries for good."""

AMOUNTS = (
    *("cost_nanos", "estimated_cost_nanos", "counted_saved_nanos", "attempts", "cache_hits"),
    *("input_tokens", "output_tokens"),
)
PARTS = ("tenant", "user", "key_id", "model", "provider")
_PROCESS = f"{os.getpid()}-{secrets.token_hex(4)}"


class Hours:
    """The documents of hours. `quiet_ns` is how long nobody may have written before an hour is rolled up."""

    def __init__(self, connections: Connections, quiet_ns: int) -> None:
        self._hours = connections.money["hours"]
        self._reports = connections.reports["hours"]
        self._entries = connections.reports["entries"]
        self._quiet_ns = quiet_ns

    async def begin(self, hours: Iterable[int]) -> str:
        """Says that entries of hours are about to be written. Returns what `end` wants to hear."""
        token = f"{_PROCESS}-{secrets.token_hex(6)}"
        for hour in sorted(hours):
            await self._touch(hour, {"$push": {"writers": {"id": token, "since_ns": time.time_ns()}}})
        return token

    async def end(self, hours: Iterable[int], token: str) -> None:
        """Says that they were written. Whoever cannot tell whether they were, says nothing."""
        for hour in sorted(hours):
            if not await self._leave(hour, token):  # held up for so long that the mark was not believed any more
                await self._touch(hour, {})

    async def unrolled(self) -> set[int]:
        """Hours whose sums do not count."""
        return {document["_id"] async for document in self._reports.find({"rolled": False}, {"_id": 1})}

    async def versions(self) -> dict[int, ObjectId]:
        """Hours that are rolled up, with the versions of their documents."""
        found = self._reports.find({"rolled": True}, {"version": 1})
        return {document["_id"]: document["version"] async for document in found}

    async def rows(self, hours: Sequence[int]) -> list[tuple[SumsKey, Amounts]]:
        """The sums of hours that are rolled up."""
        sums: list[tuple[SumsKey, Amounts]] = []
        async for document in self._reports.find({"_id": {"$in": list(hours)}, "rolled": True}):
            for row in document["rows"]:
                key = SumsKey(document["_id"], *(row[name] for name in PARTS))
                sums.append((key, amounts_of(row)))
        return sums

    async def grouped(self, first: int | None, end: int | None, tenant: str, by: Sequence[str]) -> list[Document]:
        """Sums of the hours from `first` to before `end` that are rolled up, grouped."""
        bounds = {name: hour for name, hour in (("$gte", first), ("$lt", end)) if hour is not None}
        match: Document = {"rolled": True} | ({"_id": bounds} if bounds else {})
        group = {name: "$_id" if name == "hour" else f"$rows.{name}" for name in by}
        pipeline: list[Mapping[str, Any]] = [{"$match": match}, {"$unwind": "$rows"}]
        if tenant:
            pipeline.append({"$match": {"rows.tenant": tenant}})
        pipeline.append({"$group": {"_id": group, **{name: {"$sum": f"$rows.{name}"} for name in AMOUNTS}}})
        return await (await self._reports.aggregate(pipeline)).to_list()

    async def roll_up(self, now_ns: int) -> int:
        """Adds up hours in which nobody wrote of late. Returns how many."""
        stale = {"writers": {"since_ns": {"$lt": now_ns - STALE_NS}}}
        ended = {"_id": {"$lt": ledger.hour_of(now_ns)}, "rolled": False}
        async for document in self._reports.find({**ended, "writers.since_ns": {"$lt": now_ns - STALE_NS}}, {"_id": 1}):
            await self._touch(document["_id"], {"$pull": stale}, now_ns)
        quiet = {"writers": {"$size": 0}, "marked_ns": {"$lt": now_ns - self._quiet_ns}, "too_many": {"$ne": True}}
        rolled = 0
        async for document in self._reports.find({**ended, **quiet}, {"version": 1}):
            rolled += await self._roll(document["_id"], document["version"])
        return rolled

    async def _roll(self, hour: int, version: ObjectId) -> bool:
        end_ns = min((hour + 1) * NANOS_PER_HOUR - 1, LAST_NS)  # times are of 63 bits
        between = {"created_ns": {"$gte": hour * NANOS_PER_HOUR, "$lte": end_ns}}
        rows = [
            {**found["_id"], **{name: int(found[name]) for name in AMOUNTS}}
            for found in await grouped_entries(self._entries, between, PARTS)
        ]
        fits = len(rows) <= MAX_ROWS
        change = {"rolled": True, "rows": rows} if fits else {"too_many": True}
        undisturbed = {"_id": hour, "version": version, "writers": {"$size": 0}}
        done = await retried(lambda: self._hours.update_one(undisturbed, {"$set": change}))
        return fits and done.matched_count > 0

    async def _leave(self, hour: int, token: str) -> bool:
        left = await retried(
            lambda: self._hours.update_one({"_id": hour, "writers.id": token}, {"$pull": {"writers": {"id": token}}})
        )
        return left.matched_count > 0

    async def _touch(self, hour: int, also: Document, now_ns: int | None = None) -> None:
        """Has an hour's sums count no more."""
        now = {"version": ObjectId(), "rolled": False, "rows": [], "marked_ns": now_ns or time.time_ns()}
        change = {"$set": now, **({"$setOnInsert": {"writers": []}} if not also else {}), **also}
        try:
            await retried(lambda: self._hours.update_one({"_id": hour}, change, upsert=True))
        except DuplicateKeyError:  # somebody else was the first
            await retried(lambda: self._hours.update_one({"_id": hour}, change, upsert=True))


async def grouped_entries(entries: Any, match: Document, by: Sequence[str]) -> list[Document]:
    """Sums of entries, grouped."""
    group: Document = {name: f"${name}" for name in by}
    sums = {name: {"$sum": f"${name}"} for name in AMOUNTS}
    cursor = await entries.aggregate([{"$match": match}, {"$group": {"_id": group, **sums}}])
    found: list[Document] = await cursor.to_list()
    return found


def amounts_of(document: Mapping[str, Any]) -> Amounts:
    """Amounts as a document has them. A sum beyond 64 bits would come as a float, and be wrong."""
    values = [document[name] for name in AMOUNTS]
    if any(isinstance(value, float) for value in values):
        raise OverflowError("A sum of the ledger exceeds 64 bits.")
    return Amounts(*map(int, values))
