"""A real provider-proxy between a real simulator and a small accounting that keeps what the journal ships."""

from __future__ import annotations

import asyncio
import itertools
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import aiohttp
import grpc
from modelmuxer.accounting.v1.accounting_pb2 import Announced, JournalRecord, Outcome, RecordResponse
from modelmuxer.accounting.v1.accounting_pb2_grpc import (
    AccountingServiceServicer,
    add_AccountingServiceServicer_to_server,
)
from modelmuxer.chat.v1.chat_pb2 import Block, ChatEvent, ChatRequest, Message, Role, Text
from modelmuxer.provider.v1.provider_pb2 import (
    AttemptFailure,
    DeploymentState,
    GenerateRequest,
    WatchProvidersRequest,
    WatchProvidersResponse,
)
from modelmuxer.provider.v1.provider_pb2_grpc import ProviderServiceStub

from services.provider_proxy.__main__ import build
from services.provider_proxy.settings import ProviderProxySettings
from services.simulator import Simulator
from services.simulator import serve as serve_simulator
from shared.channels import MeshChannel, connect
from shared.errors import MeshError
from shared.runner import App, running
from shared.transcript import Transcript
from tests import tls

if TYPE_CHECKING:
    from modelmuxer.provider.v1.provider_pb2_grpc import ProviderServiceAsyncStub

TOKEN = "a token for this test only"
BILLING = b"whose bill it is"


class Ledger(AccountingServiceServicer):
    """Keeps the records of attempts."""

    def __init__(self) -> None:
        self.records: list[JournalRecord] = []

    async def Record(self, request: Any, context: Any) -> RecordResponse:
        self.records.extend(request.records)
        return RecordResponse(record_ids=[record.id for record in request.records])


@dataclass(slots=True)
class Ended:
    """How a call ended for its caller."""

    events: list[ChatEvent]
    error: MeshError | None
    at: float = field(default_factory=time.monotonic)

    @property
    def kinds(self) -> list[str | None]:
        return [event.WhichOneof("event") for event in self.events]

    @property
    def text(self) -> str:
        transcript = Transcript()
        for event in self.events:
            transcript.add(event)
        return "".join(block.text.text for block in transcript.response.content)

    @property
    def reason(self) -> str:
        return str(self.error.reason) if self.error else ""

    @property
    def failure(self) -> AttemptFailure:
        found = self.error.detail(AttemptFailure) if self.error else None
        assert found is not None, f"no AttemptFailure in {self.error!r}"
        return found


class ProxyUnderTest:
    """The proxy, and what stands around it."""

    def __init__(self, app: App, stub: ProviderServiceAsyncStub, simulator: Simulator, ledger: Ledger) -> None:
        self.app = app
        self.stub = stub
        self.simulator = simulator
        self._ledger = ledger
        self._numbers = itertools.count(1)

    def request(self, orders: str = "", *, model: str = "openai/sim-test", **fields: Any) -> GenerateRequest:
        """A request whose prompt orders the simulator's behaviour."""
        prompt = f"Hello [[sim {orders}]]" if orders else "Hello"
        chat = ChatRequest(messages=[Message(role=Role.ROLE_USER, content=[Block(text=Text(text=prompt))])], **fields)
        return GenerateRequest(attempt_id=f"att_{next(self._numbers)}", model=model, chat=chat, billing_context=BILLING)

    async def stream(self, request: GenerateRequest, *, timeout_s: float = 10) -> Ended:
        """Calls and reads to the end."""
        events: list[ChatEvent] = []
        try:
            async for event in self.stub.StreamGenerate(request, timeout=timeout_s):
                events.append(event)  # noqa: PERF401 - what came before an error counts
        except grpc.aio.AioRpcError as error:
            return Ended(events, MeshError.from_rpc(error))
        return Ended(events, None)

    async def announced(self, attempt_id: str) -> Announced:
        """The announcement of an attempt, once accounting has it."""
        return (await self._record(attempt_id, "announced")).announced

    async def outcome(self, attempt_id: str) -> Outcome:
        """The outcome of an attempt, once accounting has it."""
        return (await self._record(attempt_id, "outcome")).outcome

    def has_records(self, attempt_id: str) -> bool:
        return any(record.attempt_id == attempt_id for record in self._ledger.records)

    async def _record(self, attempt_id: str, kind: str) -> JournalRecord:
        def found() -> list[JournalRecord]:
            return [r for r in self._ledger.records if r.id == f"{attempt_id}/{kind}"]

        await until(lambda: bool(found()))
        (record,) = found()  # never two
        assert record.witness == self.app.replica
        return record

    async def get(self, path: str) -> Any:
        """What the simulator tells about itself."""
        async with aiohttp.ClientSession() as session, session.get(self.simulator.url + path) as answer:
            return await answer.json()

    async def billed(self, attempt_id: str) -> list[dict[str, Any]]:
        """The attempt's lines on the provider's bill."""
        calls: list[dict[str, Any]] = (await self.get(f"/bill?client_id={attempt_id}"))["calls"]
        return calls

    async def closed_at(self, attempt_id: str) -> float:
        """When the connection of a running call was closed by us, on the monotonic clock."""

        def closes() -> list[float]:
            return [
                close["closed_monotonic"]
                for close in self.simulator._closes
                if close["running"] and close["running"]["client_id"] == attempt_id and close["by"] == "client"
            ]

        await until(lambda: bool(closes()))
        return closes()[0]

    async def state(self, deployment: str) -> DeploymentState:
        """A deployment's live state."""
        async with self.watch() as told:
            return next(state for state in (await anext(told)).deployments if state.deployment == deployment)

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[WatchProvidersResponse]]:
        """What the proxy tells of its deployments."""
        call = self.stub.WatchProviders(WatchProvidersRequest())
        try:
            yield aiter(call)
        finally:
            call.cancel()


async def until(condition: Callable[[], bool], timeout_s: float = 5) -> None:
    """Waits for a condition."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - of another process's making
            await asyncio.sleep(0.005)


def self_signed(folder: Path) -> ssl.SSLContext:
    """TLS of a server that nobody vouches for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.self_signed(folder))
    return context


@asynccontextmanager
async def accounting() -> AsyncIterator[tuple[Ledger, str]]:
    server = grpc.aio.server()
    ledger = Ledger()  # type: ignore[abstract]  # the proxy calls one method only
    add_AccountingServiceServicer_to_server(ledger, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield ledger, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def proxy(home: Path, simulator: Simulator, **environ: str) -> AsyncIterator[ProxyUnderTest]:
    """A running proxy whose providers are simulated, unless `environ` says otherwise."""
    async with accounting() as (ledger, address):
        variables = {
            "MODELMUXER_HOME": str(home),
            "MODELMUXER_MESH_TOKEN": TOKEN,
            "MODELMUXER_PROVIDER_PROXY_PORT": "0",
            "MODELMUXER_ACCOUNTING_ADDRESS": address,
            "MODELMUXER_DRAIN_WAIT_S": "0",
            "MODELMUXER_GRACE_S": "0.1",
            "MODELMUXER_SIMULATOR_URL": simulator.url,
            **environ,
        }
        variables = {name: value for name, value in variables.items() if value}
        with patch.dict(os.environ, variables):
            settings = ProviderProxySettings.load(variables)
            async with (
                running("provider-proxy", settings, build) as app,
                MeshChannel(connect(app.address, settings.max_message_bytes), TOKEN, None) as channel,
            ):
                yield ProxyUnderTest(app, ProviderServiceStub(channel), simulator, ledger)


@asynccontextmanager
async def simulator() -> AsyncIterator[Simulator]:
    async with serve_simulator(port=0, grace_s=0) as running_simulator:
        yield running_simulator
