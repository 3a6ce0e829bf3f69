"""The schema of the database: its version, its indexes, and what brings an older one up to date."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pymongo.errors import DuplicateKeyError

from services.accounting.stores import StoreError
from services.accounting.stores.mongodb.connection import Connections, Database

VERSION = 1
_ID = "schema"

Migration = Callable[[Database], Awaitable[None]]

_INDEXES: Mapping[str, tuple[tuple[dict[str, int], dict[str, Any]], ...]] = {
    "entries": (
        ({"user": 1, "created_at": 1}, {}),
        ({"provider": 1, "model": 1}, {}),
        ({"created_ns": -1, "_id": -1}, {}),
        ({"request_id": 1}, {}),
        ({"holds.lease_id": 1}, {}),
        ({"holds.account": 1}, {}),
        # The number is ENTRY_STATE_PENDING's.
        ({"state": 1, "created_ns": 1}, {"partialFilterExpression": {"state": 1}}),
    ),
    "hours": (({"rolled": 1}, {}),),
    "keys": (({"id": 1}, {}), ({"trail.at_ns": 1}, {})),
    "policies": (({"kind": 1, "tenant": 1}, {}), ({"trail.at_ns": 1}, {})),
    "accounts": (({"ceiling": 1}, {}), ({"forget_ns": 1}, {})),
    "operations": (({"expires_ns": 1}, {}),),
}


@dataclass(frozen=True, slots=True)
class Schema:
    """A version, and what brings a database from each older one to the next. A migration may be run again, or by two
    processes at once, and leaves nothing wrong when it is cut short."""

    version: int = VERSION
    migrations: Mapping[int, Migration] = field(default_factory=dict)

    async def prepare(self, connections: Connections) -> None:
        """Brings the database up to date. Raises StoreError if a newer release wrote it."""
        meta = connections.reports["meta"]
        standing = await meta.find_one({"_id": _ID})
        if standing is None:
            try:
                await meta.insert_one({"_id": _ID, "version": self.version})
            except DuplicateKeyError:
                standing = await meta.find_one({"_id": _ID})
        if standing is not None:
            self.check(standing["version"], connections.where)
            for older in range(standing["version"], self.version):
                await self.migrations[older](connections.reports)
                await meta.update_one({"_id": _ID, "version": older}, {"$set": {"version": older + 1}})
        for name, indexes in _INDEXES.items():
            for keys, options in indexes:
                await connections.reports[name].create_index(list(keys.items()), **options)

    def check(self, version: int, where: str) -> None:
        """Raises StoreError if that version is newer."""
        if version > self.version:
            raise StoreError(
                f"The ledger at {where} was written by a newer release (schema {version}, this one knows "
                f"{self.version}): run that release or a later one."
            )
