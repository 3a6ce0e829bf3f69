"""What the service asks of a store. Keys hold the tenant; values are opaque bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Key(NamedTuple):
    """Where an answer stands."""

    tenant: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """A stored value."""

    value: bytes
    age_s: float


class Store(Protocol):
    """Values by key, each for a time."""

    @property
    def largest_bytes(self) -> int:
        """What one entry may take. No larger value is worth offering."""

    async def get(self, key: Key) -> Found | None:
        """Returns the value of a key, unless it is missing or has outlived its time."""

    async def put(self, key: Key, value: bytes, ttl_s: float) -> bool:
        """Stores a value for a time, in place of an earlier one. False if it is too large to be worth the room."""
