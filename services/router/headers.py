"""What a decision and its cost look like as gRPC metadata and HTTP headers: the same names on both faces."""

from __future__ import annotations

from modelmuxer.chat.v1.chat_pb2 import CacheInfo, Completed, Started

PREFIX = "x-modelmuxer-"
MAX_VALUE_CHARS = 300

Headers = list[tuple[str, str]]


def decision_headers(started: Started) -> Headers:
    """Who answers, and why: known before the first token."""
    values = (
        ("request-id", started.id),
        ("model", started.model),
        ("provider", started.provider),
        ("deployment", started.deployment),
        ("strategy", started.decision.strategy),
        ("decision", started.decision.reason),
        ("cache", cache_word(started.cache)),
        ("catalogue", started.decision.catalogue_version),
    )
    return [(PREFIX + name, _plain(value)) for name, value in values if value]


def cost_headers(completed: Completed) -> Headers:
    """What the answer cost: known at its end."""
    return [
        (f"{PREFIX}cost-nanos", str(completed.cost.nanos)),
        (f"{PREFIX}attempts", str(len(completed.attempts))),
    ]


def cache_word(info: CacheInfo) -> str:
    """What the cache did in a word: "miss", "exact", "bypass"; empty if nothing is known."""
    return CacheInfo.Status.Name(info.status).removeprefix("STATUS_").lower() if info.status else ""


def _plain(value: str) -> str:
    """Metadata and headers carry printable ASCII."""
    value = value[:MAX_VALUE_CHARS]
    if value.isascii() and value.isprintable():
        return value
    return "".join(char if " " <= char <= "~" else "?" for char in value)
