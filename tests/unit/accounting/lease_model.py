"""The model of lending: accounting's accounts and routers' tenures, and between them a network that loses, repeats and
reorders. Routers crash and stop for long, clocks are off, and the ledger alone knows what was really spent.

Below both machines stand the bugs that they have to see: each is the machine with one thing done wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from modelmuxer.accounting.v1 import accounting_pb2 as pb

from services.accounting import accounts
from services.accounting.accounts import Account, LeaseLost, Report, Terms, Verdict
from services.router.leases import WINDOW_MARGIN
from services.router.tenure import Place, Tenure

LIMIT = 100
TTL_S, LONGEST_CALL_S, SKEW_S, WINDOW_S = 60, 200, 5, 60
NS = accounts.NANOS_PER_S
TERMS = Terms(limit=LIMIT, enforced=True, ttl_ns=TTL_S * NS)
amounts = st.integers(1, 30)
any_one = st.integers(0, 10**6)


@dataclass
class Router:
    tenure: Tenure | None = None
    past: list[Tenure] = field(default_factory=list)


@dataclass
class Call:
    tenure: Tenure
    amount: int
    router: Router
    announced_s: float | None = None


@dataclass
class Asked:
    router: Router
    tenure: Tenure
    report: Report
    asked_s: float
    answered: bool = False


class Lending(RuleBasedStateMachine):
    """What budgets and rates have in common."""

    unit: pb.CeilingUnit

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.account = Account(
            id="a", ceiling="b", tenant="t", subject="", unit=self.unit, starts_ns=0, ends_ns=0, forget_ns=0
        )
        self.routers = [Router() for _ in range(3)]
        self.requests: list[Asked] = []
        self.replies: list[tuple[Asked, pb.Lease | None]] = []

    # --- routers ---

    @rule(which=st.integers(0, 2), need=amounts, give_back=st.booleans())
    def ask(self, which: int, need: int, give_back: bool) -> None:
        router = self.routers[which]
        if router.tenure is None:
            router.tenure = Tenure()
            said = Report(lease_id=router.tenure.id, holder=f"r{which}", need=need, want=need * 3)
        else:
            tenure = router.tenure
            tenure.let_go(self.now_s)
            tenure.sequence += 1
            said = Report(
                lease_id=tenure.id,
                holder=f"r{which}" if not tenure.account else "",  # the first answer was lost
                sequence=tenure.sequence,
                used=tenure.used,
                held=tenure.held,
                keep=self.kept(tenure) if give_back else tenure.granted,
                need=need,
                want=need * 2,
            )
        self.requests.append(Asked(router, router.tenure, said, self.now_s))

    @rule(which=st.integers(0, 2), need=amounts, give_back=st.booleans())
    def exchange(self, which: int, need: int, give_back: bool) -> None:
        """A report and its answer, as it goes on a good day."""
        self.ask(which, need, give_back)
        self._deliver(self.requests[-1])
        self._answer(*self.replies.pop())

    @rule(
        which=st.integers(0, 2),
        other=st.integers(0, 2),
        need=amounts,
        give_back=st.booleans(),
        twice=st.booleans(),
        part=any_one,
        early=st.booleans(),
    )
    def hear_late(
        self, which: int, other: int, need: int, give_back: bool, twice: bool, part: int, early: bool
    ) -> None:
        """While a router waits for its answer its report may come again, and another is lent what there is."""
        self.ask(which, need, give_back)
        asked = self.requests[-1]
        self._deliver(asked)
        reply = self.replies.pop()
        for again in (False, True)[: 1 + twice]:
            if again:
                self._deliver(asked)
            if other != which:
                self.exchange(other, need, give_back=False)
                self.use(other, part)
        if early:
            self.use(which, part)
        self._answer(*reply)
        self.use(which, part)

    def use(self, which: int, part: int) -> None:
        """A router uses some of what there is room for."""
        raise NotImplementedError

    @rule(which=st.integers(0, 2))
    def crash(self, which: int) -> None:
        """Calls that were announced go on; the others never happen, or happen all the same."""
        self.routers[which] = Router()

    @rule(which=st.integers(0, 2))
    def give_up(self, which: int) -> None:
        router = self.routers[which]
        if router.tenure is None:
            return
        router.tenure.let_go(self.now_s)
        if not router.tenure.held:
            tenure, router.tenure = router.tenure, None
            self.account = accounts.give_back(self.account, tenure.id, tenure.sequence + 1, tenure.used, self.now_ns)

    # --- the network: any request, any reply, any number of times, in any order, or never ---

    @precondition(lambda self: self.requests)
    @rule(pick=any_one, once=st.booleans())
    def deliver(self, pick: int, once: bool) -> None:
        at = pick % len(self.requests)
        asked = self.requests[at]
        if once:
            del self.requests[at]
        self._deliver(asked)

    @precondition(lambda self: self.replies)
    @rule(pick=any_one)
    def answer(self, pick: int) -> None:
        self._answer(*self.replies.pop(pick % len(self.replies)))

    def _deliver(self, asked: Asked) -> None:
        try:
            verdict = self.heard(self.account, asked.report)
        except LeaseLost:
            self.replies.append((asked, None))
            return
        self.account = verdict.account
        lease = pb.Lease(account=self.account.id, granted=verdict.lease.granted)
        lease.ttl.FromSeconds(TTL_S)
        lease.expire_time.FromNanoseconds(verdict.lease.expires_ns)
        self.replies.append((asked, lease))

    def _answer(self, asked: Asked, lease: pb.Lease | None) -> None:
        router, tenure = asked.router, asked.tenure
        if router.tenure is not tenure or asked.report.sequence != tenure.sequence or asked.answered:
            return
        asked.answered = True  # what a repeated request is answered goes to nobody
        if lease is None:
            router.tenure = None
        else:
            tenure.take(lease, asked.asked_s)

    @property
    def now_ns(self) -> int:
        return int(self.now_s * NS)

    # --- what bugs do otherwise ---

    def kept(self, tenure: Tenure) -> int:
        """What a router keeps when it gives back what lies idle."""
        return tenure.keep(tenure.used + tenure.held)

    def heard(self, account: Account, said: Report) -> Verdict:
        """What accounting makes of a report."""
        return accounts.report(account, said, TERMS, self.now_ns)


class Money(Lending):
    """A budget."""

    unit = pb.CEILING_UNIT_NANOS

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.ledger: dict[str, int] = {}
        self.swept_ns = 0

    @rule(which=st.integers(0, 2), part=any_one, share=st.integers(0, 100), told=st.booleans())
    def serve(self, which: int, part: int, share: int, told: bool) -> None:
        """A call from its beginning to its end."""
        self.exchange(which, 1, give_back=False)
        if self._begin(which, part) and self._announced(self.calls[-1], 0):
            self._end(self.calls[-1], share, told)

    @rule(which=st.integers(0, 2), part=any_one)
    def begin_and_announce(self, which: int, part: int) -> None:
        self.exchange(which, 1, give_back=False)
        if self._begin(which, part):
            self._announced(self.calls[-1], 0)

    @rule(which=st.integers(0, 2), part=any_one)
    def begin(self, which: int, part: int) -> None:
        self._begin(which, part)

    def use(self, which: int, part: int) -> None:
        if self._begin(which, part):
            self._announced(self.calls[-1], 0)

    def _begin(self, which: int, part: int) -> bool:
        """Holds some of what there is room for."""
        router = self.routers[which]
        if router.tenure is None or (room := router.tenure.room(self.now_s)) <= 0:
            return False
        amount = 1 + part % room
        router.tenure.hold(amount)
        self.calls.append(Call(router.tenure, amount, router))
        return True

    @rule(
        which=st.integers(0, 2), other=st.integers(0, 2), need=amounts, part=any_one, skew=st.integers(-SKEW_S, SKEW_S)
    )
    def wake_late(self, which: int, other: int, need: int, part: int, skew: int) -> None:
        """A router stands still between holding a call and sending it, until its lease has closed and another router
        was lent what it had."""
        self.exchange(which, need, give_back=False)
        if other == which or not self._begin(which, part):
            return
        call = self.calls[-1]
        self.pass_time(TTL_S + LONGEST_CALL_S + 1)
        self.sweep()
        self.exchange(other, need, give_back=False)
        self.use(other, part)
        self._announced(call, skew)

    # --- the proxy and the ledger ---

    @precondition(lambda self: any(call.announced_s is None for call in self.calls))
    @rule(pick=any_one, skew=st.integers(-SKEW_S, SKEW_S))
    def announce(self, pick: int, skew: int) -> None:
        waiting = [call for call in self.calls if call.announced_s is None]
        self._announced(waiting[pick % len(waiting)], skew)

    def _announced(self, call: Call, skew: int) -> bool:
        """Whether the proxy begins the call."""
        if self.expired(call.tenure, self.now_ns + skew * NS):
            self.calls.remove(call)  # LEASE_EXPIRED
            call.tenure.settle(call.amount, 0)
            return False
        call.announced_s = self.now_s
        return True

    @precondition(lambda self: any(call.announced_s is not None for call in self.calls))
    @rule(pick=any_one, share=st.integers(0, 100), told=st.booleans())
    def end(self, pick: int, share: int, told: bool) -> None:
        begun = [call for call in self.calls if call.announced_s is not None]
        self._end(begun[pick % len(begun)], share, told)

    def _end(self, call: Call, share: int, told: bool) -> None:
        cost = call.amount * share // 100
        self.calls.remove(call)
        self.ledger[call.tenure.id] = self.ledger.get(call.tenure.id, 0) + cost
        if told:
            call.tenure.settle(call.amount, cost)
        else:
            self.untold(call)

    @rule(seconds=st.sampled_from([1, 10, 70, 300]))
    def pass_time(self, seconds: int) -> None:
        self.now_s += seconds
        for call in list(self.calls):
            if call.announced_s is not None and self.now_s - call.announced_s > LONGEST_CALL_S - 2 * SKEW_S:
                self._end(call, 100, told=False)

    @rule()
    def sweep(self) -> None:
        for lease_id in self.in_doubt():
            self.account = self.closed(lease_id)
        longest_ns = LONGEST_CALL_S * NS
        for lease_id in accounts.unsettled(self.account, self.now_ns, longest_ns, self.swept_ns):
            self._recount(lease_id)
        self.account = self.folded()
        self.swept_ns = self.now_ns

    def _recount(self, lease_id: str) -> None:
        spent = self.spent(lease_id)
        self.account = accounts.recount(self.account, lease_id, spent, self.now_ns, LONGEST_CALL_S * NS)

    # --- what is promised ---

    @invariant()
    def spent_and_held_stay_within_the_limit(self) -> None:
        under_way = sum(call.amount for call in self.calls if call.announced_s is not None)
        assert sum(self.ledger.values()) + under_way <= LIMIT
        assert self.account.committed <= LIMIT
        assert self.account.spent <= sum(self.ledger.values()) + under_way  # nothing is counted twice
        may_begin = sum(
            call.amount
            for call in self.calls
            if call.announced_s is None and call.tenure.expire_time.ToNanoseconds() > self.now_ns
        )
        assert sum(self.ledger.values()) + under_way + may_begin <= LIMIT

    def teardown(self) -> None:
        """Once the dust has settled nothing is held, and the account says what the ledger says, however late."""
        self.calls = [call for call in self.calls if call.announced_s is not None]
        self.pass_time(100_000)
        self.sweep()
        self.now_s += 100_000
        self.sweep()
        assert self.account.held == 0
        assert self.account.spent == sum(self.ledger.values())
        assert self.account.committed == self.account.spent
        for lease_id in self.ledger:
            self.ledger[lease_id] //= 2  # the bill comes, and what it corrects is counted
            self._recount(lease_id)
        late = sum(nanos for lease_id, nanos in self.ledger.items() if lease_id not in self.account.leases)
        self.account = accounts.recount_folded(self.account, list(self.account.leases), late)
        self.sweep()
        assert self.account.spent == sum(self.ledger.values())

    # --- what bugs do otherwise ---

    def expired(self, tenure: Tenure, now_ns: int) -> bool:
        """Whether the proxy refuses a call that is held on a lease."""
        return tenure.expire_time.ToNanoseconds() <= now_ns

    def untold(self, call: Call) -> None:
        """Nobody told the router what a call cost: it goes on holding it until the ledger tells."""

    def in_doubt(self) -> list[str]:
        return accounts.in_doubt(self.account, self.now_ns, LONGEST_CALL_S * NS)

    def closed(self, lease_id: str) -> Account:
        spent = self.spent(lease_id)
        return accounts.close_by_ledger(self.account, lease_id, spent, self.now_ns, LONGEST_CALL_S * NS)

    def folded(self) -> Account:
        return accounts.fold(self.account, self.now_ns)

    def spent(self, lease_id: str) -> int:
        """What the ledger says of a lease."""
        pending = sum(call.amount for call in self.calls if call.announced_s and call.tenure.id == lease_id)
        return self.ledger.get(lease_id, 0) + pending


class Rate(Lending):
    """A rate: what passes in any window is within the limit."""

    unit = pb.CEILING_UNIT_TOKENS

    def __init__(self) -> None:
        super().__init__()
        self.passed: list[tuple[float, Place, int]] = []
        """When, where, and how much it may come to."""

    @rule(which=st.integers(0, 2), part=any_one)
    def use(self, which: int, part: int) -> None:
        tenure = self.routers[which].tenure
        if tenure is None or (room := tenure.room(self.now_s)) <= 0:
            return
        amount = 1 + part % room
        self.passed.append((self.now_s, tenure.take_place(amount, self.now_s, self.window_s), amount))

    @rule(which=st.integers(0, 2), part=any_one)
    def serve(self, which: int, part: int) -> None:
        self.exchange(which, 1, give_back=False)
        self.use(which, part)

    @precondition(lambda self: self.passed)
    @rule(pick=any_one, which=st.integers(0, 2), share=st.integers(0, 100))
    def take_less(self, pick: int, which: int, share: int) -> None:
        """A call ends with fewer tokens than it might have had."""
        at = pick % len(self.passed)
        passed_s, place, amount = self.passed[at]
        tenure = self.routers[which].tenure
        if tenure is not None and place in tenure.window:
            less = amount * share // 100
            tenure.shrink(place, less)
            self.passed[at] = passed_s, place, less

    @rule(which=st.integers(0, 2))
    def share(self, which: int) -> None:
        tenure = self.routers[which].tenure
        if tenure is not None:
            tenure.shares_until_s = self.now_s + 1 + WINDOW_S

    @rule(seconds=st.sampled_from([1, 10, 30, 59, 70, 300]))
    def pass_time(self, seconds: int) -> None:
        self.now_s += seconds

    @rule()
    def sweep(self) -> None:
        for lease_id in self.in_doubt():
            self.account = accounts.close_by_ledger(self.account, lease_id, 0, self.now_ns, 0)
        self.account = accounts.fold(self.account, self.now_ns)

    @invariant()
    def no_window_lets_more_pass(self) -> None:
        assert sum(amount for passed_s, _, amount in self.passed if passed_s > self.now_s - WINDOW_S) <= LIMIT
        assert self.account.committed <= LIMIT

    def teardown(self) -> None:
        for which in range(len(self.routers)):
            self.crash(which)
        self.now_s += TTL_S + 2 * WINDOW_S
        self.sweep()
        self.now_s += 2 * WINDOW_S
        self.sweep()
        assert (self.account.committed, len(self.account.leases)) == (0, 0)

    # --- what bugs do otherwise ---

    @property
    def window_s(self) -> float:
        return WINDOW_S * (1 + WINDOW_MARGIN)

    def in_doubt(self) -> list[str]:
        return accounts.in_doubt(self.account, self.now_ns, 0)


class AddsWhatIsATotal(Money):
    """An increment in place of set-if-greater."""

    def heard(self, account: Account, said: Report) -> Verdict:
        lease = account.leases.get(said.lease_id)
        before = lease.used if lease is not None else 0
        return super().heard(account, replace(said, used=said.used + before))


class BelievesLateReports(Money):
    """Every report is taken for the latest."""

    def heard(self, account: Account, said: Report) -> Verdict:
        lease = account.leases.get(said.lease_id)
        return super().heard(
            account, replace(said, sequence=lease.sequence + 1 if lease is not None else said.sequence)
        )


class TakesBackTheAnswerToARepeatedReport(Money):
    """What the first answer to a report had granted is lent to another when the report comes again."""

    def heard(self, account: Account, said: Report) -> Verdict:
        lease = account.leases.get(said.lease_id)
        if lease is not None and lease.sequence == said.sequence and not lease.closing:
            earlier = replace(lease, sequence=said.sequence - 1)
            account = replace(account, leases={**account.leases, said.lease_id: earlier})
        return super().heard(account, said)


class KeepsWhatItGaveBack(Money):
    """A router goes on using what it told accounting to be idle."""

    def kept(self, tenure: Tenure) -> int:
        return tenure.used + tenure.held


class LendsWithoutLooking(Money):
    """Each router is lent as if there were no other."""

    def heard(self, account: Account, said: Report) -> Verdict:
        own = {lease_id: lease for lease_id, lease in account.leases.items() if lease_id == said.lease_id}
        verdict = super().heard(replace(account, leases=own), said)
        return replace(verdict, account=replace(verdict.account, leases={**account.leases, **verdict.account.leases}))


class ForgetsWhatTheDeadHaveSpent(Money):
    """A lease that expires closes at what its holder had reported last."""

    def closed(self, lease_id: str) -> Account:
        lease = self.account.leases[lease_id]
        return accounts.give_back(self.account, lease_id, lease.sequence, lease.used, self.now_ns)


class ClosesWhileCallsRun(Money):
    """A lease closes as soon as it has expired, at what has ended by then."""

    def in_doubt(self) -> list[str]:
        return accounts.in_doubt(self.account, self.now_ns, 0)

    def closed(self, lease_id: str) -> Account:
        return accounts.close_by_ledger(self.account, lease_id, self.ledger.get(lease_id, 0), self.now_ns, 0)


class BeginsAfterTheLeaseHasExpired(Money):
    """The proxy does not look at the lease."""

    def expired(self, tenure: Tenure, now_ns: int) -> bool:
        return False


class ReleasesWhatNobodyToldOf(Money):
    """A settle is dropped: the router takes a call of whose cost it was not told for free."""

    def untold(self, call: Call) -> None:
        call.tenure.settle(call.amount, 0)


class CountsTheClosedTwice(Money):
    """A lease is folded and kept."""

    def folded(self) -> Account:
        folded = super().folded()
        return replace(folded, leases=self.account.leases) if folded is not self.account else folded


class LetsGoAtOnce(Rate):
    """A call gives its place back when it ends, not when it leaves the window."""

    @property
    def window_s(self) -> float:
        return 1.0


class CountsClockMinutes(Rate):
    """Every minute of the clock begins anew."""

    @property
    def window_s(self) -> float:
        return 60 - self.now_s % 60


class ForgetsTheWindowOfTheDead(Rate):
    """What a dead router may have let pass is free again at once."""

    def in_doubt(self) -> list[str]:
        return [lease_id for lease_id, lease in self.account.leases.items() if lease.expires_ns < self.now_ns]

    def sweep(self) -> None:
        for lease_id in self.in_doubt():
            late_ns = self.now_ns + accounts.WINDOW_NS
            self.account = accounts.close_by_ledger(self.account, lease_id, 0, late_ns, 0)


class GivesBackWhatIsBusy(Rate):
    """What is in the window counts as idle."""

    def heard(self, account: Account, said: Report) -> Verdict:
        keep = min(said.keep, max(0, said.keep - said.held))
        return super().heard(account, replace(said, held=0, keep=keep))


MONEY_BUGS = (
    AddsWhatIsATotal,
    BelievesLateReports,
    TakesBackTheAnswerToARepeatedReport,
    KeepsWhatItGaveBack,
    LendsWithoutLooking,
    ForgetsWhatTheDeadHaveSpent,
    ClosesWhileCallsRun,
    BeginsAfterTheLeaseHasExpired,
    ReleasesWhatNobodyToldOf,
    CountsTheClosedTwice,
)
RATE_BUGS = (LetsGoAtOnce, CountsClockMinutes, ForgetsTheWindowOfTheDead, GivesBackWhatIsBusy)
