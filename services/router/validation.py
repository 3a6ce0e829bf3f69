"""What is wrong with a chat before anybody is asked: pure, the same for both faces.

Paths name fields as the proto does ("messages[0].content[1].image"). What only a provider can judge (a schema's
dialect, an image's size) is left to it; what only the catalogue knows (whether the model exists) to the shortlist.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NoReturn

import orjson
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from modelmuxer.chat.v1.chat_pb2 import Block, ChatRequest, Media, Message, Role, Tool, ToolChoice

from shared.errors import MeshError, Reason

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
# Headers that change a provider's answer. Any other could break the request to it, or speak for our key.
PROVIDER_HEADERS = frozenset({"anthropic-beta", "anthropic-version", "openai-beta"})
MAX_TAGS = 64
MAX_TAG_CHARS = 256
MAX_STOP_SEQUENCES = 64
MAX_FALLBACKS = 16
MAX_TOP_LOGPROBS = 20
MAX_NAME_CHARS = 256
MAX_DEPTH = 32

_SPEAKERS = frozenset({Role.ROLE_SYSTEM, Role.ROLE_USER, Role.ROLE_ASSISTANT, Role.ROLE_TOOL, Role.ROLE_DEVELOPER})
_KINDS = "text, image, document, audio, tool_use, tool_result, reasoning, refusal or opaque"
_ROLE_NAMES = "ROLE_SYSTEM, ROLE_DEVELOPER, ROLE_USER, ROLE_ASSISTANT or ROLE_TOOL"


def validate(chat: ChatRequest) -> None:
    """Raises MALFORMED_REQUEST naming the first field that is wrong."""
    _names(chat)
    if not chat.messages:
        _refuse("messages", "must hold at least one message")
    for index, message in enumerate(chat.messages):
        _message(message, f"messages[{index}]")
    _sampling(chat)
    names = _tools(chat.tools)
    if chat.HasField("tool_choice"):
        _tool_choice(chat.tool_choice, names, bool(chat.tools))
    _answer_form(chat)
    _labels(chat)
    _cache(chat)


def _refuse(path: str, sentence: str) -> NoReturn:
    raise MeshError(Reason.MALFORMED_REQUEST, f"{path} {sentence}.", field=path)


def _names(chat: ChatRequest) -> None:
    fallbacks = chat.routing.fallbacks
    if len(fallbacks) > MAX_FALLBACKS:
        _refuse("routing.fallbacks", f"may hold at most {MAX_FALLBACKS} models, not {len(fallbacks)}")
    for path, name in (
        ("model", chat.model),
        *((f"routing.fallbacks[{place}]", name) for place, name in enumerate(fallbacks)),
    ):
        if len(name) > MAX_NAME_CHARS:
            _refuse(path, f"is a name of {len(name)} characters; none has more than {MAX_NAME_CHARS}")


def _message(message: Message, path: str) -> None:
    if message.role not in _SPEAKERS:
        said = "is not given" if message.role == Role.ROLE_UNSPECIFIED else f"is {message.role}, which is no role"
        _refuse(f"{path}.role", f"{said}; use {_ROLE_NAMES}")
    if not message.content:
        _refuse(f"{path}.content", "must hold at least one block")
    for index, block in enumerate(message.content):
        _block(block, f"{path}.content[{index}]", message.role)


def _block(block: Block, path: str, role: Role | None, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        _refuse(path, f"is nested more than {MAX_DEPTH} deep")
    kind = block.WhichOneof("kind")
    match kind:
        case "text":
            return
        case None:
            _refuse(path, f"must be one of {_KINDS}")
        case "image":
            _media(block.image.media, f"{path}.image.media")
        case "audio":
            _media(block.audio.media, f"{path}.audio.media")
        case "document":
            _document(block, f"{path}.document", depth)
        case "tool_use":
            _tool_use(block, f"{path}.tool_use", role)
        case "tool_result":
            _tool_result(block, f"{path}.tool_result", role, depth)
        case "opaque":
            _json(block.opaque.json, f"{path}.opaque.json")


def _media(media: Media, path: str) -> None:
    source = media.WhichOneof("source")
    if source is None or not getattr(media, source):
        _refuse(path, "must hold data, a url or a file_id")
    if source == "data" and not media.media_type:
        _refuse(f"{path}.media_type", 'must say what the data is, for example "image/png"')


def _document(block: Block, path: str, depth: int) -> None:
    document = block.document
    forms = [document.HasField("media"), bool(document.text), bool(document.content)]
    if sum(forms) != 1:
        _refuse(path, "must hold one of media, text or content")
    if document.HasField("media"):
        _media(document.media, f"{path}.media")
    for index, part in enumerate(document.content):
        _block(part, f"{path}.content[{index}]", None, depth + 1)


def _tool_use(block: Block, path: str, role: Role | None) -> None:
    if role != Role.ROLE_ASSISTANT:
        _refuse(path, "may stand only in a message of ROLE_ASSISTANT")
    if not block.tool_use.id:
        _refuse(f"{path}.id", "must be the call's id")
    if not block.tool_use.name:
        _refuse(f"{path}.name", "must be the tool's name")


def _tool_result(block: Block, path: str, role: Role | None, depth: int) -> None:
    if role not in (Role.ROLE_TOOL, Role.ROLE_USER):
        _refuse(path, "may stand only in a message of ROLE_TOOL or ROLE_USER")
    if not block.tool_result.tool_use_id:
        _refuse(f"{path}.tool_use_id", "must be the id of the call that it answers")
    for index, part in enumerate(block.tool_result.content):
        _block(part, f"{path}.content[{index}]", None, depth + 1)


def _sampling(chat: ChatRequest) -> None:
    if chat.HasField("max_output_tokens") and chat.max_output_tokens < 1:
        _refuse("max_output_tokens", f"must be at least 1, not {chat.max_output_tokens}")
    if chat.HasField("top_k") and chat.top_k < 1:
        _refuse("top_k", f"must be at least 1, not {chat.top_k}")
    if chat.HasField("top_logprobs") and not 0 <= chat.top_logprobs <= MAX_TOP_LOGPROBS:
        _refuse("top_logprobs", f"must be from 0 to {MAX_TOP_LOGPROBS}, not {chat.top_logprobs}")
    if chat.HasField("temperature"):
        _range("temperature", chat.temperature, 0, 2)
    if chat.HasField("top_p"):
        _range("top_p", chat.top_p, 0, 1)
    if chat.HasField("presence_penalty"):
        _range("presence_penalty", chat.presence_penalty, -2, 2)
    if chat.HasField("frequency_penalty"):
        _range("frequency_penalty", chat.frequency_penalty, -2, 2)
    if len(chat.stop_sequences) > MAX_STOP_SEQUENCES:
        _refuse("stop_sequences", f"may hold at most {MAX_STOP_SEQUENCES} texts, not {len(chat.stop_sequences)}")
    for index, text in enumerate(chat.stop_sequences):
        if not text:
            _refuse(f"stop_sequences[{index}]", "must not be empty")


def _range(path: str, value: float, least: float, most: float) -> None:
    if not (math.isfinite(value) and least <= value <= most):
        _refuse(path, f"must be from {least} to {most}, not {value:g}")


def _tools(tools: Iterable[Tool]) -> set[str]:
    names: set[str] = set()
    for index, tool in enumerate(tools):
        path = f"tools[{index}]"
        if tool.HasField("opaque"):
            declared = _json(tool.opaque.json, f"{path}.opaque.json")
            if isinstance(declared, Mapping) and isinstance(declared.get("name"), str):
                names.add(declared["name"])
            continue
        if not tool.name or len(tool.name) > MAX_NAME_CHARS:
            _refuse(f"{path}.name", f"must be a name of 1 to {MAX_NAME_CHARS} characters")
        if tool.name in names:
            _refuse(f"{path}.name", f'is "{_shorten(tool.name)}", which an earlier tool has already')
        if tool.parameters_json:
            _json_object(tool.parameters_json, f"{path}.parameters_json")
        names.add(tool.name)
    return names


def _tool_choice(choice: ToolChoice, names: set[str], any_tools: bool) -> None:
    mode = choice.mode
    if mode not in ToolChoice.Mode.values():
        _refuse("tool_choice.mode", f"is {mode}, which is no mode")
    if choice.name and mode != ToolChoice.MODE_TOOL:
        _refuse("tool_choice.name", "goes only with MODE_TOOL")
    if mode == ToolChoice.MODE_REQUIRED and not any_tools:
        _refuse("tool_choice.mode", "is MODE_REQUIRED, but the request has no tools")
    if mode == ToolChoice.MODE_TOOL and choice.name not in names:
        known = ", ".join(sorted(names)[:20]) or "none"
        _refuse("tool_choice.name", f'is "{_shorten(choice.name)}", which is none of the tools ({known})')


def _answer_form(chat: ChatRequest) -> None:
    if chat.HasField("response_format"):
        form = chat.response_format.WhichOneof("kind")
        if form is None:
            _refuse("response_format", "must be json_object or json_schema; leave it unset for free text")
        if form == "json_schema":
            _json_object(chat.response_format.json_schema.schema_json, "response_format.json_schema.schema_json")
    if chat.HasField("reasoning"):
        effort = chat.reasoning.effort
        if effort and effort not in EFFORTS:
            _refuse("reasoning.effort", f'is "{_shorten(effort)}"; use one of {", ".join(EFFORTS)}')
        if chat.reasoning.HasField("max_tokens") and chat.reasoning.max_tokens < 0:
            _refuse("reasoning.max_tokens", f"must be at least 0, not {chat.reasoning.max_tokens}")
    if chat.HasField("provider_options"):
        check_finite(chat.provider_options, "provider_options")


def check_tags(tags: Mapping[str, str]) -> None:
    """Raises MALFORMED_REQUEST for labels that are too many or too long."""
    if len(tags) > MAX_TAGS:
        _refuse("tags", f"may hold at most {MAX_TAGS} labels, not {len(tags)}")
    for name, value in tags.items():
        if not name or len(name) > MAX_TAG_CHARS or len(value) > MAX_TAG_CHARS:
            _refuse(f'tags["{_shorten(name)}"]', f"must have a name and a value of at most {MAX_TAG_CHARS} characters")


def _labels(chat: ChatRequest) -> None:
    check_tags(chat.tags)
    for name, value in chat.provider_headers.items():
        if name.lower() not in PROVIDER_HEADERS:
            allowed = ", ".join(sorted(PROVIDER_HEADERS))
            _refuse(f'provider_headers["{_shorten(name)}"]', f"cannot be passed on; only these can: {allowed}")
        if not all(" " <= char <= "~" for char in value):
            _refuse(f'provider_headers["{_shorten(name)}"]', "must be printable ASCII")


def _cache(chat: ChatRequest) -> None:
    if not chat.HasField("cache"):
        return
    cache = chat.cache
    if cache.only_if_cached and (cache.no_store or cache.no_cache):
        _refuse("cache.only_if_cached", "cannot go with no_store or no_cache, which forbid the look-up")
    if cache.HasField("similarity") and not 0.0 < cache.similarity <= 1.0:
        _refuse("cache.similarity", "must be above 0 and at most 1")
    for name in ("max_age", "ttl"):
        if cache.HasField(name):
            _duration(getattr(cache, name), f"cache.{name}")


def _duration(duration: Duration, path: str) -> None:
    if duration.seconds < 0 or not 0 <= duration.nanos < 1_000_000_000:
        _refuse(path, "must be a duration of 0 or more")


def _json(text: str | bytes, path: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        _refuse(path, f"is not valid JSON ({error})")


def _json_object(text: str, path: str) -> None:
    if not isinstance(_json(text, path), dict):
        _refuse(path, "must be a JSON object")


def check_finite(struct: Struct, path: str) -> None:
    """Raises MALFORMED_REQUEST for a number that JSON does not have."""
    for name, value in struct.fields.items():
        _finite_value(value, f"{path}.{_shorten(name)}")


def _finite_value(value: Value, path: str) -> None:
    match value.WhichOneof("kind"):
        case None:
            _refuse(path, "has no value")
        case "number_value":
            if not math.isfinite(value.number_value):
                _refuse(path, f"is {value.number_value}, which JSON cannot say")
        case "struct_value":
            check_finite(value.struct_value, path)
        case "list_value":
            for index, item in enumerate(value.list_value.values):
                _finite_value(item, f"{path}[{index}]")


def _shorten(text: str) -> str:
    return text if len(text) <= 64 else f"{text[:61]}..."
