"""OpenAI's embeddings: the body of POST /v1/embeddings read, and its answer written. Pure.

Parameters without a field of their own become provider options, as with chat completions.
"""

from __future__ import annotations

import base64
import sys
from array import array
from dataclasses import dataclass
from typing import Any

from modelmuxer.embedding.v1.embedding_pb2 import Embedding, EmbedRequest, EmbedResponse, Input, Tokens

from services.router.http.fields import Json, integer, malformed, mapping, parse_json, string, string_map

MAX_TOKEN = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Reading:
    """A request body, understood."""

    request: EmbedRequest
    as_base64: bool
    """The vectors are to come as base64 of little-endian 32-bit floats."""


def read(body: bytes) -> Reading:
    """Turns a body into a request. Raises MeshError naming the field that is wrong."""
    fields = {name: value for name, value in mapping(parse_json(body), "The body").items() if value is not None}
    request = EmbedRequest(inputs=_inputs(fields.pop("input", None)))
    for name, field in (("model", "model"), ("user", "end_user")):
        if name in fields:
            setattr(request, field, string(fields.pop(name), name))
    if "dimensions" in fields:
        request.dimensions = integer(fields.pop("dimensions"), "dimensions")
    if "metadata" in fields:
        request.tags.update(string_map(fields.pop("metadata"), "metadata"))
    encoding = string(fields.pop("encoding_format", "float"), "encoding_format")
    if encoding not in ("float", "base64"):
        raise malformed("encoding_format", f'must be "float" or "base64", not {encoding!r}')
    if fields:
        request.provider_options.update(fields)
    return Reading(request, encoding == "base64")


def render(answer: EmbedResponse, *, as_base64: bool) -> dict[str, Any]:
    """OpenAI's list of embeddings."""
    tokens = answer.usage.input_tokens
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _base64(each) if as_base64 else list(each.values)}
            for index, each in enumerate(answer.embeddings)
        ],
        "model": answer.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _inputs(value: Json) -> list[Input]:
    """A text, tokens, a list of texts, or a list of lists of tokens."""
    if isinstance(value, str):
        return [Input(text=value)]
    if not isinstance(value, list) or not value:
        raise malformed("input", "must be a text, an array of texts or an array of tokens, and not empty")
    if isinstance(value[0], int):
        return [Input(tokens=_tokens(value, "input"))]
    return [_input(each, f"input[{place}]") for place, each in enumerate(value)]


def _input(value: Json, path: str) -> Input:
    if isinstance(value, str):
        return Input(text=value)
    if isinstance(value, list):
        return Input(tokens=_tokens(value, path))
    raise malformed(path, "must be a text or an array of tokens")


def _tokens(value: list[Json], path: str) -> Tokens:
    if not all(type(token) is int and 0 <= token <= MAX_TOKEN for token in value):
        raise malformed(path, f"must hold nothing but tokens, whole numbers from 0 to {MAX_TOKEN}")
    return Tokens(ids=value)


def _base64(embedding: Embedding) -> str:
    values = array("f", embedding.values)
    if sys.byteorder == "big":
        values.byteswap()
    return base64.b64encode(values).decode("ascii")
