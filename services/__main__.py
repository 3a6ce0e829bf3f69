"""``python -m services``: the whole mesh on one machine. Simulated providers stand in where no provider key is set."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from services.supervisor import Program, StartError, Supervisor, grpc_ready, port_open
from shared import catalogue

_SIMULATOR_URL = "MODELMUXER_SIMULATOR_URL"
console = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Ports:
    """What listens where."""

    host: str
    router: int
    http: int
    provider_proxy: int
    cache: int
    accounting: int
    simulator: int

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Ports:
        """Reads the services' own port settings."""

        def port(name: str, default: int) -> int:
            value = environ.get(f"MODELMUXER_{name}_PORT", str(default))
            if not value.isdecimal():
                raise StartError(f"MODELMUXER_{name}_PORT must be a port number, not {value!r}.")
            return int(value)

        return cls(
            host=environ.get("MODELMUXER_HOST", "127.0.0.1"),
            router=port("ROUTER", 50051),
            http=port("ROUTER_HTTP", 8000),
            provider_proxy=port("PROVIDER_PROXY", 50052),
            cache=port("CACHE", 50053),
            accounting=port("ACCOUNTING", 50054),
            simulator=port("SIMULATOR", 8090),
        )

    def programs(self, *, simulated: bool) -> list[Program]:
        """Returns the services in order of dependence."""
        # A service that listens on every interface is asked on loopback.
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104
        services = [
            Program("accounting", "services.accounting", f"{host}:{self.accounting}", grpc_ready),
            Program("cache", "services.cache", f"{host}:{self.cache}", grpc_ready),
            Program("provider-proxy", "services.provider_proxy", f"{host}:{self.provider_proxy}", grpc_ready),
            Program("router", "services.router", f"{host}:{self.router}", grpc_ready),
        ]
        simulator = Program("simulator", "services.simulator", f"127.0.0.1:{self.simulator}", port_open)
        return [simulator, *services] if simulated else services


def mesh_environ(environ: Mapping[str, str], ports: Ports, *, simulate: bool) -> dict[str, str]:
    """Returns the services' environment: their addresses of each other and, without provider keys, the simulator's."""
    ready = dict(environ)
    ready.setdefault("MODELMUXER_HOME", ".modelmuxer")
    for name, port in (
        ("PROVIDER_PROXY", ports.provider_proxy),
        ("CACHE", ports.cache),
        ("ACCOUNTING", ports.accounting),
    ):
        ready.setdefault(f"MODELMUXER_{name}_ADDRESS", f"127.0.0.1:{port}")
    if simulate or not _any_provider_key(environ):
        ready.setdefault(_SIMULATOR_URL, f"http://127.0.0.1:{ports.simulator}")
    return ready


def _any_provider_key(environ: Mapping[str, str]) -> bool:
    loaded = catalogue.load(environ.get("MODELMUXER_CONFIG"), environ)
    return any(provider.key(environ) for provider in loaded.providers.values())


async def serve(*, simulate: bool) -> int:
    """Serves until a signal; returns the exit status."""
    ports = Ports.from_environ(os.environ)
    environ = mesh_environ(os.environ, ports, simulate=simulate)
    simulated = _SIMULATOR_URL in environ
    # An external simulator, named by the user, is not ours to start.
    own_simulator = simulated and _SIMULATOR_URL not in os.environ
    supervisor = Supervisor(ports.programs(simulated=own_simulator), environ, _say)
    stop = asyncio.Event()
    _on_signals(stop, supervisor)
    status = 0
    try:
        starting = asyncio.create_task(supervisor.start())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            console.print(_welcome(ports, environ, simulated=simulated))
            await asyncio.wait({stopping, supervisor.failed}, return_when=asyncio.FIRST_COMPLETED)
            if supervisor.failed.done():
                raise StartError(supervisor.failed.result())
        else:
            starting.cancel()
    except StartError as error:
        console.print(f"[red]{escape(str(error))}[/red]")
        status = 1
    _say("draining; Ctrl-C again kills")
    await supervisor.stop()
    return status


def _on_signals(stop: asyncio.Event, supervisor: Supervisor) -> None:
    def handle() -> None:
        if stop.is_set():
            supervisor.kill()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, handle)


def _say(sentence: str) -> None:
    console.print(f"[dim]mesh[/dim]  {escape(sentence)}")


def _welcome(ports: Ports, environ: Mapping[str, str], *, simulated: bool) -> str:
    key = Path(environ["MODELMUXER_HOME"]) / "key"
    rows = [
        ("router", f"gRPC {ports.router}, HTTP {ports.http}"),
        ("provider-proxy", f"gRPC {ports.provider_proxy}"),
        ("cache", f"gRPC {ports.cache}"),
        ("accounting", f"gRPC {ports.accounting}"),
    ]
    if simulated:
        rows.append(("simulated providers", f"{environ[_SIMULATOR_URL]} (no provider key is set; bill at /bill)"))
    listening = "\n".join(f"  {name:<20} {where}" for name, where in rows)
    commands = "\n".join(
        (
            f'  {_mux()} chat "Explain TCP slow start"',
            f'  curl -s localhost:{ports.http}/v1/chat/completions -H "authorization: Bearer $(cat {key})" '
            '-d \'{"messages":[{"role":"user","content":"Hello!"}]}\'',
            f"  {_mux()} spend --by model",
        )
    )
    return f"\n[bold]The mesh serves.[/bold]\n{listening}\n  {'API key':<20} {key}\n\nTry:\n{escape(commands)}\n"


def _mux() -> str:
    """Names mux as a person in this folder would type it."""
    beside = Path(sys.executable).with_name("mux")
    try:
        return str(beside.relative_to(Path.cwd()))
    except ValueError:
        return "mux"


def main() -> None:
    """Parses the command line and serves."""
    parser = argparse.ArgumentParser(prog="mux up", description="Serve the whole mesh on this machine until Ctrl-C.")
    parser.add_argument("--simulate", action="store_true", help="use the simulated providers though a key is set")
    arguments = parser.parse_args()
    try:
        sys.exit(asyncio.run(serve(simulate=arguments.simulate)))
    except StartError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
