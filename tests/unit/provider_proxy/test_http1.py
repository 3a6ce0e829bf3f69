"""HTTP/1.1 to providers, against servers that answer byte for byte what a test says."""

from __future__ import annotations

import asyncio
import base64
import ssl
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from services.provider_proxy.http1 import (
    MAX_HEAD_BYTES,
    READ_AHEAD_BYTES,
    BadUrl,
    Connection,
    Disconnected,
    HttpError,
    Origin,
    ProxyRefused,
    Stalled,
    connect,
    origin_and_target,
)
from tests.contract.proxy_under_test import self_signed, until

BODY = b'{"answer": "forty-two"}'
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Request-Id: r1\r\n\r\n" % len(BODY) + BODY
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Request-Id: r1\r\n\r\n" + b"".join(
    b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:5], BODY[5:])
)
CHUNKED += b"0\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nX-Request-Id: r1\r\n\r\n" + BODY


@asynccontextmanager
async def answering(*parts: bytes, close: bool = True, context: ssl.SSLContext | None = None) -> AsyncIterator[Origin]:
    """A server that takes a request's head and sends the parts, each in a write of its own."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        if close:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield Origin("https" if context else "http", "127.0.0.1", server.sockets[0].getsockname()[1])


async def ask(origin: Origin, stall_timeout_s: float | None = 5.0) -> tuple[Connection, bytes]:
    connection = await connect(origin, None, ssl.create_default_context)
    connection.send("GET", "/", {"host": "test"}, None)
    await connection.head(stall_timeout_s)
    body = b""
    while (chunk := await connection.chunk(stall_timeout_s)) is not None:
        body += chunk
    return connection, body


class Wire(asyncio.Transport):
    """Takes what a connection writes, and the place of its socket."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert data

    def is_closing(self) -> bool:
        return False


async def read(*parts: bytes) -> tuple[Connection, bytes]:
    """What a connection makes of reads that bring these parts, the last of them before the peer closes."""
    connection = Connection()
    connection.connection_made(Wire())
    connection.send("GET", "/", {}, None)
    for part in parts:
        connection.data_received(part)
    connection.connection_lost(None)
    await connection.head(1)
    body = b""
    while (chunk := await connection.chunk(1)) is not None:
        body += chunk
    return connection, body


@pytest.mark.parametrize("answer", [LENGTH, CHUNKED, UNTIL_CLOSE], ids=["length", "chunked", "until close"])
async def test_an_answer_cut_into_reads_at_any_byte_is_the_same(answer: bytes) -> None:
    for cut in range(1, len(answer)):
        connection, body = await read(answer[:cut], answer[cut:])
        assert (connection.status, connection.headers["x-request-id"], body) == (200, "r1", BODY)


@pytest.mark.parametrize("answer", [LENGTH, CHUNKED], ids=["length", "chunked"])
async def test_an_answer_that_ends_early_is_never_taken_for_whole(answer: bytes) -> None:
    for cut in range(len(answer)):
        with pytest.raises(Disconnected):
            await read(answer[:cut])


async def test_a_connection_is_used_again_only_where_both_sides_keep_it() -> None:
    async with answering(LENGTH, close=False) as origin:
        connection, _ = await ask(origin)
        assert connection.is_reusable
        assert not connection.is_dead
        connection.close()
        assert connection.is_dead
    async with answering(LENGTH.replace(b"200 OK\r\n", b"200 OK\r\nConnection: close\r\n")) as origin:
        connection, _ = await ask(origin)
        assert not connection.is_reusable
        connection.close()


async def test_what_comes_unasked_ends_the_connection() -> None:
    async with answering(LENGTH + LENGTH, close=False) as origin:
        connection, body = await ask(origin)
        assert body == BODY
        assert not connection.is_reusable


async def test_an_interim_answer_is_passed_over() -> None:
    async with answering(b"HTTP/1.1 100 Continue\r\nx-early: 1\r\n\r\n", LENGTH) as origin:
        connection, body = await ask(origin)
        assert body == BODY
        assert "x-early" not in connection.headers
        connection.close()


async def test_a_compressed_answer_is_read_by_pieces_of_bounded_size() -> None:
    long = b"a" * 5_000_000
    packed = zlib.compress(long)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with answering(head + packed, close=False) as origin:
        connection, body = await ask(origin)
        assert body == long
        assert connection.is_reusable
        connection.close()


async def test_what_nobody_reads_is_not_read_ahead_without_end() -> None:
    part = b"x" * 100_000
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(part) * 200)
    async with answering(head, *[part] * 200, close=False) as origin:
        connection = await connect(origin, None, ssl.create_default_context)
        connection.send("GET", "/", {}, None)
        await connection.head(5)
        await until(lambda: connection._paused)
        assert connection._unread < READ_AHEAD_BYTES + 1_000_000
        total = 0
        while (chunk := await connection.chunk(5)) is not None:
            total += len(chunk)
        assert total == len(part) * 200
        connection.close()


NOT_UNDERSTOOD = {
    "not HTTP": b"SMTP ready",
    "endless head": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 2 * MAX_HEAD_BYTES,
    "unknown encoding": b"HTTP/1.1 200 OK\r\nContent-Encoding: br",
}


@pytest.mark.parametrize("answer", NOT_UNDERSTOOD.values(), ids=NOT_UNDERSTOOD)
async def test_what_is_not_understood_is_an_error(answer: bytes) -> None:
    async with answering(answer + b"\r\n\r\n", close=False) as origin:
        with pytest.raises(HttpError):
            await ask(origin)


async def test_silence_ends_the_wait() -> None:
    async with answering(LENGTH[:-5], close=False) as origin:
        with pytest.raises(Stalled):
            await ask(origin, stall_timeout_s=0.05)


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\0b", "日本"])
async def test_a_header_that_cannot_be_sent_is_refused_before_a_byte_is_written(value: str) -> None:
    async with answering(LENGTH) as origin:
        connection = await connect(origin, None, ssl.create_default_context)
        with pytest.raises(ValueError, match=r"line break|codec"):
            connection.send("GET", "/", {"x": value}, None)
        connection.close()


@pytest.mark.parametrize(
    "url", ["ftp://h/", "http:///path", "http://h:port/", "nonsense", "http://h/a b", "http://h/ä"]
)
def test_what_is_no_http_url_is_refused(url: str) -> None:
    with pytest.raises(BadUrl):
        origin_and_target(url)


def test_urls() -> None:
    assert origin_and_target("https://api.example/v1?a=b") == (Origin("https", "api.example", 443), "/v1?a=b")
    assert origin_and_target("http://[::1]:81") == (Origin("http", "::1", 81), "/")


@asynccontextmanager
async def forward_proxy(refuse: bool = False) -> AsyncIterator[tuple[str, list[bytes]]]:
    """An HTTP proxy that knows CONNECT; what it was sent before the tunnel."""
    heads: list[bytes] = []

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        heads.append(head)
        if refuse:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            writer.close()
            return
        host, _, port = head.split(b" ")[1].decode().rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pipe(reader, far_writer), pipe(far_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://me:s%40crets@127.0.0.1:{server.sockets[0].getsockname()[1]}", heads


def trusting(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(next(folder.glob("*.pem"))))
    context.check_hostname = False
    return context


async def test_tls_goes_through_a_forward_proxy(tmp_path: Path) -> None:
    serving = self_signed(tmp_path)
    async with answering(LENGTH, context=serving, close=False) as origin, forward_proxy() as (proxy, heads):
        connection = await connect(origin, urlsplit(proxy), lambda: trusting(tmp_path))
        connection.send("GET", "/", {"host": "test"}, None)
        await connection.head(5)
        assert await connection.chunk(5) == BODY
        assert heads[0].startswith(f"CONNECT 127.0.0.1:{origin.port} HTTP/1.1\r\n".encode())
        assert b"proxy-authorization: Basic " + base64.b64encode(b"me:s@crets") in heads[0]
        connection.close()


async def test_a_forward_proxy_that_refuses_is_named() -> None:
    async with forward_proxy(refuse=True) as (proxy, _):
        with pytest.raises(ProxyRefused):
            await connect(Origin("https", "127.0.0.1", 1), urlsplit(proxy), ssl.create_default_context)
