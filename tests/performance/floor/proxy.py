"""The floor's second process: a gRPC call in, one HTTP call to an OpenAI-like provider out.

``python -m tests.performance.floor.proxy <base URL of the provider>``
"""

from __future__ import annotations

import sys
from typing import Any

import aiohttp
import orjson
import uvloop
from modelmuxer.chat.v1.chat_pb2 import (
    Block,
    BlockDelta,
    ChatEvent,
    ChatRequest,
    ChatResponse,
    Completed,
    Text,
    Usage,
)
from modelmuxer.provider.v1.provider_pb2 import GenerateRequest

from tests.performance.floor.serving import Context, announce, serve

_HEADERS = {"content-type": "application/json", "authorization": "Bearer floor"}


class Proxy:
    """Calls the provider."""

    def __init__(self, http: aiohttp.ClientSession, base_url: str) -> None:
        self._http = http
        self._url = f"{base_url}/v1/chat/completions"

    async def generate(self, request: GenerateRequest, _context: Context) -> ChatResponse:
        body = _body(request.chat, stream=False)
        async with self._http.post(self._url, data=body, headers=_HEADERS) as answer:
            whole = orjson.loads(await answer.read())
        text, usage = whole["choices"][0]["message"]["content"], whole["usage"]
        return ChatResponse(content=[Block(text=Text(text=text))], completed=Completed(usage=_usage(usage)))

    async def stream_generate(self, request: GenerateRequest, context: Context) -> None:
        body = _body(request.chat, stream=True)
        async with self._http.post(self._url, data=body, headers=_HEADERS) as answer:
            rest = b""
            async for piece in answer.content.iter_any():
                *events, rest = (rest + piece).split(b"\n\n")
                for event in events:
                    if event.startswith(b"data: {") and (text := _text(orjson.loads(event[6:]))):
                        await context.write(ChatEvent(delta=BlockDelta(text=text)))
        await context.write(ChatEvent(completed=Completed()))


def _body(chat: ChatRequest, *, stream: bool) -> bytes:
    messages = [
        {"role": "user", "content": "".join(block.text.text for block in message.content)} for message in chat.messages
    ]
    return orjson.dumps({"model": chat.model, "messages": messages, "stream": stream})


def _text(chunk: dict[str, Any]) -> str:
    choices = chunk["choices"]
    return choices[0]["delta"].get("content") or "" if choices else ""


def _usage(usage: dict[str, int]) -> Usage:
    return Usage(input_tokens=usage["prompt_tokens"], output_tokens=usage["completion_tokens"])


async def main(base_url: str) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        proxy = Proxy(http, base_url)
        server, address = await serve(
            "modelmuxer.provider.v1.ProviderService",
            GenerateRequest,
            ("Generate", proxy.generate),
            ("StreamGenerate", proxy.stream_generate),
        )
        announce(grpc=address)
        await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
