"""The bench: the mesh under load, everything switched on, and always the bare floor beside it in the same run.

The targets of a case take turns, so that whatever else the machine does meets them all. Callers run in a process of
their own. What is printed and written says what was measured, never what ought to be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from tests.faults import cache_faults
from tests.performance import flights, footprint, hop, money, profiler, report, semantic, walls
from tests.performance.collector import collecting
from tests.performance.load import Load, Measured, grpc_callers, http_callers
from tests.performance.sampling import Sampling, sampling
from tests.performance.suites import QUICK, SUITES, Case, Scale
from tests.performance.targets import Target, targets
from tests.stores.cache.servers import redis_server

_SEMANTIC = "semantic"  # the index by itself, and what it would serve
_HOP = "hop"  # one call's way between two processes: no mesh, no floor, its own pairs
_CACHE = "cache"  # has more to tell than its cases
_FAULTS = "cache-faults"  # Redis in every kind of trouble, under load
_TRANSPORT = "MODELMUXER_MESH_TRANSPORT"
_PROFILE = "profile"  # where the mesh's CPU goes: watched from outside, nothing beside it
_FLIGHT = "flight"  # how many upstream calls become of many equal ones: a mesh of its own, of four routers
_MONEY = "money"  # the ledger, budgets and leases on against off: two meshes of its own
_WALLS = "walls"  # two tenants who ask the same all the while: a mesh of its own
_KNOWN = [*SUITES, _SEMANTIC, _HOP, _FAULTS, _FLIGHT, _WALLS, _PROFILE, _MONEY]
_UNASKED = [*SUITES, _HOP]
_WARM_UP = 0.2  # of a turn
_MOST = 0.99
_RUN = {"http": http_callers.run, "grpc": grpc_callers.run}


@dataclass(frozen=True)
class Bench:
    """Runs cases against what it was given."""

    targets: Mapping[str, Target]
    callers: ProcessPoolExecutor
    sampling: Sampling
    seconds: float

    def run(self, case: Case) -> list[report.Row]:
        """Returns a row for each of the case's targets, the mesh's last."""
        measured = {name: Measured() for name in case.targets}
        cpu_s = {name: Counter[str]() for name in case.targets}
        lookups = Counter[str]()
        seconds = case.ramp_s if case.once else self.seconds / case.turns + case.ramp_s
        for name in case.targets:
            self._measure(
                replace(case, callers=min(case.callers, 64), ramp_s=0), self.targets[name], seconds * _WARM_UP
            )
        for _ in range(case.turns):
            for name in case.targets:
                target = self.targets[name]
                before, looked_up = target.cpu_s(), target.cache_lookups()
                measured[name].add(self._measure(case, target, seconds))
                lookups[name] += target.cache_lookups() - looked_up
                cpu_s[name].update({process: used - before[process] for process, used in target.cpu_s().items()})
        rows = {
            name: report.row(case, self.targets[name], measured[name], cpu_s[name], lookups[name])
            for name in case.targets
        }
        report.compare(rows["mesh"], rows)
        return list(rows.values())

    def _measure(self, case: Case, target: Target, seconds: float) -> Measured:
        face = target.face(case.face)
        load = Load(
            address=target.http if face == "http" else target.grpc,
            key=target.key,
            model=case.model,
            prompt=case.prompt,
            distinct=case.distinct,
            stream=case.stream,
            callers=case.callers,
            seconds=seconds,
            ramp_s=case.ramp_s,
            once=case.once,
        )
        return self.callers.submit(_RUN[face], load).result()


def main() -> None:
    """Parses the command line, measures, prints the table and writes bench.json."""
    arguments = _arguments()
    console = Console(stderr=True)
    seconds = 0.3 if arguments.quick else arguments.seconds
    scale = QUICK if arguments.quick else Scale()
    suites = arguments.suites or _UNASKED
    cases = [case for name in suites if name in SUITES for case in SUITES[name](scale)]
    metadata = report.metadata(seconds=seconds, tracing=arguments.tracing, transport=arguments.transport)
    environ = {_TRANSPORT: arguments.transport}
    rows: list[report.Row] = []
    profiles: list[report.Row] = []
    for redis in (False, True):
        own = [case for case in cases if case.redis == redis]
        profiled = _PROFILE in suites and not redis
        if own or profiled:
            with (
                _redis(console) if redis else nullcontext(environ) as store,
                _bench(console, seconds, {**environ, **store}, tracing=arguments.tracing) as bench,
            ):
                rows += _measured(console, own, bench)
                if profiled:
                    profiles.append(_profiled(console, bench, arguments.transport, scale.callers[-1]))
    if profiles and not arguments.quick:
        other = "plain" if arguments.transport == "tunnel" else "tunnel"
        with _bench(console, seconds, {_TRANSPORT: other}, tracing=arguments.tracing) as bench:
            profiles.append(_profiled(console, bench, other, scale.callers[-1]))
    tracing = "tracing on" if arguments.tracing else "tracing off"
    title = f"{metadata['date']}, {metadata['cores']} cores, {arguments.transport}, {tracing}"
    shown = list(report.tables(rows, title=title)) if rows else []
    if _SEMANTIC in suites:
        made, tables = semantic.measure(semantic.QUICK if arguments.quick else semantic.Plan(), console)
        rows += made
        shown += tables
    if _CACHE in suites:
        beside = list(report.hits_beside_misses(rows))
        rows += beside
        shown += report.lists(beside, title="Hits beside misses")
        kept = [*footprint.round_trips(scale.cache_callers, seconds), *footprint.footprints(scale.entries)]
        rows += kept
        shown += report.lists(kept, title="Redis by itself, and the memory that kept answers take")
    if _FAULTS in suites:
        harmed = asyncio.run(cache_faults.measure(seconds))
        rows += harmed
        shown += report.lists(harmed, title="Redis in trouble: what callers notice")
    for row in profiles:
        rows.append(row)
        shown += profiler.tables(row)
    if _MONEY in suites:
        least = money.Plan(seconds=seconds, callers=(4,), turns=1, stores=("sqlite",))
        plan = least if arguments.quick else money.Plan(seconds=seconds)
        counted = money.measure(plan)
        rows += counted
        shown += report.tables(counted, title=f"{title}; req/s of the mesh without a ledger")
    if _FLIGHT in suites:
        made = flights.measure(flights.Plan(callers=(8,)) if arguments.quick else flights.Plan())
        rows += made
        shown.append(flights.table(made))
    if _WALLS in suites:
        made = [walls.measure(walls.Plan(seconds=2 if arguments.quick else max(seconds, 30.0)))]
        rows += made
        shown += report.lists(made, title="Tenants as walls")
    if _HOP in suites:
        rows += hop.measure(
            hop.Plan(seconds=seconds, callers=(2,)) if arguments.quick else hop.Plan(seconds=seconds / 5)
        )
    arguments.output.write_text(json.dumps({"metadata": metadata, "rows": rows}, indent=1) + "\n")
    Console(width=None if sys.stdout.isatty() else 200).print(*shown)
    console.print(f"Written to {arguments.output}")
    if failed := [made for made in rows if made["errors"]]:
        sys.exit(f"{len(failed)} rows have errors, the first: {failed[0].get('first_error')}")


@contextmanager
def _redis(console: Console) -> Iterator[dict[str, str]]:
    console.print("Starting Redis")
    with redis_server() as server:
        yield {"MODELMUXER_CACHE_STORE": "redis", "REDIS_URL": server.url}


@contextmanager
def _bench(console: Console, seconds: float, environ: Mapping[str, str], *, tracing: bool) -> Iterator[Bench]:
    """Starts everything: the mesh, the floor, and a process for the callers."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelmuxer-bench-"))) / "home"
        exporting = stack.enter_context(collecting()) if tracing else {}
        console.print("Starting the mesh and the floor")
        samples = stack.enter_context(sampling())
        started = stack.enter_context(targets(home, {**environ, **exporting, **samples.environ}))
        spawn = multiprocessing.get_context("spawn")
        yield Bench(started, stack.enter_context(ProcessPoolExecutor(1, mp_context=spawn)), samples, seconds)


def _measured(console: Console, cases: list[Case], bench: Bench) -> list[report.Row]:
    """Runs the cases one after the other, and says of each how it went."""
    rows: list[report.Row] = []
    for case in _shown(console, cases):
        rows += bench.run(case)
        console.print(_line(rows[-1]), soft_wrap=True)
    return rows


def _profiled(console: Console, bench: Bench, transport: str, callers: int) -> report.Row:
    console.print(f"Watching where the CPU goes, {transport}")
    mesh = bench.targets["mesh"]
    return profiler.measure(
        mesh, bench.callers, bench.sampling, seconds=4 * bench.seconds, callers=callers, transport=transport
    )


def _shown(console: Console, cases: list[Case]) -> Iterator[Case]:
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=len(cases))
        for case in cases:
            progress.update(task, description=f"{case.suite}: {case.name}, {case.callers} callers")
            yield case
            progress.advance(task)


def _line(made: report.Row) -> str:
    beside = f", {made['rps_of_floor']:.0%} of the floor" if "rps_of_floor" in made else ""
    requests = max(made["requests"], 1)
    # Requests of one moment share a look-up, or the call that it leads to.
    answered = max(made["cache_lookups"], made["cache_hits"] + made["cache_shared"]) / requests
    without = f" ({1 - answered:.0%} without an answer of the cache, which came too late)" if answered < _MOST else ""
    if made["cache_shared"] / requests > 1 - _MOST:
        without += f" ({made['cache_shared'] / requests:.0%} shared another's call)"
    return f"{made['suite']}: {made['case']}, {made['callers']} callers: {made['rps']:,.0f}/s{beside}{without}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.performance", description=__doc__)
    parser.add_argument(
        "suites",
        nargs="*",
        metavar="suite",
        help=f"which to run (default {', '.join(_UNASKED)}): {', '.join(_KNOWN)}",
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="per case and target (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a third of a second each: shows that it runs, no more")
    parser.add_argument("--transport", choices=("tunnel", "plain"), default="tunnel", help="default %(default)s")
    parser.add_argument("--tracing", action="store_true", help="export every span to a collector that drops them")
    parser.add_argument("--output", type=Path, default=Path("bench.json"), help="default %(default)s")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.suites if name not in _KNOWN]:
        parser.error(f"no such suite: {', '.join(unknown)}; there are {', '.join(_KNOWN)}")
    return arguments
