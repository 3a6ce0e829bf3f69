"""Moves a ledger out of a SQLite file and into one. A page and how far the copy has come are one transaction."""

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from services.accounting import lines
from services.accounting.accounts import Account
from services.accounting.audit import Correction
from services.accounting.keys import StoredKey
from services.accounting.ledger import Amounts
from services.accounting.lines import SumsKey, added, line_of
from services.accounting.operations import Operation
from services.accounting.stores import PolicyRecord
from services.accounting.stores.moving import AuditRow, EntryRow, Part, Placed, Progress, RejectedRow
from services.accounting.stores.sqlite import (
    ADD_TO_SUMS,
    SELECT,
    UPSERT,
    Connection,
    SqliteStore,
    keep_operation,
    key_of,
    line_of_row,
    row_of,
)

_PAGE = 1000


class SqliteMover:
    """A Mover of a SqliteStore."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.where = str(store.path.absolute())

    async def count(self, part: Part) -> int:
        return await self._store.read(lambda db: int(db.execute(f"SELECT COUNT(*) FROM {part}").fetchone()[0]))  # noqa: S608

    async def pages(self, part: Part, after: str) -> AsyncIterator[Sequence[Placed]]:
        while page := await self._store.read(partial(_READERS[part], after=after)):
            yield page
            after = page[-1].place

    async def take(self, part: Part, rows: Sequence[Placed], progress: Progress) -> None:
        def write(db: Connection) -> None:
            _WRITERS[part](db, [placed.row for placed in rows])
            db.execute("DELETE FROM copy")
            db.execute("INSERT INTO copy VALUES (?, ?, ?)", (progress.source, progress.part, progress.after))

        await self._store.write(write)

    async def progress(self) -> Progress | None:
        row = await self._store.read(lambda db: db.execute("SELECT source, part, after FROM copy").fetchone())
        return Progress(*row) if row else None


def _entries(db: Connection, after: str) -> list[Placed]:
    found = db.execute(f"{SELECT} WHERE attempt_id > ? ORDER BY attempt_id LIMIT {_PAGE}", (after,)).fetchall()
    entries = [line_of_row(row).attempt for row in found]
    if not entries:
        return []
    corrections: defaultdict[str, list[Correction]] = defaultdict(list)
    for attempt_id, *values in db.execute(
        "SELECT attempt_id, from_state, to_state, delta_nanos, corrected_ns FROM corrections "
        "WHERE attempt_id BETWEEN ? AND ? ORDER BY rowid",
        (entries[0].id, entries[-1].id),
    ):
        corrections[attempt_id].append(Correction(*values))
    return [Placed(attempt.id, EntryRow(attempt, tuple(corrections[attempt.id]))) for attempt in entries]


def _by_row(db: Connection, after: str, table: str, columns: str) -> list[tuple[str, Any]]:
    """Rows of a table that has no key, by the order in which they came."""
    select = f"SELECT rowid, {columns} FROM {table} WHERE rowid > ? ORDER BY rowid LIMIT {_PAGE}"  # noqa: S608
    return [(f"{number:020}", values) for number, *values in db.execute(select, (int(after or 0),))]


def _audit(db: Connection, after: str) -> list[Placed]:
    rows = _by_row(db, after, "audit", "at_ns, actor, action, subject")
    return [Placed(place, AuditRow(*values)) for place, values in rows]


def _rejected(db: Connection, after: str) -> list[Placed]:
    rows = _by_row(db, after, "rejected", "record_id, rejected_ns, why, record")
    return [Placed(place, RejectedRow(*values)) for place, values in rows]


def _keys(db: Connection, after: str) -> list[Placed]:
    rows = db.execute(
        f"SELECT id, key, revoked_ns, sha256 FROM keys WHERE id > ? ORDER BY id LIMIT {_PAGE}",  # noqa: S608
        (after,),
    )
    return [Placed(id_, StoredKey(key_of(key, revoked_ns), sha256)) for id_, key, revoked_ns, sha256 in rows]


def _policies(db: Connection, after: str) -> list[Placed]:
    rows = db.execute(
        f"SELECT kind, id, tenant, document FROM policies WHERE kind || '/' || id > ? "  # noqa: S608
        f"ORDER BY kind || '/' || id LIMIT {_PAGE}",
        (after,),
    )
    return [
        Placed(f"{kind}/{id_}", PolicyRecord(kind=kind, id=id_, tenant=tenant, document=document))
        for kind, id_, tenant, document in rows
    ]


def _operations(db: Connection, after: str) -> list[Placed]:
    rows = db.execute(
        f"SELECT key_id, operation_id, body_sha256, owner, expires_ns, answer FROM operations "  # noqa: S608
        f"WHERE key_id || '/' || operation_id > ? ORDER BY key_id || '/' || operation_id LIMIT {_PAGE}",
        (after,),
    )
    names = ("key_id", "operation_id", "body_sha256", "owner", "expires_ns", "answer")
    made = [Operation(**dict(zip(names, row, strict=True))) for row in rows]
    return [Placed(f"{each.key_id}/{each.operation_id}", each) for each in made]


def _accounts(db: Connection, after: str) -> list[Placed]:
    rows = db.execute(f"SELECT id, document FROM accounts WHERE id > ? ORDER BY id LIMIT {_PAGE}", (after,))  # noqa: S608
    return [Placed(id_, Account.from_document(json.loads(document))) for id_, document in rows]


_READERS: dict[Part, Callable[..., list[Placed]]] = {
    Part.ENTRIES: _entries,
    Part.AUDIT: _audit,
    Part.REJECTED: _rejected,
    Part.KEYS: _keys,
    Part.POLICIES: _policies,
    Part.OPERATIONS: _operations,
    Part.ACCOUNTS: _accounts,
}


def _take_entries(db: Connection, rows: Sequence[EntryRow]) -> None:
    sums: defaultdict[SumsKey, Amounts] = defaultdict(Amounts)
    for attempt, corrections in rows:
        line = line_of(attempt)
        sums[line.account] = added(sums[line.account], line.amounts)
        db.execute(UPSERT, row_of(line))
        held = [(hold.lease_id, attempt.id, hold.account, hold.held_nanos) for hold in lines.holds(attempt.context)]
        db.executemany("INSERT OR IGNORE INTO holds VALUES (?, ?, ?, ?)", held)
        noted = [
            (attempt.id, each.corrected_ns, each.from_state, each.to_state, each.delta_nanos) for each in corrections
        ]
        db.executemany("INSERT INTO corrections VALUES (?, ?, ?, ?, ?)", noted)
    db.executemany(ADD_TO_SUMS, ((*key, *amounts) for key, amounts in sums.items() if any(amounts)))


def _take_keys(db: Connection, rows: Sequence[StoredKey]) -> None:
    for key, sha256 in rows:
        revoked_ns = key.revoke_time.ToNanoseconds() if key.HasField("revoke_time") else None
        row = (key.id, sha256, key.tenant, key.create_time.ToNanoseconds(), revoked_ns, key.SerializeToString())
        db.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?)", row)


def _take_policies(db: Connection, rows: Sequence[PolicyRecord]) -> None:
    kept = ((each.kind, each.id, each.tenant, each.document) for each in rows)
    db.executemany("INSERT INTO policies VALUES (?, ?, ?, ?)", kept)


def _take_accounts(db: Connection, rows: Sequence[Account]) -> None:
    kept = ((each.id, each.ceiling, each.forget_ns, json.dumps(each.to_document())) for each in rows)
    db.executemany("INSERT INTO accounts VALUES (?, ?, ?, ?)", kept)


def _take_operations(db: Connection, rows: Sequence[Operation]) -> None:
    for each in rows:
        keep_operation(db, each)


def _take_tuples(table: str) -> Callable[[Connection, Sequence[tuple[Any, ...]]], None]:
    def take(db: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        db.executemany(f"INSERT INTO {table} VALUES (?, ?, ?, ?)", rows)  # noqa: S608

    return take


_WRITERS: dict[Part, Callable[[Connection, Any], None]] = {
    Part.ENTRIES: _take_entries,
    Part.AUDIT: _take_tuples("audit"),
    Part.REJECTED: _take_tuples("rejected"),
    Part.KEYS: _take_keys,
    Part.POLICIES: _take_policies,
    Part.OPERATIONS: _take_operations,
    Part.ACCOUNTS: _take_accounts,
}
