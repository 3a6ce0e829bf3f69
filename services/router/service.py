"""The router's gRPC face: metadata in, engine, metadata out."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import grpc
from modelmuxer.cache.v1 import cache_pb2
from modelmuxer.chat.v1.chat_pb2 import ChatRequest, ChatResponse
from modelmuxer.embedding.v1.embedding_pb2 import EmbedRequest, EmbedResponse
from modelmuxer.router.v1 import router_pb2, router_pb2_grpc

from services.router.call import Call, deadline_in
from services.router.engine import Engine
from services.router.headers import cost_headers, decision_headers, embedding_headers

Context = grpc.aio.ServicerContext[Any, Any]


class RouterService(router_pb2_grpc.RouterServiceServicer):
    """Serves RouterService by an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def Chat(self, request: ChatRequest, context: Context) -> ChatResponse:
        answer = await self._engine.chat(await self._call(context), request)
        # All behind the answer: sent ahead, they would be a write of their own, and arrive no sooner.
        context.set_trailing_metadata(decision_headers(answer.started) + cost_headers(answer.completed))
        return answer

    async def StreamChat(self, request: ChatRequest, context: Context) -> None:  # type: ignore[override]
        call = await self._call(context)
        async with aclosing(self._engine.stream_chat(call, request)) as events:
            async for event in events:
                if event.HasField("started"):
                    await context.send_initial_metadata(decision_headers(event.started))
                elif event.HasField("completed"):
                    context.set_trailing_metadata(cost_headers(event.completed))
                await context.write(event)

    async def Embed(self, request: EmbedRequest, context: Context) -> EmbedResponse:
        answer = await self._engine.embed(await self._call(context), request)
        context.set_trailing_metadata(embedding_headers(answer))
        return answer

    async def CountTokens(
        self, request: router_pb2.CountTokensRequest, context: Context
    ) -> router_pb2.CountTokensResponse:
        return await self._engine.count_tokens(await self._call(context), request.chat)

    async def Explain(self, request: router_pb2.ExplainRequest, context: Context) -> router_pb2.ExplainResponse:
        return await self._engine.explain(await self._call(context), request.chat)

    async def JudgeHit(self, request: router_pb2.JudgeHitRequest, context: Context) -> router_pb2.JudgeHitResponse:
        await self._engine.judge_hit(await self._call(context), request.hit, request.wrong)
        return router_pb2.JudgeHitResponse()

    async def ListModels(
        self, request: router_pb2.ListModelsRequest, context: Context
    ) -> router_pb2.ListModelsResponse:
        return await self._engine.list_models(await self._call(context))

    async def InvalidateCache(
        self, request: cache_pb2.InvalidateRequest, context: Context
    ) -> cache_pb2.InvalidateResponse:
        await self._engine.invalidate_cache(await self._call(context), request)
        return cache_pb2.InvalidateResponse()

    async def GetCacheStats(self, request: cache_pb2.GetStatsRequest, context: Context) -> cache_pb2.GetStatsResponse:
        return await self._engine.cache_stats(await self._call(context))

    async def _call(self, context: Context) -> Call:
        metadata = dict(context.invocation_metadata() or ())
        caller = await self._engine.authenticate(_text(metadata.get("authorization")) or None)
        return Call(
            principal=caller.principal,
            policies=caller.policies,
            face="grpc",
            run_id=_text(metadata.get("x-run-id")),
            operation_id=_text(metadata.get("x-operation-id")),
            deadline=deadline_in(context.time_remaining()),
        )


def _text(value: str | bytes | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
