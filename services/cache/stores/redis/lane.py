"""A lane to one server: what is asked of it in one turn of the event loop travels as one pipeline.

Nobody waits longer than the lane's time. A reply that comes later is still read, because a connection that is cut in
mid-reply costs a new one; it reaches nobody. Once all connections are busy, what comes next gathers in one batch, which
is bounded: beyond it the answer is that there is none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from services.cache.stores.redis.health import Health
from shared.limit import Limit
from shared.telemetry import metrics

Command = tuple[str | bytes | int, ...]
Replies = list[Any]
"""One per command; a server's refusal is an exception in its place."""


class _Batch:
    def __init__(self, timeout_s: float, give_up: Callable[[_Batch], None]) -> None:
        self.commands: dict[Command, int] = {}
        self.waiting: list[tuple[list[int], asyncio.Future[Replies | None]]] = []
        self.bytes = 0
        self.late = False
        self.limit = Limit(timeout_s, lambda: give_up(self))

    def resolve(self, replies: Replies | None) -> None:
        self.limit.end()
        for places, future in self.waiting:
            if not future.done():
                future.set_result(None if replies is None else [replies[place] for place in places])
        self.waiting.clear()


class Lane:
    """Sends commands to one server, over a number of connections of its own."""

    def __init__(
        self,
        client: Redis,
        health: Health,
        *,
        kind: str,
        connections: int,
        timeout_s: float,
        patience_s: float,
        most_commands: int,
        most_bytes: int,
        refused: Callable[[Exception], None],
    ) -> None:
        """After `timeout_s` nobody waits any more; after `patience_s` the connection is given up.

        `refused` hears of every command that the server would not run.
        """
        self._client = client
        self._health = health
        self._kind = kind
        self._connections = connections
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._most_commands = most_commands
        self._most_bytes = most_bytes
        self._refused = refused
        self._batch: _Batch | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        metrics.CACHE_STORE_CONNECTIONS.labels(kind).set(connections)

    def send(self, *commands: Command, size_bytes: int = 0) -> asyncio.Future[Replies | None]:
        """The replies to come; None if there will be none in time. A command that is already in the batch is joined."""
        future: asyncio.Future[Replies | None] = self._loop.create_future()
        if not self._health.well:
            return self._none(future, "resting")
        batch = self._batch
        if batch is None:
            batch = self._batch = _Batch(self._timeout_s, self._give_up)
            self._loop.call_soon(self._depart)
        elif len(batch.commands) >= self._most_commands or batch.bytes + size_bytes > self._most_bytes:
            return self._none(future, "busy")
        batch.bytes += size_bytes
        places = [batch.commands.setdefault(command, len(batch.commands)) for command in commands]
        batch.waiting.append((places, future))
        return future

    async def close(self) -> None:
        """Gives up what is under way."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        if self._batch is not None:
            self._batch.resolve(None)

    def _none(self, future: asyncio.Future[Replies | None], why: str) -> asyncio.Future[Replies | None]:
        metrics.CACHE_STORE_UNANSWERED.labels(self._kind, why).inc()
        future.set_result(None)
        return future

    def _depart(self) -> None:
        if self._batch is None or len(self._running) >= self._connections:
            return
        batch, self._batch = self._batch, None
        task = self._loop.create_task(self._run(batch), name=f"redis {self._kind}")
        self._running.add(task)
        task.add_done_callback(self._arrived)
        metrics.CACHE_STORE_BUSY.labels(self._kind).inc()

    def _arrived(self, task: asyncio.Task[None]) -> None:
        metrics.CACHE_STORE_BUSY.labels(self._kind).dec()
        self._running.discard(task)
        self._depart()

    async def _run(self, batch: _Batch) -> None:
        began_s = time.perf_counter()
        try:
            async with asyncio.timeout(self._patience_s):
                replies = await self._exchange(batch.commands)
        except (RedisError, OSError, TimeoutError) as error:
            self._unanswered(batch, "failed", f"{type(error).__name__}: {error}")
            return
        except asyncio.CancelledError:
            batch.resolve(None)
            raise
        metrics.CACHE_STORE_DURATION.labels(self._kind).observe(time.perf_counter() - began_s)
        batch.resolve(replies)
        if not batch.late:
            self._health.answered()
        for reply in replies:
            if isinstance(reply, Exception):
                self._refused(reply)

    async def _exchange(self, commands: Collection[Command]) -> Replies:
        """What the client's own pipelines do, without their retries, scripts and metrics: two thirds of the CPU."""
        pool = self._client.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # it has none
        try:
            await connection.send_packed_command(connection.pack_commands(commands))
            return [await self._reply(connection, str(command[0])) for command in commands]
        finally:
            await pool.release(connection)

    async def _reply(self, connection: AbstractConnection, name: str) -> Any:
        try:
            reply = await connection.read_response()
        except ResponseError as error:
            return error
        callback = self._client.response_callbacks.get(name)
        return reply if callback is None else callback(reply)

    def _give_up(self, batch: _Batch) -> None:
        if self._batch is batch:
            self._batch = None  # no connection came free in time: there is no more sense in asking
        complaint = "" if batch.limit.late else f"no answer within {self._timeout_s * 1e3:.0f} ms"
        self._unanswered(batch, "late", complaint)

    def _unanswered(self, batch: _Batch, why: str, complaint: str) -> None:
        if batch.waiting:
            metrics.CACHE_STORE_UNANSWERED.labels(self._kind, why).inc(len(batch.waiting))
        if complaint and not batch.late:
            self._health.failed(complaint)
        batch.late = True
        batch.resolve(None)
