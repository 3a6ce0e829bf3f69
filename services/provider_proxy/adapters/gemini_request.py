"""A chat as Gemini's GenerateContentRequest. Refuses by name what the form cannot say."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from modelmuxer.chat.v1.chat_pb2 import Block, ChatRequest, Document, Media, Message, Role, Tool, ToolChoice, ToolResult

from services.provider_proxy.adapters import JsonObject, add_options, caller_json, unsupported
from shared.errors import MeshError, Reason
from shared.wire.json_text import Json

FORMAT: Final = "gemini"
SYNTHETIC_ID: Final = "mux_"  # begins ids of calls that Gemini gave none; they are not sent back
# Google's word for calls that no Gemini made: without a signature, models from 3 on refuse them.
FOREIGN_CALL_SIGNATURE: Final = "skip_thought_signature_validator"

_ROLES: Final = {Role.ROLE_USER: "user", Role.ROLE_TOOL: "user", Role.ROLE_ASSISTANT: "model"}
_SYSTEM: Final = (Role.ROLE_SYSTEM, Role.ROLE_DEVELOPER)
_MODES: Final = {
    ToolChoice.MODE_UNSPECIFIED: "AUTO",
    ToolChoice.MODE_AUTO: "AUTO",
    ToolChoice.MODE_NONE: "NONE",
    ToolChoice.MODE_REQUIRED: "ANY",
    ToolChoice.MODE_TOOL: "ANY",
}
_SERVICE_TIERS: Final = {"default": "standard", "standard": "standard", "flex": "flex", "priority": "priority"}
_VERSION: Final = re.compile(r"gemini-(\d+)(?:\.(\d+))?")
# Levels that every model from 3 on takes; the tokens are those of Google's own table for its OpenAI-compatible API.
_LEVELS: Final = {"minimal": "LOW", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "HIGH", "max": "HIGH"}
_BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}
_LEVEL_CEILINGS: Final = ((1024, "LOW"), (8192, "MEDIUM"))

Part = JsonObject | orjson.Fragment


@dataclass(frozen=True, slots=True)
class GeminiRequest:
    """One chat for one model."""

    chat: ChatRequest
    model: str

    def body(self) -> JsonObject:
        """The body of generateContent. Raises UNSUPPORTED_FEATURE or MALFORMED_REQUEST naming the field."""
        chat = self.chat
        system, contents = self._conversation()
        body: JsonObject = {"contents": contents}
        if system:
            body["systemInstruction"] = {"parts": system}
        if chat.tools:
            body["tools"] = _tools(chat.tools)
        if config := _tool_config(chat):
            body["toolConfig"] = config
        if config := self._generation_config():
            body["generationConfig"] = config
        if chat.service_tier and chat.service_tier != "auto":
            body["serviceTier"] = _service_tier(chat.service_tier)
        return add_options(body, chat)

    def _conversation(self) -> tuple[list[Part], list[JsonObject]]:
        parts_of = _Parts(_call_names(self.chat.messages))
        system: list[Part] = []
        contents: list[JsonObject] = []
        for index, message in enumerate(self.chat.messages):
            path = f"messages[{index}]"
            if message.name and message.role in (Role.ROLE_USER, Role.ROLE_ASSISTANT):
                raise unsupported(FORMAT, "a speaker's name", f"{path}.name")
            parts = parts_of.all(message.content, f"{path}.content")
            if message.role in _SYSTEM:
                if contents:
                    raise unsupported(FORMAT, "system messages within the conversation", path)
                system += parts
                continue
            role = _ROLES.get(message.role)
            if role is None:
                raise _wrong(f"{path}.role", "is not given")
            if not parts:
                continue
            if contents and contents[-1]["role"] == role:
                contents[-1]["parts"] += parts  # results of one turn's calls belong in one turn
            else:
                contents.append({"role": role, "parts": parts})
        if _generation(self.model) >= (3, 0):
            for content in contents:
                _mark_foreign_calls(content["parts"])
        return system, contents

    def _generation_config(self) -> JsonObject:
        chat = self.chat
        config: JsonObject = {}
        for name, field in (
            ("max_output_tokens", "maxOutputTokens"),
            ("temperature", "temperature"),
            ("top_p", "topP"),
            ("top_k", "topK"),
            ("seed", "seed"),
            ("presence_penalty", "presencePenalty"),
            ("frequency_penalty", "frequencyPenalty"),
        ):
            if chat.HasField(name):
                config[field] = getattr(chat, name)
        if chat.stop_sequences:
            config["stopSequences"] = list(chat.stop_sequences)
        if chat.HasField("top_logprobs"):
            config["responseLogprobs"] = True
            if chat.top_logprobs:
                config["logprobs"] = chat.top_logprobs
        form = chat.response_format.WhichOneof("kind")
        if form:
            config["responseMimeType"] = "application/json"
        if form == "json_schema":
            path = "response_format.json_schema.schema_json"
            config["responseJsonSchema"] = _letter(chat.response_format.json_schema.schema_json, "The schema", path)
        if chat.HasField("reasoning") and (thinking := self._thinking()):
            config["thinkingConfig"] = thinking
        return config

    def _thinking(self) -> JsonObject:
        options = self.chat.reasoning
        thinking: JsonObject = {}
        if options.HasField("include"):
            thinking["includeThoughts"] = options.include
        has_levels = _generation(self.model) >= (3, 0)
        budget = options.max_tokens if options.HasField("max_tokens") else None
        if options.effort == "none" or budget == 0:
            if has_levels or "pro" in self.model:
                raise unsupported(FORMAT, "reasoning switched off, for this model always reasons", "reasoning")
            return {"thinkingBudget": 0}
        if has_levels and options.effort in _LEVELS:
            thinking["thinkingLevel"] = _LEVELS[options.effort]
        elif has_levels and budget is not None:
            thinking["thinkingLevel"] = next((level for most, level in _LEVEL_CEILINGS if budget <= most), "HIGH")
        elif budget is not None:
            thinking["thinkingBudget"] = budget
        elif options.effort in _BUDGETS:
            thinking["thinkingBudget"] = _BUDGETS[options.effort]
        elif options.effort:
            raise unsupported(FORMAT, f'the effort "{options.effort}"', "reasoning.effort")
        return thinking


class _Parts:
    """Blocks as parts; `names` are the tools' names by the ids of their calls."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names

    def all(self, blocks: Iterable[Block], path: str) -> list[Part]:
        return [part for index, block in enumerate(blocks) for part in self._of(block, f"{path}[{index}]")]

    def _of(self, block: Block, path: str) -> list[Part]:
        kind = block.WhichOneof("kind")
        if kind == "opaque":
            if block.opaque.format != FORMAT:
                raise unsupported(FORMAT, f"a block of {block.opaque.format or 'an unknown'} form", path)
            return [orjson.Fragment(block.opaque.json)]
        parts = self._typed(block, kind or "", path)
        if len(parts) == 1 and isinstance(parts[0], dict) and block.extra.format == FORMAT:
            members = Json.parse(block.extra.json, _wrong).members()
            parts[0].update({name: orjson.Fragment(member.text) for name, member in members})
        return parts

    def _typed(self, block: Block, kind: str, path: str) -> list[Part]:
        match kind:
            case "text":
                return _text(block.text.text, block.text.signature)
            case "refusal":
                return _text(block.refusal.text, b"")
            case "reasoning":
                return _thought(block)
            case "image":
                return [_media(block.image.media, f"{path}.image.media")]
            case "audio":
                return [_media(block.audio.media, f"{path}.audio.media")]
            case "document":
                return self._document(block.document, f"{path}.document")
            case "tool_use":
                return [_function_call(block, f"{path}.tool_use")]
            case "tool_result":
                return [self._function_response(block.tool_result, f"{path}.tool_result")]
        raise _wrong(path, "has no kind")

    def _document(self, document: Document, path: str) -> list[Part]:
        if document.citations:
            raise unsupported(FORMAT, "citations of documents", f"{path}.citations")
        if document.context:
            raise unsupported(FORMAT, "a document's context", f"{path}.context")
        if document.content:
            return self.all(document.content, f"{path}.content")
        if document.media.WhichOneof("source"):
            return [_media(document.media, f"{path}.media")]
        return _text(document.text, b"")

    def _function_response(self, result: ToolResult, path: str) -> JsonObject:
        name = result.name or self._names.get(result.tool_use_id)
        if not name:
            raise _wrong(f"{path}.tool_use_id", "names no call of this conversation, and the result names no tool")
        response: JsonObject = {"name": name, "response": _result(result)}
        if result.tool_use_id and not result.tool_use_id.startswith(SYNTHETIC_ID):
            response["id"] = result.tool_use_id
        beside = [block for block in result.content if block.WhichOneof("kind") != "text"]
        if parts := self.all(beside, f"{path}.content"):
            response["parts"] = parts
        return {"functionResponse": response}


def _call_names(messages: Iterable[Message]) -> dict[str, str]:
    return {
        block.tool_use.id: block.tool_use.name
        for message in messages
        for block in message.content
        if block.WhichOneof("kind") == "tool_use"
    }


def _text(text: str, signature: bytes) -> list[Part]:
    if not text and not signature:
        return []
    part: JsonObject = {"text": text}
    if signature:
        part["thoughtSignature"] = _base64(signature)
    return [part]


def _thought(block: Block) -> list[Part]:
    """Gemini's own thoughts only: another provider's are none of its."""
    reasoning = block.reasoning
    if reasoning.format != FORMAT or not (reasoning.text or reasoning.signature):
        return []
    part: JsonObject = {"text": reasoning.text, "thought": True}
    if reasoning.signature:
        part["thoughtSignature"] = reasoning.signature
    return [part]


def _media(media: Media, path: str) -> JsonObject:
    match media.WhichOneof("source"):
        case "data":
            if not media.media_type:
                raise _wrong(f"{path}.media_type", "is needed with data")
            return {"inlineData": {"mimeType": media.media_type, "data": _base64(media.data)}}
        case None:
            raise _wrong(path, "has no source")
    file: JsonObject = {"fileUri": media.url or media.file_id}
    if media.media_type:
        file["mimeType"] = media.media_type
    return {"fileData": file}


def _function_call(block: Block, path: str) -> JsonObject:
    use = block.tool_use
    call: JsonObject = {"name": use.name, "args": _letter(use.arguments_json or "{}", "The call's arguments", path)}
    if use.id and not use.id.startswith(SYNTHETIC_ID):
        call["id"] = use.id
    part: JsonObject = {"functionCall": call}
    if use.signature:
        part["thoughtSignature"] = _base64(use.signature)
    return part


def _mark_foreign_calls(parts: list[Part]) -> None:
    """Marks the first call of a turn that no signature covers; Gemini signs the first of parallel calls only."""
    calls = [part for part in parts if isinstance(part, dict) and "functionCall" in part]
    if calls and not any("thoughtSignature" in call for call in calls):
        calls[0]["thoughtSignature"] = FOREIGN_CALL_SIGNATURE


def _result(result: ToolResult) -> Part:
    """The result as the object that Gemini asks for: itself if it is one, else under the names of Google's examples."""
    text = "".join(block.text.text for block in result.content)
    letter = text.encode()
    try:
        is_object = isinstance(orjson.loads(letter), dict)
    except orjson.JSONDecodeError:
        is_object = False
    value = orjson.Fragment(letter) if is_object else text
    if result.is_error:
        return {"error": value}
    return value if isinstance(value, orjson.Fragment) else {"result": value}


def _tools(tools: Iterable[Tool]) -> list[Part]:
    declared: list[JsonObject] = []
    entries: list[Part] = []
    for index, tool in enumerate(tools):
        path = f"tools[{index}]"
        if not tool.HasField("opaque"):
            declared.append(_declaration(tool, path))
        elif tool.opaque.format == FORMAT:
            entries.append(orjson.Fragment(tool.opaque.json))
        else:
            raise unsupported(FORMAT, f"a tool of {tool.opaque.format or 'an unknown'} form", path)
    return [{"functionDeclarations": declared}, *entries] if declared else entries


def _declaration(tool: Tool, path: str) -> JsonObject:
    declaration: JsonObject = {"name": tool.name}
    if tool.description:
        declaration["description"] = tool.description
    if tool.parameters_json:
        declaration["parametersJsonSchema"] = _letter(
            tool.parameters_json, "The schema of the arguments", f"{path}.parameters_json"
        )
    return declaration


def _tool_config(chat: ChatRequest) -> JsonObject | None:
    choice = chat.tool_choice
    if chat.tools and choice.HasField("parallel") and not choice.parallel:
        raise unsupported(FORMAT, "a ban on parallel tool calls", "tool_choice.parallel")
    mode = _MODES[choice.mode]
    if mode == "AUTO" and any(tool.strict for tool in chat.tools):
        mode = "VALIDATED"  # AUTO whose calls are held to their schemas
    elif choice.mode == ToolChoice.MODE_UNSPECIFIED or not chat.tools:
        return None
    calling: JsonObject = {"mode": mode}
    if choice.mode == ToolChoice.MODE_TOOL:
        calling["allowedFunctionNames"] = [choice.name]
    return {"functionCallingConfig": calling}


def _service_tier(tier: str) -> str:
    if tier not in _SERVICE_TIERS:
        raise unsupported(FORMAT, f'the service tier "{tier}"', "service_tier")
    return _SERVICE_TIERS[tier]


def _generation(model: str) -> tuple[int, int]:
    """The version in a model's name; a name without one ("gemini-pro-latest") stands for the newest."""
    match = _VERSION.search(model)
    return (int(match[1]), int(match[2] or 0)) if match else (99, 0)


def _letter(text: str, what: str, path: str) -> orjson.Fragment:
    """A JSON object to the letter."""
    value: Any = caller_json(text, what, path)
    if not isinstance(value, dict):
        raise _wrong(path, "must be a JSON object")
    return orjson.Fragment(text.encode())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _wrong(path: str, sentence: str) -> MeshError:
    return MeshError(Reason.MALFORMED_REQUEST, f"{path} {sentence}.", field=path)
