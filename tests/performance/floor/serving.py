"""What both processes of the floor do at their start: serve two methods on a free port, and say where."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import Message
from modelmuxer.chat.v1.chat_pb2 import ChatEvent, ChatResponse
from modelmuxer.tunnel import TunnelServicer

Context = grpc.aio.ServicerContext[Any, Any]


async def serve(
    service: str,
    request: type[Message],
    unary: tuple[str, Callable[[Any, Context], Awaitable[ChatResponse]]],
    stream: tuple[str, Callable[[Any, Context], Awaitable[None]]],
) -> tuple[grpc.aio.Server, str]:
    """Serves a unary and a streaming method, plainly and in tunnels; returns the server and its address."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        unary[0]: grpc.unary_unary_rpc_method_handler(
            unary[1], request_deserializer=request.FromString, response_serializer=ChatResponse.SerializeToString
        ),
        stream[0]: grpc.unary_stream_rpc_method_handler(
            stream[1], request_deserializer=request.FromString, response_serializer=ChatEvent.SerializeToString
        ),
    }
    server, tunnel = grpc.aio.server(), TunnelServicer()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    tunnel.add_registered_method_handlers(service, handlers)
    tunnel.add_to_server(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await tunnel.listen("127.0.0.1")
    return server, f"127.0.0.1:{port}"


def announce(**listening: str) -> None:
    """Says in one line of JSON where the process listens."""
    print(json.dumps(listening), flush=True)
