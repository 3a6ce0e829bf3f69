"""The simulated OpenAI, and the servers that speak its dialect: chat completions and the list of models."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import orjson

from services.simulator.answer import EVENT_STREAM, Answer, json_answer
from services.simulator.behaviour import Behaviour, OrderError, Orders
from services.simulator.bill import Charge
from services.simulator.connection import Request
from services.simulator.prices import Prices, Tokens
from services.simulator.prompt_cache import PromptCache
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

COMPATIBLE = ("mistral", "groq", "deepseek", "xai", "together_ai")
FINGERPRINT = "fp_simulator"
MIN_CACHED_PROMPT = 1024
_REASONER = re.compile(r"reasoner|deepseek-r", re.IGNORECASE)
_WANTS_COMPLETION_TOKENS = re.compile(r"o\d|gpt-5|gpt-6")
_EFFORT_TOKENS = {"none": 0, "minimal": 8, "low": 32, "medium": 64, "high": 128, "xhigh": 192, "max": 256}
_FINISH = {"end": "stop", "stop_sequence": "stop", "refusal": "stop", "filter": "content_filter"}
_PART_TYPES = ("text", "image_url", "input_audio", "refusal", "file")
_PARAMETERS = """
    messages model audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens
    metadata modalities moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key
    prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier
    stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity web_search_options
"""
RATE_HEADERS = (
    b"openai-version: 2020-10-01\r\nopenai-organization: org-simulator\r\nopenai-processing-ms: 1\r\n"
    b"x-ratelimit-limit-requests: 10000\r\nx-ratelimit-remaining-requests: 9999\r\nx-ratelimit-reset-requests: 6ms\r\n"
    b"x-ratelimit-limit-tokens: 10000000\r\nx-ratelimit-remaining-tokens: 9999000\r\nx-ratelimit-reset-tokens: 6m0s\r\n"
)
# status: (type, code, message)
_ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request is invalid."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("invalid_request_error", "unsupported_country_region_territory", "Country or region not supported"),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    408: ("timeout", None, "Request timed out."),
    409: ("invalid_request_error", "conflict", "The resource was updated by another request."),
    413: ("invalid_request_error", "request_too_large", "The request is too large."),
    422: ("invalid_request_error", "unprocessable_entity", "The request could not be processed."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests. Please try again later."),
    500: ("server_error", None, "The server had an error while processing your request. Sorry about that!"),
    502: ("server_error", None, "Bad gateway."),
    503: ("server_error", "server_is_overloaded", "The engine is currently overloaded, please try again later."),
    504: ("server_error", None, "The server did not answer in time."),
}
# code: (status, type, message), for `status=… code=…`
_NAMED_ERRORS = {
    "insufficient_quota": (
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "slow_down": ("requests", "Please slow down: your traffic is growing too fast."),
    "context_length_exceeded": (
        "invalid_request_error",
        "This model's maximum context length is 128000 tokens. Please reduce the length of the messages.",
    ),
    "content_policy_violation": ("invalid_request_error", "Your request was rejected by our safety system."),
}


class OpenAIError(Exception):
    """A refusal in OpenAI's shape."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class OpenAI:
    """Answers OpenAI's paths. A provider in the path pins a compatible server; else the model's name decides."""

    def __init__(self, prices: Prices, ordered: dict[str, Orders], new_id: Callable[[], str]) -> None:
        self._prices = prices
        self._ordered = ordered
        self._new_id = new_id
        self._cache = PromptCache()
        self._owners = {model: name for name in reversed(("openai", *COMPATIBLE)) for model in prices.models(name)}

    def chat(self, request: Request, provider: str | None) -> Answer:
        request_id = self._new_id()
        headers = b"x-request-id: %b\r\n%b" % (request_id.encode(), RATE_HEADERS)
        try:
            authorise(request)
            return _Chat(self, request, request_id, headers, provider).answer()
        except OpenAIError as error:
            return json_answer(error.body, error.status, headers)
        except OrderError as error:
            return json_answer(OpenAIError(str(error), code="invalid_directive").body, 400, headers)

    def models(self, request: Request, provider: str | None, model: str | None = None) -> Answer:
        headers = b"x-request-id: %b\r\n" % self._new_id().encode()
        try:
            authorise(request)
            if model is None:
                owners = {m: o for m, o in self._owners.items() if provider in (None, o)}
                data = [_model(name, owner) for name, owner in owners.items()]
                return json_answer({"object": "list", "data": data}, headers=headers)
            return json_answer(_model(model, self.owner(model, provider)), headers=headers)
        except OpenAIError as error:
            return json_answer(error.body, error.status, headers)

    def owner(self, model: str, provider: str | None) -> str:
        """The provider whose price the model has. Raises OpenAIError when nobody serves it."""
        owner = provider or self._owners.get(model, "openai")
        if not self._prices.serves(owner, model):
            message = f"The model `{model}` does not exist or you do not have access to it."
            raise OpenAIError(message, status=404, code="model_not_found")
        return owner

    def charge(self, request: Request, request_id: str, provider: str, model: str, tokens: Tokens) -> Charge:
        """What a call of the standard tier is charged by."""
        client_id = request.header(b"x-client-request-id") or None
        return Charge(request_id, client_id, provider, model, "standard", tokens, time.time())

    def behaviour(self, model: str, reading: Reading) -> Behaviour:
        return reading.behaviour(model, self._ordered)

    def tier(self, provider: str, model: str, asked: Any) -> str:
        tier = {"flex": "flex", "priority": "priority", "fast": "priority"}.get(asked, "standard")
        return tier if self._prices.has_tier(provider, model, tier) else "standard"

    def cached(self, model: str, key: str, messages: list[Any], tokens: int) -> tuple[int, int]:
        """Tokens read from and written to the cache, for long prompts that come again with a `prompt_cache_key`."""
        if tokens < MIN_CACHED_PROMPT:
            return 0, 0
        return self._cache.usage(f"{model}\0{key}\0".encode() + orjson.dumps(messages), tokens)


class _Chat:
    """One chat completion, from its body to its answer."""

    def __init__(self, owner: OpenAI, request: Request, request_id: str, headers: bytes, provider: str | None) -> None:
        self._desk = owner
        self._request_id = request_id
        self._headers = headers
        self._client_id = request.header(b"x-client-request-id") or None
        self._started_at = time.time()
        try:
            body = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            raise OpenAIError("We could not parse the JSON body of your request.") from None
        if not isinstance(body, dict):
            raise OpenAIError("The body of the request must be a JSON object.")
        self._body: dict[str, Any] = body
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise OpenAIError("you must provide a model parameter")
        self._model = model
        self._provider = owner.owner(model, provider)
        self._reading = Reading()

    def answer(self) -> Answer:
        body, reading = self._body, self._reading
        _check(body, self._provider)
        _read_messages(body["messages"], reading)
        tools = _tools(body, reading)
        behaviour = self._desk.behaviour(self._model, reading)
        if behaviour.status is not None:
            return self._ordered_error(behaviour)
        script = write_script(self._ask(tools, behaviour))
        tokens = self._input_tokens(behaviour)
        tier = self._desk.tier(self._provider, self._model, body.get("service_tier"))
        writer = _Writer(self, script, tokens, tier, behaviour.citations)
        charge = Charge(self._request_id, self._client_id, self._provider, self._model, tier, tokens, self._started_at)
        failure = orjson.dumps(error_body(500, None))
        answer = Answer(b"", self._headers, charge=charge, behaviour=behaviour, tokens=script.tokens, failure=failure)
        if body.get("stream"):
            answer.content_type = EVENT_STREAM
            answer.failure_event = b"data: " + failure + b"\n\n"
            answer.events, answer.weights = writer.events()
        else:
            answer.body = orjson.dumps(writer.whole())
        return answer

    # What a writer asks of the request.

    @property
    def completion_id(self) -> str:
        return f"chatcmpl-{self._request_id.removeprefix('req_')}"

    @property
    def created(self) -> int:
        return int(self._started_at)

    @property
    def model(self) -> str:
        return self._model

    @property
    def provider(self) -> str:
        return self._provider

    @property
    def body(self) -> dict[str, Any]:
        return self._body

    def _ask(self, tools: list[Tool], behaviour: Behaviour) -> Ask:
        body = self._body
        choice = body.get("tool_choice", "auto")
        named = choice.get("function") if isinstance(choice, dict) else None
        only = named.get("name") if isinstance(named, dict) else None
        if isinstance(choice, dict) and only not in [tool.name for tool in tools]:
            raise OpenAIError(f"Tool choice '{only}' not found in 'tools' parameter.", param="tool_choice")
        stop = body.get("stop") or []
        return Ask(
            seed=self._reading.seed,
            behaviour=behaviour,
            tools=tools,
            must_call=choice == "required",
            only_tool=only,
            may_call=choice != "none",
            parallel=body.get("parallel_tool_calls") is not False,
            schema=_schema(body.get("response_format")),
            max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
            stop=[stop] if isinstance(stop, str) else stop,
            thinking_tokens=self._thinking_tokens(behaviour),
        )

    def _thinking_tokens(self, behaviour: Behaviour) -> int:
        if behaviour.reasoning is not None:
            return behaviour.reasoning
        effort = self._body.get("reasoning_effort")
        if effort is None:
            return 24 if _REASONER.search(self._model) else 0
        if effort not in _EFFORT_TOKENS:
            raise OpenAIError(
                f"Invalid value: '{effort}'. Supported values are: {', '.join(map(repr, _EFFORT_TOKENS))}.",
                param="reasoning_effort",
                code="invalid_value",
            )
        return _EFFORT_TOKENS[effort]

    def _input_tokens(self, behaviour: Behaviour) -> Tokens:
        total = self._reading.tokens
        key = self._body.get("prompt_cache_key")
        if key is None or behaviour.cached:
            return Tokens(total, cached=min(behaviour.cached, total))
        read, written = self._desk.cached(self._model, key, self._body["messages"], total)
        return Tokens(total, cached=read, cache_write_5m=written)

    def _ordered_error(self, behaviour: Behaviour) -> Answer:
        status = behaviour.status or 500
        headers = self._headers
        if behaviour.retry_after is not None:
            headers += b"retry-after: %g\r\n" % behaviour.retry_after
        answer = json_answer(error_body(status, behaviour.code), status, headers)
        answer.behaviour = Behaviour(ttft=behaviour.ttft)
        return answer


class _Writer:
    """Writes a script in OpenAI's words, whole or as chunks."""

    def __init__(self, chat: _Chat, script: Script, tokens: Tokens, tier: str, citations: int) -> None:
        self._chat = chat
        self._citations = citations
        self._script = script
        self._tokens = tokens
        self._tier = "default" if tier == "standard" else tier
        self._shows_reasoning = bool(_REASONER.search(chat.model))
        self._logprobs = bool(chat.body.get("logprobs"))
        self._top = int(chat.body.get("top_logprobs") or 0)
        self._finish = _FINISH.get(script.ending, script.ending)

    def whole(self) -> dict[str, Any]:
        script, chat = self._script, self._chat
        is_refusal = script.ending == "refusal"
        text = "".join(script.text)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if is_refusal or (script.calls and not text) else text,
            "refusal": text if is_refusal else None,
            "annotations": self._annotations(),
        }
        if self._shows_reasoning:
            message["reasoning_content"] = "".join(script.thinking)
        if script.calls:
            message["tool_calls"] = [
                {
                    "id": self._call_id(position),
                    "type": "function",
                    "function": {"name": call.name, "arguments": "".join(call.arguments)},
                }
                for position, call in enumerate(script.calls)
            ]
        choice = {
            "index": 0,
            "message": message,
            "logprobs": self._logprobs_of(script.text, is_refusal),
            "finish_reason": self._finish,
        }
        return {
            "id": chat.completion_id,
            "object": "chat.completion",
            "created": chat.created,
            "model": chat.model,
            "choices": [choice],
            "usage": self._usage(),
            "service_tier": self._tier,
            "system_fingerprint": FINGERPRINT,
        }

    def events(self) -> tuple[list[bytes], list[int]]:
        script, chat = self._script, self._chat
        includes_usage = bool((chat.body.get("stream_options") or {}).get("include_usage"))
        shared = orjson.dumps(
            {
                "id": chat.completion_id,
                "object": "chat.completion.chunk",
                "created": chat.created,
                "model": chat.model,
                "service_tier": self._tier,
                "system_fingerprint": FINGERPRINT,
            }
        )[:-1]
        before = b"data: " + shared + b',"choices":[{"index":0,"delta":'
        end = b',"usage":null}\n\n' if includes_usage else b"}\n\n"
        after = b',"logprobs":null,"finish_reason":null}]' + end
        dumps = orjson.dumps

        events = [before + b'{"role":"assistant","content":"","refusal":null}' + after]
        weights = [0]
        if self._shows_reasoning:
            opened = before + b'{"reasoning_content":'
            events += [opened + dumps(piece) + b"}" + after for piece in script.thinking]
        else:
            events += [b""] * len(script.thinking)
        opened = before + (b'{"refusal":' if script.ending == "refusal" else b'{"content":')
        if self._logprobs:
            closed = b',"finish_reason":null}]' + end
            probable = [dumps(self._logprobs_of([piece], script.ending == "refusal")) for piece in script.text]
            events += [
                opened + dumps(piece) + b'},"logprobs":' + logprobs + closed
                for piece, logprobs in zip(script.text, probable, strict=True)
            ]
        else:
            closed = b"}" + after
            events += [opened + dumps(piece) + closed for piece in script.text]
        weights += [1] * (len(script.thinking) + len(script.text))
        if annotations := self._annotations():
            events.append(before + dumps({"annotations": annotations}) + after)
            weights.append(0)
        for position, call in enumerate(script.calls):
            start = {
                "index": position,
                "id": self._call_id(position),
                "type": "function",
                "function": {"name": call.name, "arguments": ""},
            }
            events.append(before + dumps({"tool_calls": [start]}) + after)
            weights.append(call.name_tokens)
            opened = before + b'{"tool_calls":[{"index":%d,"function":{"arguments":' % position
            events += [opened + dumps(piece) + b"}}]}" + after for piece in call.arguments]
            weights += [1] * len(call.arguments)
        # Mistral puts the usage into its last chunk with a choice, unasked.
        last_end = b',"usage":' + dumps(self._usage()) + b"}\n\n" if chat.provider == "mistral" else end
        finish = b'{},"logprobs":null,"finish_reason":' + dumps(self._finish) + b"}]"
        events.append(before + finish + last_end)
        if includes_usage and chat.provider != "mistral":
            events.append(b"data: " + shared + b',"choices":[],"usage":' + dumps(self._usage()) + b"}\n\n")
        events.append(b"data: [DONE]\n\n")
        return events, weights + [0] * (len(events) - len(weights))

    def _usage(self) -> dict[str, Any]:
        prompt, completion = self._tokens.input, self._script.tokens
        usage: dict[str, Any] = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": self._tokens.cached, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": len(self._script.thinking),
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }
        if self._tokens.cache_write_5m:
            usage["prompt_tokens_details"]["cache_write_tokens"] = self._tokens.cache_write_5m
        if self._chat.provider == "deepseek":
            usage["prompt_cache_hit_tokens"] = self._tokens.cached
            usage["prompt_cache_miss_tokens"] = prompt - self._tokens.cached
        return usage

    def _call_id(self, position: int) -> str:
        return f"call_{self._chat.completion_id.removeprefix('chatcmpl-')}_{position}"

    def _annotations(self) -> list[dict[str, Any]]:
        length = len("".join(self._script.text)) if self._citations else 0
        return [
            {
                "type": "url_citation",
                "url_citation": {
                    "start_index": 0,
                    "end_index": length,
                    "title": f"Source {number}",
                    "url": f"https://example.com/source/{number}",
                },
            }
            for number in range(1, self._citations + 1)
        ]

    def _logprobs_of(self, tokens: list[str], is_refusal: bool = False) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        listed = []
        for token in tokens:
            entry = {"token": token, "logprob": -0.125, "bytes": list(token.encode())}
            others = [{"token": f"{token[:-1]}{i}", "logprob": -2.5 - i, "bytes": None} for i in range(1, self._top)]
            listed.append({**entry, "top_logprobs": [entry, *others] if self._top else []})
        return {"content": None, "refusal": listed} if is_refusal else {"content": listed, "refusal": None}


def authorise(request: Request) -> None:
    scheme, _, key = request.header(b"authorization").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise OpenAIError(
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer "
            "auth (i.e. Authorization: Bearer YOUR_KEY).",
            status=401,
        )
    if "invalid" in key:
        raise OpenAIError("Incorrect API key provided.", status=401, code="invalid_api_key")


def _model(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1735689600, "owned_by": owner}


def error_body(status: int, code: str | None) -> dict[str, Any]:
    kind, usual, message = _ERRORS.get(status) or _ERRORS[500 if status >= 500 else 400]
    if code in _NAMED_ERRORS:
        kind, message = _NAMED_ERRORS[code]
    return OpenAIError(message, kind=kind, code=code or usual).body


@lru_cache(maxsize=1)
def _known_parameters() -> frozenset[str]:
    return frozenset(_PARAMETERS.split())


def _check(body: dict[str, Any], provider: str) -> None:
    """OpenAI's own checks; compatible servers ignore what they do not know."""
    if provider == "openai":
        if unknown := body.keys() - _known_parameters():
            name = min(unknown)
            raise OpenAIError(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
        model = body["model"]
        if _WANTS_COMPLETION_TOKENS.match(model) and body.get("max_tokens") is not None:
            raise OpenAIError(
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
                "instead.",
                param="max_tokens",
                code="unsupported_parameter",
            )
    if "messages" not in body:
        raise OpenAIError(
            "Missing required parameter: 'messages'.", param="messages", code="missing_required_parameter"
        )
    if not isinstance(body["messages"], list):
        raise wrong_type("messages", "an array of objects", body["messages"])
    if not body["messages"]:
        raise OpenAIError(
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            param="messages",
            code="empty_array",
        )
    _check_types(body)


_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "stream": (bool, "a boolean"),
    "logprobs": (bool, "a boolean"),
    "max_tokens": (int, "an integer"),
    "max_completion_tokens": (int, "an integer"),
    "top_logprobs": (int, "an integer"),
    "seed": (int, "an integer"),
    "n": (int, "an integer"),
    "temperature": ((int, float), "a decimal"),
    "top_p": ((int, float), "a decimal"),
    "tools": (list, "an array of objects"),
    "tool_choice": ((str, dict), "one of a string or object"),
    "stop": ((str, list), "one of a string or array of strings"),
    "response_format": (dict, "an object"),
    "stream_options": (dict, "an object"),
    "prompt_cache_key": (str, "a string"),
    "service_tier": (str, "a string"),
    "reasoning_effort": (str, "a string"),
    "user": (str, "a string"),
}


def _check_types(body: dict[str, Any]) -> None:
    for name, value in body.items():
        if name not in _TYPES or value is None:
            continue
        kind, words = _TYPES[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise wrong_type(name, words, value)
    if isinstance(body.get("stop"), list) and not all(isinstance(stop, str) for stop in body["stop"]):
        raise wrong_type("stop", "an array of strings", body["stop"])
    if body.get("n") not in (None, 1):
        raise OpenAIError("Invalid value for 'n': only one choice is generated.", param="n", code="invalid_value")
    if not 0 <= (body.get("temperature") or 0) <= 2:
        raise OpenAIError(
            f"Invalid 'temperature': expected a value between 0 and 2, but got {body['temperature']} instead.",
            param="temperature",
            code="decimal_above_max_value" if body["temperature"] > 2 else "decimal_below_min_value",
        )
    for name in ("max_tokens", "max_completion_tokens"):
        if (limit := body.get(name)) is not None and limit < 1:
            raise OpenAIError(
                f"Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {limit} instead.",
                param=name,
                code="integer_below_min_value",
            )
    if body.get("top_logprobs") and not body.get("logprobs"):
        raise OpenAIError("'logprobs' must be set to true when 'top_logprobs' is set.", param="top_logprobs")
    if body.get("stream_options") and not body.get("stream"):
        raise OpenAIError(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )


def wrong_type(name: str, expected: str, value: Any) -> OpenAIError:
    names = {str: "a string", bool: "a boolean", int: "an integer", float: "a decimal", list: "an array"}
    got = names.get(type(value), "null" if value is None else "an object")
    message = f"Invalid type for '{name}': expected {expected}, but got {got} instead."
    return OpenAIError(message, param=name, code="invalid_type")


def _read_messages(messages: list[Any], reading: Reading) -> None:
    unanswered: set[str] = set()
    for position, message in enumerate(messages):
        where = f"messages[{position}]"
        if not isinstance(message, dict):
            raise wrong_type(where, "an object", message)
        role = message.get("role")
        reading.tokens += MESSAGE_TOKENS
        if role != "tool" and unanswered:
            raise OpenAIError(
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                "'tool_call_id'. The following tool_call_ids did not have response messages: "
                f"{', '.join(sorted(unanswered))}",
                param=f"messages.[{position}].role",
            )
        if role == "user":
            _read_content(message.get("content"), reading, where)
        elif role == "assistant":
            unanswered = _read_calls(message, reading, where)
            if message.get("content") is not None or not unanswered:
                _read_content(message.get("content") or message.get("refusal"), reading, where)
            if position < len(messages) - 1:
                reading.model_turn()
        elif role == "tool":
            call_id = message.get("tool_call_id")
            if not isinstance(call_id, str) or call_id not in unanswered:
                raise OpenAIError(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
                    "'tool_calls'.",
                    param=f"messages.[{position}].role",
                )
            unanswered.discard(call_id)
            reading.after_tool_result = True
            _read_content(message.get("content"), reading, where)
        elif role in ("system", "developer"):
            _read_content(message.get("content"), reading, where, system=True)
        else:
            raise OpenAIError(
                f"Invalid value: '{role}'. Supported values are: 'system', 'developer', 'assistant', 'user', 'tool'.",
                param=f"{where}.role",
                code="invalid_value",
            )
    if unanswered:
        raise OpenAIError(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            "'tool_call_id'.",
            param="messages",
        )


def _read_content(content: Any, reading: Reading, where: str, *, system: bool = False) -> None:
    if isinstance(content, str):
        reading.text(content, system=system)
        return
    if not isinstance(content, list):
        raise wrong_type(f"{where}.content", "one of a string or array of objects", content)
    for position, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        inner = part.get(kind) if kind in _PART_TYPES else None
        if kind in ("text", "refusal") and isinstance(inner, str):
            reading.text(inner, system=system)
        elif kind == "image_url" and isinstance(inner, dict) and _is_image(inner.get("url")):
            reading.tokens += IMAGE_TOKENS
        elif kind in ("input_audio", "file") and isinstance(inner, dict):
            reading.tokens += FILE_TOKENS
        elif kind in _PART_TYPES:
            raise OpenAIError(
                f"Invalid '{where}.content[{position}].{kind}'.",
                param=f"{where}.content[{position}].{kind}",
                code="invalid_image_url" if kind == "image_url" else "invalid_value",
            )
        else:
            raise OpenAIError(
                f"Invalid value: '{kind}'. Supported values are: {', '.join(map(repr, _PART_TYPES))}.",
                param=f"{where}.content[{position}].type",
                code="invalid_value",
            )


def _is_image(url: Any) -> bool:
    return isinstance(url, str) and url.startswith(("https://", "http://", "data:image/"))


def _read_calls(message: dict[str, Any], reading: Reading, where: str) -> set[str]:
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise wrong_type(f"{where}.tool_calls", "an array of objects", calls)
    ids = set()
    for position, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(call.get("id"), str):
            raise OpenAIError(f"Invalid '{where}.tool_calls[{position}]'.", param=f"{where}.tool_calls[{position}]")
        if not isinstance(function.get("arguments"), str):
            raise wrong_type(
                f"{where}.tool_calls[{position}].function.arguments", "a string", function.get("arguments")
            )
        reading.text(str(function.get("name")))
        reading.text(function["arguments"])
        ids.add(call["id"])
    return ids


def _tools(body: dict[str, Any], reading: Reading) -> list[Tool]:
    offered = body.get("tools") or []
    if body.get("tool_choice") is not None and not offered:
        raise OpenAIError(
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.",
            param="tool_choice",
        )
    reading.tools(offered)
    tools = []
    for position, tool in enumerate(offered):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or tool.get("type") != "function":
            raise OpenAIError(
                f"Missing required parameter: 'tools[{position}].function'.",
                param=f"tools[{position}].function",
                code="missing_required_parameter",
            )
        name = function.get("name")
        if not isinstance(name, str) or not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name):
            raise OpenAIError(
                f"Invalid 'tools[{position}].function.name': string does not match pattern. Expected a string that "
                "matches the pattern '^[a-zA-Z0-9_-]+$'.",
                param=f"tools[{position}].function.name",
                code="invalid_value",
            )
        tools.append(Tool(name, function.get("parameters") or {}))
    return tools


def _schema(response_format: dict[str, Any] | None) -> dict[str, Any] | None:
    kind = (response_format or {}).get("type", "text")
    if kind == "text" or response_format is None:
        return None
    if kind == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    if kind == "json_schema":
        described = response_format.get("json_schema")
        if not isinstance(described, dict) or not isinstance(described.get("schema"), dict):
            raise OpenAIError(
                "Missing required parameter: 'response_format.json_schema'.",
                param="response_format.json_schema",
                code="missing_required_parameter",
            )
        schema: dict[str, Any] = described["schema"]
        return schema
    raise OpenAIError(
        f"Invalid value: '{kind}'. Supported values are: 'json_object', 'json_schema', and 'text'.",
        param="response_format.type",
        code="invalid_value",
    )
