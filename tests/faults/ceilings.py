"""The ceilings that the nemesis' callers meet: budgets of every scope, rates, calls at once. Some budgets are good for
a few calls only; callers come to the end of one and go on to the next, a job of its own each. Afterwards nobody has
spent beyond a hard one, nothing is held, and what they have spent is the bill's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from modelmuxer.accounting.v1 import accounting_pb2 as pb
from modelmuxer.accounting.v1.accounting_pb2_grpc import AccountingServiceStub, AdminServiceStub

TENANT = "acme"
TAGS = ("search", "summary", "agent")
JOB_MODEL = "openai/gpt-4o-mini"
JOB_TOKENS = 60  # at most, of one call's answer
_JOB_NANOS = 250_000  # about four such calls at once, or ten one after the other
_USERS = ("ada", "bob", "cleo")
_DOLLAR = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Callers' keys, and the accounting service that counts what they spend."""

    keys: Sequence[str]
    """Of users whose own budgets are ample."""
    tight_keys: Sequence[str]
    """Each of a user whose budget is good for a few calls."""
    address: str
    admin_key: str

    async def standing(self) -> list[pb.BudgetStatus]:
        """Every budget, each of its accounts apart."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            stub = AccountingServiceStub(channel)
            answer = await stub.ListBudgets(
                pb.ListBudgetsRequest(include_past=True), metadata=_metadata(self.admin_key), timeout=30
            )
            return list(answer.budgets)


async def made(address: str, admin_key: str, seconds: float) -> Ceilings:
    """Makes keys and ceilings for a run of so many seconds."""
    frugal = [f"temp-{number}" for number in range(2 + int(seconds) // 30)]
    async with grpc.aio.insecure_channel(address) as channel:
        admin, metadata = AdminServiceStub(channel), _metadata(admin_key)
        keys = []
        for user in (*_USERS, *frugal):
            request = pb.CreateKeyRequest(name=user, tenant=TENANT, team="core", user=user)
            keys.append((await admin.CreateKey(request, metadata=metadata)).secret)
        tight = (
            *((pb.CEILING_SCOPE_USER, user) for user in frugal),
            *((pb.CEILING_SCOPE_RUN, "*"), (pb.CEILING_SCOPE_TAG, "job=*")),
        )
        for budget in (
            pb.Budget(scope=pb.CEILING_SCOPE_TENANT, limit_nanos=1000 * _DOLLAR),
            pb.Budget(scope=pb.CEILING_SCOPE_TEAM, subject="core", limit_nanos=500 * _DOLLAR),
            pb.Budget(scope=pb.CEILING_SCOPE_USER, subject="bob", limit_nanos=100 * _DOLLAR),
            pb.Budget(scope=pb.CEILING_SCOPE_TAG, subject="feature=agent", limit_nanos=100 * _DOLLAR),
            pb.Budget(scope=pb.CEILING_SCOPE_KEY, subject="*", limit_nanos=0, mode=pb.BUDGET_MODE_SOFT),
            *(pb.Budget(scope=scope, subject=subject, limit_nanos=_JOB_NANOS) for scope, subject in tight),
        ):
            budget.tenant = TENANT
            await admin.CreateBudget(pb.CreateBudgetRequest(budget=budget), metadata=metadata)
        for limit in (
            pb.Limit(scope=pb.CEILING_SCOPE_USER, subject="ada", requests_per_minute=600, tokens_per_minute=1_000_000),
            pb.Limit(scope=pb.CEILING_SCOPE_USER, subject="cleo", concurrent_calls=5),
        ):
            limit.tenant = TENANT
            await admin.CreateLimit(pb.CreateLimitRequest(limit=limit), metadata=metadata)
    return Ceilings(keys[: len(_USERS)], keys[len(_USERS) :], address, admin_key)


def crossed(statuses: Sequence[pb.BudgetStatus], entries: Sequence[pb.Entry], bill: Mapping[str, int]) -> list[str]:
    """Hard budgets of which more is on the bill than their limit, and budgets that count other than the bill.

    `bill` is what is charged, by attempt id.
    """
    found = []
    for status in statuses:
        charged = sum(bill.get(entry.attempt_id, 0) for entry in entries if _counts(status, entry))
        whose = f"{pb.CeilingScope.Name(status.budget.scope)} {status.subject}"
        standing = status.standing
        if status.budget.mode == pb.BUDGET_MODE_HARD and charged > standing.limit:
            found.append(f"{whose}: {charged} nano-dollars are on the bill, of a budget of {standing.limit}")
        if standing.spent != charged:
            found.append(f"{whose}: {standing.spent} nano-dollars count as spent, {charged} are on the bill")
        if standing.held or standing.leased:
            found.append(f"{whose}: {standing.held} are held and {standing.leased} lent, and nobody is there any more")
    return found


def used_up(statuses: Sequence[pb.BudgetStatus], entries: Sequence[pb.Entry]) -> list[pb.BudgetStatus]:
    """Hard budgets of which less is left than a call on them had to hold."""
    held: dict[tuple[str, ...], int] = {}
    for hold in (hold for entry in entries for hold in entry.holds):
        account = tuple(hold.account.split("|")[:3])
        held[account] = max(held.get(account, 0), hold.held_nanos)
    return [
        status
        for status in statuses
        if status.budget.mode == pb.BUDGET_MODE_HARD
        and status.standing.limit - status.standing.spent
        < held.get((status.budget.id, status.tenant, status.subject), 0)
    ]


def _counts(status: pb.BudgetStatus, entry: pb.Entry) -> bool:
    who, subject = entry.principal, status.subject
    if who.tenant != status.tenant:
        return False
    own: dict[Any, str] = {
        pb.CEILING_SCOPE_TENANT: subject,
        pb.CEILING_SCOPE_TEAM: who.team,
        pb.CEILING_SCOPE_USER: who.user,
        pb.CEILING_SCOPE_KEY: who.key_id,
        pb.CEILING_SCOPE_RUN: entry.run_id,
        pb.CEILING_SCOPE_TAG: subject if subject in {f"{name}={value}" for name, value in entry.tags.items()} else "",
    }
    return own[status.budget.scope] == subject


def _metadata(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)
