"""What a decision and its cost look like as gRPC metadata and HTTP headers: the same names on both faces."""

from __future__ import annotations

from modelmuxer.chat.v1.chat_pb2 import CacheInfo, Completed, RateLimit, Started
from modelmuxer.embedding.v1.embedding_pb2 import EmbedResponse

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
        ("cache-similarity", f"{started.cache.similarity:.4f}" if started.cache.similarity else ""),
        ("cache-hit", started.cache.hit),
        ("catalogue", started.decision.catalogue_version),
    )
    decided = [(PREFIX + name, _plain(value)) for name, value in values if value]
    for limit in started.rate_limits:
        decided += rate_headers(limit)
    return decided


def rate_headers(limit: RateLimit) -> Headers:
    """What is left of a rate, under the names that OpenAI's SDKs know; the reset is a Go duration, as theirs."""
    seconds = limit.reset.ToNanoseconds() / 1e9
    return [
        (f"x-ratelimit-limit-{limit.unit}", str(limit.limit)),
        (f"x-ratelimit-remaining-{limit.unit}", str(limit.remaining)),
        (f"x-ratelimit-reset-{limit.unit}", f"{seconds:.3f}s"),
    ]


def cost_headers(completed: Completed) -> Headers:
    """What the answer cost: known at its end."""
    return [
        (f"{PREFIX}cost-nanos", str(completed.cost.nanos)),
        (f"{PREFIX}attempts", str(len(completed.attempts))),
        *((f"{PREFIX}warning", _plain(warning)) for warning in completed.warnings),
    ]


def embedding_headers(answer: EmbedResponse) -> Headers:
    """Who made vectors, and what they cost."""
    values = (
        ("request-id", answer.id),
        ("model", answer.model),
        ("provider", answer.provider),
        ("cost-nanos", str(answer.cost.nanos)),
        ("attempts", str(len(answer.attempts))),
    )
    return [(PREFIX + name, _plain(value)) for name, value in values]


def cache_word(info: CacheInfo) -> str:
    """What the cache did in a word: "miss", "exact", "bypass"; empty if nothing is known."""
    return CacheInfo.Status.Name(info.status).removeprefix("STATUS_").lower() if info.status else ""


def _plain(value: str) -> str:
    """Metadata and headers carry printable ASCII."""
    value = value[:MAX_VALUE_CHARS]
    if value.isascii() and value.isprintable():
        return value
    return "".join(char if " " <= char <= "~" else "?" for char in value)
