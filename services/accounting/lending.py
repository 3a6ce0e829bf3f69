"""Lends ceilings to routers: takes their reports, grants what there is, asks back what lies idle elsewhere while
somebody waits for it, and closes what dead routers never returned. What a report comes to is decided by `accounts`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from weakref import WeakValueDictionary

from google.protobuf.duration_pb2 import Duration
from modelmuxer.accounting.v1 import accounting_pb2 as pb

from services.accounting import accounts, budgets
from services.accounting.accounts import Account, Event, ForeignRun, LeaseLost, Report, Terms, Verdict
from services.accounting.budgets import Ceiling
from services.accounting.policies import PolicyChanges
from services.accounting.stores import Leases, Store
from shared.errors import MeshError, Reason
from shared.periods import UNLENT, account_name
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
        self._swept_ns = 0
        """When the last sweep began of those that did all that there was to do."""
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
        now_ns, found = self._now_ns(), await self._store.accounts()
        in_doubt = {each.id: accounts.in_doubt(each, now_ns, self._longest_call_ns) for each in found}
        await self._close_by_ledger({each.id: each for each in found if in_doubt[each.id]}, in_doubt)
        unsettled = {each.id: accounts.unsettled(each, now_ns, self._longest_call_ns, self._swept_ns) for each in found}
        await self._count(found, unsettled)
        for account in found:
            if accounts.fold(account, now_ns) is not account:
                await self._step(account.id, partial(accounts.fold, now_ns=now_ns))
        await self._store.forget_accounts(now_ns)
        self._swept_ns = now_ns

    async def recount(self, holds: Iterable[tuple[str, str]]) -> None:
        """Brings accounts up to what the ledger says of these leases, each with its account before it, the forgotten
        ones included: something that it says has changed late. May be repeated."""
        wanted: defaultdict[str, set[str]] = defaultdict(set)
        for account_id, lease_id in holds:
            wanted[account_id].add(lease_id)
        if not wanted:
            return
        found = await self._store.accounts(sorted({_ceiling_id(account_id) for account_id in wanted}))
        standing = {account.id: account for account in found if account.id in wanted}
        remembering: list[Account] = []
        countable: dict[str, set[str]] = {}
        forgetful: list[Account] = []
        for account_id, lease_ids in wanted.items():
            account = standing.get(account_id) or await self._opened(account_id)
            if account is None or account.unit != pb.CEILING_UNIT_NANOS:
                continue
            older = account
            if UNLENT in lease_ids and UNLENT not in account.leases:
                await self._step(account_id, accounts.with_unlent)
                account = accounts.with_unlent(account)
            remembering.append(account)
            recountable = accounts.recountable(account, self._now_ns(), self._longest_call_ns)
            countable[account_id] = lease_ids.intersection(recountable)
            # An account of older days counts what had no lease among what is forgotten.
            if not lease_ids <= (older if older.closed else account).leases.keys():
                forgetful.append(account)
        await self._count(remembering, countable)  # all of them in one question
        for account in forgetful:
            await self._recount_folded(account)

    def is_late(self, told_ns: int) -> bool:
        """Whether what the ledger is told now of then has to be recounted, since no sweep will."""
        return accounts.is_late(told_ns, self._now_ns(), self._longest_call_ns)

    async def recount_forgotten(self) -> None:
        """Brings all accounts up to what the ledger says of leases that they have forgotten."""
        for account in await self._store.accounts():
            if account.unit == pb.CEILING_UNIT_NANOS:
                await self._recount_folded(account)

    async def _close_by_ledger(self, standing: Mapping[str, Account], in_doubt: Leases) -> None:
        """Closes leases that were never returned at what the ledger says was spent on them."""
        money = {id_: in_doubt[id_] for id_, account in standing.items() if account.unit == pb.CEILING_UNIT_NANOS}
        spends = await self._store.lease_spends(money) if money else {}
        for account_id in standing:
            now_ns = self._now_ns()

            def close(account: Account, account_id: str = account_id, now_ns: int = now_ns) -> Account:
                for lease_id in in_doubt[account_id]:
                    spent = spends.get((account_id, lease_id), 0)
                    account = accounts.close_by_ledger(account, lease_id, spent, now_ns, self._longest_call_ns)
                return account

            await self._step(account_id, close)
            metrics.LEASES_CLOSED_IN_DOUBT.inc(len(in_doubt[account_id]))
            told = {"account": account_id, "leases": list(in_doubt[account_id])}
            log.warning("leases were never returned; they close at what the ledger says", extra=told)

    async def _count(self, found: Iterable[Account], leases: Leases) -> None:
        """Sets closed leases to what the ledger says was spent on them, all of an account's in one step."""
        asked = {account_id: lease_ids for account_id, lease_ids in leases.items() if lease_ids}
        spends = await self._store.lease_spends(asked) if asked else {}
        for standing in found:
            now_ns = self._now_ns()
            changed = {
                lease_id: spends[standing.id, lease_id]
                for lease_id in asked.get(standing.id, ())
                if spends[standing.id, lease_id] != standing.leases[lease_id].used
            }

            def count(account: Account, changed: dict[str, int] = changed, now_ns: int = now_ns) -> Account:
                for lease_id, spent in changed.items():
                    account = accounts.recount(account, lease_id, spent, now_ns, self._longest_call_ns)
                return account

            if changed:
                await self._step(standing.id, count)

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
