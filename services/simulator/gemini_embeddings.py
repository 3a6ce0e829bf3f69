"""The simulated embeddings of Gemini: embedContent and batchEmbedContents."""

from __future__ import annotations

import time
from typing import Any

import orjson

from services.simulator.answer import Answer
from services.simulator.bill import Charge
from services.simulator.connection import Request
from services.simulator.embedding import dimensions, embed
from services.simulator.gemini import ERRORS, PROVIDER, Gemini, GeminiError, camel, ordered_error
from services.simulator.prices import Tokens
from services.simulator.script import Reading

METHODS = ("embedContent", "batchEmbedContents")
MAX_INPUTS = 100


class GeminiEmbeddings:
    """Answers `models/{model}:embedContent` and `:batchEmbedContents`."""

    def __init__(self, desk: Gemini) -> None:
        self._desk = desk

    def call(self, request: Request, model: str, method: str) -> Answer:
        def handle(request_id: str, headers: bytes) -> Answer:
            self._desk.known(model)
            size = dimensions(model)
            if size is None:
                raise GeminiError(f"models/{model} is not found or is not supported for {method}.", status=404)
            return self._answer(request, model, method, size, request_id, headers)

        return self._desk.guarded(request, handle)

    def _answer(self, request: Request, model: str, method: str, size: int, request_id: str, headers: bytes) -> Answer:
        started_at = time.time()
        batch = method == "batchEmbedContents"
        reading = Reading(tokens=0)
        asked = _requests(request) if batch else [_object(request)]
        vectors = [{"values": list(_vector(camel(each), model, size, reading))} for each in asked]
        behaviour = self._desk.behaviour(model, reading)
        if behaviour.status is not None:
            return ordered_error(behaviour, headers)
        usage = {
            "promptTokenCount": reading.tokens,
            "promptTokenDetails": [{"modality": "TEXT", "tokenCount": reading.tokens}],
        }
        answer = {"embeddings": vectors} if batch else {"embedding": vectors[0]}
        client_id = request.header(b"x-client-request-id") or None
        return Answer(
            orjson.dumps({**answer, "usageMetadata": usage}),
            headers,
            charge=Charge(request_id, client_id, PROVIDER, model, "standard", Tokens(reading.tokens), started_at),
            behaviour=behaviour,
            failure=orjson.dumps(GeminiError(ERRORS[500][1], status=500).body),
        )


def _object(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise GeminiError(f"Invalid JSON payload received. {error}") from None
    if not isinstance(body, dict):
        raise GeminiError("Invalid JSON payload received. The root element must be a message.")
    return body


def _requests(request: Request) -> list[dict[str, Any]]:
    requests = _object(request).get("requests")
    if not isinstance(requests, list) or not requests or not all(isinstance(each, dict) for each in requests):
        raise GeminiError("* BatchEmbedContentsRequest.requests: requests is not specified\n")
    if len(requests) > MAX_INPUTS:
        raise GeminiError(f"* BatchEmbedContentsRequest.requests: at most {MAX_INPUTS} requests can be in one batch\n")
    return requests


def _vector(asked: dict[str, Any], model: str, size: int, reading: Reading) -> Any:
    named = asked.get("model", f"models/{model}")
    if named != f"models/{model}":
        raise GeminiError(f"* BatchEmbedContentsRequest.requests: model {named} is not models/{model}\n")
    content = asked.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, list) or not all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in parts):
        raise GeminiError("* EmbedContentRequest.content: contents is not specified\n")
    text = "\n".join(part["text"] for part in parts)
    if not text:
        raise GeminiError("* EmbedContentRequest.content: contents is not specified\n")
    length = asked.get("outputDimensionality", size)
    if not isinstance(length, int) or not 1 <= length <= size:
        raise GeminiError(f"* EmbedContentRequest.output_dimensionality: must be from 1 to {size}\n")
    reading.text(text)
    return embed(text, length)
