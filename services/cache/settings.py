"""The cache service's settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from shared.settings import ServiceSettings, setting


@dataclass(frozen=True, kw_only=True)
class CacheSettings(ServiceSettings):
    """What the cache adds to every service's settings."""

    service: ClassVar[str] = "cache"

    store: str = setting(
        "memory", env="CACHE_STORE", guide="CACHE_BACKEND", choices=("memory", "redis"), help="where answers are kept"
    )
    ttl_s: int = setting(3600, env="CACHE_TTL", guide=True, minimum=1, help="how long an answer is kept, in seconds")
    max_bytes: int = setting(
        256 * 1024 * 1024, env="CACHE_MAX_BYTES", minimum=1024 * 1024, help="what the answers may take in memory"
    )

    def check(self) -> Iterator[str]:
        yield from super().check()
        if self.store == "redis":
            yield "MODELMUXER_CACHE_STORE=redis: this release caches in memory only; set it to memory or unset it"
