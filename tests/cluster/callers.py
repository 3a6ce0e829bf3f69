"""A process of callers in the cluster's network: looks names up as a pod does, and calls through both faces, steadily.

``python -m tests.cluster.callers PLAN`` prints a line of JSON for every call that has ended, until SIGTERM; then it
takes no new one and waits for those that run.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
import time
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count
from typing import Protocol

import aiohttp
import grpc
import uvloop
from modelmuxer.client import CallError, Client

KEY = "MODELMUXER_API_KEY"
CONNECT_RETRIES = 20
CONNECT_PAUSE_S = 0.1
FAILED_PAUSE_S = 0.2
TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """Callers of one kind, each of which calls, pauses, and calls again."""

    face: str
    """"grpc" (balanced over a headless Service), "tunnel" (the same by the Python client), or "http"."""
    stream: bool
    callers: int
    orders: str
    """How the simulated provider answers."""
    pause_s: float = 0.0


@dataclass(kw_only=True)
class Call:
    """How one call went. Times are of the machine's monotonic clock."""

    face: str
    stream: bool
    began: float
    first: float | None = None
    ended: float = 0.0
    error: str = ""
    reconnects: int = 0
    """Connections that were refused before the call was sent."""

    @property
    def cut(self) -> bool:
        """Whether it is a stream that broke after it had begun."""
        return self.stream and bool(self.error) and self.first is not None


class Face(Protocol):
    """One way to call."""

    async def whole(self, prompt: str, call: Call) -> None:
        """Asks for an answer in one piece. Raises what went wrong."""

    async def streamed(self, prompt: str, call: Call) -> None:
        """Asks for an answer as it comes; notes its first piece. Raises what went wrong."""

    async def close(self) -> None:
        """Closes its connections."""


class Grpc:
    """The gRPC face, by the Python client: plainly or in tunnels."""

    def __init__(self, address: str, key: str, *, tunnel: bool) -> None:
        self._client = Client(f"dns:///{address}", api_key=key, timeout_s=TIMEOUT_S, balanced=not tunnel, tunnel=tunnel)

    async def whole(self, prompt: str, call: Call) -> None:
        answer = await self._client.chat(prompt)
        if not answer.HasField("completed"):
            raise ValueError("the answer does not say how it ended")

    async def streamed(self, prompt: str, call: Call) -> None:
        whole = False
        async with aclosing(self._client.stream_chat(prompt)) as events:
            async for event in events:
                if event.HasField("delta") and call.first is None:
                    call.first = time.monotonic()
                whole = event.HasField("completed")
        if not whole:
            raise ValueError("the stream ended without its last event")

    async def close(self) -> None:
        await self._client.close()


class Http:
    """The HTTP face, on kept connections to the one address of both faces."""

    def __init__(self, address: str, key: str) -> None:
        self._url = f"http://{address}/v1/chat/completions"
        self._session = aiohttp.ClientSession(
            headers={"authorization": f"Bearer {key}"},
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=1),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        )

    async def whole(self, prompt: str, call: Call) -> None:
        async with await self._post(prompt, call, stream=False) as answer:
            text = await answer.text()
            if answer.status != 200:
                raise ValueError(f"{answer.status} {text[:300]}")
            json.loads(text)["choices"][0]["finish_reason"]

    async def streamed(self, prompt: str, call: Call) -> None:
        last = b""
        async with await self._post(prompt, call, stream=True) as answer:
            if answer.status != 200:
                raise ValueError(f"{answer.status} {(await answer.text())[:300]}")
            async for line in answer.content:
                if line.startswith(b"data:"):
                    call.first = call.first or time.monotonic()
                    last = line.strip()
        if last != b"data: [DONE]":
            raise ValueError(f"the stream ended with {last[:300]!r}")

    async def _post(self, prompt: str, call: Call, *, stream: bool) -> aiohttp.ClientResponse:
        body = {"messages": [{"role": "user", "content": prompt}], "model": "auto", "stream": stream}
        while True:
            try:
                return await self._session.post(self._url, json=body)
            except aiohttp.ClientConnectorError:
                # Nothing was sent: who calls by HTTP tries that again, as every client library does.
                call.reconnects += 1
                if call.reconnects > CONNECT_RETRIES:
                    raise
                await asyncio.sleep(CONNECT_PAUSE_S)

    async def close(self) -> None:
        await self._session.close()


async def _run(release: str, namespace: str, crowds: list[Crowd]) -> None:
    key, stopping, numbers = os.environ[KEY], asyncio.Event(), count(time.time_ns())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    replicas, faces = f"{release}-router.{namespace}.svc:50051", f"{release}.{namespace}.svc:8000"

    def face(name: str) -> Face:
        return Http(faces, key) if name == "http" else Grpc(replicas, key, tunnel=name == "tunnel")

    async def call(crowd: Crowd, number: int) -> None:
        mine = face(crowd.face)
        await _pause(stopping, crowd.pause_s * number / crowd.callers)
        while not stopping.is_set():
            made = Call(face=crowd.face, stream=crowd.stream, began=time.monotonic())
            prompt = f"[[sim {crowd.orders}]] question {next(numbers)}"
            try:
                await (mine.streamed if crowd.stream else mine.whole)(prompt, made)
            except (CallError, aiohttp.ClientError, TimeoutError, ValueError, KeyError, grpc.RpcError) as error:
                made.error = f"{type(error).__name__}: {error}"
            made.ended = time.monotonic()
            print(json.dumps(dataclasses.asdict(made)), flush=True)
            await _pause(stopping, max(crowd.pause_s, FAILED_PAUSE_S if made.error else 0.0))
        await mine.close()

    await asyncio.gather(*(call(crowd, number) for crowd in crowds for number in range(crowd.callers)))


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return


def main() -> None:
    plan = json.loads(sys.argv[1])
    crowds = [Crowd(**each) for each in plan["crowds"]]
    uvloop.run(_run(plan["release"], plan["namespace"], crowds))


if __name__ == "__main__":
    main()
