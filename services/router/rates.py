"""Which ceilings a call is subject to, and how much of each its attempt needs: budgets in nano-dollars, limits in
requests, tokens and calls under way. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from modelmuxer.accounting.v1 import accounting_pb2 as pb

EACH = "*"


class AccountKey(NamedTuple):
    """What a router holds a lease of: one ceiling, one tenant, one subject; of a run, for one key."""

    ceiling: str
    tenant: str
    subject: str
    key_id: str = ""


class Claim(NamedTuple):
    """What one attempt needs of one ceiling."""

    key: AccountKey
    scope: pb.CeilingScope
    unit: pb.CeilingUnit
    amount: int
    enforced: bool = True
    warns: bool = False
    downgrades: bool = False
    budget: pb.Budget | None = None
    """What it is a claim on, if that is money."""

    @property
    def is_money(self) -> bool:
        return self.unit == pb.CEILING_UNIT_NANOS


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """Who and what a call is, as ceilings see it."""

    principal: pb.Principal
    run_id: str
    tags: Mapping[str, str]
    model: str

    def matching(self, scope: pb.CeilingScope, subject: str) -> str | None:
        """The subject of the account that the call counts on; None if it does not count at all."""
        if scope == pb.CEILING_SCOPE_TENANT:
            return ""
        if scope == pb.CEILING_SCOPE_TAG:
            name, _, value = subject.partition("=")
            own = self.tags.get(name, "")
            return f"{name}={own}" if own and value in (EACH, own) else None
        own = self._own(scope)
        return own if own and subject in (EACH, own) else None

    def _own(self, scope: pb.CeilingScope) -> str:
        match scope:
            case pb.CEILING_SCOPE_TEAM:
                return self.principal.team
            case pb.CEILING_SCOPE_USER:
                return self.principal.user
            case pb.CEILING_SCOPE_KEY:
                return self.principal.key_id
            case pb.CEILING_SCOPE_RUN:
                return self.run_id
            case pb.CEILING_SCOPE_MODEL:
                return self.model
            case _:
                return ""


@dataclass(frozen=True, slots=True)
class Policies:
    """The budgets and limits that calls of one key may be subject to."""

    budgets: tuple[pb.Budget, ...] = ()
    limits: tuple[pb.Limit, ...] = ()
    goes_on: bool = False
    """Whether calls are made while accounting cannot be asked, at the price of limits that may be exceeded."""

    def __bool__(self) -> bool:
        return bool(self.budgets or self.limits)

    def claims(self, subjects: Subjects, worst_nanos: int, worst_tokens: int) -> list[Claim]:
        """All that an attempt needs, money last: a call that a rate refuses holds up no money."""
        return [
            *_limit_claims(self.limits, subjects, worst_tokens),
            *_budget_claims(self.budgets, subjects, worst_nanos),
        ]

    def bounds(self, subjects: Subjects) -> bool:
        """Whether a hard budget applies, so that a call whose cost has no bound cannot be made."""
        return any(claim.enforced for claim in _budget_claims(self.budgets, subjects, 0))


NO_POLICIES: Final = Policies()


def _budget_claims(budgets: Iterable[pb.Budget], subjects: Subjects, nanos: int) -> Iterator[Claim]:
    principal = subjects.principal
    for budget in budgets:
        subject = subjects.matching(budget.scope, budget.subject)
        if subject is None:
            continue
        opened_by = principal.key_id if budget.scope == pb.CEILING_SCOPE_RUN else ""
        yield Claim(
            key=AccountKey(budget.id, principal.tenant, subject, opened_by),
            scope=budget.scope,
            unit=pb.CEILING_UNIT_NANOS,
            amount=nanos,
            enforced=budget.mode == pb.BUDGET_MODE_HARD,
            warns=budget.mode == pb.BUDGET_MODE_SOFT,
            downgrades=budget.on_exceed == pb.ON_EXCEED_DOWNGRADE,
            budget=budget,
        )


def _limit_claims(limits: Iterable[pb.Limit], subjects: Subjects, tokens: int) -> Iterator[Claim]:
    principal = subjects.principal
    for limit in limits:
        subject = subjects.matching(limit.scope, limit.subject)
        if subject is None:
            continue
        for rate, field, unit, amount in (
            ("calls", "concurrent_calls", pb.CEILING_UNIT_CALLS, 1),
            ("requests", "requests_per_minute", pb.CEILING_UNIT_REQUESTS, 1),
            ("tokens", "tokens_per_minute", pb.CEILING_UNIT_TOKENS, tokens),
        ):
            if limit.HasField(field):
                key = AccountKey(f"{limit.id}/{rate}", principal.tenant, subject)
                yield Claim(key=key, scope=limit.scope, unit=unit, amount=amount)
