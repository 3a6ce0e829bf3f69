"""Real services as processes, a real scaler that watches them, and a client that reads it as KEDA does."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from keda import externalscaler_pb2 as keda
from keda.externalscaler_pb2_grpc import ExternalScalerStub
from modelmuxer.scaler.v1.scaler_pb2 import Demand, ExplainRequest
from modelmuxer.scaler.v1.scaler_pb2_grpc import ScalerServiceStub

from tests.ports import free_port

ROOT = Path(__file__).parents[2]
TOKEN = "a token for this test only"
SERVICE = "provider-proxy"


@dataclass
class Process:
    """One service as a process of its own."""

    module: str
    environ: Mapping[str, str]
    process: subprocess.Popen[str] = field(init=False)
    listening: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", self.module],
            cwd=ROOT,
            env={**_inherited(), **self.environ},
            stdout=subprocess.PIPE,
            text=True,
        )

    def started(self) -> Process:
        """The process, once it says where it listens."""
        assert self.process.stdout is not None
        self.listening = json.loads(self.process.stdout.readline())
        return self

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


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


@dataclass
class Fleet:
    """Proxies, and the scaler that watches them."""

    proxies: list[Process]
    scaler: Process
    channel: grpc.Channel

    def keda(self, **metadata: str) -> Keda:
        return Keda(self.channel, **metadata)

    def explain(self) -> Demand:
        """What the scaler sees."""
        (demand,) = ScalerServiceStub(self.channel).Explain(ExplainRequest(service=SERVICE), timeout=10).demands
        return demand

    def states(self) -> list[str]:
        """The proxies' states, in their own order."""
        states = {replica.address: replica.state for replica in self.explain().replicas}
        return [states[proxy.listening["grpc"]] for proxy in self.proxies]

    def until(self, *states: str) -> None:
        """Waits until the scaler sees the proxies like that."""
        until(lambda: self.states() == [*states])


@contextmanager
def fleet(home: Path, size: int, **environ: str) -> Iterator[Fleet]:
    """`size` proxies with 10 slots each, and a scaler."""
    shared = {"MODELMUXER_MESH_TOKEN": TOKEN, "MODELMUXER_DRAIN_WAIT_S": "0.1"}
    with ExitStack() as stack:
        proxies = []
        for number in range(size):
            own = {
                "MODELMUXER_HOME": str(home / str(number)),
                "MODELMUXER_PROVIDER_PROXY_PORT": str(free_port()),
                "MODELMUXER_PROVIDER_PROXY_METRICS_PORT": "0",
                "MODELMUXER_WORKER_CONNECTIONS": "10",
            }
            proxies.append(Process("services.provider_proxy", {**shared, **own, **environ}))
            stack.callback(proxies[-1].close)
        for proxy in proxies:
            proxy.started()
        watching = {
            "MODELMUXER_HOME": str(home / "scaler"),
            "MODELMUXER_SCALER_PORT": "0",
            "MODELMUXER_SCALER_METRICS_PORT": "0",
            "MODELMUXER_EXTERNAL_METRICS_PORT": "0",
            "MODELMUXER_SCALER_PATIENCE_S": "3",
            "MODELMUXER_SCALER_SCALE_DOWN_AFTER_S": "0",
            "MODELMUXER_PROVIDER_PROXY_ADDRESS": ",".join(proxy.listening["grpc"] for proxy in proxies),
        }
        scaler = Process("services.scaler", {**shared, **watching})
        stack.callback(scaler.close)
        channel = stack.enter_context(grpc.insecure_channel(scaler.started().listening["grpc"]))
        yield Fleet(proxies, scaler, channel)
        for proxy in proxies:
            with contextlib.suppress(ProcessLookupError):
                proxy.send(signal.SIGCONT)


def until(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    """Polls a condition; fails the test when it does not come true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("MODELMUXER_", "OTEL_"))}
