"""Callers of the gRPC face: the generated stub on one channel, as a service written in Python would call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import count, repeat

import grpc
import uvloop
from modelmuxer.chat.v1.chat_pb2 import (
    ROLE_USER,
    Block,
    CacheInfo,
    ChatRequest,
    Message,
    RoutingOptions,
    Text,
)
from modelmuxer.router.v1 import router_pb2_grpc

from tests.performance.load import ANSWER_TIMEOUT_S, NUMBER, NUMBER_DIGITS, Load, Measured


def run(load: Load) -> Measured:
    """Runs a load to its end."""
    return uvloop.run(_run(load))


async def _run(load: Load) -> Measured:
    cpu_s, began = time.process_time(), time.perf_counter()
    async with grpc.aio.insecure_channel(load.address) as channel:
        callers = Callers(
            load, router_pb2_grpc.RouterServiceStub(channel), began if load.once else began + load.seconds
        )
        async with asyncio.TaskGroup() as group:
            for number in range(load.callers):
                group.create_task(callers.call(load.begins_after_s(number)))
    measured = callers.measured
    measured.seconds = time.perf_counter() - began
    measured.client_cpu_s = time.process_time() - cpu_s
    return measured


class Callers:
    """What the callers share."""

    def __init__(self, load: Load, router: router_pb2_grpc.RouterServiceAsyncStub, until: float) -> None:
        self.measured = Measured()
        self._load = load
        self._router = router
        self._until = until
        self._metadata = (("authorization", f"Bearer {load.key}"),)
        self._numbers: Iterator[int] = count(time.time_ns()) if load.distinct else repeat(10 ** (NUMBER_DIGITS - 1))

    async def call(self, after_s: float) -> None:
        """Is one caller."""
        await asyncio.sleep(after_s)
        ask = self._stream if self._load.stream else self._unary
        while True:
            began = time.perf_counter()
            try:
                await ask(self._request(), began)
            except grpc.aio.AioRpcError as error:
                self.measured.fail(f"{error.code().name}: {error.details()}")
            else:
                self.measured.succeed(time.perf_counter() - began)
            if time.perf_counter() >= self._until:
                return

    async def _unary(self, request: ChatRequest, _began: float) -> None:
        answer = await self._router.Chat(request, metadata=self._metadata, timeout=ANSWER_TIMEOUT_S)
        self._note(answer.completed.cache.status)

    async def _stream(self, request: ChatRequest, began: float) -> None:
        waiting = True
        async for event in self._router.StreamChat(request, metadata=self._metadata, timeout=ANSWER_TIMEOUT_S):
            self.measured.messages += 1
            if waiting and event.delta.text:
                waiting = False
                self.measured.first_tokens_ms.append((time.perf_counter() - began) * 1e3)
            if event.HasField("completed"):
                self._note(event.completed.cache.status)

    def _note(self, status: CacheInfo.Status) -> None:
        self.measured.hits += status == CacheInfo.STATUS_EXACT
        self.measured.shared += status == CacheInfo.STATUS_COALESCED

    def _request(self) -> ChatRequest:
        text = self._load.prompt.replace(NUMBER, str(next(self._numbers)))
        message = Message(role=ROLE_USER, content=[Block(text=Text(text=text))])
        if self._load.model:
            return ChatRequest(model=self._load.model, messages=[message])
        return ChatRequest(messages=[message], routing=RoutingOptions(strategy="hybrid"))
