"""HTTP to providers: a pool of kept connections per deployment, and nothing that a bare call does not need.

No cookies, no redirects (a prompt goes to nobody but the configured address), no retries: a request is written once. A
kept connection that died is found before the first byte goes out, and another one is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakSet

import aiohttp
from aiohttp import ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.connector import Connection

from services.provider_proxy.adapters import UpstreamRequest, malformed, provider_failure, stream_cut
from services.provider_proxy.settings import ProviderProxySettings
from shared.errors import MeshError, Reason
from shared.settings import is_loopback
from shared.telemetry import metrics

USER_AGENT: Final = "ModelMuxer"
KEEP_ALIVE_S: Final = 30.0
IDLE_S: Final = 1.0

BeforeWrite = Callable[[], Awaitable[None]]
_before_write: ContextVar[BeforeWrite] = ContextVar("before_write")


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider's answer, its head read."""

    status: int
    headers: Mapping[str, str]
    _response: aiohttp.ClientResponse
    _max_bytes: int

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes: all that one read of the socket brought is one chunk."""
        left = self._max_bytes
        with _translated():
            async for chunk in self._response.content.iter_any():
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
        async with pool.place():
            token = _before_write.set(before_write)
            try:
                with _translated():
                    response = await pool.send(request, stall_timeout_s)
            finally:
                _before_write.reset(token)
            try:
                yield Answer(response.status, response.headers, response, self._settings.max_answer_bytes)
            finally:
                response.close()  # does nothing where the body was read to its end

    async def keep_only(self, deployments: frozenset[str]) -> None:
        """Closes the pools of deployments that are gone, once their calls have ended."""
        for name in [name for name, pool in self._pools.items() if name not in deployments and not pool.busy]:
            await self._pools.pop(name).close()

    async def close(self) -> None:
        """Closes every connection."""
        for pool in self._pools.values():
            await pool.close()
        self._pools.clear()

    def _pool(self, deployment: str, url: str) -> _Pool:
        pool = self._pools.get(deployment)
        if pool is None:
            pool = self._pools[deployment] = _Pool(deployment, self._settings, _forward_proxy(url))
        return pool


class _Pool:
    """Connections of one deployment: `pool_connections` idle ones stay; `pool_maxsize` is the most if callers block."""

    def __init__(self, deployment: str, settings: ProviderProxySettings, forward_proxy: str | None) -> None:
        self.busy = 0
        self._forward_proxy = forward_proxy
        self._gauge = metrics.PROVIDER_CONNECTIONS.labels(deployment)
        self._room = asyncio.Semaphore(settings.pool_maxsize) if settings.pool_block else None
        self._connector = _Connector(settings.pool_connections)
        self._connect_timeout_s = settings.connect_timeout_s
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=DummyCookieJar(),
            auto_decompress=True,
            # An uncompressed stream arrives token by token; a compressed one when its compressor sees fit.
            headers={"user-agent": USER_AGENT, "accept-encoding": "identity"},
        )

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

    async def send(self, request: UpstreamRequest, stall_timeout_s: float | None) -> aiohttp.ClientResponse:
        return await self._session.request(
            request.method,
            request.url,
            headers=request.headers,
            data=request.body,
            allow_redirects=False,
            proxy=self._forward_proxy,
            timeout=ClientTimeout(total=None, connect=self._connect_timeout_s, sock_read=stall_timeout_s),
        )

    async def close(self) -> None:
        await self._session.close()


class _Connector(TCPConnector):
    """Calls `before_write` between connecting and writing; reuses no dead connection and keeps no more than it may.

    Under load a connection that comes free is taken again at once, so only those are too many that have been idle for a
    moment.
    """

    def __init__(self, most_idle: int) -> None:
        super().__init__(limit=0, keepalive_timeout=KEEP_ALIVE_S, ttl_dns_cache=30)
        self._most_idle = most_idle
        self._pruning: asyncio.TimerHandle | None = None
        self._seen: WeakSet[Any] = WeakSet()

    async def connect(self, req: Any, traces: Any, timeout: ClientTimeout) -> Connection:  # noqa: ASYNC109 - aiohttp's
        connection = await super().connect(req, traces, timeout)
        while self._is_dead(connection):
            connection.close()
            connection = await super().connect(req, traces, timeout)
        if (protocol := connection.protocol) is not None:
            self._seen.add(protocol)
        try:
            await _before_write.get()()
        except BaseException:
            connection.release()
            raise
        return connection

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        super()._release(key, protocol, should_close=should_close)
        if self._pruning is None and self._idle > self._most_idle:
            self._pruning = asyncio.get_running_loop().call_later(IDLE_S, self._prune)

    @property
    def _idle(self) -> int:
        return sum(map(len, self._conns.values()))

    def _prune(self) -> None:
        """Closes what is too many, the longest idle first."""
        self._pruning = None
        for connections in self._conns.values():
            while connections and self._idle > self._most_idle:
                protocol, _ = connections.popleft()
                protocol.close()

    def _is_dead(self, connection: Connection) -> bool:
        """Whether a kept connection has something to read: before a request that can only be its end."""
        if connection.protocol not in self._seen or connection.transport is None:
            return False
        if connection.transport.is_closing():
            return True
        poll = select.poll()
        poll.register(connection.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))


def _forward_proxy(url: str) -> str | None:
    """The HTTP proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY name for an address."""
    target = urlsplit(url)
    host = target.hostname or ""
    proxy = getproxies().get(target.scheme)
    return None if not proxy or is_loopback(host) or proxy_bypass(host) else proxy


@contextlib.contextmanager
def _translated() -> Any:
    """aiohttp's exceptions as reasons. Their texts stay here: they may hold addresses."""
    try:
        yield
    except MeshError:
        raise
    except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
        raise provider_failure(Reason.PROVIDER_UNREACHABLE, _unreachable(error), retryable=True) from error
    except (aiohttp.ServerTimeoutError, TimeoutError) as error:
        raise provider_failure(
            Reason.PROVIDER_TIMEOUT, "The provider fell silent for longer than is allowed.", retryable=True
        ) from error
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, aiohttp.ClientOSError, OSError) as error:
        raise stream_cut("before its answer was whole") from error
    except aiohttp.InvalidURL as error:
        raise provider_failure(
            Reason.PROVIDER_UNREACHABLE, "The provider's address in the catalogue is no URL.", retryable=True
        ) from error
    except aiohttp.ClientError as error:
        raise malformed("it is not HTTP") from error
    except ValueError as error:
        raise MeshError(Reason.MALFORMED_REQUEST, "A header of the request cannot be sent to the provider.") from error


def _unreachable(error: Exception) -> str:
    match error:
        case aiohttp.ConnectionTimeoutError():
            why = "it did not take a connection in time"
        case aiohttp.ClientConnectorDNSError():
            why = "its name does not resolve"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            why = "its certificate or TLS is not acceptable"
        case _:
            why = "it refused the connection"
    return f"The provider cannot be reached: {why}."
