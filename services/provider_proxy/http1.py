"""HTTP/1.1 to one provider: a connection that carries one request at a time, and the bytes of its answer as they come.

Written for the proxy's hot path, on the parser that uvicorn uses: a general client's cookies, redirects, hooks and
retries cost six times as much as all of a request here. Who may use which connection is `upstream`'s to say.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import select
import socket
import ssl
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

import aiohappyeyeballs
import httptools

USER_AGENT: Final = "ModelMuxer"
READ_AHEAD_BYTES: Final = 256 * 1024  # unread, after which the socket is left alone
MAX_HEAD_BYTES: Final = 64 * 1024
INFLATED_BYTES: Final = 64 * 1024  # a compressed answer grows by pieces of this size, so that its limit holds
_HAPPY_EYEBALLS_S: Final = 0.25
_INFORMATIONAL: Final = range(100, 200)
_WITHOUT_BODY: Final = frozenset({204, 304})


class HttpError(Exception):
    """The peer does not speak HTTP."""


class Disconnected(Exception):
    """The connection ended before the answer was whole."""


class Stalled(Exception):
    """Nothing has come for longer than is allowed."""


class ProxyRefused(Exception):
    """The forward proxy would not connect."""


class BadUrl(ValueError):
    """Not an HTTP URL."""


class Origin(NamedTuple):
    """Where a request goes."""

    scheme: str
    host: str
    port: int


@functools.lru_cache(maxsize=1024)
def origin_and_target(url: str) -> tuple[Origin, str]:
    """Where a URL points to, and what is asked for there. Raises BadUrl."""
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise BadUrl(str(error)) from None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    plain = target.isascii() and target.isprintable() and " " not in target
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
        raise BadUrl("not an HTTP URL")
    return Origin(parts.scheme, parts.hostname, port), target


class Connection(asyncio.Protocol):
    """One connection. `send`, then `head`, then `chunk` until it gives None; then it may be used again."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._parser: Any = None
        self._closed = False
        self._forget()

    def _forget(self) -> None:
        """Makes room for an answer."""
        self.status = 0
        self.headers: dict[str, str] = {}
        self._head_read = self._complete = self._keeps = self._ends_with_the_connection = False
        self._head_bytes = 0
        self._body: list[bytes] = []
        self._unread = 0
        self._paused = False
        self._inflate: Any = None
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self._complete:  # an answer that nobody has asked for
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, zlib.error) as error:
            self._fail(HttpError(str(error)))
        else:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        if self._parser is not None and not self._complete and self._error is None:
            if self._head_read and self._ends_with_the_connection and exc is None:
                self._complete = True
            else:
                self._error = Disconnected()
        self._wake()

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._complete:
            raise HttpError("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise HttpError("a head without end")
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status in _INFORMATIONAL:
            return
        self._head_read = True
        self._ends_with_the_connection = (
            "content-length" not in self.headers
            and "chunked" not in self.headers.get("transfer-encoding", "").lower()
            and self.status not in _WITHOUT_BODY
        )
        encoding = self.headers.get("content-encoding", "").lower()
        if encoding in ("gzip", "x-gzip", "deflate"):
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
        elif encoding not in ("", "identity"):
            raise HttpError("an encoding that was not asked for")

    def on_body(self, data: bytes) -> None:
        self._body.append(data)
        self._unread += len(data)
        if self._unread > READ_AHEAD_BYTES and not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.status in _INFORMATIONAL:
            self.headers.clear()
            return
        self._complete = True
        self._keeps = self._parser.should_keep_alive() and not self._ends_with_the_connection

    # What a caller does.

    @property
    def is_dead(self) -> bool:
        """Whether the connection has ended, or has something to read before it was asked: that can only be its end."""
        if self._closed or self._transport.is_closing():
            return True
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    @property
    def is_reusable(self) -> bool:
        """Whether the answer was read to its end and the peer keeps the connection."""
        return self._complete and self._keeps and not self._body and not self._closed

    def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> None:
        """Writes a request. Raises ValueError for a header that cannot be sent."""
        head = "\r\n".join([f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())])
        if head.count("\r\n") != len(headers) or head.count("\n") != len(headers) or "\0" in head:
            raise ValueError("a line break within a header")
        length = f"\r\ncontent-length: {len(body)}" if body is not None else ""
        data = f"{head}{length}\r\n\r\n".encode("latin-1")
        self._forget()
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(data + body if body else data)

    async def tunnel(self, origin: Origin, authorization: Mapping[str, str], context: ssl.SSLContext) -> None:
        """Has the forward proxy at the other end connect to an origin, then speaks TLS through it."""
        host = f"[{origin.host}]:{origin.port}" if ":" in origin.host else f"{origin.host}:{origin.port}"
        self.send("CONNECT", host, {"host": host, **authorization}, None)
        try:
            await self.head(None)
            if self.status // 100 != 2:
                raise ProxyRefused(self.status)
        except (Disconnected, HttpError, ProxyRefused):
            self.close()
            raise ProxyRefused from None
        self._parser = None  # the answer to CONNECT has no body: what follows is TLS
        self._transport = await self._loop.start_tls(self._transport, self, context, server_hostname=origin.host)

    async def head(self, stall_timeout_s: float | None) -> None:
        """Waits for `status` and `headers`. Raises Stalled, Disconnected, HttpError."""
        while not self._head_read:
            await self._arrival(stall_timeout_s)

    async def chunk(self, stall_timeout_s: float | None) -> bytes | None:
        """What has come of the body; None after its end. Raises Stalled, Disconnected, HttpError."""
        while not self._body:
            if self._complete:
                return None
            await self._arrival(stall_timeout_s)
        data = b"".join(self._body) if len(self._body) > 1 else self._body[0]
        self._body.clear()
        self._unread = 0
        if self._inflate is not None:
            data = self._inflated(data)
        if self._paused:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        return data

    def _inflated(self, data: bytes) -> bytes:
        """A piece of a compressed body; what is left of it stands before what comes next."""
        try:
            piece: bytes = self._inflate.decompress(data, INFLATED_BYTES)
        except zlib.error as error:
            raise HttpError("a body that cannot be decompressed") from error
        if left := self._inflate.unconsumed_tail:
            self._body.insert(0, left)
            self._unread += len(left)
        return piece

    async def _arrival(self, stall_timeout_s: float | None) -> None:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise Disconnected
        self._waiter = waiter = self._loop.create_future()
        timer = self._loop.call_later(stall_timeout_s, self._stall) if stall_timeout_s is not None else None
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _stall(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(Stalled())

    def _fail(self, error: Exception) -> None:
        self._error = error
        self.close()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Ends the connection at once: what the peer still sends is for nobody."""
        self._closed = True
        self._transport.abort()


async def connect(origin: Origin, proxy: SplitResult | None, tls: Callable[[], ssl.SSLContext]) -> Connection:
    """Opens a connection, through a forward proxy if there is one. Raises OSError, ssl.SSLError, ProxyRefused."""
    secure = origin.scheme == "https"
    if proxy is None:
        return await _open(origin.host, origin.port, tls() if secure else None)
    encrypted = proxy.scheme == "https"
    port = proxy.port or (443 if encrypted else 80)
    connection = await _open(proxy.hostname or "", port, tls() if encrypted else None)
    if secure:
        await connection.tunnel(origin, proxy_authorization(proxy), tls())
    return connection


async def _open(host: str, port: int, context: ssl.SSLContext | None) -> Connection:
    """To the first of a name's addresses that answers."""
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    sock = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=_HAPPY_EYEBALLS_S)
    name = host if context is not None else None
    _, connection = await loop.create_connection(Connection, sock=sock, ssl=context, server_hostname=name)
    return connection


def proxy_authorization(proxy: SplitResult) -> dict[str, str]:
    """What the proxy's URL says of its user."""
    if proxy.username is None:
        return {}
    user = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"proxy-authorization": "Basic " + base64.b64encode(user.encode()).decode()}
