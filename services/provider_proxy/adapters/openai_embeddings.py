"""OpenAI's embeddings, and those of the servers that are compatible with it: the request's body and the answer's."""

from __future__ import annotations

from typing import Final

import orjson
from modelmuxer.chat.v1.chat_pb2 import Usage
from modelmuxer.embedding.v1.embedding_pb2 import Embedding, EmbedRequest, Input
from modelmuxer.provider.v1.provider_pb2 import EmbedResponse

from services.provider_proxy.adapters import (
    JsonObject,
    add_options,
    as_count,
    as_list,
    as_object,
    as_text,
    malformed,
    parse_object,
    vector,
)
from shared.catalogue import Dialect

BASE64: Final = "base64"


def body(request: EmbedRequest, upstream_model: str, dialect: Dialect) -> bytes:
    """The body of POST /embeddings. One text goes as a text: not every server takes a list of one."""
    inputs = [_input(each) for each in request.inputs]
    form: JsonObject = {"model": upstream_model, "input": inputs[0] if len(inputs) == 1 else inputs}
    if request.HasField("dimensions"):
        form[dialect.dimensions_field] = request.dimensions
    if request.end_user and dialect.end_user_field:
        form["user"] = request.end_user
    add_options(form, request)
    form.pop("encoding_format", None)
    if dialect.base64_embeddings:
        form["encoding_format"] = BASE64
    return orjson.dumps(form)


def answer(body: bytes, inputs: int) -> EmbedResponse:
    """The vectors in the inputs' order, and what the server says of usage. Raises PROVIDER_MALFORMED_ANSWER."""
    form = parse_object(body)
    vectors: list[Embedding | None] = [None] * inputs
    for place, item in enumerate(as_list(form.get("data"), "data")):
        entry = as_object(item, "an embedding")
        index = as_count(entry.get("index", place))
        if index is None or index >= inputs or vectors[index] is not None:
            raise malformed("an embedding is out of place")
        vectors[index] = vector(entry.get("embedding"))
    whole = [each for each in vectors if each is not None]
    if len(whole) != inputs:
        raise malformed(f"it has {len(whole)} embeddings for {inputs} inputs")
    return EmbedResponse(
        embeddings=whole, provider_model=as_text(form.get("model"), "model"), usage=_usage(form.get("usage"))
    )


def _input(each: Input) -> str | list[int]:
    return list(each.tokens.ids) if each.HasField("tokens") else each.text


def _usage(stated: object) -> Usage:
    form = as_object(stated, "usage")
    tokens = as_count(form.get("prompt_tokens"))
    if tokens is None:
        tokens = as_count(form.get("total_tokens"))
    return Usage() if tokens is None else Usage(input_tokens=tokens, output_tokens=0)
