"""``python -m services``: the whole mesh on one machine. Simulated providers stand in where no provider key is set."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from services.supervisor import Listening, Program, StartError, Supervisor
from shared import catalogue
from shared.settings import PORTS, PREFIX

SERVICES = ("accounting", "cache", "provider-proxy", "router")
ROUTER_HTTP_PORT = 8000
REPLICA_STEP = 10  # between the ports of replicas
MAX_REPLICAS = 16

_SIMULATOR_URL = "MODELMUXER_SIMULATOR_URL"
SIMULATOR = Program(
    name="simulator",
    module="services.simulator",
    ports=lambda listening: {"MODELMUXER_SIMULATOR_PORT": str(listening["port"])},
    address=lambda listening: (_SIMULATOR_URL, f"http://127.0.0.1:{listening['port']}"),
)
console = Console(highlight=False, soft_wrap=True)


def programs(environ: Mapping[str, str], replicas: Mapping[str, int], *, simulator: bool) -> list[Program]:
    """Returns the services in order of dependence, each with as many replicas as asked for."""
    services = [_service(name, at, environ) for name in SERVICES for at in range(replicas.get(name, 1))]
    return [SIMULATOR, *services] if simulator else services


def _service(name: str, at: int, environ: Mapping[str, str]) -> Program:
    service = name.replace("-", "_")
    prefix = f"{PREFIX}{service.upper()}"

    def ports(listening: Listening) -> Mapping[str, str]:
        known = {f"{prefix}_PORT": _port(listening["grpc"]), f"{prefix}_METRICS_PORT": _port(listening["metrics"])}
        return known | ({f"{prefix}_HTTP_PORT": _port(listening["http"])} if "http" in listening else {})

    return Program(
        name=name if at == 0 else f"{name}-{at + 1}",
        module=f"services.{service}",
        ports=ports,
        address=lambda listening: (f"{prefix}_ADDRESS", listening["grpc"]),
        environ=_further_ports(prefix, PORTS[service], at, environ) if at else {},
    )


def _further_ports(prefix: str, usual: int, at: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Ports of a further replica: always the same ones, because its journal is named after them. 0 stays 0."""

    def shifted(variable: str, default: int) -> str:
        port = environ.get(variable, str(default))
        return str(int(port) + REPLICA_STEP * at) if port.isdecimal() and port != "0" else port

    further = {f"{prefix}_PORT": shifted(f"{prefix}_PORT", usual)}
    for each in ("METRICS", "TUNNEL"):
        if f"{prefix}_{each}_PORT" in environ:
            further[f"{prefix}_{each}_PORT"] = shifted(f"{prefix}_{each}_PORT", 0)
    if prefix.endswith("ROUTER"):
        further[f"{prefix}_HTTP_PORT"] = shifted(f"{prefix}_HTTP_PORT", ROUTER_HTTP_PORT)
    return further


def read_replicas(given: Sequence[str], environ: Mapping[str, str]) -> dict[str, int]:
    """Reads `--replicas provider-proxy=3`. Raises StartError."""
    replicas: dict[str, int] = {}
    for each in given:
        name, _, number = each.partition("=")
        if name not in SERVICES or not number.isdecimal() or not 1 <= int(number) <= MAX_REPLICAS:
            services = ", ".join(SERVICES)
            raise StartError(
                f"--replicas {each}: name one of {services} and a number up to {MAX_REPLICAS}, as in router=2."
            )
        if name == "accounting" and int(number) > 1 and environ.get(f"{PREFIX}LEDGER_STORE") != "mongodb":
            raise StartError(
                "--replicas accounting: its SQLite ledger has one process; several want "
                "MODELMUXER_LEDGER_STORE=mongodb and MONGODB_URL."
            )
        replicas[name] = int(number)
    return replicas


def _port(address: str) -> str:
    return address.rpartition(":")[2]


def _any_provider_key(environ: Mapping[str, str]) -> bool:
    loaded = catalogue.load(environ.get("MODELMUXER_CONFIG"), environ)
    return any(provider.key(environ) is not None for provider in loaded.providers.values())  # "" needs none


async def serve(environ: Mapping[str, str], replicas: Mapping[str, int], *, simulate: bool, as_json: bool) -> int:
    """Serves until a signal; returns the exit status."""
    # A simulator that the user names is not ours to start.
    own_simulator = _SIMULATOR_URL not in environ and (simulate or not _any_provider_key(environ))
    say = _silent if as_json else _say
    supervisor = Supervisor(programs(environ, replicas, simulator=own_simulator), environ, say)
    stopping = asyncio.create_task(_signalled(supervisor))
    starting = asyncio.create_task(supervisor.start())
    status = 0
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            _greet(supervisor.listening, environ, as_json=as_json)
            ends: set[asyncio.Future[Any]] = {stopping, supervisor.failed}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if supervisor.failed.done():
                raise StartError(supervisor.failed.result())
    except StartError as error:
        print(error, file=sys.stderr)
        status = 1
    starting.cancel()
    say("draining; Ctrl-C again kills")
    await supervisor.stop()
    return status


async def _signalled(supervisor: Supervisor) -> None:
    """Returns at the first SIGINT or SIGTERM; the second kills."""
    signalled = asyncio.Event()

    def handle() -> None:
        if signalled.is_set():
            supervisor.kill()
        signalled.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, handle)
    await signalled.wait()


def _say(sentence: str) -> None:
    console.print(f"[dim]mesh[/dim]  {escape(sentence)}")


def _silent(_sentence: str) -> None:
    pass


def _greet(listening: Mapping[str, Listening], environ: Mapping[str, str], *, as_json: bool) -> None:
    key = Path(environ.get("MODELMUXER_HOME", ".modelmuxer")) / "key"
    if as_json:
        print(json.dumps({"key": str(key), "services": listening}), flush=True)
        return
    rows = [(name, _where(where)) for name, where in reversed(list(listening.items()))]
    table = "\n".join(f"  {name:<16}{where}" for name, where in [*rows, ("API key", str(key))])
    commands = "\n".join(f"  {command}" for command in _commands(listening["router"]["http"], key))
    console.print(f"\n[bold]The mesh serves.[/bold]\n{escape(table)}\n\nTry:\n{escape(commands)}\n\nCtrl-C stops it.\n")


def _where(listening: Listening) -> str:
    if "port" in listening:
        return (
            f"http://127.0.0.1:{listening['port']}  (no provider key is set: simulated providers; their bill at /bill)"
        )
    http = f"   HTTP http://{listening['http']}" if "http" in listening else ""
    return f"gRPC {listening['grpc']}{http}   metrics http://{listening['metrics']}/metrics"


def _commands(http: str, key: Path) -> tuple[str, ...]:
    mux = _mux()
    body = '{"messages": [{"role": "user", "content": "Hello!"}]}'
    return (
        f'{mux} chat "Explain TCP slow start"',
        f"curl http://{http}/v1/chat/completions -H \"authorization: Bearer $(cat {key})\" -d '{body}'",
        f"{mux} spend --by model",
    )


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
    parser.add_argument("--json", action="store_true", help="print one line of JSON when the mesh serves")
    parser.add_argument(
        "--replicas",
        action="append",
        default=[],
        metavar="SERVICE=N",
        help="more processes of a service; may be repeated",
    )
    arguments = parser.parse_args()
    try:
        replicas = read_replicas(arguments.replicas, os.environ)
        sys.exit(asyncio.run(serve(os.environ, replicas, simulate=arguments.simulate, as_json=arguments.json)))
    except StartError as error:
        sys.exit(str(error))
    except catalogue.CatalogueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
