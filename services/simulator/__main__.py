"""Serves the simulated providers until SIGTERM or Ctrl-C. Says where in one JSON line on standard output."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from urllib.parse import urlsplit

from services.simulator.server import serve

EXIT_CONFIG = 2  # starting again cannot help


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m services.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument(
        "--port",
        type=int,
        default=os.environ.get("MODELMUXER_SIMULATOR_PORT", "8090"),
        help="port to listen on; 0 takes a free one (default $MODELMUXER_SIMULATOR_PORT or 8090)",
    )
    arguments = parser.parse_args()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_run(arguments.host, arguments.port))
    except OSError as error:
        print(f"cannot listen on {arguments.host}:{arguments.port}: {error.strerror or error}", file=sys.stderr)
        return EXIT_CONFIG
    return 0


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
