"""Tells a webhook of the thresholds that budgets reach, at least once each, and holds up nobody.

An event stands in its account from the step that raised it until the webhook has answered 2xx, so a restart tells what
is left. An event that is told again has the same id.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import aiohttp
from modelmuxer.accounting.v1.accounting_pb2 import Budget, BudgetMode, BudgetPeriod, CeilingScope

from services.accounting import accounts
from services.accounting.accounts import Account, Event
from services.accounting.signature import signed, signing_key
from services.accounting.stores import Store
from shared.telemetry import metrics

TYPE = "budget.threshold_reached"
TIMEOUT_S = 10.0
LOOK_EVERY_S = 30.0  # another process may have died before it told
MIN_BACKOFF_S, MAX_BACKOFF_S = 0.5, 300.0

log = logging.getLogger("modelmuxer.accounting")


class Webhook:
    """One endpoint. `run` tells it everything, the oldest first."""

    def __init__(self, store: Store, url: str, secret: str, *, min_backoff_s: float = MIN_BACKOFF_S) -> None:
        self._store = store
        self._url = url
        self._key = signing_key(secret)
        self._min_backoff_s = min_backoff_s
        self._poke = asyncio.Event()
        self._failures = 0

    def notify(self) -> None:
        """There is something to tell."""
        self._poke.set()

    async def run(self) -> NoReturn:
        """Tells until cancelled."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                self._poke.clear()
                try:
                    told = await self._tell_all(session)
                except Exception:
                    log.exception("budgets' events could not be read; they are tried again")
                    told = False
                await self._wait(LOOK_EVERY_S if told else self._backoff_s(), woken=told)

    async def _tell_all(self, session: aiohttp.ClientSession) -> bool:
        """Whether all that stood was told."""
        waiting = [
            (event.time_ns, account, event_id)
            for account in await self._store.accounts()
            for event_id, event in account.events.items()
        ]
        for _, account, event_id in sorted(waiting, key=lambda each: each[0]):
            if not await self._tell(session, account, event_id):
                return False
            await self._store.change_account(account.id, _told(event_id))
        return True

    async def _tell(self, session: aiohttp.ClientSession, account: Account, event_id: str) -> bool:
        body = json.dumps(await self._payload(account, account.events[event_id])).encode()
        headers = signed(self._key, _webhook_id(account, event_id), int(time.time()), body)
        try:
            async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                problem = "" if answer.ok and answer.status < 300 else f"it answered {answer.status}"
        except (aiohttp.ClientError, TimeoutError) as error:
            problem = type(error).__name__
        metrics.WEBHOOK_DELIVERIES.labels("failed" if problem else "ok").inc()
        if problem:
            self._failures += 1
            log.warning("the webhook of budgets was not told (%s); it is tried again", problem)
        else:
            self._failures = 0
        return not problem

    async def _payload(self, account: Account, event: Event) -> Mapping[str, Any]:
        record = await self._store.policy("budget", account.ceiling)
        budget = Budget.FromString(record.document) if record is not None else Budget(id=account.ceiling)
        return {
            "type": TYPE,
            "timestamp": _time(event.time_ns),
            "data": {
                "budget": budget.id,
                "name": budget.name,
                "scope": _word(CeilingScope.Name(budget.scope)),
                "tenant": account.tenant,
                "subject": account.subject,
                "mode": _word(BudgetMode.Name(budget.mode)),
                "period": _word(BudgetPeriod.Name(budget.period)),
                "period_start": _time(account.starts_ns),
                "period_end": _time(account.ends_ns),
                "percent": event.percent,
                "spent_nanos": event.spent,
                "limit_nanos": event.limit,
            },
        }

    def _backoff_s(self) -> float:
        ceiling_s: float = min(self._min_backoff_s * 2 ** min(self._failures, 20), MAX_BACKOFF_S)
        return ceiling_s * random.uniform(0.5, 1.0)  # noqa: S311 jitter is no secret

    async def _wait(self, timeout_s: float, *, woken: bool) -> None:
        """Until there is news; after a failure a new event makes nothing sooner."""
        if not woken:
            await asyncio.sleep(timeout_s)
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._poke.wait()
        except TimeoutError:
            return


def _told(event_id: str) -> Any:
    def change(account: Account | None) -> tuple[Account | None, None]:
        return (accounts.told(account, event_id) if account is not None else None), None

    return change


def _webhook_id(account: Account, event_id: str) -> str:
    return "evt_" + hashlib.sha256(f"{account.id}|{event_id}".encode()).hexdigest()[:32]


def _time(time_ns: int) -> str | None:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ns // 1_000_000_000)) if time_ns else None


def _word(name: str) -> str:
    for prefix in ("CEILING_SCOPE_", "BUDGET_PERIOD_", "BUDGET_MODE_"):
        name = name.removeprefix(prefix)
    return name.lower()
