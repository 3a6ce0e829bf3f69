"""Keys: one document each, found by the SHA-256 of its secret."""

import time
from collections.abc import Mapping
from typing import Any

from modelmuxer.accounting.v1.accounting_pb2 import Key
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from services.accounting.keys import StoredKey
from services.accounting.stores import Change
from services.accounting.stores.mongodb.connection import Connections, Document, retried
from services.accounting.stores.mongodb.trail import Trail, note

_FIRST = "first_key"


class Keys:
    """The collection of keys."""

    def __init__(self, connections: Connections, trail: Trail) -> None:
        self._keys = connections.money["keys"]
        self._meta = connections.money["meta"]
        self._trail = trail

    async def add(self, stored: StoredKey, actor: str, *, first: bool) -> bool:
        """Keeps a key."""
        created_ns = stored.key.create_time.ToNanoseconds()
        created = note(Change("key", stored.sha256), "create_key", stored.key.id, actor, created_ns)
        document = document_of(stored, trail=[created])
        if first:
            try:  # of several that start at once, one makes the key
                await self._meta.insert_one({"_id": _FIRST, "key": document})
            except DuplicateKeyError:
                standing = await self._meta.find_one({"_id": _FIRST})
                if standing is None:
                    return False
                ours = standing["key"]["_id"] == stored.sha256
                await self._insert(standing["key"])  # whose maker may have died before it could
                return bool(ours)
        await self._insert(document)
        return True

    async def by_sha256(self, sha256: bytes) -> Key | None:
        """A key that is not revoked."""
        found = await self._keys.find_one({"_id": sha256, "revoked_ns": None}, {"key": 1, "revoked_ns": 1})
        return key_of(found) if found else None

    async def all(self, tenant: str, include_revoked: bool) -> list[Key]:
        """Keys, newest first."""
        match: Document = {"tenant": tenant} if tenant else {}
        if not include_revoked:
            match["revoked_ns"] = None
        return [key_of(each) async for each in self._keys.find(match).sort([("created_ns", -1), ("id", -1)])]

    async def revoke(self, key_id: str, actor: str, now_ns: int) -> StoredKey | None:
        """The key, revoked; None if there is none."""
        standing = await self._keys.find_one({"id": key_id})
        if standing is None:
            return None
        change = note(Change("key", standing["_id"]), "revoke_key", key_id, actor, now_ns)
        revoke = {"$set": {"revoked_ns": now_ns}, "$push": {"trail": change}}
        revoked = await retried(
            lambda: self._keys.find_one_and_update(
                {"_id": standing["_id"], "revoked_ns": None}, revoke, return_document=ReturnDocument.AFTER
            )
        )
        if revoked is None:  # before, and perhaps by one who died before all were told
            await self._trail.finish(self._keys, time.time_ns())
            revoked = await self._keys.find_one({"_id": standing["_id"]})
        else:
            await self._trail.settle(self._keys, standing["_id"], change)
        return None if revoked is None else StoredKey(key_of(revoked), revoked["_id"])

    async def finish(self, before_ns: int) -> None:
        """Tells and notes what was cut short."""
        await self._trail.finish(self._keys, before_ns)

    async def _insert(self, document: Document) -> None:
        try:
            await self._keys.insert_one(document)
        except DuplicateKeyError:
            return
        for noted in document["trail"]:
            await self._trail.settle(self._keys, document["_id"], noted)


def document_of(stored: StoredKey, trail: list[Document]) -> Document:
    """A key as it is kept."""
    key = stored.key
    return {
        "_id": stored.sha256,
        "id": key.id,
        "tenant": key.tenant,
        "created_ns": key.create_time.ToNanoseconds(),
        "revoked_ns": key.revoke_time.ToNanoseconds() if key.HasField("revoke_time") else None,
        "key": key.SerializeToString(),
        "trail": trail,
    }


def key_of(document: Mapping[str, Any]) -> Key:
    """The key of a document."""
    key = Key.FromString(document["key"])
    if document["revoked_ns"] is not None:
        key.revoke_time.FromNanoseconds(document["revoked_ns"])
    return key
