"""The whole mesh as processes on free ports, for tests: started as `mux up` starts it, killed where a test says so."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import psutil

from services.__main__ import MAX_REPLICAS, REPLICA_STEP
from tests.ports import free_ports
from tests.zygote import Process, zygote

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
_PORTS = ("ROUTER", "ROUTER_HTTP", "PROVIDER_PROXY", "CACHE", "ACCOUNTING", "SIMULATOR")
_METRICS = ("ROUTER", "PROVIDER_PROXY", "CACHE", "ACCOUNTING")
_PROVIDER_KEYS = ("_API_KEY", "_BASE_URL")


@dataclass
class Mesh(AbstractContextManager["Mesh"]):
    """One mesh with a home of its own."""

    home: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ()
    warm: bool = sys.platform == "linux"
    """Whether it is forked of a process that has imported the services; else it is as `mux up` starts it."""
    process: subprocess.Popen[bytes] | Process = field(init=False)
    services: dict[str, Any] = field(init=False)

    def __enter__(self) -> Self:
        inherited = {name: value for name, value in os.environ.items() if not _is_setting(name)}
        own = free_ports(len(_PORTS), REPLICA_STEP * MAX_REPLICAS)
        ports = {f"MODELMUXER_{name}_PORT": str(port) for name, port in zip(_PORTS, own, strict=True)}
        metrics = {f"MODELMUXER_{name}_METRICS_PORT": "0" for name in _METRICS}
        environ = {**inherited, **ports, **metrics, "MODELMUXER_HOME": str(self.home), "MODELMUXER_DRAIN_WAIT_S": "0.1"}
        self.log = (self.home.parent / f"{self.home.name}.log").open("w+")
        reading, writing = os.pipe()
        self.process = self._started({**environ, **self.environ}, writing)
        os.close(writing)
        with os.fdopen(reading) as stdout:
            line = stdout.readline()
        if not line:
            raise RuntimeError(f"the mesh did not start:\n{self.logged()}")
        self.services = json.loads(line)["services"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        finally:
            for process in self.processes().values():
                process.kill()
            self.process.kill()
            self.log.close()

    def _started(self, environ: Mapping[str, str], stdout: int) -> subprocess.Popen[bytes] | Process:
        arguments = ["--json", *self.arguments]
        if self.warm:
            return zygote().spawn(["tests.mesh.forked", *arguments], environ, stdout, self.log.fileno())
        command = [sys.executable, "-m", "services", *arguments]
        return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=stdout, stderr=self.log)

    def logged(self) -> str:
        """Everything that the services have logged."""
        self.log.flush()
        return Path(self.log.name).read_text()

    @property
    def key(self) -> str:
        """The key made at first start."""
        return (self.home / "key").read_text().strip()

    @property
    def token(self) -> str:
        """The mesh token."""
        return (self.home / "mesh-token").read_text().strip()

    @property
    def http(self) -> str:
        """Base URL of the HTTP face."""
        return f"http://{self.services['router']['http']}"

    @property
    def simulator(self) -> str:
        """Base URL of the simulated providers."""
        return f"http://127.0.0.1:{self.services['simulator']['port']}"

    def grpc(self, service: str = "router") -> str:
        """host:port of a service."""
        return str(self.services[service]["grpc"])

    def metrics(self, service: str) -> str:
        """What a service says at /metrics."""
        return _get(f"http://{self.services[service]['metrics']}/metrics")

    def bill(self) -> dict[str, Any]:
        """The simulated providers' own bill."""
        return dict(json.loads(_get(f"{self.simulator}/bill")))

    def received(self, attempt_id: str) -> dict[str, Any]:
        """What the simulated provider received for an attempt: headers and body."""
        calls = json.loads(_get(f"{self.simulator}/calls/{attempt_id}"))["calls"]
        return dict(calls[0])

    def mux_environ(self) -> dict[str, str]:
        """What `mux` needs to find this mesh."""
        return {
            **os.environ,
            "MODELMUXER_HOME": str(self.home),
            "MODELMUXER_ROUTER_ADDRESS": self.grpc("router"),
            "MODELMUXER_ACCOUNTING_ADDRESS": self.grpc("accounting"),
        }

    def processes(self) -> dict[str, psutil.Process]:
        """The services' processes, by name."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return {}
        found = {}
        for child in children:
            try:
                words = " ".join(child.cmdline()).split()
            except psutil.Error:
                continue
            if words[-2:-1] == ["-m"]:
                found[words[-1].removeprefix("services.").replace("_", "-")] = child
        return found

    def kill(self, service: str, number: int = signal.SIGKILL) -> None:
        """Signals one service."""
        self.processes()[service].send_signal(number)


def until(condition: Callable[[], T | None], timeout_s: float = 15.0) -> T:
    """Polls until a condition holds, and returns what it returned."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"did not come true within {timeout_s} s"
        time.sleep(0.02)
    return value


async def eventually(condition: Callable[[], Awaitable[object]], timeout_s: float = 30.0) -> None:
    """Polls, letting the event loop run, until an async condition holds."""
    deadline = time.monotonic() + timeout_s
    while not await condition():
        assert time.monotonic() < deadline, f"did not come true within {timeout_s} s"
        await asyncio.sleep(0.02)


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def _is_setting(name: str) -> bool:
    return name.startswith(("MODELMUXER_", "OTEL_")) or name.endswith(_PROVIDER_KEYS)
