"""A raw HTTP/1.1 client for tests of what goes over the wire, and the providers' simplest calls."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from services.simulator import Simulator


@dataclass
class Reply:
    """One HTTP answer as it came; `is_whole` is false when the connection ended before the answer did."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_whole: bool

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of a stream's events, as far as they are JSON."""
        lines = [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line.startswith("{")]


class Wire:
    """A raw connection: what goes over it is exactly what the test writes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, simulator: Simulator, limit: int = 2**24) -> Wire:
        address = urlsplit(simulator.url)
        return cls(*await asyncio.open_connection(address.hostname, address.port, limit=limit))

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> None:
        self.writer.write(request_bytes(method, path, body, **headers))

    async def reply(self) -> Reply:
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        try:
            body = await self._chunks() if "transfer-encoding" in headers else await self._sized(headers)
            is_whole = True
        except asyncio.IncompleteReadError as error:
            body, is_whole = error.partial, False
        return Reply(int(first.split()[1]), headers, body, is_whole)

    async def _sized(self, headers: dict[str, str]) -> bytes:
        return await self.reader.readexactly(int(headers["content-length"]))

    async def _chunks(self) -> bytes:
        body = b""
        try:
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
        except asyncio.IncompleteReadError as error:
            raise asyncio.IncompleteReadError(body + error.partial, None) from None
        return body

    def close(self) -> None:
        self.writer.close()


def request_bytes(method: str, path: str, body: Any = None, **headers: str) -> bytes:
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "host: simulator", f"content-length: {len(data)}"]
    keys = {
        "authorization": "Bearer key",
        "x-api-key": "key",
        "x-goog-api-key": "key",
        "anthropic-version": "2023-06-01",
    }
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in {**keys, **headers}.items()]
    return "\r\n".join([*lines, "", ""]).encode() + data


async def until(condition: Callable[[], Any], within_s: float = 2.0) -> Any:
    """Polls until the condition holds and gives its value."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)
    return value


def chat(text: str, *, model: str = "sim-test", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


# The three providers' simplest calls: (path, body), streamed or not.
def call_of(provider: str, text: str, *, stream: bool = False, model: str = "sim-test") -> tuple[str, dict[str, Any]]:
    if provider == "openai":
        return "/v1/chat/completions", chat(text, model=model, stream=stream)
    if provider == "anthropic":
        return "/v1/messages", chat(text, model=model, stream=stream, max_tokens=4096)
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    return f"/v1beta/models/{model}:{method}", {"contents": [{"role": "user", "parts": [{"text": text}]}]}


PROVIDERS = ("openai", "anthropic", "gemini")
