"""Callers of the HTTP face, each on a kept connection: bare protocols, which leave the machine to what is measured."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from itertools import count, repeat
from typing import cast

import httptools
import orjson
import uvloop

from tests.performance.load import ANSWER_TIMEOUT_S, NUMBER, NUMBER_DIGITS, Load, Measured

_FIRST_TOKEN = re.compile(rb'"content":"[^"]')
_CACHE_HEADER = b"x-modelmuxer-cache"


def run(load: Load) -> Measured:
    """Runs a load to its end."""
    return uvloop.run(_run(load))


async def _run(load: Load) -> Measured:
    measured = Measured()
    host, _, port = load.address.rpartition(":")
    question = Question(load)
    cpu_s, began = time.process_time(), time.perf_counter()
    until = began + load.seconds

    async def call(caller: int) -> None:
        await asyncio.sleep(load.begins_after_s(caller))
        one = Caller(question, began if load.once else until, measured)
        await asyncio.get_running_loop().create_connection(lambda: one, host, int(port))
        await one.done

    callers = [asyncio.create_task(call(number)) for number in range(load.callers)]
    finished, waiting = await asyncio.wait(callers, timeout=load.seconds + ANSWER_TIMEOUT_S)
    for task in waiting:
        task.cancel()
        measured.fail(f"no answer within {ANSWER_TIMEOUT_S:.0f} s")
    for task in finished:
        if error := task.exception():
            measured.fail(repr(error))
    measured.seconds = time.perf_counter() - began
    measured.client_cpu_s = time.process_time() - cpu_s
    return measured


class Question:
    """The bytes of one request after the other. All are of one size, so that only the number is new."""

    def __init__(self, load: Load) -> None:
        gap = "0" * NUMBER_DIGITS
        body: dict[str, object] = {"messages": [{"role": "user", "content": load.prompt.replace(NUMBER, gap)}]}
        body |= {"model": load.model} if load.model else {"routing_strategy": "hybrid"}
        body |= {"stream": True} if load.stream else {}
        content = orjson.dumps(body)
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {load.address}\r\nauthorization: Bearer {load.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        self._before, self._after = (head.encode() + content).split(gap.encode())
        self._numbers: Iterator[int] = count(time.time_ns()) if load.distinct else repeat(10 ** (NUMBER_DIGITS - 1))

    def next(self) -> bytes:
        return b"%b%d%b" % (self._before, next(self._numbers), self._after)


class Caller(asyncio.Protocol):
    """One caller, called back by the socket and by the parser."""

    def __init__(self, question: Question, until: float, measured: Measured) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._question = question
        self._until = until
        self._measured = measured
        self._asked = 0.0
        self._body = b""
        self._newlines = 0
        self._first_token_seen = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        self._parser = httptools.HttpResponseParser(self)
        self._ask()

    def _ask(self) -> None:
        self._body, self._newlines, self._first_token_seen = b"", 0, False
        self._asked = time.perf_counter()
        self._transport.write(self._question.next())

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self._measured.fail(f"the connection was closed: {error or self._body[-300:]!r}")
            self.done.set_result(None)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name == _CACHE_HEADER:
            self._measured.hits += value == b"exact"
            self._measured.shared += value == b"coalesced"

    def on_body(self, body: bytes) -> None:
        self._newlines += body.count(b"\n")  # counted, two to an event, because a single byte is never cut in two
        if not self._first_token_seen:
            self._body += body
            if _FIRST_TOKEN.search(self._body):
                self._first_token_seen = True
                self._measured.first_tokens_ms.append((time.perf_counter() - self._asked) * 1e3)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status != 200:
            self._measured.fail(f"{status}: {self._body.decode(errors='replace')[:300]}")
        elif not self._first_token_seen:
            self._measured.fail("an answer without a token")
        else:
            self._measured.messages += self._newlines // 2
            self._measured.succeed(time.perf_counter() - self._asked)
        if time.perf_counter() < self._until:
            self._ask()
        else:
            self.done.set_result(None)
            self._transport.close()
