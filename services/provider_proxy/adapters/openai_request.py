"""The canonical chat as a body of OpenAI's chat completions, in the dialect of the server that takes it.

Left out, because it cannot change the answer: cache breakpoints, citations and signatures of earlier texts, an end
user's id where the server knows none, and reasoning of earlier turns where the server does not take it back (only the
model that thought it could use it). Everything else that the dialect cannot say is refused by name.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson
from modelmuxer.chat.v1.chat_pb2 import (
    Audio,
    Block,
    ChatRequest,
    Document,
    Image,
    Message,
    Opaque,
    ResponseFormat,
    Role,
    Tool,
    ToolChoice,
    ToolResult,
)

from services.provider_proxy.adapters import JsonObject, add_options, caller_json, data_uri, unsupported
from shared.catalogue import Dialect
from shared.errors import MeshError, Reason

FORMAT: Final = "openai"
_AUDIO_FORMATS: Final = {
    "audio/wav": "wav",
    "audio/wave": "wav",
    "audio/x-wav": "wav",
    "audio/vnd.wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}
# Options that have a field of their own, which routing, prices and the decoder rely on.
_OWN_FIELDS: Final = frozenset({"model", "messages", "stream", "max_tokens", "max_completion_tokens"})


class OpenAIRequest:
    """One body. `provider` is the server's name for error messages."""

    def __init__(self, chat: ChatRequest, model: str, provider: str, dialect: Dialect) -> None:
        self._chat = chat
        self._model = model
        self._provider = provider
        self._dialect = dialect

    def body(self, *, stream: bool) -> bytes:
        """The body as JSON. Raises UNSUPPORTED_FEATURE or MALFORMED_REQUEST."""
        self._check_options()
        body: JsonObject = {"model": self._model, "messages": self._messages()}
        self._add_sampling(body)
        self._add_tools(body)
        self._add_answer_form(body)
        self._add_reasoning(body)
        self._add_service(body)
        add_options(body, self._chat)
        if stream:
            self._add_stream(body)
        return orjson.dumps(body)

    def _unsupported(self, what: str, field: str | None = None) -> MeshError:
        return unsupported(self._provider, what, field)

    def _check_options(self) -> None:
        if not self._chat.HasField("provider_options"):
            return
        options = self._chat.provider_options.fields
        for name in options:
            if name in _OWN_FIELDS:
                raise MeshError(
                    Reason.MALFORMED_REQUEST,
                    f'provider_options may not hold "{name}": the request has a field of its own for it.',
                    field=f"provider_options.{name}",
                )
        if "n" in options and options["n"].number_value != 1:
            raise self._unsupported("n other than 1", "provider_options.n")
        if "modalities" in options and any(
            value.string_value != "text" for value in options["modalities"].list_value.values
        ):
            raise self._unsupported("output other than text", "provider_options.modalities")

    # Messages

    def _messages(self) -> list[JsonObject]:
        messages: list[JsonObject] = []
        for index, message in enumerate(self._chat.messages):
            path = f"messages[{index}]"
            match message.role:
                case Role.ROLE_SYSTEM | Role.ROLE_DEVELOPER:
                    messages.append(self._system(message, path))
                case Role.ROLE_USER | Role.ROLE_TOOL:
                    messages.extend(self._user(message, path))
                case Role.ROLE_ASSISTANT:
                    messages.append(self._assistant(message, path))
                case _:
                    raise MeshError(Reason.MALFORMED_REQUEST, f"{path} has no role.", field=f"{path}.role")
        return messages

    def _system(self, message: Message, path: str) -> JsonObject:
        developer = message.role == Role.ROLE_DEVELOPER and self._dialect.developer_role
        said = self._texts(message.content, f"{path}.content", "anything but text in a system prompt")
        return _named({"role": "developer" if developer else "system", "content": said}, message)

    def _user(self, message: Message, path: str) -> Iterable[JsonObject]:
        # A call's results must follow the call at once, so they go before what else the turn says.
        for index, block in enumerate(message.content):
            if block.HasField("tool_result"):
                yield self._tool_result(block.tool_result, f"{path}.content[{index}]")
        parts = [
            part
            for index, block in enumerate(message.content)
            if not block.HasField("tool_result")
            for part in self._parts(block, f"{path}.content[{index}]")
        ]
        if parts:
            yield _named({"role": "user", "content": _plain(parts)}, message)

    def _tool_result(self, result: ToolResult, path: str) -> JsonObject:
        said = self._texts(result.content, f"{path}.tool_result.content", "anything but text in a tool result")
        if result.is_error:
            # The format has no flag for it: the model must read it.
            said = f"Error: {said}" if isinstance(said, str) else [_text("Error:"), *said]
        return {"role": "tool", "tool_call_id": result.tool_use_id, "content": said}

    def _assistant(self, message: Message, path: str) -> JsonObject:
        turn: JsonObject = {"role": "assistant", "content": None}
        parts: list[JsonObject] = []
        calls: list[Any] = []
        thoughts: list[Block] = []
        for index, block in enumerate(message.content):
            where = f"{path}.content[{index}]"
            match block.WhichOneof("kind"):
                case "text":
                    parts.append(_with_extra(_text(block.text.text), block.extra))
                case "refusal":
                    parts.append({"type": "refusal", "refusal": block.refusal.text})
                case "tool_use":
                    call = block.tool_use
                    function = {"name": call.name, "arguments": call.arguments_json or "{}"}
                    calls.append(_with_extra({"id": call.id, "type": "function", "function": function}, block.extra))
                case "reasoning":
                    if block.reasoning.format in ("", FORMAT):
                        thoughts.append(block)
                case "opaque":
                    parts.append(self._own_json(block.opaque, where))
                case kind:
                    raise self._unsupported(f"{_spoken(kind)} in the model's own turn", where)
        self._add_thoughts(turn, parts, thoughts, bool(calls))
        if len(parts) == 1 and parts[0].get("type") == "refusal":
            turn["refusal"] = parts[0]["refusal"]
        elif parts:
            turn["content"] = _plain(parts)
        if calls:
            turn["tool_calls"] = calls
        elif turn["content"] is None and "refusal" not in turn:
            turn["content"] = ""  # a turn of nothing but thoughts; null would be refused
        return _named(turn, message)

    def _add_thoughts(
        self, turn: JsonObject, parts: list[JsonObject], thoughts: Sequence[Block], has_calls: bool
    ) -> None:
        text = "".join(block.reasoning.text for block in thoughts)
        match self._dialect.reasoning_back:
            case "reasoning_details" if thoughts:
                turn["reasoning_details"] = [_detail(block) for block in thoughts]
            case "reasoning_content" if text and has_calls:
                # DeepSeek wants it beside tool calls, and refuses it elsewhere.
                turn["reasoning_content"] = text
            case "reasoning" if text:
                turn["reasoning"] = text
            case "thinking" if text:
                parts.insert(0, {"type": "thinking", "thinking": [_text(text)]})

    def _texts(self, blocks: Iterable[Block], path: str, refused: str) -> str | list[JsonObject]:
        parts: list[JsonObject] = []
        for index, block in enumerate(blocks):
            kind = block.WhichOneof("kind")
            if kind == "document" and (block.document.text or block.document.content):
                parts.append(self._text_document(block.document, f"{path}[{index}]"))
            elif kind == "text":
                parts.append(_text(block.text.text))
            else:
                raise self._unsupported(refused, f"{path}[{index}]")
        return _plain(parts)

    def _parts(self, block: Block, path: str) -> list[JsonObject]:
        match block.WhichOneof("kind"):
            case "text":
                return [_with_extra(_text(block.text.text), block.extra)]
            case "image":
                return [self._image(block.image, path)]
            case "document":
                return [self._document(block.document, path)]
            case "audio":
                return [self._audio(block.audio, path)]
            case "opaque":
                return [self._own_json(block.opaque, path)]
            case kind:
                raise self._unsupported(f"{_spoken(kind)} in a user's message", path)

    def _image(self, image: Image, path: str) -> JsonObject:
        match image.media.WhichOneof("source"):
            case "data":
                url = data_uri(image.media, "image/png")
            case "url":
                url = image.media.url
            case _:
                raise self._unsupported("images by file id", path)
        described = {"url": url}
        if image.detail:
            described["detail"] = image.detail
        return {"type": "image_url", "image_url": described}

    def _document(self, document: Document, path: str) -> JsonObject:
        if document.text or document.content:
            return self._text_document(document, path)
        self._check_citations(document, path)
        if document.context:
            raise self._unsupported("a document's context", f"{path}.document.context")
        match self._dialect.documents, document.media.WhichOneof("source"):
            case "file", "data":
                file = {
                    "filename": document.title or "document.pdf",
                    "file_data": data_uri(document.media, "application/pdf"),
                }
                return {"type": "file", "file": file}
            case "file", "file_id":
                return {"type": "file", "file": {"file_id": document.media.file_id}}
            case "document_url", "data":
                return _document_url(data_uri(document.media, "application/pdf"), document.title)
            case "document_url", "url":
                return _document_url(document.media.url, document.title)
            case "", _:
                raise self._unsupported("documents", path)
            case _, source:
                raise self._unsupported(f"documents by {_spoken(source)}", path)

    def _text_document(self, document: Document, path: str) -> JsonObject:
        self._check_citations(document, path)
        pieces = [document.title, document.context, document.text]
        for index, block in enumerate(document.content):
            if not block.HasField("text"):
                raise self._unsupported("anything but text in a document's content", f"{path}.content[{index}]")
            pieces.append(block.text.text)
        return _text("\n\n".join(piece for piece in pieces if piece))

    def _check_citations(self, document: Document, path: str) -> None:
        if document.citations:
            raise self._unsupported("citations of documents", f"{path}.document.citations")

    def _audio(self, audio: Audio, path: str) -> JsonObject:
        if not self._dialect.audio:
            raise self._unsupported("audio", path)
        if audio.media.WhichOneof("source") != "data":
            raise self._unsupported("audio by address or file id", path)
        audio_format = _AUDIO_FORMATS.get(audio.media.media_type.partition(";")[0].strip().lower())
        if audio_format is None:
            raise self._unsupported(f'audio of type "{audio.media.media_type}" (only WAV and MP3)', path)
        encoded = base64.b64encode(audio.media.data).decode("ascii")
        return {"type": "input_audio", "input_audio": {"data": encoded, "format": audio_format}}

    def _own_json(self, opaque: Opaque, path: str) -> JsonObject:
        if opaque.format != FORMAT:
            raise self._unsupported(f'blocks of the wire format "{opaque.format}"', path)
        block = caller_json(opaque.json, "The opaque block", f"{path}.opaque.json")
        if not isinstance(block, dict):
            raise MeshError(Reason.MALFORMED_REQUEST, "An opaque block must be a JSON object.", field=path)
        return block

    # Options

    def _add_sampling(self, body: JsonObject) -> None:
        chat, dialect = self._chat, self._dialect
        if chat.HasField("max_output_tokens"):
            body[dialect.max_tokens_field] = chat.max_output_tokens
        for name in ("temperature", "top_p"):
            if chat.HasField(name):
                body[name] = getattr(chat, name)
        for name in ("presence_penalty", "frequency_penalty"):
            if chat.HasField(name):
                if not dialect.penalties:
                    raise self._unsupported(name, name)
                body[name] = getattr(chat, name)
        if chat.HasField("top_k"):
            if not dialect.top_k:
                raise self._unsupported("top_k", "top_k")
            body["top_k"] = chat.top_k
        if chat.stop_sequences:
            body["stop"] = list(chat.stop_sequences)
        if chat.HasField("seed"):
            if not dialect.seed_field:
                raise self._unsupported("a seed", "seed")
            body[dialect.seed_field] = chat.seed
        if chat.HasField("top_logprobs"):
            if not dialect.logprobs:
                raise self._unsupported("logprobs", "top_logprobs")
            body["logprobs"] = True
            body["top_logprobs"] = chat.top_logprobs

    def _add_tools(self, body: JsonObject) -> None:
        chat, dialect = self._chat, self._dialect
        if chat.tools:
            body["tools"] = [self._tool(tool, f"tools[{index}]") for index, tool in enumerate(chat.tools)]
        if not chat.HasField("tool_choice"):
            return
        choice = chat.tool_choice
        match choice.mode:
            case ToolChoice.MODE_AUTO if chat.tools:
                body["tool_choice"] = "auto"
            case ToolChoice.MODE_NONE if chat.tools:
                body["tool_choice"] = "none"
            case ToolChoice.MODE_REQUIRED:
                body["tool_choice"] = dialect.any_tool_choice
            case ToolChoice.MODE_TOOL:
                body["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
        if choice.HasField("parallel") and chat.tools:
            if dialect.parallel_tool_calls:
                body["parallel_tool_calls"] = choice.parallel
            elif not choice.parallel:
                raise self._unsupported("tool_choice.parallel", "tool_choice.parallel")

    def _tool(self, tool: Tool, path: str) -> Any:
        if tool.HasField("opaque"):
            if self._own_json(tool.opaque, path).get("type") == "custom":
                raise self._unsupported("custom tools", path)
            return orjson.Fragment(tool.opaque.json)
        function: JsonObject = {"name": tool.name}
        if tool.description:
            function["description"] = tool.description
        if tool.parameters_json:
            function["parameters"] = _verbatim(tool.parameters_json, "The tool's schema", f"{path}.parameters_json")
        if tool.HasField("strict"):
            function["strict"] = tool.strict
        return _with_extra({"type": "function", "function": function}, tool.extra)

    def _add_answer_form(self, body: JsonObject) -> None:
        if not self._chat.HasField("response_format"):
            return
        form: ResponseFormat = self._chat.response_format
        if form.HasField("json_object"):
            body["response_format"] = {"type": "json_object"}
            return
        if not form.HasField("json_schema"):
            return
        if not self._dialect.json_schema:
            raise self._unsupported("response_format.json_schema", "response_format.json_schema")
        asked = form.json_schema
        schema: JsonObject = {"name": asked.name or "response"}
        if asked.description:
            schema["description"] = asked.description
        if asked.schema_json:
            where = "response_format.json_schema.schema_json"
            schema["schema"] = _verbatim(asked.schema_json, "The answer's schema", where)
        if asked.HasField("strict"):
            schema["strict"] = asked.strict
        body["response_format"] = {"type": "json_schema", "json_schema": schema}

    def _add_reasoning(self, body: JsonObject) -> None:
        if not self._chat.HasField("reasoning"):
            return
        asked = self._chat.reasoning
        tokens = asked.max_tokens if asked.HasField("max_tokens") else None
        if self._dialect.reasoning == "object":
            self._add_reasoning_object(body, asked.effort, tokens)
            return
        effort = asked.effort or ("" if tokens is None else effort_of(tokens))
        if not effort:
            return
        match self._dialect.reasoning:
            case "effort":
                body["reasoning_effort"] = effort
            case "thinking":
                body["thinking"] = {"type": "disabled" if effort == "none" else "enabled"}
            case _:
                raise self._unsupported("a reasoning effort", "reasoning")

    def _add_reasoning_object(self, body: JsonObject, effort: str, tokens: int | None) -> None:
        # OpenRouter takes either words or tokens, and turns them into what the model behind it takes.
        reasoning: JsonObject = {}
        if tokens:
            reasoning["max_tokens"] = tokens
        elif effort or tokens == 0:
            reasoning["effort"] = effort or "none"
        if self._chat.reasoning.HasField("include") and not self._chat.reasoning.include:
            reasoning["exclude"] = True
        if reasoning:
            body["reasoning"] = reasoning

    def _add_service(self, body: JsonObject) -> None:
        chat, dialect = self._chat, self._dialect
        if chat.service_tier:
            if dialect.service_tier:
                body["service_tier"] = chat.service_tier
            elif chat.service_tier not in ("auto", "default", "standard"):
                raise self._unsupported(f'the service tier "{chat.service_tier}"', "service_tier")
        if chat.end_user and dialect.end_user_field:
            body[dialect.end_user_field] = chat.end_user

    def _add_stream(self, body: JsonObject) -> None:
        body["stream"] = True
        if self._dialect.stream_options:
            asked = body.get("stream_options")
            options: JsonObject = {"include_obfuscation": False} if self._dialect.obfuscation else {}
            options |= asked if isinstance(asked, dict) else {}
            body["stream_options"] = options | {"include_usage": True}


def effort_of(max_tokens: int) -> str:
    """A budget of reasoning tokens in words: the budgets that Gemini documents for them on this wire format."""
    if max_tokens <= 0:
        return "none"
    if max_tokens <= 1024:
        return "low"
    return "medium" if max_tokens <= 8192 else "high"


def _text(text: str) -> JsonObject:
    return {"type": "text", "text": text}


def _plain(parts: Sequence[JsonObject]) -> str | list[JsonObject]:
    """A lone text as the string that every server takes; else the parts."""
    if not parts:
        return ""
    if len(parts) == 1 and set(parts[0]) == {"type", "text"}:
        return str(parts[0]["text"])
    return list(parts)


def _named(turn: JsonObject, message: Message) -> JsonObject:
    if message.name:
        turn["name"] = message.name
    return _with_extra(turn, message.extra)


def _with_extra(target: JsonObject, extra: Opaque) -> JsonObject:
    """Adds the members that only this wire format knows; those of another are not for it."""
    if extra.format == FORMAT:
        members = caller_json(extra.json, "The extra members", "extra.json")
        if isinstance(members, dict):
            for name, value in members.items():
                target.setdefault(name, value)
    return target


def _detail(block: Block) -> JsonObject:
    """A thought as an OpenRouter `reasoning_details` item, with the members that it came with."""
    thought = block.reasoning
    if thought.encrypted:
        return _with_extra({"data": thought.encrypted}, block.extra) | {"type": "reasoning.encrypted"}
    detail = _with_extra({}, block.extra)
    if detail.setdefault("type", "reasoning.text") == "reasoning.summary":
        return detail | {"summary": thought.text}
    detail["text"] = thought.text
    if thought.signature:
        detail["signature"] = thought.signature
    return detail


def _document_url(url: str, title: str) -> JsonObject:
    return {"type": "document_url", "document_url": url} | ({"document_name": title} if title else {})


def _verbatim(text: str, what: str, path: str) -> orjson.Fragment:
    """The caller's JSON to the letter: key order and large integers survive. Checked first."""
    caller_json(text, what, path)
    return orjson.Fragment(text)


def _spoken(kind: str | None) -> str:
    return (kind or "an empty block").replace("_", " ")
