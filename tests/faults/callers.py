"""The nemesis' callers: unary, streamed and repeated calls, hits, cancels, deadlines, failovers, broken streams, and
jobs that use up a budget. They wait before they try again, and leave alone for a while a router that does not answer.

Whatever happens to a call is fine, but what a caller was told of money is kept, to be held against the ledger.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.client import CallError, Client, text_message

from tests.faults.ceilings import JOB_MODEL, JOB_TOKENS, TAGS, Ceilings
from tests.faults.checker import Told

_TIMEOUT_S = 8.0
_BACK_OFF_S = (0.1, 2.0)  # after the first failure in a row, and at most
_LEFT_ALONE_S = 1.0
_REFUSALS = 4  # of one job: calls under way may leave something over
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

    def __init__(self, addresses: list[str], bounds: Ceilings, seed: int) -> None:
        self.told: dict[str, Told] = {}
        self.ended: Counter[str] = Counter()
        """Calls by how they ended: OK, CUT by the caller, or a gRPC code."""
        self.kinds: Counter[str] = Counter()
        """Calls that were answered as they asked to be, by kind."""
        self.plain: Counter[str] = Counter()
        """Those that asked for no trouble, by how they ended; REFUSED by a ceiling, where one had no room."""
        self._addresses = addresses
        self._clients = {
            (address, key): Client(address, api_key=key, timeout_s=_TIMEOUT_S)
            for address in addresses
            for key in (*bounds.keys, *bounds.tight_keys)
        }
        self._bounds = bounds
        self._jobs = itertools.cycle(("tag", "run", "user"))
        self._tight_keys = list(bounds.tight_keys)
        self._job, self._number, self._refused = next(self._jobs), 0, 0
        self._alone_until_s: dict[str, float] = {}
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
        await asyncio.gather(*(client.close() for client in self._clients.values()))

    async def _run(self, number: int) -> None:
        chance = random.Random(f"{self._seed}/{number}")
        plain: list[Callable[[Client, random.Random, str], Awaitable[str]]] = [
            *(self._unary, self._stream, self._stream, self._hit, self._again, self._on_a_job, self._on_a_job),
        ]
        kinds = [*plain, self._cancel, self._broken, self._hasty]
        failures = 0
        for turn in range(1_000_000):
            if self._stopping.is_set():
                return
            kind = chance.choice(kinds)
            address = self._address(chance)
            key = self._job_key() if kind == self._on_a_job else chance.choice(self._bounds.keys)
            try:
                ended = await kind(self._clients[address, key], chance, f"{self._seed} {number} {turn}")
                failures = 0
                self.kinds[kind.__name__.strip("_").replace("_", " ")] += 1
            except CallError as error:
                ended = error.code.name
                failures = failures + 1 if ended in ("UNAVAILABLE", "RESOURCE_EXHAUSTED") else 0
                if ended == "UNAVAILABLE" or (ended == "DEADLINE_EXCEEDED" and kind in plain):
                    self._alone_until_s[address] = time.monotonic() + _LEFT_ALONE_S
                if ended == "RESOURCE_EXHAUSTED" and error.reason in ("BUDGET_EXCEEDED", "RATE_LIMITED"):
                    ended = "REFUSED"
            self.ended[ended] += 1
            if kind in plain:
                self.plain[ended] += 1
            if failures:
                await asyncio.sleep(chance.uniform(0.01, min(_BACK_OFF_S[0] * 2**failures, _BACK_OFF_S[1])))

    def _address(self, chance: random.Random) -> str:
        now_s = time.monotonic()
        answering = [each for each in self._addresses if self._alone_until_s.get(each, 0.0) <= now_s]
        return chance.choice(answering or self._addresses)

    def _job_key(self) -> str:
        """A job has one key, as a run has."""
        if self._job == "user":
            return self._tight_keys[-1]
        return self._bounds.keys[self._number % len(self._bounds.keys)]

    def _next_job(self) -> None:
        if self._job == "user":
            self._tight_keys.pop()
        self._number += 1
        self._refused = 0
        self._job = next(self._jobs)
        if self._job == "user" and not self._tight_keys:
            self._job = next(self._jobs)

    async def _on_a_job(self, client: Client, chance: random.Random, text: str) -> str:
        """A call on the budget of a job. Whoever finds it used up begins the next."""
        number = self._number
        request = _request(f"[[sim ttft=10ms tps=400 tokens={chance.randrange(20, JOB_TOKENS)}]] {text}", chance)
        request.model, request.max_output_tokens = JOB_MODEL, JOB_TOKENS
        if self._job == "tag":
            request.tags["job"] = f"{self._seed}-{number}"
        try:
            await self._listen(client, request, None, f"{self._seed}-{number}" if self._job == "run" else "")
        except CallError as error:
            if error.reason == "BUDGET_EXCEEDED" and number == self._number:
                self._refused += 1
                if self._refused >= _REFUSALS:
                    self._next_job()
            raise
        return "OK"

    async def _unary(self, client: Client, chance: random.Random, text: str) -> str:
        orders = f"[[sim ttft={chance.randrange(5, 80)}ms tokens={chance.randrange(1, 60)}]]"
        request = _request(f"{orders} {text}", chance)
        self._hear((await client.chat(request)).completed)
        return "OK"

    async def _stream(self, client: Client, chance: random.Random, text: str) -> str:
        orders = f"[[sim ttft=20ms tps={chance.randrange(100, 400)} tokens={chance.randrange(5, 120)}]]"
        await self._listen(client, _request(f"{orders} {text}", chance), None)
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
