"""The CacheService servicer: folds what routers fill, hands out what they look up, and lets them follow one another.

A stored answer is parsed on look-up so that gRPC can write it: 7 µs for one of 2.5 kB, of a call that takes hundreds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from modelmuxer.cache.v1 import cache_pb2, cache_pb2_grpc
from modelmuxer.cache.v1.cache_pb2 import FillOpen, FillRequest, FillResponse, FollowResponse, LookupResponse
from modelmuxer.chat.v1.chat_pb2 import ChatResponse, FinishReason

from services.cache.flights import BEAT_S, Flight, Flights, lost
from services.cache.semantic.memory import Memory
from services.cache.stores import About, Found, Key, Mark, Selection, Store, StoreError
from services.cache.tally import Tally
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
_REFUSED = "the model refused, and refusals are not kept"
_TOO_LARGE = "the answer is too large for the store, or was invalidated while it was made"
_NO_TIME = "the answer may not be kept for any time"
_DESERTED = "nobody waits for the answer"
_UNKNOWN = "the flight is not known here"
_UNMARKED = "the store did not tell the moment when the answer began"
_NO_ANSWER = "the flight ended without an answer to keep"


class CacheService(cache_pb2_grpc.CacheServiceServicer):
    """Serves CacheService over a store."""

    def __init__(self, store: Store, flights: Flights, memory: Memory, *, ttl_s: float, shared: bool = False) -> None:
        """`shared` says that other replicas keep their answers in the same store."""
        self._store = store
        self._flights = flights
        self._memory = memory
        self._ttl_s = ttl_s
        self._shared = shared
        self._tally = Tally()

    async def Lookup(self, request: cache_pb2.LookupRequest, context: Context) -> LookupResponse:
        """Looks an answer up; opens a flight if there is none and the caller offers one."""
        key, offer = _key(request.key), request.offer
        flight = self._flights.find(key) if offer.router else None
        if flight is not None and not flight.conditional:
            return self._follow(flight, LookupResponse())
        began_s = self._flights.now()
        found = await self._store.get(key)
        if found is None and self._flights.landed_since(key, began_s):
            found = await self._store.get(key)
        response = LookupResponse()
        stale = False
        if found is not None and request.HasField("max_age"):
            over_s = found.age_s - _seconds(request.max_age)
            stale = 0 < over_s <= _seconds(request.stale)
            if over_s > 0 and not stale:
                return await self._board(key, request, response, conditional=True)
        if found is None:
            return await self._board(key, request, response, conditional=False)
        self._answer(key, found, response)
        if stale:
            metrics.CACHE_LOOKUPS.labels("stale").inc()
            return await self._board(key, request, response, conditional=True)
        metrics.CACHE_LOOKUPS.labels("hit").inc()
        return response

    async def Fill(self, request_iterator: AsyncIterator[FillRequest], context: Context) -> FillResponse:
        """Stores an answer, if it comes whole, and shows it to those who follow its flight."""
        parts = aiter(request_iterator)
        opening = await anext(parts, None)
        if opening is None or not opening.HasField("open"):
            raise MeshError(Reason.MALFORMED_REQUEST, "The first message of Fill must be open.", field="open")
        opened = opening.open
        key = _key(opened.key)
        flight = self._flights.fill(key, opened.flight) if opened.flight else None
        if flight is None:
            if opened.flight:  # what was invalidated since it began cannot be told any more
                return FillResponse(reason=_UNKNOWN)
            answer = opened.answer if opened.HasField("answer") else await self._gather(parts)
            return await self._keep(opened, key, answer, None)
        try:
            answer = opened.answer if opened.HasField("answer") else await self._carry(flight, parts)
            if answer is None:
                return FillResponse(reason=_DESERTED if flight.deserted.is_set() else _NO_ANSWER)
            if flight.mark is None:
                kept = FillResponse(reason=_UNMARKED)
            else:
                kept = await self._keep(opened, key, answer, flight.mark)
            if kept.stored:
                self._flights.land(flight)
            if not flight.ended:
                flight.add(FollowResponse(answer=answer))
            return kept
        finally:
            self._flights.close(flight, lost())

    async def Follow(self, request: cache_pb2.FollowRequest, context: Context) -> AsyncIterator[FollowResponse]:
        """Shows a flight from its beginning."""
        flight = self._flights.join(_key(request.key), request.flight)
        try:
            seen = signs = beats = 0
            while True:
                while seen < len(flight.pieces):
                    yield flight.pieces[seen]
                    seen += 1
                if flight.ended:
                    break
                try:
                    async with asyncio.timeout(BEAT_S):
                        await flight.news.wait()
                except TimeoutError:
                    beats = beats + 1 if flight.signs == signs else 0
                    signs = flight.signs
                    self._flights.check(flight, beats)
                    if not flight.ended:
                        yield FollowResponse()  # the follower hears that the cache lives
        finally:
            self._flights.leave(flight)
        if flight.failure is not None:
            raise MeshError.from_status(flight.failure.to_status())  # each follower its own, with its own traceback

    async def WatchFlights(
        self, request: cache_pb2.WatchFlightsRequest, context: Context
    ) -> AsyncIterator[cache_pb2.WatchFlightsResponse]:
        """Names a router's flights as they get followers."""
        if not request.router:
            raise MeshError(Reason.MALFORMED_REQUEST, "A watch wants the router's name.", field="router")
        watch = self._flights.watch(request.router)
        try:
            yield cache_pb2.WatchFlightsResponse(replica=self._flights.name)
            while (flight := await watch.get()) is not None:
                key = cache_pb2.CacheKey(tenant=flight.key.tenant, digest=flight.key.digest)
                yield cache_pb2.WatchFlightsResponse(flight=flight.id, key=key)
        finally:
            self._flights.unwatch(request.router, watch)

    async def Invalidate(self, request: cache_pb2.InvalidateRequest, context: Context) -> cache_pb2.InvalidateResponse:
        """Makes answers misses."""
        selection = Selection(
            tenant=request.tenant, alias=request.alias, model=request.model, tag=request.tag, prefix=request.prefix
        )
        if selection == Selection() and not request.all:
            raise MeshError(Reason.MALFORMED_REQUEST, "Say which answers are meant, or all.", field="all")
        try:
            await self._store.invalidate(selection)
        except StoreError as error:
            raise MeshError(Reason.CACHE_UNAVAILABLE, f"Nothing is sure to be invalidated: {error}") from None
        self._flights.ground(request.tenant)
        return cache_pb2.InvalidateResponse()

    async def GetStats(self, request: cache_pb2.GetStatsRequest, context: Context) -> cache_pb2.GetStatsResponse:
        """Tells what is kept, and what was asked."""
        try:
            stats = await self._store.stats()
        except StoreError as error:
            raise MeshError(Reason.CACHE_UNAVAILABLE, f"The store does not tell: {error}") from None
        return cache_pb2.GetStatsResponse(
            entries=stats.entries,
            size_bytes=stats.size_bytes,
            max_bytes=stats.max_bytes,
            evicted=stats.evicted,
            flights=len(self._flights),
            shared=self._shared,
            tenants=self._tally,
        )

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

    # --- look-ups ---

    def _answer(self, key: Key, found: Found, response: LookupResponse) -> None:
        response.answer.MergeFromString(found.value)
        response.age.FromNanoseconds(round(found.age_s * 1e9))
        tally = self._tally.of(key.tenant)
        tally.hits += 1
        tally.saved_nanos += response.answer.completed.cost.nanos

    async def _board(
        self, key: Key, request: cache_pb2.LookupRequest, response: LookupResponse, *, conditional: bool
    ) -> LookupResponse:
        offer = request.offer
        flight = None
        if offer.flight:
            flight = self._flights.board(key, offer.flight, offer.router, conditional=conditional)
        if flight is not None and flight.id != offer.flight:
            return self._follow(flight, response)
        takes_any = not request.HasField("max_age") or request.max_age.ToNanoseconds() > 0
        if takes_any and not response.HasField("answer"):
            metrics.CACHE_LOOKUPS.labels("miss").inc()
            self._tally.of(key.tenant).misses += 1
        if flight is not None:
            response.flight = flight.id
            if offer.router and not self._flights.watched(offer.router):
                response.watch_wanted = self._flights.name
            flight.mark = await self._store.mark(key.tenant)
        return response

    def _follow(self, flight: Flight, response: LookupResponse) -> LookupResponse:
        response.flight = flight.id
        if not response.HasField("answer"):
            metrics.CACHE_LOOKUPS.labels("flight").inc()
            self._tally.of(flight.key.tenant).follows += 1
        return response

    # --- fills ---

    async def _keep(self, opened: FillOpen, key: Key, answer: ChatResponse | None, since: Mark | None) -> FillResponse:
        ttl_s = self._ttl_of(opened)
        if ttl_s <= 0:
            return FillResponse(reason=_NO_TIME)
        if answer is None:
            return FillResponse(reason=_TOO_LARGE)
        if not answer.HasField("completed"):
            return FillResponse(reason=_NO_END)
        if answer.completed.finish_reason == FinishReason.FINISH_REASON_REFUSAL:
            if not opened.HasField("refusal_ttl"):
                return FillResponse(reason=_REFUSED)
            ttl_s = min(ttl_s, _seconds(opened.refusal_ttl))
        elif answer.completed.finish_reason not in _WHOLE:
            return FillResponse(reason=_CUT)
        about = About(
            alias=opened.alias,
            model=answer.started.model,
            tags=tuple(opened.tags),
            cost_nanos=answer.completed.cost.nanos,
        )
        stored = await self._store.put(key, answer.SerializeToString(), ttl_s, about, since=since)
        return FillResponse(stored=stored, reason="" if stored else _TOO_LARGE)

    async def _carry(self, flight: Flight, parts: AsyncIterator[FillRequest]) -> ChatResponse | None:
        """Shows the followers what comes. The answer that is to be kept, if one comes."""
        async with aclosing(_while_wanted(flight, parts, self._flights.leader_left)) as wanted:
            async for part in wanted:
                flight.signs += 1
                match part.WhichOneof("part"):
                    case "answer":
                        return part.answer
                    case "failure":
                        flight.end(_failure(part.failure.status))
                        return None
                    case "event" if not flight.ended:
                        flight.add(FollowResponse(event=part.event))
                        if flight.size_bytes > self._store.largest_bytes:
                            return None
        return None

    async def _gather(self, parts: AsyncIterator[FillRequest]) -> ChatResponse | None:
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

    def _ttl_of(self, opening: FillOpen) -> float:
        return min(self._ttl_s, _seconds(opening.ttl)) if opening.HasField("ttl") else self._ttl_s


async def _while_wanted(
    flight: Flight, parts: AsyncIterator[FillRequest], leader_left: Callable[[Flight], None]
) -> AsyncGenerator[FillRequest, None]:
    """The parts, until there are no more; once the leader has left, until nobody follows."""
    async for part in parts:
        if part.HasField("left"):
            leader_left(flight)
            break
        yield part
    else:
        return
    deserted = asyncio.ensure_future(flight.deserted.wait())
    try:
        while True:
            reading: asyncio.Future[FillRequest | None] = asyncio.ensure_future(anext(parts, None))
            await asyncio.wait((reading, deserted), return_when=asyncio.FIRST_COMPLETED)
            if deserted.done():
                reading.cancel()
                return
            if (part_or_end := reading.result()) is None:
                return
            yield part_or_end
    finally:
        deserted.cancel()


def _failure(status: bytes) -> MeshError:
    try:
        return MeshError.from_status(Status.FromString(status))
    except DecodeError:
        raise MeshError(Reason.MALFORMED_REQUEST, "A failure wants a google.rpc.Status.", field="failure") from None


def _key(key: cache_pb2.CacheKey) -> Key:
    if not key.tenant or len(key.digest) != 32:
        raise MeshError(Reason.MALFORMED_REQUEST, "A key needs a tenant and a digest of 32 bytes.", field="key")
    return Key(key.tenant, key.digest)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
