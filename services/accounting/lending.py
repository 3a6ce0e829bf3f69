"""Lends ceilings to routers: takes their reports, grants what there is, asks back what lies idle elsewhere while
somebody waits for it, and closes what dead routers never returned. What a report comes to is decided by `accounts`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from weakref import WeakValueDictionary

from google.protobuf.duration_pb2 import Duration
from modelmuxer.accounting.v1 import accounting_pb2 as pb

from services.accounting import accounts, budgets
from services.accounting.accounts import Account, ForeignRun, LeaseLost, Report, Terms, Verdict
from services.accounting.budgets import Ceiling
from services.accounting.policies import PolicyChanges
from services.accounting.stores import Store
from shared.errors import MeshError, Reason
from shared.telemetry import metrics

MAX_WAIT_S = 1.0
POLL_S = 0.05  # another accounting process may have taken what was given back
NANOS_PER_S = 1_000_000_000

log = logging.getLogger("modelmuxer.accounting")


class Lending:
    """The lender. Each method is one atomic step on one account, repeated while it waits."""

    def __init__(
        self,
        store: Store,
        changes: PolicyChanges,
        *,
        ttl_s: float,
        longest_call_s: float,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store
        self._changes = changes
        self._ttl_ns = int(ttl_s * NANOS_PER_S)
        self._longest_call_ns = int(longest_call_s * NANOS_PER_S)
        self._now_ns = now_ns
        self._news: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()

    async def acquire(self, request: pb.AcquireLeaseRequest) -> pb.Lease:
        """A lease on the account that counts now. Raises UNKNOWN_CEILING, and KEY_NOT_ALLOWED for another's run."""
        ceiling = await self.ceiling(request.ceiling)
        empty = ceiling.account(request.tenant, request.subject, self._now_ns())
        said = Report(lease_id=request.lease_id, holder=request.holder, need=request.need, want=request.want)
        opened_by = request.key_id if ceiling.scope == pb.CEILING_SCOPE_RUN else ""
        return await self._report(ceiling, empty, said, _seconds(request.wait), opened_by)

    async def renew(self, request: pb.RenewLeaseRequest) -> pb.Lease:
        """The lease after a report. Raises LEASE_LOST."""
        ceiling = await self.ceiling(_ceiling_id(request.account))
        said = Report(
            lease_id=request.lease_id,
            sequence=request.sequence,
            used=request.used,
            held=request.held,
            keep=request.keep,
            need=request.need,
            want=request.want,
        )
        return await self._report(ceiling, request.account, said, _seconds(request.wait))

    async def give_back(self, request: pb.ReturnLeaseRequest) -> None:
        """Closes a lease. What is unknown is closed already."""

        def change(account: Account | None) -> tuple[Account | None, None]:
            if account is None:
                return None, None
            now_ns = self._now_ns()
            return accounts.give_back(account, request.lease_id, request.sequence, request.used, now_ns), None

        await self._store.change_account(request.account, change)
        self._tell(request.account)

    async def ceiling(self, ceiling_id: str) -> Ceiling:
        """A ceiling as it is defined now. Raises UNKNOWN_CEILING."""
        policy_id, _, rate = ceiling_id.partition("/")
        record = await self._store.policy("limit" if rate else "budget", policy_id)
        found: Ceiling | None = None
        if record is not None:
            kind = pb.Limit if rate else pb.Budget
            found = budgets.ceiling_of(kind.FromString(record.document), rate)
        if found is None:
            raise MeshError(Reason.UNKNOWN_CEILING, f'There is no budget or limit "{ceiling_id}" (any more).')
        return found

    async def sweep(self) -> None:
        """Closes leases in doubt, sets closed ones to what the ledger says, and forgets what is old."""
        for account in await self._store.accounts():
            now_ns = self._now_ns()
            doubtful = accounts.in_doubt(account, now_ns, self._longest_call_ns)
            for lease_id in doubtful:
                spent = await self._store.lease_spend(lease_id)
                step = partial(accounts.close_by_ledger, lease_id=lease_id, spent=spent)
                await self._step(account.id, step)
                metrics.LEASES_CLOSED_IN_DOUBT.inc()
                log.warning("a lease was never returned; it closes at what the ledger says", extra={"lease": lease_id})
            for lease_id in accounts.recountable(account, now_ns, self._longest_call_ns):
                spent = await self._store.lease_spend(lease_id)
                if spent != account.leases[lease_id].used:
                    await self._step(account.id, partial(accounts.recount, lease_id=lease_id, spent=spent))
            if accounts.fold(account, now_ns) is not account:
                await self._store.change_account(account.id, _folding(now_ns))
        await self._store.forget_accounts(self._now_ns())

    async def _step(self, account_id: str, step: Callable[..., Account]) -> None:
        now_ns, longest_call_ns = self._now_ns(), self._longest_call_ns

        def change(account: Account | None) -> tuple[Account | None, None]:
            if account is None:
                return None, None
            return step(account, now_ns=now_ns, longest_call_ns=longest_call_ns), None

        await self._store.change_account(account_id, change)
        self._tell(account_id)

    async def _report(
        self, ceiling: Ceiling, empty: Account | str, said: Report, wait_s: float, opened_by: str = ""
    ) -> pb.Lease:
        account_id = empty if isinstance(empty, str) else empty.id
        terms = Terms(limit=ceiling.limit, enforced=ceiling.enforced, ttl_ns=self._ttl_ns)
        give_up_s = time.monotonic() + min(wait_s, MAX_WAIT_S)
        heard: tuple[int, int] | None = None
        while True:
            news = self._news_of(account_id)  # before the store is asked: nothing is missed
            now_ns = self._now_ns()

            def change(account: Account | None, now_ns: int = now_ns) -> tuple[Account, tuple[Verdict, list[int]]]:
                if account is None:
                    if isinstance(empty, str):
                        raise LeaseLost
                    account = empty
                if opened_by:
                    account = accounts.open_run(account, opened_by)
                verdict = accounts.report(account, said, terms, now_ns)
                account, reached = accounts.crossed(verdict.account, ceiling.limit, ceiling.thresholds)
                return account, (verdict, reached)

            verdict, reached = await self._changed(account_id, change)
            self._notify(ceiling, verdict.account, reached)
            stands = (verdict.account.committed, verdict.account.spent)
            if stands != heard:
                self._tell(account_id)
                news = self._news_of(account_id)
            heard = stands
            if verdict.granted >= said.need or verdict.exhausted or verdict.superseded:
                break
            left_s = give_up_s - time.monotonic()
            if left_s <= 0:
                break
            self._changes.ask_back(account_id)
            await self._store.ask_back(account_id)
            try:
                async with asyncio.timeout(min(left_s, POLL_S)):
                    await news.wait()
            except TimeoutError:
                continue
        return self._lease(ceiling, verdict, said.lease_id)

    async def _changed(
        self, account_id: str, change: Callable[[Account | None], tuple[Account, tuple[Verdict, list[int]]]]
    ) -> tuple[Verdict, list[int]]:
        try:
            return await self._store.change_account(account_id, change)
        except LeaseLost:
            raise MeshError(Reason.LEASE_LOST, "The lease was closed; ask for a new one.") from None
        except ForeignRun:
            raise MeshError(
                Reason.KEY_NOT_ALLOWED, "The run was opened by another key; a run has one key from its first call on."
            ) from None

    def _lease(self, ceiling: Ceiling, verdict: Verdict, lease_id: str) -> pb.Lease:
        account, lease = verdict.account, verdict.lease
        answer = pb.Lease(
            id=lease_id,
            account=account.id,
            granted=lease.granted,
            standing=account.standing(ceiling.limit),
            exhausted=verdict.exhausted,
        )
        answer.expire_time.FromNanoseconds(lease.expires_ns)
        answer.ttl.FromNanoseconds(self._ttl_ns)
        if account.ends_ns:
            answer.period_remaining.FromNanoseconds(max(0, account.ends_ns - self._now_ns()))
        return answer

    def _notify(self, ceiling: Ceiling, account: Account, reached: list[int]) -> None:
        for percent in reached:
            metrics.BUDGET_THRESHOLDS.labels(str(percent)).inc()
            log.warning(
                "a budget has reached a threshold",
                extra={
                    "budget": ceiling.id,
                    "tenant": account.tenant,
                    "subject": account.subject,
                    "percent": percent,
                    "spent_nanos": account.spent,
                    "limit_nanos": ceiling.limit,
                },
            )

    def _news_of(self, account_id: str) -> asyncio.Event:
        news = self._news.get(account_id)
        if news is None:
            news = self._news[account_id] = asyncio.Event()
        return news

    def _tell(self, account_id: str) -> None:
        """Wakes who waits for the account; later ones wait afresh."""
        if waiting := self._news.pop(account_id, None):
            waiting.set()


def _folding(now_ns: int) -> Callable[[Account | None], tuple[Account | None, None]]:
    def change(account: Account | None) -> tuple[Account | None, None]:
        return (accounts.fold(account, now_ns) if account is not None else None), None

    return change


def _ceiling_id(account_id: str) -> str:
    return account_id.partition("|")[0]


def _seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / NANOS_PER_S
