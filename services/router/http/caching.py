"""What HTTP caches on the way may do with our answers (RFC 9111), and how they ask whether theirs hold (RFC 9110).

An answer to a chat comes by POST and belongs to one key. A shared cache must not keep it at all (`private`); a browser
may, and must ask before it uses it again (`no-cache`): an answer that was invalidated here is not to live on there, and
every answer has its line in the ledger. What we would not keep ourselves is `no-store`. Lists of models are plain GETs:
the same, and `If-None-Match` gets a 304 where nothing has changed.
"""

from __future__ import annotations

import hashlib

from modelmuxer.chat.v1.chat_pb2 import CacheInfo, ChatResponse

from services.router.cacheability import UNASKED, storable
from services.router.http.face import Headers

KEEP = "private, no-cache"
DO_NOT_KEEP = "no-store"
# Who asks decides on the answer, and how it may be packed on its form.
VARY = "Authorization, x-api-key, Accept-Encoding"

_NOT_LOOKED_UP = frozenset({CacheInfo.STATUS_UNSPECIFIED, CacheInfo.STATUS_BYPASS})
_MADE_NOW = frozenset({CacheInfo.STATUS_MISS, CacheInfo.STATUS_COALESCED})


def answer_headers(response: ChatResponse) -> list[tuple[str, str]]:
    """The headers of a whole answer. Its tag is that of what was answered, which every hit of it shares."""
    info = response.completed.cache
    if info.status in _NOT_LOOKED_UP or not storable(response.completed, UNASKED):
        return [("Cache-Control", DO_NOT_KEEP)]
    return [*_kept(info), ("ETag", _tag(*(block.SerializeToString(deterministic=True) for block in response.content)))]


def stream_headers(info: CacheInfo) -> list[tuple[str, str]]:
    """The headers of a stream, whose end is not known yet."""
    return [("Cache-Control", DO_NOT_KEEP)] if info.status in _NOT_LOOKED_UP else _kept(info)


def list_headers(body: bytes, vary: str) -> list[tuple[str, str]]:
    """The headers of a list that is the same until something changes."""
    return [("Cache-Control", KEEP), ("Vary", vary), ("ETag", _tag(body))]


def unchanged(headers: Headers, tag: str) -> bool:
    """Whether the caller has what the tag names. Tags are weak: compression makes other bytes of the same."""
    asked = headers.get("If-None-Match", "")
    return asked.strip() == "*" or tag in (each.strip() for each in asked.split(","))


def _kept(info: CacheInfo) -> list[tuple[str, str]]:
    age = [] if info.status in _MADE_NOW else [("Age", str(info.age.seconds))]
    return [("Cache-Control", KEEP), ("Vary", VARY), *age]


def _tag(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return f'W/"{digest.hexdigest()[:32]}"'
