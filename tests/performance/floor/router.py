"""The floor's first process: an HTTP and a gRPC face, one hop behind both.

``python -m tests.performance.floor.router <plain or tunnel> <address of the floor's proxy>``
"""

from __future__ import annotations

import sys
from typing import Any

import grpc
import orjson
import uvloop
from aiohttp import web
from modelmuxer.chat.v1.chat_pb2 import ROLE_USER, Block, ChatRequest, ChatResponse, Message, Text
from modelmuxer.provider.v1 import provider_pb2_grpc
from modelmuxer.provider.v1.provider_pb2 import GenerateRequest
from modelmuxer.tunnel import TunnelChannel

from tests.performance.floor.serving import Context, announce, serve


class Router:
    """Passes every call on."""

    def __init__(self, proxy: provider_pb2_grpc.ProviderServiceAsyncStub) -> None:
        self._proxy = proxy

    async def chat(self, request: ChatRequest, _context: Context) -> ChatResponse:
        return await self._proxy.Generate(GenerateRequest(chat=request))

    async def stream_chat(self, request: ChatRequest, context: Context) -> None:
        async for event in self._proxy.StreamGenerate(GenerateRequest(chat=request)):
            await context.write(event)

    async def chat_completions(self, http: web.Request) -> web.StreamResponse:
        body = orjson.loads(await http.read())
        request = GenerateRequest(chat=_request(body))
        if body.get("stream"):
            return await self._streamed(http, request)
        answer = await self._proxy.Generate(request)
        choice = {"index": 0, "message": {"role": "assistant", "content": answer.content[0].text.text}}
        tokens = answer.completed.usage.output_tokens
        whole = {
            "id": "floor",
            "object": "chat.completion",
            "choices": [choice],
            "usage": {"completion_tokens": tokens},
        }
        return web.Response(body=orjson.dumps(whole), content_type="application/json")

    async def _streamed(self, http: web.Request, request: GenerateRequest) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(http)
        async for event in self._proxy.StreamGenerate(request):
            if event.HasField("delta"):
                choice = {"index": 0, "delta": {"content": event.delta.text}}
                chunk = {"id": "floor", "object": "chat.completion.chunk", "choices": [choice]}
                await answer.write(b"data: " + orjson.dumps(chunk) + b"\n\n")
        await answer.write(b"data: [DONE]\n\n")
        return answer


def _request(body: dict[str, Any]) -> ChatRequest:
    messages = [
        Message(role=ROLE_USER, content=[Block(text=Text(text=message["content"]))]) for message in body["messages"]
    ]
    return ChatRequest(model=body["model"], messages=messages)


async def main(transport: str, proxy_address: str) -> None:
    below: grpc.aio.Channel = (
        grpc.aio.insecure_channel(proxy_address)
        if transport == "plain"
        else TunnelChannel(proxy_address, health_service=None)
    )
    async with below as channel:
        router = Router(provider_pb2_grpc.ProviderServiceStub(channel))
        server, address = await serve(
            "modelmuxer.router.v1.RouterService",
            ChatRequest,
            ("Chat", router.chat),
            ("StreamChat", router.stream_chat),
        )
        faces = web.Application(client_max_size=2**25)
        faces.router.add_post("/v1/chat/completions", router.chat_completions)
        runner = web.AppRunner(faces, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        announce(grpc=address, http=f"{host}:{port}")
        await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
