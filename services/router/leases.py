"""The router's leases: what it may use of a ceiling without asking, and the talk with accounting that keeps it so.

A Purse keeps the tenure of one account alive: it asks for more before it is empty, gives back what lies idle or is
needed elsewhere, and reports. What it gives back is gone before accounting hears of it, and what it is granted counts
from the answer on, so that the router never has more than accounting has lent.

A lease of a rate lends places in the window: each may be used again once its call has left the window (`tenure`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, time_ns
from typing import TYPE_CHECKING

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from modelmuxer.accounting.v1 import accounting_pb2 as pb
from modelmuxer.chat.v1.chat_pb2 import RateLimit

from services.router.rates import AccountKey, Claim
from services.router.tenure import SCALE_S, Place, Tenure
from shared.errors import UNREACHABLE, MeshError, Reason
from shared.periods import UNLENT, account_id, period_bounds

if TYPE_CHECKING:
    from modelmuxer.accounting.v1.accounting_pb2_grpc import AccountingServiceAsyncStub

RPC_TIMEOUT_S = 3.0
SERVER_WAIT_S = 0.3
IDLE_S = 3.0  # without a new hold for so long, a purse gives back what it does not use
FORGET_S = 10.0  # and after so long, if nothing is held, its lease
UNSETTLED_EVERY_S = 0.5
REPORT_EVERY_S = 1.0
RECENT_S = 1.0  # how far ahead a purse looks
LOW_WATER_PAUSE_S = 0.1
SHARED_S = 1.0  # how long others are favoured after they asked for what lay idle here
REFUSAL_TTL_S = 0.2
RATE_WAIT_S = 0.35  # a call under way, or a window, may last: wait only for what lies idle elsewhere
WINDOW_S = 60.0
WINDOW_MARGIN = 1 / 120  # of the window: calls reach their providers a little sooner or later than others
RENEW_LEASE_S = 600.0  # so old a lease gives way to a new one: once it has closed, the ledger's word on it holds

SILENT_S = 1.5  # far longer than accounting says that it will wait
OVERDRAWN = "Budgets and limits could not be asked, and this call was made all the same, as its policy says."

_RATE_UNITS = {pb.CEILING_UNIT_REQUESTS: "requests", pb.CEILING_UNIT_TOKENS: "tokens"}

log = logging.getLogger("modelmuxer.router")


@dataclass(slots=True)
class Refusal:
    """Why there was no room: the ceiling as accounting knew it last."""

    claim: Claim
    standing: pb.Standing
    final: bool
    """Calls under way cannot change it."""
    resets_s: float
    """In how many seconds the ceiling begins anew."""


class Purse:
    """One account's leases. `run` keeps them until they are of no use any more."""

    def __init__(
        self, claim: Claim, accounting: AccountingServiceAsyncStub, holder: str, window_s: float = WINDOW_S
    ) -> None:
        self.key: AccountKey = claim.key
        self._window_s = window_s * (1 + WINDOW_MARGIN) if claim.unit in _RATE_UNITS else 0.0
        self.standing = pb.Standing()
        self.unknown = False
        """The ceiling is not there any more."""
        self._enforced = claim.enforced
        self._accounting = accounting
        self._holder = holder
        self._tenure: Tenure | None = None
        self._asked: Tenure | None = None
        self._past: list[Tenure] = []
        self._demand: dict[object, int] = {}
        self._poke = asyncio.Event()
        self._changed = asyncio.Event()
        self._round = 0
        self._refused = (0, 0)
        self._refused_s = 0.0
        self._failed: tuple[int, MeshError | None] = (0, None)
        self._talked_s = self._past_s = 0.0
        self._told_frees_s = float("inf")
        self._lent_s = self._used_s = monotonic()
        self._asking_since_s = 0.0
        self._told = (0, 0)
        self._recent: deque[tuple[float, int]] = deque()
        self._recently = 0  # their sum
        self._wanted_back = False
        self._shared_until_s = 0.0

    # --- what a call asks ---

    @property
    def tenure(self) -> Tenure | None:
        return self._tenure

    def has_room(self, amount: int) -> bool:
        """Whether so much may be held at once."""
        if self.unknown:
            return True
        return self._tenure is not None and self._tenure.room(monotonic()) >= amount

    def left(self) -> tuple[int, float]:
        """About how much is left of the whole account, and in how many seconds it begins anew."""
        standing, tenure, now_s = self.standing, self._tenure, monotonic()
        if tenure is None:
            return max(0, standing.limit - standing.spent - standing.held), self._window_s
        tenure.let_go(now_s)
        since = tenure.used + tenure.held - sum(self._told)
        if not self._window_s:
            resets_s = tenure.period_ends_s - now_s
        else:
            resets_s = tenure.window[-1].leaves_s - now_s if tenure.window else 0.0
        return max(0, standing.limit - standing.spent - standing.held - since), max(0.0, resets_s)

    def frees_s(self) -> float:
        """In how many seconds there may be room again: at a period's end, or when the next call leaves the window."""
        now_s = monotonic()
        if not self._window_s:
            return self.left()[1]
        own = [tenure.window[0].leaves_s for tenure in self._tenures() if tenure.window]
        frees_s = min(own) - now_s if own else self._window_s
        if self.standing.HasField("end_time"):
            frees_s = min(frees_s, self._talked_s + self._told_frees_s - now_s)
        return max(0.0, frees_s)

    def hold(self, amount: int) -> tuple[Tenure, Place | None] | None:
        """Sets an amount aside, of which there is room. None if the ceiling is gone."""
        tenure = self._tenure
        if self.unknown or tenure is None:
            return None
        now_s = self._used_s = monotonic()
        place = None
        if self._window_s:
            place = tenure.take_place(amount, now_s, self._window_s)
        else:
            tenure.hold(amount)
        self._recent.append((now_s, amount))
        self._recently += amount
        if tenure.room(now_s) < self._ahead(now_s) // 2:
            self._poke.set()
        return tenure, place

    def released(self) -> None:
        """Something was settled: others may wait for it, here or elsewhere."""
        if self._demand:
            self._broadcast()
        if self._shared_until_s > monotonic():
            self._wanted_back = True
            self._poke.set()

    def is_silent(self) -> bool:
        """Whether accounting takes longer to answer than it says."""
        return bool(self._asking_since_s) and monotonic() - self._asking_since_s > SILENT_S

    def refuses(self, amount: int) -> bool:
        """Whether accounting has just said that so much will not fit."""
        _, need = self._refused
        return bool(self._refused_s) and amount >= need and monotonic() - self._refused_s < REFUSAL_TTL_S

    async def more(self, who: object, amount: int, timeout_s: float) -> bool | None:
        """Waits until something changes. True if it may be tried again, False if it will not fit, None if it is late.

        Raises what accounting answered if it could not be asked.
        """
        self._demand[who] = amount
        self._used_s = monotonic()
        round_ = self._round
        self._poke.set()
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return None
        finally:
            del self._demand[who]
        if self.has_room(amount):
            return True
        failed_round, error = self._failed
        if error is not None and failed_round > round_:
            raise error
        refused_round, need = self._refused
        return not (refused_round > round_ and amount >= need)

    def ask_back(self) -> None:
        """Somebody else needs what lies idle here."""
        self._wanted_back = True
        self._shared_until_s = monotonic() + SHARED_S
        if self._tenure is not None and self._window_s:
            self._tenure.shares_until_s = self._shared_until_s + self._window_s
        self._poke.set()

    # --- the talk with accounting ---

    async def run(self) -> None:
        """Until the lease has been idle for long."""
        while not self.unknown:
            self._poke.clear()
            self._turn_over(monotonic())
            try:
                await self._settle_past(monotonic())
                if not await self._step(monotonic()):
                    return
            except grpc.aio.AioRpcError as error:
                await self._failure(_unavailable(error))

    async def close(self) -> None:
        """Returns what is not held; what is held is left to the ledger, and of a rate to its time."""
        for tenure in self._tenures():
            tenure.let_go(monotonic())
            if not tenure.held:
                await self._return(tenure)

    def _tenures(self) -> list[Tenure]:
        return [*self._past, *([self._tenure] if self._tenure is not None else [])]

    async def _step(self, now_s: float) -> bool:
        tenure = self._tenure
        if tenure is not None and tenure.gave_way:
            await self._renew(tenure, asks=False)
            return True
        if self._demand and (tenure is None or tenure.room(now_s) < min(self._demand.values())):
            await (self._acquire() if tenure is None else self._renew(tenure, give_back=True))
            return True
        if tenure is not None and self._demand and tenure.room(now_s) > 0:
            self._broadcast()
            await asyncio.sleep(0)  # those who wait come first
            return True
        if tenure is None:
            if not self._past and now_s - self._used_s > FORGET_S:
                return False
            await self._wait(UNSETTLED_EVERY_S if self._past else FORGET_S)
            return True
        idle_s = now_s - self._used_s
        if idle_s > FORGET_S and not tenure.held and not self._demand:
            self._tenure = None
            await self._return(tenure)
            return bool(self._past)
        news = (tenure.used, tenure.held) != self._told
        if self._wanted_back or (idle_s > IDLE_S and tenure.room(now_s) > 0):
            self._wanted_back = False
            if news or tenure.room(now_s) > 0:  # others may wait in vain for what is long used
                await self._renew(tenure, give_back=True)
            return True
        due_s = self._talked_s + (tenure.ends_s - self._lent_s) / 3
        if news:
            due_s = min(due_s, self._talked_s + REPORT_EVERY_S)
        if tenure.unsettled:
            due_s = min(due_s, self._talked_s + UNSETTLED_EVERY_S)
        wanting = now_s >= self._shared_until_s and tenure.room(now_s) < self._ahead(now_s) // 2
        if wanting:
            due_s = min(due_s, self._talked_s + LOW_WATER_PAUSE_S)
        if now_s >= due_s:
            await self._renew(tenure)
        else:
            if self._past:
                due_s = min(due_s, now_s + UNSETTLED_EVERY_S)
            if now_s < tenure.shares_until_s and tenure.window:
                due_s = min(due_s, tenure.window[0].leaves_s)
            next_s = min(due_s, self._used_s + (FORGET_S if idle_s > IDLE_S else IDLE_S) + 0.01, tenure.period_ends_s)
            await self._wait(max(0.005, next_s - now_s))
        return True

    async def _settle_past(self, now_s: float) -> None:
        """Returns leases of past periods once nothing is held on them, and until then keeps them."""
        for tenure in list(self._past):
            tenure.let_go(now_s)
            if not tenure.held:
                self._past.remove(tenure)
                await self._return(tenure)
            elif now_s - self._past_s > UNSETTLED_EVERY_S:
                await self._renew(tenure, give_back=True)
        if now_s - self._past_s > UNSETTLED_EVERY_S:
            self._past_s = now_s

    def _turn_over(self, now_s: float) -> None:
        """A period's end, or an old lease's: what is held on it is settled there, and a new lease begins."""
        tenure = self._tenure
        if tenure is not None and now_s >= min(tenure.period_ends_s, tenure.begun_s + RENEW_LEASE_S):
            tenure.keep(0)
            self._past.append(tenure)
            self._tenure = None

    async def _acquire(self) -> None:
        tenure = self._asked = self._asked or Tenure()  # if an answer was lost, the same lease is asked for again
        self._round += 1
        round_, need, asked_s = self._round, min(self._demand.values()), monotonic()
        request = pb.AcquireLeaseRequest(
            lease_id=tenure.id,
            ceiling=self.key.ceiling,
            tenant=self.key.tenant,
            subject=self.key.subject,
            holder=self._holder,
            key_id=self.key.key_id,
            need=need,
            want=self._wish(asked_s),
            wait=_duration(SERVER_WAIT_S),
        )
        self._asking_since_s = asked_s
        answer = await self._accounting.AcquireLease(request, timeout=RPC_TIMEOUT_S)
        self._tenure, self._asked, self._told = tenure, None, (0, 0)
        self._took(tenure, answer.lease, asked_s, round_, need)

    async def _renew(self, tenure: Tenure, *, give_back: bool = False, asks: bool = True) -> None:
        self._round += 1
        tenure.sequence += 1
        round_, asked_s, told = self._round, monotonic(), (tenure.used, tenure.held)
        room = tenure.room(asked_s)
        asks = asks and tenure is self._tenure
        short = [amount for amount in self._demand.values() if amount > room] if asks else []
        need = min(short, default=0)
        shared = asked_s < self._shared_until_s
        request = pb.RenewLeaseRequest(
            account=tenure.account,
            lease_id=tenure.id,
            sequence=tenure.sequence,
            used=tenure.used,
            held=tenure.held,
            keep=tenure.keep(tenure.used + tenure.held) if give_back else tenure.granted,
            need=need,
            want=0
            if not asks or (give_back and not need)
            else (sum(self._demand.values()) if shared else self._wish(asked_s)),
            wait=_duration(SERVER_WAIT_S if need else 0),
            unsettled_attempt_ids=tenure.unsettled,
        )
        tenure.gave_way = False
        if tenure.window:
            request.frees.CopyFrom(_duration(max(0.0, tenure.window[0].leaves_s - asked_s)))
        sequence, self._asking_since_s = tenure.sequence, asked_s
        try:
            answer = await self._accounting.RenewLease(request, timeout=RPC_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if MeshError.from_rpc(error).reason != Reason.LEASE_LOST:
                raise
            log.warning("a lease was lost", extra={"lease": tenure.id, "account": tenure.account})
            if tenure in self._past:
                self._past.remove(tenure)
            else:
                self._tenure = None
            self._broadcast()
            return
        if sequence == tenure.sequence:
            tenure.learn(dict(answer.settled))
            tenure.give_up(asked_s)
            if tenure is self._tenure:
                self._told = told
                self._took(tenure, answer.lease, asked_s, round_, need)

    def _took(self, tenure: Tenure, lease: pb.Lease, asked_s: float, round_: int, need: int) -> None:
        tenure.take(lease, asked_s)
        self.standing = lease.standing
        self._talked_s = self._lent_s = asked_s
        self._asking_since_s = 0.0
        if lease.HasField("frees"):
            self._told_frees_s = lease.frees.ToNanoseconds() * SCALE_S
        now_s = monotonic()
        if lease.exhausted or (self._window_s and need and tenure.room(now_s) < need):
            self._refused, self._refused_s = (round_, need), now_s
        elif need:
            self._refused_s = 0.0
        self._broadcast()

    async def _return(self, tenure: Tenure) -> None:
        request = pb.ReturnLeaseRequest(
            account=tenure.account, lease_id=tenure.id, sequence=tenure.sequence + 1, used=tenure.used
        )
        with suppress(grpc.aio.AioRpcError):  # a lease that cannot be returned expires, and closes by the ledger
            await self._accounting.ReturnLease(request, timeout=RPC_TIMEOUT_S)

    async def _failure(self, error: MeshError) -> None:
        if error.reason == Reason.UNKNOWN_CEILING:
            self.unknown = True
        else:
            self._failed = (self._round, error)
        self._talked_s = monotonic()
        self._broadcast()
        if not self.unknown:
            await asyncio.sleep(0.1)

    def _ahead(self, now_s: float) -> int:
        """What the calls of the next second may hold, going by the last one's."""
        while self._recent and now_s - self._recent[0][0] > RECENT_S:
            self._recently -= self._recent.popleft()[1]
        return self._recently

    def _wish(self, now_s: float) -> int:
        return sum(self._demand.values()) + self._ahead(now_s)

    async def _wait(self, timeout_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._poke.wait()

    def _broadcast(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


@dataclass(slots=True)
class Hold:
    """What one claim of one attempt holds."""

    claim: Claim
    purse: Purse
    tenure: Tenure
    place: Place | None = None
    """In a rate's window."""


class Reservation:
    """What one attempt holds, on every ceiling that it is subject to. It is settled once."""

    def __init__(self, holds: list[Hold], warnings: list[str], unlent: list[Claim], *, overdrawn: bool = False) -> None:
        """`unlent` are claims on money of which no lease could be had: they count once the ledger hears of them."""
        self._holds = holds
        self._unlent = unlent
        self.warnings = warnings
        self._overdrawn = overdrawn

    @property
    def money(self) -> list[pb.LeaseHold]:
        """What the attempt's billing context says of leases."""
        return [
            pb.LeaseHold(lease_id=hold.tenure.id, account=hold.tenure.account, held_nanos=hold.claim.amount)
            for hold in self._holds
            if hold.claim.is_money
        ] + [pb.LeaseHold(lease_id=UNLENT, account=_account(claim), held_nanos=claim.amount) for claim in self._unlent]

    @property
    def rate_limits(self) -> list[RateLimit]:
        """What is left of the tightest limit of each kind."""
        tightest: dict[str, tuple[int, float, int]] = {}
        for hold in self._holds:
            unit = _RATE_UNITS.get(hold.claim.unit)
            if unit is None:
                continue
            remaining, resets_s = hold.purse.left()
            if unit not in tightest or remaining < tightest[unit][0]:
                tightest[unit] = remaining, resets_s, hold.purse.standing.limit
        return [
            RateLimit(unit=unit, limit=limit, remaining=remaining, reset=_duration(resets_s))
            for unit, (remaining, resets_s, limit) in tightest.items()
        ]

    @property
    def expire_time(self) -> Timestamp | None:
        """When the first lease expires, by accounting's clock. The attempt is not begun later."""
        if self._overdrawn:
            return None
        times = [hold.tenure.expire_time for hold in self._holds if hold.claim.is_money and hold.claim.enforced]
        return min(times, key=lambda time: (time.seconds, time.nanos), default=None)

    def settle(self, attempt_id: str, nanos: int | None, tokens: int | None) -> None:
        """Ends the holds. A cost that is None is asked of the ledger, and held until it is known."""
        holds, self._holds = self._holds, []
        for hold in holds:
            amount, tenure = hold.claim.amount, hold.tenure
            match hold.claim.unit:
                case pb.CEILING_UNIT_NANOS if nanos is None:
                    tenure.unsettled[attempt_id] = (amount, monotonic())
                case pb.CEILING_UNIT_NANOS:
                    tenure.settle(amount, nanos or 0)
                case pb.CEILING_UNIT_TOKENS if hold.place is not None and tokens is not None:
                    tenure.shrink(hold.place, tokens)
                case pb.CEILING_UNIT_CALLS:
                    tenure.settle(amount, 0)
                case _:
                    continue  # it keeps its place in the window
            hold.purse.released()


class Exhausted(Exception):
    """A ceiling has no room."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.claim.key.ceiling)
        self.refusal = refusal


class Leases:
    """All purses of a router."""

    def __init__(self, accounting: AccountingServiceAsyncStub, holder: str, *, window_s: float = WINDOW_S) -> None:
        """`window_s`: how long a rate's window is."""
        self._accounting = accounting
        self._holder = holder
        self._window_s = window_s
        self._purses: dict[AccountKey, Purse] = {}
        self._tasks: dict[AccountKey, asyncio.Task[None]] = {}

    async def reserve(self, claims: list[Claim], timeout_s: float) -> Reservation:
        """Holds all claims at once. Raises Exhausted, KEY_NOT_ALLOWED for another's run, ACCOUNTING_UNAVAILABLE."""
        give_up_s = monotonic() + timeout_s
        me = object()
        refused: set[AccountKey] = set()
        while True:
            purses = [self._purse(claim) for claim in claims]
            short = [
                (claim, purse)
                for claim, purse in zip(claims, purses, strict=True)
                if claim.key not in refused and not purse.has_room(claim.amount)
            ]
            if not short:
                return self._hold(claims, purses, refused)
            claim, purse = short[0]
            if claim.enforced and purse.refuses(claim.amount):
                raise Exhausted(Refusal(claim, purse.standing, True, purse.frees_s()))
            left_s = give_up_s - monotonic()
            if not claim.is_money:
                left_s = min(left_s, give_up_s - timeout_s + RATE_WAIT_S - monotonic())
            try:
                again = await purse.more(me, claim.amount, left_s) if left_s > 0 else None
            except MeshError:
                if claim.enforced:
                    raise
                again = False
            if again:
                continue
            if claim.enforced and again is None and purse.is_silent():
                raise MeshError(Reason.ACCOUNTING_UNAVAILABLE, UNREACHABLE[Reason.ACCOUNTING_UNAVAILABLE])
            if claim.enforced:
                raise Exhausted(Refusal(claim, purse.standing, again is False, purse.frees_s()))
            refused.add(claim.key)  # what is only counted holds up nobody: the ledger counts it by itself

    def overdraw(self, claims: list[Claim]) -> Reservation:
        """Holds claims whether there is room or not, on the leases that there are: what is spent is known once
        accounting can be told again."""
        holds: list[Hold] = []
        unlent: list[Claim] = []
        for claim in claims:
            purse = self._purses.get(claim.key)
            if purse is not None and (held := purse.hold(claim.amount)) is not None:
                holds.append(Hold(claim, purse, *held))
            elif claim.budget is not None:
                unlent.append(claim)
        return Reservation(holds, [OVERDRAWN], unlent, overdrawn=True)

    def ask_back(self, accounts: list[str]) -> None:
        """Other routers need what lies idle here of these accounts."""
        wanted = set(accounts)
        for purse in self._purses.values():
            if purse.tenure is not None and purse.tenure.account in wanted:
                purse.ask_back()

    def revise(self, tenants: list[str]) -> None:
        """Ceilings changed: what is lent is asked for again."""
        for purse in self._purses.values():
            if "" in tenants or purse.key.tenant in tenants:
                purse.ask_back()

    async def close(self) -> None:
        """Returns what can be returned."""
        purses, tasks = list(self._purses.values()), list(self._tasks.values())  # they go as their tasks end
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(purse.close() for purse in purses))

    def _hold(self, claims: list[Claim], purses: list[Purse], refused: set[AccountKey]) -> Reservation:
        holds: list[Hold] = []
        unlent: list[Claim] = []
        warnings: list[str] = []
        for claim, purse in zip(claims, purses, strict=True):
            held = None if claim.key in refused else purse.hold(claim.amount)
            if held is None:
                if claim.budget is not None and not purse.unknown:
                    unlent.append(claim)
                continue
            holds.append(Hold(claim, purse, *held))
            standing = purse.standing
            if claim.warns and standing.spent + standing.held >= standing.limit:
                warnings.append(
                    f"Budget {claim.key.ceiling} is exceeded: {standing.spent} of {standing.limit} nano-dollars."
                )
        return Reservation(holds, warnings, unlent)

    def _purse(self, claim: Claim) -> Purse:
        purse = self._purses.get(claim.key)
        if purse is None:
            purse = self._purses[claim.key] = Purse(claim, self._accounting, self._holder, self._window_s)
            task = asyncio.create_task(purse.run(), name=f"lease of {claim.key.ceiling}")
            self._tasks[claim.key] = task
            task.add_done_callback(lambda done: self._ended(claim.key, purse, done))
        return purse

    def _ended(self, key: AccountKey, purse: Purse, done: asyncio.Task[None]) -> None:
        if self._purses.get(key) is purse:
            del self._purses[key], self._tasks[key]
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("the care of a lease failed", exc_info=error)


def _account(claim: Claim) -> str:
    budget = claim.budget
    assert budget is not None  # noqa: S101 - only claims on money are counted without a lease
    starts_ns, _ = period_bounds(budget.period, budget.time_zone, time_ns())
    return account_id(budget.id, claim.key.tenant, claim.key.subject, starts_ns)


def _unavailable(error: grpc.aio.AioRpcError) -> MeshError:
    """What accounting refuses is its answer; all else means that it, or its store, cannot be asked."""
    said = MeshError.from_rpc(error, Reason.ACCOUNTING_UNAVAILABLE)
    if said.reason in (Reason.UNKNOWN_CEILING, Reason.KEY_NOT_ALLOWED, Reason.MESH_TOKEN):
        return said
    return MeshError(Reason.ACCOUNTING_UNAVAILABLE, UNREACHABLE[Reason.ACCOUNTING_UNAVAILABLE], retry_after_s=1.0)


def _duration(seconds: float) -> Duration:
    whole = int(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))
