"""Looks, from time to time, for what nobody will end any more: attempts without an outcome, operations that ran out,
leases that were never returned."""

import asyncio
import logging
import time
from typing import NoReturn

from services.accounting import lines
from services.accounting.ledger import Attempt
from services.accounting.lending import Lending
from services.accounting.stores import Store

log = logging.getLogger(__name__)


async def sweep(store: Store, lending: Lending, *, interval_s: float, pending_timeout_s: int) -> NoReturn:
    """Sweeps until cancelled. An attempt that is announced and silent for `pending_timeout_s` becomes an estimate; an
    outcome that comes later still replaces it. The first sweep makes up for a recount that a death cut short."""
    recounted = False
    abandoned: list[Attempt] = []
    while True:
        now_ns = time.time_ns()
        try:
            abandoned += await store.abandon(now_ns - pending_timeout_s * 1_000_000_000, now_ns)
            await store.forget_operations(now_ns)
            await lending.sweep()
            holds = (hold for attempt in abandoned for hold in lines.holds(attempt.context))
            await lending.recount((hold.account, hold.lease_id) for hold in holds)
            if not recounted:
                await lending.recount_forgotten()
                recounted = True
            await store.tidy(now_ns)
        except Exception:
            log.exception("A sweep failed; the next one tries again")
        else:
            if abandoned:
                log.warning("%d attempts never got an outcome; they are estimated", len(abandoned))
            abandoned.clear()
        await asyncio.sleep(interval_s)
