"""The audit: what has to hold of a ledger at any time, proven on what the store holds. Reading is the store's business.

- an entry's state and amounts follow from its facts, and there is one entry for an attempt;
- the sums of each hour are those of its entries, so that what is reported as spent is what the entries say;
- corrections lead, one after the other, from what was first posted to what stands;
- no attempt is without an end that began longer ago than the longest call takes;
- no lease outlives its time by more than the longest call, nothing is held on one that is closed, and where all of an
  account's leases have settled it has spent what the ledger's entries say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from modelmuxer.accounting.v1.accounting_pb2 import (
    CEILING_UNIT_NANOS,
    ENTRY_STATE_PENDING,
    AuditFinding,
    AuditResponse,
    Entry,
    EntryState,
)

from services.accounting import accounts, ledger
from services.accounting.ledger import Amounts, Attempt

Account = tuple[int, str, str, str, str, str]
"""What sums are kept by: hour, tenant, user, key id, model, provider."""

_MAX_FINDINGS = 1000


class Correction(NamedTuple):
    """One change of an entry that had been settled."""

    from_state: int
    to_state: int
    delta_nanos: int
    corrected_ns: int = 0


class Auditor:
    """Looks at entries in the order of their attempts' ids, then at sums and at budgets' accounts."""

    def __init__(self, *, now_ns: int, longest_call_ns: int) -> None:
        self.counts: Counter[str] = Counter()
        self._now_ns = now_ns
        self._longest_call_ns = longest_call_ns
        self._findings: list[AuditFinding] = []
        self._finding_count = 0
        self._total_nanos = 0
        self._expected: dict[Account, Amounts] = {}
        self._last_id = ""

    def entry(
        self, attempt: Attempt, state: int, account: Account, amounts: Amounts, corrections: Sequence[Correction]
    ) -> None:
        """Looks at an entry: its facts, and what stands for them."""
        self.counts["entries"] += 1
        self.counts[_name(state)] += 1
        self.counts["corrections"] += len(corrections)
        self._total_nanos += amounts.cost_nanos
        expected = self._expected.get(account, Amounts())
        self._expected[account] = Amounts(*map(sum, zip(expected, amounts, strict=True)))
        if attempt.id == self._last_id:
            self.find("one-entry-per-attempt", attempt.id, "There is more than one entry for this attempt.")
        self._last_id = attempt.id
        line = ledger.entry(attempt)
        if (line.state, ledger.amounts(line), _account(attempt, line)) != (state, amounts, account):
            self.find(
                "entry-follows-from-facts",
                attempt.id,
                f"The facts make it {_name(line.state)} at {line.cost_nanos} nano-dollars; "
                f"it stands as {_name(state)} at {amounts.cost_nanos}.",
            )
        if state == ENTRY_STATE_PENDING and attempt.created_ns + self._longest_call_ns < self._now_ns:
            self.find(
                "every-attempt-ends", attempt.id, "It was announced longer ago than any call lasts, and is pending."
            )
        self._follow(attempt.id, state, amounts.cost_nanos, corrections)

    def orphan_correction(self, attempt_id: str) -> None:
        """Takes note of a correction without an entry."""
        self.find("corrections-lead-to-entries", attempt_id, "There is a correction, and no entry.")

    def sum(self, account: Account, amounts: Amounts) -> None:
        """Looks at a row of sums."""
        self.counts["sums"] += 1
        self._compare(account, self._expected.pop(account, Amounts()), amounts)

    def settled(self, account: accounts.Account) -> bool:
        """Whether an account's spending can be held against the ledger: no lease is open, and none closed of late."""
        return account.unit == CEILING_UNIT_NANOS and all(
            lease.closing and lease.closed_ns + self._longest_call_ns < self._now_ns
            for lease in account.leases.values()
        )

    def account(self, account: accounts.Account, ledger_nanos: int | None) -> None:
        """Looks at an account and its leases; `ledger_nanos` is what the ledger says was spent, if it is settled."""
        self.counts["accounts"] += 1
        self.counts["open leases"] += sum(not lease.closing for lease in account.leases.values())
        for lease_id in accounts.in_doubt(account, self._now_ns, self._longest_call_ns):
            self.find("no-orphan-lease", account.id, f"Lease {lease_id} has run out and was not closed.")
        for lease_id, lease in account.leases.items():
            if lease.closing and lease.held:
                self.find("nothing-held-when-closed", account.id, f"{lease.held} is held on lease {lease_id}.")
        if ledger_nanos is not None and ledger_nanos != account.spent:
            message = f"It has spent {account.spent} nano-dollars; the ledger's entries say {ledger_nanos}."
            self.find("accounts-are-the-ledgers", account.id, message)

    def find(self, check: str, subject: str, message: str) -> None:
        """Takes note of what must not be."""
        self._finding_count += 1
        if len(self._findings) < _MAX_FINDINGS:
            self._findings.append(AuditFinding(check=check, subject=subject, message=message))

    def report(self) -> AuditResponse:
        """What was found, once all entries and sums have been looked at."""
        for account, amounts in self._expected.items():
            self._compare(account, amounts, Amounts())
        self._expected.clear()
        return AuditResponse(
            ok=not self._finding_count,
            findings=self._findings,
            finding_count=self._finding_count,
            counts=self.counts,
            total_nanos=self._total_nanos,
        )

    def _compare(self, account: Account, expected: Amounts, amounts: Amounts) -> None:
        for name, of_entries, of_sums in zip(Amounts._fields, expected, amounts, strict=True):
            if of_entries != of_sums:
                message = f"{name} of the entries is {of_entries}, of the sums {of_sums}."
                self.find("sums-are-those-of-entries", " · ".join(map(str, account)), message)

    def _follow(self, attempt_id: str, state: int, cost_nanos: int, corrections: Sequence[Correction]) -> None:
        if not corrections:
            return
        ends = [correction.to_state for correction in corrections[:-1]]
        if ends != [correction.from_state for correction in corrections[1:]] or corrections[-1].to_state != state:
            self.find("corrections-lead-to-entries", attempt_id, "Its corrections do not lead to its state.")
        if cost_nanos < sum(correction.delta_nanos for correction in corrections):
            self.find("corrections-lead-to-entries", attempt_id, "Its corrections exceed what it costs.")


def _account(attempt: Attempt, line: Entry) -> Account:
    who, place = line.principal, attempt.place
    return (ledger.hour_of(attempt.created_ns), who.tenant, who.user, who.key_id, place.model, place.provider)


def _name(state: int) -> str:
    return EntryState.Name(EntryState.ValueType(state)).removeprefix("ENTRY_STATE_").lower()
