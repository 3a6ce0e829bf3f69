"""Whatever routers and the network do, what is spent and held of a budget never exceeds its limit, and no window lets
more pass than its rate; and the model that says so would see a bug.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from modelmuxer.accounting.v1 import accounting_pb2 as pb

from services.accounting import accounts
from services.accounting.accounts import Account, Report
from shared.periods import UNLENT
from tests.unit.accounting.lease_model import (
    LIMIT,
    LONGEST_CALL_S,
    MONEY_BUGS,
    NS,
    RATE_BUGS,
    TERMS,
    TTL_S,
    Money,
    Rate,
)

TestMoney = Money.TestCase
TestMoney.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestRate = Rate.TestCase
TestRate.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


HUNTS = (6, 13, 5, 4, *range(100, 136))
"""Seeds. A bug is met early or, from where a hunt began, for long not at all: several short ones find it sooner. The
one that hides best is met in about a third of them, which leaves it no chance in all."""


@pytest.mark.parametrize("machine", [*MONEY_BUGS, *RATE_BUGS], ids=lambda machine: machine.__name__)
def test_a_bug_in_lending_is_seen(machine: type[RuleBasedStateMachine]) -> None:
    with pytest.raises(AssertionError):
        hunt(machine)


def hunt(machine: type[RuleBasedStateMachine]) -> None:
    """Raises what the machine says of the first bug that it meets."""
    generating = [Phase.generate]  # the first failure is enough
    looking = settings(max_examples=200, stateful_step_count=50, deadline=None, phases=generating, database=None)
    for begun_at in HUNTS:
        run_state_machine_as_test(seed(begun_at)(machine), settings=looking)


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


def test_what_may_still_change_is_counted_at_every_sweep_and_the_rest_when_it_is_told() -> None:
    """Whenever the ledger is told of a call on a closed lease, a sweep counts it afterwards, or it is late."""
    longest_ns = LONGEST_CALL_S * NS
    standing = accounts.report(account(), Report(lease_id="l", holder="r", need=50, want=50), TERMS, 0).account
    for closed_ns in (0, 7 * NS):
        closed = accounts.give_back(standing, "l", 1, 3, closed_ns)
        for ended_s in range(0, LONGEST_CALL_S, 10):
            for told_s in range(ended_s, 5 * LONGEST_CALL_S, 10):
                ended_ns, told_ns = closed_ns + ended_s * NS, closed_ns + told_s * NS
                swept_ns = told_ns - 1  # it was told just after a sweep had looked
                swept = accounts.unsettled(closed, max(told_ns, closed_ns + longest_ns) + 1, longest_ns, swept_ns)
                assert swept == ["l"] or accounts.is_late(ended_ns, told_ns, longest_ns)
        assert not accounts.unsettled(closed, closed_ns + 4 * longest_ns, longest_ns, closed_ns + 3 * longest_ns + 1)


def test_what_had_no_lease_stands_on_one_that_is_never_forgotten() -> None:
    standing = accounts.with_unlent(account())
    assert accounts.with_unlent(standing) is standing
    later_ns = 2 * accounts.FOLD_AFTER_NS
    assert accounts.fold(standing, later_ns) is standing
    counted = accounts.recount(standing, UNLENT, 9, later_ns, LONGEST_CALL_S * NS)
    assert (counted.spent, counted.committed, counted.closed) == (9, 9, 0)


def test_an_account_survives_its_store() -> None:
    standing = accounts.report(account(), Report(lease_id="l", holder="r", need=50, want=50), TERMS, 0).account
    standing = accounts.give_back(standing, "l", 1, 3, 7)
    assert Account.from_document({**standing.to_document(), "_id": 1}) == standing
    assert replace(standing, closed=1) != standing
