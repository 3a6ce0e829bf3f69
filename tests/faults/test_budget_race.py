"""Four routers as processes, and callers who race for what is left: never beyond it, nearly all of it used, and nothing
held afterwards; what a router has spent is counted, once, whatever happens to it.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from modelmuxer.accounting.v1 import accounting_pb2 as pb
from modelmuxer.accounting.v1.accounting_pb2_grpc import AccountingServiceStub, AdminServiceStub
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.client import CallError, Client, text_message

from tests.faults.fleet import Fleet, until
from tests.tools import tool

ROUTERS, CALLERS = 4, 200
CALL_NANOS = 1_000_000
_TRIES = 20
# A call costs the same whatever it uses, so that its worst case is what it costs.
FLAT = f"""
models:
  openai/gpt-4o-mini:
    price:
      rows: [{{input: "0", output: "0"}}]
      call: "{CALL_NANOS / 1e9:.3f}"
"""
STORES = ("sqlite", "mongodb")


class Race:
    """A fleet, callers on all of its routers, and what accounting says."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.clients = [Client(address, api_key=fleet.key, timeout_s=60) for address in fleet.routers]
        self.metadata = (("authorization", f"Bearer {fleet.key}"),)
        self.channel = grpc.aio.insecure_channel(fleet.accounting)

    async def close(self) -> None:
        for client in self.clients:
            await client.close()
        await self.channel.close()

    async def budget(self, nanos: int) -> None:
        wanted = pb.Budget(tenant="default", scope=pb.CEILING_SCOPE_TENANT, limit_nanos=nanos)
        await AdminServiceStub(self.channel).CreateBudget(pb.CreateBudgetRequest(budget=wanted), metadata=self.metadata)

    async def limit(self, **rates: int) -> None:
        wanted = pb.Limit(tenant="default", scope=pb.CEILING_SCOPE_TENANT, **rates)  # type: ignore[arg-type] # rates
        await AdminServiceStub(self.channel).CreateLimit(pb.CreateLimitRequest(limit=wanted), metadata=self.metadata)

    async def standing(self) -> pb.Standing:
        answer = await AccountingServiceStub(self.channel).ListBudgets(pb.ListBudgetsRequest(), metadata=self.metadata)
        return answer.budgets[0].standing

    async def bill_nanos(self) -> int:
        return int((await self.fleet.ask_simulator("/bill"))["total_nanos"])

    async def at_rest(self, timeout_s: float = 60) -> pb.Standing:
        """How the budget stands once nothing is held or lent."""

        async def idle() -> bool:
            standing = await self.standing()
            return not standing.held and not standing.leased

        await until(idle, timeout_s)
        return await self.standing()

    async def call(self, number: int, orders: str = "[[sim tokens=10]]", tokens: int = 20) -> str:
        """How a call ends: OK, or why not."""
        request = chat_pb2.ChatRequest(model="openai/gpt-4o-mini", messages=[text_message(f"{orders} {number}")])
        request.max_output_tokens, request.cache.no_store = tokens, True
        for _ in range(_TRIES):
            try:
                await self.clients[number % len(self.clients)].chat(request)
            except CallError as error:
                reason = error.reason
                if reason == "ACCOUNTING_UNAVAILABLE":  # on a machine that much else runs on it may answer late
                    continue
                return reason
            return "OK"
        return reason


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    if request.param == "mongodb":
        tool("mongodb")
    return str(request.param)


@asynccontextmanager
async def racing(folder: Path, store: str, catalogue: str = "", **environ: str) -> AsyncIterator[Race]:
    if catalogue:
        path = folder / "catalogue.yaml"
        await asyncio.to_thread(path.write_text, catalogue)
        environ["MODELMUXER_CONFIG"] = str(path)
    async with Fleet(folder / "home", routers=ROUTERS, proxies=1, environ=environ, store=store) as fleet:
        race = Race(fleet)
        try:
            yield race
        finally:
            await race.close()


@pytest.mark.timeout(400)
async def test_a_budget_for_37_calls_serves_exactly_37_over_four_routers(tmp_path: Path, store: str) -> None:
    async with racing(tmp_path, store, FLAT) as race:
        await race.budget(37 * CALL_NANOS)
        ended = Counter(await asyncio.gather(*(race.call(number) for number in range(CALLERS))))
        assert ended == {"OK": 37, "BUDGET_EXCEEDED": CALLERS - 37}
        standing = await race.at_rest()
        assert (standing.spent, standing.held, standing.leased) == (37 * CALL_NANOS, 0, 0)


@pytest.mark.timeout(400)
async def test_where_calls_cost_less_than_they_might_nearly_all_is_used_and_nothing_beyond(
    tmp_path: Path, store: str
) -> None:
    async with racing(tmp_path, store, MODELMUXER_BUDGET_WAIT_S="30") as race:
        limit_nanos = 4_000_000
        await race.budget(limit_nanos)

        async def caller(number: int) -> Counter[str]:
            ended = Counter[str]()
            while not ended["BUDGET_EXCEEDED"]:
                ended[await race.call(number, "[[sim tokens=40]]", tokens=60)] += 1
            return ended

        ended = sum(await asyncio.gather(*(caller(number) for number in range(CALLERS))), Counter[str]())
        assert set(ended) == {"OK", "BUDGET_EXCEEDED"}
        spent = await race.bill_nanos()
        assert 0.95 * limit_nanos <= spent <= limit_nanos
        assert (await race.at_rest()).spent == spent


@pytest.mark.timeout(400)
async def test_a_rate_holds_over_four_routers(tmp_path: Path, store: str) -> None:
    async with racing(tmp_path, store) as race:
        await race.limit(requests_per_minute=100)
        begun_s = time.monotonic()
        ended = Counter[str]()

        async def caller(number: int) -> None:
            """Asks again, as long as the first call's minute lasts and there may be room."""
            while time.monotonic() < begun_s + 50 and ended["OK"] < 100:
                ended[(reason := await race.call(number))] += 1
                if reason == "OK":
                    return

        await asyncio.gather(*(caller(number) for number in range(CALLERS)))
        assert set(ended) == {"OK", "RATE_LIMITED"}
        assert 95 <= ended["OK"] <= 100


@pytest.mark.timeout(400)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped past its lease"])
async def test_what_a_router_has_spent_is_counted_once_whatever_happens_to_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    short = {"LEASE_TTL_S": "1", "LONGEST_CALL_S": "6", "SWEEP_INTERVAL_S": "0.2", "BUDGET_WAIT_S": "20"}
    async with racing(tmp_path, "sqlite", **{f"MODELMUXER_{name}": value for name, value in short.items()}) as race:
        limit_nanos = 3_000_000
        await race.budget(limit_nanos)
        ended = Counter[str]()

        async def caller(which: int) -> None:
            for _ in range(1000):
                ended[(reason := await race.call(which, "[[sim ttft=30ms tokens=40 tps=200]]", tokens=60))] += 1
                if reason == "BUDGET_EXCEEDED":
                    return

        callers = [asyncio.create_task(caller(which)) for which in range(40)]
        assert await until(lambda: _true(ended["OK"] >= 60), 120)
        victim = race.fleet.replicas["router-0"]
        victim.send(number)
        if number == signal.SIGSTOP:
            assert await until(lambda: _expired(race), 60)
            victim.send(signal.SIGCONT)
        await asyncio.gather(*callers)
        assert await until(lambda: _settled(race), 120)
        await race.fleet.mux("reconcile", "--write")  # calls that were cut are estimates until the bill settles them
        assert await until(lambda: _equal(race), 120), (await race.standing(), await race.bill_nanos())
        standing = await race.at_rest(120)
        assert (standing.held, standing.leased) == (0, 0)
        assert standing.spent == await race.bill_nanos() <= limit_nanos


async def _true(value: Any) -> bool:
    return bool(value)


async def _expired(race: Race) -> bool:
    """The others have gone on until nothing is left but what the stopped router had been lent, or all of it."""
    standing = await race.standing()
    return standing.limit - standing.spent - standing.leased - standing.held < 200_000


async def _settled(race: Race) -> bool:
    found = await race.fleet.mux("reconcile")
    return not found["missing"] and not any(each["kind"] == "pending" for each in found["differences"])


async def _equal(race: Race) -> bool:
    return (await race.standing()).spent == await race.bill_nanos()
