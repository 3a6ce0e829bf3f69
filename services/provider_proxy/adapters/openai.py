"""Chat completions and embeddings, as OpenAI and every server that is compatible with it speak them.

Where a server differs stands as data in its catalogue entry (Dialect), never as a branch on its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from modelmuxer.chat.v1.chat_pb2 import ChatRequest, ChatResponse
from modelmuxer.embedding.v1.embedding_pb2 import EmbedRequest
from modelmuxer.provider.v1.provider_pb2 import EmbedResponse

from services.provider_proxy.adapters import (
    Decoder,
    UpstreamRequest,
    json_headers,
    openai_embeddings,
    plain_headers,
)
from services.provider_proxy.adapters.openai_answer import OpenAIDecoder, whole_answer
from services.provider_proxy.adapters.openai_errors import OpenAIErrors
from services.provider_proxy.adapters.openai_request import FORMAT, OpenAIRequest
from shared.catalogue import Deployment, Provider
from shared.errors import MeshError


class OpenAIAdapter:
    """One server's dialect of chat completions."""

    format: Final = FORMAT

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._errors = OpenAIErrors(provider.name)

    def request(
        self, chat: ChatRequest, deployment: Deployment, key: str, *, stream: bool, attempt_id: str
    ) -> UpstreamRequest:
        """POST /chat/completions. Raises UNSUPPORTED_FEATURE."""
        request = OpenAIRequest(chat, deployment.upstream_model, self._provider.name, self._provider.dialect)
        return UpstreamRequest(
            method="POST",
            url=f"{deployment.base_url}/chat/completions",
            headers=json_headers(chat, attempt_id, _bearer(key)),
            body=request.body(stream=stream),
        )

    def count_tokens_request(self, chat: ChatRequest, deployment: Deployment, key: str) -> UpstreamRequest | None:
        """None: the format has no endpoint that counts."""
        return None

    def counted(self, body: bytes) -> int:
        """Never called, as there is no such request."""
        raise NotImplementedError

    def embed_request(
        self, request: EmbedRequest, deployment: Deployment, key: str, *, attempt_id: str
    ) -> UpstreamRequest:
        """POST /embeddings."""
        return UpstreamRequest(
            method="POST",
            url=f"{deployment.base_url}/embeddings",
            headers=plain_headers(attempt_id, _bearer(key)),
            body=openai_embeddings.body(request, deployment.upstream_model, self._provider.dialect),
        )

    def embeddings(self, body: bytes, inputs: int) -> EmbedResponse:
        """A list of embeddings."""
        return openai_embeddings.answer(body, inputs)

    def decoder(self, chat: ChatRequest, headers: Mapping[str, str] | None = None) -> Decoder:
        """A decoder of chunks."""
        hidden = chat.reasoning.HasField("include") and not chat.reasoning.include
        return OpenAIDecoder(self._errors, hide_reasoning=hidden)

    def response(self, status: int, headers: Mapping[str, str], body: bytes) -> ChatResponse:
        """A whole chat completion."""
        return whole_answer(body, self._errors)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> MeshError:
        """An error answer."""
        return self._errors.answered(status, headers, body)


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}
