"""``make soak``: the mesh under many requests, and whether its memory stays flat.

The promise is for a million requests against the first fifty thousand; fewer show the tool, not the promise. The
simulated provider is left out: it keeps a bill of every call.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.mesh.mesh import Mesh
from tests.performance.load import NUMBER, Load, Measured, http_callers
from tests.performance.suites import MODEL

ALLOWED_GROWTH = 0.05
TURN_S = 10.0
CACHE_BYTES = 8 * 1024 * 1024  # full long before the first look, so that the cache's own growth is over by then
PROMPT = f"Explain in a few words why memory stays flat. Question {NUMBER}."


def main() -> int:
    arguments = _arguments()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="modelmuxer-soak-") as folder:
        environ = {"MODELMUXER_CACHE_MAX_BYTES": str(CACHE_BYTES)}
        with (
            Mesh(Path(folder) / "home", environ, warm=False) as mesh,
            ProcessPoolExecutor(1, mp_context=spawn) as callers,
        ):
            made = Measured()
            first = _run(mesh, callers, made, arguments.first)
            last = _run(mesh, callers, made, arguments.requests)
    grown = {service: last[service] / first[service] - 1 for service in first}
    print(f"{'service':16} {'MB at first':>12} {'MB at last':>12} {'growth':>8}")
    for service, growth in grown.items():
        print(f"{service:16} {first[service]:12.1f} {last[service]:12.1f} {growth:8.1%}")
    print(f"{made.requests} requests, {made.errors} errors {made.first_error}")
    return 1 if made.errors or max(grown.values()) > ALLOWED_GROWTH else 0


def _run(mesh: Mesh, callers: ProcessPoolExecutor, made: Measured, until: int) -> dict[str, float]:
    """Asks until so many requests were made in all; returns each service's resident memory, MB."""
    address = mesh.http.removeprefix("http://")
    load = Load(
        address=address,
        key=mesh.key,
        model=MODEL,
        prompt=PROMPT,
        distinct=True,
        stream=False,
        callers=16,
        seconds=TURN_S,
    )
    while made.requests < until and not made.errors:
        turn = callers.submit(http_callers.run, load).result()
        turn.latencies_ms = turn.latencies_ms[:0]  # a million would be this process's own growth
        turn.first_tokens_ms = turn.first_tokens_ms[:0]
        made.add(turn)
        print(f"{made.requests} requests, {turn.requests / turn.seconds:.0f}/s", file=sys.stderr)
    processes = {name: process for name, process in mesh.processes().items() if name != "simulator"}
    return {name: process.memory_info().rss / 1e6 for name, process in processes.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.performance.soak", description=__doc__)
    parser.add_argument(
        "--first", type=int, default=50_000, help="requests before the first look (default %(default)s)"
    )
    parser.add_argument("--requests", type=int, default=1_000_000, help="requests in all (default %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
