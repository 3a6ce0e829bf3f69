"""What a process says of its load, out of band, by gRPC's own contract for that: xds.service.orca.v3.OpenRcaService.

Balancers (weighted_round_robin with enableOobLoadReport) and the scaler read it. Like health it is open to all, takes
no slot, and tells nobody anything about a call. Figures are means over the last seconds.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import psutil
from grpc.aio import ServicerContext
from prometheus_client.metrics import MetricWrapperBase
from xds.data.orca.v3.orca_load_report_pb2 import OrcaLoadReport
from xds.service.orca.v3.orca_pb2 import OrcaLoadReportRequest

from shared.admission import Slots
from shared.telemetry import metrics

SERVICE = "xds.service.orca.v3.OpenRcaService"

# Names in a report's maps, for whoever reads it.
SLOTS = "slots"  # utilization: slots for concurrent calls that are taken
QUEUE_MS = "queue_ms"  # how late the event loop wakes: what is ready waits so long
ADDED_MS = "added_ms"  # what the mesh adds to a call before a provider has it
ADDED_RATE = "added_calls_per_s"  # the calls per second that ADDED_MS is the mean of
DRAINING = "draining"  # 1 once the process is on its way out

WINDOW_S = 5.0
SAMPLE_S = 0.5
LEAST_INTERVAL_S = 0.1
USUAL_INTERVAL_S = 1.0
_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

Context = ServicerContext[Any, Any]


class Sample(NamedTuple):
    """Totals since the start of the process, at one moment."""

    at_s: float
    cpu_s: float
    calls: float
    errors: float
    lag_s: float
    lags: float
    added_s: float
    added: float


class Load:
    """The load of one process, sampled by `watch` and told by StreamCoreMetrics."""

    def __init__(self, slots: Slots, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._slots = slots
        self._clock = clock
        self._process = psutil.Process()
        self._memory_bytes = memory_limit()
        self._samples = deque([self._sample()])
        self._draining = asyncio.Event()

    async def watch(self) -> None:
        """Samples until cancelled."""
        while True:
            await asyncio.sleep(SAMPLE_S)
            self._samples.append(self._sample())
            while self._samples[-1].at_s - self._samples[0].at_s > WINDOW_S:
                self._samples.popleft()

    def drain(self) -> None:
        """Tells every reader at once that the process is on its way out: it is neither sick nor loaded."""
        self._draining.set()

    def report(self) -> OrcaLoadReport:
        """The load now."""
        first, last = self._samples[0], self._samples[-1]
        elapsed_s = max(last.at_s - first.at_s, SAMPLE_S)
        cpu = (last.cpu_s - first.cpu_s) / elapsed_s
        memory = min(1.0, self._process.memory_info().rss / self._memory_bytes)
        slots = min(1.0, self._slots.taken / self._slots.limit)
        return OrcaLoadReport(
            cpu_utilization=cpu,
            mem_utilization=memory,
            application_utilization=max(cpu, slots),
            rps_fractional=(last.calls - first.calls) / elapsed_s,
            eps=(last.errors - first.errors) / elapsed_s,
            utilization={SLOTS: slots},
            named_metrics={
                QUEUE_MS: 1000 * _mean(last.lag_s - first.lag_s, last.lags - first.lags),
                ADDED_MS: 1000 * _mean(last.added_s - first.added_s, last.added - first.added),
                ADDED_RATE: (last.added - first.added) / elapsed_s,
                DRAINING: float(self._draining.is_set()),
            },
        )

    def methods(self) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        """The methods of OpenRcaService, for a registry."""
        return {
            "StreamCoreMetrics": grpc.unary_stream_rpc_method_handler(
                self.StreamCoreMetrics, OrcaLoadReportRequest.FromString, OrcaLoadReport.SerializeToString
            )
        }

    async def StreamCoreMetrics(self, request: OrcaLoadReportRequest, context: Context) -> None:
        asked_s = request.report_interval.ToNanoseconds() / 1e9
        interval_s = max(asked_s, LEAST_INTERVAL_S) if asked_s > 0 else USUAL_INTERVAL_S
        while not self._draining.is_set():
            await context.write(self.report())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._draining.wait(), interval_s)
        await context.write(self.report())  # the last: an open stream would hold up the server's stop

    def _sample(self) -> Sample:
        lag_s, lags = _sum_and_count(metrics.EVENT_LOOP_LAG)
        added_s, added = _sum_and_count(metrics.ADDED_TIME)
        return Sample(
            at_s=self._clock(),
            cpu_s=time.process_time(),
            calls=self._slots.given,
            errors=sum(sample.value for sample in _samples(metrics.ERRORS) if sample.name.endswith("_total")),
            lag_s=lag_s,
            lags=lags,
            added_s=added_s,
            added=added,
        )


def memory_limit(files: Iterable[str] = _MEMORY_LIMITS) -> int:
    """Bytes that the process may have: its control group's limit, else the machine's memory."""
    total = int(psutil.virtual_memory().total)
    for file in files:
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
            return min(total, int(Path(file).read_text()))
    return total


def _mean(total: float, count: float) -> float:
    return total / count if count else 0.0


def _sum_and_count(histogram: MetricWrapperBase) -> tuple[float, float]:
    values = {sample.name.rpartition("_")[2]: sample.value for sample in _samples(histogram)}
    return values["sum"], values["count"]


def _samples(metric: MetricWrapperBase) -> Iterable[Any]:
    return (sample for family in metric.collect() for sample in family.samples)
