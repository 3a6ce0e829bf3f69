"""Serves the simulated providers until SIGTERM or Ctrl-C. Says where in one JSON line on standard output."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from http import HTTPStatus
from http.client import HTTPConnection
from urllib.parse import urlsplit

from services.simulator.server import serve

EXIT_CONFIG = 2  # starting again cannot help
PROBE_TIMEOUT_S = 3.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m services.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument(
        "--port",
        type=int,
        default=os.environ.get("MODELMUXER_SIMULATOR_PORT", "8090"),
        help="port to listen on; 0 takes a free one (default $MODELMUXER_SIMULATOR_PORT or 8090)",
    )
    parser.add_argument("--health", action="store_true", help="ask the running simulator whether it is up, and exit")
    arguments = parser.parse_args()
    if arguments.health:
        return _probe(arguments.port)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_run(arguments.host, arguments.port))
    except OSError as error:
        print(f"cannot listen on {arguments.host}:{arguments.port}: {error.strerror or error}", file=sys.stderr)
        return EXIT_CONFIG
    return 0


def _probe(port: int) -> int:
    """Asks as a load balancer would; 0 if the simulator answers."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/healthz")
        return int(connection.getresponse().status != HTTPStatus.OK)
    except OSError as error:
        print(f"127.0.0.1:{port} does not answer: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()


async def _run(host: str, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serve(host=host, port=port) as simulator:
        print(json.dumps({"port": urlsplit(simulator.url).port, "url": simulator.url}), flush=True)
        await stop.wait()


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not to be had on Windows
        return None
    return uvloop.Loop


if __name__ == "__main__":
    raise SystemExit(main())
