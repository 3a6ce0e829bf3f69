"""The audit of accounts: leases that outlive their time, and spending unknown to the ledger, are found."""

from __future__ import annotations

import pytest
from modelmuxer.accounting.v1.accounting_pb2 import CEILING_UNIT_NANOS

from services.accounting.accounts import Account, Closing, Lease
from services.accounting.audit import Auditor

NOW_NS = 1_000
LONGEST_NS = 100


def account(**lease: object) -> Account:
    values: dict[str, object] = {"holder": "r", "expires_ns": NOW_NS, "granted": 9, "used": 5, **lease}
    kept = Lease(**values)  # type: ignore[arg-type]
    return Account(
        id="a",
        ceiling="b",
        tenant="t",
        subject="",
        unit=CEILING_UNIT_NANOS,
        starts_ns=0,
        ends_ns=0,
        forget_ns=0,
        leases={"l": kept},
    )


def found(seen: Account, ledger_nanos: int) -> set[str]:
    auditor = Auditor(now_ns=NOW_NS, longest_call_ns=LONGEST_NS)
    auditor.account(seen, ledger_nanos if auditor.settled(seen) else None)
    return {finding.check for finding in auditor.report().findings}


@pytest.mark.parametrize(
    ("seen", "checks"),
    [
        (account(held=3), set()),
        (account(expires_ns=NOW_NS - LONGEST_NS), set()),
        (account(expires_ns=NOW_NS - LONGEST_NS - 1), {"no-orphan-lease"}),
        (account(closing=Closing.RETURNED, closed_ns=NOW_NS - 1), set()),
        (account(closing=Closing.RETURNED, closed_ns=1), {"accounts-are-the-ledgers"}),
        (account(closing=Closing.RETURNED, closed_ns=NOW_NS, held=1), {"nothing-held-when-closed"}),
    ],
)
def test_leases_and_spending_that_cannot_be_are_found(seen: Account, checks: set[str]) -> None:
    assert found(seen, 6) == checks


def test_a_settled_account_that_the_ledger_agrees_with_is_fine() -> None:
    assert found(account(closing=Closing.LEDGER, closed_ns=1), 5) == set()
