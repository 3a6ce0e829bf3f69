"""The names of answers: two requests share a digest only if everything that shapes the answer is equal. Pure.

A field of ChatRequest is part of the key unless it is listed here, so that a field added later errs to a miss, never to
another request's answer. Protobuf's deterministic form orders map keys, and a Struct is a map.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from google.protobuf.message import Message
from modelmuxer.accounting.v1.accounting_pb2 import Principal
from modelmuxer.chat.v1.chat_pb2 import ChatRequest

from shared.catalogue import CacheScope

FORM = b"modelmuxer chat key 2"

# What does not shape an answer, or goes in by other means: the model as it was resolved, the cap as it takes effect,
# the end user where the scope is narrower than the tenant.
_APART = ("model", "max_output_tokens", "cache", "tags", "end_user")


def answer_digest(
    chat: ChatRequest,
    *,
    within: Sequence[str],
    asked: str,
    allowed_models: Iterable[str],
    max_output_tokens: int | None,
) -> bytes:
    """SHA-256 that names the answer to a chat.

    `within` is whom the answer may be given to (see `scope`);
    `asked` is the pinned model's id, or the alias with the version of its definition; `allowed_models` are the key's,
    since they bound what an alias may choose; `max_output_tokens` is the cap before the chosen model's own.
    """
    shape = ChatRequest()
    shape.CopyFrom(chat)
    for name in _APART:
        shape.ClearField(name)
    cap = b"" if max_output_tokens is None else b"%d" % max_output_tokens
    models = [model.encode() for model in sorted(set(allowed_models))]
    wall = _digest(*(part.encode() for part in within))
    return _digest(FORM, wall, asked.encode(), cap, _exact(shape), *models)


def scope(width: CacheScope, principal: Principal, end_user: str) -> tuple[str, ...]:
    """Those who may be given the same answer. A key that is no user's has its answers to itself."""
    if width == "tenant":
        return ("tenant", principal.tenant)
    if width == "user" and principal.user:
        return ("user", principal.tenant, principal.user, end_user)
    return ("key", principal.tenant, principal.key_id, end_user)


def body_digest(chat: ChatRequest) -> bytes:
    """SHA-256 over a whole request, to tell whether an operation is repeated with the same body."""
    return _digest(FORM, _exact(chat))


def _exact(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def _digest(*parts: bytes) -> bytes:
    """Lengths stand before the parts, so that no two lists of parts run together to the same bytes."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
