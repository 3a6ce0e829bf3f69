"""The simulated Anthropic: messages and count_tokens. Thinking's signatures are checked when it comes back."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import orjson

from services.simulator.answer import EVENT_STREAM, Answer, json_answer
from services.simulator.behaviour import Behaviour, OrderError, Orders
from services.simulator.bill import Charge
from services.simulator.connection import Request
from services.simulator.prices import Prices, Tokens
from services.simulator.prompt_cache import LIFETIMES_S, PromptCache
from services.simulator.script import (
    FILE_TOKENS,
    IMAGE_TOKENS,
    MESSAGE_TOKENS,
    Ask,
    Reading,
    Script,
    Tool,
    count_text,
    write_script,
)
from services.simulator.signature import is_sealed, is_signed, seal, sign

PROVIDER = "anthropic"
MAX_BREAKPOINTS = 4
LOOK_BACK = 20  # blocks before a breakpoint in which a cached prefix is found
DEFAULT_THINKING_TOKENS = 48
_EFFORT_TOKENS = {"low": 16, "medium": 32, "high": 64, "xhigh": 96, "max": 128}
_PARAMETERS = """
    model messages max_tokens cache_control container context_management inference_geo mcp_servers metadata
    output_config output_format service_tier speed stop_sequences stream system temperature thinking tool_choice tools
    top_k top_p
"""
_COUNT_PARAMETERS = """
    model messages cache_control context_management mcp_servers output_config output_format system thinking tool_choice
    tools speed
"""
_STOP_REASONS = {
    "end": "end_turn",
    "length": "max_tokens",
    "stop_sequence": "stop_sequence",
    "tool_calls": "tool_use",
    "refusal": "refusal",
    "filter": "refusal",
}
_RATE_HEADERS = b"anthropic-organization-id: org-simulator\r\n" + b"".join(
    b"anthropic-ratelimit-%b-limit: 1000000\r\nanthropic-ratelimit-%b-remaining: 999000\r\n"
    b"anthropic-ratelimit-%b-reset: 2030-01-01T00:00:00Z\r\n" % (kind, kind, kind)
    for kind in (b"requests", b"tokens", b"input-tokens", b"output-tokens")
)
# status: (type, message)
_ERRORS = {
    400: ("invalid_request_error", "The request is invalid."),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "Your credit balance is too low to access the Anthropic API."),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "The requested resource was not found."),
    409: ("conflict_error", "The request conflicts with the current state of the resource."),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "This request would exceed your organization's rate limit. Please try again later."),
    500: ("api_error", "Internal server error"),
    504: ("timeout_error", "The request timed out."),
    529: ("overloaded_error", "Overloaded"),
}


class AnthropicError(Exception):
    """A refusal in Anthropic's shape."""

    def __init__(self, message: str, *, status: int = 400, kind: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind or (_ERRORS.get(status) or _ERRORS[500 if status >= 500 else 400])[0]

    def body(self, request_id: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": self.kind, "message": str(self)}, "request_id": request_id}


class Anthropic:
    """Answers Anthropic's paths."""

    def __init__(self, prices: Prices, ordered: dict[str, Orders], new_id: Callable[[], str]) -> None:
        self._prices = prices
        self._ordered = ordered
        self._new_id = new_id
        self._cache = PromptCache()

    def messages(self, request: Request) -> Answer:
        return self._guarded(request, self._generate)

    def count_tokens(self, request: Request) -> Answer:
        return self._guarded(request, self._count)

    def models(self, request: Request) -> Answer:
        data = [
            {"type": "model", "id": name, "display_name": name, "created_at": "2025-01-01T00:00:00Z"}
            for name in self._prices.models(PROVIDER)
        ]
        page = {"data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}
        return self._guarded(request, lambda _request, _id, headers: json_answer(page, headers=headers))

    def _guarded(self, request: Request, handle: Callable[[Request, str, bytes], Answer]) -> Answer:
        request_id = self._new_id()
        headers = b"request-id: %b\r\n%b" % (request_id.encode(), _RATE_HEADERS)
        if beta := request.headers.get(b"anthropic-beta"):
            headers += b"anthropic-beta: %b\r\n" % beta
        try:
            _authorise(request)
            return handle(request, request_id, headers)
        except (AnthropicError, OrderError) as error:
            refusal = error if isinstance(error, AnthropicError) else AnthropicError(str(error))
            return json_answer(refusal.body(request_id), refusal.status, headers)

    def _count(self, request: Request, _request_id: str, headers: bytes) -> Answer:
        body = _body(request, _COUNT_PARAMETERS)
        self._model_of(body)
        reading = _read(body)[0]
        return json_answer({"input_tokens": reading.tokens}, headers=headers)

    def _generate(self, request: Request, request_id: str, headers: bytes) -> Answer:
        started_at = time.time()
        body = _body(request, _PARAMETERS)
        model = self._model_of(body)
        _check(body)
        reading, tools = _read(body)
        behaviour = reading.behaviour(model, self._ordered)
        if behaviour.status is not None:
            return _ordered_error(behaviour, request_id, headers)
        script = write_script(_ask(body, reading, tools, behaviour))
        if b"cache_control" in request.body and not behaviour.cached:
            tokens = self._cached_tokens(body, model, reading)
        else:
            tokens = Tokens(reading.tokens, cached=min(behaviour.cached, reading.tokens))
        client_id = request.header(b"x-client-request-id") or None
        failure = orjson.dumps(AnthropicError(_ERRORS[500][1], status=500).body(request_id))
        answer = Answer(
            b"",
            headers,
            charge=Charge(request_id, client_id, PROVIDER, model, "standard", tokens, started_at),
            behaviour=behaviour,
            tokens=script.tokens,
            failure=failure,
        )
        writer = _Writer(f"msg_{request_id.removeprefix('req_')}", model, script, tokens, behaviour, body)
        if body.get("stream"):
            answer.content_type = EVENT_STREAM
            overloaded = AnthropicError(_ERRORS[529][1], status=529).body(request_id)
            answer.failure_event = _event("error", overloaded)
            answer.events, answer.weights = writer.events()
        else:
            answer.body = orjson.dumps(writer.whole())
        return answer

    def _model_of(self, body: dict[str, Any]) -> str:
        model = body.get("model")
        if not isinstance(model, str):
            raise AnthropicError("model: Field required" if model is None else "model: Input should be a valid string")
        if not self._prices.serves(PROVIDER, model):
            raise AnthropicError(f"model: {model}", status=404)
        return model

    def _cached_tokens(self, body: dict[str, Any], model: str, reading: Reading) -> Tokens:
        """The longest cached prefix is read, what reaches beyond it up to the breakpoints is written."""
        prefixes = list(_prefixes(body, model, reading.ends))
        marked = [position for position, prefix in enumerate(prefixes) if prefix.lifetime]
        if len(marked) > MAX_BREAKPOINTS:
            raise AnthropicError(
                f"A maximum of {MAX_BREAKPOINTS} blocks with cache_control may be provided. Found {len(marked)}."
            )
        read_at = self._longest_cached(prefixes, marked)
        reached = cached = prefixes[read_at].tokens if read_at is not None else 0
        written = {"5m": 0, "1h": 0}
        for position in marked:
            prefix = prefixes[position]
            self._cache.add(prefix.digest, LIFETIMES_S[prefix.lifetime])
            if prefix.tokens > reached:
                written[prefix.lifetime] += prefix.tokens - reached
                reached = prefix.tokens
        return Tokens(reading.tokens, cached, written["5m"], written["1h"])

    def _longest_cached(self, prefixes: list[_Prefix], marked: list[int]) -> int | None:
        for position in reversed(marked):
            lifetime_s = LIFETIMES_S[prefixes[position].lifetime]
            for candidate in range(position, max(position - LOOK_BACK, -1), -1):
                if self._cache.has(prefixes[candidate].digest, lifetime_s):
                    return candidate
        return None


class _Prefix:
    """The prompt up to and including one block."""

    __slots__ = ("digest", "lifetime", "tokens")

    def __init__(self, digest: bytes, lifetime: str, tokens: int) -> None:
        self.digest = digest
        self.lifetime = lifetime  # of its cache breakpoint; empty: none
        self.tokens = tokens


class _Writer:
    """Writes a script as Anthropic's content blocks, whole or as events."""

    def __init__(
        self, message_id: str, model: str, script: Script, tokens: Tokens, orders: Behaviour, body: dict[str, Any]
    ) -> None:
        self._id = message_id
        self._model = model
        self._script = script
        self._tokens = tokens
        self._orders = orders
        # Thinking that is not shown still comes with the signature of what is shown: nothing.
        thinking = body.get("thinking") or {}
        self._omits_thinking = thinking.get("display") == "omitted"

    def whole(self) -> dict[str, Any]:
        script = self._script
        content: list[dict[str, Any]] = []
        if script.thinking:
            content.append(self._redacted() if self._orders.redacted else self._thinking())
        if script.text or not script.calls:
            block: dict[str, Any] = {"type": "text", "text": "".join(script.text)}
            if citations := self._citations():
                block["citations"] = citations
            content.append(block)
        for position, call in enumerate(script.calls):
            arguments = "".join(call.arguments)
            content.append(self._tool_use(position, call.name, _parsed(arguments)))
        return {**self._message(content, script.tokens), **self._stop()}

    def events(self) -> tuple[list[bytes], list[int]]:
        script = self._script
        start = self._message([], 1)
        events = [_event("message_start", {"type": "message_start", "message": start})]
        weights = [0]
        blocks: list[tuple[dict[str, Any], list[bytes], list[int]]] = []
        if script.thinking and self._orders.redacted:
            blocks.append((self._redacted(), [], [len(script.thinking)]))
        elif script.thinking:
            shown = [] if self._omits_thinking else _deltas(len(blocks), "thinking_delta", "thinking", script.thinking)
            hidden = [b""] * (len(script.thinking) - len(shown))
            signed = _delta(len(blocks), {"type": "signature_delta", "signature": self._thinking()["signature"]})
            begun = {"type": "thinking", "thinking": "", "signature": ""}
            blocks.append((begun, [*hidden, *shown, signed], [0] + [1] * len(script.thinking) + [0]))
        if script.text or not script.calls:
            deltas = _deltas(len(blocks), "text_delta", "text", script.text)
            deltas += [_delta(len(blocks), {"type": "citations_delta", "citation": c}) for c in self._citations()]
            cited = len(deltas) - len(script.text)
            blocks.append(({"type": "text", "text": ""}, deltas, [0] + [1] * len(script.text) + [0] * cited))
        for position, call in enumerate(script.calls):
            begun = self._tool_use(position, call.name, {})
            deltas = _deltas(len(blocks), "input_json_delta", "partial_json", ["", *call.arguments])
            blocks.append((begun, deltas, [call.name_tokens, 0] + [1] * len(call.arguments)))
        for index, (begun, deltas, costs) in enumerate(blocks):
            opened = {"type": "content_block_start", "index": index, "content_block": begun}
            events.append(_event("content_block_start", opened))
            if index == 0:
                events.append(b'event: ping\ndata: {"type": "ping"}\n\n')
                costs.insert(1, 0)
            events += deltas
            events.append(_event("content_block_stop", {"type": "content_block_stop", "index": index}))
            weights += [*costs, 0]
        usage = {key: value for key, value in self._usage(script.tokens).items() if key != "cache_creation"}
        usage.pop("service_tier")
        ended = {"type": "message_delta", "delta": self._stop(), "usage": usage}
        events += [_event("message_delta", ended), _event("message_stop", {"type": "message_stop"})]
        return events, [*weights, 0, 0]

    def _message(self, content: list[dict[str, Any]], output_tokens: int) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self._usage(output_tokens),
        }

    def _usage(self, output_tokens: int) -> dict[str, Any]:
        tokens = self._tokens
        written = tokens.cache_write_5m + tokens.cache_write_1h
        return {
            "input_tokens": tokens.input - tokens.cached - written,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": tokens.cached,
            "cache_creation": {
                "ephemeral_5m_input_tokens": tokens.cache_write_5m,
                "ephemeral_1h_input_tokens": tokens.cache_write_1h,
            },
            "output_tokens": output_tokens,
            "service_tier": "standard",
        }

    def _stop(self) -> dict[str, Any]:
        ending = self._script.ending
        stop: dict[str, Any] = {
            "stop_reason": _STOP_REASONS[ending],
            "stop_sequence": self._script.stop_sequence if ending == "stop_sequence" else None,
        }
        if stop["stop_reason"] == "refusal":
            stop["stop_details"] = {"type": "refusal", "category": "general_harms", "explanation": None}
        return stop

    def _thinking(self) -> dict[str, Any]:
        text = "" if self._omits_thinking else "".join(self._script.thinking)
        return {"type": "thinking", "thinking": text, "signature": sign("thinking", text)}

    def _redacted(self) -> dict[str, Any]:
        return {"type": "redacted_thinking", "data": seal("redacted", "".join(self._script.thinking))}

    def _tool_use(self, position: int, name: str, arguments: Any) -> dict[str, Any]:
        call_id = f"toolu_{self._id.removeprefix('msg_')}_{position}"
        return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}

    def _citations(self) -> list[dict[str, Any]]:
        return [
            {
                "type": "char_location",
                "cited_text": f"Passage {number}.",
                "document_index": 0,
                "document_title": "Document",
                "start_char_index": number * 20,
                "end_char_index": number * 20 + 10,
            }
            for number in range(self._orders.citations)
        ]


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))


def _delta(index: int, delta: dict[str, Any]) -> bytes:
    return _event("content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta})


def _deltas(index: int, kind: str, key: str, texts: list[str]) -> list[bytes]:
    before = (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":'
        % (index, kind.encode(), key.encode())
    )
    dumps = orjson.dumps
    return [before + dumps(text) + b"}}\n\n" for text in texts]


def _parsed(arguments: str) -> Any:
    """Arguments that were cut short by max_tokens come as an empty input."""
    try:
        return orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return {}


def _authorise(request: Request) -> None:
    bearer = request.header(b"authorization").removeprefix("Bearer ").strip()
    key = request.header(b"x-api-key") or bearer
    if not key:
        raise AnthropicError("x-api-key header is required", status=401)
    if "invalid" in key:
        raise AnthropicError("invalid x-api-key", status=401)
    if not request.header(b"anthropic-version"):
        raise AnthropicError("anthropic-version: header is required")


def _body(request: Request, allowed: str) -> dict[str, Any]:
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise AnthropicError(f"The request body is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise AnthropicError("Input should be an object")
    if unknown := body.keys() - _names(allowed):
        raise AnthropicError(f"{min(unknown)}: Extra inputs are not permitted")
    messages = body.get("messages")
    if not isinstance(messages, list):
        problem = "Field required" if messages is None else "Input should be a valid array"
        raise AnthropicError(f"messages: {problem}")
    if not messages:
        raise AnthropicError("messages: at least one message is required")
    _check_types(body)
    return body


@lru_cache(maxsize=4)
def _names(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "max_tokens": (int, "integer"),
    "stream": (bool, "boolean"),
    "temperature": ((int, float), "number"),
    "top_p": ((int, float), "number"),
    "top_k": (int, "integer"),
    "stop_sequences": (list, "array"),
    "tools": (list, "array"),
    "tool_choice": (dict, "object"),
    "thinking": (dict, "object"),
    "metadata": (dict, "object"),
    "output_config": (dict, "object"),
    "output_format": (dict, "object"),
}


def _check_types(body: dict[str, Any]) -> None:
    for name, value in body.items():
        if name not in _TYPES or value is None:
            continue
        kind, words = _TYPES[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise AnthropicError(f"{name}: Input should be a valid {words}")
    if not all(isinstance(stop, str) for stop in body.get("stop_sequences") or ()):
        raise AnthropicError("stop_sequences: Input should be a valid string")


def _check(body: dict[str, Any]) -> None:
    if body.get("max_tokens") is None:
        raise AnthropicError("max_tokens: Field required")
    if body["max_tokens"] < 0:
        raise AnthropicError("max_tokens: Input should be greater than or equal to 0")
    if not 0 <= (body.get("temperature") or 0) <= 1:
        raise AnthropicError("temperature: range: 0..1")
    if body.get("speed") not in (None, "standard") or body.get("inference_geo") not in (None, "global"):
        raise AnthropicError("speed and inference_geo: the simulator has standard, global inference only")
    _check_thinking(body)


def _check_thinking(body: dict[str, Any]) -> None:
    thinking = body.get("thinking") or {"type": "disabled"}
    kind = thinking.get("type")
    if kind not in ("enabled", "adaptive", "disabled", "between_tools"):
        raise AnthropicError(f"thinking: Input tag '{kind}' does not match any of the expected tags")
    if kind != "enabled":
        return
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int):
        raise AnthropicError("thinking.enabled.budget_tokens: Field required")
    if budget < 1024:
        raise AnthropicError("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
    if budget >= body["max_tokens"]:
        raise AnthropicError("`max_tokens` must be greater than `thinking.budget_tokens`.")
    if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        raise AnthropicError("Thinking may not be enabled when tool_choice forces tool use.")
    if body.get("temperature") not in (None, 1):
        raise AnthropicError("`temperature` may only be set to 1 when thinking is enabled.")


def _ask(body: dict[str, Any], reading: Reading, tools: list[Tool], behaviour: Behaviour) -> Ask:
    choice = body.get("tool_choice") or {"type": "auto"}
    kind = choice.get("type")
    if kind not in ("auto", "any", "tool", "none"):
        raise AnthropicError(f"tool_choice: Input tag '{kind}' does not match any of the expected tags")
    only = choice.get("name") if kind == "tool" else None
    if kind == "tool" and only not in {tool.name for tool in tools}:
        raise AnthropicError(f"Tool '{only}' not found in provided tools")
    return Ask(
        seed=reading.seed,
        behaviour=behaviour,
        tools=tools,
        must_call=kind == "any",
        only_tool=only,
        may_call=kind != "none",
        parallel=not choice.get("disable_parallel_tool_use"),
        schema=_schema(body),
        max_tokens=body["max_tokens"],
        stop=body.get("stop_sequences") or [],
        thinking_tokens=_thinking_tokens(body, behaviour),
    )


def _schema(body: dict[str, Any]) -> dict[str, Any] | None:
    wanted = (body.get("output_config") or {}).get("format") or body.get("output_format")
    if wanted is None:
        return None
    schema = wanted.get("schema") if isinstance(wanted, dict) and wanted.get("type") == "json_schema" else None
    if not isinstance(schema, dict):
        raise AnthropicError("output_config.format: expected {'type': 'json_schema', 'schema': {…}}")
    return schema


def _thinking_tokens(body: dict[str, Any], behaviour: Behaviour) -> int:
    thinking = body.get("thinking") or {}
    kind = thinking.get("type")
    if kind not in ("enabled", "adaptive"):
        return 0
    if behaviour.reasoning is not None:
        return behaviour.reasoning
    if kind == "enabled":
        return DEFAULT_THINKING_TOKENS
    effort = (body.get("output_config") or {}).get("effort") or "high"
    if not isinstance(effort, str) or effort not in _EFFORT_TOKENS:
        raise AnthropicError(f"output_config.effort: Input should be one of {', '.join(_EFFORT_TOKENS)}")
    return _EFFORT_TOKENS[effort]


def _ordered_error(behaviour: Behaviour, request_id: str, headers: bytes) -> Answer:
    status = behaviour.status or 500
    message = (_ERRORS.get(status) or _ERRORS[500 if status >= 500 else 400])[1]
    if behaviour.retry_after is not None:
        headers += b"retry-after: %g\r\n" % behaviour.retry_after
    error = AnthropicError(message, status=status, kind=behaviour.code)
    answer = json_answer(error.body(request_id), status, headers)
    answer.behaviour = Behaviour(ttft=behaviour.ttft)
    return answer


# -- reading the prompt ------------------------------------------------------------------------------------------


def _read(body: dict[str, Any]) -> tuple[Reading, list[Tool]]:
    reading = Reading()
    tools = _read_tools(body.get("tools") or [], reading)
    for position, block in enumerate(_blocks(body.get("system") or [], "system")):
        if block.get("type") != "text" or not isinstance(block.get("text"), str):
            raise AnthropicError(f"system.{position}.type: Input should be 'text'")
        reading.text(block["text"], system=True)
        reading.ends.append(reading.tokens)
    _read_messages(body, reading)
    return reading, tools


def _read_tools(offered: list[Any], reading: Reading) -> list[Tool]:
    tools = []
    for position, tool in enumerate(offered):
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
            raise AnthropicError(f"tools.{position}.custom.name: Field required")
        if tool.get("type", "custom") == "custom" and not isinstance(tool.get("input_schema"), dict):
            raise AnthropicError(f"tools.{position}.custom.input_schema: Field required")
        tools.append(Tool(tool["name"], tool.get("input_schema") or {}))
        reading.tools([{key: value for key, value in tool.items() if key != "cache_control"}])
        reading.ends.append(reading.tokens)
    return tools


def _read_messages(body: dict[str, Any], reading: Reading) -> None:
    waiting: set[str] = set()
    messages = body["messages"]
    for position, message in enumerate(messages):
        where = f"messages.{position}"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("user", "assistant", "system"):
            raise AnthropicError(f"{where}.role: Input should be 'user' or 'assistant'")
        reading.tokens += MESSAGE_TOKENS
        content = message.get("content")
        blocks = _blocks(content, f"{where}.content")
        results = {str(block.get("tool_use_id")) for block in blocks if block.get("type") == "tool_result"}
        if waiting - results:
            raise AnthropicError(
                f"messages.{position}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(sorted(waiting - results))}. Each `tool_use` block must have a corresponding "
                "`tool_result` block in the next message."
            )
        if results - waiting:
            raise AnthropicError(
                f"{where}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: "
                f"{', '.join(sorted(results - waiting))}. Each `tool_result` block must have a corresponding "
                "`tool_use` block in the previous message."
            )
        is_answered = role == "assistant" and position < len(messages) - 1
        for number, block in enumerate(blocks):
            _read_block(block, reading, f"{where}.content.{number}", role)
            reading.ends.append(reading.tokens)
        if is_answered:
            reading.model_turn()
        waiting = {str(block.get("id")) for block in blocks if block.get("type") == "tool_use"}
        reading.after_tool_result = bool(results)
    if waiting:
        raise AnthropicError(
            f"messages.{len(messages) - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(sorted(waiting))}."
        )
    _check_tool_turn_keeps_its_thinking(body)


def _read_block(block: dict[str, Any], reading: Reading, where: str, role: str) -> None:
    kind = block.get("type")
    match kind:
        case "text":
            if not isinstance(block.get("text"), str):
                raise AnthropicError(f"{where}.text.text: Field required")
            if not block["text"]:
                raise AnthropicError(f"{where.partition('.content')[0]}: text content blocks must be non-empty")
            reading.text(block["text"], system=role == "system")
        case "image":
            _check_source(block, where)
            reading.tokens += IMAGE_TOKENS
        case "document":
            _read_document(block, reading, where)
        case "tool_use" if role == "assistant":
            if not isinstance(block.get("input"), dict):
                raise AnthropicError(f"{where}.tool_use.input: Input should be a valid dictionary")
            reading.text(str(block.get("name")))
            reading.text(orjson.dumps(block["input"]).decode())
        case "tool_result" if role == "user":
            content = block.get("content") or []
            for number, part in enumerate(_blocks(content, where)):
                _read_block(part, reading, f"{where}.content.{number}", role)
        case "thinking" if role == "assistant":
            text = block.get("thinking")
            if not isinstance(text, str) or not is_signed("thinking", text, block.get("signature")):
                raise AnthropicError(f"{where}: Invalid `signature` in `thinking` block")
            reading.tokens += count_text(text)
        case "redacted_thinking" if role == "assistant":
            if not is_sealed("redacted", block.get("data")):
                raise AnthropicError(f"{where}: Invalid `data` in `redacted_thinking` block")
            reading.tokens += count_text(block["data"])
        case "search_result":
            reading.text(orjson.dumps(block.get("content")).decode())
        case _:
            raise AnthropicError(f"{where}: Input tag '{kind}' does not match any of the expected tags")


def _check_source(block: dict[str, Any], where: str) -> dict[str, Any]:
    source = block.get("source")
    if not isinstance(source, dict):
        raise AnthropicError(f"{where}.{block['type']}.source: Field required")
    needed = {"base64": "data", "url": "url", "file": "file_id", "text": "data", "content": "content"}.get(
        str(source.get("type"))
    )
    if needed is None or needed not in source:
        raise AnthropicError(f"{where}.{block['type']}.source: Input does not match any of the expected tags")
    if source["type"] == "base64" and not isinstance(source.get("media_type"), str):
        raise AnthropicError(f"{where}.{block['type']}.source.base64.media_type: Field required")
    return source


def _read_document(block: dict[str, Any], reading: Reading, where: str) -> None:
    source = _check_source(block, where)
    if source["type"] == "text":
        reading.text(str(source["data"]))
    else:
        reading.tokens += FILE_TOKENS


def _check_tool_turn_keeps_its_thinking(body: dict[str, Any]) -> None:
    """With thinking on, the tool use that is being answered must be sent back with the thinking that led to it."""
    if (body.get("thinking") or {}).get("type") != "enabled":
        return
    turns = [(at, message) for at, message in enumerate(body["messages"]) if message["role"] == "assistant"]
    if not turns or not isinstance(turns[-1][1]["content"], list):
        return
    position, message = turns[-1]
    kinds = [block.get("type") for block in message["content"]]
    if "tool_use" in kinds and kinds[0] not in ("thinking", "redacted_thinking"):
        raise AnthropicError(
            f"messages.{position}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{kinds[0]}`. "
            "When `thinking` is enabled, a final `assistant` message must start with a thinking block (preceeding the "
            "lastmost set of `tool_use` and `tool_result` blocks)."
        )


def _blocks(content: Any, where: str) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise AnthropicError(f"{where}: Input should be a valid list")
    return content


def _prefixes(body: dict[str, Any], model: str, ends: list[int]) -> Iterator[_Prefix]:
    """Every prefix of the prompt that a breakpoint could cache: tools, then system, then messages, block by block."""
    digest = hashlib.blake2b(model.encode(), digest_size=16)
    for position, (place, block) in enumerate(_cacheable(body)):
        control = block.get("cache_control")
        if control is None and position == len(ends) - 1:
            control = body.get("cache_control")
        bare = {key: value for key, value in block.items() if key != "cache_control"}
        digest.update(place.encode() + b"\0" + orjson.dumps(bare) + b"\0")
        yield _Prefix(digest.digest(), _lifetime(control), ends[position])


def _lifetime(control: Any) -> str:
    if control is None:
        return ""
    lifetime = control.get("ttl", "5m") if isinstance(control, dict) and control.get("type") == "ephemeral" else ""
    if not isinstance(lifetime, str) or lifetime not in LIFETIMES_S:
        raise AnthropicError("cache_control: expected {'type': 'ephemeral', 'ttl': '5m' or '1h'}")
    return lifetime


def _cacheable(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for tool in body.get("tools") or []:
        yield "tool", tool
    for block in _blocks(body.get("system") or [], "system"):
        yield "system", block
    for message in body["messages"]:
        for block in _blocks(message["content"], "messages"):
            yield message["role"], block
