"""The single-flight table: how many upstream calls become of many callers who ask four routers the same at one moment.

At least a second of provider's time, so that all of them are there before the answer is. What a caller waits beyond the
provider's own time is the cost of sharing, and, with many callers, of the machine that they share with the mesh.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from modelmuxer.chat.v1.chat_pb2 import CacheInfo, ChatRequest
from modelmuxer.client import CallError, Client, text_message
from rich.table import Table

from tests.mesh.mesh import Mesh
from tests.performance.report import Row, percentile

ROUTERS = ("router", "router-2", "router-3", "router-4")
PROVIDER_MS = 1500
ORDERS = "[[sim ttft=1s tps=100 tokens=50]]"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure."""

    callers: Sequence[int] = (1, 10, 100, 1000)


@dataclass
class _Turn:
    """What the callers of one case saw."""

    latencies_ms: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    errors: int = 0

    async def call(self, client: Client, request: ChatRequest, *, stream: bool) -> None:
        began_s = time.perf_counter()
        try:
            if stream:
                completed = [event async for event in client.stream_chat(request)][-1].completed
            else:
                completed = (await client.chat(request)).completed
        except CallError:
            self.errors += 1
            return
        self.latencies_ms.append((time.perf_counter() - began_s) * 1000)
        self.statuses[CacheInfo.Status.Name(completed.cache.status).removeprefix("STATUS_").lower()] += 1


def measure(plan: Plan) -> list[Row]:
    """Returns a row for each number of callers, of whole answers, of streams and of both mixed."""
    with (
        tempfile.TemporaryDirectory(prefix="modelmuxer-bench-") as folder,
        Mesh(Path(folder) / "home", arguments=("--replicas", "router=4"), warm=False) as mesh,
    ):
        return asyncio.run(_measure(mesh, plan))


def table(rows: Sequence[Row]) -> Table:
    """The rows for eyes."""
    shown = Table(*("case", "callers", "upstream calls", "shared", "kept", "errors", "p50 ms", "p99 ms"))
    shown.title = f"one flight over {len(ROUTERS)} routers, {PROVIDER_MS} ms of provider's time"
    for row in rows:
        figures = (row["upstream_calls"], row["coalesced"], row["exact"], row["errors"], row["p50_ms"], row["p99_ms"])
        shown.add_row(row["case"], f"{row['callers']:,}", *(f"{figure:,}" for figure in figures))
    return shown


async def _measure(mesh: Mesh, plan: Plan) -> list[Row]:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(Client(mesh.grpc(name), api_key=mesh.key, tunnel=True)) for name in ROUTERS
        ]
        for client in clients:
            await client.chat("Are you there?")
        cases = ("whole", "streams", "mixed")
        return [await _turn(mesh, clients, case, callers) for case in cases for callers in plan.callers]


async def _turn(mesh: Mesh, clients: Sequence[Client], case: str, callers: int) -> Row:
    turn, before = _Turn(), len(mesh.bill()["calls"])
    request = ChatRequest(messages=[text_message(f"{ORDERS} The same of {callers} callers, {case}?")])
    began_s = time.perf_counter()
    await asyncio.gather(
        *(
            turn.call(
                clients[number % len(clients)],
                request,
                stream=case == "streams" or (case == "mixed" and number // len(clients) % 2 == 0),
            )
            for number in range(callers)
        )
    )
    wall_s = time.perf_counter() - began_s
    return {
        "suite": "flight",
        "case": case,
        "callers": callers,
        "rps": round(callers / wall_s, 1),
        "p50_ms": percentile(turn.latencies_ms, 50) or 0.0,
        "p99_ms": percentile(turn.latencies_ms, 99) or 0.0,
        "cpu_us": {},
        "rss_mb": {},
        "errors": turn.errors,
        "upstream_calls": len(mesh.bill()["calls"]) - before,
        "coalesced": turn.statuses["coalesced"],
        "exact": turn.statuses["exact"],
    }
