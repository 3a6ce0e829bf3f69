"""The nemesis' callers: unary, streamed and repeated calls, hits, cancels, deadlines, failovers, broken streams.

Whatever happens to a call is fine, but what a caller was told of money is kept, to be held against the ledger.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.client import CallError, Client, text_message

from tests.faults.ceilings import RUNS, TAGS
from tests.faults.checker import Told

_TIMEOUT_S = 12.0
_MODELS = (
    *("", "auto", "fast", "openai/gpt-4o-mini", "anthropic/claude-haiku-4-5", "gemini/gemini-2.5-flash"),
    *("mistral/mistral-small-latest", "openai/sim-nemesis", "anthropic/sim-nemesis", "gemini/sim-nemesis"),
)
_BROKEN = (
    *("status=503", "status=429 retry_after=0.1", "status=500", "error_at=3", "cut_at=4", "cut_at=2 torn"),
    *("malformed_at=3", "status=400"),
)


def callers_timeout_s() -> float:
    """How long a caller waits for an answer."""
    return _TIMEOUT_S


class Callers:
    """So many callers of the routers at the addresses, until stopped."""

    def __init__(self, addresses: list[str], keys: Sequence[str], seed: int) -> None:
        self.told: dict[str, Told] = {}
        self.ended: Counter[str] = Counter()
        """Calls by how they ended: OK, CUT by the caller, or a gRPC code."""
        self._clients = [Client(address, api_key=key, timeout_s=_TIMEOUT_S) for address in addresses for key in keys]
        self._runs = {client: keys[at % len(keys)][-6:] for at, client in enumerate(self._clients)}
        self._seed = seed
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def calls(self) -> int:
        """Calls that have ended."""
        return self.ended.total()

    def start(self, count: int) -> None:
        """Starts to call."""
        self._tasks = [asyncio.create_task(self._run(number)) for number in range(count)]

    async def stop(self) -> None:
        """Lets running calls end."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)
        await asyncio.gather(*(client.close() for client in self._clients))

    async def _run(self, number: int) -> None:
        chance = random.Random(f"{self._seed}/{number}")
        kinds: list[Callable[[Client, random.Random, str], Awaitable[str]]] = [
            *(self._unary, self._stream, self._stream, self._cancel, self._hit, self._broken, self._hasty, self._again),
        ]
        for turn in range(1_000_000):
            if self._stopping.is_set():
                return
            client, kind = chance.choice(self._clients), chance.choice(kinds)
            try:
                self.ended[await kind(client, chance, f"{self._seed} {number} {turn}")] += 1
            except CallError as error:
                self.ended[error.code.name] += 1
                if error.code.name in ("UNAVAILABLE", "RESOURCE_EXHAUSTED"):
                    await asyncio.sleep(chance.uniform(0.01, 0.1))  # as a caller would, lest refusals are all there is

    async def _unary(self, client: Client, chance: random.Random, text: str) -> str:
        orders = f"[[sim ttft={chance.randrange(5, 80)}ms tokens={chance.randrange(1, 60)}]]"
        request = _request(f"{orders} {text}", chance)
        self._hear((await client.chat(request, run_id=self._run_of(client, chance))).completed)
        return "OK"

    def _run_of(self, client: Client, chance: random.Random) -> str:
        """One call in two belongs to a run; a run has one key."""
        return f"{self._runs[client]}-{chance.randrange(RUNS)}" if chance.random() < 0.5 else ""

    async def _stream(self, client: Client, chance: random.Random, text: str) -> str:
        orders = f"[[sim ttft=20ms tps={chance.randrange(100, 400)} tokens={chance.randrange(5, 120)}]]"
        await self._listen(client, _request(f"{orders} {text}", chance), None, self._run_of(client, chance))
        return "OK"

    async def _cancel(self, client: Client, chance: random.Random, text: str) -> str:
        request = _request(f"[[sim ttft=20ms tps=100 tokens=300]] {text}", chance)
        await self._listen(client, request, chance.randrange(1, 12))
        return "CUT"

    async def _hit(self, client: Client, chance: random.Random, text: str) -> str:
        request = chat_pb2.ChatRequest(messages=[text_message(f"the same question {chance.randrange(5)}")])
        self._hear((await client.chat(request)).completed)
        return "OK"

    async def _broken(self, client: Client, chance: random.Random, text: str) -> str:
        request = _request(f"[[sim tokens=40 {chance.choice(_BROKEN)}]] {text}", chance)
        if chance.random() < 0.5:
            await self._listen(client, request, None)
        else:
            self._hear((await client.chat(request)).completed)
        return "OK"

    async def _hasty(self, client: Client, chance: random.Random, text: str) -> str:
        request = _request(f"[[sim ttft=50ms tps=50 tokens=100]] {text}", chance)
        call = client.router.Chat(request, metadata=client.metadata(), timeout=chance.uniform(0.05, 0.6))
        task = asyncio.ensure_future(call)
        try:
            self._hear((await task).completed)
        except Exception as error:
            raise CallError.from_rpc(error) from None  # type: ignore[arg-type]
        return "OK"

    async def _again(self, client: Client, chance: random.Random, text: str) -> str:
        """An operation that is repeated until it is answered, as its id allows."""
        request = _request(f"[[sim ttft=30ms tokens=20]] {text}", chance)
        for _ in range(4):
            try:
                answer = await client.chat(request, operation_id=f"op {text}")
            except CallError as error:
                last = error
                await asyncio.sleep(0.2)
                continue
            self._hear(answer.completed)
            return "OK"
        raise last

    async def _listen(
        self, client: Client, request: chat_pb2.ChatRequest, events: int | None, run_id: str = ""
    ) -> None:
        async with aclosing(client.stream_chat(request, run_id=run_id)) as answer:
            heard = 0
            async for event in answer:
                heard += 1
                if event.HasField("completed"):
                    self._hear(event.completed)
                if heard == events:
                    return

    def _hear(self, completed: chat_pb2.Completed) -> None:
        """Keeps what is said of attempts that were whole, by the provider's own usage."""
        if completed.cache.status == chat_pb2.CacheInfo.STATUS_EXACT:
            return
        for attempt in completed.attempts:
            if attempt.status == "OK" and attempt.usage.source == chat_pb2.USAGE_SOURCE_PROVIDER:
                self.told[attempt.id] = Told(cost_nanos=attempt.cost.nanos)


def _request(text: str, chance: random.Random) -> chat_pb2.ChatRequest:
    control = chat_pb2.CacheControl(no_store=True)
    request = chat_pb2.ChatRequest(model=chance.choice(_MODELS), messages=[text_message(text)], cache=control)
    request.max_output_tokens = 300  # what a call may cost has a bound, so that budgets can be used up
    if chance.random() < 0.5:
        request.tags["feature"] = chance.choice(TAGS)
    return request
