"""The gRPC face of the provider-proxy: proto in, engine, proto out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from grpc.aio import ServicerContext
from modelmuxer.chat.v1.chat_pb2 import ChatResponse
from modelmuxer.provider.v1.provider_pb2 import (
    CountTokensRequest,
    CountTokensResponse,
    EmbedRequest,
    EmbedResponse,
    GenerateRequest,
    WatchProvidersRequest,
    WatchProvidersResponse,
)
from modelmuxer.provider.v1.provider_pb2_grpc import ProviderServiceServicer

from services.provider_proxy.engine import Engine
from shared import deadline
from shared.errors import MeshError, Reason

WATCH_INTERVAL_S = 1.0

Context = ServicerContext[Any, Any]


class ProviderService(ProviderServiceServicer):
    """modelmuxer.provider.v1.ProviderService."""

    def __init__(self, engine: Engine, call_timeout_s: float) -> None:
        self._engine = engine
        self._call_timeout_s = call_timeout_s

    async def Generate(self, request: GenerateRequest, context: Context) -> ChatResponse:
        """Makes an answer whole."""
        async with self._deadline():
            return await self._engine.generate(request)

    # Streaming handlers are coroutines: their clean-up does not wait for a generator to be collected.
    async def StreamGenerate(self, request: GenerateRequest, context: Context) -> None:  # type: ignore[override]
        """Makes an answer as its tokens come."""
        async with self._deadline(), aclosing(self._engine.stream(request)) as events:
            async for event in events:
                await context.write(event)

    async def Embed(self, request: EmbedRequest, context: Context) -> EmbedResponse:
        """Turns texts into vectors."""
        async with self._deadline():
            return await self._engine.embed(request)

    async def CountTokens(self, request: CountTokensRequest, context: Context) -> CountTokensResponse:
        """Counts input tokens."""
        async with self._deadline():
            return await self._engine.count_tokens(request.model, request.chat)

    async def WatchProviders(  # type: ignore[override]
        self, request: WatchProvidersRequest, context: Context
    ) -> None:
        """Tells the state of every deployment at once, about every second, and when who can be called changes."""
        engine = self._engine
        while not engine.is_draining():
            await context.write(
                WatchProvidersResponse(deployments=engine.states(), catalogue_version=engine.catalogue_version)
            )
            await engine.changed(WATCH_INTERVAL_S)

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        """Ends a call at its caller's deadline, which gRPC itself may tell late, or after our own longest time."""
        remaining_s = deadline.remaining_s()
        if remaining_s is None:
            remaining_s = self._call_timeout_s
            deadline.set_remaining(remaining_s)
        try:
            async with asyncio.timeout(remaining_s):
                yield
        except TimeoutError:
            raise MeshError(
                Reason.DEADLINE_EXCEEDED, "The call's deadline passed before its answer was whole."
            ) from None
