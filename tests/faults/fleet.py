"""A mesh of several routers and proxies as processes, with a wire before each that can be cut. What dies is started
again with the same ports and journals, as a supervisor would.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from services.fork_server import Child, ForkServer
from tests.faults.wire import Wire
from tests.ports import free_port, free_ports
from tests.tools.mongodb.server import MongoServer
from tests.zygote import WarmForkServer, zygote

SERVICES = ("simulator", "accounting", "cache", "provider_proxy", "router")
_START_TIMEOUT_S = 180.0  # on a machine that much else runs on
_STOP_TIMEOUT_S = 40.0
_MUX_TIMEOUT_S = 120.0
_RESTART_AFTER_S = 0.1


@dataclass
class Replica:
    """One process of the mesh, kept alive."""

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]
    port: int
    log: Path
    fork_server: ForkServer
    tunnel_port: int | None = None
    wire: Wire = field(init=False)
    process: Child | None = None
    serving: asyncio.Event = field(default_factory=asyncio.Event)
    deaths: int = 0
    killed: int = 0
    """Of these, how many were ours."""
    _keeper: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.wire = Wire(self.port, self.tunnel_port)

    async def start(self) -> None:
        """Starts it, and returns when it serves."""
        await self.wire.open()
        self._keeper = asyncio.create_task(self._keep())
        await asyncio.wait_for(self.serving.wait(), _START_TIMEOUT_S)

    def send(self, number: signal.Signals) -> bool:
        """Signals it. False if it is dead just now."""
        if self.process is None or self.process.returncode is not None:
            return False
        if number == signal.SIGKILL:
            self.serving.clear()
            self.killed += 1
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
            return True
        return False

    async def stop(self) -> None:
        """Lets it drain."""
        if self._keeper is not None:
            self._keeper.cancel()
        self.send(signal.SIGCONT)
        if self.send(signal.SIGTERM) and self.process is not None:
            try:
                await asyncio.wait_for(self.process.wait(), _STOP_TIMEOUT_S)
            except TimeoutError:
                self.process.kill()
        self.wire.close()

    async def _keep(self) -> None:
        while True:
            with self.log.open("ab") as log:
                module, *arguments = self.command
                self.process = await self.fork_server.spawn(module, self.environ, arguments, stderr=log.fileno())
            if await self.process.stdout.readline():
                self.serving.set()
            await self.process.wait()
            self.serving.clear()
            self.deaths += 1
            await asyncio.sleep(_RESTART_AFTER_S)


class StoreServer:
    """The ledger's own server, kept alive as a replica is."""

    name = "store"

    def __init__(self) -> None:
        self.serving = asyncio.Event()
        self.wire = Wire(0)
        self._server = MongoServer()
        self._restart: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """A database of it, over the wire."""
        return f"mongodb://{self.wire.address}/nemesis?directConnection=true"

    def cpu_s(self) -> float:
        """Processor time that it has used."""
        return self._server.cpu_s()

    async def start(self) -> None:
        """Starts it, and returns when it serves."""
        await asyncio.to_thread(self._server.__enter__)
        self.wire = Wire(self._server.port)
        await self.wire.open()
        self.serving.set()

    def send(self, number: signal.Signals) -> bool:
        """Signals every process of it. False if it is dead just now."""
        if not self.serving.is_set():
            return False
        if number == signal.SIGKILL:
            self.serving.clear()
            self._restart = asyncio.create_task(self._begin_anew())
        elif number == signal.SIGSTOP:
            self._server.pause()
        else:
            self._server.resume()
        return True

    async def stop(self) -> None:
        """Ends it."""
        if self._restart is not None:
            await self._restart
        self.wire.close()
        await asyncio.to_thread(self._server.__exit__, None, None, None)

    async def _begin_anew(self) -> None:
        await asyncio.to_thread(self._server.kill)
        await asyncio.sleep(_RESTART_AFTER_S)
        await asyncio.to_thread(self._server.start)
        self.serving.set()


class Fleet:
    """Simulator, accounting, cache, proxies and routers; for a ledger in MongoDB its server, too. `commands` replaces a
    service's module by another command.
    """

    def __init__(
        self,
        home: Path,
        *,
        routers: int = 3,
        proxies: int = 2,
        commands: Mapping[str, Sequence[str]] | None = None,
        environ: Mapping[str, str] | None = None,
        store: str = "sqlite",
    ) -> None:
        self.home = home
        self._store = store
        self._routers, self._proxies = routers, proxies
        self._commands = commands or {}
        self._fork_server = WarmForkServer([f"services.{service}" for service in SERVICES])
        self._base = _environ(home) | dict(environ or {})
        self._simulator_wire = Wire(0)
        self.replicas: dict[str, Replica] = {}
        self.store_server: StoreServer | None = None
        self.simulator = ""
        """Base URL of the simulated providers, without a wire."""

    async def __aenter__(self) -> Self:
        self.home.mkdir(parents=True, exist_ok=True)
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    @property
    def key(self) -> str:
        """The key made at first start."""
        return (self.home / "key").read_text().strip()

    @property
    def accounting(self) -> str:
        """Where accounting listens, without a wire."""
        return f"127.0.0.1:{self.replicas['accounting'].port}"

    @property
    def routers(self) -> list[str]:
        """Where routers are reached, over their wires."""
        return [each.wire.address for name, each in self.replicas.items() if name.startswith("router")]

    @property
    def victims(self) -> list[Replica | StoreServer]:
        """All that may be harmed, by name."""
        servers = [self.store_server] if self.store_server is not None else []
        return sorted([*self.replicas.values(), *servers], key=lambda each: each.name)

    def wires(self) -> dict[str, Wire]:
        """Every wire, by the name of what it leads to."""
        return {"simulator": self._simulator_wire} | {each.name: each.wire for each in self.victims}

    async def at_rest(self, timeout_s: float) -> bool:
        """Lets everything run again, and waits until all serve."""
        for victim in self.victims:
            victim.send(signal.SIGCONT)
        return await self.serve(timeout_s)

    async def serve(self, timeout_s: float) -> bool:
        """Waits until what died serves again. False if time was too short."""
        try:
            async with asyncio.timeout(timeout_s):
                for victim in self.victims:
                    await victim.serving.wait()
        except TimeoutError:
            return False
        return True

    async def drained(self) -> list[Path]:
        """Stops routers and proxies. Returns what their journals still hold."""
        for name, replica in reversed(self.replicas.items()):
            if name.startswith(("router", "proxy")):
                await replica.stop()
        return sorted(path for path in (self.home / "journal").rglob("*") if path.suffix in (".journal", ".corrupt"))

    async def ask_simulator(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """What the simulator says."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.simulator + path, data, method=method)
        return json.loads(await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=30).read()))

    async def mux(self, *arguments: str) -> Any:
        """What `mux` prints for machines."""
        done = await asyncio.to_thread(
            zygote().run, ["tests.mux", *arguments, "--json"], self.mux_environ(), _MUX_TIMEOUT_S
        )
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise RuntimeError(f"mux {' '.join(arguments)}: {done.stderr or done.stdout}") from None

    def mux_environ(self) -> dict[str, str]:
        """What `mux` needs to find this mesh and the bill."""
        return self._base | {
            "MODELMUXER_ACCOUNTING_ADDRESS": self.accounting,
            "MODELMUXER_SIMULATOR_URL": self.simulator,
        }

    async def _start(self) -> None:
        port = free_port()
        simulator = self._replica("simulator", port, ("services.simulator", "--port", str(port)))
        await simulator.start()
        del self.replicas["simulator"]  # it is the truth, and never harmed
        self._truth = simulator
        self.simulator = f"http://127.0.0.1:{port}"
        self._simulator_wire = simulator.wire
        self._base["MODELMUXER_SIMULATOR_URL"] = f"http://{simulator.wire.address}"
        if self._store == "mongodb":
            self.store_server = StoreServer()
            await self.store_server.start()
            self._base |= {"MODELMUXER_LEDGER_STORE": "mongodb", "MONGODB_URL": self.store_server.url}
        await self._service("accounting", "accounting")
        await self._service("cache", "cache")
        await asyncio.gather(*(self._service(f"proxy-{n}", "provider_proxy") for n in range(self._proxies)))
        await asyncio.gather(*(self._service(f"router-{n}", "router") for n in range(self._routers)))

    async def _service(self, name: str, service: str) -> None:
        port, tunnel_port = free_ports(2)
        ports = {"PORT": port, "METRICS_PORT": 0, "TUNNEL_PORT": tunnel_port}
        environ = {f"MODELMUXER_{service.upper()}_{name}": str(number) for name, number in ports.items()}
        if service == "router":
            environ["MODELMUXER_ROUTER_HTTP_PORT"] = "0"
        for other, prefix in (("ACCOUNTING", "accounting"), ("CACHE", "cache"), ("PROVIDER_PROXY", "proxy")):
            known = [each.wire.address for named, each in self.replicas.items() if named.startswith(prefix)]
            if known and prefix != service and service in ("router", "provider_proxy"):
                environ[f"MODELMUXER_{other}_ADDRESS"] = ",".join(known)
        if service == "provider_proxy":
            environ.pop("MODELMUXER_PROVIDER_PROXY_ADDRESS", None)
        command = self._commands.get(service, (f"services.{service}",))
        await self._replica(name, port, command, environ, tunnel_port).start()

    def _replica(
        self,
        name: str,
        port: int,
        command: Sequence[str],
        environ: Mapping[str, str] | None = None,
        tunnel_port: int | None = None,
    ) -> Replica:
        log = self.home.parent / f"{self.home.name}-{name}.log"
        replica = Replica(name, command, self._base | dict(environ or {}), port, log, self._fork_server, tunnel_port)
        self.replicas[name] = replica
        return replica

    async def _stop(self) -> None:
        for replica in reversed(self.replicas.values()):
            await replica.stop()
        if truth := getattr(self, "_truth", None):
            await truth.stop()
        if self.store_server is not None:
            await self.store_server.stop()
        await self._fork_server.close()


def _environ(home: Path) -> dict[str, str]:
    foreign = ("MODELMUXER_", "OTEL_")
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign) and not name.endswith(("_API_KEY", "_BASE_URL"))
    }
    return inherited | {
        "MODELMUXER_HOME": str(home),
        "MODELMUXER_MESH_TOKEN": secrets.token_hex(16),
        "MODELMUXER_DRAIN_WAIT_S": "0.1",
    }


async def until(condition: Any, timeout_s: float) -> bool:
    """Polls until an async condition holds. False if it did not in time."""
    deadline = time.monotonic() + timeout_s
    while not await condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True
