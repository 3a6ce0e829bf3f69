"""Claims on operations and their answers: one document each, changed by compare-and-set on its version."""

import logging
from collections.abc import Mapping
from typing import Any

from bson import ObjectId
from pymongo.errors import DuplicateKeyError

from services.accounting import operations
from services.accounting.operations import Answered, Busy, Granted, Operation
from services.accounting.stores.mongodb.connection import Connections, Document, pause, retried
from shared.errors import MeshError, Reason

_TRIES = 20
MAX_ANSWER_BYTES = 15 * 1024 * 1024  # a document has 16 MiB

log = logging.getLogger("modelmuxer.accounting")


class Operations:
    """The collection of operations."""

    def __init__(self, connections: Connections) -> None:
        self._operations = connections.money["operations"]

    async def claim(self, wanted: Operation, now_ns: int) -> Granted | Answered | Busy:
        """Claims an operation. Raises OperationMismatch."""
        for attempt in range(_TRIES):
            standing = await self._operations.find_one({"_id": _id(wanted.key_id, wanted.operation_id)})
            verdict = operations.claim(_standing(standing), wanted, now_ns)
            if not isinstance(verdict, Granted) or await self._set(standing, verdict.operation):
                return verdict
            await pause(attempt)
        raise _busy()

    async def end(self, key_id: str, operation_id: str, owner: str, answer: bytes | None, now_ns: int) -> None:
        """Ends a claim. An answer that is too large for a document is not kept: the operation can be run again."""
        if answer is not None and len(answer) > MAX_ANSWER_BYTES:
            log.warning("an operation's answer is too large to be kept", extra={"bytes": len(answer)})
            answer = None
        for attempt in range(_TRIES):
            standing = await self._operations.find_one({"_id": _id(key_id, operation_id)})
            before = _standing(standing)
            after = operations.end(before, owner, answer, now_ns)
            if standing is None or after == before:
                return
            if after is None:
                if await self._drop(standing):
                    return
            elif await self._set(standing, after):
                return
            await pause(attempt)
        raise _busy()

    async def forget(self, now_ns: int) -> int:
        """Drops what has run out."""
        old = {"expires_ns": {"$lte": now_ns}}
        return (await retried(lambda: self._operations.delete_many(old))).deleted_count

    async def _drop(self, standing: Mapping[str, Any]) -> bool:
        as_it_was = {"_id": standing["_id"], "version": standing["version"]}
        return (await retried(lambda: self._operations.delete_one(as_it_was))).deleted_count > 0

    async def _set(self, standing: Mapping[str, Any] | None, each: Operation) -> bool:
        document = document_of(each)
        if standing is None:
            try:
                await retried(lambda: self._operations.insert_one(document))
            except DuplicateKeyError:
                return False
            return True
        as_it_was = {"_id": standing["_id"], "version": standing["version"]}
        written = await retried(lambda: self._operations.replace_one(as_it_was, document))
        return written.matched_count > 0


def _id(key_id: str, operation_id: str) -> str:
    return f"{key_id}/{operation_id}"  # ids of keys hold no slash


def _standing(document: Mapping[str, Any] | None) -> Operation | None:
    return None if document is None else operation_of(document)


def operation_of(document: Mapping[str, Any]) -> Operation:
    """The operation of a document."""
    return Operation(
        key_id=document["key_id"],
        operation_id=document["operation_id"],
        body_sha256=document["body_sha256"],
        owner=document["owner"],
        expires_ns=document["expires_ns"],
        answer=document["answer"],
    )


def document_of(each: Operation) -> Document:
    """An operation as it is kept."""
    return {
        "_id": _id(each.key_id, each.operation_id),
        "version": ObjectId(),
        "key_id": each.key_id,
        "operation_id": each.operation_id,
        "body_sha256": each.body_sha256,
        "owner": each.owner,
        "expires_ns": each.expires_ns,
        "answer": each.answer,
    }


def _busy() -> MeshError:
    return MeshError(
        Reason.ACCOUNTING_UNAVAILABLE, "Too many claim the same operation; try again shortly.", retry_after_s=1.0
    )
