"""Thresholds are told to a webhook, signed, until it takes them: once accounting has been killed in between, too."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from modelmuxer.accounting.v1 import accounting_pb2 as pb

from services.accounting.settings import AccountingSettings
from shared.settings import SettingsError
from tests.contract.test_accounting import TOKEN, Accounting
from tests.faults.fleet import Replica
from tests.ports import free_port
from tests.zygote import WarmForkServer

KEY = secrets.token_bytes(32)
SECRET = "whsec_" + base64.b64encode(KEY).decode()


@dataclass
class Receiver:
    """Who is told."""

    url: str = ""
    status: int = 500
    heard: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.heard.append((self.status, dict(request.headers), await request.read()))
        return web.Response(status=self.status)

    async def until(self, status: int, count: int = 1) -> list[dict[str, Any]]:
        """What was heard while it answered so, once there is enough of it; every signature is checked."""
        deadline = time.monotonic() + 120
        while len(found := [each for each in self.heard if each[0] == status]) < count:
            assert time.monotonic() < deadline, self.heard
            await asyncio.sleep(0.02)
        return [{"id": verified(headers, body), **json.loads(body)} for _, headers, body in found]


def verified(headers: dict[str, str], body: bytes) -> str:
    """The message's id, as a receiver by Standard Webhooks finds it."""
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    signature = base64.b64encode(hmac.new(KEY, content, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{signature}"
    assert abs(time.time() - int(headers["webhook-timestamp"])) < 60
    return headers["webhook-id"]


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/budgets", receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/budgets"
    try:
        yield receiver
    finally:
        await runner.cleanup()


@asynccontextmanager
async def accounting(home: Path, url: str) -> AsyncIterator[tuple[Replica, Accounting]]:
    port = free_port()
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("MODELMUXER_", "OTEL_"))},
        "MODELMUXER_HOME": str(home),
        "MODELMUXER_MESH_TOKEN": TOKEN,
        "MODELMUXER_ACCOUNTING_PORT": str(port),
        "MODELMUXER_ACCOUNTING_METRICS_PORT": "0",
        "MODELMUXER_DRAIN_WAIT_S": "0",
        "MODELMUXER_BUDGET_WEBHOOK_URL": url,
        "MODELMUXER_BUDGET_WEBHOOK_SECRET": SECRET,
    }
    forks = WarmForkServer(["services.accounting"])
    replica = Replica("accounting", ("services.accounting",), environ, port, home / "accounting.log", forks)
    await replica.start()
    client = Accounting(f"127.0.0.1:{port}")
    try:
        yield replica, client
    finally:
        await client.close()
        await replica.stop()
        await forks.close()


async def spend(client: Accounting, budget: pb.Budget, nanos: int) -> None:
    lease = pb.AcquireLeaseRequest(
        lease_id=f"lease_{secrets.token_hex(4)}", ceiling=budget.id, tenant="acme", holder="r", need=nanos, want=nanos
    )
    lent = (await client.rpc.AcquireLease(lease, wait_for_ready=True, timeout=30)).lease
    await client.rpc.RenewLease(
        pb.RenewLeaseRequest(account=lent.account, lease_id=lent.id, sequence=1, used=nanos, keep=nanos)
    )


async def test_thresholds_are_told_signed_and_at_least_once_though_accounting_is_killed(tmp_path: Path) -> None:
    async with receiving() as receiver, accounting(tmp_path, receiver.url) as (process, client):
        wanted = pb.Budget(
            tenant="acme",
            name="the lab",
            scope=pb.CEILING_SCOPE_TENANT,
            limit_nanos=1000,
            mode=pb.BUDGET_MODE_ADVISORY,
            threshold_percents=[40, 90],
        )
        budget = (await client.admin.CreateBudget(pb.CreateBudgetRequest(budget=wanted))).budget
        await spend(client, budget, 500)
        (refused, *_) = await receiver.until(500, count=2)  # tried, and tried again
        process.serving.clear()
        process.send(signal.SIGKILL)
        receiver.status = 204
        (told,) = await receiver.until(204)
        assert told["id"] == refused["id"]
        assert told["type"] == "budget.threshold_reached"
        expected = {"budget": budget.id, "name": "the lab", "tenant": "acme", "percent": 40, "spent_nanos": 500}
        assert told["data"].items() >= expected.items()
        await process.serving.wait()
        await spend(client, budget, 500)
        (_, second) = await receiver.until(204, count=2)
        assert (second["data"]["percent"], second["data"]["limit_nanos"]) == (90, 1000)


async def test_a_raised_limit_arms_thresholds_anew(tmp_path: Path) -> None:
    async with receiving() as receiver, accounting(tmp_path, receiver.url) as (_, client):
        receiver.status = 204
        wanted = pb.Budget(tenant="acme", scope=pb.CEILING_SCOPE_TENANT, limit_nanos=100)
        budget = (await client.admin.CreateBudget(pb.CreateBudgetRequest(budget=wanted))).budget
        await spend(client, budget, 100)
        assert [each["data"]["percent"] for each in await receiver.until(204, 3)] == [50, 80, 100]
        budget.limit_nanos = 200
        await client.admin.UpdateBudget(pb.UpdateBudgetRequest(budget=budget))
        await spend(client, budget, 60)
        assert [each["data"]["percent"] for each in await receiver.until(204, 4)][3:] == [80]


@pytest.mark.parametrize("secret", ["", "short", "whsec_!!"])
def test_a_webhook_without_a_good_secret_is_refused_at_start(secret: str) -> None:
    environ = {"MODELMUXER_BUDGET_WEBHOOK_URL": "https://example.com", "MODELMUXER_BUDGET_WEBHOOK_SECRET": secret}
    with pytest.raises(SettingsError, match="BUDGET_WEBHOOK_SECRET"):
        AccountingSettings.load(environ)
