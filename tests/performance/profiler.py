"""Where a request's CPU goes, service by service: `make bench SUITE=profile`.

The mesh is under load while every service is sampled and /proc counts each thread's CPU. A stack belongs to the
innermost of its frames whose file has an area. Samples are taken in Python: what C does for it (sockets, tasks,
protobuf) counts for the next line of Python to run, so a hop bears the socket's reads and the waking of its callers.
Threads that run no Python are gRPC's: what they use is the hops'. Plain gRPC works in C altogether; of that transport
only sums are told.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from shared.telemetry import names
from tests.performance.load import Load, http_callers
from tests.performance.report import Row
from tests.performance.sampling import Sampling, Watched
from tests.performance.suites import MODEL, Case
from tests.performance.targets import Target

HOP = "the hop"
LOOP = "event loop, asyncio, the rest"
_AREAS = (
    (HOP, ("modelmuxer/tunnel/", "shared/tunnel/", "shared/channels.py", "/grpc/")),
    ("interceptors", ("shared/interceptors.py", "shared/admission.py", "shared/deadline.py")),
    ("traces, metrics, logs", ("shared/telemetry/", "prometheus_client/", "opentelemetry/", "/logging/")),
    ("HTTP: face, providers", ("services/router/http/", "services/provider_proxy/upstream.py", "aiohttp/")),
    ("wire formats", ("services/provider_proxy/adapters/", "shared/wire/", "shared/transcript.py")),
    (
        "money",
        (
            "shared/journal.py",
            "shared/shipper.py",
            "shared/pricing.py",
            "services/accounting/",
            "services/router/leases.py",
            "services/router/rates.py",
            "services/router/reservation.py",
            "services/router/worst_case.py",
        ),
    ),
    ("cache", ("services/cache/", "services/router/response_cache.py", "services/router/cache_key.py")),
    ("routing, the walk", ("services/router/",)),
    ("attempts", ("services/provider_proxy/",)),
)
_SERVICES = ("router", "provider-proxy", "cache", "accounting")
_TOP = 10
_FRAME = re.compile(r"^(?P<function>.*) \((?P<file>[^()]*)\)$")


@dataclass
class Profile:
    """What one service did while it was watched."""

    requests: int
    cpu_us: float
    """Per request."""
    calls: float
    """Calls over the mesh's hops that this service took part in, per request."""
    areas: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Shares of the CPU."""
    functions: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Shares of the CPU, by the innermost Python function."""

    @property
    def hop_us(self) -> float:
        """This side's CPU per request for all of its hops."""
        return self.cpu_us * self.areas[HOP]


def measure(
    mesh: Target, callers_pool: ProcessPoolExecutor, sampling: Sampling, *, seconds: float, callers: int, transport: str
) -> Row:
    """Loads the mesh's HTTP face, watches its services, and says what they did."""
    case = Case(suite="profile", name=f"http unary, {transport}", face="http", callers=callers)
    load = Load(
        address=mesh.http,
        key=mesh.key,
        model=MODEL,
        prompt=case.prompt,
        distinct=True,
        stream=False,
        callers=callers,
        seconds=seconds,
    )
    watched = {name: process for name, process in mesh.processes.items() if name in _SERVICES}
    before = {name: _calls(mesh, name) for name in watched}
    with sampling.watch(watched) as seen:
        measured = callers_pool.submit(http_callers.run, load).result()
    calls = {name: _calls(mesh, name) - before[name] for name in watched}
    calls["router"] = calls["router"] or sum(calls.values())  # without tunnels only those who answer count
    requests = max(measured.requests, 1)
    profiles = {name: _profile(seen[name], requests, calls[name] / requests) for name in watched}
    row = _row(profiles, case, spread=transport == "tunnel")
    return {**row, "rps": round(requests / measured.seconds, 1), "errors": measured.errors}


def _calls(mesh: Target, service: str) -> int:
    """Calls in tunnels that a service has made or answered so far; without tunnels, calls that it has answered."""
    return mesh.counted(service, names.TUNNEL_CALLS) or mesh.counted(service, f"{names.RPC_SERVER_DURATION}_count")


def _profile(watched: Watched, requests: int, calls: float) -> Profile:
    """Each thread's CPU, spread over its samples; of threads without Python all is gRPC's."""
    total_s = sum(watched.cpu_s.values()) or 1.0
    profile = Profile(requests=requests, cpu_us=total_s / requests * 1e6, calls=calls)
    samples = Counter[int]()
    for tid, _, count in watched.stacks:
        samples[tid] += count
    for tid, frames, count in watched.stacks:
        share = watched.cpu_s.get(tid, 0.0) / total_s * count / samples[tid]
        profile.areas[_area(frames)] += share
        profile.functions[_function(frames)] += share
    threads = sum(cpu_s for tid, cpu_s in watched.cpu_s.items() if tid not in samples and tid != watched.pid) / total_s
    profile.areas[HOP] += threads
    profile.functions["(gRPC's own threads)"] += threads
    return profile


def _area(frames: list[str]) -> str:
    for frame in reversed(frames):
        if "__main__" in frame:  # where every stack begins
            continue
        for area, files in _AREAS:
            if any(file in frame for file in files):
                return area
    return LOOP


def _function(frames: list[str]) -> str:
    """The innermost Python function, or what the thread does without any."""
    for frame in reversed(frames):
        found = _FRAME.match(frame)
        if found and found["file"].endswith(".py"):
            return f"{found['function']} ({'/'.join(Path(found['file']).parts[-2:])})"
    return "(no Python)"


def _row(profiles: Mapping[str, Profile], case: Case, *, spread: bool) -> Row:
    """For machines: what a request costs each service and, if it could be seen, what for."""
    row = {
        "suite": case.suite,
        "case": case.name,
        "callers": case.callers,
        "rss_mb": {},
        "cpu_us": {name: round(profile.cpu_us) for name, profile in profiles.items()},
        "calls": {name: round(profile.calls, 2) for name, profile in profiles.items()},
    }
    if not spread:
        return row
    total = sum(profile.cpu_us for profile in profiles.values())
    hops = sum(profile.hop_us for profile in profiles.values())
    return {
        **row,
        "hops_of_request": round(hops / total, 3),
        "hop_us_a_side": {name: round(_a_side(profile), 1) for name, profile in profiles.items()},
        "areas": {name: _rounded(profile.areas) for name, profile in profiles.items()},
        "top": {name: _rounded(profile.functions, _TOP) for name, profile in profiles.items()},
    }


def _a_side(profile: Profile) -> float:
    return profile.hop_us / profile.calls if profile.calls else 0.0


def _rounded(shares: Mapping[str, float], most: int | None = None) -> dict[str, float]:
    """The largest first."""
    ranked = sorted(shares.items(), key=lambda item: item[1], reverse=True)
    return {name: round(share, 4) for name, share in ranked[:most]}


def tables(row: Row) -> Iterator[Table]:
    """For eyes: areas by service, then each service's top ten."""
    services = list(row["cpu_us"])
    title = f"Where a request's CPU goes: {row['case']}, {row['callers']} callers, {row['rps']:,.0f}/s"
    areas = Table(title=title, title_justify="left", caption_justify="left")
    areas.add_column("")
    for name in services:
        areas.add_column(name, justify="right")
    areas.add_row("µs a request", *(f"{row['cpu_us'][name]:,}" for name in services))
    areas.add_row("calls a request that it takes part in", *(f"{row['calls'][name]:.2f}" for name in services))
    if "areas" not in row:
        yield areas
        return
    areas.title = f"{title}: {row['hops_of_request']:.0%} in the hops"
    areas.caption = "Shares of the service's own CPU; the sampler is in them."
    areas.add_row("µs a hop on this side", *(f"{row['hop_us_a_side'][name]:.0f}" for name in services))
    for area in [*(name for name, _ in _AREAS), LOOP]:
        areas.add_row(area, *(_percent(row["areas"][name].get(area, 0.0)) for name in services))
    yield areas
    for name in services:
        top = Table(title=f"{name}: top {_TOP} functions", title_justify="left")
        top.add_column("function")
        top.add_column("share", justify="right")
        for function, share in row["top"][name].items():
            top.add_row(function, _percent(share))
        yield top


def _percent(share: float) -> str:
    return f"{share:.1%}" if share else ""
