"""A service made for tests of what all services share: its methods do what a test puts into them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from modelmuxer.cache.v1 import cache_pb2, cache_pb2_grpc
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.provider.v1 import provider_pb2, provider_pb2_grpc

from shared.channels import MeshChannel, connect
from shared.runner import App, running
from shared.settings import ServiceSettings

PROVIDER = "modelmuxer.provider.v1.ProviderService"
CACHE = "modelmuxer.cache.v1.CacheService"

Unary = Callable[[Any, Any], Awaitable[Any]]


@dataclass(frozen=True, kw_only=True)
class ExampleSettings(ServiceSettings):
    service: ClassVar[str] = "provider_proxy"


async def _count(request: provider_pb2.CountTokensRequest, context: Any) -> provider_pb2.CountTokensResponse:
    return provider_pb2.CountTokensResponse(input_tokens=len(request.model))


async def _events(request: provider_pb2.GenerateRequest, context: Any) -> AsyncIterator[chat_pb2.ChatEvent]:
    for index in range(3):
        yield chat_pb2.ChatEvent(delta=chat_pb2.BlockDelta(index=index))


@dataclass
class Example(provider_pb2_grpc.ProviderServiceServicer):
    """The methods: CountTokens is unary, StreamGenerate a coroutine, WatchProviders an async generator."""

    count: Unary = _count
    events: Callable[[Any, Any], AsyncIterator[chat_pb2.ChatEvent]] = _events
    ended: list[str] = field(default_factory=list)

    Generate: ClassVar[Any] = provider_pb2_grpc.ProviderServiceServicer.Generate  # as generated: unimplemented
    Embed: ClassVar[Any] = provider_pb2_grpc.ProviderServiceServicer.Embed

    async def CountTokens(self, request: Any, context: Any) -> Any:
        try:
            return await self.count(request, context)
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise

    async def StreamGenerate(self, request: Any, context: Any) -> None:  # type: ignore[override]
        try:
            async for event in self.events(request, context):
                await context.write(event)
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise

    async def WatchProviders(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            while True:
                yield provider_pb2.WatchProvidersResponse()
                await asyncio.sleep(0.01)
        finally:
            self.ended.append("closed")


class Filling(cache_pb2_grpc.CacheServiceServicer):
    """A method with a request stream; all its methods are public."""

    Lookup: ClassVar[Any] = cache_pb2_grpc.CacheServiceServicer.Lookup
    FindSimilar: ClassVar[Any] = cache_pb2_grpc.CacheServiceServicer.FindSimilar
    Remember: ClassVar[Any] = cache_pb2_grpc.CacheServiceServicer.Remember
    Judge: ClassVar[Any] = cache_pb2_grpc.CacheServiceServicer.Judge
    Follow: ClassVar[Any] = cache_pb2_grpc.CacheServiceServicer.Follow
    WatchFlights: ClassVar[Any] = cache_pb2_grpc.CacheServiceServicer.WatchFlights
    Invalidate: ClassVar[Any] = cache_pb2_grpc.CacheServiceServicer.Invalidate
    GetStats: ClassVar[Any] = cache_pb2_grpc.CacheServiceServicer.GetStats

    async def Fill(self, request_iterator: AsyncIterator[Any], context: Any) -> cache_pb2.FillResponse:
        async for _ in request_iterator:
            pass
        return cache_pb2.FillResponse()


@asynccontextmanager
async def serving(example: Example, home: Path, **environ: str) -> AsyncIterator[App]:
    """The example on a free port."""
    settings = ExampleSettings.load(
        {
            "MODELMUXER_HOME": str(home),
            "MODELMUXER_PROVIDER_PROXY_PORT": "0",
            "MODELMUXER_DRAIN_WAIT_S": "0",
            "MODELMUXER_GRACE_S": "2",
        }
        | environ
    )

    async def build(_: ExampleSettings, app: App) -> None:
        app.serve(provider_pb2_grpc.add_ProviderServiceServicer_to_server, example, PROVIDER)
        app.serve(cache_pb2_grpc.add_CacheServiceServicer_to_server, Filling(), CACHE, public=True)

    async with running("provider-proxy", settings, build) as app:
        yield app


@asynccontextmanager
async def calling(app: App, traced: bool = True) -> "AsyncIterator[provider_pb2_grpc.ProviderServiceAsyncStub]":
    """The example's stub, as another service of the mesh has it."""
    below = connect(app.address, app.settings.max_message_bytes)
    async with MeshChannel(below, app.mesh_token, app.tracer if traced else None) as channel:
        yield provider_pb2_grpc.ProviderServiceStub(channel)


async def until(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    """Waits for a condition; fails the test when it does not come true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)
