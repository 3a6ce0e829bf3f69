"""Budgets, limits and tenants: one document each. One that was taken away stays, marked as gone, until it was noted."""

from collections.abc import Mapping
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from services.accounting.stores import Change, PolicyRecord
from services.accounting.stores.mongodb.connection import Connections, Document, retried
from services.accounting.stores.mongodb.trail import Trail, note


class Policies:
    """The collection of policies."""

    def __init__(self, connections: Connections, trail: Trail) -> None:
        self._policies = connections.money["policies"]
        self._trail = trail

    async def put(self, policy: PolicyRecord, action: str, actor: str, now_ns: int, *, new: bool) -> bool:
        """Keeps a policy, new or in place of an older one."""
        id_ = _id(policy.kind, policy.id)
        change = note(Change("tenant", policy.tenant), action, policy.id, actor, now_ns)
        kept = {"kind": policy.kind, "id": policy.id, "tenant": policy.tenant, "document": policy.document}
        if new:
            try:
                await self._policies.insert_one({"_id": id_, **kept, "gone": False, "trail": [change]})
            except DuplicateKeyError:
                # One that is gone may stand there yet.
                if not await self._replace(id_, kept, change, gone=True):
                    return False
        elif not await self._replace(id_, kept, change, gone=False):
            return False
        await self._trail.settle(self._policies, id_, change)
        return True

    async def delete(self, kind: str, policy_id: str, actor: str, now_ns: int) -> PolicyRecord | None:
        """Takes a policy away."""
        id_ = _id(kind, policy_id)
        standing = await self.one(kind, policy_id)
        if standing is None:
            return None
        change = note(Change("tenant", standing.tenant), f"delete_{kind}", policy_id, actor, now_ns)
        update = {"$set": {"gone": True}, "$push": {"trail": change}}
        gone = await retried(
            lambda: self._policies.find_one_and_update(
                {"_id": id_, "gone": False}, update, return_document=ReturnDocument.BEFORE
            )
        )
        if gone is None:
            return None
        await self._trail.settle(self._policies, id_, change)
        return record_of(gone)

    async def all(self, kind: str, tenant: str | None) -> list[PolicyRecord]:
        """Policies of a kind, by id."""
        match: Document = {"kind": kind, "gone": False}
        if tenant is not None:
            match["tenant"] = {"$in": [tenant, ""]}
        return [record_of(each) async for each in self._policies.find(match).sort("id", 1)]

    async def one(self, kind: str, policy_id: str) -> PolicyRecord | None:
        """One policy."""
        found = await self._policies.find_one({"_id": _id(kind, policy_id), "gone": False})
        return record_of(found) if found else None

    async def finish(self, before_ns: int) -> None:
        """Tells and notes what was cut short."""
        await self._trail.finish(self._policies, before_ns)

    async def _replace(self, id_: str, kept: Document, change: Document, *, gone: bool) -> bool:
        update = {"$set": {**kept, "gone": False}, "$push": {"trail": change}}
        replaced = await retried(lambda: self._policies.update_one({"_id": id_, "gone": gone}, update))
        return replaced.matched_count > 0


def _id(kind: str, policy_id: str) -> str:
    return f"{kind}/{policy_id}"


def record_of(document: Mapping[str, Any]) -> PolicyRecord:
    """The policy of a document."""
    return PolicyRecord(
        kind=document["kind"], id=document["id"], tenant=document["tenant"], document=document["document"]
    )
