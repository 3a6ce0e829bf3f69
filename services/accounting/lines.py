"""An attempt as it stands in the ledger: its facts, and what follows from them. Pure; every store keeps such lines."""

from collections.abc import Iterable
from operator import add, sub
from typing import NamedTuple

from modelmuxer.accounting.v1.accounting_pb2 import ENTRY_STATE_PENDING, LeaseHold

from services.accounting import ledger
from services.accounting.audit import Correction
from services.accounting.ledger import Amounts, Attempt


class SumsKey(NamedTuple):
    """The row of sums that an entry adds to."""

    hour: int
    tenant: str
    user: str
    key_id: str
    model: str
    provider: str


class Line(NamedTuple):
    """An attempt as it stands in the ledger."""

    attempt: Attempt
    created_ns: int
    state: int
    tenant: str
    user: str
    key_id: str
    request_id: str
    amounts: Amounts

    @property
    def account(self) -> SumsKey:
        place = self.attempt.place
        hour = ledger.hour_of(self.created_ns)
        return SumsKey(hour, self.tenant, self.user, self.key_id, place.model, place.provider)


def line_of(attempt: Attempt) -> Line:
    """The line that follows from what is known of an attempt."""
    context, settled = ledger.context_of(attempt.context), ledger.settlement(attempt)
    who, amounts = context.principal, ledger.amounts(settled)
    return Line(
        attempt, attempt.created_ns, settled.state, who.tenant, who.user, who.key_id, context.request_id, amounts
    )


def correction(before: Line | None, after: Line, now_ns: int) -> Correction | None:
    """What has to be noted of a change, if the entry had been settled and is another now."""
    if before is None or before.state == ENTRY_STATE_PENDING:
        return None
    if (before.state, before.amounts.cost_nanos) == (after.state, after.amounts.cost_nanos):
        return None
    delta = after.amounts.cost_nanos - before.amounts.cost_nanos
    return Correction(before.state, after.state, delta, now_ns)


def holds(context: bytes) -> Iterable[LeaseHold]:
    """What a serialised billing context says is held, and on which leases."""
    return ledger.context_of(context).holds


def added(one: Amounts, other: Amounts, sign: int = 1) -> Amounts:
    """The sum of two amounts, or their difference."""
    return Amounts._make(map(add if sign > 0 else sub, one, other))
