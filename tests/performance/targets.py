"""What is measured: the mesh, the bare floors beside it, and the simulated provider that both call, directly."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from prometheus_client.parser import text_string_to_metric_families

from shared.telemetry import names
from tests.mesh.mesh import ROOT, Mesh
from tests.performance.suites import Face


@dataclass(frozen=True, kw_only=True)
class Target:
    """Something that answers chats, and the processes that do so."""

    name: str
    http: str
    """host:port"""
    grpc: str
    """host:port; empty where there is no such face."""
    key: str
    processes: Mapping[str, psutil.Process]
    mesh: Mesh | None = None

    def face(self, wanted: Face) -> Face:
        """The face by which it is asked: the provider has only HTTP."""
        return wanted if self.grpc else "http"

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds that each process has used so far."""
        return {name: sum(process.cpu_times()[:2]) for name, process in self.processes.items()}

    def rss_mb(self) -> dict[str, float]:
        """Resident memory of each process."""
        return {name: round(process.memory_info().rss / 1e6, 1) for name, process in self.processes.items()}

    def cache_lookups(self) -> int:
        """Look-ups that its cache has answered so far."""
        return 0 if self.mesh is None else self.counted("cache", names.CACHE_LOOKUPS)

    def counted(self, service: str, metric: str) -> int:
        """What a service of the mesh has counted so far, over all labels."""
        assert self.mesh is not None
        families = text_string_to_metric_families(self.mesh.metrics(service))
        samples = (sample for family in families for sample in family.samples)
        return int(sum(sample.value for sample in samples if sample.name == metric))


@contextmanager
def targets(home: Path, environ: Mapping[str, str]) -> Iterator[dict[str, Target]]:
    """Starts them all, on free ports. The mesh's simulated provider serves the floor too."""
    with ExitStack() as stack:
        mesh = stack.enter_context(Mesh(home, {"MODELMUXER_LOG_LEVEL": "warning", **environ}, warm=False))
        processes = mesh.processes()
        simulator = {"simulator": processes["simulator"]}
        proxy, proxy_listens = stack.enter_context(_floor_process("proxy", mesh.simulator))
        floors = {
            name: stack.enter_context(_floor_process("router", transport, proxy_listens["grpc"]))
            for name, transport in (("floor", "plain"), ("tunnel floor", "tunnel"))
        }
        yield {
            "mesh": Target(
                name="mesh",
                http=str(mesh.services["router"]["http"]),
                grpc=mesh.grpc(),
                key=mesh.key,
                processes=processes,
                mesh=mesh,
            ),
            **{
                name: Target(
                    name=name,
                    http=listens["http"],
                    grpc=listens["grpc"],
                    key="none",
                    processes={"router": router, "provider-proxy": proxy, **simulator},
                )
                for name, (router, listens) in floors.items()
            },
            "direct": Target(
                name="direct", http=urlsplit(mesh.simulator).netloc, grpc="", key="none", processes=simulator
            ),
        }


@contextmanager
def _floor_process(name: str, *arguments: str) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    command = [sys.executable, "-m", f"tests.performance.floor.{name}", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield psutil.Process(process.pid), json.loads(process.stdout.readline())
        finally:
            process.terminate()
