"""The router's neighbours as small real gRPC servers, scripted by a test: accounting, provider proxy and cache."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from modelmuxer.accounting.v1 import accounting_pb2, accounting_pb2_grpc
from modelmuxer.cache.v1 import cache_pb2, cache_pb2_grpc
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.chat.v1.chat_pb2 import ChatEvent, ChatRequest, ChatResponse
from modelmuxer.provider.v1 import provider_pb2, provider_pb2_grpc
from modelmuxer.router.v1 import router_pb2_grpc

from services.cache.__main__ import build as build_cache
from services.cache.settings import CacheSettings
from services.router.__main__ import build as build_router
from services.router.settings import RouterSettings
from shared.errors import MeshError, Reason
from shared.runner import App, running
from shared.settings import ServiceSettings
from shared.transcript import Transcript

TOKEN = "a token for neighbours only"
SECRET = "mm-alice"
FIRST = "openai/gpt-4o-mini"
SECOND = "anthropic/claude-haiku-4-5"

Step = ChatEvent | MeshError | float | asyncio.Event
Script = Callable[[provider_pb2.GenerateRequest], Sequence[Step]]


class Accounting(accounting_pb2_grpc.AccountingServiceServicer):
    """Keys, a watch, operations and records, in memory."""

    def __init__(self) -> None:
        self.principals = {SECRET: principal("acme", "alice")}
        self.asked: Counter[str] = Counter()
        self.records: list[accounting_pb2.JournalRecord] = []
        self.ends: list[accounting_pb2.EndOperationRequest] = []
        self.watches: set[asyncio.Queue[accounting_pb2.WatchPoliciesResponse | None]] = set()
        self._answers: dict[tuple[str, str], tuple[bytes, ChatResponse | None]] = {}

    def revoke(self, secret: str) -> None:
        del self.principals[secret]
        changed = accounting_pb2.WatchPoliciesResponse(changed_key_sha256=[hashlib.sha256(secret.encode()).digest()])
        for watch in self.watches:
            watch.put_nowait(changed)

    def break_watches(self) -> None:
        for watch in self.watches:
            watch.put_nowait(None)

    async def Authenticate(self, request: Any, context: Any) -> accounting_pb2.AuthenticateResponse:
        for secret, known in self.principals.items():
            if hashlib.sha256(secret.encode()).digest() == request.key_sha256:
                self.asked[secret] += 1
                return accounting_pb2.AuthenticateResponse(principal=known)
        self.asked["unknown"] += 1
        raise MeshError(Reason.INVALID_KEY, "unknown", code=grpc.StatusCode.NOT_FOUND)

    async def WatchPolicies(self, request: Any, context: Any) -> None:  # type: ignore[override]
        changes: asyncio.Queue[accounting_pb2.WatchPoliciesResponse | None] = asyncio.Queue()
        changes.put_nowait(accounting_pb2.WatchPoliciesResponse())
        self.watches.add(changes)
        try:
            while (change := await changes.get()) is not None:
                await context.write(change)
        finally:
            self.watches.discard(changes)

    async def Record(self, request: Any, context: Any) -> accounting_pb2.RecordResponse:
        self.records.extend(request.records)
        return accounting_pb2.RecordResponse(record_ids=[record.id for record in request.records])

    async def ClaimOperation(self, request: Any, context: Any) -> accounting_pb2.ClaimOperationResponse:
        key = (request.key_id, request.operation_id)
        body, answer = self._answers.setdefault(key, (request.body_sha256, None))
        if body != request.body_sha256:
            raise MeshError(Reason.OPERATION_MISMATCH, "another body")
        return accounting_pb2.ClaimOperationResponse(answer=answer)

    async def EndOperation(self, request: Any, context: Any) -> accounting_pb2.EndOperationResponse:
        key = (request.key_id, request.operation_id)
        self.ends.append(request)
        if request.HasField("answer"):
            self._answers[key] = (self._answers[key][0], request.answer)
        else:
            self._answers.pop(key, None)
        return accounting_pb2.EndOperationResponse()


class Proxy(provider_pb2_grpc.ProviderServiceServicer):
    """Answers by a script per model, and remembers what it was asked."""

    def __init__(self) -> None:
        self.scripts: defaultdict[str, Script] = defaultdict(lambda: lambda _: answer())
        self.requests: list[provider_pb2.GenerateRequest] = []
        self.deadlines_s: list[float] = []
        self.cancelled = 0
        self.state = provider_pb2.WatchProvidersResponse()
        self.watches: set[asyncio.Queue[provider_pb2.WatchProvidersResponse]] = set()

    @property
    def models(self) -> list[str]:
        return [request.model for request in self.requests]

    def tell(self, *deployments: provider_pb2.DeploymentState) -> None:
        self.state = provider_pb2.WatchProvidersResponse(deployments=deployments)
        for watch in self.watches:
            watch.put_nowait(self.state)

    async def StreamGenerate(self, request: Any, context: Any) -> None:  # type: ignore[override]
        async for event in self._play(request, context):
            await context.write(event)

    async def Generate(self, request: Any, context: Any) -> ChatResponse:
        transcript = Transcript()
        async for event in self._play(request, context):
            transcript.add(event)
        return transcript.response

    async def CountTokens(self, request: Any, context: Any) -> provider_pb2.CountTokensResponse:
        return provider_pb2.CountTokensResponse(input_tokens=42, source=chat_pb2.USAGE_SOURCE_PROVIDER)

    async def WatchProviders(self, request: Any, context: Any) -> None:  # type: ignore[override]
        states: asyncio.Queue[provider_pb2.WatchProvidersResponse] = asyncio.Queue()
        states.put_nowait(self.state)
        self.watches.add(states)
        try:
            while True:
                await context.write(await states.get())
        finally:
            self.watches.discard(states)

    async def _play(self, request: provider_pb2.GenerateRequest, context: Any) -> AsyncIterator[ChatEvent]:
        self.requests.append(request)
        self.deadlines_s.append(context.time_remaining())
        try:
            for step in self.scripts[request.model](request):
                if isinstance(step, MeshError):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    yield step
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise


class Cache(cache_pb2_grpc.CacheServiceServicer):
    """A dictionary."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, bytes], ChatResponse] = {}
        self.opens: list[cache_pb2.FillOpen] = []
        self.delay_s = 0.0
        self.look_ups = 0

    async def Lookup(self, request: Any, context: Any) -> cache_pb2.LookupResponse:
        self.look_ups += 1
        await asyncio.sleep(self.delay_s)
        kept = self.kept.get((request.key.tenant, request.key.digest))
        if kept:
            return cache_pb2.LookupResponse(answer=kept, age=Duration(seconds=7))
        return cache_pb2.LookupResponse(flight=b"" if request.offer.router else request.offer.flight)

    async def Fill(self, request_iterator: Any, context: Any) -> cache_pb2.FillResponse:
        async for request in request_iterator:
            opened = request.open
            self.opens.append(opened)
            if opened.HasField("answer"):
                self.kept[opened.key.tenant, opened.key.digest] = opened.answer
        return cache_pb2.FillResponse(stored=True)


@dataclass
class Neighbourhood:
    """A router among its neighbours."""

    accounting: Accounting = field(default_factory=Accounting)
    proxy: Proxy = field(default_factory=Proxy)
    cache: Cache = field(default_factory=Cache)
    apps: dict[str, App] = field(default_factory=dict)
    stacks: dict[str, AsyncExitStack] = field(default_factory=dict)
    channel: grpc.aio.Channel = field(init=False)
    stubs: list[router_pb2_grpc.RouterServiceAsyncStub] = field(default_factory=list)

    @property
    def stub(self) -> router_pb2_grpc.RouterServiceAsyncStub:
        """The first router."""
        return self.stubs[0]

    async def stop(self, name: str) -> None:
        await self.stacks[name].aclose()


@asynccontextmanager
async def neighbourhood(
    home: Path, *, routers: int = 1, caches: int = 0, **settings: str
) -> AsyncIterator[Neighbourhood]:
    """Starts routers and their neighbours: with real caches, if there are to be some, in place of the dictionary.

    `settings` are variables without their prefix.
    """
    town = Neighbourhood()
    common = {
        "MODELMUXER_MESH_TOKEN": TOKEN,
        "MODELMUXER_DRAIN_WAIT_S": "0",
        "MODELMUXER_GRACE_S": "1",
        "MODELMUXER_HOME": str(home),
    }
    async with AsyncExitStack() as stack:
        addresses = {}
        for name, servicer, service in (
            ("accounting", town.accounting, "modelmuxer.accounting.v1.AccountingService"),
            ("provider_proxy", town.proxy, "modelmuxer.provider.v1.ProviderService"),
            ("cache", town.cache, "modelmuxer.cache.v1.CacheService"),
        ):
            addresses[name] = await _serve(town, stack, common, name, servicer, service)
        if caches:
            addresses["cache"] = ",".join([await _serve_cache(town, stack, common, number) for number in range(caches)])
        environ = {
            **common,
            **{f"MODELMUXER_{name.upper()}_ADDRESS": address for name, address in addresses.items()},
            "MODELMUXER_ROUTER_PORT": "0",
            "MODELMUXER_ROUTER_HTTP_PORT": "0",
            "MODELMUXER_CACHE_LOOKUP_TIMEOUT_S": "1",
            **{f"MODELMUXER_{name}": value for name, value in settings.items()},
        }
        for number in range(routers):
            own = town.stacks[f"router {number}"] = await stack.enter_async_context(AsyncExitStack())
            router = await own.enter_async_context(running("router", RouterSettings.load(environ), build_router))
            town.apps[f"router {number}"] = router
            town.channel = await stack.enter_async_context(grpc.aio.insecure_channel(router.address))
            town.stubs.append(router_pb2_grpc.RouterServiceStub(town.channel))
        yield town


async def _serve_cache(town: Neighbourhood, stack: AsyncExitStack, environ: dict[str, str], number: int) -> str:
    name = f"cache {number}"
    own = town.stacks[name] = await stack.enter_async_context(AsyncExitStack())
    settings = CacheSettings.load({**environ, "MODELMUXER_CACHE_PORT": "0"})
    app = town.apps[name] = await own.enter_async_context(running("cache", settings, build_cache))
    return app.address


async def _serve(
    town: Neighbourhood, stack: AsyncExitStack, environ: dict[str, str], name: str, servicer: Any, service: str
) -> str:
    register: Any = {
        "accounting": accounting_pb2_grpc.add_AccountingServiceServicer_to_server,
        "provider_proxy": provider_pb2_grpc.add_ProviderServiceServicer_to_server,
        "cache": cache_pb2_grpc.add_CacheServiceServicer_to_server,
    }[name]

    async def build(_: ServiceSettings, app: App) -> None:
        app.serve(register, servicer, service)

    own = await stack.enter_async_context(AsyncExitStack())
    app = await own.enter_async_context(running(name, ServiceSettings.load(environ), build))
    town.apps[name], town.stacks[name] = app, own
    return app.address


def principal(tenant: str, user: str, **limits: Any) -> accounting_pb2.Principal:
    return accounting_pb2.Principal(
        tenant=tenant, user=user, key_id=f"key_{tenant}_{user}", scopes=[accounting_pb2.SCOPE_CHAT], **limits
    )


def chat(text: str = "Hi", model: str = FIRST, **fields: Any) -> ChatRequest:
    request = ChatRequest(model=model, **fields)
    request.messages.add(role=chat_pb2.ROLE_USER).content.add().text.text = text
    return request


def answer(text: str = "Hello there", finish: chat_pb2.FinishReason = chat_pb2.FINISH_REASON_STOP) -> list[Step]:
    """A whole answer: started, a delta for each word, completed."""
    return [
        *beginning(),
        *(delta(word + " ") for word in text.split()),
        ChatEvent(block_stop={"index": 0}),
        ChatEvent(
            completed={
                "finish_reason": finish,
                "usage": {"input_tokens": 1000, "output_tokens": 500, "source": chat_pb2.USAGE_SOURCE_PROVIDER},
                "provider_request_id": "up_1",
            }
        ),
    ]


def beginning() -> list[Step]:
    return [
        ChatEvent(started={"deployment": "d", "region": "eu", "provider_model": "m-1"}),
        ChatEvent(block_start={"index": 0, "block": {"text": {}}}),
    ]


def delta(text: str) -> ChatEvent:
    return ChatEvent(delta={"index": 0, "text": text})


def failure(reason: Reason, *, retryable: bool, retry_after_s: float | None = None, **known: Any) -> MeshError:
    """A failed call, as the proxy tells it."""
    details = [provider_pb2.AttemptFailure(retryable=retryable, deployment="d", **known)]
    return MeshError(reason, f"The provider said {reason}.", retry_after_s=retry_after_s, details=details)
