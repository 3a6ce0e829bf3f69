"""Accounts: what one ceiling has for one subject in one period, and the leases of it that routers hold. Pure.

One account is one row or document of a store, and each function here is one step on it. Routers report totals that only
grow, with a sequence number: what comes twice, or late, changes nothing. What may be granted is
limit - closed - sum of what is granted, so that spent + held can never exceed the limit, whatever becomes of a router.

A lease that expires stays in doubt until the longest call has ended. Then it closes at what the ledger's entries with
its id say.

Of a rate nothing is ever used up: a call holds its place until it leaves the window, and a place goes back when it is
free. A router that died takes its places with it until the last call that it may have let pass has left the window.

Thresholds that an account reaches stand in it until somebody was told of them: the account is their outbox.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from modelmuxer.accounting.v1.accounting_pb2 import (
    CEILING_UNIT_NANOS,
    CEILING_UNIT_REQUESTS,
    CEILING_UNIT_TOKENS,
    CeilingUnit,
    Standing,
)

from shared.periods import UNLENT

NANOS_PER_S = 1_000_000_000
FOLD_AFTER_NS = 2 * 3600 * NANOS_PER_S
"""How long the end of a lease is remembered, against reports that come late. What the ledger learns of it later reaches
the account by `recount_folded`."""
WINDOWED = frozenset({CEILING_UNIT_REQUESTS, CEILING_UNIT_TOKENS})
WINDOW_NS = 61 * NANOS_PER_S  # the routers' window, and what they add to it


class LeaseLost(Exception):
    """The lease is closed, or never was: its holder may use nothing of it any more."""


class ForeignRun(Exception):
    """The run was opened by another key."""


class Closing(StrEnum):
    """How a lease ended."""

    OPEN = ""
    RETURNED = "returned"
    LEDGER = "ledger"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A router's part of an account. Amounts are totals over the lease's life, in the account's unit."""

    holder: str
    expires_ns: int
    granted: int = 0
    used: int = 0
    held: int = 0
    sequence: int = 0
    closing: Closing = Closing.OPEN
    closed_ns: int = 0
    frees_ns: int = 0
    """When the first of what is held leaves a rate's window; 0 if nothing is held there."""

    @property
    def committed(self) -> int:
        """What nobody else may be granted."""
        return self.used if self.closing else max(self.granted, self.used + self.held)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A threshold was reached, and nobody was told of it yet."""

    percent: int
    spent: int
    limit: int
    time_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A ceiling's account. Times are nanoseconds since 1970; `ends_ns` 0 is never."""

    id: str
    ceiling: str
    tenant: str
    subject: str
    unit: CeilingUnit
    starts_ns: int
    ends_ns: int
    forget_ns: int
    """When it is of no use any more; 0 is never."""
    owner: str = ""
    """The key that opened the run; empty for what is no run."""
    closed: int = 0
    """Used by leases that are forgotten."""
    notified_percent: int = 0
    """The greatest threshold of which an event was raised."""
    notified_limit: int = 0
    """The limit that it is a share of."""
    events: Mapping[str, Event] = field(default_factory=dict)
    """Those that are still to be told, by their ids."""
    leases: Mapping[str, Lease] = field(default_factory=dict)

    @property
    def spent(self) -> int:
        return self.closed + sum(lease.used for lease in self.leases.values())

    @property
    def held(self) -> int:
        return sum(lease.held for lease in self.leases.values() if not lease.closing)

    @property
    def committed(self) -> int:
        return self.closed + sum(lease.committed for lease in self.leases.values())

    def standing(self, limit: int) -> Standing:
        """How it stands, for people."""
        standing = Standing(limit=limit, spent=self.spent, held=self.held)
        standing.leased = self.committed - standing.spent - standing.held
        if self.starts_ns:
            standing.start_time.FromNanoseconds(self.starts_ns)
        if ends_ns := self.ends_ns or self.frees_ns:
            standing.end_time.FromNanoseconds(ends_ns)
        return standing

    @property
    def frees_ns(self) -> int:
        """When the first of what is held leaves a rate's window; 0 if that is not known."""
        return min((each.frees_ns for each in self.leases.values() if each.frees_ns and not each.closing), default=0)

    def to_document(self) -> dict[str, Any]:
        """As plain values, for a store. Ids of leases hold neither dots nor dollars."""
        document = _plain(self)
        document["events"] = {id_: _plain(event) for id_, event in self.events.items()}
        document["leases"] = {id_: _plain(lease) for id_, lease in self.leases.items()}
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Account:
        """The account of a document; members that it does not know are passed over."""
        values = {name: document[name] for name in cls.__slots__ if name in document}
        leases = {
            id_: Lease(**{**lease, "closing": Closing(lease["closing"])}) for id_, lease in values["leases"].items()
        }
        events = {id_: Event(**event) for id_, event in values.get("events", {}).items()}
        return cls(**{**values, "leases": leases, "events": events})


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a router says of a lease, and asks for."""

    lease_id: str
    holder: str = ""
    """Who asks for a new lease; empty for one that stands."""
    sequence: int = 0
    used: int = 0
    held: int = 0
    keep: int = 0
    need: int = 0
    want: int = 0
    frees_ns: int = 0
    """In how long the first of what is held leaves its window; 0 if nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On what terms an account lends."""

    limit: int
    enforced: bool
    """Whether the limit holds; else it is only counted."""
    ttl_ns: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a report."""

    account: Account
    lease: Lease
    granted: int = 0
    """How much was added."""
    exhausted: bool = False
    """What is needed will not fit, whatever calls under way come to."""
    superseded: bool = False
    """A later report of the same lease came first."""


def open_run(account: Account, key_id: str) -> Account:
    """The account, bound to the key that opens its run. Raises ForeignRun."""
    if account.owner and account.owner != key_id:
        raise ForeignRun
    return replace(account, owner=key_id)


def report(account: Account, said: Report, terms: Terms, now_ns: int) -> Verdict:
    """Takes what a router says of a lease, and grants what there is. Raises LeaseLost."""
    lease = account.leases.get(said.lease_id)
    if lease is None and said.holder:
        lease = Lease(holder=said.holder, expires_ns=0, sequence=-1)
    if lease is None or lease.closing:
        raise LeaseLost
    if said.sequence < lease.sequence:
        return Verdict(account, lease, superseded=True)
    used = max(lease.used, said.used)
    # The same report again asks again, and takes back nothing of what its first answer may have granted.
    keep = lease.granted if said.sequence == lease.sequence else min(said.keep, lease.granted)
    lease = replace(
        lease,
        used=used,
        held=said.held,
        granted=max(keep, used + said.held),
        sequence=said.sequence,
        expires_ns=now_ns + terms.ttl_ns,
        frees_ns=now_ns + said.frees_ns if said.frees_ns else 0,
    )
    account = _with(account, said.lease_id, lease)
    granted = _grant(account, said, terms)
    if granted:
        lease = replace(lease, granted=lease.granted + granted)
        account = _with(account, said.lease_id, lease)
    exhausted = terms.enforced and granted < said.need and terms.limit - _certain(account) < said.need
    return Verdict(account, lease, granted, exhausted)


def give_back(account: Account, lease_id: str, sequence: int, used: int, now_ns: int) -> Account:
    """Closes a lease on which nothing is held. What is closed already stays as it is."""
    lease = account.leases.get(lease_id)
    if lease is None or lease.closing or sequence < lease.sequence:
        return account
    used = max(lease.used, used)
    closed = replace(lease, used=used, held=0, granted=used, closing=Closing.RETURNED, closed_ns=now_ns)
    return _with(account, lease_id, closed)


def in_doubt(account: Account, now_ns: int, longest_call_ns: int) -> list[str]:
    """Leases that were not returned, and on which nothing can be held any more."""
    holds_ns = WINDOW_NS if account.unit in WINDOWED else longest_call_ns
    return [
        lease_id
        for lease_id, lease in account.leases.items()
        if not lease.closing and lease.expires_ns + holds_ns < now_ns
    ]


def recountable(account: Account, now_ns: int, longest_call_ns: int) -> list[str]:
    """Leases that ended so long ago that the ledger knows best what was used of them."""
    if account.unit != CEILING_UNIT_NANOS:
        return []
    return [
        lease_id
        for lease_id, lease in account.leases.items()
        if lease.closing == Closing.LEDGER or (lease.closing and lease.closed_ns + longest_call_ns < now_ns)
    ]


def unsettled(account: Account, now_ns: int, longest_call_ns: int, counted_ns: int) -> list[str]:
    """Of those that are recountable, all of which the ledger may have learnt something since they were counted then.
    The last call on a lease ends no later than the longest call after it has closed, and within as long again the
    ledger is told of it, give or take the clocks; what it is told later has to be counted when it is told."""
    return [
        lease_id
        for lease_id in recountable(account, now_ns, longest_call_ns)
        if account.leases[lease_id].closed_ns + 3 * longest_call_ns >= counted_ns
    ]


def is_late(told_ns: int, now_ns: int, longest_call_ns: int) -> bool:
    """Whether what the ledger is told now of then may concern leases that are `unsettled` no more."""
    return told_ns + longest_call_ns < now_ns


def close_by_ledger(account: Account, lease_id: str, spent: int, now_ns: int, longest_call_ns: int) -> Account:
    """Closes a lease in doubt at what the ledger says was spent on it. Nothing if it is not, or not any more."""
    if lease_id not in in_doubt(account, now_ns, longest_call_ns):
        return account
    lease = account.leases[lease_id]
    # Entries may still be on their way. Of rates nothing is used up.
    used = max(spent, lease.used) if account.unit == CEILING_UNIT_NANOS else 0
    closed = replace(lease, used=used, held=0, granted=used, closing=Closing.LEDGER, closed_ns=now_ns)
    return _with(account, lease_id, closed)


def recount(account: Account, lease_id: str, spent: int, now_ns: int, longest_call_ns: int) -> Account:
    """Sets what was used of a closed lease to what the ledger says: entries may have come after it was closed."""
    lease = account.leases.get(lease_id)
    if lease is None or not lease.closing:
        return account
    settled = lease.closed_ns + longest_call_ns < now_ns
    used = spent if settled else max(spent, lease.used)
    return _with(account, lease_id, replace(lease, used=used, granted=used))


def fold(account: Account, now_ns: int) -> Account:
    """Forgets leases that ended long ago, and keeps what was used of them."""
    after_ns = FOLD_AFTER_NS if account.unit == CEILING_UNIT_NANOS else WINDOW_NS
    old = [
        lease_id
        for lease_id, lease in account.leases.items()
        if lease.closing and lease.closed_ns + after_ns < now_ns and lease_id != UNLENT
    ]
    if not old:
        return account
    closed = account.closed + sum(account.leases[lease_id].used for lease_id in old)
    kept = {lease_id: lease for lease_id, lease in account.leases.items() if lease_id not in old}
    return replace(account, closed=closed, leases=kept)


def recount_folded(account: Account, remembered: Sequence[str], spent: int) -> Account:
    """Sets what leases that are forgotten have used to what the ledger says was spent on all but the remembered leases.
    Nothing if others are remembered by now."""
    return replace(account, closed=spent) if sorted(remembered) == sorted(account.leases) else account


def with_unlent(account: Account) -> Account:
    """The account with a lease, closed for ever, on which stands what was spent without any. Until it is counted it has
    used nothing."""
    if UNLENT in account.leases or account.unit != CEILING_UNIT_NANOS:
        return account
    return _with(account, UNLENT, Lease(holder="", expires_ns=0, closing=Closing.LEDGER))


def crossed(
    account: Account, limit: int, thresholds: tuple[int, ...], now_ns: int, *, keep: bool
) -> tuple[Account, list[Event]]:
    """Thresholds, in percent of the limit, that were reached since the account was asked last; kept until they are
    told, if they are to be. Under another limit those that are not reached any more may be reached again."""
    percent = account.spent * 100 // limit if limit > 0 else 100
    if account.notified_percent and account.notified_limit not in (0, limit):
        account = replace(account, notified_percent=min(account.notified_percent, percent), notified_limit=limit)
    reached = [
        Event(percent=each, spent=account.spent, limit=limit, time_ns=now_ns)
        for each in sorted(thresholds)
        if account.notified_percent < each <= percent
    ]
    if not reached:
        return account, []
    kept = {f"{event.percent}-{now_ns}": event for event in reached} if keep else {}
    events = {**account.events, **kept}
    percent = reached[-1].percent
    return replace(account, notified_percent=percent, notified_limit=limit, events=events), reached


def told(account: Account, event_id: str) -> Account:
    """The account once somebody was told of an event."""
    if event_id not in account.events:
        return account
    return replace(account, events={id_: event for id_, event in account.events.items() if id_ != event_id})


def _grant(account: Account, said: Report, terms: Terms) -> int:
    """How much to add to a lease: what it needs, and beyond that only a share, so that others find something too and
    leases shrink as the end comes near."""
    want = max(said.want, said.need)
    if not terms.enforced:
        return want
    available = terms.limit - account.committed
    if available < said.need or available <= 0:
        return 0
    others = sum(1 for lease in account.leases.values() if not lease.closing) - 1
    return max(said.need, min(want, available // (2 * (others + 1))))


def _certain(account: Account) -> int:
    """What will stay used, however little the calls under way cost."""
    return account.spent


def _with(account: Account, lease_id: str, lease: Lease) -> Account:
    return replace(account, leases={**account.leases, lease_id: lease})


def _plain(of: Account | Event | Lease) -> dict[str, Any]:
    """Its members as they are: nothing in them can be changed, so nothing has to be copied."""
    return {name: getattr(of, name) for name in of.__slots__}
