"""Connections to MongoDB: how they are made, what is measured of them, and what their failures are called."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)
from pymongo.monitoring import (
    ConnectionCheckedInEvent,
    ConnectionCheckedOutEvent,
    ConnectionCheckOutFailedEvent,
    ConnectionCheckOutStartedEvent,
    ConnectionClosedEvent,
    ConnectionCreatedEvent,
    ConnectionPoolListener,
    ConnectionReadyEvent,
    PoolClearedEvent,
    PoolClosedEvent,
    PoolCreatedEvent,
    PoolReadyEvent,
)
from pymongo.uri_parser import parse_uri

from services.accounting.stores import StoreAway, StoreError
from shared.errors import MeshError, Reason
from shared.telemetry import metrics

P = ParamSpec("P")
T = TypeVar("T")
Document = dict[str, Any]
Database = AsyncDatabase[Document]

DEFAULT_DATABASE = "modelmuxer"
REPORT_TIMEOUT_S = 600.0
"""How long a report or an audit may read."""
_REPORT_CONNECTIONS = 4
DUPLICATE = 11000
_AUTHENTICATION_FAILED = (13, 18)
_DEADLOCKS = frozenset({112, 16908292})
"""Write conflicts, which mongod resolves by itself and DocumentDB reports."""
_TRIES = 10
_PAUSE_S = 0.02

log = logging.getLogger("modelmuxer.accounting")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """How many connections, and how long anything may take."""

    smallest: int = 0
    largest: int = 50
    idle_s: float = 3600.0
    """A connection that was not used for so long is closed."""
    wait_s: float = 2.0
    """How long a call waits for a free connection."""
    timeout_s: float = 5.0
    """How long an answer may take."""


class Connections:
    """Two clients of one database: one for what calls and money wait for, a small one for reports, which may take long
    and must not keep the others waiting."""

    def __init__(self, url: str, pool: Pool) -> None:
        self.where = where(url)
        self._client = _client(url, pool, PoolMetrics("money"))
        reports = Pool(largest=_REPORT_CONNECTIONS, idle_s=pool.idle_s, wait_s=60.0, timeout_s=REPORT_TIMEOUT_S)
        self._reports = _client(url, reports, PoolMetrics("reports"))
        self.money: Database = self._client.get_default_database(DEFAULT_DATABASE)
        self.reports: Database = self._reports.get_default_database(DEFAULT_DATABASE)

    async def check(self) -> None:
        """Raises StoreError if the server cannot be used, StoreAway if it does not answer."""
        try:
            await self.money.command("ping")
        except OperationFailure as error:
            raise StoreError(self._refusal(error)) from None
        except (ConfigurationError, InvalidURI) as error:
            raise StoreError(f"MONGODB_URL cannot be used: {error}") from None
        except PyMongoError as error:
            raise StoreAway(
                f"No MongoDB answers at {self.where} ({type(error).__name__}): start it, or set MONGODB_URL to one "
                "that runs."
            ) from None

    async def close(self) -> None:
        """Closes every connection."""
        await self._client.close()
        await self._reports.close()

    def _refusal(self, error: OperationFailure) -> str:
        if error.code in _AUTHENTICATION_FAILED:
            return (
                f"MongoDB at {self.where} refuses the user or the password of MONGODB_URL: correct them, or name the "
                "database that knows the user with ?authSource=…"
            )
        return f"MongoDB at {self.where} refuses to work (code {error.code}): see its log."


def where(url: str) -> str:
    """Where a URL leads to, without user and password. Raises StoreError."""
    try:
        parsed = parse_uri(url, validate=False, connect_timeout=5.0)
    except PyMongoError as error:
        raise StoreError(
            f"MONGODB_URL cannot be read ({error}): an example is mongodb://user:password@host:27017/modelmuxer."
        ) from None
    hosts = ",".join(f"{host}:{port}" if port else host for host, port in parsed["nodelist"])
    return f"{hosts}/{parsed['database'] or DEFAULT_DATABASE}"


def _client(url: str, pool: Pool, listener: ConnectionPoolListener) -> AsyncMongoClient[Document]:
    try:
        return AsyncMongoClient(
            url,
            appname="modelmuxer",
            tz_aware=True,
            minPoolSize=pool.smallest,
            maxPoolSize=pool.largest,
            maxIdleTimeMS=int(pool.idle_s * 1000),
            waitQueueTimeoutMS=int(pool.wait_s * 1000),
            socketTimeoutMS=int(pool.timeout_s * 1000),
            connectTimeoutMS=int(min(pool.timeout_s, 5.0) * 1000),
            serverSelectionTimeoutMS=int(min(pool.timeout_s, 5.0) * 1000),
            # What is acknowledged leaves the journals: it has to survive the loss of a server by then, and what is read
            # must not be taken back by a failover.
            w="majority",
            journal=True,
            readConcernLevel="majority",
            readPreference="primary",
            # Every write is a comparison with what stands, or can be made twice: none relies on the server to know it.
            retryWrites=False,
            event_listeners=[listener],
        )
    except (PyMongoError, ValueError) as error:
        raise StoreError(f"MONGODB_URL cannot be used: {error}") from None


def translated(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Makes what the driver raises an error that callers of accounting understand."""

    @wraps(method)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except PyMongoError as error:
            raise away(error) from error

    return call


def away(error: PyMongoError) -> MeshError:
    """The error of a call for which the store was not there. What the driver says may hold data: it goes no further."""
    code = getattr(error, "code", None)
    metrics.STORE_ERRORS.labels(type(error).__name__).inc()
    log.warning("MongoDB did not do what it was asked", extra={"error": type(error).__name__, "code": code})
    return MeshError(
        Reason.ACCOUNTING_UNAVAILABLE,
        "Accounting's store does not answer at the moment; try again shortly.",
        retry_after_s=1.0,
    )


async def retried(write: Callable[[], Awaitable[T]]) -> T:
    """The result of a write, tried again where it met with another one."""
    for attempt in range(_TRIES):
        try:
            return await write()
        except OperationFailure as error:
            if isinstance(error, BulkWriteError) or not is_deadlock(error.code) or attempt == _TRIES - 1:
                raise
        await pause(attempt)
    raise AssertionError("not reached")


async def pause(attempt: int) -> None:
    """Waits a moment, longer each time, and never as long as another who met with the same."""
    await asyncio.sleep(random.uniform(0.2, 1.0) * _PAUSE_S * (attempt + 1))  # noqa: S311 - jitter


def is_deadlock(code: int | None) -> bool:
    """Whether a write failed only because another one was under way."""
    return code in _DEADLOCKS


class PoolMetrics(ConnectionPoolListener):
    """Counts a pool's connections and what is waited for them."""

    def __init__(self, pool: str) -> None:
        self._idle = metrics.STORE_CONNECTIONS.labels(pool, "idle")
        self._used = metrics.STORE_CONNECTIONS.labels(pool, "used")
        self._waiting = metrics.STORE_WAITING.labels(pool)
        self._waits = metrics.STORE_WAIT.labels(pool)
        self._timeouts = metrics.STORE_WAIT_TIMEOUTS.labels(pool)
        self._largest = metrics.STORE_CONNECTIONS_MAX.labels(pool)
        self._open: set[tuple[Any, int]] = set()
        for gauge in (self._idle, self._used, self._waiting):
            gauge.set(0)

    def pool_created(self, event: PoolCreatedEvent) -> None:
        self._largest.set((event.options or {}).get("maxPoolSize") or 0)

    def connection_ready(self, event: ConnectionReadyEvent) -> None:
        self._open.add((event.address, event.connection_id))
        self._idle.inc()

    def connection_closed(self, event: ConnectionClosedEvent) -> None:
        if (event.address, event.connection_id) in self._open:  # else it never came to be used
            self._open.discard((event.address, event.connection_id))
            self._idle.dec()

    def connection_check_out_started(self, event: ConnectionCheckOutStartedEvent) -> None:
        self._waiting.inc()

    def connection_checked_out(self, event: ConnectionCheckedOutEvent) -> None:
        self._waiting.dec()
        self._waits.observe(event.duration or 0.0)
        self._idle.dec()
        self._used.inc()

    def connection_check_out_failed(self, event: ConnectionCheckOutFailedEvent) -> None:
        self._waiting.dec()
        self._timeouts.inc()

    def connection_checked_in(self, event: ConnectionCheckedInEvent) -> None:
        self._idle.inc()
        self._used.dec()

    def connection_created(self, event: ConnectionCreatedEvent) -> None:
        """It counts once it is ready."""

    def pool_ready(self, event: PoolReadyEvent) -> None:
        """Nothing to count."""

    def pool_cleared(self, event: PoolClearedEvent) -> None:
        """Its connections are closed one by one."""

    def pool_closed(self, event: PoolClosedEvent) -> None:
        """Its connections are closed one by one."""
