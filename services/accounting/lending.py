"""Lends ceilings to routers: takes their reports, grants what there is, asks back what lies idle elsewhere while
somebody waits for it, and closes what dead routers never returned. What a report comes to is decided by `accounts`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from weakref import WeakValueDictionary

from google.protobuf.duration_pb2 import Duration
from modelmuxer.accounting.v1 import accounting_pb2 as pb

from services.accounting import accounts, budgets
from services.accounting.accounts import Account, Event, ForeignRun, LeaseLost, Report, Terms, Verdict
from services.accounting.budgets import Ceiling
from services.accounting.policies import PolicyChanges
from services.accounting.stores import Store
from shared.errors import MeshError, Reason
from shared.periods import account_name
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
        notify: Callable[[], None] | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`notify` is called when an account has events to be told; without it none are kept."""
        self._store = store
        self._changes = changes
        self._ttl_ns = int(ttl_s * NANOS_PER_S)
        self._longest_call_ns = int(longest_call_s * NANOS_PER_S)
        self._notify = notify
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
            frees_ns=request.frees.ToNanoseconds(),
        )
        return await self._report(ceiling, request.account, said, _seconds(request.wait))

    async def give_back(self, request: pb.ReturnLeaseRequest) -> None:
        """Closes a lease. What is unknown is closed already."""
        await self._step(
            request.account,
            lambda account: accounts.give_back(
                account, request.lease_id, request.sequence, request.used, self._now_ns()
            ),
        )

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
            now_ns, longest_call_ns = self._now_ns(), self._longest_call_ns
            in_doubt = accounts.in_doubt(account, now_ns, longest_call_ns)
            spends = await self._lease_spends(account, in_doubt)
            for lease_id in in_doubt:
                closing = partial(accounts.close_by_ledger, lease_id=lease_id, spent=spends.get(lease_id, 0))
                await self._step(account.id, partial(closing, now_ns=now_ns, longest_call_ns=longest_call_ns))
                metrics.LEASES_CLOSED_IN_DOUBT.inc()
                log.warning("a lease was never returned; it closes at what the ledger says", extra={"lease": lease_id})
            await self._recount_leases(account)
            if accounts.fold(account, now_ns) is not account:
                await self._step(account.id, partial(accounts.fold, now_ns=now_ns))
        await self._store.forget_accounts(self._now_ns())

    async def recount(self, account_ids: Iterable[str] | None = None) -> None:
        """Brings accounts, or all of them, up to what the ledger says of leases that have closed, the forgotten ones
        included: something that it says has changed late. May be repeated."""
        wanted = None if account_ids is None else set(account_ids)
        if wanted is not None and not wanted:
            return
        ceilings = None if wanted is None else sorted({_ceiling_id(account_id) for account_id in wanted})
        found = await self._store.accounts(ceilings)
        if wanted is not None:
            for account_id in wanted - {account.id for account in found}:
                found += [account] if (account := await self._opened(account_id)) is not None else []
        for account in found:
            if account.unit == pb.CEILING_UNIT_NANOS and (wanted is None or account.id in wanted):
                await self._recount_leases(account)
                await self._recount_folded(account)

    async def _recount_leases(self, account: Account) -> None:
        now_ns, longest_call_ns = self._now_ns(), self._longest_call_ns
        spends = await self._lease_spends(account, accounts.recountable(account, now_ns, longest_call_ns))
        for lease_id, spent in spends.items():
            if spent != account.leases[lease_id].used:
                counting = partial(accounts.recount, lease_id=lease_id, spent=spent)
                await self._step(account.id, partial(counting, now_ns=now_ns, longest_call_ns=longest_call_ns))

    async def _opened(self, account_id: str) -> Account | None:
        """The account of that name, which nobody has borrowed from yet; None if there can be none."""
        try:
            name = account_name(account_id)
            ceiling = await self.ceiling(name.ceiling)
        except (ValueError, MeshError):
            return None
        empty = ceiling.account(name.tenant, name.subject, name.starts_ns or self._now_ns())
        if empty.id != account_id:
            return None

        def change(account: Account | None) -> tuple[Account, Account]:
            return account or empty, account or empty

        return await self._store.change_account(account_id, change)

    async def _recount_folded(self, account: Account) -> None:
        remembered = list(account.leases)
        spent = await self._store.account_spend(account.id, besides=remembered)
        if spent != account.closed:
            step = partial(accounts.recount_folded, remembered=remembered, spent=spent)
            await self._step(account.id, step)

    async def _lease_spends(self, account: Account, lease_ids: list[str]) -> dict[str, int]:
        """In one question: an account that is much borrowed from has hundreds of leases."""
        if not lease_ids or account.unit != pb.CEILING_UNIT_NANOS:
            return {}
        return await self._store.lease_spends(account.id, lease_ids)

    async def _step(self, account_id: str, step: Callable[[Account], Account]) -> None:
        """Changes an account that exists, and raises the thresholds that it reaches by that."""
        try:
            ceiling = await self.ceiling(_ceiling_id(account_id))
        except MeshError:
            ceiling = None  # deleted; its accounts settle all the same

        def change(account: Account | None) -> tuple[Account | None, tuple[Account | None, list[Event]]]:
            if account is None:
                return None, (None, [])
            after, reached = step(account), list[Event]()
            if ceiling is not None and after.spent > account.spent:
                after, reached = self._crossed(after, ceiling)
            return after, (after, reached)

        account, reached = await self._store.change_account(account_id, change)
        if account is not None and ceiling is not None:
            self._raise(ceiling, account, reached)
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

            def change(account: Account | None, now_ns: int = now_ns) -> tuple[Account, tuple[Verdict, list[Event]]]:
                if account is None:
                    if isinstance(empty, str):
                        raise LeaseLost
                    account = empty
                if opened_by:
                    account = accounts.open_run(account, opened_by)
                verdict = accounts.report(account, said, terms, now_ns)
                account, reached = self._crossed(verdict.account, ceiling)
                return account, (verdict, reached)

            verdict, reached = await self._changed(account_id, change)
            self._raise(ceiling, verdict.account, reached)
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
        self, account_id: str, change: Callable[[Account | None], tuple[Account, tuple[Verdict, list[Event]]]]
    ) -> tuple[Verdict, list[Event]]:
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
        now_ns = self._now_ns()
        if account.ends_ns:
            answer.period_remaining.FromNanoseconds(max(0, account.ends_ns - now_ns))
        if account.frees_ns:
            answer.frees.FromNanoseconds(max(0, account.frees_ns - now_ns))
        return answer

    def _crossed(self, account: Account, ceiling: Ceiling) -> tuple[Account, list[Event]]:
        keep = self._notify is not None
        return accounts.crossed(account, ceiling.limit, ceiling.thresholds, self._now_ns(), keep=keep)

    def _raise(self, ceiling: Ceiling, account: Account, reached: list[Event]) -> None:
        for event in reached:
            metrics.BUDGET_THRESHOLDS.labels(str(event.percent)).inc()
            log.warning(
                "a budget has reached a threshold",
                extra={
                    "budget": ceiling.id,
                    "tenant": account.tenant,
                    "subject": account.subject,
                    "percent": event.percent,
                    "spent_nanos": event.spent,
                    "limit_nanos": event.limit,
                },
            )
        if reached and self._notify is not None:
            self._notify()

    def _news_of(self, account_id: str) -> asyncio.Event:
        news = self._news.get(account_id)
        if news is None:
            news = self._news[account_id] = asyncio.Event()
        return news

    def _tell(self, account_id: str) -> None:
        """Wakes who waits for the account; later ones wait afresh."""
        if waiting := self._news.pop(account_id, None):
            waiting.set()


def _ceiling_id(account_id: str) -> str:
    return account_id.partition("|")[0]


def _seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / NANOS_PER_S
