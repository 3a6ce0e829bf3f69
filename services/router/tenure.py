"""One lease as its holder sees it: totals that only grow, and what it may still hold. Pure; time is monotonic.

A lease lasts from when it was asked for. What a rate has let pass keeps its place for a window, by the router's own
clock: a place that is free may be used again here or be given back, so that in any window no place, wherever it has
got to, is used twice.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from os import urandom

from google.protobuf.timestamp_pb2 import Timestamp
from modelmuxer.accounting.v1 import accounting_pb2 as pb

EXPIRY_MARGIN_S = 0.5  # for the way to the proxy, which refuses what comes too late
GIVE_UP_UNSETTLED_S = 630.0  # the longest call is over, and the ledger has never heard of it
SCALE_S = 1e-9


@dataclass(slots=True)
class Place:
    """What one call takes up of a rate, until it leaves the window."""

    amount: int
    leaves_s: float


@dataclass(slots=True)
class Tenure:
    """One lease."""

    id: str = field(default_factory=lambda: f"lease_{urandom(12).hex()}")
    account: str = ""
    granted: int = 0
    used: int = 0
    held: int = 0
    sequence: int = 0
    begun_s: float = 0.0
    ends_s: float = 0.0
    period_ends_s: float = float("inf")
    expire_time: Timestamp = field(default_factory=Timestamp)
    unsettled: dict[str, tuple[int, float]] = field(default_factory=dict)
    """What is held for attempts whose cost only the ledger will know, and since when."""
    window: deque[Place] = field(default_factory=deque)
    """Of a rate, what is held, in the order in which it leaves."""
    shares_until_s: float = 0.0
    """Until then half of what leaves the window is let go of, for others who starve."""
    gave_way: bool = False
    """Something was let go of in that way, of which accounting was not told yet."""

    def room(self, now_s: float) -> int:
        """How much may be held now."""
        if now_s >= self.ends_s - EXPIRY_MARGIN_S or now_s >= self.period_ends_s:
            return 0
        self.let_go(now_s)
        return self.granted - self.used - self.held

    def hold(self, amount: int) -> None:
        """Sets an amount aside."""
        self.held += amount

    def take_place(self, amount: int, now_s: float, window_s: float) -> Place:
        """Sets an amount of a rate aside, for as long as the window is."""
        self.hold(amount)
        place = Place(amount, now_s + window_s)
        self.window.append(place)
        return place

    def shrink(self, place: Place, amount: int) -> None:
        """A call took less of a rate than it might have."""
        less = min(amount, place.amount)
        if place.leaves_s and less < place.amount:
            self.settle(place.amount - less, 0)
            place.amount = less

    def let_go(self, now_s: float) -> None:
        """Frees the places whose time is over."""
        held = self.held
        while self.window and self.window[0].leaves_s <= now_s:
            place = self.window.popleft()
            place.leaves_s = 0.0
            self.settle(place.amount, 0)
        if held > self.held and now_s < self.shares_until_s:
            self.keep(self.granted - (held - self.held + 1) // 2)
            self.gave_way = True

    def settle(self, amount: int, used: int) -> None:
        """Ends a hold with what was used."""
        self.held -= amount
        self.used += used

    def learn(self, costs: dict[str, int]) -> None:
        """Settles attempts whose cost the ledger has told."""
        for attempt_id, cost in costs.items():
            if attempt_id in self.unsettled:
                self.settle(self.unsettled.pop(attempt_id)[0], cost)

    def give_up(self, now_s: float) -> None:
        """Releases what is held for attempts that never began: the ledger would have heard of them by now."""
        for attempt_id, (amount, since_s) in list(self.unsettled.items()):
            if now_s - since_s > GIVE_UP_UNSETTLED_S:
                del self.unsettled[attempt_id]
                self.settle(amount, 0)

    def take(self, lease: pb.Lease, asked_s: float) -> None:
        """Takes accounting's answer to the latest report."""
        self.begun_s = self.begun_s or asked_s
        self.account = lease.account
        self.granted = lease.granted
        self.ends_s = asked_s + lease.ttl.ToNanoseconds() * SCALE_S
        self.expire_time = lease.expire_time
        if lease.HasField("period_remaining"):
            self.period_ends_s = asked_s + lease.period_remaining.ToNanoseconds() * SCALE_S

    def keep(self, amount: int) -> int:
        """Lets go of all but so much of what was granted, at once."""
        self.granted = min(self.granted, max(amount, self.used + self.held))
        return self.granted
