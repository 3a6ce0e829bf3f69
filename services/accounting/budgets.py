"""Budgets and limits as they are defined: what is well formed, which ones a caller is subject to, and when a period
begins and ends. What was spent of them is accounts' business. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from modelmuxer.accounting.v1 import accounting_pb2 as pb

from services.accounting.accounts import NANOS_PER_S, Account
from shared.errors import MeshError, Reason
from shared.periods import RATES, account_id, period_bounds

EACH = "*"
DEFAULT_THRESHOLDS = (50, 80, 100)
KEEP_MONEY_NS = 400 * 24 * 3600 * NANOS_PER_S  # past periods of budgets, for reports
MAX_LIMIT = 1 << 62
_LIMIT_SCOPES = frozenset(pb.CeilingScope.values()) - {
    pb.CEILING_SCOPE_UNSPECIFIED,
    pb.CEILING_SCOPE_RUN,
    pb.CEILING_SCOPE_TAG,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """One thing that is counted and bounded: a budget, or one rate of a limit."""

    id: str
    unit: pb.CeilingUnit
    scope: pb.CeilingScope
    limit: int
    enforced: bool
    period: pb.BudgetPeriod = pb.BUDGET_PERIOD_FOREVER
    time_zone: str = ""
    thresholds: tuple[int, ...] = ()

    def account(self, tenant: str, subject: str, now_ns: int) -> Account:
        """The account, empty yet, that counts now."""
        starts_ns, ends_ns = period_bounds(self.period, self.time_zone, now_ns)
        return Account(
            id=account_id(self.id, tenant, subject, starts_ns),
            ceiling=self.id,
            tenant=tenant,
            subject=subject,
            unit=self.unit,
            starts_ns=starts_ns,
            ends_ns=ends_ns,
            forget_ns=ends_ns + KEEP_MONEY_NS if ends_ns else 0,
        )


def ceiling_of(policy: pb.Budget | pb.Limit, rate: str = "") -> Ceiling | None:
    """A budget as a ceiling, or one rate of a limit; None for a rate that the limit does not set."""
    if isinstance(policy, pb.Budget):
        return Ceiling(
            id=policy.id,
            unit=pb.CEILING_UNIT_NANOS,
            scope=policy.scope,
            limit=policy.limit_nanos,
            enforced=policy.mode == pb.BUDGET_MODE_HARD,
            period=policy.period,
            time_zone=policy.time_zone,
            thresholds=tuple(policy.threshold_percents) or DEFAULT_THRESHOLDS,
        )
    known = RATES.get(rate)
    if known is None or not policy.HasField(known.field):
        return None
    limit = getattr(policy, known.field)
    return Ceiling(id=f"{policy.id}/{rate}", unit=known.unit, scope=policy.scope, limit=limit, enforced=True)


def applies(policy: pb.Budget | pb.Limit | pb.Policy, principal: pb.Principal) -> bool:
    """Whether calls of a principal can be subject to it. Runs, tags and models are a call's to say."""
    if policy.tenant and policy.tenant != principal.tenant:
        return False
    own = {
        pb.CEILING_SCOPE_TEAM: principal.team,
        pb.CEILING_SCOPE_USER: principal.user,
        pb.CEILING_SCOPE_KEY: principal.key_id,
    }.get(policy.scope)
    if own is None:
        return True
    return bool(own) and policy.subject in (EACH, own)


def budget_problems(budget: pb.Budget) -> Iterator[MeshError]:
    """What is wrong with a budget; what it leaves out is filled in."""
    budget.mode = budget.mode or pb.BUDGET_MODE_HARD
    budget.period = budget.period or pb.BUDGET_PERIOD_FOREVER
    budget.on_exceed = budget.on_exceed or pb.ON_EXCEED_REFUSE
    yield from scope_problems(budget)
    for field, kind in (("mode", pb.BudgetMode), ("period", pb.BudgetPeriod), ("on_exceed", pb.OnExceed)):
        if getattr(budget, field) not in kind.values():
            yield malformed(field, f"{field} {getattr(budget, field)} is not known.")
    if not 0 <= budget.limit_nanos <= MAX_LIMIT:
        yield malformed("limit_nanos", "limit_nanos has to be 0 or more, and below 2^62.")
    if any(not 0 < percent <= 1000 for percent in budget.threshold_percents):
        yield malformed("threshold_percents", "threshold_percents are between 1 and 1000.")
    try:
        ZoneInfo(budget.time_zone or "UTC")
    except (KeyError, ValueError, OSError):
        yield malformed("time_zone", f'There is no time zone "{budget.time_zone}"; an example is "Europe/Berlin".')


def limit_problems(limit: pb.Limit) -> Iterator[MeshError]:
    """What is wrong with a limit."""
    yield from scope_problems(limit)
    if limit.scope not in _LIMIT_SCOPES:
        yield malformed("scope", "A limit's scope is a tenant, a team, a user, a key or a model.")
    if not any(limit.HasField(rate.field) for rate in RATES.values()):
        yield malformed("requests_per_minute", "A limit sets at least one of its rates.")
    if not all(0 <= getattr(limit, rate.field) <= MAX_LIMIT for rate in RATES.values()):
        yield malformed("requests_per_minute", "Rates have to be 0 or more, and below 2^62.")


def scope_problems(policy: pb.Budget | pb.Limit | pb.Policy) -> Iterator[MeshError]:
    """What is wrong with whom it counts together, or rules."""
    if policy.scope not in pb.CeilingScope.values() or not policy.scope:
        yield malformed("scope", "scope says what is counted together: a tenant, a team, a user, a key, …")
    elif policy.scope == pb.CEILING_SCOPE_TENANT:
        if policy.subject:
            yield malformed("subject", "A tenant's own has no subject; tenant names the tenant.")
    elif not policy.subject:
        yield malformed("subject", 'subject has to be named; "*" stands for each one by itself.')
    elif policy.scope == pb.CEILING_SCOPE_TAG and "=" not in policy.subject:
        yield malformed("subject", 'The subject of a tag is "name=value", or "name=*" for each value by itself.')


def malformed(field: str, message: str) -> MeshError:
    """The error of a field that cannot be so."""
    return MeshError(Reason.MALFORMED_REQUEST, message, field=field)
