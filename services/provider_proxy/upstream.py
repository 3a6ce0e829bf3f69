"""HTTP to providers: a pool of kept connections per deployment, and nothing that a bare call does not need.

No cookies, no redirects (a prompt goes to nobody but the configured address), no retries: a request is written once. A
kept connection that died is found before the first byte goes out, and another one is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from services.provider_proxy.adapters import UpstreamRequest, malformed, provider_failure, stream_cut
from services.provider_proxy.http1 import (
    USER_AGENT,
    BadUrl,
    Connection,
    Disconnected,
    HttpError,
    Origin,
    ProxyRefused,
    Stalled,
    connect,
    origin_and_target,
    proxy_authorization,
)
from services.provider_proxy.settings import ProviderProxySettings
from shared.errors import MeshError, Reason
from shared.settings import is_loopback
from shared.telemetry import metrics

KEEP_ALIVE_S: Final = 30.0
IDLE_S: Final = 1.0

BeforeWrite = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider's answer, its head read."""

    status: int
    headers: Mapping[str, str]
    _connection: Connection
    _stall_timeout_s: float | None
    _max_bytes: int

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes: all that one read of the socket brought is one chunk."""
        left = self._max_bytes
        with _translated():
            while (chunk := await self._connection.chunk(self._stall_timeout_s)) is not None:
                left -= len(chunk)
                if left < 0:
                    raise malformed(f"it is longer than {self._max_bytes} bytes")
                yield chunk

    async def drain(self, timeout_s: float) -> None:
        """Reads to the body's end, if it comes in time: only then is the connection kept."""
        with contextlib.suppress(TimeoutError, MeshError):
            async with asyncio.timeout(timeout_s), aclosing(self.chunks()) as rest:
                async for _ in rest:
                    pass

    async def body(self) -> bytes:
        """The whole body."""
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
        return bytes(body)


class Upstream:
    """The pools of all deployments."""

    def __init__(self, settings: ProviderProxySettings) -> None:
        self._settings = settings
        self._pools: dict[str, _Pool] = {}

    @asynccontextmanager
    async def exchange(
        self,
        deployment: str,
        request: UpstreamRequest,
        *,
        stall_timeout_s: float | None,
        before_write: BeforeWrite,
    ) -> AsyncIterator[Answer]:
        """Makes a request; leaving the block before the body's end closes its connection.

        `before_write` is called once a connection stands, just before the request is written to it. Raises MeshError:
        PROVIDER_UNREACHABLE where nothing was written, PROVIDER_TIMEOUT, PROVIDER_STREAM_CUT.
        """
        pool = self._pool(deployment, request.url)
        async with pool.place(), pool.connection(request.url) as connection:
            await before_write()
            with _translated():
                pool.send(connection, request)
                await connection.head(stall_timeout_s)
            most_bytes = self._settings.max_answer_bytes
            yield Answer(connection.status, connection.headers, connection, stall_timeout_s, most_bytes)

    async def keep_only(self, deployments: frozenset[str]) -> None:
        """Closes the pools of deployments that are gone, once their calls have ended."""
        for name in [name for name, pool in self._pools.items() if name not in deployments and not pool.busy]:
            self._pools.pop(name).close()

    async def close(self) -> None:
        """Closes every connection."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def _pool(self, deployment: str, url: str) -> _Pool:
        pool = self._pools.get(deployment)
        if pool is None:
            pool = self._pools[deployment] = _Pool(deployment, self._settings, _forward_proxy(url))
        return pool


class _Pool:
    """Connections of one deployment: `pool_connections` idle ones stay; `pool_maxsize` is the most if callers block."""

    def __init__(self, deployment: str, settings: ProviderProxySettings, forward_proxy: SplitResult | None) -> None:
        self.busy = 0
        self._forward_proxy = forward_proxy
        self._gauge = metrics.PROVIDER_CONNECTIONS.labels(deployment)
        self._room = asyncio.Semaphore(settings.pool_maxsize) if settings.pool_block else None
        self._most_idle = settings.pool_connections
        self._connect_timeout_s = settings.connect_timeout_s
        self._idle: deque[_Idle] = deque()
        self._pruning: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place among the connections."""
        async with self._room or contextlib.nullcontext():
            self.busy += 1
            self._gauge.inc()
            try:
                yield
            finally:
                self.busy -= 1
                self._gauge.dec()

    @asynccontextmanager
    async def connection(self, url: str) -> AsyncIterator[Connection]:
        """A connection to a URL's origin: one that is kept, the last used first, or a new one. It is kept, or closed
        where the answer was not read to its end."""
        with _translated():
            origin, _ = origin_and_target(url)
            connection = self._kept(origin) or await self._open(origin)
        try:
            yield connection
        finally:
            if connection.is_reusable:
                self._keep(origin, connection)
            else:
                connection.close()

    def _kept(self, origin: Origin) -> Connection | None:
        oldest_s = asyncio.get_running_loop().time() - KEEP_ALIVE_S
        for index in range(len(self._idle) - 1, -1, -1):
            idle = self._idle[index]
            if idle.origin == origin:
                del self._idle[index]
                if idle.since_s >= oldest_s and not idle.connection.is_dead:
                    return idle.connection
                idle.connection.close()
        return None

    async def _open(self, origin: Origin) -> Connection:
        async with asyncio.timeout(self._connect_timeout_s):
            return await connect(origin, self._forward_proxy, _tls)

    def _keep(self, origin: Origin, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        self._idle.append(_Idle(origin, connection, loop.time()))
        if self._pruning is None:
            self._pruning = loop.call_later(IDLE_S, self._prune)

    def _prune(self) -> None:
        """Closes what has been idle for too long and, of the rest, what is too many, the longest idle first.

        Under load a connection that comes free is taken again at once, so only those are too many that have been idle
        for a moment.
        """
        loop = asyncio.get_running_loop()
        oldest_s = loop.time() - KEEP_ALIVE_S
        while self._idle and (len(self._idle) > self._most_idle or self._idle[0].since_s < oldest_s):
            self._idle.popleft().connection.close()
        self._pruning = loop.call_later(IDLE_S, self._prune) if self._idle else None

    def send(self, connection: Connection, request: UpstreamRequest) -> None:
        """Writes a request."""
        origin, target = origin_and_target(request.url)
        headers = {"host": _host(origin), "user-agent": USER_AGENT, "accept": "*/*"}
        # An uncompressed stream arrives token by token; a compressed one when its compressor sees fit.
        headers |= {"accept-encoding": "identity", **request.headers}
        if self._forward_proxy is not None and origin.scheme == "http":
            target = f"http://{_host(origin)}{target}"
            headers |= proxy_authorization(self._forward_proxy)
        connection.send(request.method, target, headers, request.body)

    def close(self) -> None:
        """Closes every connection."""
        if self._pruning is not None:
            self._pruning.cancel()
        while self._idle:
            self._idle.pop().connection.close()


@dataclass(frozen=True, slots=True)
class _Idle:
    origin: Origin
    connection: Connection
    since_s: float


def _host(origin: Origin) -> str:
    """The Host header: the port where it is not the scheme's own."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    usual = 443 if origin.scheme == "https" else 80
    return host if origin.port == usual else f"{host}:{origin.port}"


@functools.cache
def _tls() -> ssl.SSLContext:
    """Certificates are checked as the system has it."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _forward_proxy(url: str) -> SplitResult | None:
    """The HTTP proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY name for an address."""
    target = urlsplit(url)
    host = target.hostname or ""
    proxy = getproxies().get(target.scheme)
    if not proxy or is_loopback(host) or proxy_bypass(host):
        return None
    return urlsplit(proxy if "://" in proxy else f"http://{proxy}")


@contextlib.contextmanager
def _translated() -> Any:
    """What went wrong with a connection, as reasons. Its own words stay here: they may hold addresses."""
    try:
        yield
    except MeshError:
        raise
    except Stalled as error:
        raise provider_failure(
            Reason.PROVIDER_TIMEOUT, "The provider fell silent for longer than is allowed.", retryable=True
        ) from error
    except Disconnected as error:
        raise stream_cut("before its answer was whole") from error
    except HttpError as error:
        raise malformed("it is not HTTP") from error
    except (OSError, ProxyRefused, TimeoutError) as error:
        text = f"The provider cannot be reached: {_unreachable(error)}."
        raise provider_failure(Reason.PROVIDER_UNREACHABLE, text, retryable=True) from error
    except BadUrl as error:
        raise provider_failure(
            Reason.PROVIDER_UNREACHABLE, "The provider's address in the catalogue is no URL.", retryable=True
        ) from error
    except ValueError as error:
        raise MeshError(Reason.MALFORMED_REQUEST, "A header of the request cannot be sent to the provider.") from error


def _unreachable(error: Exception) -> str:
    match error:
        case TimeoutError():
            return "it did not take a connection in time"
        case socket.gaierror():
            return "its name does not resolve"
        case ssl.SSLError():
            return "its certificate or TLS is not acceptable"
        case ProxyRefused():
            return "the HTTP proxy on the way there would not connect"
        case _:
            return "it refused the connection"
