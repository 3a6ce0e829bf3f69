"""The flights of this router: those that it leads, those of other routers that it follows, and the calls between.

Requests that ask the same at the same time share one upstream call: in this router by `Flight`, over all routers by the
cache, where every key has a home. Without the cache each router still makes one call for all who ask it the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextvars import Context
from os import urandom
from typing import TYPE_CHECKING, Final

import grpc
from modelmuxer.cache.v1.cache_pb2 import (
    CacheKey,
    FillFailure,
    FillLeft,
    FillOpen,
    FillRequest,
    FlightOffer,
    FollowRequest,
    FollowResponse,
    LookupResponse,
    WatchFlightsRequest,
)

from services.router.call import DEFAULT_TIMEOUT_S
from services.router.flight import Flight, lost
from services.router.response_cache import ResponseCache, home
from shared import deadline
from shared.errors import MeshError, Reason
from shared.interceptors import unforeseen
from shared.transcript import coalesce, replay

if TYPE_CHECKING:
    from modelmuxer.cache.v1.cache_pb2_grpc import CacheServiceAsyncStub

BEAT_S: Final = 1.0  # how often a leader whom others follow says that it is alive
# The cache says it four times a second. Before the first token a follower can go another way; after it, it cannot.
# Counted, not timed: that our own loop is late is no silence of the cache.
TICK_S: Final = 0.25
_TICKS: Final = 4
_TICKS_IN_ANSWER: Final = 20
LONGEST_S: Final = DEFAULT_TIMEOUT_S + 60.0

log = logging.getLogger("modelmuxer.router")

Work = Callable[[Flight], Awaitable[None]]


class Flights:
    """Finds, leads and follows flights. `wait_s` is how long a follower waits for the first token of another's call."""

    def __init__(self, stub: CacheServiceAsyncStub, cache: ResponseCache, *, wait_s: float) -> None:
        self._stub = stub
        self._cache = cache
        self._wait_s = wait_s
        self._router = urandom(8).hex()
        self._flights: dict[tuple[str, bytes], Flight] = {}
        self._led: dict[bytes, Flight] = {}
        self._offered: dict[bytes, bool] = {}
        self._watched: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def offer(self) -> FlightOffer:
        """A flight that this router would lead. `settle` has to follow."""
        offer = FlightOffer(flight=urandom(16), router=self._router)
        self._offered[offer.flight] = False
        return offer

    @staticmethod
    def offer_alone() -> FlightOffer:
        """A flight that nobody joins: the cache is only told when its answer began."""
        return FlightOffer(flight=urandom(16))

    def settle(self, offer: FlightOffer, flight: Flight | None) -> None:
        """Says what became of an offer. It may have got followers before its own router knew that it leads."""
        followed = self._offered.pop(offer.flight)
        if flight is not None and flight.id == offer.flight:
            self._led[flight.id] = flight
            if followed:
                self._carry(flight)

    def find(self, key: CacheKey) -> Flight | None:
        """The flight here that makes a key's answer, if there is one."""
        return self._flights.get((key.tenant, key.digest))

    def begin(self, key: CacheKey, *, conditional: bool = False) -> Flight:
        """A flight of which the cache is still to be asked; whoever asks the same here may join it."""
        flight = Flight(key, conditional=conditional)
        self._flights.setdefault((key.tenant, key.digest), flight)
        return flight

    def land(self, flight: Flight, kept: LookupResponse) -> None:
        """The cache has an answer."""
        self._forget(flight)
        flight.decide(kept)

    def abandon(self, flight: Flight) -> None:
        """Nobody asks the cache any more; those who have joined begin again."""
        self._forget(flight)
        flight.fail(lost())

    def lead(self, flight: Flight, opening: FillOpen, work: Work) -> None:
        """Has `work` make the answer: it adds events, or lands the answer, or raises.

        It runs on its own, so that those who have joined get the answer though the first leaves.
        """
        flight.id, flight.opening = opening.flight, opening
        flight.task = self._start(self._lead(flight, opening, work), "flight")
        flight.decide()

    def follow(self, flight: Flight, flight_id: bytes) -> None:
        """Has the answer come from another router's flight."""
        flight.id = flight_id
        flight.task = self._start(self._follow(flight), "followed flight")
        flight.decide()

    def watch(self, key: CacheKey, replica: str) -> None:
        """Keeps a watch at the key's home, which calls itself `replica`, to be told of followers."""
        if replica not in self._watched:
            self._watched.add(replica)
            self._start(self._watch(key, replica), "watch on flights", Context())

    async def drain(self, grace_s: float) -> None:
        """Waits for the flights that only other routers wait for."""
        if tasks := [flight.task for flight in self._led.values() if flight.followed and flight.task is not None]:
            await asyncio.wait(tasks, timeout=grace_s)

    async def close(self) -> None:
        """Ends all flights."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- leading ---

    async def _lead(self, flight: Flight, opening: FillOpen, work: Work) -> None:
        deadline.set_remaining(None)  # it may have to outlast its leader
        try:
            await work(flight)
            if not flight.ended:
                flight.land()
        except asyncio.CancelledError:
            flight.fail(lost())
        except MeshError as error:
            flight.fail(error)
        except Exception as error:
            flight.fail(unforeseen("a flight", error))
        finally:
            self._forget(flight)
            if not flight.followed:  # else the call that carries it ends with what there is
                self._fill(flight, opening)

    def _fill(self, flight: Flight, opening: FillOpen) -> None:
        if flight.answer is not None and flight.storable:
            opening.answer.CopyFrom(flight.answer)
        if opening.flight or opening.HasField("answer"):  # without an answer, the flight is withdrawn
            self._cache.fill_later(opening)

    async def _watch(self, key: CacheKey, replica: str) -> None:
        """Carries flights as they get followers, until the watch is lost. A look-up says when one is wanted again."""
        watch = self._stub.WatchFlights(WatchFlightsRequest(router=self._router), metadata=home(key))
        try:
            async for news in watch:
                if news.replica:  # another one than wanted, if the key's home has moved meanwhile
                    self._watched.discard(replica)
                    self._watched.add(replica := news.replica)
                elif news.flight in self._offered:
                    self._offered[news.flight] = True
                elif (flight := self._led.get(news.flight)) is not None:
                    self._carry(flight)
                else:  # it has ended, and that was not heard
                    self._cache.fill_later(FillOpen(key=news.key, flight=news.flight))
        except grpc.aio.AioRpcError as error:
            log.info("the watch on flights was lost: %s", error.code().name)
        finally:
            self._watched.discard(replica)
            watch.cancel()

    def _carry(self, flight: Flight) -> None:
        if not flight.followed and flight.opening is not None:
            flight.followed = True
            self._start(self._carried(flight, flight.opening), "flight to followers", Context())

    async def _carried(self, flight: Flight, opening: FillOpen) -> None:
        """Sends the flight to the cache for as long as it is followed."""
        try:
            await self._stub.Fill(_parts(flight, opening), timeout=LONGEST_S, metadata=home(flight.key))
        except grpc.aio.AioRpcError as error:
            log.info("a flight is not carried any further: %s", error.code().name)
        finally:
            flight.followed = False
            if not flight.needed and not flight.ended and flight.task is not None:
                flight.task.cancel()

    # --- following ---

    async def _follow(self, flight: Flight) -> None:
        deadline.set_remaining(None)  # the first follower's is not that of those who join it
        request = FollowRequest(key=flight.key, flight=flight.id)
        call = self._stub.Follow(request, timeout=LONGEST_S, metadata=home(flight.key))
        silence = _Silence(flight, call.cancel)
        try:
            await self._read(call, flight, silence)
        except grpc.aio.AioRpcError as error:
            flight.fail(MeshError.from_rpc(error, Reason.CACHE_UNAVAILABLE))
        except asyncio.CancelledError:
            pass
        except Exception:
            log.exception("a flight could not be followed")
        finally:
            silence.end()
            call.cancel()
            self._forget(flight)
            flight.fail(lost())

    async def _read(
        self, call: grpc.aio.UnaryStreamCall[FollowRequest, FollowResponse], flight: Flight, silence: _Silence
    ) -> None:
        gives_up_s = time.monotonic() + self._wait_s
        async for piece in call:
            silence.broken()
            if piece.HasField("answer"):
                flight.land(piece.answer)
                return
            if piece.HasField("event"):
                flight.add(piece.event)
                if piece.event.HasField("completed"):
                    flight.land()
                    return
            if not flight.events and time.monotonic() > gives_up_s:
                return

    # --- both ---

    def _forget(self, flight: Flight) -> None:
        place = (flight.key.tenant, flight.key.digest)
        if self._flights.get(place) is flight:
            del self._flights[place]
        if self._led.get(flight.id) is flight:
            del self._led[flight.id]

    def _start(
        self, work: Coroutine[None, None, None], name: str, context: Context | None = None
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Silence:
    """Cancels a call that brings nothing for too long."""

    def __init__(self, flight: Flight, cancel: Callable[[], object]) -> None:
        self._flight = flight
        self._cancel = cancel
        self._ticks = 0
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def broken(self) -> None:
        """Something came."""
        self._ticks = 0

    def end(self) -> None:
        """Stops looking."""
        self._timer.cancel()

    def _tick(self) -> None:
        self._ticks += 1
        if self._ticks > (_TICKS_IN_ANSWER if self._flight.events else _TICKS):
            self._cancel()
        else:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)


async def _parts(flight: Flight, opening: FillOpen) -> AsyncIterator[FillRequest]:
    """A flight, for its followers: what there is in as few pieces as it takes, then each event as it comes."""
    yield FillRequest(open=opening)
    seen, left = 0, False
    while flight.followed:
        news = flight.events[seen:]
        seen += len(news)
        for event in coalesce(news) if len(news) > 1 else news:
            yield FillRequest(event=event)
        if seen < len(flight.events):
            continue
        if flight.ended:
            break
        if not flight.needed and not left:
            left = True
            yield FillRequest(left=FillLeft())
            continue
        try:
            async with asyncio.timeout(BEAT_S):
                await flight.news.wait()
        except TimeoutError:
            yield FillRequest()
    if flight.error is not None:
        yield FillRequest(failure=FillFailure(status=flight.error.to_status().SerializeToString()))
    elif flight.answer is not None and flight.storable:
        yield FillRequest(answer=flight.answer)
    elif flight.answer is not None and not flight.events:
        for event in replay(flight.answer):
            yield FillRequest(event=event)
