"""The bench: the mesh under load, everything switched on, and always the bare floor beside it in the same run.

The targets of a case take turns, so that whatever else the machine does meets them all. Callers run in a process of
their own. What is printed and written says what was measured, never what ought to be.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from tests.performance import hop, report, semantic
from tests.performance.collector import collecting
from tests.performance.load import Load, Measured, grpc_callers, http_callers
from tests.performance.suites import QUICK, SUITES, Case, Scale
from tests.performance.targets import Target, targets

_SEMANTIC = "semantic"  # the index by itself, and what it would serve
_HOP = "hop"  # one call's way between two processes: no mesh, no floor, its own pairs
_WARM_UP = 0.2  # of a turn
_MOST = 0.99
_RUN = {"http": http_callers.run, "grpc": grpc_callers.run}


@dataclass(frozen=True)
class Bench:
    """Runs cases against what it was given."""

    targets: Mapping[str, Target]
    callers: ProcessPoolExecutor
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
        report.compare(rows["mesh"], rows.get("floor"), rows.get("direct"))
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
    suites = arguments.suites or [*SUITES, _SEMANTIC, _HOP]
    cases = [case for name in suites if name in SUITES for case in SUITES[name](QUICK if arguments.quick else Scale())]
    metadata = report.metadata(seconds=seconds, tracing=arguments.tracing, transport=arguments.transport)
    rows: list[report.Row] = []
    if cases:
        environ = {"MODELMUXER_MESH_TRANSPORT": arguments.transport}
        rows += _measured(console, cases, seconds, environ, tracing=arguments.tracing)
    tracing = "tracing on" if arguments.tracing else "tracing off"
    title = f"{metadata['date']}, {metadata['cores']} cores, {arguments.transport}, {tracing}"
    shown = list(report.tables(rows, title=title)) if rows else []
    if _SEMANTIC in suites:
        made, tables = semantic.measure(semantic.QUICK if arguments.quick else semantic.Plan(), console)
        rows += made
        shown += tables
    if _HOP in suites:
        rows += hop.measure(
            hop.Plan(seconds=seconds, callers=(2,)) if arguments.quick else hop.Plan(seconds=seconds / 5)
        )
    arguments.output.write_text(json.dumps({"metadata": metadata, "rows": rows}, indent=1) + "\n")
    Console(width=None if sys.stdout.isatty() else 200).print(*shown)
    console.print(f"Written to {arguments.output}")
    if failed := [made for made in rows if made["errors"]]:
        sys.exit(f"{len(failed)} rows have errors, the first: {failed[0].get('first_error')}")


def _measured(
    console: Console, cases: list[Case], seconds: float, environ: Mapping[str, str], *, tracing: bool
) -> list[report.Row]:
    """Starts everything, runs the cases one after the other, and says of each how it went."""
    rows: list[report.Row] = []
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelmuxer-bench-"))) / "home"
        exporting = stack.enter_context(collecting()) if tracing else {}
        console.print("Starting the mesh and the floor")
        started = stack.enter_context(targets(home, {**environ, **exporting}))
        spawn = multiprocessing.get_context("spawn")
        callers = stack.enter_context(ProcessPoolExecutor(1, mp_context=spawn))
        bench = Bench(started, callers, seconds)
        for case in _shown(console, cases):
            rows += bench.run(case)
            console.print(_line(rows[-1]), soft_wrap=True)
    return rows


def _shown(console: Console, cases: list[Case]) -> Iterator[Case]:
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=len(cases))
        for case in cases:
            progress.update(task, description=f"{case.suite}: {case.name}, {case.callers} callers")
            yield case
            progress.advance(task)


def _line(made: report.Row) -> str:
    beside = f", {made['rps_of_floor']:.0%} of the floor" if "rps_of_floor" in made else ""
    asked = made["cache_lookups"] / max(made["requests"], 1)
    without = f" ({1 - asked:.0%} without an answer of the cache, which came too late)" if asked < _MOST else ""
    return f"{made['suite']}: {made['case']}, {made['callers']} callers: {made['rps']:,.0f}/s{beside}{without}"


def _arguments() -> argparse.Namespace:
    known = [*SUITES, _SEMANTIC, _HOP]
    parser = argparse.ArgumentParser(prog="python -m tests.performance", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="suite", help=f"which to run (default all): {', '.join(known)}")
    parser.add_argument("--seconds", type=float, default=5.0, help="per case and target (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a third of a second each: shows that it runs, no more")
    parser.add_argument("--transport", choices=("tunnel", "plain"), default="tunnel", help="default %(default)s")
    parser.add_argument("--tracing", action="store_true", help="export every span to a collector that drops them")
    parser.add_argument("--output", type=Path, default=Path("bench.json"), help="default %(default)s")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.suites if name not in known]:
        parser.error(f"no such suite: {', '.join(unknown)}; there are {', '.join(known)}")
    return arguments
