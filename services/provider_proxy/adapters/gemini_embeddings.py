"""Gemini's batchEmbedContents: the request's body and the answer's.

embedContent is not used: with several texts the newer models make one vector of them all.
"""

from __future__ import annotations

from modelmuxer.chat.v1.chat_pb2 import Usage
from modelmuxer.embedding.v1.embedding_pb2 import EmbedRequest
from modelmuxer.provider.v1.provider_pb2 import EmbedResponse

from services.provider_proxy.adapters import (
    JsonObject,
    add_options,
    as_count,
    as_list,
    as_object,
    malformed,
    parse_object,
    unsupported,
    vector,
)

METHOD = "batchEmbedContents"


def body(request: EmbedRequest, upstream_model: str) -> JsonObject:
    """A request for each text, each with the same options. Raises UNSUPPORTED_FEATURE for tokens."""
    common: JsonObject = {"model": f"models/{upstream_model}"}
    if request.HasField("dimensions"):
        common["outputDimensionality"] = request.dimensions
    add_options(common, request)
    if any(each.HasField("tokens") for each in request.inputs):
        raise unsupported("Gemini", "inputs as tokens", "inputs")
    return {"requests": [{**common, "content": {"parts": [{"text": each.text}]}} for each in request.inputs]}


def answer(body: bytes, inputs: int) -> EmbedResponse:
    """The vectors in the inputs' order, and usage where Gemini tells it. Raises PROVIDER_MALFORMED_ANSWER."""
    form = parse_object(body)
    listed = [as_object(item, "an embedding") for item in as_list(form.get("embeddings"), "embeddings")]
    if len(listed) != inputs:
        raise malformed(f"it has {len(listed)} embeddings for {inputs} inputs")
    vectors = [vector(item.get("values")) for item in listed]
    tokens = as_count(as_object(form.get("usageMetadata"), "usageMetadata").get("promptTokenCount"))
    usage = Usage() if tokens is None else Usage(input_tokens=tokens, output_tokens=0)
    return EmbedResponse(embeddings=vectors, usage=usage)
