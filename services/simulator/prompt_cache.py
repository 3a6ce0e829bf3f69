"""What the simulated providers remember of prompts: which prefixes were written to a cache, until when.

Bounded, and the same requests in the same order always read and write the same tokens.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_PREFIXES = 100_000
LIFETIMES_S = {"5m": 300.0, "1h": 3600.0}


class PromptCache:
    """Prefixes by digest, the least recently used dropped first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._expiry: OrderedDict[bytes, float] = OrderedDict()

    def has(self, digest: bytes, lifetime_s: float = LIFETIMES_S["5m"]) -> bool:
        """Whether a prefix is cached; reading it prolongs its life."""
        expires_at = self._expiry.get(digest)
        now = self._clock()
        if expires_at is None or expires_at < now:
            return False
        self._expiry[digest] = max(expires_at, now + lifetime_s)
        self._expiry.move_to_end(digest)
        return True

    def add(self, digest: bytes, lifetime_s: float = LIFETIMES_S["5m"]) -> None:
        self._expiry[digest] = self._clock() + lifetime_s
        self._expiry.move_to_end(digest)
        if len(self._expiry) > MAX_PREFIXES:
            self._expiry.popitem(last=False)

    def usage(self, prompt: bytes, tokens: int) -> tuple[int, int]:
        """Tokens (read, written) of a whole prompt: blocks of 128, as OpenAI caches."""
        digest = hashlib.blake2b(prompt, digest_size=16).digest()
        blocks = tokens // 128 * 128
        if self.has(digest):
            return blocks, 0
        self.add(digest)
        return 0, blocks
