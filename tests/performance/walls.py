"""Tenants as walls, under load: all ask the same questions at the same time, word for word and by meaning, whole and as
streams.

Every answer bears the id that the provider gave the call that made it, also where it was kept or shared. Whoever paid
for that call is whose answer it is: one that reaches another tenant has crossed.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from modelmuxer.chat.v1.chat_pb2 import CacheInfo, ChatRequest, Completed
from modelmuxer.client import CallError, Client, text_message

from tests.mesh.mesh import Mesh
from tests.performance.edits import NEUTRAL
from tests.performance.report import Row, percentile

TENANTS = ("acme", "globex")
ALIAS = "faq"
MODEL = "gpt-4o-mini"
CATALOGUE = f"""
aliases:
  {ALIAS}: {{targets: [openai/{MODEL}], cache: {{semantic: {{model: embed}}}}}}
"""
VERBS = ("paint", "repair", "clean", "sell", "move", "insure", "measure", "photograph")
THINGS = ("wooden fence", "rowing boat", "garage door", "church organ", "brass lamp", "leather sofa", "stone bridge")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long, and how many callers each tenant has."""

    seconds: float = 30.0
    callers: int = 8


@dataclass
class Seen:
    """What the callers saw."""

    owners: dict[str, str] = field(default_factory=dict)
    """Who paid for a call, by the provider's id."""
    shared: list[tuple[str, str]] = field(default_factory=list)
    """The tenant, and the id of the call whose answer it was given without paying for it."""
    statuses: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def crossings(self) -> int:
        """Answers that a tenant got of another's calls, or of nobody's that is known."""
        return sum(self.owners.get(call) != tenant for tenant, call in self.shared)

    def take(self, tenant: str, completed: Completed) -> None:
        """Takes an answer down."""
        status = completed.cache.status
        self.statuses[CacheInfo.Status.Name(status).removeprefix("STATUS_").lower()] += 1
        if status in (CacheInfo.STATUS_MISS, CacheInfo.STATUS_BYPASS):
            self.owners[completed.provider_request_id] = tenant
        else:
            self.shared.append((tenant, completed.provider_request_id))


async def soak(addresses: Sequence[str], keys: Mapping[str, str], plan: Plan) -> Seen:
    """Has the tenants, each by its key, ask at all addresses."""
    seen, chance = Seen(), random.Random(3)
    until = time.monotonic() + plan.seconds
    async with AsyncExitStack() as stack:
        callers = [
            _ask(
                await stack.enter_async_context(Client(addresses[number % len(addresses)], api_key=key, timeout_s=60)),
                tenant,
                until,
                random.Random(chance.random()),
                seen,
            )
            for number in range(plan.callers)
            for tenant, key in keys.items()
        ]
        await asyncio.gather(*callers)
    return seen


def measure(plan: Plan) -> Row:
    """A row for a mesh of two routers."""
    with tempfile.TemporaryDirectory(prefix="modelmuxer-bench-") as folder:
        catalogue = Path(folder) / "catalogue.yaml"
        catalogue.write_text(CATALOGUE)
        environ = {"MODELMUXER_CONFIG": str(catalogue)}
        with Mesh(Path(folder) / "home", environ, ("--replicas", "router=2"), warm=False) as mesh:
            keys = {tenant: _key(mesh, tenant) for tenant in TENANTS}
            _slow(mesh)
            seen = asyncio.run(soak([mesh.grpc("router"), mesh.grpc("router-2")], keys, plan))
    answers = seen.statuses.total()
    return {
        "suite": "walls",
        "case": f"{len(TENANTS)} tenants who ask the same",
        "callers": plan.callers * len(TENANTS),
        "requests": answers,
        "crossings": seen.crossings,
        **{name: seen.statuses[name] for name in ("miss", "exact", "semantic", "coalesced")},
        "rps": round(answers / plan.seconds, 1),
        "p50_ms": percentile(seen.latencies_ms, 50),
        "p99_ms": percentile(seen.latencies_ms, 99),
        "errors": len(seen.errors) + seen.crossings,
        "first_error": seen.errors[0] if seen.errors else None,
    }


async def _ask(client: Client, tenant: str, until: float, chance: random.Random, seen: Seen) -> None:
    while time.monotonic() < until:
        request = ChatRequest(model=ALIAS, messages=[text_message(_question(chance))])
        request.max_output_tokens = 100 + int(time.monotonic() / 10) % 50  # every ten seconds all is new
        began = time.perf_counter()
        try:
            if chance.random() < 0.5:
                completed = (await client.chat(request)).completed
            else:
                completed = [event async for event in client.stream_chat(request)][-1].completed
        except CallError as error:
            seen.errors.append(str(error))
            continue
        seen.latencies_ms.append((time.perf_counter() - began) * 1e3)
        seen.take(tenant, completed)


def _question(chance: random.Random) -> str:
    plain = f"How do I {chance.choice(VERBS)} a {chance.choice(THINGS)}?"
    return NEUTRAL[chance.choice(sorted(NEUTRAL))](plain) if chance.random() < 0.5 else plain


def _key(mesh: Mesh, tenant: str) -> str:
    mux = Path(sys.executable).with_name("mux")
    command = [str(mux), "keys", "create", "soak", "--tenant", tenant, "--json"]
    done = subprocess.run(command, env=mesh.mux_environ(), capture_output=True, text=True, check=True)
    return str(json.loads(done.stdout)["secret"])


def _slow(mesh: Mesh) -> None:
    """Gives the model a time to first token, so that others ask the same meanwhile."""
    order = json.dumps({"model": MODEL, "directive": "ttft=100ms"}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{mesh.simulator}/behaviour", order, method="PUT")):
        pass
