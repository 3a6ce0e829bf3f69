"""An estimate of a request's input tokens, for shortlists, prices before the fact, and calls of which nobody ever says.

The rule: text and JSON count a token for every four bytes of UTF-8, rounded up per piece; a message adds 4 and a tool 8
for what surrounds them; an image counts 1,000 (85 at low detail); a document counts 1,500 for every 50 kB (about a page
of PDF), a recording 32 for every 16 kB (about a second), and 2,000 each where only their address is known. It uses no
tokenizer: each provider has its own, most are not public, and estimates settle nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from modelmuxer.chat.v1.chat_pb2 import Block, ChatRequest, Document, Media, Message, Tool
from modelmuxer.embedding.v1.embedding_pb2 import EmbedRequest

BYTES_PER_TOKEN: Final = 4
MESSAGE_TOKENS: Final = 4
TOOL_TOKENS: Final = 8
IMAGE_TOKENS: Final = 1_000
LOW_DETAIL_IMAGE_TOKENS: Final = 85
UNSEEN_FILE_TOKENS: Final = 2_000
PAGE_BYTES, PAGE_TOKENS = 50_000, 1_500
SECOND_BYTES, SECOND_TOKENS = 16_000, 32


def estimate_input_tokens(chat: ChatRequest) -> int:
    """All that the provider would read: messages, tools and the answer's schema."""
    messages = sum(map(estimate_message, chat.messages))
    tools = sum(map(_tool, chat.tools))
    return messages + tools + estimate_text(chat.response_format.json_schema.schema_json)


def estimate_embedding_tokens(request: EmbedRequest) -> int:
    """All inputs. Tokens that the caller sent count as they are."""
    return sum(len(each.tokens.ids) if each.HasField("tokens") else estimate_text(each.text) for each in request.inputs)


def estimate_message(message: Message) -> int:
    """One message."""
    return MESSAGE_TOKENS + _content(message.content)


def estimate_text(text: str | bytes) -> int:
    """A text."""
    size = len(text) if isinstance(text, bytes) or text.isascii() else len(text.encode())
    return -(-size // BYTES_PER_TOKEN)


def _content(blocks: Iterable[Block]) -> int:
    return sum(map(_block, blocks))


def _block(block: Block) -> int:
    match block.WhichOneof("kind"):
        case "text":
            return estimate_text(block.text.text)
        case "image":
            return LOW_DETAIL_IMAGE_TOKENS if block.image.detail == "low" else IMAGE_TOKENS
        case "document":
            return _document(block.document)
        case "audio":
            return _file(block.audio.media, SECOND_BYTES, SECOND_TOKENS)
        case "tool_use":
            return estimate_text(block.tool_use.name) + estimate_text(block.tool_use.arguments_json)
        case "tool_result":
            return _content(block.tool_result.content)
        case "reasoning":
            return estimate_text(block.reasoning.text) or estimate_text(block.reasoning.encrypted)
        case "refusal":
            return estimate_text(block.refusal.text)
        case "opaque":
            return estimate_text(block.opaque.json)
        case _:
            return 0


def _document(document: Document) -> int:
    about = estimate_text(document.title) + estimate_text(document.context) + estimate_text(document.text)
    if document.HasField("media"):
        if document.media.media_type.startswith("text/") and document.media.data:
            return about + estimate_text(document.media.data)
        about += _file(document.media, PAGE_BYTES, PAGE_TOKENS)
    return about + _content(document.content)


def _file(media: Media, unit_bytes: int, unit_tokens: int) -> int:
    if media.WhichOneof("source") != "data":
        return UNSEEN_FILE_TOKENS
    return -(-len(media.data) // unit_bytes) * unit_tokens


def _tool(tool: Tool) -> int:
    texts = tool.name, tool.description, tool.parameters_json, tool.opaque.json
    return TOOL_TOKENS + sum(estimate_text(text) for text in texts)
