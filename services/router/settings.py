"""The router's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from shared.catalogue import CacheScope
from shared.settings import ServiceSettings, setting


@dataclass(frozen=True, kw_only=True)
class RouterSettings(ServiceSettings):
    """What the router adds to every service's settings."""

    service: ClassVar[str] = "router"

    http_port: int = setting(8000, env="ROUTER_HTTP_PORT", minimum=0, maximum=65535, help="port of the HTTP face")
    config: Path | None = setting(None, env="CONFIG", help="YAML catalogue that is laid over the shipped one")
    enable_gzip: bool = setting(True, env="ENABLE_GZIP", guide=True, help="compress HTTP answers")
    gzip_minimum_bytes: int = setting(
        1000, env="GZIP_MINIMUM_SIZE", guide=True, minimum=0, help="HTTP answers smaller than this are not compressed"
    )
    enable_cache: bool = setting(True, env="ENABLE_CACHE", guide=True, help="look answers up in the response cache")
    cache_timeout_s: float = setting(
        0.02,
        env="CACHE_LOOKUP_TIMEOUT_S",
        minimum=0.001,
        maximum=5,
        help="how long a look-up may take; then it is a miss",
    )
    semantic_embedding_timeout_s: float = setting(
        1.0,
        env="SEMANTIC_EMBEDDING_TIMEOUT_S",
        minimum=0.01,
        maximum=30,
        help="how long the embedding for a look-up by meaning may take; then it is a miss",
    )
    semantic_verify_per_minute: int = setting(
        30,
        env="SEMANTIC_VERIFY_PER_MINUTE",
        minimum=0,
        help="most hits by meaning that are compared with a fresh answer, in a minute",
    )
    cache_scope: CacheScope = setting(
        "tenant",
        env="CACHE_SCOPE",
        choices=("tenant", "user", "key"),
        help="whom a kept answer may be given to at most; aliases and requests may say fewer",
    )
    cache_refusal_ttl_s: float = setting(
        0.0,
        env="CACHE_REFUSAL_TTL_S",
        minimum=0,
        maximum=60,
        help="how long a refusal that would come again is kept, in seconds; 0 keeps none",
    )
    flight_wait_s: float = setting(
        60.0,
        env="FLIGHT_WAIT_S",
        minimum=0.1,
        help="how long a request waits for the first token of another one that asks the same; then it asks by itself",
    )
    enable_routing_cache: bool = setting(
        True, env="ENABLE_ROUTING_CACHE", guide=True, help="keep the shortlist of each class of requests"
    )
    routing_cache_ttl_s: int = setting(
        300, env="ROUTING_CACHE_TTL", guide=True, minimum=1, help="how long a shortlist is kept, in seconds"
    )
    max_attempts: int = setting(
        3, env="MAX_ATTEMPTS", minimum=1, maximum=10, help="most upstream calls for one request, the first included"
    )
    max_retry_wait_s: float = setting(
        2.0, env="MAX_RETRY_WAIT_S", minimum=0, help="longest wait before the same model is tried again"
    )
    budget_wait_s: float = setting(
        5.0,
        env="BUDGET_WAIT_S",
        minimum=0,
        help="how long a call may wait for what calls under way leave of a budget, before it is refused",
    )
    journal_max_bytes: int = setting(
        512 * 1024 * 1024, env="JOURNAL_MAX_BYTES", minimum=65536, help="size of the journal at which calls are refused"
    )
    journal_fsync: bool = setting(
        False, env="JOURNAL_FSYNC", help="whether the journal survives power loss, at some ms a call"
    )
