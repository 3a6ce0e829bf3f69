"""What money costs: `make bench SUITE=money`.

Two meshes take turns under the same load. In one every attempt is journalled, shipped and merged, and held on four
budgets and three rates. In the other nobody journals (`unledgered`), so accounting has nothing to merge, and the key
has no ceilings, so there are no leases; all else is the same, authentication and prices included. Over MongoDB the
server's own CPU per request is told beside it.

Then what accounting settles: attempts per second, each announced and ended, in batches of a shipper's size.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import secrets
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
from modelmuxer.accounting.v1 import accounting_pb2 as pb
from modelmuxer.accounting.v1.accounting_pb2_grpc import AccountingServiceStub, AdminServiceStub
from modelmuxer.chat.v1.chat_pb2 import USAGE_SOURCE_PROVIDER, Usage

from shared.channels import MeshChannel, connect
from tests.mesh.mesh import Mesh
from tests.performance import report
from tests.performance.load import Load, Measured, http_callers
from tests.performance.suites import MODEL, Case
from tests.performance.targets import Target
from tests.tools import TOOLS
from tests.tools.mongodb.server import MongoServer

UNLEDGERED = Path(__file__).with_name("unledgered")
_BATCH = 256  # attempts: two records each make the 512 that a shipper sends
_SHIPPERS = 4
_WARM_UP_S = 1.0
_DOLLAR = 10**9


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured."""

    seconds: float
    """Of each mesh, at each number of callers, over all turns."""
    callers: tuple[int, ...] = (1, 8, 32)
    turns: int = 4
    stores: tuple[str, ...] = ("sqlite", *(("mongodb",) if TOOLS["mongodb"].cached.exists() else ()))


def measure(plan: Plan) -> list[report.Row]:
    """A row for each mesh and number of callers, and one for what accounting settles, on each store."""
    rows: list[report.Row] = []
    for store in plan.stores:
        with ExitStack() as stack:
            server = stack.enter_context(MongoServer()) if store == "mongodb" else None
            environ = {} if server is None else {"MODELMUXER_LEDGER_STORE": store, "MONGODB_URL": f"{server.url}bench"}
            counted = stack.enter_context(_mesh(environ))
            bare = stack.enter_context(_mesh({"PYTHONPATH": str(UNLEDGERED)}))
            spawn = multiprocessing.get_context("spawn")
            callers = stack.enter_context(ProcessPoolExecutor(1, mp_context=spawn))
            targets = {"mesh": _target("mesh", counted, _held_key(counted)), "no ledger": _target("no ledger", bare)}
            for number in plan.callers:
                rows += _compared(plan, store, number, targets, callers, server)
            rows.append(_settled(plan, store, counted, server))
    return rows


@contextmanager
def _mesh(environ: Mapping[str, str]) -> Iterator[Mesh]:
    environ = {"MODELMUXER_LOG_LEVEL": "error", **environ}
    with (
        TemporaryDirectory(prefix="modelmuxer-money-") as folder,
        Mesh(Path(folder) / "home", environ, warm=False) as mesh,
    ):
        yield mesh


def _target(name: str, mesh: Mesh, key: str = "") -> Target:
    http = str(mesh.services["router"]["http"])
    return Target(name=name, http=http, grpc=mesh.grpc(), key=key or mesh.key, processes=mesh.processes(), mesh=mesh)


def _held_key(mesh: Mesh) -> str:
    """A key that four budgets and three rates apply to, none of which it comes to the end of."""
    metadata = (("authorization", f"Bearer {mesh.key}"),)
    with grpc.insecure_channel(mesh.grpc("accounting")) as channel:
        admin = AdminServiceStub(channel)
        wanted = pb.CreateKeyRequest(name="bench", tenant="bench", team="bench", user="bench")
        made = admin.CreateKey(wanted, metadata=metadata)
        subjects = {
            pb.CEILING_SCOPE_TENANT: "",
            pb.CEILING_SCOPE_TEAM: "bench",
            pb.CEILING_SCOPE_USER: "bench",
            pb.CEILING_SCOPE_KEY: made.key.id,
        }
        for scope, subject in subjects.items():
            budget = pb.Budget(tenant="bench", scope=scope, subject=subject, limit_nanos=10**6 * _DOLLAR)
            admin.CreateBudget(pb.CreateBudgetRequest(budget=budget), metadata=metadata)
        most = 10**12
        limit = pb.Limit(tenant="bench", scope=pb.CEILING_SCOPE_USER, subject="bench", requests_per_minute=most)
        limit.tokens_per_minute = limit.concurrent_calls = most
        admin.CreateLimit(pb.CreateLimitRequest(limit=limit), metadata=metadata)
    return str(made.secret)


def _compared(
    plan: Plan,
    store: str,
    number: int,
    targets: Mapping[str, Target],
    callers: ProcessPoolExecutor,
    server: MongoServer | None,
) -> list[report.Row]:
    case = Case(suite="money", name=f"http unary, {store}", face="http", callers=number)
    measured = {name: Measured() for name in targets}
    used = {name: dict.fromkeys(target.processes, 0.0) for name, target in targets.items()}
    server_cpu_s = 0.0
    for turn in range(-1, plan.turns):
        for name, target in targets.items():
            seconds = _WARM_UP_S if turn < 0 else plan.seconds / plan.turns
            before, server_before = target.cpu_s(), server.cpu_s() if server is not None else 0.0
            load = Load(
                address=target.http,
                key=target.key,
                model=MODEL,
                prompt=case.prompt,
                distinct=True,
                stream=False,
                callers=number,
                seconds=min(seconds, plan.seconds),
                ramp_s=0.0,
                once=False,
            )
            ran = callers.submit(http_callers.run, load).result()
            if turn < 0:
                continue
            measured[name].add(ran)
            for process, cpu_s in target.cpu_s().items():
                used[name][process] += cpu_s - before[process]
            if server is not None and name == "mesh":
                server_cpu_s += server.cpu_s() - server_before
    rows = {name: report.row(case, target, measured[name], used[name], 0) for name, target in targets.items()}
    mesh, bare = rows["mesh"], rows["no ledger"]
    if bare["rps"]:
        mesh["rps_of_unledgered"] = mesh["rps_of_floor"] = round(mesh["rps"] / bare["rps"], 3)
    if server is not None:
        mesh["cpu_us"]["mongodb"] = round(server_cpu_s / max(mesh["requests"], 1) * 1e6)
    return list(rows.values())


def _settled(plan: Plan, store: str, mesh: Mesh, server: MongoServer | None) -> report.Row:
    """How many attempts accounting settles, asked by several shippers at once."""
    process = mesh.processes()["accounting"]
    before_s, server_before = sum(process.cpu_times()[:2]), server.cpu_s() if server is not None else 0.0
    latencies_ms, seconds = asyncio.run(_ship(mesh, plan.seconds))
    attempts = len(latencies_ms) * _BATCH
    cpu_us = {"accounting": round((sum(process.cpu_times()[:2]) - before_s) / attempts * 1e6)}
    if server is not None:
        cpu_us["mongodb"] = round((server.cpu_s() - server_before) / attempts * 1e6)
    return {
        "suite": "money",
        "case": f"attempts settled, {store}",
        "callers": _SHIPPERS,
        "rps": round(attempts / seconds, 1),
        "p50_ms": report.percentile(latencies_ms, 50),
        "p99_ms": report.percentile(latencies_ms, 99),
        "cpu_us": cpu_us,
        "rss_mb": {"accounting": round(process.memory_info().rss / 1e6, 1)},
        "requests": attempts,
        "errors": 0,
    }


async def _ship(mesh: Mesh, seconds: float) -> tuple[list[float], float]:
    latencies_ms: list[float] = []
    begun_s = time.monotonic()

    async def shipper() -> None:
        async with MeshChannel(connect(mesh.grpc("accounting"), 1 << 25), mesh.token, None) as channel:
            accounting = AccountingServiceStub(channel)
            while time.monotonic() - begun_s < seconds:
                request = _batch()
                sent_s = time.monotonic()
                await accounting.Record(request, timeout=60)
                latencies_ms.append((time.monotonic() - sent_s) * 1e3)

    await asyncio.gather(*(shipper() for _ in range(_SHIPPERS)))
    return latencies_ms, time.monotonic() - begun_s


def _batch() -> pb.RecordRequest:
    context = pb.BillingContext(principal=pb.Principal(tenant="bench", user="bench", key_id="key_bench"))
    context.price.rows.add(input=150_000_000, output=600_000_000)
    context.holds.add(lease_id="lease_bench", account="bench|bench||0", held_nanos=1000)
    billing = context.SerializeToString()
    model, deployment = "openai/gpt-4o-mini", "openai/gpt-4o-mini@openai"
    request = pb.RecordRequest()
    for _ in range(_BATCH):
        attempt_id = f"att_{secrets.token_hex(12)}"
        usage = Usage(input_tokens=40, output_tokens=60, source=USAGE_SOURCE_PROVIDER)
        begun = request.records.add(id=f"{attempt_id}/announced", attempt_id=attempt_id, witness="bench")
        begun.announced.CopyFrom(
            pb.Announced(billing_context=billing, provider="openai", model=model, deployment=deployment)
        )
        ended = request.records.add(id=f"{attempt_id}/outcome", attempt_id=attempt_id, witness="bench")
        ended.outcome.CopyFrom(pb.Outcome(billing_context=billing, usage=usage, status="OK", complete=True))
        begun.time.GetCurrentTime()
        ended.time.GetCurrentTime()
    return request
