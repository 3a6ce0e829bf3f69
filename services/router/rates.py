"""Which ceilings a call is subject to, and how much of each its attempt needs: budgets in nano-dollars, limits in
requests, tokens and calls under way. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from modelmuxer.accounting.v1 import accounting_pb2 as pb

from shared.periods import RATES

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


class _Rule(NamedTuple):
    """A ceiling as plain values: a budget, or one of a limit's rates."""

    ceiling: str
    scope: pb.CeilingScope
    subject: str
    unit: pb.CeilingUnit
    enforced: bool = True
    warns: bool = False
    downgrades: bool = False
    budget: pb.Budget | None = None

    def claim(self, subjects: Subjects, amount: int) -> Claim | None:
        """What a call needs of it; None if it does not apply."""
        scope = self.scope
        subject = subjects.matching(scope, self.subject)
        if subject is None:
            return None
        principal = subjects.principal
        opened_by = principal.key_id if scope == pb.CEILING_SCOPE_RUN and self.budget is not None else ""
        key = AccountKey(self.ceiling, principal.tenant, subject, opened_by)
        return Claim(key, scope, self.unit, amount, self.enforced, self.warns, self.downgrades, self.budget)


class Policies:
    """The budgets and limits that calls of one key may be subject to. Read once: each attempt asks them."""

    def __init__(self, budgets: Iterable[pb.Budget] = (), limits: Iterable[pb.Limit] = (), *, goes_on: bool = False):
        """`goes_on`: whether calls are made while accounting cannot be asked, at the price of limits that may be
        exceeded."""
        self.goes_on = goes_on
        self._budgets = tuple(map(_of_budget, budgets))
        self._rates = tuple(rule for limit in limits for rule in _of_limit(limit))

    def __bool__(self) -> bool:
        return bool(self._budgets or self._rates)

    def claims(self, subjects: Subjects, worst_nanos: int, worst_tokens: int) -> list[Claim]:
        """All that an attempt needs, money last: a call that a rate refuses holds up no money."""
        tokens = pb.CEILING_UNIT_TOKENS
        claims = [rule.claim(subjects, worst_tokens if rule.unit == tokens else 1) for rule in self._rates]
        claims += [rule.claim(subjects, worst_nanos) for rule in self._budgets]
        return [claim for claim in claims if claim is not None]

    def bounds(self, subjects: Subjects) -> bool:
        """Whether a hard budget applies, so that a call whose cost has no bound cannot be made."""
        return any(rule.enforced and rule.claim(subjects, 0) for rule in self._budgets)


def _of_budget(budget: pb.Budget) -> _Rule:
    return _Rule(
        ceiling=budget.id,
        scope=budget.scope,
        subject=budget.subject,
        unit=pb.CEILING_UNIT_NANOS,
        enforced=budget.mode == pb.BUDGET_MODE_HARD,
        warns=budget.mode == pb.BUDGET_MODE_SOFT,
        downgrades=budget.on_exceed == pb.ON_EXCEED_DOWNGRADE,
        budget=budget,
    )


def _of_limit(limit: pb.Limit) -> Iterator[_Rule]:
    for name, rate in RATES.items():
        if limit.HasField(rate.field):
            yield _Rule(f"{limit.id}/{name}", limit.scope, limit.subject, rate.unit)


NO_POLICIES: Final = Policies()
