"""Small catalogue entries and chats to build tests from."""

from __future__ import annotations

from typing import Any

from modelmuxer.chat.v1.chat_pb2 import Block, ChatRequest, Message, Role, Text

from services.provider_proxy.adapters.openai import OpenAIAdapter
from shared.catalogue import Deployment, Dialect, Provider

OPENAI = Dialect(
    obfuscation=True,
    developer_role=True,
    service_tier=True,
    end_user_field="safety_identifier",
    documents="file",
    audio=True,
)
PLAIN = Dialect(max_tokens_field="max_tokens")
MISTRAL = Dialect(
    max_tokens_field="max_tokens",
    stream_options=False,
    seed_field="random_seed",
    any_tool_choice="any",
    logprobs=False,
    reasoning_back="thinking",
    documents="document_url",
)
DEEPSEEK = Dialect(
    max_tokens_field="max_tokens", reasoning="thinking", reasoning_back="reasoning_content", json_schema=False
)
OPENROUTER = Dialect(reasoning="object", reasoning_back="reasoning_details", top_k=True)


def adapter(dialect: Dialect = OPENAI, name: str = "openai") -> OpenAIAdapter:
    return OpenAIAdapter(provider(dialect, name))


def provider(dialect: Dialect = OPENAI, name: str = "openai") -> Provider:
    return Provider(name=name, format="openai", base_url="https://api.example/v1", dialect=dialect)


def deployment() -> Deployment:
    return Deployment(
        name="openai/gpt@openai",
        model="openai/gpt",
        provider="openai",
        region="",
        base_url="https://api.example/v1",
        upstream_model="gpt",
    )


def user(*blocks: Block | str, role: Role = Role.ROLE_USER) -> Message:
    return Message(role=role, content=[Block(text=Text(text=b)) if isinstance(b, str) else b for b in blocks])


def chat(*messages: Message, **fields: Any) -> ChatRequest:
    return ChatRequest(messages=messages or [user("Hi")], **fields)
