"""Real services as processes, a real scaler that watches them, and a client that reads it as KEDA does."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc
from keda import externalscaler_pb2 as keda
from keda.externalscaler_pb2_grpc import ExternalScalerStub
from modelmuxer.scaler.v1.scaler_pb2 import Demand, ExplainRequest
from modelmuxer.scaler.v1.scaler_pb2_grpc import ScalerServiceStub

from tests.ports import free_port
from tests.zygote import Process as Forked
from tests.zygote import zygote

TOKEN = "a token for this test only"
SERVICE = "provider-proxy"


@dataclass
class Process:
    """One service as a process of its own."""

    module: str
    environ: Mapping[str, str]
    process: Forked = field(init=False)
    listening: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        reading, writing = os.pipe()
        self._stdout = os.fdopen(reading)
        self.process = zygote().spawn([self.module], {**_inherited(), **self.environ}, writing)
        os.close(writing)

    def started(self) -> Process:
        """The process, once it says where it listens."""
        self.listening = json.loads(self._stdout.readline())
        return self

    def revived(self) -> Process:
        """The process awake or, if it has ended, another one like it."""
        if self.process.poll() is None:
            self.send(signal.SIGCONT)
            return self
        self.close()
        return Process(self.module, self.environ).started()

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self._stdout.close()


class Keda:
    """Polls an ExternalScaler as KEDA 2.21 does: GetMetrics and then IsActive, for each metric of GetMetricSpec."""

    def __init__(self, channel: grpc.Channel, **metadata: str) -> None:
        self.stub = ExternalScalerStub(channel)
        self.object = keda.ScaledObjectRef(
            name="modelmuxer-provider-proxy", namespace="default", scalerMetadata={"service": SERVICE, **metadata}
        )
        self.specs = {
            spec.metricName: spec.targetSizeFloat if spec.targetSizeFloat > 0 else spec.targetSize
            for spec in self.stub.GetMetricSpec(self.object, timeout=10).metricSpecs
        }

    def read(self, name: str = "modelmuxer-load") -> float:
        """A metric's value."""
        request = keda.GetMetricsRequest(scaledObjectRef=self.object, metricName=name)
        (value,) = self.stub.GetMetrics(request, timeout=10).metricValues
        assert self.stub.IsActive(self.object, timeout=10).result
        return value.metricValueFloat if value.metricValueFloat > 0 else value.metricValue

    def replicas(self) -> int:
        """What the HorizontalPodAutoscaler that KEDA makes comes to, its tolerance and bounds left aside."""
        return max(math.ceil(round(self.read(name) / target, 3)) for name, target in self.specs.items())


class Fleet:
    """Proxies with 10 slots each, and a scaler that watches them."""

    def __init__(self, home: Path, size: int) -> None:
        self.proxies = [self._proxy(home / str(number)) for number in range(size)]
        addresses = ",".join(proxy.started().listening["grpc"] for proxy in self.proxies)
        self.scaler = self._scaler(home / "scaler", addresses).started()
        self.channel = grpc.insecure_channel(self.scaler.listening["grpc"])

    def __enter__(self) -> Self:
        self.restore()
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        for process in (*self.proxies, self.scaler):
            process.close()

    @staticmethod
    def _proxy(home: Path) -> Process:
        environ = {
            "MODELMUXER_HOME": str(home),
            "MODELMUXER_MESH_TOKEN": TOKEN,
            "MODELMUXER_DRAIN_WAIT_S": "0.1",
            "MODELMUXER_PROVIDER_PROXY_PORT": str(free_port()),
            "MODELMUXER_PROVIDER_PROXY_METRICS_PORT": "0",
            "MODELMUXER_WORKER_CONNECTIONS": "10",
        }
        return Process("services.provider_proxy", environ)

    @staticmethod
    def _scaler(home: Path, addresses: str) -> Process:
        environ = {
            "MODELMUXER_HOME": str(home),
            "MODELMUXER_SCALER_PORT": str(free_port()),
            "MODELMUXER_SCALER_METRICS_PORT": "0",
            "MODELMUXER_EXTERNAL_METRICS_PORT": "0",
            "MODELMUXER_SCALER_PATIENCE_S": "3",
            "MODELMUXER_SCALER_SCALE_DOWN_AFTER_S": "0",
            "MODELMUXER_PROVIDER_PROXY_ADDRESS": addresses,
        }
        return Process("services.scaler", environ)

    def restore(self) -> None:
        """Starts again what has ended, wakes what stands still, and waits until all serve."""
        self.proxies = [proxy.revived() for proxy in self.proxies]
        self.scaler = self.scaler.revived()
        grpc.channel_ready_future(self.channel).result(30)
        self.until(*["serving"] * len(self.proxies))

    def keda(self, **metadata: str) -> Keda:
        return Keda(self.channel, **metadata)

    def states(self) -> list[str]:
        """The proxies' states as the scaler sees them, in their own order."""
        return states(self.channel, self.proxies)

    def until(self, *expected: str) -> None:
        """Waits until the scaler sees the proxies like that."""
        until(lambda: self.states() == [*expected])


@contextmanager
def another_scaler(fleet: Fleet, **environ: str) -> Iterator[grpc.Channel]:
    """A second scaler of the same fleet, which has seen nothing yet."""
    scaler = Process(fleet.scaler.module, {**fleet.scaler.environ, "MODELMUXER_SCALER_PORT": "0", **environ})
    try:
        with grpc.insecure_channel(scaler.started().listening["grpc"]) as channel:
            yield channel
    finally:
        scaler.close()


def explain(channel: grpc.Channel) -> Demand:
    """What a scaler sees."""
    (demand,) = ScalerServiceStub(channel).Explain(ExplainRequest(service=SERVICE), timeout=10).demands
    return demand


def states(channel: grpc.Channel, proxies: Sequence[Process]) -> list[str]:
    """Proxies' states as a scaler sees them."""
    seen = {replica.address: replica.state for replica in explain(channel).replicas}
    return [seen[proxy.listening["grpc"]] for proxy in proxies]


def until(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    """Polls a condition; fails the test when it does not come true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("MODELMUXER_", "OTEL_"))}
