"""The Python client offers the tunnel with one argument."""

from typing import Any

import grpc
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.client import Client, text_message, text_of
from modelmuxer.router.v1 import router_pb2_grpc
from modelmuxer.tunnel import TunnelServicer


class Router(router_pb2_grpc.RouterServiceServicer):
    def __init__(self) -> None:
        self.keys: list[Any] = []

    async def Chat(self, request: Any, context: Any) -> Any:
        self.keys.append(dict(context.invocation_metadata())["authorization"])
        return chat_pb2.ChatResponse(content=request.messages[0].content)


async def test_chat_in_a_tunnel() -> None:
    router = Router()  # type: ignore[abstract]
    server, tunnel = grpc.aio.server(), TunnelServicer()
    registrar: Any = tunnel
    router_pb2_grpc.add_RouterServiceServicer_to_server(router, registrar)
    tunnel.add_to_server(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with Client(f"127.0.0.1:{port}", api_key="k", tunnel=True) as client:
        request = chat_pb2.ChatRequest(messages=[text_message("hello")])
        assert text_of((await client.chat(request)).content) == "hello"
    await server.stop(None)
    assert router.keys == ["Bearer k"]
