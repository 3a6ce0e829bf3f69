"""What the cache service knows of questions: the index, which the store keeps alive, and verdicts on what it gave."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from google.protobuf.message import DecodeError
from modelmuxer.cache.v1 import cache_pb2

from services.cache.semantic.index import SemanticIndex, vector_of
from services.cache.semantic.partition import Entry, Vector
from services.cache.semantic.verdicts import Verdicts
from services.cache.stores import About, Key, Store, StoreError
from shared.errors import MeshError, Reason
from shared.telemetry import metrics

QUESTION: Final = b"question 1"  # the note of a question in the store
VERDICTS: Final = b"verdicts 1"
VERDICTS_TTL_S: Final = 90 * 86_400.0
NEARLY: Final = 0.04  # below the threshold: verdicts on such answers may loosen it
MAX_CLASSES: Final = 10_000
_VERDICT: Final = struct.Struct("<fB")
_CHUNK: Final = 256

log = logging.getLogger("modelmuxer.cache")


class Memory:
    """Finds and remembers questions. ``clock`` returns seconds since the epoch."""

    def __init__(self, store: Store, index: SemanticIndex, *, ttl_s: float, clock: Callable[[], float]) -> None:
        self._store = store
        self._index = index
        self._ttl_s = ttl_s
        self._clock = clock
        self._verdicts: OrderedDict[tuple[str, str], Verdicts] = OrderedDict()

    async def find(self, request: cache_pb2.FindSimilarRequest) -> cache_pb2.FindSimilarResponse:
        """The answer that may stand for a question's, or the one that nearly may."""
        question = request.question
        partition, vector = _partition(question), _vector(question)
        response = cache_pb2.FindSimilarResponse(threshold=request.threshold)
        if request.most_wrong:
            verdicts = await self._verdicts_of(partition.tenant, getattr(question, "class"))
            response.threshold = verdicts.threshold(request.threshold, request.most_wrong)
        match = self._index.best(partition, vector, question.text)
        if match is None or match.score < response.threshold - NEARLY:
            metrics.SEMANTIC_LOOKUPS.labels("miss").inc()
            return response
        response.similarity, response.score = match.near.similarity, match.score
        response.difference = match.difference.kind
        hit = match.score >= response.threshold
        metrics.SEMANTIC_LOOKUPS.labels("hit" if hit else "near").inc()
        key = cache_pb2.CacheKey(tenant=partition.tenant, digest=match.near.entry.digest)
        (response.key if hit else response.near).CopyFrom(key)
        return response

    async def remember(self, request: cache_pb2.RememberRequest) -> cache_pb2.RememberResponse:
        """Adds a question, in the store first: what the index holds can be made again."""
        partition, vector = _partition(request.question), _vector(request.question)
        if request.key.tenant != partition.tenant or len(request.key.digest) != 32:
            raise MeshError(Reason.MALFORMED_REQUEST, "The answer's key must be of the question's tenant.", field="key")
        ttl_s = self._ttl_s
        if request.HasField("ttl"):
            ttl_s = min(ttl_s, request.ttl.ToNanoseconds() / 1e9)
        if ttl_s <= 0:
            return cache_pb2.RememberResponse(reason="the answer may not be kept for any time")
        about = About(alias=request.alias, model=request.model, tags=tuple(request.tags), note=QUESTION)
        name = Key(partition.tenant, hashlib.sha256(QUESTION + request.key.digest).digest())
        if not await self._store.put(name, request.SerializeToString(), ttl_s, about):
            return cache_pb2.RememberResponse(reason="the store did not take it")
        self._index.add(partition, vector, _entry(request, self._clock() + ttl_s))
        return cache_pb2.RememberResponse(remembered=True)

    async def judge(self, request: cache_pb2.JudgeRequest) -> cache_pb2.JudgeResponse:
        """Takes a verdict."""
        class_ = getattr(request, "class")
        if not request.tenant or not 0.0 <= request.score <= 2.0:
            raise MeshError(Reason.MALFORMED_REQUEST, "A verdict needs a tenant and a score.", field="score")
        verdicts = await self._verdicts_of(request.tenant, class_)
        verdicts.add(request.score, request.wrong)
        metrics.SEMANTIC_VERDICTS.labels("wrong" if request.wrong else "right").inc()
        packed = b"".join(_VERDICT.pack(score, wrong) for score, wrong in verdicts.all)
        await self._store.put(_verdicts_key(request.tenant, class_), packed, VERDICTS_TTL_S, About(note=VERDICTS))
        return cache_pb2.JudgeResponse(verdicts=len(verdicts), wrong=verdicts.wrong)

    async def rebuild(self) -> None:
        """Fills the index from the store."""
        gathered: dict[Key, tuple[list[Vector], list[Entry]]] = {}
        count = 0
        try:
            async for _, found in self._store.entries():
                if found.about.note != QUESTION or (request := _stored(found.value)) is None:
                    continue
                vectors, entries = gathered.setdefault(_partition(request.question), ([], []))
                vectors.append(_vector(request.question))
                entries.append(_entry(request, self._clock() + found.left_s))
                count += 1
                if len(vectors) >= _CHUNK:
                    self._index.extend(*_taken(gathered, _partition(request.question)))
                    await asyncio.sleep(0)
        except StoreError as error:
            log.warning("the semantic index could not be rebuilt in full: %s", error)
        for partition in list(gathered):
            self._index.extend(*_taken(gathered, partition))
            await asyncio.sleep(0)
        if count:
            log.info("the semantic index was rebuilt from %d stored questions", count)

    async def _verdicts_of(self, tenant: str, class_: str) -> Verdicts:
        name = (tenant, class_)
        verdicts = self._verdicts.get(name)
        if verdicts is None:
            found = await self._store.get(_verdicts_key(tenant, class_))
            packed = found.value if found is not None else b""
            kept = [] if len(packed) % _VERDICT.size else list(_VERDICT.iter_unpack(packed))
            verdicts = self._verdicts.setdefault(name, Verdicts((score, bool(wrong)) for score, wrong in kept))
            while len(self._verdicts) > MAX_CLASSES:
                self._verdicts.popitem(last=False)
        self._verdicts.move_to_end(name)
        return verdicts


def _taken(
    gathered: dict[Key, tuple[list[Vector], list[Entry]]], partition: Key
) -> tuple[Key, list[Vector], list[Entry]]:
    vectors, entries = gathered.pop(partition)
    return partition, vectors, entries


def _entry(request: cache_pb2.RememberRequest, expires_s: float) -> Entry:
    return Entry(request.question.text, request.key.digest, expires_s)


def _stored(value: bytes) -> cache_pb2.RememberRequest | None:
    """A question as the store has it; None for what an older release wrote."""
    try:
        request = cache_pb2.RememberRequest.FromString(value)
        _partition(request.question)
        _vector(request.question)
    except (DecodeError, MeshError):
        return None
    return request


def _partition(question: cache_pb2.SemanticQuestion) -> Key:
    key = question.partition
    if not key.tenant or len(key.digest) != 32:
        message = "A question's partition needs a tenant and a digest of 32 bytes."
        raise MeshError(Reason.MALFORMED_REQUEST, message, field="question.partition")
    return Key(key.tenant, key.digest)


def _vector(question: cache_pb2.SemanticQuestion) -> Vector:
    vector = vector_of(question.vector)
    if vector is None:
        message = "A question's vector must be 32-bit floats, not all of them 0."
        raise MeshError(Reason.MALFORMED_REQUEST, message, field="question.vector")
    return vector


def _verdicts_key(tenant: str, class_: str) -> Key:
    return Key(tenant, hashlib.sha256(VERDICTS + class_.encode()).digest())
