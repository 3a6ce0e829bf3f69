"""The Python client offers the tunnel, and balance without it, with one argument each."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.client import Client, text_message, text_of
from modelmuxer.router.v1 import router_pb2_grpc
from modelmuxer.tunnel import TunnelServicer

from shared.health import READINESS, SERVICE, Health


class Router(router_pb2_grpc.RouterServiceServicer):
    def __init__(self) -> None:
        self.keys: list[Any] = []

    async def Chat(self, request: Any, context: Any) -> Any:
        self.keys.append(dict(context.invocation_metadata())["authorization"])
        return chat_pb2.ChatResponse(content=request.messages[0].content)


@asynccontextmanager
async def replica() -> AsyncIterator[tuple[Router, Health, int]]:
    """A router that says that it is ready, and its port."""
    router, health, server = Router(), Health(), grpc.aio.server()  # type: ignore[abstract]
    router_pb2_grpc.add_RouterServiceServicer_to_server(router, server)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, health.methods()),))
    port = server.add_insecure_port("127.0.0.1:0")
    health.set(READINESS, True)
    await server.start()
    try:
        yield router, health, port
    finally:
        health.close()
        await server.stop(None)


async def test_balanced_calls_go_to_every_replica_that_is_ready() -> None:
    async with replica() as (one, _, first), replica() as (other, health, second):
        address = f"ipv4:127.0.0.1:{first},127.0.0.1:{second}"
        async with Client(address, api_key="k", balanced=True) as client:

            async def spread(*, both: bool) -> bool:
                one.keys.clear()
                other.keys.clear()
                for _ in range(6):
                    await client.chat("hello")
                return bool(one.keys) and bool(other.keys) is both

            for ready in (True, False, True):
                health.set(READINESS, ready)
                async with asyncio.timeout(20):
                    while not await spread(both=ready):
                        pass


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
