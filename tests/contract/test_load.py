"""Every service tells its load by gRPC's own contract for that, to anyone, at the interval that is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf.duration_pb2 import Duration
from modelmuxer.provider.v1 import provider_pb2
from xds.data.orca.v3.orca_load_report_pb2 import OrcaLoadReport
from xds.service.orca.v3.orca_pb2 import OrcaLoadReportRequest
from xds.service.orca.v3.orca_pb2_grpc import OpenRcaServiceStub

from shared import load
from shared.runner import App
from tests.contract.example import Example, calling, serving

OFTEN = OrcaLoadReportRequest(report_interval=Duration(nanos=100_000_000))


@asynccontextmanager
async def reports(app: App, request: OrcaLoadReportRequest = OFTEN) -> AsyncIterator[Any]:
    """A stream of reports, as a caller without the mesh token has it."""
    async with grpc.aio.insecure_channel(app.address) as channel:
        stream = OpenRcaServiceStub(channel).StreamCoreMetrics(request)
        yield stream
        stream.cancel()


async def next_where(stream: Any, condition: Any, within_s: float = 10.0) -> OrcaLoadReport:
    """The first report of which a condition holds."""
    async with asyncio.timeout(within_s):
        while not condition(report := await stream.read()):
            pass
    return report  # type: ignore[no-any-return]


async def test_slots_that_calls_hold_are_load(tmp_path: Path) -> None:
    async with serving(Example(), tmp_path, MODELMUXER_WORKER_CONNECTIONS="4") as app, reports(app) as stream:
        assert (await stream.read()).utilization[load.SLOTS] == 0
        async with calling(app) as stub:
            calls = [stub.WatchProviders(provider_pb2.WatchProvidersRequest()) for _ in range(4)]
            for call in calls:
                await call.read()
            full = await next_where(stream, lambda report: report.utilization[load.SLOTS] == 1)
            assert full.application_utilization >= 1
            assert (await next_where(stream, lambda report: report.rps_fractional > 0)).eps == 0
            for call in calls:
                call.cancel()
            await next_where(stream, lambda report: report.utilization[load.SLOTS] == 0)


async def test_a_report_takes_no_slot_and_is_given_when_there_is_none(tmp_path: Path) -> None:
    async with serving(Example(), tmp_path, MODELMUXER_WORKER_CONNECTIONS="1") as app, calling(app) as stub:
        call = stub.WatchProviders(provider_pb2.WatchProvidersRequest())
        await call.read()
        async with reports(app) as stream:
            assert (await stream.read()).utilization[load.SLOTS] == 1
        call.cancel()


async def test_cpu_and_memory_are_those_of_the_process(tmp_path: Path) -> None:
    async with serving(Example(), tmp_path) as app, reports(app) as stream:
        until_s = asyncio.get_running_loop().time() + 1.0
        while asyncio.get_running_loop().time() < until_s:  # a core's worth of work, in turns
            sum(range(20_000))
            await asyncio.sleep(0)
        report = await next_where(stream, lambda report: report.cpu_utilization > 0.02)
        assert 0 < report.mem_utilization < 1
        assert psutil.Process().memory_info().rss / load.memory_limit() / report.mem_utilization < 2


async def test_errors_are_told_apart_from_calls(tmp_path: Path) -> None:
    async def fail(request: Any, context: Any) -> Any:
        raise RuntimeError

    async with serving(Example(count=fail), tmp_path) as app, reports(app) as stream, calling(app) as stub:
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.CountTokens(provider_pb2.CountTokensRequest(model="m"))
        assert (await next_where(stream, lambda report: report.eps > 0)).rps_fractional > 0


async def test_who_drains_says_so_at_once_and_ends_the_stream(tmp_path: Path) -> None:
    slowly = OrcaLoadReportRequest(report_interval=Duration(seconds=3600))
    async with AsyncExitStack() as stack:
        async with serving(Example(), tmp_path) as app:
            stream = await stack.enter_async_context(reports(app, slowly))
            assert (await stream.read()).named_metrics[load.DRAINING] == 0
        assert (await stream.read()).named_metrics[load.DRAINING] == 1
        assert await stream.read() is grpc.aio.EOF


def test_the_memory_limit_is_the_control_groups_if_it_has_one(tmp_path: Path) -> None:
    total = psutil.virtual_memory().total
    limit, none, huge = tmp_path / "limit", tmp_path / "none", tmp_path / "huge"
    limit.write_text("268435456\n")
    none.write_text("max\n")
    huge.write_text(str(2**63))
    assert load.memory_limit([str(limit)]) == 268435456
    assert load.memory_limit([str(none), str(limit)]) == 268435456
    assert load.memory_limit([str(tmp_path / "missing"), str(none)]) == total
    assert load.memory_limit([str(huge)]) == total
