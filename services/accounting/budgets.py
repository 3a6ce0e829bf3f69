"""Budgets, limits and tenants as they are defined: what is well formed, which ones a caller is subject to, and when a
period begins and ends. What was spent of them is accounts' business. Pure.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from urllib.parse import quote
from zoneinfo import ZoneInfo

from google.protobuf.field_mask_pb2 import FieldMask
from modelmuxer.accounting.v1 import accounting_pb2 as pb

from services.accounting.accounts import NANOS_PER_S, Account
from shared.errors import MeshError, Reason

Policy = TypeVar("Policy", pb.Budget, pb.Limit, pb.Tenant)

EACH = "*"
DEFAULT_THRESHOLDS = (50, 80, 100)
KEEP_MONEY_NS = 400 * 24 * 3600 * NANOS_PER_S  # past periods of budgets, for reports
KEEP_RATES_NS = 3600 * NANOS_PER_S
MAX_LIMIT = 1 << 62
_MAX_CHARS = 256
_PREFIXES = {pb.Budget: "bud", pb.Limit: "lim", pb.Tenant: "ten"}
_MINUTE_NS = 60 * NANOS_PER_S
_RATES = {
    "requests": pb.CEILING_UNIT_REQUESTS,
    "tokens": pb.CEILING_UNIT_TOKENS,
    "calls": pb.CEILING_UNIT_CALLS,
}
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
        starts_ns, ends_ns = self._bounds_ns(now_ns)
        parts = (self.id, tenant, subject, str(starts_ns // NANOS_PER_S))
        keep_ns = KEEP_MONEY_NS if self.unit == pb.CEILING_UNIT_NANOS else KEEP_RATES_NS
        return Account(
            id="|".join(quote(part, safe="/= ") for part in parts),
            ceiling=self.id,
            tenant=tenant,
            subject=subject,
            unit=self.unit,
            starts_ns=starts_ns,
            ends_ns=ends_ns,
            forget_ns=ends_ns + keep_ns if ends_ns else 0,
        )

    def _bounds_ns(self, now_ns: int) -> tuple[int, int]:
        if self.unit in (pb.CEILING_UNIT_REQUESTS, pb.CEILING_UNIT_TOKENS):
            starts_ns = now_ns - now_ns % _MINUTE_NS
            return starts_ns, starts_ns + _MINUTE_NS
        return period_bounds(self.period, self.time_zone, now_ns)


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
    field = {"requests": "requests_per_minute", "tokens": "tokens_per_minute", "calls": "concurrent_calls"}.get(rate)
    if field is None or not policy.HasField(field):
        return None
    unit = _RATES[rate]
    return Ceiling(id=f"{policy.id}/{rate}", unit=unit, scope=policy.scope, limit=getattr(policy, field), enforced=True)


def applies(policy: pb.Budget | pb.Limit, principal: pb.Principal) -> bool:
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


def period_bounds(period: pb.BudgetPeriod, time_zone: str, now_ns: int) -> tuple[int, int]:
    """When the period that counts now began and when it ends; 0, 0 for one that never ends."""
    now = datetime.fromtimestamp(now_ns // NANOS_PER_S, ZoneInfo(time_zone or "UTC"))
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    match period:
        case pb.BUDGET_PERIOD_HOUR:
            # Hours are counted in UTC: a zone's clock repeats one of them each autumn.
            begins = datetime.fromtimestamp(now_ns // NANOS_PER_S // 3600 * 3600, UTC)
            return _ns(begins), _ns(begins + timedelta(hours=1))
        case pb.BUDGET_PERIOD_DAY:
            return _ns(midnight), _ns(midnight + timedelta(days=1))
        case pb.BUDGET_PERIOD_WEEK:
            monday = midnight - timedelta(days=midnight.weekday())
            return _ns(monday), _ns(monday + timedelta(days=7))
        case pb.BUDGET_PERIOD_MONTH:
            first = midnight.replace(day=1)
            return _ns(first), _ns((first + timedelta(days=32)).replace(day=1))
        case _:
            return 0, 0


def created(policy: Policy, now_ns: int) -> Policy:
    """The policy as it is kept from now on. Raises MALFORMED_REQUEST."""
    made = type(policy)()
    made.CopyFrom(policy)
    made.id = policy.id or f"{_PREFIXES[type(policy)]}_{secrets.token_hex(8)}"
    made.create_time.FromNanoseconds(now_ns)
    made.update_time.FromNanoseconds(now_ns)
    return _checked(made)


def updated(standing: Policy, wanted: Policy, mask: FieldMask, now_ns: int) -> Policy:
    """A policy after a change of the fields that the mask names, or of all. Raises MALFORMED_REQUEST."""
    made = type(standing)()
    if mask.paths:
        unknown = [path for path in mask.paths if path not in standing.DESCRIPTOR.fields_by_name]
        if unknown:
            raise _malformed("update_mask", f'There is no field "{unknown[0]}".')
        made.CopyFrom(standing)
        for path in mask.paths:
            made.ClearField(path)
        mask.MergeMessage(wanted, made, True, True)
    else:
        made.CopyFrom(wanted)
    made.id = standing.id
    made.create_time.CopyFrom(standing.create_time)
    made.update_time.FromNanoseconds(now_ns)
    if not isinstance(made, pb.Tenant) and not isinstance(standing, pb.Tenant):
        for field in ("tenant", "scope", "subject"):
            if getattr(made, field) != getattr(standing, field):
                raise _malformed(field, f"{field} says whose calls are counted and cannot change; make a new one.")
    return _checked(made)


def _checked(policy: Policy) -> Policy:
    for problem in _problems(policy):
        raise problem
    return policy


def _problems(policy: pb.Budget | pb.Limit | pb.Tenant) -> Iterator[MeshError]:
    texts = {"id": policy.id, "name": policy.name}
    if not isinstance(policy, pb.Tenant):
        texts |= {"tenant": policy.tenant, "subject": policy.subject}
    for field, text in texts.items():
        if len(text) > _MAX_CHARS or not text.isprintable():
            yield _malformed(field, f"{field} has to be printable and at most {_MAX_CHARS} characters long.")
    if "/" in policy.id and not isinstance(policy, pb.Tenant):
        yield _malformed("id", "id may not hold a slash.")
    if isinstance(policy, pb.Budget):
        yield from _budget_problems(policy)
    elif isinstance(policy, pb.Limit):
        yield from _limit_problems(policy)


def _budget_problems(budget: pb.Budget) -> Iterator[MeshError]:
    budget.mode = budget.mode or pb.BUDGET_MODE_HARD
    budget.period = budget.period or pb.BUDGET_PERIOD_FOREVER
    budget.on_exceed = budget.on_exceed or pb.ON_EXCEED_REFUSE
    yield from _scope_problems(budget)
    for field, kind in (("mode", pb.BudgetMode), ("period", pb.BudgetPeriod), ("on_exceed", pb.OnExceed)):
        if getattr(budget, field) not in kind.values():
            yield _malformed(field, f"{field} {getattr(budget, field)} is not known.")
    if not 0 <= budget.limit_nanos <= MAX_LIMIT:
        yield _malformed("limit_nanos", "limit_nanos has to be 0 or more, and below 2^62.")
    if any(not 0 < percent <= 1000 for percent in budget.threshold_percents):
        yield _malformed("threshold_percents", "threshold_percents are between 1 and 1000.")
    try:
        ZoneInfo(budget.time_zone or "UTC")
    except (KeyError, ValueError, OSError):
        yield _malformed("time_zone", f'There is no time zone "{budget.time_zone}"; an example is "Europe/Berlin".')


def _limit_problems(limit: pb.Limit) -> Iterator[MeshError]:
    yield from _scope_problems(limit)
    if limit.scope not in _LIMIT_SCOPES:
        yield _malformed("scope", "A limit's scope is a tenant, a team, a user, a key or a model.")
    rates = [limit.requests_per_minute, limit.tokens_per_minute, limit.concurrent_calls]
    if not any(limit.HasField(name) for name in ("requests_per_minute", "tokens_per_minute", "concurrent_calls")):
        yield _malformed("requests_per_minute", "A limit sets at least one of its rates.")
    if not all(0 <= rate <= MAX_LIMIT for rate in rates):
        yield _malformed("requests_per_minute", "Rates have to be 0 or more, and below 2^62.")


def _scope_problems(policy: pb.Budget | pb.Limit) -> Iterator[MeshError]:
    if policy.scope not in pb.CeilingScope.values() or not policy.scope:
        yield _malformed("scope", "scope says what is counted together: a tenant, a team, a user, a key, …")
    elif policy.scope == pb.CEILING_SCOPE_TENANT:
        if policy.subject:
            yield _malformed("subject", "A tenant's own budget or limit has no subject; tenant names the tenant.")
    elif not policy.subject:
        yield _malformed("subject", 'subject has to be named; "*" stands for each one by itself.')
    elif policy.scope == pb.CEILING_SCOPE_TAG and "=" not in policy.subject:
        yield _malformed("subject", 'The subject of a tag is "name=value", or "name=*" for each value by itself.')


def _ns(time: datetime) -> int:
    return int(time.timestamp()) * NANOS_PER_S


def _malformed(field: str, message: str) -> MeshError:
    return MeshError(Reason.MALFORMED_REQUEST, message, field=field)


def rates_of(limit: pb.Limit) -> Iterable[Ceiling]:
    """The rates that a limit sets."""
    return filter(None, (ceiling_of(limit, rate) for rate in _RATES))
