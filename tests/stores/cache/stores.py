"""Stores over real servers, each by a prefix of its own, so that tests share servers and meet no others' keys."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from services.cache.stores import Key, Store
from services.cache.stores.memory import MemoryStore
from services.cache.stores.redis import RedisStore
from services.cache.stores.redis.address import parse
from services.cache.stores.redis.encryption import KEY_BYTES, NO_KEYS, Keyring
from services.cache.stores.redis.servers import Limits, connect

LARGEST_BYTES = 1024 * 1024
# A busy machine is no reason to miss in tests of what is found. What is late is tested where faults are.
PATIENT = Limits(lookup_timeout_s=5, timeout_s=10, connect_timeout_s=10)
KEYRING = Keyring({"*": {"first": bytes(range(KEY_BYTES))}})


def new_prefix() -> str:
    """A prefix that no other test has, with what globs and quoting might stumble over."""
    return f"test*[{secrets.token_hex(4)}]:"


def key(number: int, tenant: str = "acme") -> Key:
    return Key(tenant, number.to_bytes(32, "big"))


@asynccontextmanager
async def redis_store(url: str, prefix: str = "", limits: Limits = PATIENT, **others: Any) -> AsyncIterator[RedisStore]:
    """A store in Redis."""
    options = {"prefix": prefix or new_prefix(), "largest_bytes": LARGEST_BYTES, "keyring": NO_KEYS, **others}
    store = RedisStore(connect(parse(url), limits), **options)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def memory_store() -> AsyncIterator[Store]:
    """A store in memory, as large as Redis's answers may be."""
    store = MemoryStore(8 * LARGEST_BYTES, time.monotonic)
    try:
        yield store
    finally:
        await store.close()
