"""The nemesis: a mesh under mixed load while a seeded schedule kills, stops and cuts every process but the simulator,
whose bill is the truth. Afterwards the ledger has to be that bill. ``make nemesis``; exits 1 and says what broke.

The schedule and the load follow from the seed; how they fall together depends on the machine.
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
from collections.abc import Mapping
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

_PAUSE_S = (0.4, 2.5)  # between faults
_STOP_S = (0.2, 3.0)  # how long a process stands still
_LONG_STOP_S = (8.0, 35.0)  # now and then, beyond what keepalive and claims wait for
_LONG_STOPS = 0.1
_LEASE_TTL_S = 3.0
_SWEEP_S = 0.5
_BROKEN_MODEL = "gpt-5.4-mini"  # alias auto's first, so that calls fail over


@dataclass(kw_only=True)
class Result:
    """What a run found."""

    seed: int
    store: str
    faults: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    told: int = 0
    billed: int = 0
    states: Counter[str] = field(default_factory=Counter)
    bill_nanos: int = 0
    ledger_nanos: int = 0
    before: Counter[str] = field(default_factory=Counter)
    """Differences before the ledger was reconciled, by kind."""
    refused: Counter[str] = field(default_factory=Counter)
    """Budgets that came to their end, by scope."""
    written: int = 0
    after: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    """Promises that were broken, in sentences."""

    def table(self) -> str:
        """The run as a Markdown table."""
        rows = {
            "seed, store": f"{self.seed}, {self.store}",
            "faults": _counts(self.faults),
            "calls by callers": f"{self.calls.total():,} ({_counts(self.calls)})",
            "attempts billed": f"{self.billed:,}, whole to their callers: {self.told:,}",
            "entries": _counts(self.states),
            "before reconcile": f"ledger {self.ledger_nanos:,}, bill {self.bill_nanos:,} nano-dollars; "
            f"differences: {_counts(self.before)}",
            "settled by reconcile --write": f"{self.written:,}",
            "differences after": _counts(self.after),
            "budgets used up": _counts(self.refused),
            "promises broken": str(len(self.broken)),
        }
        width = max(map(len, rows))
        lines = [f"| {name:<{width}} | {value} |" for name, value in rows.items()]
        return "\n".join([f"| {'the nemesis':<{width}} | |", f"| {'-' * width} | --- |", *lines, *self.broken])


async def run(
    home: Path,
    *,
    seed: int,
    seconds: float,
    callers: int = 24,
    faults: bool = True,
    bug: str = "",
    settle_s: float = 90.0,
    environ: Mapping[str, str] | None = None,
    store: str = "sqlite",
) -> Result:
    """Runs the mesh under load and faults for so long, lets the dust settle, and checks. `bug` is one of sabotage's.

    What has not settled after `settle_s` counts as lost.
    """
    result = Result(seed=seed, store=store)
    commands = sabotage.command(bug) if bug else {}
    longest_call_s = callers_timeout_s() + min(seconds, _LONG_STOP_S[1]) + 2
    environ = {**_impatient(longest_call_s), **(environ or {})}
    async with Fleet(home, commands=commands, environ=environ, store=store) as fleet:
        bounds = await ceilings.made(fleet.accounting, fleet.key, seconds)
        load = Callers(fleet.routers, bounds.keys, seed)
        load.start(callers)
        await _harm(fleet, random.Random(seed), seconds, result.faults if faults else None)
        if not await fleet.at_rest(settle_s):
            result.broken.append("a process that died did not come back")
        await load.stop()
        result.calls, result.told = load.ended, len(load.told)
        await until(lambda: _settled(fleet), settle_s)
        await _check(fleet, load, result)
        await _check_ceilings(fleet, bounds, result, longest_call_s)
    return result


def _impatient(longest_call_s: float) -> dict[str, str]:
    """Settings by which leases of the dead close while somebody still looks."""
    return {
        "MODELMUXER_LEASE_TTL_S": str(_LEASE_TTL_S),
        "MODELMUXER_LONGEST_CALL_S": str(longest_call_s),
        "MODELMUXER_PENDING_TIMEOUT_S": str(int(longest_call_s) + 1),
        "MODELMUXER_SWEEP_INTERVAL_S": str(_SWEEP_S),
    }


async def _harm(fleet: Fleet, chance: random.Random, seconds: float, faults: Counter[str] | None) -> None:
    """Does harm until the time is over; only waits if there is nothing to count it in."""
    end = time.monotonic() + seconds
    standing: set[asyncio.Task[None]] = set()
    while (remaining_s := end - time.monotonic()) > 0:
        await asyncio.sleep(min(chance.uniform(*_PAUSE_S), remaining_s))
        if faults is None:
            continue
        kind = chance.choices(("kill", "stop", "cut", "break a model"), weights=(4, 3, 3, 1))[0]
        if kind == "cut":
            name, wire = chance.choice(sorted(fleet.wires().items()))
            wire.cut()
        elif kind == "break a model":
            name = "simulator"
            await _break_model(fleet, chance)
        else:
            replica = chance.choice(fleet.victims)
            name = replica.name
            stopped_s = min(chance.uniform(*(_LONG_STOP_S if chance.random() < _LONG_STOPS else _STOP_S)), remaining_s)
            if not replica.send(signal.SIGKILL if kind == "kill" else signal.SIGSTOP):
                continue
            if kind == "stop":
                task = asyncio.create_task(_go_on(replica, stopped_s))
                standing.add(task)
                task.add_done_callback(standing.discard)
        faults[f"{kind} {name.partition('-')[0]}"] += 1
    await asyncio.gather(*standing)
    await fleet.ask_simulator("/behaviour", "DELETE")


async def _go_on(replica: Replica | StoreServer, after_s: float) -> None:
    await asyncio.sleep(after_s)
    replica.send(signal.SIGCONT)


async def _break_model(fleet: Fleet, chance: random.Random) -> None:
    directive = chance.choice(("status=503", "status=429 retry_after=1", "status=500", "cut_at=2"))
    await fleet.ask_simulator("/behaviour", "PUT", {"model": _BROKEN_MODEL, "directive": directive})


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


async def _check_ceilings(fleet: Fleet, bounds: ceilings.Ceilings, result: Result, longest_call_s: float) -> None:
    """Leases of the dead close once no call can be under way on them, and count what the ledger says; then all is
    at rest, and the books are audited with all that this brought."""
    bill = await fleet.ask_simulator("/bill")
    charged = {call["client_id"]: call["cost_nanos"] for call in bill["calls"]}
    entries = await _entries(fleet)

    async def at_rest() -> bool:
        return not ceilings.crossed(await bounds.standing(), entries, charged)

    await until(at_rest, _LEASE_TTL_S + 2 * longest_call_s + 10)
    standing = await bounds.standing()
    result.broken += ceilings.crossed(standing, entries, charged)
    result.refused.update(
        pb.CeilingScope.Name(each.budget.scope).removeprefix("CEILING_SCOPE_").lower()
        for each in standing
        if each.standing.spent >= 0.9 * each.standing.limit > 0
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
    parser.add_argument("--callers", type=int, default=24, help="how many call at a time (default %(default)s)")
    parser.add_argument("--store", choices=("sqlite", "mongodb"), default="sqlite", help="where the ledger is kept")
    parser.add_argument(
        "--bug", choices=sorted(sabotage.BUGS), default="", help="give a service a bug: has to be found"
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
            home, seed=seed, seconds=options.seconds, callers=options.callers, bug=options.bug, store=options.store
        )
        result = asyncio.run(running)
    print(result.table())
    sys.exit(1 if result.broken else 0)


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[2])
    main()
