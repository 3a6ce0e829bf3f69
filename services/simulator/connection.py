"""A small HTTP/1.1 server on a raw asyncio protocol: keep-alive, pipelining, chunked answers, clear refusals.

It is the load target of benchmarks, so a request costs as few steps as it can. Which path answers what is the desk's.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol, cast

import httptools
import orjson

from services.simulator.answer import Answer
from services.simulator.playback import Playback

MAX_HEADER_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_PIPELINED = 64
_STATUS_LINES = {status.value: b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}


class Request:
    """One request as it came. Header names are lower-case."""

    __slots__ = ("body", "headers", "keep_alive", "method", "path", "query")

    def __init__(self, method: str, url: bytes, headers: dict[bytes, bytes], body: bytes, keep_alive: bool) -> None:
        self.method = method
        self.headers = headers
        self.body = body
        self.keep_alive = keep_alive
        path, _, self.query = url.partition(b"?")
        self.path = path if path.startswith(b"/") else httptools.parse_url(path).path or b"/"

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")


class Desk(Protocol):
    """What a connection needs of the simulator behind it."""

    loop: asyncio.AbstractEventLoop

    def opened(self, connection: Connection) -> None: ...
    def closed(self, connection: Connection, *, by_client: bool) -> None: ...
    def answer(self, request: Request) -> Answer: ...
    def settle(self, answer: Answer, generated: int, *, complete: bool) -> None: ...


class Connection(asyncio.Protocol):
    """One TCP connection: requests are answered one after the other, in the order in which they came."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.loop = desk.loop
        self.opened_at = time.time()
        self.peer: Any = None
        self.running: Playback | None = None
        self.is_paused = False
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._waiting: deque[Request] = deque()
        self._is_closing = False
        self._is_deaf = False
        self._refusal = b""
        self._keep_alive = True
        self._closed_by_us = False

    # -- the connection ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not derive from asyncio's
        self.peer = transport.get_extra_info("peername")
        self.desk.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closing = True
        self._waiting.clear()
        if self.running is not None:
            self.running.cut()
        self.desk.closed(self, by_client=not self._closed_by_us)
        self.running = None

    def data_received(self, data: bytes) -> None:
        if self._is_deaf or self._is_closing:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._is_deaf = True  # the request itself is answered; what follows speaks another protocol
        except httptools.HttpParserCallbackError as error:
            raise error.__context__ or error from None  # not the request's fault
        except httptools.HttpParserError as error:
            self._refuse(400, f"not a valid HTTP/1.1 request: {error}")

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False
        if self.running is not None:
            self.running.resume()

    def drain(self) -> None:
        """Closes as soon as nothing runs; what is still waiting is not started."""
        self._is_deaf = True
        self._keep_alive = False
        self._waiting.clear()
        if self.running is None:
            self.close()

    def abort(self) -> None:
        """Closes at once, whatever is still to be written."""
        self._closed_by_us = self._is_closing = True
        self._transport.abort()

    def close(self) -> None:
        """Closes after what is written has gone."""
        self._closed_by_us = self._is_closing = True
        self._transport.close()

    # -- the parser's events -------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._body = b""
        self._more_body: bytearray | None = None

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value
        self._count_header(len(name) + len(value))

    def on_headers_complete(self) -> None:
        if self._headers.get(b"expect", b"").lower() == b"100-continue" and not self._is_deaf:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if not self._body:
            self._body = body
            return
        if self._more_body is None:
            self._more_body = bytearray(self._body)
        self._more_body += body
        if len(self._more_body) > MAX_BODY_BYTES:
            self._refuse(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
            self._more_body.clear()

    def on_message_complete(self) -> None:
        if self._is_deaf or self._is_closing:
            return
        body = self._body if self._more_body is None else bytes(self._more_body)
        method = self._parser.get_method().decode("ascii")
        try:
            keep_alive = self._parser.should_keep_alive() and not self._parser.should_upgrade()
            request = Request(method, self._url, self._headers, body, keep_alive)
        except httptools.HttpParserInvalidURLError:
            self._refuse(400, "the request's target is not a valid URL")
            return
        if self.running is None and not self._waiting:
            self._serve(request)
            return
        self._waiting.append(request)
        if len(self._waiting) > MAX_PIPELINED:
            self._transport.pause_reading()

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES:
            self._refuse(431, f"the request line and headers are larger than {MAX_HEADER_BYTES} bytes")

    # -- answering -----------------------------------------------------------------------------------------------

    def _serve(self, request: Request) -> None:
        self._keep_alive = request.keep_alive
        self.running = Playback(self, self.desk.answer(request))
        self.running.start()

    def write(self, data: bytes) -> None:
        if not self._is_closing:
            self._transport.write(data)

    def head(self, answer: Answer, framing: bytes) -> bytes:
        """Status line and headers, ended."""
        return b"".join(
            (
                _STATUS_LINES.get(answer.status) or b"HTTP/1.1 %d Simulated\r\n" % answer.status,
                b"content-type: ",
                answer.content_type,
                b"\r\n",
                answer.headers,
                b"" if self._keep_alive else b"connection: close\r\n",
                framing,
                b"\r\n\r\n",
            )
        )

    def done(self) -> None:
        """The running answer is written; the next request's turn."""
        self.running = None
        if not self._keep_alive:
            self.close()
        elif self._waiting:
            if len(self._waiting) == MAX_PIPELINED and not self._is_deaf:
                self._transport.resume_reading()
            # Not at once: a pipeline of instant answers must not grow the stack.
            self.loop.call_soon(self._serve_next)
        elif self._refusal:
            self._write_refusal()

    def _serve_next(self) -> None:
        if self._waiting and self.running is None and not self._is_closing:
            self._serve(self._waiting.popleft())

    def _refuse(self, status: int, message: str) -> None:
        """Answers what is no request with an error, in its turn, and closes: what follows cannot be told apart."""
        if self._is_deaf or self._is_closing:
            return
        self._is_deaf = True
        body = orjson.dumps({"error": {"type": "invalid_request_error", "message": message}})
        framing = b"connection: close\r\ncontent-length: %d" % len(body)
        self._refusal = self.head(Answer(body, status=status), framing) + body
        if self.running is None and not self._waiting:
            self._write_refusal()

    def _write_refusal(self) -> None:
        self._transport.write(self._refusal)
        self.close()


def connection_factory(desk: Desk) -> Callable[[], Connection]:
    return lambda: Connection(desk)
