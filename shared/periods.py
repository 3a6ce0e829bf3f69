"""A budget's periods, a limit's rates, and what the account of a ceiling is called: what lends it and what borrows it
have to mean the same. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import quote, unquote
from zoneinfo import ZoneInfo

from modelmuxer.accounting.v1 import accounting_pb2 as pb

NANOS_PER_S = 1_000_000_000
UNLENT = "unlent"
"""The lease of a hold for which none could be had: the ledger counts it on the account all the same."""


class Rate(NamedTuple):
    """One of a limit's rates: the field that sets it, and what it counts. Its ceiling is called "<limit>/<rate>"."""

    field: str
    unit: pb.CeilingUnit


RATES: Mapping[str, Rate] = {
    "calls": Rate("concurrent_calls", pb.CEILING_UNIT_CALLS),
    "requests": Rate("requests_per_minute", pb.CEILING_UNIT_REQUESTS),
    "tokens": Rate("tokens_per_minute", pb.CEILING_UNIT_TOKENS),
}


class AccountName(NamedTuple):
    """What an account's id says."""

    ceiling: str
    tenant: str
    subject: str
    starts_ns: int


def account_id(ceiling: str, tenant: str, subject: str, starts_ns: int) -> str:
    """The id of the account of a ceiling, for one subject, in the period that began then."""
    parts = (ceiling, tenant, subject, str(starts_ns // NANOS_PER_S))
    return "|".join(quote(part, safe="/= ") for part in parts)


def account_name(id_: str) -> AccountName:
    """What an id says. Raises ValueError for what is none."""
    ceiling, tenant, subject, starts_s = map(unquote, id_.split("|"))
    return AccountName(ceiling, tenant, subject, int(starts_s) * NANOS_PER_S)


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


def _ns(time: datetime) -> int:
    return int(time.timestamp()) * NANOS_PER_S
