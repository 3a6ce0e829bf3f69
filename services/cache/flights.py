"""Flights: answers that are being made, at most one for each key, and who follows them.

A flight is opened by a look-up that finds nothing, and costs no more than its place in a table until somebody follows.
Then its router is told, and fills what it has and what still comes. How a piece of an answer travels is the service's
affair. Times are monotonic seconds of the caller's clock.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Final

from modelmuxer.cache.v1.cache_pb2 import FollowResponse

from services.cache.stores import Key, Mark
from shared.errors import MeshError, Reason

MOST: Final = 100_000
LONGEST_S: Final = 660.0  # an upstream call's longest time, and the walk to it
# How often a follower looks in vain before it gives a leader up: one who was told of it and does not fill, or who
# fills and is silent, and ought to say something each second. Counted, not timed: a late loop is no silence.
BEAT_S: Final = 0.25
_BEATS_TO_FILL: Final = 8
_BEATS_OF_SILENCE: Final = 20
_MOST_LANDED: Final = 4_096


def lost() -> MeshError:
    """The error for those who follow what nobody leads."""
    return MeshError(Reason.FLIGHT_LOST, "The request that was followed is gone; ask again.", retry_after_s=0.0)


@dataclass(eq=False, slots=True)
class Flight:
    """One answer in the making."""

    key: Key
    id: bytes
    router: str
    conditional: bool
    """There is an answer, which was too old for the leader; others may still want it."""
    opened_s: float
    pieces: list[FollowResponse] = field(default_factory=list)
    size_bytes: int = 0
    followers: int = 0
    filled: bool = False
    """A Fill carries it; until then it lives as long as its router's watch."""
    mark: Mark | None = None
    """When it was opened, among the tenant's invalidations."""
    left: bool = False
    """Nobody waits for it at its own router."""
    signs: int = 0
    """Signs of life of its leader."""
    ended: bool = False
    failure: MeshError | None = None
    deserted: asyncio.Event = field(default_factory=asyncio.Event)
    """Nobody waits for it anywhere."""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, piece: FollowResponse) -> None:
        """Shows a piece of the answer to the followers."""
        self.pieces.append(piece)
        self.size_bytes += piece.ByteSize()
        self.ended = self.ended or piece.HasField("answer") or piece.event.HasField("completed")
        self._wake()

    def end(self, failure: MeshError | None = None) -> None:
        """Ends what followers read; the first end counts."""
        if not self.ended:
            self.ended, self.failure = True, failure
            self._wake()

    def _wake(self) -> None:
        self.news.set()
        self.news = asyncio.Event()


class Flights:
    """The flights of the keys whose home is here."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._flights: dict[bytes, Flight] = {}
        self._boarding: dict[Key, Flight] = {}
        self._landed: OrderedDict[Key, float] = OrderedDict()
        self._watches: dict[str, asyncio.Queue[Flight | None]] = {}
        self._closed = False
        self.name = token_hex(8)
        """This replica's name to routers, another one at each start."""

    def __len__(self) -> int:
        return len(self._flights)

    def now(self) -> float:
        """The clock's time."""
        return self._clock()

    def find(self, key: Key) -> Flight | None:
        """The flight that makes a key's answer, if there is one."""
        return self._boarding.get(key)

    def landed_since(self, key: Key, moment_s: float) -> bool:
        """Whether a flight of this key has brought an answer since, which a look-up begun before may have missed."""
        return self._landed.get(key, -1.0) >= moment_s

    def board(self, key: Key, flight_id: bytes, router: str, *, conditional: bool) -> Flight | None:
        """The key's flight, opened if there is none; None if no more can be.

        Without a router's name it is one that nobody follows, whatever else flies.
        """
        if router and (flight := self._boarding.get(key)) is not None:
            return flight
        now_s = self._clock()
        self._forget_overdue(now_s)
        if self._closed or len(self._flights) >= MOST or flight_id in self._flights:
            return None
        flight = self._flights[flight_id] = Flight(key, flight_id, router, conditional, now_s)
        if router:
            self._boarding[key] = flight
        return flight

    def join(self, key: Key, flight_id: bytes) -> Flight:
        """The flight, with one more follower. Raises FLIGHT_LOST."""
        flight = self._flights.get(flight_id)
        if flight is None or flight.key != key:
            raise lost()
        flight.followers += 1
        if flight.followers == 1 and not flight.filled and (watch := self._watches.get(flight.router)) is not None:
            watch.put_nowait(flight)
        return flight

    def leave(self, flight: Flight) -> None:
        """One follower less."""
        flight.followers -= 1
        if flight.followers == 0 and flight.left:
            flight.deserted.set()

    def check(self, flight: Flight, beats: int) -> None:
        """Gives a followed flight up if its leader has given no sign of life for so many beats."""
        if beats > (_BEATS_OF_SILENCE if flight.filled else _BEATS_TO_FILL):
            self.close(flight, lost())

    def fill(self, key: Key, flight_id: bytes) -> Flight | None:
        """The flight, to be filled by its leader; None if it is not known (any more)."""
        flight = self._flights.get(flight_id)
        if flight is None or flight.key != key or flight.filled:
            return None
        flight.filled = True
        flight.signs += 1
        return flight

    def leader_left(self, flight: Flight) -> None:
        """From now on the flight is made for its followers only."""
        flight.left = True
        if flight.followers == 0:
            flight.deserted.set()

    def close(self, flight: Flight, failure: MeshError | None) -> None:
        """Takes the flight from the table; the first end counts for those who follow it."""
        self._flights.pop(flight.id, None)
        if self._boarding.get(flight.key) is flight:
            del self._boarding[flight.key]
        flight.end(failure)

    def land(self, flight: Flight) -> None:
        """Takes note that the flight's answer is kept."""
        self._landed[flight.key] = self._clock()
        self._landed.move_to_end(flight.key)
        if len(self._landed) > _MOST_LANDED:
            self._landed.popitem(last=False)

    def ground(self, tenant: str) -> None:
        """Lets nobody else board a tenant's flights, or any if none is named: they began before what is asked for now.

        Those who follow them already still get their answers.
        """
        for key in [key for key in self._boarding if not tenant or key.tenant == tenant]:
            del self._boarding[key]

    def watched(self, router: str) -> bool:
        """Whether a router can be told of followers."""
        return router in self._watches

    def watch(self, router: str) -> asyncio.Queue[Flight | None]:
        """A router's watch: its flights as they get their first follower; None ends it."""
        if (former := self._watches.get(router)) is not None:
            former.put_nowait(None)
        watch = self._watches[router] = asyncio.Queue()
        for flight in self._of(router):
            if flight.followers:
                watch.put_nowait(flight)
        if self._closed:
            watch.put_nowait(None)
        return watch

    def unwatch(self, router: str, watch: asyncio.Queue[Flight | None]) -> None:
        """Ends a watch, and the flights that only it kept."""
        if self._watches.get(router) is watch:
            del self._watches[router]
            for flight in list(self._of(router)):
                self.close(flight, lost())

    async def drain(self) -> None:
        """Opens no more flights, and ends the watches. What is filled goes on."""
        self._closed = True
        for watch in self._watches.values():
            watch.put_nowait(None)

    def _of(self, router: str) -> Iterator[Flight]:
        return (flight for flight in self._flights.values() if flight.router == router and not flight.filled)

    def _forget_overdue(self, now_s: float) -> None:
        """Flights stand in the order in which they were opened."""
        while self._flights and now_s - (oldest := next(iter(self._flights.values()))).opened_s > LONGEST_S:
            self.close(oldest, lost())
