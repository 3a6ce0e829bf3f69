"""The client: a channel, the caller's key, and the calls that nearly everybody makes."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Self

import grpc
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.client.errors import CallError
from modelmuxer.embedding.v1 import embedding_pb2
from modelmuxer.router.v1 import router_pb2_grpc
from modelmuxer.tunnel import TunnelChannel

_MAX_MESSAGE_BYTES = 32 * 1024 * 1024  # the router's own limit
_OPTIONS = (
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),  # an idle stream notices a dead router
    ("grpc.keepalive_timeout_ms", 10_000),
)
_BALANCED = (
    (
        "grpc.service_config",
        json.dumps(
            {
                "loadBalancingConfig": [{"round_robin": {}}],
                "healthCheckConfig": {"serviceName": "readiness"},
                # One that drains says so before others, new to us, have been looked up: that moment fails no call.
                "methodConfig": [{"name": [{}], "waitForReady": True}],
            }
        ),
    ),
    # Replicas come and go: the default looks them up no more often than every 30 s, though all that it knows be gone.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
)


class Client:
    """A client of one mesh. Safe to share between tasks of one event loop."""

    def __init__(
        self,
        address: str = "127.0.0.1:50051",
        *,
        api_key: str,
        credentials: grpc.ChannelCredentials | None = None,
        timeout_s: float | None = None,
        balanced: bool = False,
        tunnel: bool = False,
    ) -> None:
        """``credentials`` switch TLS on; ``timeout_s`` is the deadline of each call.

        ``balanced`` spreads calls over all replicas that the address names (a headless Service) and that are ready;
        while none is, calls wait, until their deadline. Without it one connection is kept, to whatever answers.
        ``tunnel`` balances too, and carries all calls in one stream to each replica of the router: worth it from
        hundreds of calls a second. A router without tunnels is called plainly.
        """
        self._metadata = (("authorization", f"Bearer {api_key}"),)
        self._timeout_s = timeout_s
        options = (*_OPTIONS, *_BALANCED) if balanced and not tunnel else _OPTIONS
        self._channel = _channel(address, credentials, options, self._metadata if tunnel else None)
        self.router = router_pb2_grpc.RouterServiceStub(self._channel)
        """The generated stub. Its calls take ``metadata=client.metadata()``."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()

    def metadata(self, *, operation_id: str = "", run_id: str = "") -> tuple[tuple[str, str], ...]:
        """Returns the metadata of a call: the key, the idempotency key, the run."""
        named = (("x-operation-id", operation_id), ("x-run-id", run_id))
        return (*self._metadata, *((name, value) for name, value in named if value))

    async def chat(
        self, request: chat_pb2.ChatRequest | str, *, model: str = "", operation_id: str = "", run_id: str = ""
    ) -> chat_pb2.ChatResponse:
        """Answers a chat whole. A string is one user message. Raises CallError."""
        metadata = self.metadata(operation_id=operation_id, run_id=run_id)
        try:
            return await self.router.Chat(_request(request, model), metadata=metadata, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            raise CallError.from_rpc(error) from None

    async def stream_chat(
        self, request: chat_pb2.ChatRequest | str, *, model: str = "", operation_id: str = "", run_id: str = ""
    ) -> AsyncGenerator[chat_pb2.ChatEvent, None]:
        """Answers a chat as its tokens come: one started, the answer's events, one completed. Raises CallError.

        Leaving the loop early cancels the call, once the iterator is closed (``contextlib.aclosing``).
        """
        metadata = self.metadata(operation_id=operation_id, run_id=run_id)
        call = self.router.StreamChat(_request(request, model), metadata=metadata, timeout=self._timeout_s)
        try:
            async for event in call:
                yield event
        except grpc.aio.AioRpcError as error:
            raise CallError.from_rpc(error) from None
        finally:
            call.cancel()

    async def embed(
        self, texts: embedding_pb2.EmbedRequest | str | Sequence[str], *, model: str = "", run_id: str = ""
    ) -> embedding_pb2.EmbedResponse:
        """Turns texts into vectors, one for each, in their order. Raises CallError."""
        request = _embed_request(texts, model)
        try:
            return await self.router.Embed(request, metadata=self.metadata(run_id=run_id), timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            raise CallError.from_rpc(error) from None


def _channel(
    address: str,
    credentials: grpc.ChannelCredentials | None,
    options: Sequence[tuple[str, int | str]],
    tunnel_metadata: tuple[tuple[str, str], ...] | None,
) -> grpc.aio.Channel:
    if tunnel_metadata is not None:
        return TunnelChannel(address, credentials=credentials, options=options, metadata=tunnel_metadata)
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)


def text_message(text: str, role: chat_pb2.Role = chat_pb2.ROLE_USER) -> chat_pb2.Message:
    """Returns a message of one text."""
    return chat_pb2.Message(role=role, content=[chat_pb2.Block(text=chat_pb2.Text(text=text))])


def text_of(content: Sequence[chat_pb2.Block]) -> str:
    """Returns the text of an answer, without reasoning or tool calls."""
    return "".join(block.text.text for block in content if block.HasField("text"))


def _request(request: chat_pb2.ChatRequest | str, model: str) -> chat_pb2.ChatRequest:
    if isinstance(request, str):
        return chat_pb2.ChatRequest(model=model, messages=[text_message(request)])
    if model:
        named = chat_pb2.ChatRequest()
        named.CopyFrom(request)
        named.model = model
        return named
    return request


def _embed_request(texts: embedding_pb2.EmbedRequest | str | Sequence[str], model: str) -> embedding_pb2.EmbedRequest:
    request = embedding_pb2.EmbedRequest()
    if isinstance(texts, embedding_pb2.EmbedRequest):
        request.CopyFrom(texts)
    else:
        listed = [texts] if isinstance(texts, str) else texts
        request.inputs.extend(embedding_pb2.Input(text=text) for text in listed)
    request.model = model or request.model
    return request
