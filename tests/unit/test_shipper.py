"""The shipper sends until all is acknowledged, record by record, and no longer than it may."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from modelmuxer.accounting.v1.accounting_pb2 import CacheHit, JournalRecord, RecordRequest, RecordResponse
from modelmuxer.accounting.v1.accounting_pb2_grpc import (
    AccountingServiceServicer,
    AccountingServiceStub,
    add_AccountingServiceServicer_to_server,
)

from shared.journal import Journal
from shared.shipper import Shipper


class Moody(AccountingServiceServicer):
    """Keeps the first record of a batch, and every so often nothing at all."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.calls = 0
        self.down = False

    async def Record(self, request: RecordRequest, context: Any) -> RecordResponse:
        self.calls += 1
        if self.down or self.calls % 3 == 0:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        self.kept.append(request.records[0].id)
        return RecordResponse(record_ids=self.kept[-1:])


@pytest.fixture
async def accounting() -> AsyncIterator[tuple[Moody, AccountingServiceStub]]:
    server, moody = grpc.aio.server(), Moody()  # type: ignore[abstract]
    add_AccountingServiceServicer_to_server(moody, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield moody, AccountingServiceStub(channel)
    await server.stop(None)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path, witness="test/1", max_bytes=1 << 20)
    for number in range(4):
        journal.append(JournalRecord(attempt_id=f"a{number}", cache_hit=CacheHit()))
    return journal


async def test_what_is_not_acknowledged_is_sent_again(
    accounting: tuple[Moody, Any], journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.shipper._MIN_BACKOFF_S", 0.001)
    moody, stub = accounting
    assert await Shipper(journal, stub, batch_records=3).drain(10)
    assert moody.kept == [f"a{number}/cache_hit" for number in range(4)]
    assert journal.waiting == 0


async def test_draining_gives_up_in_time_and_leaves_the_rest_for_the_next_start(
    accounting: tuple[Moody, Any], journal: Journal, tmp_path: Path
) -> None:
    moody, stub = accounting
    moody.down = True
    assert not await Shipper(journal, stub).drain(0.1)
    journal.close()
    moody.down = False
    again = Journal(tmp_path, witness="test/1", max_bytes=1 << 20)
    assert again.waiting == 4
    assert await Shipper(again, stub, batch_records=1).drain(10)
    assert len(set(moody.kept)) == 4
