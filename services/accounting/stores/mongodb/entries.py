"""Entries: one document for each attempt, with its corrections and holds in it, so that each change is one atomic step.

Facts are merged by compare-and-set on the document's version: whoever lost the race, or did not hear how a write ended,
reads again and merges again, which changes nothing where it had succeeded.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from bson import ObjectId
from modelmuxer.accounting.v1.accounting_pb2 import (
    ENTRY_STATE_PENDING,
    SPEND_DIMENSION_DAY,
    SPEND_DIMENSION_KEY,
    SPEND_DIMENSION_MODEL,
    SPEND_DIMENSION_PROVIDER,
    SPEND_DIMENSION_TENANT,
    SPEND_DIMENSION_USER,
    Entry,
    EntryState,
    JournalRecord,
    SpendDimension,
)
from pymongo import InsertOne, ReplaceOne
from pymongo.errors import BulkWriteError

from services.accounting import ledger, lines
from services.accounting.audit import Auditor, Correction
from services.accounting.ledger import Amounts, Attempt, Place
from services.accounting.lines import Line, SumsKey, added, line_of
from services.accounting.stores import EntryQuery, Leases, Spend, SpendQuery
from services.accounting.stores.mongodb.connection import DUPLICATE, Connections, Document, is_deadlock, pause
from services.accounting.stores.mongodb.hours import (
    AMOUNTS,
    NANOS_PER_HOUR,
    Hours,
    amounts_of,
    grouped_entries,
)
from shared.errors import MeshError, Reason
from shared.telemetry import metrics

_FACTS = (
    *("seen_ns", "announced_ns", "estimated_input_tokens", "context", "provider", "model", "deployment", "region"),
    *("outcome", "observed", "saved_nanos", "abandoned", "billed"),
)
_GROUPS: dict[SpendDimension, str] = {
    SPEND_DIMENSION_MODEL: "model",
    SPEND_DIMENSION_USER: "user",
    SPEND_DIMENSION_DAY: "hour",
    SPEND_DIMENSION_TENANT: "tenant",
    SPEND_DIMENSION_KEY: "key_id",
    SPEND_DIMENSION_PROVIDER: "provider",
}
_TRIES = 20
_SWEEP = 500
_LEASES = 500  # asked for at once
_YIELD_EVERY = 200
_SNAPSHOTS = 5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Standing(NamedTuple):
    line: Line
    version: ObjectId
    corrections: list[Document]


class Entries:
    """The ledger's entries, and the sums that follow from them."""

    def __init__(self, connections: Connections, hours: Hours) -> None:
        self._entries = connections.money["entries"]
        self._rejected = connections.money["rejected"]
        self._reports = connections.reports["entries"]
        self._hours = hours

    async def record(self, records: Sequence[JournalRecord], now_ns: int) -> None:
        """Merges facts."""
        attempts: list[Attempt] = []
        for record in records:
            try:
                attempts.append(ledger.attempt_of(record))
            except ledger.MalformedRecord as error:
                await self._reject(record, str(error), now_ns)
        await self._merge(ledger.merge_all(attempts), now_ns)

    async def abandon(self, before_ns: int, now_ns: int) -> list[Attempt]:
        """Estimates attempts of whose end nobody told."""
        abandoned: list[Attempt] = []
        pending = {"state": ENTRY_STATE_PENDING, "created_ns": {"$lt": before_ns}}
        while found := await self._entries.find(pending).limit(_SWEEP).to_list():
            attempts = [attempt_of(document) for document in found]
            await self._merge({attempt.id: attempt._replace(abandoned=True) for attempt in attempts}, now_ns)
            abandoned += attempts
        return abandoned

    async def entries(self, query: EntryQuery) -> list[Entry]:
        """Entries, newest first."""
        filters = {
            "_id": query.attempt_id,
            "request_id": query.request_id,
            "tenant": query.tenant,
            "state": int(query.state),
        }
        match: Document = {name: value for name, value in filters.items() if value}
        if query.after:
            created_ns, attempt_id = query.after
            match["$or"] = [
                {"created_ns": {"$lt": created_ns}},
                {"created_ns": created_ns, "_id": {"$lt": attempt_id}},
            ]
        found = self._reports.find(match, _facts()).sort([("created_ns", -1), ("_id", -1)]).limit(query.limit)
        return [ledger.entry(attempt_of(document)) async for document in found]

    async def spend(self, query: SpendQuery) -> list[Spend]:
        """Sums: hours that are rolled up from their documents, all else from the entries."""
        names = [_GROUPS[dimension] for dimension in query.group_by]
        for _ in range(_SNAPSHOTS):
            unrolled = await self._hours.unrolled()
            first = None if query.start_ns is None else -(-query.start_ns // NANOS_PER_HOUR)
            end = None if query.end_ns is None else query.end_ns // NANOS_PER_HOUR
            found: list[Document] = []
            if first is None or end is None or first < end:
                found += await self._hours.grouped(first, end, query.tenant, names)
            for start_ns, end_ns in _pieces(query, unrolled):
                found += await self._grouped(start_ns, end_ns, query.tenant, names)
            if await self._hours.unrolled() == unrolled:  # else an hour may have been left out or counted twice
                break
        return _spends(query.group_by, found)

    async def audit(self, auditor: Auditor) -> None:
        """Shows the auditor all. Sums of an hour are held against its entries if neither changed in the meantime; those
        of other hours are what their entries make them."""
        before = await self._hours.versions()
        derived: defaultdict[SumsKey, Amounts] = defaultdict(Amounts)
        seen = 0
        async for document in self._reports.find().sort("_id", 1):
            line = _line(document)
            corrections = [_correction(each) for each in document["corrections"]]
            auditor.entry(line.attempt, line.state, line.account, line.amounts, corrections)
            derived[line.account] = added(derived[line.account], line.amounts)
            seen += 1
            if seen % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
        after = await self._hours.versions()
        unchanged = [hour for hour, version in before.items() if after.get(hour) == version]
        for key, amounts in await self._hours.rows(unchanged):
            auditor.sum(key, amounts)
        for key, amounts in derived.items():
            if before.get(key.hour) is None or after.get(key.hour) != before[key.hour]:
                auditor.sum(key, amounts)
        auditor.counts["rejected"] = await self._rejected.count_documents({})

    async def lease_spends(self, leases: Leases) -> dict[tuple[str, str], int]:
        """What was spent on leases, by account and lease."""
        spends = {(account, lease_id): 0 for account, lease_ids in leases.items() for lease_id in lease_ids}
        ids = sorted({lease_id for _, lease_id in spends})
        for start in range(0, len(ids), _LEASES):
            for held, spent in await self._held_spends({"holds.lease_id": {"$in": ids[start : start + _LEASES]}}):
                if held in spends:
                    spends[held] = spent
        return spends

    async def account_spend(self, account_id: str, besides: Sequence[str]) -> int:
        """What was spent on an account's leases, those left out."""
        found = await self._held_spends({"holds.account": account_id})
        return sum(spent for (account, lease_id), spent in found if account == account_id and lease_id not in besides)

    async def _held_spends(self, held: Document) -> list[tuple[tuple[str, str], int]]:
        """What was spent by account and lease, over all holds of the attempts that are found so."""
        spent = {"$cond": [{"$eq": ["$state", ENTRY_STATE_PENDING]}, "$holds.held_nanos", "$cost_nanos"]}
        pipeline: list[Mapping[str, Any]] = [
            {"$match": held},
            {"$project": {"state": 1, "cost_nanos": 1, "holds": 1}},
            {"$unwind": "$holds"},
            {"$match": held},
            {"$group": {"_id": {"account": "$holds.account", "lease_id": "$holds.lease_id"}, "spent": {"$sum": spent}}},
        ]
        found = await (await self._reports.aggregate(pipeline)).to_list()
        return [((each["_id"]["account"], each["_id"]["lease_id"]), int(each["spent"])) for each in found]

    async def settled(self, attempt_ids: Sequence[str]) -> dict[str, int]:
        """Attempts that have ended, with their cost."""
        ended = {"_id": {"$in": list(attempt_ids)}, "state": {"$ne": ENTRY_STATE_PENDING}}
        return {each["_id"]: int(each["cost_nanos"]) async for each in self._entries.find(ended, {"cost_nanos": 1})}

    async def _merge(self, told: dict[str, Attempt], now_ns: int) -> None:
        """Merges what was told into what stands."""
        left = dict(sorted(told.items()))  # in one order, so that two writers do not wait for each other
        for attempt in range(_TRIES):
            if not left:
                return
            standing = await self._standing(list(left))
            writes: dict[str, InsertOne[Document] | ReplaceOne[Document]] = {}
            states: dict[str, int] = {}
            hours: set[int] = set()
            for attempt_id, known in left.items():
                stands = standing.get(attempt_id)
                before = stands.line if stands else None
                merged = ledger.merge(before.attempt, known) if before else known
                hours.add(ledger.hour_of(merged.created_ns))
                if before:
                    hours.add(ledger.hour_of(before.created_ns))
                    if merged == before.attempt:
                        continue
                after = line_of(merged)
                writes[attempt_id] = _write(stands, after, now_ns)
                if before is None or before.state != after.state:
                    states[attempt_id] = after.state
            # Also where nothing is left to write: who wrote it may have died before it could say that it had.
            token = await self._hours.begin(hours)
            unsure = await self._apply(writes)
            await self._hours.end(hours, token)
            _count(state for attempt_id, state in states.items() if attempt_id not in unsure)
            left = {attempt_id: left[attempt_id] for attempt_id in unsure}
            if left:
                await pause(attempt)
        if left:
            raise MeshError(
                Reason.ACCOUNTING_UNAVAILABLE, "Too many write the same entries; try again shortly.", retry_after_s=1.0
            )

    async def _apply(self, writes: dict[str, InsertOne[Document] | ReplaceOne[Document]]) -> list[str]:
        """Writes. Returns the ids of those that may have to be made again."""
        inserts = {id_: write for id_, write in writes.items() if isinstance(write, InsertOne)}
        replacements = {id_: write for id_, write in writes.items() if isinstance(write, ReplaceOne)}
        unsure: list[str] = []
        for kind in (inserts, replacements):
            if not kind:
                continue
            ids = list(kind)
            try:
                result = await self._entries.bulk_write(list(kind.values()), ordered=False)
            except BulkWriteError as error:
                failed = error.details["writeErrors"]
                if any(each["code"] != DUPLICATE and not is_deadlock(each["code"]) for each in failed):
                    raise
                unsure += ids if kind is replacements else [ids[each["index"]] for each in failed]
                continue
            if kind is replacements and result.matched_count != len(kind):
                unsure += ids  # it is not said which found another version
        return unsure

    async def _standing(self, ids: list[str]) -> dict[str, _Standing]:
        return {
            document["_id"]: _Standing(_line(document), document["version"], document["corrections"])
            async for document in self._entries.find({"_id": {"$in": ids}})
        }

    async def _grouped(self, start_ns: int, end_ns: int, tenant: str, names: Sequence[str]) -> list[Document]:
        match: Document = {"created_ns": {"$gte": start_ns, "$lt": end_ns}}
        if tenant:
            match["tenant"] = tenant
        return await grouped_entries(self._reports, match, names)

    async def _reject(self, record: JournalRecord, why: str, now_ns: int) -> None:
        """Sets aside what can be no fact, once however often it comes."""
        serialized = record.SerializeToString(deterministic=True)
        document = {"record_id": record.id, "rejected_ns": now_ns, "why": why, "record": serialized}
        id_ = hashlib.sha256(serialized).hexdigest()
        await self._rejected.update_one({"_id": id_}, {"$setOnInsert": document}, upsert=True)


def _write(stands: _Standing | None, after: Line, now_ns: int) -> InsertOne[Document] | ReplaceOne[Document]:
    corrections = list(stands.corrections) if stands else []
    if noted := lines.correction(stands.line if stands else None, after, now_ns):
        corrections.append(noted._asdict())
    written = document_of(after, corrections)
    if stands is None:
        return InsertOne(written)
    return ReplaceOne({"_id": after.attempt.id, "version": stands.version}, written)


def document_of(line: Line, corrections: Sequence[Document]) -> Document:
    """A line as it is kept."""
    attempt = line.attempt
    held = lines.holds(attempt.context)
    return {
        "_id": attempt.id,
        "version": ObjectId(),
        "seen_ns": attempt.seen_ns,
        "announced_ns": attempt.announced_ns,
        "estimated_input_tokens": attempt.estimated_input_tokens,
        "context": attempt.context,
        **attempt.place._asdict(),
        "outcome": attempt.outcome,
        "observed": attempt.observed,
        "saved_nanos": attempt.saved_nanos,
        "abandoned": attempt.abandoned,
        "billed": attempt.billed,
        "created_at": _EPOCH + timedelta(microseconds=min(line.created_ns, _LAST_NS) // 1000),
        "created_ns": line.created_ns,
        "hour": ledger.hour_of(line.created_ns),
        "state": line.state,
        "tenant": line.tenant,
        "user": line.user,
        "key_id": line.key_id,
        "request_id": line.request_id,
        **dict(zip(AMOUNTS, line.amounts, strict=True)),
        "corrections": list(corrections),
        "holds": [{"lease_id": hold.lease_id, "account": hold.account, "held_nanos": hold.held_nanos} for hold in held],
    }


_LAST_NS = 253_402_300_799 * 1_000_000_000  # the last second that a datetime can be


def _facts() -> Document:
    return dict.fromkeys(_FACTS, 1)


def attempt_of(document: Mapping[str, Any]) -> Attempt:
    """The facts of a document."""
    return Attempt(
        id=document["_id"],
        seen_ns=document["seen_ns"],
        announced_ns=document["announced_ns"],
        estimated_input_tokens=document["estimated_input_tokens"],
        context=document["context"],
        place=Place(*(document[name] for name in Place._fields)),
        outcome=document["outcome"],
        observed=document["observed"],
        saved_nanos=document["saved_nanos"],
        abandoned=document["abandoned"],
        billed=document["billed"],
    )


def _line(document: Mapping[str, Any]) -> Line:
    return Line(
        attempt=attempt_of(document),
        created_ns=document["created_ns"],
        state=document["state"],
        tenant=document["tenant"],
        user=document["user"],
        key_id=document["key_id"],
        request_id=document["request_id"],
        amounts=amounts_of(document),
    )


def _correction(document: Mapping[str, Any]) -> Correction:
    return Correction(*(document[name] for name in Correction._fields))


def _pieces(query: SpendQuery, unrolled: set[int]) -> list[tuple[int, int]]:
    """Times whose sums have to be made of entries: hours that are not rolled up, and pieces of hours at both ends."""
    start_ns = 0 if query.start_ns is None else query.start_ns
    end_ns = (1 << 63) - 1 if query.end_ns is None else query.end_ns
    edges = {each // NANOS_PER_HOUR for each in (query.start_ns, query.end_ns) if each and each % NANOS_PER_HOUR}
    pieces: list[tuple[int, int]] = []
    for hour in sorted(unrolled | edges):
        piece = max(start_ns, hour * NANOS_PER_HOUR), min(end_ns, (hour + 1) * NANOS_PER_HOUR)
        if piece[0] >= piece[1]:
            continue
        if pieces and pieces[-1][1] == piece[0]:
            pieces[-1] = (pieces[-1][0], piece[1])
        else:
            pieces.append(piece)
    return pieces


def _spends(group_by: tuple[SpendDimension, ...], found: Iterable[Document]) -> list[Spend]:
    sums: defaultdict[tuple[Any, ...], Amounts] = defaultdict(Amounts)
    for document in found:
        group = tuple(_value(dimension, document["_id"]) for dimension in group_by)
        sums[group] = added(sums[group], amounts_of(document))
    # Amounts that a correction moved elsewhere leave zeros behind.
    kept = [
        Spend(group, amounts)
        for group, amounts in sums.items()
        if not group_by or amounts.attempts + amounts.cache_hits
    ]
    return sorted(kept, key=lambda spend: (-spend.amounts.cost_nanos, spend.group))


def _value(dimension: SpendDimension, group: Mapping[str, Any]) -> str:
    value = group[_GROUPS[dimension]]
    return ledger.day_of(value) if dimension == SPEND_DIMENSION_DAY else value


def _count(states: Iterable[int]) -> None:
    for state, count in Counter(states).items():
        name = EntryState.Name(EntryState.ValueType(state)).removeprefix("ENTRY_STATE_").lower()
        metrics.LEDGER_ENTRIES.labels(name).inc(count)
