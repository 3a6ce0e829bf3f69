"""Rows for machines, and a table of them for eyes."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import version
from typing import Any

from rich.table import Table

from tests.mesh.mesh import ROOT
from tests.performance.load import Measured
from tests.performance.suites import Case
from tests.performance.targets import Target

Row = dict[str, Any]

BESIDE = ("floor", "tunnel floor", "direct")  # what the mesh is measured against

_SERVICES = {"router": "router", "provider-proxy": "proxy", "cache": "cache", "accounting": "acc.", "simulator": "sim."}
_FIGURES = {
    "callers": "callers",
    "req/s": "rps",
    "of floor": "rps_of_floor",
    "of tunnel floor": "rps_of_tunnel_floor",
    "p50 ms": "p50_ms",
    "p99 ms": "p99_ms",
    "first token": "ttft_p50_ms",
    "added p50": "added_ttft_p50_ms",
    "added p99": "added_ttft_p99_ms",
}
_PACKAGES = ("grpcio", "protobuf", "aiohttp", "httptools", "uvloop", "orjson")


def row(case: Case, target: Target, measured: Measured, cpu_s: Mapping[str, float], cache_lookups: int) -> Row:
    """What one target did in one case. The floor's and the provider's own rows are suites of their own names."""
    requests = measured.requests
    made: Row = {
        "suite": case.suite if target.name == "mesh" else target.name,
        "case": case.name.replace(case.face, target.face(case.face), 1),
        "callers": case.callers,
        "rps": round(requests / measured.seconds, 1),
        "p50_ms": percentile(measured.latencies_ms, 50),
        "p99_ms": percentile(measured.latencies_ms, 99),
        "cpu_us": {
            name: round(used / max(requests, 1) * 1e6)
            for name, used in {**cpu_s, "client": measured.client_cpu_s}.items()
        },
        "rss_mb": target.rss_mb(),
        "requests": requests,
        "errors": measured.errors,
        "cache_hits": measured.hits,
        "cache_shared": measured.shared,
        "cache_lookups": cache_lookups,
    }
    if measured.first_error:
        made["first_error"] = measured.first_error
    if case.stream:
        made["messages_per_s"] = round(measured.messages / measured.seconds)
        made["ttft_p50_ms"] = percentile(measured.first_tokens_ms, 50)
        made["ttft_p99_ms"] = percentile(measured.first_tokens_ms, 99)
    return made


def compare(mesh: Row, beside: Mapping[str, Row]) -> None:
    """Writes into the mesh's row how it stands to the floors, and what it adds to the provider's own first token."""
    for name, figure in (("floor", "rps_of_floor"), ("tunnel floor", "rps_of_tunnel_floor")):
        if name in beside and beside[name]["rps"]:
            mesh[figure] = round(mesh["rps"] / beside[name]["rps"], 3)
    direct = beside.get("direct")
    for name, percent in (("added_ttft_p50_ms", "ttft_p50_ms"), ("added_ttft_p99_ms", "ttft_p99_ms")):
        if direct and mesh[percent] is not None and direct[percent] is not None:
            mesh[name] = round(mesh[percent] - direct[percent], 3)


def hits_beside_misses(rows: Collection[Row]) -> Iterator[Row]:
    """For each case of hits what it is of that of misses: in requests/s, and in the mesh's CPU per request."""
    misses = {(made["suite"], made["case"], made["callers"]): made for made in rows if "misses" in made["case"]}
    for made in rows:
        beside = misses.get((made["suite"], made["case"].replace("hits", "misses"), made["callers"]))
        if "hits" not in made["case"] or beside is None or made["suite"] in BESIDE:
            continue
        spent, spent_by_misses = (
            sum(each["cpu_us"].get(name, 0) for name in _SERVICES if name != "simulator") for each in (made, beside)
        )
        yield {
            "suite": "cache-hits",
            "case": f"{made['suite']}: {made['case']}",
            "callers": made["callers"],
            "rps": made["rps"],
            "rps_of_misses": round(made["rps"] / max(beside["rps"], 0.1), 2),
            "cpu_us_of_request": spent,
            "misses_cpu_of_hits": round(spent_by_misses / max(spent, 1), 2),
            "p50_ms": made["p50_ms"],
            "p99_ms": made["p99_ms"],
            "errors": 0,
        }


def percentile(values: Collection[float], percent: float) -> float | None:
    """The value that so many percent do not exceed; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))], 3)


def metadata(*, seconds: float, tracing: bool, transport: str) -> Row:
    """Where, when and of what the figures are."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "machine": platform.platform(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {package: version(package) for package in _PACKAGES},
        "seconds_per_case": seconds,
        "tracing": tracing,
        "transport": transport,
        "note": "Client and simulated provider share the machine. Only ratios to the floor of the same run travel.",
    }


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def tables(rows: list[Row], *, title: str) -> Iterator[Table]:
    """The rows for eyes: what was done, and at the end of each suite the memory it took."""
    columns = _SERVICES | {"client": "client"}
    work = Table(title=title, title_justify="left", caption="Services: µs of CPU per request.", caption_justify="left")
    for name in ("suite", "case"):
        work.add_column(name)
    for name in (*_FIGURES, "errors", *columns.values()):
        work.add_column(name, justify="right")
    for made in rows:
        cpu = [_figure(made["cpu_us"].get(name)) for name in columns]
        figures = [_figure(made.get(member)) for member in _FIGURES.values()]
        beside = made["suite"] in BESIDE
        work.add_row(made["suite"], made["case"], *figures, str(made["errors"]), *cpu, style="dim" if beside else None)
    yield work
    memory = Table(title="Resident memory at the end of each suite, MB", title_justify="left")
    memory.add_column("suite")
    for name in _SERVICES.values():
        memory.add_column(name, justify="right")
    for suite, made in {made["suite"]: made for made in rows}.items():
        memory.add_row(suite, *(_figure(made["rss_mb"].get(name)) for name in _SERVICES))
    yield memory


def lists(rows: Collection[Row], *, title: str) -> Iterator[Table]:
    """Rows that have figures of their own, each suite with the columns that it has."""
    for suite in dict.fromkeys(made["suite"] for made in rows):
        own = [made for made in rows if made["suite"] == suite]
        table = Table(title=f"{title}: {suite}", title_justify="left")
        names = [name for name in own[0] if name not in ("suite", "first_error")]
        for name in names:
            table.add_column(name.replace("_", " "), justify="left" if name == "case" else "right")
        for made in own:
            table.add_row(*(made[name] if name == "case" else _figure(made[name]) for name in names))
        yield table


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
