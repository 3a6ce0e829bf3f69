"""The scaler's gRPC faces: KEDA's ExternalScaler, and Explain. Both are open, as health is: they tell of load alone."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc
from keda import externalscaler_pb2 as keda
from keda.externalscaler_pb2_grpc import ExternalScalerServicer
from modelmuxer.scaler.v1 import scaler_pb2 as proto
from modelmuxer.scaler.v1.scaler_pb2_grpc import ScalerServiceServicer

from services.scaler.adapters.fleet import Fleet
from services.scaler.demand import LOAD_METRIC, LOAD_TARGET, TIME_METRIC, Demand
from services.scaler.fleets import Fleets
from services.scaler.replica import Replica, State

LOOK_S = 1.0  # between two looks for a stream

Context = grpc.aio.ServicerContext[Any, Any]


class ExternalScaler(ExternalScalerServicer):
    """What KEDA calls. `stopping` ends its streams."""

    def __init__(self, fleets: Fleets, stopping: asyncio.Event) -> None:
        self._fleets = fleets
        self._stopping = stopping

    async def IsActive(self, request: keda.ScaledObjectRef, context: Context) -> keda.IsActiveResponse:
        fleet, _ = self._fleets.asked(request.scalerMetadata)
        return keda.IsActiveResponse(result=await fleet.active())

    async def StreamIsActive(self, request: keda.ScaledObjectRef, context: Context) -> None:  # type: ignore[override]
        fleet, _ = self._fleets.asked(request.scalerMetadata)
        sent: bool | None = None
        while not self._stopping.is_set():
            if (active := await fleet.active()) is not sent:
                await context.write(keda.IsActiveResponse(result=active))
                sent = active
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), LOOK_S)

    async def GetMetricSpec(self, request: keda.ScaledObjectRef, context: Context) -> keda.GetMetricSpecResponse:
        return self._specs(request)

    async def StreamMetricSpec(self, request: keda.ScaledObjectRef, context: Context) -> None:  # type: ignore[override]
        await context.write(self._specs(request))
        await self._stopping.wait()  # targets change with the scaler's settings alone

    async def GetMetrics(self, request: keda.GetMetricsRequest, context: Context) -> keda.GetMetricsResponse:
        metric = await self._fleets.metric(request.scaledObjectRef.scalerMetadata, request.metricName)
        value = keda.MetricValue(metricName=metric.name, metricValue=round(metric.value), metricValueFloat=metric.value)
        return keda.GetMetricsResponse(metricValues=[value])

    def _specs(self, request: keda.ScaledObjectRef) -> keda.GetMetricSpecResponse:
        _, targets = self._fleets.asked(request.scalerMetadata)
        wanted = {LOAD_METRIC: LOAD_TARGET, TIME_METRIC: targets.added_ms}
        return keda.GetMetricSpecResponse(
            metricSpecs=[
                keda.MetricSpec(metricName=name, targetSize=round(target), targetSizeFloat=target)
                for name, target in wanted.items()
            ]
        )


class ScalerService(ScalerServiceServicer):
    """What `mux scale` calls."""

    def __init__(self, fleets: Fleets) -> None:
        self._fleets = fleets

    async def Explain(self, request: proto.ExplainRequest, context: Context) -> proto.ExplainResponse:
        demands = await self._fleets.demands(request.service)
        return proto.ExplainResponse(demands=[_demand(fleet, demand) for fleet, demand in demands])


def _demand(fleet: Fleet, demand: Demand) -> proto.Demand:
    counts = demand.counts
    return proto.Demand(
        service=fleet.service,
        target=fleet.target,
        wanted=demand.wanted,
        current=demand.current,
        serving=counts.get(State.SERVING, 0),
        sick=counts.get(State.SICK, 0),
        starting=counts.get(State.STARTING, 0),
        draining=counts.get(State.DRAINING, 0),
        panic=demand.panic,
        reasons=demand.reasons,
        signals=[
            proto.Signal(name=each.name, value=each.value, target=each.target, unit=each.unit, replicas=each.replicas)
            for each in demand.signals
        ],
        metrics=[proto.Metric(name=each.name, value=each.value, target=each.target) for each in demand.metrics],
        replicas=[_replica(each) for each in demand.replicas],
    )


def _replica(replica: Replica) -> proto.Replica:
    load = replica.load
    return proto.Replica(
        address=replica.address,
        state=replica.state.value,
        trouble=replica.trouble,
        cpu_percent=load.cpu_percent,
        memory_percent=load.memory_percent,
        slots_percent=load.slots_percent,
        queue_ms=load.queue_ms,
        added_ms=load.added_ms,
        calls_per_second=load.added_calls_per_s,
    )
