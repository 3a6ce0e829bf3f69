"""Carries journal records to accounting, in the background: a slow, hung or dead accounting costs callers nothing.

What accounting has not acknowledged stays in the journal and is sent again, after a restart too; accounting knows
repeated records by their ids.
"""

import asyncio
import contextlib
import logging
import random
from typing import TYPE_CHECKING, NoReturn

import grpc
from modelmuxer.accounting.v1.accounting_pb2 import JournalRecord, RecordRequest

from shared.journal import Journal

if TYPE_CHECKING:
    from modelmuxer.accounting.v1.accounting_pb2_grpc import AccountingServiceAsyncStub

_MANY = 16  # records: under load a batch gathers for longer
_MIN_BACKOFF_S = 0.1
_MAX_BACKOFF_S = 5.0

logger = logging.getLogger(__name__)


class Shipper:
    """Sends what stands in a journal, oldest first, one batch at a time."""

    def __init__(
        self,
        journal: Journal,
        accounting: "AccountingServiceAsyncStub",
        *,
        batch_records: int = 512,
        linger_s: float = 0.1,
        call_timeout_s: float = 5.0,
    ) -> None:
        self._journal = journal
        self._accounting = accounting
        self._batch_records = batch_records
        self._linger_s = linger_s
        self._call_timeout_s = call_timeout_s
        self._shipping = asyncio.Lock()
        self._failures = 0

    async def run(self) -> NoReturn:
        """Ships until cancelled."""
        while True:
            await self._journal.appended()
            if self._journal.waiting < self._batch_records:
                # A fuller batch costs accounting less, most if it has both ends of its attempts.
                await asyncio.sleep(self._linger_s)
                if _MANY <= self._journal.waiting < self._batch_records:
                    await asyncio.sleep(2 * self._linger_s)
            await self._ship()

    async def drain(self, timeout_s: float) -> bool:
        """Ships all that waits, whether `run` still runs or not. False if time was too short; the rest stays."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._journal.waiting:
                    await self._ship()
        if self._journal.waiting:
            logger.warning("%d journal records stay for the next start", self._journal.waiting)
        return not self._journal.waiting

    async def _ship(self) -> None:
        """Ships one batch, and waits a little if that fails."""
        async with self._shipping:
            batch = self._journal.peek(self._batch_records)
            if batch is None:
                return
            unkept = list(batch.records)
            while unkept:
                unkept = await self._send(unkept)
            self._journal.acknowledge(batch)

    async def _send(self, records: list[JournalRecord]) -> list[JournalRecord]:
        """The records that were not acknowledged."""
        try:
            answer = await self._accounting.Record(RecordRequest(records=records), timeout=self._call_timeout_s)
        except grpc.aio.AioRpcError as error:
            await self._back_off(error.code().name)
            return records
        kept = set(answer.record_ids)
        unkept = [record for record in records if record.id not in kept]
        if unkept:
            await self._back_off(f"{len(unkept)} records not acknowledged")
        elif self._failures:
            logger.info("accounting takes journal records again")
            self._failures = 0
        return unkept

    async def _back_off(self, why: str) -> None:
        if not self._failures:
            logger.warning("accounting takes no journal records (%s); they stay in the journal and are sent again", why)
        self._failures += 1
        ceiling_s = min(_MIN_BACKOFF_S * 2 ** min(self._failures, 10), _MAX_BACKOFF_S)
        await asyncio.sleep(random.uniform(_MIN_BACKOFF_S, ceiling_s))  # noqa: S311 jitter is no secret
