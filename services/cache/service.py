"""The CacheService servicer: folds what routers fill, hands out what they look up.

A stored answer is parsed on look-up so that gRPC can write it: 7 µs for one of 2.5 kB, of a call that takes hundreds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from google.protobuf.duration_pb2 import Duration
from modelmuxer.cache.v1 import cache_pb2, cache_pb2_grpc
from modelmuxer.chat.v1.chat_pb2 import ChatResponse, FinishReason

from services.cache.semantic.memory import Memory
from services.cache.stores import Key, Store
from shared.errors import MeshError, Reason
from shared.telemetry import metrics
from shared.transcript import Transcript

Context = grpc.aio.ServicerContext[Any, Any]

# Ends that the model chose itself; all others say that something is missing.
_WHOLE: Final = frozenset(
    {
        FinishReason.FINISH_REASON_STOP,
        FinishReason.FINISH_REASON_STOP_SEQUENCE,
        FinishReason.FINISH_REASON_TOOL_USE,
    }
)
_NO_END = "the answer did not end with completed"
_CUT = "the answer was cut short"
_TOO_LARGE = "the answer is too large for the store"
_NO_TIME = "the answer may not be kept for any time"


class CacheService(cache_pb2_grpc.CacheServiceServicer):
    """Serves CacheService over a store."""

    def __init__(self, store: Store, memory: Memory, *, ttl_s: float) -> None:
        self._store = store
        self._memory = memory
        self._ttl_s = ttl_s

    async def Lookup(self, request: cache_pb2.LookupRequest, context: Context) -> cache_pb2.LookupResponse:
        """Looks an answer up."""
        found = await self._store.get(_key(request.key))
        if found is None or (request.HasField("max_age") and found.age_s > _seconds(request.max_age)):
            metrics.CACHE_LOOKUPS.labels("miss").inc()
            return cache_pb2.LookupResponse()
        metrics.CACHE_LOOKUPS.labels("hit").inc()
        response = cache_pb2.LookupResponse()
        response.answer.MergeFromString(found.value)
        response.age.FromNanoseconds(round(found.age_s * 1e9))
        return response

    async def Fill(
        self, request_iterator: AsyncIterator[cache_pb2.FillRequest], context: Context
    ) -> cache_pb2.FillResponse:
        """Stores an answer, if it comes whole."""
        parts = aiter(request_iterator)
        opening = await anext(parts, None)
        if opening is None or not opening.HasField("open"):
            raise MeshError(Reason.MALFORMED_REQUEST, "The first message of Fill must be open.", field="open")
        key, ttl_s = _key(opening.open.key), self._ttl_of(opening.open)
        if ttl_s <= 0:
            return cache_pb2.FillResponse(reason=_NO_TIME)
        answer = opening.open.answer if opening.open.HasField("answer") else await self._gather(parts)
        if answer is None:
            return cache_pb2.FillResponse(reason=_TOO_LARGE)
        if not answer.HasField("completed"):
            return cache_pb2.FillResponse(reason=_NO_END)
        if answer.completed.finish_reason not in _WHOLE:
            return cache_pb2.FillResponse(reason=_CUT)
        stored = await self._store.put(key, answer.SerializeToString(), ttl_s)
        return cache_pb2.FillResponse(stored=stored, reason="" if stored else _TOO_LARGE)

    async def FindSimilar(
        self, request: cache_pb2.FindSimilarRequest, context: Context
    ) -> cache_pb2.FindSimilarResponse:
        """Finds a question whose answer may stand for another's."""
        return await self._memory.find(request)

    async def Remember(self, request: cache_pb2.RememberRequest, context: Context) -> cache_pb2.RememberResponse:
        """Remembers a question."""
        return await self._memory.remember(request)

    async def Judge(self, request: cache_pb2.JudgeRequest, context: Context) -> cache_pb2.JudgeResponse:
        """Takes a verdict."""
        return await self._memory.judge(request)

    async def _gather(self, parts: AsyncIterator[cache_pb2.FillRequest]) -> ChatResponse | None:
        """The answer; None as soon as its events are too large, so that no fill takes this process's memory."""
        transcript, size = Transcript(), 0
        try:
            async for part in parts:
                size += part.ByteSize()
                if size > self._store.largest_bytes:
                    return None
                transcript.add(part.event)
            return transcript.response
        except ValueError as error:
            raise MeshError(Reason.MALFORMED_REQUEST, f"Not an answer: {error}.", field="event") from None

    def _ttl_of(self, opening: cache_pb2.FillOpen) -> float:
        return min(self._ttl_s, _seconds(opening.ttl)) if opening.HasField("ttl") else self._ttl_s


def _key(key: cache_pb2.CacheKey) -> Key:
    if not key.tenant or len(key.digest) != 32:
        raise MeshError(Reason.MALFORMED_REQUEST, "A key needs a tenant and a digest of 32 bytes.", field="key")
    return Key(key.tenant, key.digest)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
