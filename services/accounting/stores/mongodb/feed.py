"""The feed: what one process changed, for the watchers of the others. There are no change streams on every server, so
one small document holds the last changes and their count, and each process asks, cheaply and often, whether that moved.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from pymongo.errors import DuplicateKeyError, PyMongoError

from services.accounting.stores import Change
from services.accounting.stores.mongodb.connection import Connections, Document, retried

POLL_S = 0.1
KEPT = 1000
LOST_AFTER_S = 3.0
"""Whoever could not ask for so long may have missed a key that was revoked."""
ASK_AGAIN_S = 0.25
_ID = "changes"

log = logging.getLogger("modelmuxer.accounting")


class Feed:
    """The document of changes."""

    def __init__(self, connections: Connections) -> None:
        self._feed = connections.money["feed"]
        self._asked: dict[str, float] = {}

    async def tell(self, change: Change) -> None:
        """Tells every process."""
        pushed = {"recent": {"$each": [{"kind": change.kind, "value": change.value}], "$slice": -KEPT}}
        update: Document = {"$inc": {"count": 1}, "$push": pushed}
        try:
            await retried(lambda: self._feed.update_one({"_id": _ID}, update, upsert=True))
        except DuplicateKeyError:  # somebody else was the first
            await retried(lambda: self._feed.update_one({"_id": _ID}, update, upsert=True))

    async def ask_back(self, account_id: str) -> None:
        """Tells every process that an account is wanted; not again at once, since who waits asks often."""
        now_s = time.monotonic()
        if now_s - self._asked.get(account_id, -ASK_AGAIN_S) < ASK_AGAIN_S:
            return
        self._asked = {id_: asked_s for id_, asked_s in self._asked.items() if now_s - asked_s < ASK_AGAIN_S}
        self._asked[account_id] = now_s
        await self.tell(Change("wanted", account_id))

    async def changes(self) -> AsyncIterator[Sequence[Change] | None]:
        """What was told from now on; None where that is not known."""
        heard: int | None = None
        asked_s = time.monotonic()
        while True:
            try:
                document = await self._feed.find_one({"_id": _ID, "count": {"$ne": heard}})
            except PyMongoError as error:
                if heard is not None and time.monotonic() - asked_s > LOST_AFTER_S:
                    log.warning("changes by other processes cannot be read", extra={"error": type(error).__name__})
                    heard = None
                    yield None
            else:
                asked_s = time.monotonic()
                if heard is None:
                    heard = document["count"] if document else 0
                    yield ()
                elif document:
                    told = _since(document, heard)
                    heard = document["count"] if told is not None else None
                    yield told
            await asyncio.sleep(POLL_S)


def _since(document: dict[str, Any], heard: int) -> list[Change] | None:
    """What was told since that many changes; None if it is not kept any more."""
    news = document["count"] - heard
    recent = document["recent"]
    if not 0 < news <= len(recent):
        return None
    return [Change(each["kind"], each["value"]) for each in recent[-news:]]
