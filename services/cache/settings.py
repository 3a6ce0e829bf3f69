"""The cache service's settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
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
    semantic_max_bytes: int = setting(
        256 * 1024 * 1024,
        env="CACHE_SEMANTIC_MAX_BYTES",
        minimum=1024 * 1024,
        help="what the index of questions may take in memory, beside the answers",
    )
    redis_url: str | None = setting(
        None, env="REDIS_URL", guide=True, secret=True, help="where Redis is (services/cache/stores/redis/address.py)"
    )
    key_prefix: str = setting(
        "modelmuxer:", env="CACHE_KEY_PREFIX", guide=True, help="how every key in Redis begins; no braces"
    )
    redis_connections: int = setting(
        8, env="REDIS_CONNECTIONS", minimum=1, maximum=1000, help="most connections for look-ups to each Redis server"
    )
    redis_lookup_timeout_s: float = setting(
        0.015,
        env="REDIS_LOOKUP_TIMEOUT_S",
        minimum=0.001,
        maximum=5,
        help="how long Redis may take for a look-up; then it is a miss. Less than the router's CACHE_LOOKUP_TIMEOUT_S",
    )
    redis_timeout_s: float = setting(
        1.0,
        env="REDIS_TIMEOUT_S",
        minimum=0.01,
        help="how long a write may take, and a reply before its connection goes",
    )
    redis_connect_timeout_s: float = setting(
        1.0, env="REDIS_CONNECT_TIMEOUT_S", minimum=0.01, help="how long a connection to Redis may take to open"
    )
    largest_bytes: int = setting(
        4 * 1024 * 1024, env="CACHE_LARGEST_BYTES", minimum=1024, help="the largest answer that is kept in Redis"
    )
    encryption_keys: Path | None = setting(
        None,
        env="CACHE_ENCRYPTION_KEYS",
        help="YAML file of keys that answers in Redis are encrypted with (services/cache/stores/redis/encryption.py)",
    )

    def check(self) -> Iterator[str]:
        yield from super().check()
        if self.store == "redis":
            yield from self._check_redis()
            return
        if self.redis_url:
            yield "REDIS_URL is set, but answers are kept in memory: set MODELMUXER_CACHE_STORE=redis, or unset it"
        if self.encryption_keys:
            yield "MODELMUXER_CACHE_ENCRYPTION_KEYS is for Redis: set MODELMUXER_CACHE_STORE=redis, or unset it"

    def _check_redis(self) -> Iterator[str]:
        # Imported here because every service imports all services' settings, and would have the driver with them.
        from services.cache.stores.redis.address import parse
        from services.cache.stores.redis.encryption import KeyFileError, read_key_file

        if not self.redis_url:
            yield "REDIS_URL is not set although MODELMUXER_CACHE_STORE is redis: set it, as in redis://localhost:6379/0"
        else:
            try:
                parse(self.redis_url)
            except ValueError as error:
                yield f"REDIS_URL {error}"
        if "{" in self.key_prefix:
            yield "CACHE_KEY_PREFIX has a brace, which would put all keys onto one node of a Cluster: leave it out"
        if self.encryption_keys:
            try:
                read_key_file(self.encryption_keys)
            except KeyFileError as error:
                yield f"MODELMUXER_CACHE_ENCRYPTION_KEYS={self.encryption_keys} {error}"
