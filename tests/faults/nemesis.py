"""The nemesis: a mesh under mixed load while a seeded schedule kills, stops and cuts every process but the simulator,
whose bill is the truth. Afterwards the ledger has to be that bill. ``make nemesis``; exits 1 and says what broke, and
also if the run put the promises to no test: too few calls answered, no budget used up, nothing failed over.

The schedule and the load follow from the seed; how they fall together depends on the machine. Between two faults what
was harmed comes back, and stays well for a while; now and then there are two at once, or a process stands still for
long while others are harmed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from modelmuxer.accounting.v1 import accounting_pb2 as pb
from modelmuxer.accounting.v1.accounting_pb2_grpc import AccountingServiceStub
from modelmuxer.chat.v1.chat_pb2 import USAGE_SOURCE_CACHE

from tests.faults import ceilings, sabotage
from tests.faults.callers import Callers, callers_timeout_s
from tests.faults.checker import History, violations
from tests.faults.fleet import Fleet, Replica, StoreServer, until
from tests.tools import TOOLS

_HEALTHY_S = (1.0, 5.0)  # from when what was harmed stands again
_TWO_AT_ONCE = 0.25
_STOP_S = (0.2, 3.0)  # how long a process stands still
_LONG_STOP_S = (8.0, 35.0)  # now and then, beyond what leases, keepalive and claims wait for
_LONG_STOPS = 0.1
_LONG_STOP_OF_RUN = 0.25  # at most
_TAIL = 0.15  # of the run, without faults
_RECOVERY_S = 60.0
_ANSWERED = 0.5  # at least, of the calls that asked for no trouble and were not refused
_ANSWERED_PER_S = 1.0
_LEASE_TTL_S = 3.0
_SWEEP_S = 0.5
_BROKEN = 0.7  # else it is whole again
_BROKEN_MODEL = "gpt-5.4-mini"  # alias auto's first, so that calls fail over


@dataclass(kw_only=True)
class Result:
    """What a run found."""

    seed: int
    store: str
    faults: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    """Calls that were answered as they asked to be, by kind."""
    plain: Counter[str] = field(default_factory=Counter)
    """Calls that asked for no trouble, by how they ended."""
    again: Counter[str] = field(default_factory=Counter)
    """Requests of more than one attempt: "retried" with the same model, "failed over" to another."""
    told: int = 0
    billed: int = 0
    states: Counter[str] = field(default_factory=Counter)
    bill_nanos: int = 0
    ledger_nanos: int = 0
    before: Counter[str] = field(default_factory=Counter)
    """Differences before the ledger was reconciled, by kind."""
    used_up: Counter[str] = field(default_factory=Counter)
    """Hard budgets that came to their end, by scope."""
    written: int = 0
    after: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    """Promises that were broken, in sentences."""
    idle: list[str] = field(default_factory=list)
    """What the run did not put to the test, in sentences."""

    @property
    def failed(self) -> bool:
        """Whether a promise was broken, or none was put to the test."""
        return bool(self.broken or self.idle)

    @property
    def answered(self) -> float:
        """Of the calls that asked for no trouble and that no ceiling refused, the share that was answered."""
        return self.plain["OK"] / max(self.plain.total() - self.plain["REFUSED"], 1)

    def table(self) -> str:
        """The run as a Markdown table."""
        rows = {
            "seed, store": f"{self.seed}, {self.store}",
            "faults": _counts(self.faults),
            "calls by callers": f"{self.calls.total():,} ({_counts(self.calls)})",
            "answered": f"{self.plain['OK']:,}, {self.answered:.0%} of those that asked for no trouble "
            "and met no ceiling",
            "put to the test": f"{_counts(self.kinds)}; requests {_counts(self.again)}",
            "attempts billed": f"{self.billed:,}, whole to their callers: {self.told:,}",
            "entries": _counts(self.states),
            "before reconcile": f"ledger {self.ledger_nanos:,}, bill {self.bill_nanos:,} nano-dollars; "
            f"differences: {_counts(self.before)}",
            "settled by reconcile --write": f"{self.written:,}",
            "differences after": _counts(self.after),
            "hard budgets used up": _counts(self.used_up),
            "not put to the test": str(len(self.idle)),
            "promises broken": str(len(self.broken)),
        }
        width = max(map(len, rows))
        lines = [f"| {name:<{width}} | {value} |" for name, value in rows.items()]
        return "\n".join(
            [f"| {'the nemesis':<{width}} | |", f"| {'-' * width} | --- |", *lines, *self.idle, *self.broken]
        )


async def run(
    home: Path,
    *,
    seed: int,
    seconds: float,
    callers: int = 12,
    faults: bool = True,
    bugs: Sequence[str] = (),
    settle_s: float = 90.0,
    environ: Mapping[str, str] | None = None,
    store: str = "sqlite",
    routers: int = 3,
    proxies: int = 2,
) -> Result:
    """Runs the mesh under load and faults for so long, lets the dust settle, and checks. `bugs` are sabotage's.

    What has not settled after `settle_s` counts as lost.
    """
    result = Result(seed=seed, store=store)
    longest_stop_s = min(max(seconds * _LONG_STOP_OF_RUN, _STOP_S[1]), _LONG_STOP_S[1])
    longest_call_s = callers_timeout_s() + longest_stop_s + 2
    environ = {**_impatient(longest_call_s), **(environ or {})}
    mesh = Fleet(
        home,
        routers=routers,
        proxies=proxies,
        commands=sabotage.commands(bugs),
        environ=environ,
        store=store,
    )
    async with mesh as fleet:
        bounds = await ceilings.made(fleet.accounting, fleet.key, seconds)
        load = Callers(fleet.routers, bounds, seed)
        load.start(callers)
        if faults:
            harm = Harm(fleet, random.Random(seed), longest_stop_s)
            await harm.do(seconds * (1 - _TAIL))
            result.faults = harm.done
        await asyncio.sleep(seconds * _TAIL if faults else seconds)
        if not await fleet.at_rest(settle_s):
            result.broken.append("a process that died did not come back")
        result.broken += [
            f"{each.name} died {each.deaths} times, and was killed {each.killed} times"
            for each in fleet.replicas.values()
            if each.deaths > each.killed
        ]
        await load.stop()
        result.calls, result.kinds, result.plain, result.told = load.ended, load.kinds, load.plain, len(load.told)
        await until(lambda: _settled(fleet), settle_s)
        await _check(fleet, load, result)
        longest_lease_s = 0.0 if bugs else _LEASE_TTL_S + 2 * longest_call_s  # of bugs some are never given back
        await _check_ceilings(fleet, bounds, result, longest_lease_s + settle_s)
        if faults:
            result.idle += idle(result, seconds)
    return result


def _impatient(longest_call_s: float) -> dict[str, str]:
    """Settings by which leases of the dead close while somebody still looks."""
    return {
        "MODELMUXER_LEASE_TTL_S": str(_LEASE_TTL_S),
        "MODELMUXER_LONGEST_CALL_S": str(longest_call_s),
        "MODELMUXER_PENDING_TIMEOUT_S": str(int(longest_call_s) + 1),
        "MODELMUXER_SWEEP_INTERVAL_S": str(_SWEEP_S),
    }


class Harm:
    """What is done to a fleet, by a seeded schedule."""

    def __init__(self, fleet: Fleet, chance: random.Random, longest_stop_s: float) -> None:
        self.done: Counter[str] = Counter()
        """Faults, by kind and whom they struck."""
        self._fleet = fleet
        self._chance = chance
        self._longest_stop_s = longest_stop_s
        self._stopped: set[asyncio.Task[None]] = set()

    async def do(self, seconds: float) -> None:
        """Does harm until the time is over, and undoes what does not pass by itself."""
        end_s = time.monotonic() + seconds
        while (remaining_s := end_s - time.monotonic()) > 0:
            await asyncio.sleep(min(self._chance.uniform(*_HEALTHY_S), remaining_s))
            stops = [await self._strike(end_s) for _ in range(2 if self._chance.random() < _TWO_AT_ONCE else 1)]
            await asyncio.sleep(max(stops))
            await self._fleet.serve(_RECOVERY_S)
        await asyncio.gather(*self._stopped)
        await self._fleet.ask_simulator("/behaviour", "DELETE")

    async def _strike(self, end_s: float) -> float:
        """One fault. Returns for how long to wait until it passes: not for what stands still for long."""
        chance, remaining_s = self._chance, max(end_s - time.monotonic(), 0.0)
        kind = chance.choices(("kill", "stop", "cut", "break a model"), weights=(4, 3, 3, 2))[0]
        if kind == "break a model":
            await self._break_model()
            self.done[kind] += 1
            return 0.0
        if kind == "cut":
            name, wire = chance.choice(sorted(self._fleet.wires().items()))
            wire.cut()
            self.done[f"cut {_kind(name)}"] += 1
            return 0.0
        victim = chance.choice(self._fleet.victims)
        lasts = chance.random() < _LONG_STOPS
        stop_s = min(chance.uniform(*(_LONG_STOP_S if lasts else _STOP_S)), self._longest_stop_s, remaining_s)
        if not victim.send(signal.SIGKILL if kind == "kill" else signal.SIGSTOP):
            return 0.0
        self.done[f"{kind} {_kind(victim.name)}"] += 1
        if kind == "kill":
            return 0.0
        task = asyncio.create_task(_go_on(victim, stop_s))
        self._stopped.add(task)
        task.add_done_callback(self._stopped.discard)
        return 0.0 if lasts else stop_s

    async def _break_model(self) -> None:
        """Until it is asked for something else, or heals."""
        broken = ("status=503", "status=429 retry_after=1", "status=500", "cut_at=2")
        directive = self._chance.choice(broken) if self._chance.random() < _BROKEN else ""
        await self._fleet.ask_simulator("/behaviour", "PUT", {"model": _BROKEN_MODEL, "directive": directive})


def _kind(name: str) -> str:
    return name.partition("-")[0]


async def _go_on(replica: Replica | StoreServer, after_s: float) -> None:
    await asyncio.sleep(after_s)
    replica.send(signal.SIGCONT)


def idle(result: Result, seconds: float) -> list[str]:
    """What was not put to the test."""
    missing = {
        "there was no fault": not result.faults,
        f"only {result.answered:.0%} of the calls were answered": result.answered < _ANSWERED,
        f"only {result.plain['OK']} calls were answered": result.plain["OK"] < _ANSWERED_PER_S * seconds,
        "no hard budget was used up": not result.used_up,
        "no request was tried again": not result.again["retried"],
        "no request failed over": not result.again["failed over"],
        **{f"no call was a {kind}": not result.kinds[kind] for kind in ("stream", "cancel", "hit", "again")},
    }
    return [f"not put to the test: {what}" for what, is_missing in missing.items() if is_missing]


async def _settled(fleet: Fleet) -> bool:
    """Nothing runs any more, and what is billed has arrived and ended. What never arrives, the checks find."""
    try:
        entries = await _entries(fleet)
    except grpc.aio.AioRpcError:
        return False
    if (await fleet.ask_simulator("/connections"))["running"]:
        return False
    bill = await fleet.ask_simulator("/bill")
    known = {entry.attempt_id for entry in entries if entry.state != pb.ENTRY_STATE_PENDING}
    return len(known) == len(entries) and all(call["client_id"] in known for call in bill["calls"])


async def _check(fleet: Fleet, load: Callers, result: Result) -> None:
    entries, bill = await _entries(fleet), await fleet.ask_simulator("/bill")
    result.billed, result.bill_nanos = len(bill["calls"]), bill["total_nanos"]
    result.ledger_nanos = sum(entry.cost_nanos for entry in entries)
    result.states = Counter(pb.EntryState.Name(each.state).removeprefix("ENTRY_STATE_").lower() for each in entries)
    result.again = _tried_again(entries)
    result.broken += violations(History(told=load.told, bill=bill["calls"], entries=entries))
    result.broken += [f"{path.name} still holds records" for path in await fleet.drained()]
    found = await fleet.mux("reconcile", "--write")
    result.before, result.written = _kinds(found), found["written"]
    result.broken += [f"not the bill's to settle: {each}" for each in found["differences"] if not each["settles"]]
    again = await fleet.mux("reconcile", "--write")
    result.after = _kinds(again)
    if again["differences"] or again["written"] or again["ledger_nanos"] != again["bill_nanos"]:
        result.broken.append(f"ledger and bill differ after reconcile --write: {again}")
    spent = (await fleet.mux("spend"))["total_nanos"]
    if spent != bill["total_nanos"]:
        result.broken.append(f"what is reported as spent is {spent}, the bill {bill['total_nanos']} nano-dollars")


def _tried_again(entries: Sequence[pb.Entry]) -> Counter[str]:
    models: dict[str, list[str]] = {}
    for entry in entries:
        models.setdefault(entry.request_id, []).append(entry.model)
    again = [each for each in models.values() if len(each) > 1]
    return Counter(
        {
            "retried": sum(len(set(each)) < len(each) for each in again),
            "failed over": sum(len(set(each)) > 1 for each in again),
        }
    )


async def _check_ceilings(fleet: Fleet, bounds: ceilings.Ceilings, result: Result, wait_s: float) -> None:
    """Leases of the dead close once no call can be under way on them, and count what the ledger says; then all is
    at rest, and the books are audited with all that this brought."""
    bill = await fleet.ask_simulator("/bill")
    charged = {call["client_id"]: call["cost_nanos"] for call in bill["calls"]}
    entries = await _entries(fleet)

    async def at_rest() -> bool:
        return not ceilings.crossed(await bounds.standing(), entries, charged)

    await until(at_rest, wait_s)
    standing = await bounds.standing()
    result.broken += ceilings.crossed(standing, entries, charged)
    result.used_up.update(
        pb.CeilingScope.Name(each.budget.scope).removeprefix("CEILING_SCOPE_").lower()
        for each in ceilings.used_up(standing, entries)
    )
    audit = await fleet.mux("audit")
    result.broken += [f"audit: {each['check']}: {each['subject']}: {each['message']}" for each in audit["findings"]]


async def _entries(fleet: Fleet) -> list[pb.Entry]:
    found: list[pb.Entry] = []
    async with grpc.aio.insecure_channel(fleet.accounting) as channel:
        stub = AccountingServiceStub(channel)
        request = pb.ListEntriesRequest(page_size=1000)
        while True:
            metadata = (("authorization", f"Bearer {fleet.key}"),)
            page = await stub.ListEntries(request, metadata=metadata, timeout=30)
            found += [entry for entry in page.entries if entry.usage.source != USAGE_SOURCE_CACHE]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token


def _kinds(found: Mapping[str, Any]) -> Counter[str]:
    return Counter(each["kind"] for each in found["differences"])


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counter.items())) or "none"


def main() -> None:
    """Parses the command line and runs."""
    parser = argparse.ArgumentParser(prog="make nemesis", description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0, help="how long to do harm (default %(default)s)")
    parser.add_argument("--seed", type=int, help="of the schedule and the load; a new one if none is given")
    parser.add_argument("--callers", type=int, default=12, help="how many call at a time (default %(default)s)")
    parser.add_argument("--store", choices=("sqlite", "mongodb"), default="sqlite", help="where the ledger is kept")
    parser.add_argument(
        "--bug", choices=sorted(sabotage.BUGS), action="append", help="give a service a bug: has to be found"
    )
    parser.add_argument("--home", type=Path, help="keep ledger, journals and logs here")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    if options.store == "mongodb" and not TOOLS["mongodb"].cached.exists():
        parser.error("MongoDB's server is not there: `make tools` builds it.")
    with tempfile.TemporaryDirectory() as folder:
        home = (options.home or Path(folder)) / "home"
        running = run(
            home,
            seed=seed,
            seconds=options.seconds,
            callers=options.callers,
            bugs=options.bug or (),
            store=options.store,
        )
        result = asyncio.run(running)
    print(result.table())
    sys.exit(1 if result.failed else 0)


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[2])
    main()
