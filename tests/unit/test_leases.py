"""Whatever routers and the network do, what is spent and held of a budget never exceeds its limit.

The accounts are accounting's, the tenures are a router's; the network between them loses, repeats and reorders, routers
crash and stop for long, the proxy's clock is off, and the ledger alone knows what was really spent.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from modelmuxer.accounting.v1 import accounting_pb2 as pb

from services.accounting import accounts
from services.accounting.accounts import Account, LeaseLost, Report, Terms
from services.router.leases import Tenure

LIMIT = 100
TTL_S, LONGEST_CALL_S, SKEW_S = 60, 200, 5
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


class Mesh(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.account = Account(
            id="a", ceiling="b", tenant="t", subject="", unit=pb.CEILING_UNIT_NANOS, starts_ns=0, ends_ns=0, forget_ns=0
        )
        self.routers = [Router() for _ in range(3)]
        self.requests: list[Asked] = []
        self.replies: list[tuple[Asked, pb.Lease | None]] = []
        self.calls: list[Call] = []
        self.ledger: dict[str, int] = {}

    # --- routers ---

    @rule(which=st.integers(0, 2), need=amounts, give_back=st.booleans())
    def ask(self, which: int, need: int, give_back: bool) -> None:
        router = self.routers[which]
        if router.tenure is None:
            router.tenure = Tenure()
            said = Report(lease_id=router.tenure.id, holder=f"r{which}", need=need, want=need * 3)
        else:
            tenure = router.tenure
            tenure.sequence += 1
            said = Report(
                lease_id=tenure.id,
                holder=f"r{which}" if not tenure.account else "",  # the first answer was lost
                sequence=tenure.sequence,
                used=tenure.used,
                held=tenure.held,
                keep=tenure.keep(tenure.used + tenure.held) if give_back else tenure.granted,
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

    def _begin(self, which: int, part: int) -> bool:
        """Holds some of what there is room for."""
        router = self.routers[which]
        if router.tenure is None or (room := router.tenure.room(self.now_s)) <= 0:
            return False
        amount = 1 + part % room
        router.tenure.hold(amount)
        self.calls.append(Call(router.tenure, amount, router))
        return True

    @rule(which=st.integers(0, 2))
    def crash(self, which: int) -> None:
        """Calls that were announced go on; the others never happen, or happen all the same."""
        self.routers[which] = Router()

    @rule(which=st.integers(0, 2))
    def give_up(self, which: int) -> None:
        router = self.routers[which]
        if router.tenure is not None and not router.tenure.held:
            tenure, router.tenure = router.tenure, None
            self.account = accounts.give_back(self.account, tenure.id, tenure.sequence + 1, tenure.used, self._now_ns())

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
            verdict = accounts.report(self.account, asked.report, TERMS, self._now_ns())
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

    # --- the proxy and the ledger ---

    @precondition(lambda self: any(call.announced_s is None for call in self.calls))
    @rule(pick=any_one, skew=st.integers(-SKEW_S, SKEW_S))
    def announce(self, pick: int, skew: int) -> None:
        waiting = [call for call in self.calls if call.announced_s is None]
        self._announced(waiting[pick % len(waiting)], skew)

    def _announced(self, call: Call, skew: int) -> bool:
        """Whether the proxy begins the call."""
        if call.tenure.expire_time.ToNanoseconds() <= self._now_ns() + skew * NS:
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
        if told:  # else the router goes on holding it until the ledger tells
            call.tenure.settle(call.amount, cost)

    @rule(seconds=st.sampled_from([1, 10, 70, 300]))
    def pass_time(self, seconds: int) -> None:
        self.now_s += seconds
        for call in list(self.calls):
            if call.announced_s is not None and self.now_s - call.announced_s > LONGEST_CALL_S - 2 * SKEW_S:
                self._end(call, 100, told=False)

    @rule()
    def sweep(self) -> None:
        now_ns, longest_ns = self._now_ns(), LONGEST_CALL_S * NS
        for lease_id in accounts.in_doubt(self.account, now_ns, longest_ns):
            self.account = accounts.close_by_ledger(self.account, lease_id, self._spent(lease_id), now_ns, longest_ns)
        for lease_id in accounts.recountable(self.account, now_ns, longest_ns):
            self.account = accounts.recount(self.account, lease_id, self._spent(lease_id), now_ns, longest_ns)
        self.account = accounts.fold(self.account, now_ns)

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
            if call.announced_s is None and call.tenure.expire_time.ToNanoseconds() > self._now_ns()
        )
        assert sum(self.ledger.values()) + under_way + may_begin <= LIMIT

    def teardown(self) -> None:
        """Once the dust has settled nothing is held, and the account says what the ledger says."""
        self.calls = [call for call in self.calls if call.announced_s is not None]
        self.pass_time(10_000)
        self.sweep()
        self.now_s += 10_000
        self.sweep()
        assert self.account.held == 0
        assert self.account.spent == sum(self.ledger.values())
        assert self.account.committed == self.account.spent

    def _spent(self, lease_id: str) -> int:
        pending = sum(call.amount for call in self.calls if call.announced_s and call.tenure.id == lease_id)
        return self.ledger.get(lease_id, 0) + pending

    def _now_ns(self) -> int:
        return int(self.now_s * NS)


TestLeases = Mesh.TestCase
TestLeases.settings = settings(max_examples=400, stateful_step_count=80, deadline=None)


def account() -> Account:
    return Account(
        id="a", ceiling="b", tenant="t", subject="", unit=pb.CEILING_UNIT_NANOS, starts_ns=0, ends_ns=0, forget_ns=0
    )


def test_a_report_that_comes_twice_or_late_changes_nothing() -> None:
    first = accounts.report(account(), Report(lease_id="l", holder="r", need=10, want=10), TERMS, 0).account
    late = Report(lease_id="l", sequence=1, used=2, held=3, keep=10)
    newer = accounts.report(first, Report(lease_id="l", sequence=2, used=7, held=0, keep=10), TERMS, 0).account
    assert accounts.report(newer, late, TERMS, 0).superseded
    assert accounts.report(newer, late, TERMS, 0).account == newer
    closed = accounts.give_back(newer, "l", 3, 8, 0)
    assert (closed.spent, closed.committed) == (8, 8)
    assert accounts.give_back(closed, "l", 4, 9, 0) == closed


def test_the_latest_report_that_comes_twice_takes_back_nothing_of_its_first_answer() -> None:
    first = accounts.report(account(), Report(lease_id="l", holder="r", need=10, want=10), TERMS, 0).account
    latest = Report(lease_id="l", sequence=1, used=10, held=0, keep=10, need=20, want=20)
    answered = accounts.report(first, latest, TERMS, 0)
    assert answered.lease.granted == 30
    assert accounts.report(answered.account, latest, TERMS, 0).lease.granted >= 30


def test_leases_shrink_as_the_end_comes_near() -> None:
    standing, sizes = account(), []
    for number in range(6):
        verdict = accounts.report(standing, Report(lease_id=f"l{number}", holder="r", need=1, want=1000), TERMS, 0)
        standing = verdict.account
        sizes.append(verdict.granted)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == LIMIT // 2


def test_a_lease_that_nobody_returned_closes_at_what_the_ledger_says() -> None:
    standing = accounts.report(account(), Report(lease_id="l", holder="r", need=50, want=50), TERMS, 0).account
    later_ns, longest_ns = (TTL_S + LONGEST_CALL_S + 1) * NS, LONGEST_CALL_S * NS
    assert accounts.in_doubt(standing, TTL_S * NS, longest_ns) == []
    assert accounts.in_doubt(standing, later_ns, longest_ns) == ["l"]
    closed = accounts.close_by_ledger(standing, "l", 12, later_ns, longest_ns)
    assert (closed.spent, closed.committed) == (12, 12)
    later = accounts.recount(closed, "l", 15, later_ns, longest_ns)  # an entry came after the lease was closed
    assert accounts.recount(later, "l", 15, later_ns, longest_ns) == later
    assert later.spent == 15


def test_an_account_survives_its_store() -> None:
    standing = accounts.report(account(), Report(lease_id="l", holder="r", need=50, want=50), TERMS, 0).account
    standing = accounts.give_back(standing, "l", 1, 3, 7)
    assert Account.from_document({**standing.to_document(), "_id": 1}) == standing
    assert replace(standing, closed=1) != standing
