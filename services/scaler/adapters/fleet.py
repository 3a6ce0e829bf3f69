"""The replicas of one service: found in DNS or a static list, each followed on a Health.Watch and a stream of load."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import grpc
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from modelmuxer.tunnel.resolver import Resolver
from xds.data.orca.v3.orca_load_report_pb2 import OrcaLoadReport
from xds.service.orca.v3.orca_pb2 import OrcaLoadReportRequest
from xds.service.orca.v3.orca_pb2_grpc import OpenRcaServiceStub

from services.scaler.demand import Demand, Recent, decide
from services.scaler.replica import Load, Record, State
from services.scaler.targets import Targets
from shared import load
from shared.health import READINESS, SERVING
from shared.telemetry import metrics

RESOLVE_S = 2.0
RETRY_S = 0.5
INTRODUCTION_S = 2.0  # from when a replica is found: for so long questions wait to hear of it
MOST_WINDOWS = 16  # askers with targets of their own whose recent demand is kept
REPORTS = OrcaLoadReportRequest(report_interval=Duration(seconds=1))
CHANNEL = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)

log = logging.getLogger("modelmuxer.scaler")


class Fleet:
    """One service's replicas, followed from `run` on."""

    def __init__(
        self, service: str, target: str, *, patience_s: float, window_s: float, clock: Callable[[], float]
    ) -> None:
        self.service = service
        self.target = target
        self._patience_s = patience_s
        self._window_s = window_s
        self._clock = clock
        self._resolver = Resolver(target)
        self._records: dict[str, Record] = {}
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._heard: dict[str, asyncio.Event] = {}
        self._recent: dict[Targets, Recent] = {}
        self._resolved = asyncio.Event()

    async def run(self) -> None:
        """Looks up the replicas again and again, until cancelled."""
        try:
            while True:
                await self._resolve()
                await asyncio.sleep(RESOLVE_S)
        finally:
            for follower in self._followers.values():
                follower.cancel()
            await asyncio.gather(*self._followers.values(), return_exceptions=True)

    async def demand(self, targets: Targets) -> Demand:
        """What to ask for now."""
        await self._introduced()
        now_s = self._clock()
        replicas = [record.at(now_s) for record in self._records.values()]
        demand = decide(replicas, targets, self._window(targets), now_s)
        for state in State:
            metrics.SCALER_REPLICAS.labels(self.service, state.value).set(demand.counts.get(state, 0))
        metrics.SCALER_WANTED.labels(self.service).set(demand.wanted)
        return demand

    async def active(self) -> bool:
        """Whether there are replicas: what has some is never scaled to nothing."""
        await self._introduced()
        now_s = self._clock()
        return any(record.at(now_s).state is not State.DRAINING for record in self._records.values())

    def _window(self, targets: Targets) -> Recent:
        if targets not in self._recent:
            while len(self._recent) >= MOST_WINDOWS:
                del self._recent[next(iter(self._recent))]
            self._recent[targets] = Recent(self._window_s)
        return self._recent[targets]

    async def _introduced(self) -> None:
        """Waits a moment for replicas that are new to the scaler, which else would pass for starting ones."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(INTRODUCTION_S):
                await self._resolved.wait()
                for heard in [*self._heard.values()]:
                    await heard.wait()

    async def _resolve(self) -> None:
        try:
            found = await self._resolver.resolve()
        except OSError as error:  # no answer is no news: what was there stays
            log.debug("replicas of %s cannot be looked up at %s: %s", self.service, self.target, error)
            return
        finally:
            self._resolved.set()
        for address in self._records.keys() - set(found):
            del self._records[address], self._heard[address]
            self._followers.pop(address).cancel()
        for address in found:
            if address not in self._records:
                record = self._records[address] = Record(address, patience_s=self._patience_s)
                self._heard[address] = heard = asyncio.Event()
                asyncio.get_running_loop().call_later(INTRODUCTION_S, heard.set)
                self._followers[address] = asyncio.create_task(self._follow(record), name=f"follow {address}")

    async def _follow(self, record: Record) -> None:
        """Stays with one replica, whatever becomes of its connection."""
        while True:
            async with grpc.aio.insecure_channel(record.address, options=CHANNEL) as channel:
                try:
                    async with asyncio.TaskGroup() as streams:
                        streams.create_task(self._hear_health(record, channel))
                        streams.create_task(self._hear_load(record, channel))
                except* grpc.aio.AioRpcError as errors:
                    first = errors.exceptions[0]
                    why = first.code().name if isinstance(first, grpc.aio.AioRpcError) else str(first)
                    record.lost(f"It does not answer: {why}.", self._clock())
                else:
                    record.lost("It has ended the streams.", self._clock())
            self._heard[record.address].set()
            await asyncio.sleep(RETRY_S)

    async def _hear_health(self, record: Record, channel: grpc.aio.Channel) -> None:
        stub = health_pb2_grpc.HealthStub(channel)
        async for answer in stub.Watch(health_pb2.HealthCheckRequest(service=READINESS)):
            if answer.status == SERVING:
                record.ready()
            else:
                record.not_ready(self._clock())
            self._heard[record.address].set()

    async def _hear_load(self, record: Record, channel: grpc.aio.Channel) -> None:
        try:
            async for report in OpenRcaServiceStub(channel).StreamCoreMetrics(REPORTS):
                record.reported(_load(report), self._clock())
                if report.named_metrics.get(load.DRAINING):
                    record.drains()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:  # such a peer is known by its health alone
                raise


def _load(report: OrcaLoadReport) -> Load:
    own = report.named_metrics
    return Load(
        cpu_percent=100 * report.cpu_utilization,
        memory_percent=100 * report.mem_utilization,
        slots_percent=100 * report.utilization.get(load.SLOTS, 0.0),
        queue_ms=own.get(load.QUEUE_MS, 0.0),
        added_ms=own.get(load.ADDED_MS, 0.0),
        added_calls_per_s=own.get(load.ADDED_RATE, 0.0),
    )
