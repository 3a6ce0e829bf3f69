"""What a ledger consists of, row by row, so that it can be moved from one store to another: all that is kept, and
nothing that follows from it."""

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from services.accounting.accounts import Account
from services.accounting.audit import Correction
from services.accounting.keys import StoredKey
from services.accounting.ledger import Attempt
from services.accounting.operations import Operation
from services.accounting.stores import PolicyRecord


class Part(StrEnum):
    """The parts of a ledger, in the order in which they are moved."""

    POLICIES = "policies"
    KEYS = "keys"
    AUDIT = "audit"
    ACCOUNTS = "accounts"
    OPERATIONS = "operations"
    REJECTED = "rejected"
    ENTRIES = "entries"


class EntryRow(NamedTuple):
    """An entry: its facts, and the corrections of what followed from fewer of them."""

    attempt: Attempt
    corrections: tuple[Correction, ...]


class AuditRow(NamedTuple):
    """A note of who changed what."""

    at_ns: int
    actor: str
    action: str
    subject: str


class RejectedRow(NamedTuple):
    """A record that could be no fact."""

    record_id: str
    rejected_ns: int
    why: str
    record: bytes


Row = EntryRow | AuditRow | RejectedRow | StoredKey | PolicyRecord | Operation | Account


class Placed(NamedTuple):
    """A row and its place in its part."""

    place: str
    row: Row


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a copy has come: the part and the place in it after which the next row stands."""

    source: str
    part: str
    """Empty when the copy is complete."""
    after: str

    @property
    def complete(self) -> bool:
        return not self.part


class Mover(Protocol):
    """Moves rows out of a store and into it."""

    where: str
    """The store, for people, and to know it again."""

    async def count(self, part: Part) -> int:
        """How many rows a part has."""

    def pages(self, part: Part, after: str) -> AsyncIterator[Sequence[Placed]]:
        """The rows after a place, in order of their places."""

    async def take(self, part: Part, rows: Sequence[Placed], progress: Progress) -> None:
        """Keeps rows, and how far the copy has come with them. May be repeated after a kill."""

    async def progress(self) -> Progress | None:
        """How far a copy into this store has come; None if there never was one."""


def fingerprint(row: Row) -> int:
    """A number that two rows have in common only if they are the same. Sums of it do not depend on their order."""
    match row:
        case StoredKey(key, sha256):
            text = repr((key.SerializeToString(deterministic=True), sha256))
        case Account():
            text = json.dumps(row.to_document(), sort_keys=True)
        case _:
            text = repr(row)
    return int.from_bytes(hashlib.sha256(text.encode()).digest())
