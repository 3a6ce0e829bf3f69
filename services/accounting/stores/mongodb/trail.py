"""The audit trail: who changed what, and when. A note is written into the changed document by the change itself, then
told to the other processes and moved to the trail; where that was cut short, `finish` does it later.
"""

import secrets
from typing import Any

from pymongo.asynchronous.collection import AsyncCollection

from services.accounting.stores import Change
from services.accounting.stores.mongodb.connection import Connections, Document, retried
from services.accounting.stores.mongodb.feed import Feed

_NOTED = ("at_ns", "actor", "action", "subject")


class Trail:
    """The collection of notes."""

    def __init__(self, connections: Connections, feed: Feed) -> None:
        self._audit = connections.money["audit"]
        self._feed = feed

    async def settle(self, changed: AsyncCollection[Document], document_id: Any, note: Document) -> None:
        """Tells of a change and moves its note to the trail. May be done again."""
        await self._feed.tell(Change(note["kind"], note["value"]))
        kept = {name: note[name] for name in _NOTED}
        await retried(lambda: self._audit.update_one({"_id": note["id"]}, {"$setOnInsert": kept}, upsert=True))
        moved = {"$pull": {"trail": {"id": note["id"]}}}
        await retried(lambda: changed.update_one({"_id": document_id}, moved))
        await retried(lambda: changed.delete_one({"_id": document_id, "gone": True, "trail": {"$size": 0}}))

    async def finish(self, changed: AsyncCollection[Document], before_ns: int) -> None:
        """Does what was cut short before then."""
        async for document in changed.find({"trail.at_ns": {"$lt": before_ns}}):
            for note in document["trail"]:
                await self.settle(changed, document["_id"], note)


def note(change: Change, action: str, subject: str, actor: str, at_ns: int) -> Document:
    """A note of a change, for the changed document's `trail`."""
    return {
        "id": f"{at_ns}-{secrets.token_hex(8)}",
        "at_ns": at_ns,
        "actor": actor,
        "action": action,
        "subject": subject,
        "kind": change.kind,
        "value": change.value,
    }
