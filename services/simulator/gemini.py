"""The simulated Gemini: generateContent, its stream in both framings, and countTokens.

Thought signatures are checked when they come back.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs

import orjson

from services.simulator.answer import EVENT_STREAM, Answer, json_answer
from services.simulator.behaviour import Behaviour, OrderError, Orders
from services.simulator.bill import Charge
from services.simulator.connection import Request
from services.simulator.embedding import dimensions
from services.simulator.prices import Prices, Tokens
from services.simulator.script import (
    FILE_TOKENS,
    IMAGE_TOKENS,
    MESSAGE_TOKENS,
    Ask,
    Reading,
    Script,
    Tool,
    write_script,
)
from services.simulator.signature import is_sealed, is_signed, seal, sign

PROVIDER = "gemini"
# Documented by Google for histories that come from elsewhere.
_UNCHECKED_SIGNATURES = ("skip_thought_signature_validator", "context_engineering_is_the_way_to_go")
_NEEDS_SIGNATURES = re.compile(r"gemini-[3-9]")
_LEVEL_TOKENS = {"minimal": 8, "low": 16, "medium": 32, "high": 64}
_FINISH = {
    "end": "STOP",
    "length": "MAX_TOKENS",
    "stop_sequence": "STOP",
    "tool_calls": "STOP",
    "refusal": "SAFETY",
    "filter": "SAFETY",
}
# status: (google.rpc code, message)
ERRORS = {
    400: ("INVALID_ARGUMENT", "Request contains an invalid argument."),
    401: ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
    403: ("PERMISSION_DENIED", "The caller does not have permission"),
    404: ("NOT_FOUND", "Requested entity was not found."),
    409: ("ABORTED", "The operation was aborted."),
    429: ("RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan and billing details."),
    499: ("CANCELLED", "The operation was cancelled."),
    500: ("INTERNAL", "An internal error has occurred. Please retry."),
    503: ("UNAVAILABLE", "The model is overloaded. Please try again later."),
    504: ("DEADLINE_EXCEEDED", "The request timed out. Please try again."),
}
_PARAMETERS = """
    contents tools toolConfig safetySettings systemInstruction generationConfig cachedContent serviceTier store model
    labels
"""
_CONFIG = """
    stopSequences responseMimeType responseSchema responseJsonSchema _responseJsonSchema responseModalities
    candidateCount maxOutputTokens temperature topP topK seed presencePenalty frequencyPenalty responseLogprobs logprobs
    enableEnhancedCivicAnswers speechConfig thinkingConfig imageConfig mediaResolution responseFormat
"""
_PART = """
    text inlineData fileData functionCall functionResponse executableCode codeExecutionResult thought thoughtSignature
    videoMetadata mediaResolution partMetadata
"""


class GeminiError(Exception):
    """A refusal in Google's shape."""

    def __init__(
        self, message: str, *, status: int = 400, code: str | None = None, details: list[dict[str, Any]] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        usual = (ERRORS.get(status) or ERRORS[500 if status >= 500 else 400])[0]
        error: dict[str, Any] = {"code": status, "message": message, "status": code or usual}
        if details:
            error["details"] = details
        self.body = {"error": error}


class Gemini:
    """Answers Gemini's paths: `models/{model}:{method}` and the list of models."""

    def __init__(self, prices: Prices, ordered: dict[str, Orders], new_id: Callable[[], str]) -> None:
        self._prices = prices
        self._ordered = ordered
        self._new_id = new_id

    def models(self, request: Request, name: str | None = None) -> Answer:
        def handle(request_id: str, headers: bytes) -> Answer:
            if name is not None:
                return json_answer(_model(self.known(name)), headers=headers)
            return json_answer({"models": [_model(known) for known in self._prices.models(PROVIDER)]}, headers=headers)

        return self.guarded(request, handle)

    def call(self, request: Request, model: str, method: str) -> Answer:
        def handle(request_id: str, headers: bytes) -> Answer:
            self.known(model)
            if method == "countTokens":
                return json_answer(_count(request), headers=headers)
            if method not in ("generateContent", "streamGenerateContent"):
                raise GeminiError(f"models/{model} does not support {method}", status=404)
            return self._generate(request, model, method, request_id, headers)

        return self.guarded(request, handle)

    def guarded(self, request: Request, handle: Callable[[str, bytes], Answer]) -> Answer:
        request_id = self._new_id()
        headers = b"x-request-id: %b\r\nserver-timing: gfet4t7; dur=1\r\n" % request_id.encode()
        try:
            _authorise(request)
            return handle(request_id, headers)
        except GeminiError as error:
            return json_answer(error.body, error.status, headers)
        except OrderError as error:
            return json_answer(GeminiError(str(error)).body, 400, headers)

    def known(self, model: str) -> str:
        if not self._prices.serves(PROVIDER, model):
            raise GeminiError(
                f"models/{model} is not found for API version v1beta, or is not supported for generateContent. Call "
                "ListModels to see the list of available models and their supported methods.",
                status=404,
            )
        return model

    def behaviour(self, model: str, reading: Reading) -> Behaviour:
        return reading.behaviour(model, self._ordered)

    def _generate(self, request: Request, model: str, method: str, request_id: str, headers: bytes) -> Answer:
        started_at = time.time()
        body = _body(request)
        config = _config(body)
        reading, tools = _read(body, model)
        behaviour = self.behaviour(model, reading)
        if behaviour.status is not None:
            return ordered_error(behaviour, headers)
        script = write_script(_ask(body, config, reading, tools, behaviour))
        if behaviour.blocked:
            script = Script(text=[])
        asked = str(body.get("serviceTier") or "standard").lower()
        tier = asked if self._prices.has_tier(PROVIDER, model, asked) else "standard"
        tokens = Tokens(reading.tokens, cached=min(behaviour.cached, reading.tokens))
        client_id = request.header(b"x-client-request-id") or None
        failure = orjson.dumps(GeminiError(ERRORS[500][1], status=500).body)
        answer = Answer(
            b"",
            headers + b"x-gemini-service-tier: %b\r\n" % tier.encode(),
            charge=Charge(request_id, client_id, PROVIDER, model, tier, tokens, started_at),
            behaviour=behaviour,
            tokens=script.tokens,
            failure=failure,
        )
        shows_thoughts = bool(camel(config.get("thinkingConfig") or {}).get("includeThoughts"))
        writer = _Writer(request_id, model, script, tokens, behaviour, shows_thoughts, reading.seed)
        if method == "generateContent":
            answer.body = orjson.dumps(writer.whole())
        elif b"alt=sse" in request.query:
            answer.content_type = EVENT_STREAM
            chunks, answer.weights = writer.chunks()
            answer.events = [b"data: " + chunk + b"\r\n\r\n" if chunk else b"" for chunk in chunks]
            answer.failure_event = b"data: " + failure + b"\r\n\r\n"
        else:
            chunks, weights = writer.chunks()
            answer.events, answer.weights = _array(chunks), [*weights, 0]
            answer.failure_event = (b"[" if behaviour.error_at == 0 else b",\r\n") + failure + b"]"
        return answer


class _Writer:
    """Writes a script as Gemini's candidates, whole or as chunks."""

    def __init__(
        self,
        request_id: str,
        model: str,
        script: Script,
        tokens: Tokens,
        orders: Behaviour,
        shows_thoughts: bool,
        seed: int,
    ) -> None:
        self._id = request_id
        self._model = model
        self._script = script
        self._tokens = tokens
        self._orders = orders
        self._shows_thoughts = shows_thoughts
        # A text's signature is about the answer as a whole, not about the bytes of the part that carries it.
        self._text_signature = seal("thought", f"{seed:08x}") if script.thinking else None

    def whole(self) -> dict[str, Any]:
        script = self._script
        if self._orders.blocked:
            return self._chunk(None, self._usage(0, 0))
        parts: list[dict[str, Any]] = []
        if script.thinking and self._shows_thoughts:
            parts.append({"text": "".join(script.thinking), "thought": True})
        if script.text:
            parts.append({"text": "".join(script.text)})
            if self._text_signature and not script.calls:
                parts[-1]["thoughtSignature"] = self._text_signature
        parts += self._call_parts()
        usage = self._usage(len(script.thinking), script.tokens - len(script.thinking))
        return self._chunk(self._candidate(parts, last=True), usage)

    def chunks(self) -> tuple[list[bytes], list[int]]:
        script, dumps = self._script, orjson.dumps
        if self._orders.blocked:
            return [dumps(self._chunk(None, self._usage(0, 0)))], [0]
        chunks: list[bytes] = []
        for position, piece in enumerate(script.thinking, 1):
            part = {"text": piece, "thought": True}
            chunks.append(self._part_chunk(part, position, 0) if self._shows_thoughts else b"")
        thoughts = len(script.thinking)
        chunks += [self._part_chunk({"text": piece}, thoughts, at) for at, piece in enumerate(script.text, 1)]
        weights = [1] * len(chunks)
        said = len(script.text)
        for call, part in zip(script.calls, self._call_parts(), strict=True):
            cost = call.name_tokens + len(call.arguments)
            said += cost
            chunks.append(self._part_chunk(part, thoughts, said))
            weights.append(cost)
        parts: list[dict[str, Any]] = []
        if not script.calls:
            parts = [{"text": ""}]
            if self._text_signature:
                parts[0]["thoughtSignature"] = self._text_signature
        chunks.append(dumps(self._chunk(self._candidate(parts, last=True), self._usage(thoughts, said))))
        return chunks, [*weights, 0]

    def _part_chunk(self, part: dict[str, Any], thoughts: int, said: int) -> bytes:
        return orjson.dumps(self._chunk(self._candidate([part]), self._usage(thoughts, said)))

    def _chunk(self, candidate: dict[str, Any] | None, usage: dict[str, Any]) -> dict[str, Any]:
        chunk: dict[str, Any] = {"usageMetadata": usage, "modelVersion": self._model, "responseId": self._id}
        if candidate is None:
            return {"promptFeedback": {"blockReason": "SAFETY"}, **chunk}
        return {"candidates": [candidate], **chunk}

    def _candidate(self, parts: list[dict[str, Any]], *, last: bool = False) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
        if not last:
            return candidate
        candidate["finishReason"] = _FINISH[self._script.ending]
        if candidate["finishReason"] == "SAFETY":
            candidate["safetyRatings"] = [
                {"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": True}
            ]
        if self._orders.citations:
            candidate["groundingMetadata"] = self._grounding()
        return candidate

    def _usage(self, thoughts: int, said: int) -> dict[str, Any]:
        prompt, cached = self._tokens.input, self._tokens.cached
        usage: dict[str, Any] = {
            "promptTokenCount": prompt,
            "candidatesTokenCount": said,
            "totalTokenCount": prompt + said + thoughts,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
        }
        if thoughts:
            usage["thoughtsTokenCount"] = thoughts
        if cached:
            usage["cachedContentTokenCount"] = cached
            usage["cacheTokensDetails"] = [{"modality": "TEXT", "tokenCount": cached}]
        return usage

    def _call_parts(self) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        for position, call in enumerate(self._script.calls):
            try:
                arguments = orjson.loads("".join(call.arguments))
            except orjson.JSONDecodeError:  # cut short by maxOutputTokens
                arguments = {}
            called = {"name": call.name, "args": arguments, "id": f"{self._id.removeprefix('req_')}-{position}"}
            parts.append({"functionCall": called})
            if position == 0:
                parts[0]["thoughtSignature"] = sign("call", _signed_text(called))
        return parts

    def _grounding(self) -> dict[str, Any]:
        numbers = range(self._orders.citations)
        length = len("".join(self._script.text).encode())
        return {
            "groundingChunks": [
                {"web": {"uri": f"https://example.com/source/{number}", "title": f"Source {number}"}}
                for number in numbers
            ],
            "groundingSupports": [
                {"segment": {"startIndex": 0, "endIndex": length}, "groundingChunkIndices": list(numbers)}
            ],
            "webSearchQueries": ["simulated query"],
        }


def _array(chunks: list[bytes]) -> list[bytes]:
    """The stream as one JSON array, an element per chunk; what is empty stays empty."""
    events = []
    is_first = True
    for chunk in chunks:
        events.append((b"[" if is_first else b",\r\n") + chunk if chunk else b"")
        is_first = is_first and not chunk
    return [*events, b"]"]


def _authorise(request: Request) -> None:
    key = request.header(b"x-goog-api-key")
    if not key and request.query:
        key = parse_qs(request.query.decode("latin-1")).get("key", [""])[0]
    if not key:
        raise GeminiError(
            "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or "
            "other form of API consumer identity to call this API.",
            status=403,
        )
    if "invalid" in key:
        reason = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
        }
        raise GeminiError("API key not valid. Please pass a valid API key.", details=[reason])


def _model(name: str) -> dict[str, Any]:
    embeds = dimensions(name) is not None and not name.startswith("sim-")
    return {
        "name": f"models/{name}",
        "displayName": name,
        "supportedGenerationMethods": ["embedContent"] if embeds else ["generateContent", "countTokens"],
        "inputTokenLimit": 1048576,
        "outputTokenLimit": 65536,
    }


def _body(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise GeminiError(f"Invalid JSON payload received. {error}") from None
    if not isinstance(body, dict):
        raise GeminiError("Invalid JSON payload received. The root element must be a message.")
    body = camel(body)
    _refuse_unknown(body, _PARAMETERS)
    if not isinstance(body.get("contents"), list) or not body["contents"]:
        raise GeminiError("* GenerateContentRequest.contents: contents is not specified\n")
    return body


def _refuse_unknown(message: dict[str, Any], known: str, where: str = "") -> None:
    if names := message.keys() - _names(known):
        raise GeminiError(f'Invalid JSON payload received. Unknown name "{min(names)}"{where}: Cannot find field.')


@lru_cache(maxsize=8)
def _names(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


def camel(message: Any) -> dict[str, Any]:
    """Proto JSON takes both spellings of a field; this is the camelCase one."""
    if not isinstance(message, dict):
        raise GeminiError("Invalid JSON payload received. A message must be a JSON object.")
    return {_camel_name(key): value for key, value in message.items()}


@lru_cache(maxsize=1024)
def _camel_name(name: str) -> str:
    return re.sub(r"(?<=[a-z])_([a-z])", lambda found: found[1].upper(), name)


_CONFIG_TYPES: dict[str, tuple[type, ...]] = {
    "maxOutputTokens": (int,),
    "temperature": (int, float),
    "topK": (int, float),
    "stopSequences": (list,),
}


def _config(body: dict[str, Any]) -> dict[str, Any]:
    config = body.get("generationConfig") or {}
    if not isinstance(config, dict):
        raise GeminiError("Invalid value at 'generation_config' (type.googleapis.com/GenerationConfig)")
    config = camel(config)
    _refuse_unknown(config, _CONFIG, " at 'generation_config'")
    for name, kinds in _CONFIG_TYPES.items():
        value = config.get(name)
        if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
            raise GeminiError(f"Invalid value at 'generation_config.{name}', {orjson.dumps(value).decode()}")
    if not all(isinstance(stop, str) for stop in config.get("stopSequences") or ()):
        raise GeminiError("Invalid value at 'generation_config.stop_sequences' (TYPE_STRING)")
    if not 0 <= (config.get("temperature") or 0) <= 2:
        raise GeminiError(
            "* GenerateContentRequest.generation_config.temperature: temperature must be in the range [0.0, 2.0].\n"
        )
    if config.get("candidateCount") not in (None, 1):
        raise GeminiError("Multiple candidates is not enabled for this model")
    return config


def _ask(
    body: dict[str, Any], config: dict[str, Any], reading: Reading, tools: list[Tool], behaviour: Behaviour
) -> Ask:
    calling = camel(camel(body.get("toolConfig") or {}).get("functionCallingConfig") or {})
    mode = str(calling.get("mode") or "AUTO").upper()
    allowed = calling.get("allowedFunctionNames")
    if allowed is not None and not isinstance(allowed, list):
        raise GeminiError("Invalid value at 'tool_config.function_calling_config.allowed_function_names'")
    if allowed and (unknown := [name for name in allowed if name not in [tool.name for tool in tools]]):
        raise GeminiError(f"allowed_function_names: {unknown[0]} is not one of the function declarations")
    return Ask(
        seed=reading.seed,
        behaviour=behaviour,
        tools=[tool for tool in tools if not allowed or tool.name in allowed],
        must_call=mode == "ANY",
        may_call=mode != "NONE",
        schema=_schema(config),
        max_tokens=config.get("maxOutputTokens"),
        stop=config.get("stopSequences") or [],
        thinking_tokens=_thinking_tokens(config, behaviour),
    )


def _schema(config: dict[str, Any]) -> dict[str, Any] | None:
    schema = config.get("responseJsonSchema") or config.get("_responseJsonSchema") or config.get("responseSchema")
    if schema is None:
        if config.get("responseMimeType") == "application/json":
            return {"type": "object", "properties": {"answer": {"type": "string"}}}
        return None
    if config.get("responseMimeType") != "application/json":
        raise GeminiError("Unable to submit request because responseSchema needs responseMimeType application/json")
    if not isinstance(schema, dict):
        raise GeminiError("Invalid value at 'generation_config.response_schema'")
    return schema


def _thinking_tokens(config: dict[str, Any], behaviour: Behaviour) -> int:
    if behaviour.reasoning is not None:
        return behaviour.reasoning
    thinking = config.get("thinkingConfig")
    if not thinking:
        return 0
    thinking = camel(thinking)
    level, budget = thinking.get("thinkingLevel"), thinking.get("thinkingBudget")
    if level is not None and budget is not None:
        raise GeminiError("You can only set only one of thinking budget and thinking level.")
    if level is not None:
        return _LEVEL_TOKENS.get(str(level).lower(), 0)
    return min(32, budget) if isinstance(budget, int) and budget >= 0 else 32


def ordered_error(behaviour: Behaviour, headers: bytes) -> Answer:
    status = behaviour.status or 500
    message = (ERRORS.get(status) or ERRORS[500 if status >= 500 else 400])[1]
    details: list[dict[str, Any]] = []
    if status == 429:
        violation = {
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_requests",
            "quotaId": "GenerateRequestsPerMinutePerProjectPerModel",
            "quotaValue": "1000",
        }
        details.append({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]})
    if behaviour.retry_after is not None:
        delay = f"{behaviour.retry_after:g}s"
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    error = GeminiError(message, status=status, code=behaviour.code, details=details)
    answer = json_answer(error.body, status, headers)
    answer.behaviour = Behaviour(ttft=behaviour.ttft)
    return answer


# -- reading the prompt ------------------------------------------------------------------------------------------


def _count(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise GeminiError(f"Invalid JSON payload received. {error}") from None
    inner = body.get("generateContentRequest") or body if isinstance(body, dict) else {}
    inner = camel(inner)
    if not isinstance(inner.get("contents"), list) or not inner["contents"]:
        raise GeminiError("* CountTokensRequest.contents: contents is not specified\n")
    total = _read(inner, "")[0].tokens
    return {"totalTokens": total, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": total}]}


def _read(body: dict[str, Any], model: str) -> tuple[Reading, list[Tool]]:
    reading = Reading()
    if (system := body.get("systemInstruction")) is not None:
        for part in _parts(system, "system_instruction"):
            reading.text(str(part.get("text", "")), system=True)
    contents = body["contents"]
    expected = 0
    for position, content in enumerate(contents):
        where = f"contents[{position}]"
        reading.tokens += MESSAGE_TOKENS
        parts = _parts(content, where)
        role = content.get("role", "user")
        if role not in ("user", "model", "function"):
            raise GeminiError("Please use a valid role: user, model.")
        results = sum("functionResponse" in part for part in parts)
        if results != expected:
            raise GeminiError(
                "Please ensure that the number of function response parts is equal to the number of function call "
                "parts of the function call turn."
            )
        is_current = role == "model" and position == _last_model_turn(contents)
        expected = _check_calls(parts, where, required=is_current and bool(_NEEDS_SIGNATURES.match(model)))
        for part in parts:
            _read_part(part, reading, where)
        reading.after_tool_result = results > 0
        if role == "model" and position < len(contents) - 1:
            reading.model_turn()
    return reading, _read_tools(body.get("tools") or [], reading)


def _last_model_turn(contents: list[Any]) -> int:
    turns = (at for at, content in enumerate(contents) if isinstance(content, dict) and content.get("role") == "model")
    return max(turns, default=-1)


def _parts(content: Any, where: str) -> list[dict[str, Any]]:
    parts = content.get("parts") if isinstance(content, dict) else None
    if isinstance(parts, dict):
        parts = [parts]
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        raise GeminiError(f"* GenerateContentRequest.{where}.parts: contents.parts must not be empty.\n")
    return [camel(part) for part in parts]


def _check_calls(parts: list[dict[str, Any]], where: str, *, required: bool) -> int:
    """The number of function calls in a turn; the first must keep its thought signature where the model wants it."""
    calls = [part for part in parts if "functionCall" in part]
    for position, part in enumerate(calls):
        call, signature = part["functionCall"], part.get("thoughtSignature")
        if not isinstance(call, dict) or not call.get("name") or not isinstance(call["name"], str):
            raise GeminiError(f"* GenerateContentRequest.{where}.parts.function_call.name: Name cannot be empty.\n")
        if signature is None:
            if required and position == 0:
                raise GeminiError(
                    "Function call is missing a thought_signature in functionCall parts. This is required for tools to "
                    "work correctly, and missing thought_signature may lead to degraded model performance. Function "
                    f"call `default_api:{call['name']}`."
                )
        elif not _is_unchecked(signature) and not is_signed("call", _signed_text(call), _standard(signature)):
            raise GeminiError("Thought signature is not valid.")
    return len(calls)


def _standard(signature: Any) -> str:
    """Bytes in proto JSON come in base64's plain or URL-safe alphabet, padded or not."""
    text = str(signature).rstrip("=").translate(str.maketrans("-_", "+/"))
    return text + "=" * (-len(text) % 4)


def _is_unchecked(signature: Any) -> bool:
    """The documented stand-ins come as they are, or base64-encoded, as the field is bytes."""
    if signature in _UNCHECKED_SIGNATURES:
        return True
    try:
        return base64.b64decode(_standard(signature), validate=True).decode("latin-1") in _UNCHECKED_SIGNATURES
    except (binascii.Error, ValueError):
        return False


def _signed_text(call: dict[str, Any]) -> str:
    return f"{call['name']}\0" + orjson.dumps(call.get("args") or {}, option=orjson.OPT_SORT_KEYS).decode()


def _read_part(part: dict[str, Any], reading: Reading, where: str) -> None:
    _refuse_unknown(part, _PART, f" at '{where}.parts'")
    if "functionCall" not in part and "thoughtSignature" in part:
        signature = part["thoughtSignature"]
        if not _is_unchecked(signature) and not is_sealed("thought", _standard(signature)):
            raise GeminiError("Thought signature is not valid.")
    if isinstance(part.get("text"), str):
        reading.text(part["text"])
    elif "inlineData" in part:
        data = camel(part["inlineData"])
        if not isinstance(data.get("mimeType"), str) or not isinstance(data.get("data"), str):
            raise GeminiError(f"* GenerateContentRequest.{where}.parts.inline_data: must have mime_type and data\n")
        reading.tokens += IMAGE_TOKENS if data["mimeType"].startswith("image/") else FILE_TOKENS
    elif "fileData" in part:
        reading.tokens += FILE_TOKENS
    elif "functionCall" in part:
        call = part["functionCall"]
        reading.text(call["name"])
        reading.text(orjson.dumps(call.get("args") or {}).decode())
    elif "functionResponse" in part:
        response = part["functionResponse"]
        if not isinstance(response, dict) or not isinstance(response.get("response"), dict):
            raise GeminiError(f"* GenerateContentRequest.{where}.parts.function_response.response: must be an object\n")
        reading.text(_plain_text(response["response"]))
    elif "executableCode" not in part and "codeExecutionResult" not in part:
        raise GeminiError(
            f"* GenerateContentRequest.{where}.parts[0].data: required oneof field 'data' must have one initialized "
            "field\n"
        )


def _plain_text(value: dict[str, Any]) -> str:
    """A function's result as text, so that an order in it can be read."""
    return "\n".join(item if isinstance(item, str) else orjson.dumps(item).decode() for item in value.values())


def _read_tools(offered: Any, reading: Reading) -> list[Tool]:
    tools = []
    for entry in offered if isinstance(offered, list) else [offered]:
        declared = camel(entry).get("functionDeclarations") if isinstance(entry, dict) else None
        if declared is not None and not isinstance(declared, list):
            raise GeminiError("Invalid value at 'tools.function_declarations'")
        reading.tools(declared or [])
        for function in declared or ():
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                raise GeminiError("* GenerateContentRequest.tools[0].function_declarations: Invalid function name.\n")
            described = camel(function)
            schema = described.get("parametersJsonSchema") or described.get("parameters") or {}
            tools.append(Tool(function["name"], schema))
    return tools
