"""Content blocks of Anthropic's Messages form, both ways.

A block is turned into its canonical kind if that kind can hold it; members that only this format knows go into `extra`.
A block of an unknown type, or with a source of an unknown form, is carried whole as Opaque, to the letter.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

import orjson
from modelmuxer.chat.v1.chat_pb2 import (
    Block,
    CacheBreakpoint,
    Citation,
    Document,
    Image,
    Media,
    Opaque,
    Reasoning,
    Text,
    ToolResult,
    ToolUse,
)

from shared.errors import MeshError, Reason
from shared.wire import structs
from shared.wire.json_text import Json, JsonObject, join

FORMAT = "anthropic"

_MEMBERS = {
    "text": frozenset({"type", "text", "citations", "signature"}),
    "image": frozenset({"type", "source"}),
    "document": frozenset({"type", "source", "title", "context", "citations"}),
    "tool_use": frozenset({"type", "id", "name", "input", "signature"}),
    "tool_result": frozenset({"type", "tool_use_id", "content", "is_error"}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    "redacted_thinking": frozenset({"type", "data"}),
}
_SOURCE_MEMBERS = {
    "base64": frozenset({"type", "media_type", "data"}),
    "url": frozenset({"type", "url"}),
    "file": frozenset({"type", "file_id"}),
    "text": frozenset({"type", "media_type", "data"}),
    "content": frozenset({"type", "content"}),
}
_EPHEMERAL = frozenset({"type", "ttl"})

Written = JsonObject | orjson.Fragment  # what orjson writes: an object, or a text as it came


def malformed_request(path: str, sentence: str) -> MeshError:
    """The error for a caller's value that is wrong."""
    return MeshError(Reason.MALFORMED_REQUEST, f"{path or 'The body'} {sentence}.", field=path or None)


def unsupported(what: str, path: str) -> MeshError:
    """The error for what this format cannot say."""
    return MeshError(
        Reason.UNSUPPORTED_FEATURE,
        f"{FORMAT} does not take {what}. Leave it out, or name a model whose provider takes it.",
        metadata={"feature": what, "provider": FORMAT},
        field=path,
    )


# From JSON


def blocks_from_json(content: Json, signer: str = "") -> list[Block]:
    """Content: an array of blocks, or a string that stands for one text. `signer` as in `block_from_json`."""
    if isinstance(content.value, str):
        return [Block(text=Text(text=content.value))] if content.value else []
    return [block_from_json(item, signer) for item in content.items()]


def block_from_json(block: Json, signer: str = "") -> Block:
    """One block. `signer` is the format whose provider made it: FORMAT in an answer, unknown in a caller's request."""
    kind = block.need("type").string()
    read = _READERS.get(kind)
    typed = read(block, signer) if read else None
    if typed is None:
        return Block(opaque=Opaque(format=FORMAT, json=block.text))
    known = _MEMBERS[kind]
    if "cache_control" in block.object() and (breakpoint_ := cache_breakpoint(block)) is not None:
        typed.cache_breakpoint.CopyFrom(breakpoint_)
        known |= {"cache_control"}
    if (extra := extra_members(block, known)) is not None:
        typed.extra.CopyFrom(extra)
    return typed


def extra_members(value: Json, known: frozenset[str]) -> Opaque | None:
    """The members beside the known ones, to the letter; None if there are none."""
    if value.object().keys() <= known:
        return None
    members = {name: member.text for name, member in value.members() if name not in known}
    return Opaque(format=FORMAT, json=join(members)) if members else None


def cache_breakpoint(value: Json) -> CacheBreakpoint | None:
    """The breakpoint that `cache_control` asks for; None where it is absent or of another form."""
    control = value.get("cache_control")
    if control is None or control.object().get("type") != "ephemeral" or not control.object().keys() <= _EPHEMERAL:
        return None
    ttl = control.get("ttl")
    return CacheBreakpoint(ttl=ttl.string() if ttl else "")


def citation_from_json(citation: Json) -> Citation:
    """One citation, kept as it came beside what every format knows of it."""
    raw = citation.object()
    return Citation(
        cited_text=_string(raw, "cited_text"),
        title=_string(raw, "title") or _string(raw, "document_title"),
        url=_string(raw, "url"),
        raw=structs.from_json(raw),
    )


def _string(value: JsonObject, name: str) -> str:
    found = value.get(name)
    return found if isinstance(found, str) else ""


def _text(block: Json, _signer: str) -> Block:
    text = Text(text=block.need("text").string(), signature=_signature(block))
    if citations := block.get("citations"):
        text.citations.extend(citation_from_json(item) for item in citations.items())
    return Block(text=text)


def _image(block: Json, _signer: str) -> Block | None:
    media = _media(block.need("source"))
    return None if media is None else Block(image=Image(media=media))


def _document(block: Json, signer: str) -> Block | None:
    source = block.need("source")
    document = Document()
    match _source_type(source):
        case "text" if source.object().get("media_type") == "text/plain":
            document.text = source.need("data").string()
        case "content":
            document.content.extend(blocks_from_json(source.need("content"), signer))
        case "base64" | "url" | "file":
            media = _media(source)
            if media is None:
                return None
            document.media.CopyFrom(media)
        case _:
            return None
    if (citations := block.get("citations")) is not None:
        if not citations.object().keys() <= {"enabled"}:
            return None
        enabled = citations.get("enabled")
        document.citations = enabled is not None and enabled.boolean()
    if (title := block.get("title")) is not None:
        document.title = title.string()
    if (context := block.get("context")) is not None:
        document.context = context.string()
    return Block(document=document)


def _source_type(source: Json) -> str:
    """The type of a source whose form is known; empty for any other."""
    kind = source.need("type").string()
    return kind if source.object().keys() <= _SOURCE_MEMBERS.get(kind, frozenset()) else ""


def _media(source: Json) -> Media | None:
    match _source_type(source):
        case "base64":
            return Media(data=_base64(source.need("data")), media_type=source.need("media_type").string())
        case "url":
            return Media(url=source.need("url").string())
        case "file":
            return Media(file_id=source.need("file_id").string())
    return None


def _base64(data: Json) -> bytes:
    try:
        return base64.b64decode(data.string(), validate=True)
    except (binascii.Error, ValueError):
        raise data.fault("is not valid base64") from None


def _signature(block: Json) -> bytes:
    """Another provider's signature over this part, which the mesh added when it gave the block out in this form.

    Anthropic signs thinking alone, but Gemini asks for its own on calls, and callers send back what they were given.
    """
    signature = block.get("signature")
    return b"" if signature is None else _base64(signature)


def _tool_use(block: Json, _signer: str) -> Block:
    arguments = block.need("input")
    arguments.object()
    use = ToolUse(id=block.need("id").string(), name=block.need("name").string(), signature=_signature(block))
    use.arguments_json = arguments.text.decode()
    return Block(tool_use=use)


def _tool_result(block: Json, signer: str) -> Block:
    result = ToolResult(tool_use_id=block.need("tool_use_id").string())
    if (content := block.get("content")) is not None:
        result.content.extend(blocks_from_json(content, signer))
    if (is_error := block.get("is_error")) is not None:
        result.is_error = is_error.boolean()
    return Block(tool_result=result)


def _thinking(block: Json, signer: str) -> Block:
    signature = block.get("signature")
    return Block(
        reasoning=Reasoning(
            text=block.need("thinking").string(), signature=signature.string() if signature else "", format=signer
        )
    )


def _redacted(block: Json, signer: str) -> Block:
    return Block(reasoning=Reasoning(encrypted=block.need("data").string(), format=signer))


_READERS = {
    "text": _text,
    "image": _image,
    "document": _document,
    "tool_use": _tool_use,
    "tool_result": _tool_result,
    "thinking": _thinking,
    "redacted_thinking": _redacted,
}


# To JSON


def block_to_json(block: Block, path: str) -> Written | None:
    """One block; None for what another provider made for itself (its unsigned or foreign reasoning, empty text).

    Raises UNSUPPORTED_FEATURE for what this format cannot say, MALFORMED_REQUEST for tool arguments that are no object.
    """
    kind = block.WhichOneof("kind")
    if kind == "opaque":
        if block.opaque.format != FORMAT:
            raise unsupported(f"a block of {block.opaque.format or 'an unknown'} form", path)
        return orjson.Fragment(block.opaque.json)
    if kind is None:
        raise malformed_request(path, "has no kind")
    body = _to_json(block, kind, path)
    if body is None:
        return None
    body.update(splice(block.extra))
    if block.HasField("cache_breakpoint") and kind != "reasoning":  # thinking takes no breakpoint
        body["cache_control"] = cache_control(block.cache_breakpoint)
    return body


def blocks_to_json(blocks: Iterable[Block], path: str) -> list[Written]:
    """Blocks, without those that `block_to_json` leaves out."""
    rendered = (block_to_json(block, f"{path}[{index}]") for index, block in enumerate(blocks))
    return [block for block in rendered if block is not None]


def splice(extra: Opaque) -> JsonObject:
    """The members that `extra_members` kept, if they are this format's."""
    if extra.format != FORMAT or not extra.json:
        return {}
    members = Json.parse(extra.json, malformed_request).members()
    return {name: orjson.Fragment(member.text) for name, member in members}


def cache_control(breakpoint_: CacheBreakpoint) -> JsonObject:
    """A breakpoint as this format writes it."""
    return {"type": "ephemeral", "ttl": breakpoint_.ttl} if breakpoint_.ttl else {"type": "ephemeral"}


def citation_to_json(citation: Citation) -> JsonObject | None:
    """A citation as it came; None for one of another provider's, which this one would refuse."""
    raw = structs.to_json(citation.raw)
    return raw if str(raw.get("type", "")).endswith("_location") else None


def _to_json(block: Block, kind: str, path: str) -> JsonObject | None:
    match kind:
        case "text":
            return _text_to_json(block.text)
        case "refusal":
            return {"type": "text", "text": block.refusal.text} if block.refusal.text else None
        case "image":
            return {"type": "image", "source": _image_source(block.image.media, f"{path}.image.media")}
        case "document":
            return _document_to_json(block.document, f"{path}.document")
        case "tool_use":
            return _tool_use_to_json(block.tool_use, f"{path}.tool_use")
        case "tool_result":
            return _tool_result_to_json(block.tool_result, f"{path}.tool_result")
        case "reasoning":
            return _reasoning_to_json(block.reasoning)
    raise unsupported("audio input", path)


def _text_to_json(text: Text) -> JsonObject | None:
    if not text.text and not text.citations:
        return None  # "text content blocks must be non-empty"
    body: JsonObject = {"type": "text", "text": text.text}
    if citations := [found for citation in text.citations if (found := citation_to_json(citation)) is not None]:
        body["citations"] = citations
    return body


def _image_source(media: Media, path: str) -> JsonObject:
    match media.WhichOneof("source"):
        case "data":
            if not media.media_type:
                raise malformed_request(f"{path}.media_type", "is needed with data")
            return _base64_source(media.data, media.media_type)
        case "url":
            return {"type": "url", "url": media.url}
        case "file_id":
            return {"type": "file", "file_id": media.file_id}
    raise malformed_request(path, "has no source")


def _base64_source(data: bytes, media_type: str) -> JsonObject:
    return {"type": "base64", "media_type": media_type, "data": base64.b64encode(data).decode("ascii")}


def _document_to_json(document: Document, path: str) -> JsonObject:
    body: JsonObject = {"type": "document", "source": _document_source(document, path)}
    if document.title:
        body["title"] = document.title
    if document.context:
        body["context"] = document.context
    if document.citations:
        body["citations"] = {"enabled": True}
    return body


def _document_source(document: Document, path: str) -> JsonObject:
    if document.content:
        return {"type": "content", "content": blocks_to_json(document.content, f"{path}.content")}
    media = document.media
    match media.WhichOneof("source"):
        case "url":
            return {"type": "url", "url": media.url}
        case "file_id":
            return {"type": "file", "file_id": media.file_id}
        case "data" if media.media_type.startswith("text/"):
            return {"type": "text", "media_type": "text/plain", "data": _utf8(media.data, f"{path}.media.data")}
        case "data" if media.media_type not in ("", "application/pdf"):
            raise unsupported(f"documents of type {media.media_type}", f"{path}.media.media_type")
        case "data":
            return _base64_source(media.data, "application/pdf")
    return {"type": "text", "media_type": "text/plain", "data": document.text}


def _utf8(data: bytes, path: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise malformed_request(path, "is no UTF-8, though its type is a text's") from None


def _tool_use_to_json(use: ToolUse, path: str) -> JsonObject:
    return {"type": "tool_use", "id": use.id, "name": use.name, "input": arguments(use.arguments_json, path)}


def arguments(text: str, path: str) -> orjson.Fragment:
    """A call's arguments as the model wrote them: spliced in, not written anew."""
    letter = text.encode() or b"{}"
    try:
        is_object = isinstance(orjson.loads(letter), dict)
    except orjson.JSONDecodeError:
        is_object = False
    if not is_object:
        raise malformed_request(f"{path}.arguments_json", f"is no JSON object, which {FORMAT} asks for")
    return orjson.Fragment(letter)


def _tool_result_to_json(result: ToolResult, path: str) -> JsonObject:
    body: JsonObject = {"type": "tool_result", "tool_use_id": result.tool_use_id}
    if content := blocks_to_json(result.content, f"{path}.content"):
        body["content"] = content
    if result.is_error:
        body["is_error"] = True
    return body


def _reasoning_to_json(reasoning: Reasoning) -> JsonObject | None:
    """Only what this format's provider signed or sealed: it refuses all else."""
    if reasoning.format not in ("", FORMAT):
        return None
    if reasoning.encrypted:
        return {"type": "redacted_thinking", "data": reasoning.encrypted}
    if reasoning.signature:
        return {"type": "thinking", "thinking": reasoning.text, "signature": reasoning.signature}
    return None
