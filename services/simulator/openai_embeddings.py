"""The simulated embeddings of OpenAI and of the servers that speak its dialect."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import orjson

from services.simulator.answer import Answer, json_answer
from services.simulator.behaviour import OrderError
from services.simulator.connection import Request
from services.simulator.embedding import dimensions, embed
from services.simulator.openai import RATE_HEADERS, OpenAI, OpenAIError, authorise, error_body, wrong_type
from services.simulator.prices import Tokens
from services.simulator.script import Reading

MAX_INPUTS = 2048
MAX_INPUT_TOKENS = 8192
_PARAMETERS = frozenset(("input", "model", "encoding_format", "dimensions", "user"))
_SHORTENS = ("text-embedding-3-", "codestral-embed", "sim-")


class OpenAIEmbeddings:
    """Answers POST /embeddings."""

    def __init__(self, desk: OpenAI, new_id: Callable[[], str]) -> None:
        self._desk = desk
        self._new_id = new_id

    def create(self, request: Request, provider: str | None) -> Answer:
        request_id = self._new_id()
        headers = b"x-request-id: %b\r\n%b" % (request_id.encode(), RATE_HEADERS)
        try:
            authorise(request)
            return self._answer(request, provider, request_id, headers)
        except OpenAIError as error:
            return json_answer(error.body, error.status, headers)
        except OrderError as error:
            return json_answer(OpenAIError(str(error), code="invalid_directive").body, 400, headers)

    def _answer(self, request: Request, provider: str | None, request_id: str, headers: bytes) -> Answer:
        body = _body(request)
        model = body["model"]
        owner = self._desk.owner(model, provider)
        if owner == "openai" and (unknown := body.keys() - _PARAMETERS):
            raise OpenAIError(f"Unknown parameter: '{min(unknown)}'.", param=min(unknown), code="unknown_parameter")
        size = _size(body, model)
        reading = Reading(tokens=0)
        texts = [_text(each, reading) for each in _inputs(body.get("input"))]
        behaviour = self._desk.behaviour(model, reading)
        if behaviour.status is not None:
            retry = b"retry-after: %g\r\n" % behaviour.retry_after if behaviour.retry_after is not None else b""
            return json_answer(error_body(behaviour.status, behaviour.code), behaviour.status, headers + retry)
        write = _as_base64 if _encoding(body) == "base64" else list
        data = [
            {"object": "embedding", "index": index, "embedding": write(embed(text, size))}
            for index, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": reading.tokens, "total_tokens": reading.tokens}
        return Answer(
            orjson.dumps({"object": "list", "data": data, "model": model, "usage": usage}),
            headers,
            charge=self._desk.charge(request, request_id, owner, model, Tokens(reading.tokens)),
            behaviour=behaviour,
            failure=orjson.dumps(error_body(500, None)),
        )


def _body(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        raise OpenAIError("We could not parse the JSON body of your request.") from None
    if not isinstance(body, dict) or not isinstance(body.get("model"), str) or not body["model"]:
        raise OpenAIError("you must provide a model parameter")
    return body


def _size(body: dict[str, Any], model: str) -> int:
    usual = dimensions(model)
    if usual is None:
        raise OpenAIError(f"You are not allowed to generate embeddings from the model '{model}'.", status=403)
    asked = body.get("dimensions", body.get("output_dimension"))
    if asked is None:
        return usual
    if not isinstance(asked, int) or isinstance(asked, bool):
        raise wrong_type("dimensions", "an integer", asked)
    if not model.startswith(_SHORTENS):
        raise OpenAIError("This model does not support specifying dimensions.", param="dimensions")
    if not 1 <= asked <= usual and not model.startswith("sim-"):
        raise OpenAIError(f"Invalid value for 'dimensions': must be from 1 to {usual}.", param="dimensions")
    return asked


def _encoding(body: dict[str, Any]) -> str:
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        message = f"Invalid value: '{encoding}'. Supported values are: 'float' and 'base64'."
        raise OpenAIError(message, param="encoding_format", code="invalid_value")
    return str(encoding)


def _inputs(value: Any) -> list[Any]:
    """Texts, or lists of tokens."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise OpenAIError("'$.input' is invalid. Please check the API reference.", param="input")
    inputs = [value] if isinstance(value[0], int) else value
    if len(inputs) > MAX_INPUTS:
        raise OpenAIError(f"Too many inputs: at most {MAX_INPUTS} are embedded at once.", param="input")
    return inputs


def _text(each: Any, reading: Reading) -> str:
    """An input's text. Tokens are no text of this vocabulary, so their numbers stand for them."""
    before = reading.tokens
    if isinstance(each, str) and each:
        reading.text(each)
        text = each
    elif isinstance(each, list) and each and all(isinstance(token, int) for token in each):
        reading.tokens += len(each)
        text = " ".join(map(str, each))
    else:
        raise OpenAIError("'$.input' is invalid. Please check the API reference.", param="input")
    if reading.tokens - before > MAX_INPUT_TOKENS:
        message = f"This model's maximum context length is {MAX_INPUT_TOKENS} tokens. Please reduce your prompt."
        raise OpenAIError(message, code="context_length_exceeded")
    return text


def _as_base64(values: Any) -> str:
    return base64.b64encode(values).decode("ascii")
