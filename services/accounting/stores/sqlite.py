"""The ledger in one SQLite file, for one process.

One thread writes: what callers ask while a transaction is being committed shares the next one, so that a disk flush
serves many. Two more threads read, beside the writer (WAL). Facts are what is kept; an entry's amounts and the sums per
hour are derived from them in the same transaction, and can be derived again.
"""

import asyncio
import json
import os
import queue
import sqlite3
import threading
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

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
    Key,
    SpendDimension,
)

from services.accounting import ledger, lines, operations
from services.accounting.accounts import Account
from services.accounting.audit import Auditor, Correction
from services.accounting.keys import StoredKey
from services.accounting.ledger import Amounts, Attempt, Place
from services.accounting.lines import Line, SumsKey, added, line_of
from services.accounting.operations import Answered, Busy, Granted, Operation
from services.accounting.stores import Change, EntryQuery, Leases, PolicyRecord, Spend, SpendQuery, StoreError
from shared.lockfile import Locked, lock
from shared.telemetry import metrics

T = TypeVar("T")
Connection = sqlite3.Connection

SCHEMA_VERSION = 5
_HOLDS = """
CREATE TABLE IF NOT EXISTS holds (
    lease_id TEXT NOT NULL,
    attempt_id TEXT NOT NULL,
    account TEXT NOT NULL,
    held_nanos INTEGER NOT NULL,
    PRIMARY KEY (account, lease_id, attempt_id) -- what is lent nowhere has one lease_id on every account
) STRICT, WITHOUT ROWID;
"""
_BUDGETS = f"""
{_HOLDS}
CREATE TABLE IF NOT EXISTS policies (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    tenant TEXT NOT NULL,
    document BLOB NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT;
CREATE TABLE IF NOT EXISTS accounts (
    id TEXT PRIMARY KEY,
    ceiling TEXT NOT NULL,
    forget_ns INTEGER NOT NULL,
    document TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS accounts_by_ceiling ON accounts (ceiling);
CREATE INDEX IF NOT EXISTS accounts_by_end ON accounts (forget_ns);
"""
_COPY = "CREATE TABLE IF NOT EXISTS copy (source TEXT NOT NULL, part TEXT NOT NULL, after TEXT NOT NULL) STRICT;"
_SCHEMA = f"""
CREATE TABLE schema_version (version INTEGER NOT NULL) STRICT;
CREATE TABLE entries (
    attempt_id TEXT PRIMARY KEY,
    -- facts
    seen_ns INTEGER NOT NULL,
    announced_ns INTEGER,
    estimated_input_tokens INTEGER NOT NULL,
    context BLOB NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    deployment TEXT NOT NULL,
    region TEXT NOT NULL,
    outcome BLOB NOT NULL,
    observed BLOB NOT NULL,
    saved_nanos INTEGER,
    abandoned INTEGER NOT NULL,
    billed BLOB NOT NULL DEFAULT x'',
    -- derived
    created_ns INTEGER NOT NULL,
    state INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    key_id TEXT NOT NULL,
    request_id TEXT NOT NULL,
    cost_nanos INTEGER NOT NULL,
    estimated_cost_nanos INTEGER NOT NULL,
    counted_saved_nanos INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    cache_hits INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL
) STRICT;
CREATE INDEX entries_by_time ON entries (created_ns, attempt_id);
CREATE INDEX entries_by_user ON entries (user, created_ns);
CREATE INDEX entries_by_model ON entries (provider, model);
CREATE INDEX entries_by_request ON entries (request_id);
CREATE INDEX entries_pending ON entries (created_ns) WHERE state = 1;
CREATE TABLE corrections (
    attempt_id TEXT NOT NULL,
    corrected_ns INTEGER NOT NULL,
    from_state INTEGER NOT NULL,
    to_state INTEGER NOT NULL,
    delta_nanos INTEGER NOT NULL
) STRICT;
CREATE INDEX corrections_by_attempt ON corrections (attempt_id);
CREATE TABLE sums (
    hour INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    key_id TEXT NOT NULL,
    model TEXT NOT NULL,
    provider TEXT NOT NULL,
    cost_nanos INTEGER NOT NULL,
    estimated_cost_nanos INTEGER NOT NULL,
    counted_saved_nanos INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    cache_hits INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    PRIMARY KEY (hour, tenant, user, key_id, model, provider)
) STRICT, WITHOUT ROWID;
CREATE TABLE rejected (
    record_id TEXT NOT NULL,
    rejected_ns INTEGER NOT NULL,
    why TEXT NOT NULL,
    record BLOB NOT NULL
) STRICT;
CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    sha256 BLOB NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    created_ns INTEGER NOT NULL,
    revoked_ns INTEGER,
    key BLOB NOT NULL
) STRICT;
CREATE TABLE audit (at_ns INTEGER NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL, subject TEXT NOT NULL) STRICT;
CREATE TABLE operations (
    key_id TEXT NOT NULL,
    operation_id TEXT NOT NULL,
    body_sha256 BLOB NOT NULL,
    owner TEXT NOT NULL,
    expires_ns INTEGER NOT NULL,
    answer BLOB,
    PRIMARY KEY (key_id, operation_id)
) STRICT;
CREATE INDEX operations_by_end ON operations (expires_ns);
{_BUDGETS}
{_COPY}"""

# What brings a file from a version to the next.
_MIGRATIONS = {
    1: "ALTER TABLE entries ADD COLUMN billed BLOB NOT NULL DEFAULT x''",
    2: _BUDGETS,
    3: _COPY,
    4: f"ALTER TABLE holds RENAME TO old; DROP INDEX holds_by_account; {_HOLDS} INSERT INTO holds SELECT * FROM old; "  # noqa: S608
    "DROP TABLE old",
}

_FACTS = (
    *("attempt_id", "seen_ns", "announced_ns", "estimated_input_tokens", "context"),
    *("provider", "model", "deployment", "region", "outcome", "observed", "saved_nanos", "abandoned", "billed"),
)
_AMOUNTS = (
    *("cost_nanos", "estimated_cost_nanos", "counted_saved_nanos", "attempts", "cache_hits"),
    *("input_tokens", "output_tokens"),
)
_DERIVED = ("created_ns", "state", "tenant", "user", "key_id", "request_id", *_AMOUNTS)
_COLUMNS = (*_FACTS, *_DERIVED)
_GROUPS: dict[SpendDimension, str] = {
    SPEND_DIMENSION_MODEL: "model",
    SPEND_DIMENSION_USER: "user",
    SPEND_DIMENSION_DAY: "hour / 24",
    SPEND_DIMENSION_TENANT: "tenant",
    SPEND_DIMENSION_KEY: "key_id",
    SPEND_DIMENSION_PROVIDER: "provider",
}

# Statements are made of the names above alone; values are always bound.
SELECT = f"SELECT {', '.join(_COLUMNS)} FROM entries"  # noqa: S608
UPSERT = (
    f"INSERT INTO entries ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "  # noqa: S608
    f"ON CONFLICT (attempt_id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS[1:])}"
)
ADD_TO_SUMS = (
    f"INSERT INTO sums (hour, tenant, user, key_id, model, provider, {', '.join(_AMOUNTS)}) "  # noqa: S608
    f"VALUES ({', '.join('?' * (6 + len(_AMOUNTS)))}) ON CONFLICT DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in _AMOUNTS)
)
_INDEXED = {"created_ns", "user", "provider", "model", "request_id"}
# An entry whose place in the indexes stays: they are left alone.
UPDATE = (
    "UPDATE entries SET "  # noqa: S608
    + ", ".join(f"{name} = ?{at}" for at, name in enumerate(_COLUMNS, 1) if at > 1 and name not in _INDEXED)
    + " WHERE attempt_id = ?1"
)
_NANOS_PER_HOUR = 3_600_000_000_000
_PARAMETERS = 500  # of one statement
_GROUP_COMMIT = 64
_READERS = 2
_SWEEP = 500


class SqliteStore:
    """A Store in a SQLite file. Raises StoreError if another process has it or a newer release wrote it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = lock(path.with_suffix(".lock"))
        except Locked as error:
            raise StoreError(str(error)) from None
        try:
            self._writer = _Writer(path)
        except BaseException:
            os.close(self._lock)
            raise
        self._local = threading.local()
        self._reading: list[Connection] = []
        self._readers = ThreadPoolExecutor(_READERS, "ledger reader", self._open_reader, (path,))

    async def record(self, records: Sequence[JournalRecord], now_ns: int) -> list[str]:
        await self.write(lambda db: _record(db, records, now_ns))
        return [record.id for record in records]

    async def abandon(self, before_ns: int, now_ns: int) -> list[Attempt]:
        abandoned: list[Attempt] = []
        while found := await self.write(lambda db: _abandon(db, before_ns, now_ns)):
            abandoned += found
        return abandoned

    async def spend(self, query: SpendQuery) -> list[Spend]:
        return await self.read(lambda db: _spend(db, query))

    async def entries(self, query: EntryQuery) -> list[Entry]:
        return await self.read(lambda db: _entries(db, query))

    async def audit(self, auditor: Auditor) -> None:
        await self.read(lambda db: _audit(db, auditor))

    async def add_key(self, key: StoredKey, actor: str, *, first: bool = False) -> bool:
        return await self.write(lambda db: _add_key(db, key, actor, first))

    async def key_by_sha256(self, sha256: bytes) -> Key | None:
        return await self.read(lambda db: _key_by_sha256(db, sha256))

    async def keys(self, tenant: str, include_revoked: bool) -> list[Key]:
        return await self.read(lambda db: _keys(db, tenant, include_revoked))

    async def revoke_key(self, key_id: str, actor: str, now_ns: int) -> StoredKey | None:
        return await self.write(lambda db: _revoke_key(db, key_id, actor, now_ns))

    async def claim_operation(self, wanted: Operation, now_ns: int) -> Granted | Answered | Busy:
        return await self.write(lambda db: _claim(db, wanted, now_ns))

    async def end_operation(
        self, key_id: str, operation_id: str, owner: str, answer: bytes | None, now_ns: int
    ) -> None:
        await self.write(lambda db: _end(db, key_id, operation_id, owner, answer, now_ns))

    async def forget_operations(self, now_ns: int) -> int:
        return await self.write(
            lambda db: db.execute("DELETE FROM operations WHERE expires_ns <= ?", (now_ns,)).rowcount
        )

    async def put_policy(self, policy: PolicyRecord, action: str, actor: str, now_ns: int, *, new: bool) -> bool:
        return await self.write(lambda db: _put_policy(db, policy, action, actor, now_ns, new))

    async def delete_policy(self, kind: str, policy_id: str, actor: str, now_ns: int) -> PolicyRecord | None:
        return await self.write(lambda db: _delete_policy(db, kind, policy_id, actor, now_ns))

    async def policies(self, kind: str, tenant: str | None = None) -> list[PolicyRecord]:
        return await self.read(lambda db: _policies(db, kind, tenant))

    async def policy(self, kind: str, policy_id: str) -> PolicyRecord | None:
        return await self.read(lambda db: _policy(db, kind, policy_id))

    async def change_account(self, account_id: str, change: Callable[[Account | None], tuple[Account | None, T]]) -> T:
        return await self.write(lambda db: _change_account(db, account_id, change))

    async def accounts(self, ceilings: Sequence[str] | None = None) -> list[Account]:
        return await self.read(lambda db: _accounts(db, ceilings))

    async def forget_accounts(self, now_ns: int) -> int:
        forget = "DELETE FROM accounts WHERE forget_ns > 0 AND forget_ns <= ?"
        return await self.write(lambda db: db.execute(forget, (now_ns,)).rowcount)

    async def lease_spends(self, leases: Leases) -> dict[tuple[str, str], int]:
        return await self.read(lambda db: _lease_spends(db, leases))

    async def account_spend(self, account_id: str, besides: Sequence[str] = ()) -> int:
        return await self.read(lambda db: _account_spend(db, account_id, besides))

    async def settled(self, attempt_ids: Sequence[str]) -> dict[str, int]:
        return await self.read(lambda db: _settled(db, list(attempt_ids)))

    @property
    def shared(self) -> bool:
        return False

    async def changes(self) -> AsyncIterator[Sequence[Change] | None]:
        none: tuple[Sequence[Change], ...] = ()
        for changes in none:
            yield changes

    async def ask_back(self, account_id: str) -> None:
        """There is no other process."""

    async def tidy(self, now_ns: int) -> None:
        """Each step is a transaction, which leaves nothing to finish."""

    async def close(self) -> None:
        await asyncio.to_thread(self._writer.stop)
        await asyncio.to_thread(self._readers.shutdown)
        for db in self._reading:
            db.close()
        os.close(self._lock)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in a transaction, and returns when that is on disk."""
        return await self._writer.run(work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` beside the writer."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, lambda: work(self._local.db))

    def _open_reader(self, path: Path) -> None:
        db = _connect(path)
        db.execute("PRAGMA query_only = ON")
        self._local.db = db
        self._reading.append(db)


class _Job(NamedTuple):
    work: Callable[[Connection], Any]
    future: "Future[Any]"


class _Writer:
    """The one thread that writes."""

    def __init__(self, path: Path) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._db = _open(path)
        self._thread = threading.Thread(target=self._work, name="ledger writer", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in a transaction, and returns when that is on disk."""
        future: Future[T] = Future()
        self._jobs.put(_Job(work, future))
        return await asyncio.shield(asyncio.wrap_future(future))  # a caller that leaves takes back nothing

    def stop(self) -> None:
        """Finishes what was asked for, and closes the file."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._jobs.get()) is not None:
            jobs = [first]
            while len(jobs) < _GROUP_COMMIT and not self._jobs.empty():
                following = self._jobs.get()
                if following is None:
                    self._jobs.put(None)
                    break
                jobs.append(following)
            self._commit(jobs)
        self._db.close()

    def _commit(self, jobs: list[_Job]) -> None:
        """One transaction for all; a job that fails takes back its own part alone."""
        ended: list[tuple[_Job, Any, Exception | None]] = []
        try:
            self._db.execute("BEGIN IMMEDIATE")
            ended.extend((job, *self._attempt(job)) for job in jobs)
            self._db.execute("COMMIT")
        except Exception as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            ended = [(job, None, error) for job in jobs]
        for job, result, failure in ended:
            if failure is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(failure)

    def _attempt(self, job: _Job) -> tuple[Any, Exception | None]:
        self._db.execute("SAVEPOINT job")
        try:
            result, failure = job.work(self._db), None
        except Exception as error:
            self._db.execute("ROLLBACK TO job")
            result, failure = None, error
        self._db.execute("RELEASE job")
        return result, failure


def _connect(path: Path) -> Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    db.executescript("PRAGMA busy_timeout = 5000; PRAGMA cache_size = -32768; PRAGMA temp_store = MEMORY")
    return db


def _open(path: Path) -> Connection:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        db = _connect(path)
        # What is acknowledged leaves the journals, so it has to be on disk by then.
        db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
        _prepare(db, path)
    except (OSError, sqlite3.DatabaseError) as error:
        raise StoreError(f"{path} cannot be used as a ledger: {error}.") from None
    return db


def _prepare(db: Connection, path: Path) -> None:
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_version'").fetchone():
        db.executescript(f"BEGIN; {_SCHEMA}")
        db.execute("INSERT INTO schema_version VALUES (?)", (SCHEMA_VERSION,))
        db.execute("COMMIT")
        return
    (version,) = db.execute("SELECT version FROM schema_version").fetchone()
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by a newer release (schema {version}, this one knows {SCHEMA_VERSION}): "
            "run that release or a later one."
        )
    for older in range(version, SCHEMA_VERSION):
        db.executescript(f"BEGIN; {_MIGRATIONS[older]}")
        db.execute("UPDATE schema_version SET version = ?", (older + 1,))
        db.execute("COMMIT")


def _record(db: Connection, records: Iterable[JournalRecord], now_ns: int) -> None:
    attempts: list[Attempt] = []
    for record in records:
        try:
            attempts.append(ledger.attempt_of(record))
        except ledger.MalformedRecord as error:
            row = (record.id, now_ns, str(error), record.SerializeToString())
            db.execute("INSERT INTO rejected VALUES (?, ?, ?, ?)", row)
    _write(db, ledger.merge_all(attempts), now_ns)


def _abandon(db: Connection, before_ns: int, now_ns: int) -> list[Attempt]:
    rows = db.execute(
        f"{SELECT} WHERE state = {ENTRY_STATE_PENDING} AND created_ns < ? LIMIT {_SWEEP}", (before_ns,)
    ).fetchall()
    attempts = [line_of_row(row).attempt for row in rows]
    _write(db, {attempt.id: attempt._replace(abandoned=True) for attempt in attempts}, now_ns)
    return attempts


def _write(db: Connection, told: dict[str, Attempt], now_ns: int) -> None:
    """Merges what was told into what stands, and brings amounts and sums up to date."""
    standing = {line.attempt.id: line for line in _lines(db, list(told))}
    rows: list[tuple[Any, ...]] = []
    updates: list[tuple[Any, ...]] = []
    corrections: list[tuple[Any, ...]] = []
    holds: list[tuple[str, str, str, int]] = []
    sums: defaultdict[SumsKey, Amounts] = defaultdict(Amounts)
    states: Counter[int] = Counter()
    for attempt in told.values():
        before = standing.get(attempt.id)
        merged = ledger.merge(before.attempt, attempt) if before else attempt
        if before and merged == before.attempt:
            continue
        after = line_of(merged)
        (updates if before and _place(before) == _place(after) else rows).append(row_of(after))
        if merged.context and (before is None or merged.context != before.attempt.context):
            holds += [
                (hold.lease_id, attempt.id, hold.account, hold.held_nanos) for hold in lines.holds(merged.context)
            ]
        if before:
            account = before.account
            sums[account] = added(sums[account], before.amounts, -1)
        if noted := lines.correction(before, after, now_ns):
            corrections.append((attempt.id, now_ns, noted.from_state, noted.to_state, noted.delta_nanos))
        account = after.account
        sums[account] = added(sums[account], after.amounts)
        if before is None or before.state != after.state:
            states[after.state] += 1
    db.executemany(UPSERT, rows)
    db.executemany(UPDATE, updates)
    db.executemany("INSERT OR IGNORE INTO holds VALUES (?, ?, ?, ?)", holds)
    db.executemany("INSERT INTO corrections VALUES (?, ?, ?, ?, ?)", corrections)
    db.executemany(ADD_TO_SUMS, ((*account, *amounts) for account, amounts in sums.items() if any(amounts)))
    for state, count in states.items():
        name = EntryState.Name(state).removeprefix("ENTRY_STATE_").lower()
        metrics.LEDGER_ENTRIES.labels(name).inc(count)


def _place(line: Line) -> tuple[Any, ...]:
    """What the indexes of entries have of a line, but for its state."""
    place = line.attempt.place
    return line.created_ns, line.user, place.provider, place.model, line.request_id


def _lines(db: Connection, ids: list[str]) -> Iterator[Line]:
    for start in range(0, len(ids), _PARAMETERS):
        some = ids[start : start + _PARAMETERS]
        yield from map(line_of_row, db.execute(f"{SELECT} WHERE attempt_id IN ({', '.join('?' * len(some))})", some))


def row_of(line: Line) -> tuple[Any, ...]:
    """A line as a row of entries."""
    attempt = line.attempt
    return (
        *(attempt.id, attempt.seen_ns, attempt.announced_ns, attempt.estimated_input_tokens, attempt.context),
        *(*attempt.place, attempt.outcome, attempt.observed, attempt.saved_nanos, attempt.abandoned),
        *(
            attempt.billed,
            line.created_ns,
            line.state,
            line.tenant,
            line.user,
            line.key_id,
            line.request_id,
            *line.amounts,
        ),
    )


def line_of_row(row: tuple[Any, ...]) -> Line:
    """The line of a row of entries."""
    attempt = Attempt(
        id=row[0],
        seen_ns=row[1],
        announced_ns=row[2],
        estimated_input_tokens=row[3],
        context=row[4],
        place=Place(*row[5:9]),
        outcome=row[9],
        observed=row[10],
        saved_nanos=row[11],
        abandoned=bool(row[12]),
        billed=row[13],
    )
    created_ns, state, tenant, user, key_id, request_id = row[14:20]
    return Line(attempt, created_ns, state, tenant, user, key_id, request_id, Amounts(*row[20:]))


def _spend(db: Connection, query: SpendQuery) -> list[Spend]:
    names = [_GROUPS[dimension] for dimension in query.group_by]
    parts, values = _parts(query.start_ns, query.end_ns)
    where = ""
    if query.tenant:
        where = "WHERE tenant = ?"
        values.append(query.tenant)
    sums = ", ".join(f"SUM({name})" for name in _AMOUNTS)
    select = f"SELECT {', '.join([*names, sums])} FROM ({parts}) {where}"  # noqa: S608
    if names:
        columns = ", ".join(names)
        # Amounts that a correction moved elsewhere leave a row of zeros behind.
        counted = "SUM(attempts) + SUM(cache_hits) > 0"
        select += f" GROUP BY {columns} HAVING {counted} ORDER BY SUM(cost_nanos) DESC, {columns}"
    return [_spend_of(query.group_by, row) for row in db.execute(select, values) if row[-1] is not None]


def _parts(start_ns: int | None, end_ns: int | None) -> tuple[str, list[int | str]]:
    """Whole hours from the sums, and the pieces of hours at both ends from the entries."""
    first = None if start_ns is None else -(-start_ns // _NANOS_PER_HOUR)
    last = None if end_ns is None else end_ns // _NANOS_PER_HOUR
    sums = f"SELECT hour, tenant, user, key_id, model, provider, {', '.join(_AMOUNTS)} FROM sums"  # noqa: S608
    entries = (
        f"SELECT created_ns / {_NANOS_PER_HOUR} AS hour, tenant, user, key_id, model, provider, "  # noqa: S608
        f"{', '.join(_AMOUNTS)} FROM entries WHERE created_ns >= ? AND created_ns < ?"
    )
    if start_ns is not None and end_ns is not None and first is not None and last is not None and first > last:
        return entries, [start_ns, end_ns]
    parts: list[str] = []
    values: list[int | str] = []
    conditions: list[str] = []
    if first is not None and start_ns is not None:
        conditions.append(f"hour >= {first}")
        parts.append(entries)
        values += [start_ns, first * _NANOS_PER_HOUR]
    if last is not None and end_ns is not None:
        conditions.append(f"hour < {last}")
        parts.append(entries)
        values += [last * _NANOS_PER_HOUR, end_ns]
    whole = f"{sums} WHERE {' AND '.join(conditions)}" if conditions else sums
    return " UNION ALL ".join([*parts, whole]), values


def _spend_of(group_by: tuple[SpendDimension, ...], row: tuple[Any, ...]) -> Spend:
    group = tuple(
        ledger.day_of(value * 24) if dimension == SPEND_DIMENSION_DAY else value
        for dimension, value in zip(group_by, row, strict=False)
    )
    return Spend(group, Amounts(*row[len(group) :]))


def _entries(db: Connection, query: EntryQuery) -> list[Entry]:
    conditions: list[str] = []
    values: list[Any] = []
    filters = {
        "attempt_id": query.attempt_id,
        "request_id": query.request_id,
        "tenant": query.tenant,
        "state": query.state,
    }
    for name, value in filters.items():
        if value:
            conditions.append(f"{name} = ?")
            values.append(value)
    if query.after:
        conditions.append("(created_ns, attempt_id) < (?, ?)")
        values += query.after
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    select = f"{SELECT} {where}ORDER BY created_ns DESC, attempt_id DESC LIMIT ?"
    return [ledger.entry(line_of_row(row).attempt) for row in db.execute(select, (*values, query.limit))]


def _audit(db: Connection, auditor: Auditor) -> None:
    db.execute("BEGIN")  # one moment for all that is read
    try:
        corrections: dict[str, list[Correction]] = defaultdict(list)
        for attempt_id, *correction in db.execute(
            "SELECT attempt_id, from_state, to_state, delta_nanos FROM corrections ORDER BY rowid"
        ):
            corrections[attempt_id].append(Correction(*correction))
        for line in map(line_of_row, db.execute(f"{SELECT} ORDER BY attempt_id")):
            auditor.entry(line.attempt, line.state, line.account, line.amounts, corrections.pop(line.attempt.id, []))
        for attempt_id in corrections:
            auditor.orphan_correction(attempt_id)
        for row in db.execute(f"SELECT hour, tenant, user, key_id, model, provider, {', '.join(_AMOUNTS)} FROM sums"):  # noqa: S608
            auditor.sum(SumsKey(*row[:6]), Amounts(*row[6:]))
        (auditor.counts["rejected"],) = db.execute("SELECT COUNT(*) FROM rejected").fetchone()
    finally:
        db.execute("ROLLBACK")


def _add_key(db: Connection, stored: StoredKey, actor: str, first: bool) -> bool:
    if first and db.execute("SELECT 1 FROM keys").fetchone():
        return False
    key = stored.key
    created_ns = key.create_time.ToNanoseconds()
    row = (key.id, stored.sha256, key.tenant, created_ns, key.SerializeToString())
    db.execute("INSERT INTO keys (id, sha256, tenant, created_ns, key) VALUES (?, ?, ?, ?, ?)", row)
    db.execute("INSERT INTO audit VALUES (?, ?, 'create_key', ?)", (created_ns, actor, key.id))
    return True


def _key_by_sha256(db: Connection, sha256: bytes) -> Key | None:
    row = db.execute("SELECT key, revoked_ns FROM keys WHERE sha256 = ? AND revoked_ns IS NULL", (sha256,)).fetchone()
    return key_of(*row) if row else None


def _keys(db: Connection, tenant: str, include_revoked: bool) -> list[Key]:
    rows = db.execute(
        "SELECT key, revoked_ns FROM keys WHERE (tenant = ?1 OR ?1 = '') AND (?2 OR revoked_ns IS NULL) "
        "ORDER BY created_ns DESC, id DESC",
        (tenant, include_revoked),
    )
    return [key_of(*row) for row in rows]


def _revoke_key(db: Connection, key_id: str, actor: str, now_ns: int) -> StoredKey | None:
    row = db.execute("SELECT sha256, key, revoked_ns FROM keys WHERE id = ?", (key_id,)).fetchone()
    if row is None:
        return None
    sha256, key, revoked_ns = row
    if revoked_ns is None:
        revoked_ns = now_ns
        db.execute("UPDATE keys SET revoked_ns = ? WHERE id = ?", (now_ns, key_id))
        db.execute("INSERT INTO audit VALUES (?, ?, 'revoke_key', ?)", (now_ns, actor, key_id))
    return StoredKey(key_of(key, revoked_ns), sha256)


def key_of(serialized: bytes, revoked_ns: int | None) -> Key:
    """The key of a row."""
    key = Key.FromString(serialized)
    if revoked_ns is not None:
        key.revoke_time.FromNanoseconds(revoked_ns)
    return key


def _claim(db: Connection, wanted: Operation, now_ns: int) -> Granted | Answered | Busy:
    verdict = operations.claim(_operation(db, wanted.key_id, wanted.operation_id), wanted, now_ns)
    if isinstance(verdict, Granted):
        keep_operation(db, verdict.operation)
    return verdict


def _end(db: Connection, key_id: str, operation_id: str, owner: str, answer: bytes | None, now_ns: int) -> None:
    standing = _operation(db, key_id, operation_id)
    ended = operations.end(standing, owner, answer, now_ns)
    if ended is None:
        db.execute("DELETE FROM operations WHERE key_id = ? AND operation_id = ?", (key_id, operation_id))
    elif ended != standing:
        keep_operation(db, ended)


def _operation(db: Connection, key_id: str, operation_id: str) -> Operation | None:
    row = db.execute(
        "SELECT body_sha256, owner, expires_ns, answer FROM operations WHERE key_id = ? AND operation_id = ?",
        (key_id, operation_id),
    ).fetchone()
    if row is None:
        return None
    body_sha256, owner, expires_ns, answer = row
    return Operation(
        key_id=key_id,
        operation_id=operation_id,
        body_sha256=body_sha256,
        owner=owner,
        expires_ns=expires_ns,
        answer=answer,
    )


def keep_operation(db: Connection, each: Operation) -> None:
    """Writes an operation, in place of what stands."""
    row = (each.key_id, each.operation_id, each.body_sha256, each.owner, each.expires_ns, each.answer)
    db.execute("INSERT OR REPLACE INTO operations VALUES (?, ?, ?, ?, ?, ?)", row)


def _put_policy(db: Connection, policy: PolicyRecord, action: str, actor: str, now_ns: int, new: bool) -> bool:
    standing = db.execute("SELECT 1 FROM policies WHERE kind = ? AND id = ?", (policy.kind, policy.id)).fetchone()
    if (standing is None) != new:
        return False
    row = (policy.kind, policy.id, policy.tenant, policy.document)
    db.execute("INSERT OR REPLACE INTO policies VALUES (?, ?, ?, ?)", row)
    db.execute("INSERT INTO audit VALUES (?, ?, ?, ?)", (now_ns, actor, action, policy.id))
    return True


def _delete_policy(db: Connection, kind: str, policy_id: str, actor: str, now_ns: int) -> PolicyRecord | None:
    standing = _policy(db, kind, policy_id)
    if standing is not None:
        db.execute("DELETE FROM policies WHERE kind = ? AND id = ?", (kind, policy_id))
        db.execute("INSERT INTO audit VALUES (?, ?, ?, ?)", (now_ns, actor, f"delete_{kind}", policy_id))
    return standing


def _policy(db: Connection, kind: str, policy_id: str) -> PolicyRecord | None:
    row = db.execute("SELECT tenant, document FROM policies WHERE kind = ? AND id = ?", (kind, policy_id)).fetchone()
    return PolicyRecord(kind=kind, id=policy_id, tenant=row[0], document=row[1]) if row else None


def _policies(db: Connection, kind: str, tenant: str | None) -> list[PolicyRecord]:
    rows = db.execute(
        "SELECT id, tenant, document FROM policies WHERE kind = ?1 AND (?2 IS NULL OR tenant IN (?2, '')) ORDER BY id",
        (kind, tenant),
    )
    return [PolicyRecord(kind=kind, id=id_, tenant=owner, document=document) for id_, owner, document in rows]


def _change_account(db: Connection, account_id: str, change: Callable[[Account | None], tuple[Account | None, T]]) -> T:
    row = db.execute("SELECT document FROM accounts WHERE id = ?", (account_id,)).fetchone()
    before = Account.from_document(json.loads(row[0])) if row else None
    after, result = change(before)
    if after is not None and after is not before:
        written = (after.id, after.ceiling, after.forget_ns, json.dumps(after.to_document()))
        db.execute("INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?)", written)
    return result


def _accounts(db: Connection, ceilings: Sequence[str] | None) -> list[Account]:
    if ceilings is None:
        rows = db.execute("SELECT document FROM accounts ORDER BY id").fetchall()
    else:
        rows = []
        for start in range(0, len(ceilings), _PARAMETERS):
            some = ceilings[start : start + _PARAMETERS]
            where = f"ceiling IN ({', '.join('?' * len(some))})"
            rows += db.execute(f"SELECT document FROM accounts WHERE {where} ORDER BY id", some).fetchall()  # noqa: S608
    return [Account.from_document(json.loads(document)) for (document,) in rows]


_SPENT = f"COALESCE(SUM(CASE state WHEN {ENTRY_STATE_PENDING} THEN held_nanos ELSE cost_nanos END), 0)"


def _lease_spends(db: Connection, leases: Leases) -> dict[tuple[str, str], int]:
    spends = {(account, lease_id): 0 for account, lease_ids in leases.items() for lease_id in lease_ids}
    rows = db.execute(
        f"SELECT account, lease_id, {_SPENT} FROM json_each(?) AS wanted "  # noqa: S608
        "CROSS JOIN holds ON account = json_extract(wanted.value, '$[0]') "
        "AND lease_id = json_extract(wanted.value, '$[1]') JOIN entries USING (attempt_id) GROUP BY account, lease_id",
        (json.dumps(list(spends)),),
    )
    for account, lease_id, spent in rows:
        spends[account, lease_id] = spent
    return spends


def _account_spend(db: Connection, account_id: str, besides: Sequence[str]) -> int:
    select = (
        f"SELECT {_SPENT} FROM holds JOIN entries USING (attempt_id) "  # noqa: S608
        "WHERE account = ? AND lease_id NOT IN (SELECT value FROM json_each(?))"
    )
    return int(db.execute(select, (account_id, json.dumps(list(besides)))).fetchone()[0])


def _settled(db: Connection, attempt_ids: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for start in range(0, len(attempt_ids), _PARAMETERS):
        some = attempt_ids[start : start + _PARAMETERS]
        where = f"state != {ENTRY_STATE_PENDING} AND attempt_id IN ({', '.join('?' * len(some))})"
        found.update(db.execute(f"SELECT attempt_id, cost_nanos FROM entries WHERE {where}", some))  # noqa: S608
    return found
