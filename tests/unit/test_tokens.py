"""Estimates of input tokens follow the stated rule, whatever the chat holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelmuxer.chat.v1.chat_pb2 import (
    Audio,
    Block,
    ChatRequest,
    Document,
    Image,
    JsonSchema,
    Media,
    Message,
    Opaque,
    Reasoning,
    Refusal,
    ResponseFormat,
    Text,
    Tool,
    ToolResult,
    ToolUse,
)

from shared.tokens import estimate_input_tokens, estimate_message, estimate_text


def message(*blocks: Block) -> Message:
    return Message(content=blocks)


@given(st.text())
def test_a_text_counts_a_token_for_every_four_bytes_of_utf_8(text: str) -> None:
    size = len(text.encode())
    assert size <= 4 * estimate_text(text) < size + 4
    assert estimate_text(text.encode()) == estimate_text(text)


@pytest.mark.parametrize(
    ("block", "tokens"),
    [
        (Block(text=Text(text="a" * 40)), 10),
        (Block(refusal=Refusal(text="a" * 40)), 10),
        (Block(reasoning=Reasoning(text="a" * 40)), 10),
        (Block(reasoning=Reasoning(encrypted="a" * 40)), 10),
        (Block(opaque=Opaque(json=b"a" * 40)), 10),
        (Block(tool_use=ToolUse(name="abcd", arguments_json="a" * 40)), 11),
        (Block(tool_result=ToolResult(content=[Block(text=Text(text="a" * 40)), Block(image=Image())])), 1010),
        (Block(image=Image(detail="low")), 85),
        (Block(image=Image(detail="high")), 1000),
        (Block(audio=Audio(media=Media(data=b"a" * 16_001))), 64),
        (Block(audio=Audio(media=Media(file_id="f"))), 2000),
        (Block(document=Document(media=Media(data=b"a" * 50_000, media_type="application/pdf"))), 1500),
        (Block(document=Document(media=Media(data=b"a" * 40, media_type="text/plain"))), 10),
        (Block(document=Document(media=Media(url="https://example.com/a.pdf"), title="abcd")), 2001),
        (Block(document=Document(text="a" * 40, content=[Block(text=Text(text="abcd"))])), 11),
        (Block(), 0),
    ],
)
def test_each_kind_of_block_counts_by_its_rule(block: Block, tokens: int) -> None:
    assert estimate_message(message(block)) == 4 + tokens


def test_a_chat_counts_its_messages_tools_and_schema() -> None:
    chat = ChatRequest(
        messages=[message(Block(text=Text(text="abcd"))), message()],
        tools=[Tool(name="abcd", description="a" * 8, parameters_json="{}")],
        response_format=ResponseFormat(json_schema=JsonSchema(schema_json="a" * 40)),
    )
    assert estimate_input_tokens(chat) == (4 + 1) + 4 + (8 + 1 + 2 + 1) + 10
    assert estimate_input_tokens(ChatRequest()) == 0
