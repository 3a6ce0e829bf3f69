"""What the service asks of a store. Keys hold the tenant; values and notes are opaque bytes.

Times are relative, ages and times left, so that no two clocks need to agree.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Key(NamedTuple):
    """Where an answer stands."""

    tenant: str
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What is known of an answer beside its bytes: what it is invalidated by, what a hit saves, how it is found."""

    alias: str = ""
    """The alias that was asked for; empty if a model was pinned."""
    model: str = ""
    """The model that answered."""
    tags: tuple[str, ...] = ()
    cost_nanos: int = 0
    """What the answer cost when it was made, which is what a hit saves."""
    note: bytes = b""
    """The service's own words on the answer, kept beside it (what a semantic index is rebuilt from)."""


NOTHING = About()


@dataclass(frozen=True, slots=True)
class Found:
    """A stored value."""

    value: bytes
    age_s: float
    left_s: float
    about: About = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which answers are meant: those that have everything that is given here. Nothing given means all."""

    tenant: str = ""
    alias: str = ""
    model: str = ""
    tag: str = ""
    prefix: str = ""
    """How the key's digest begins, in hex."""

    def covers(self, key: Key, about: About) -> bool:
        """Whether an answer is meant."""
        return (
            (not self.tenant or self.tenant == key.tenant)
            and (not self.alias or self.alias == about.alias)
            and (not self.model or self.model == about.model)
            and (not self.tag or self.tag in about.tags)
            and (not self.prefix or key.digest.hex().startswith(self.prefix))
        )


class Mark:
    """A moment among a tenant's invalidations. Only the store that made it can read it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a store holds. Where others share its server, theirs is counted with it."""

    entries: int
    size_bytes: int
    max_bytes: int
    """0 where the store has no bound of its own."""
    evicted: int
    """Answers that had to make room, since the store began."""


class StoreError(Exception):
    """A store that cannot do what has to be done: a sentence that says why. Look-ups and puts never raise it."""


class Store(Protocol):
    """Answers by key, each for a time. What is down, slow or full costs misses and nothing else."""

    @property
    def largest_bytes(self) -> int:
        """What one entry may take. No larger value is worth offering."""

    async def get(self, key: Key) -> Found | None:
        """Returns an answer, unless it is missing, was invalidated, or has outlived its time."""

    async def put(
        self, key: Key, value: bytes, ttl_s: float, about: About = NOTHING, *, since: Mark | None = None
    ) -> bool:
        """Stores an answer for a time, in place of an earlier one. False if it is not kept.

        An answer that was begun at `since` falls under every invalidation after that moment, as if stored then.
        """

    async def mark(self, tenant: str) -> Mark | None:
        """This moment, for an answer that begins now and is put later. None if the store cannot tell."""

    async def delete(self, key: Key) -> None:
        """Removes one answer. Raises StoreError if that is not sure to have happened."""

    async def invalidate(self, selection: Selection) -> None:
        """From the return on no store that shares the data serves what is selected now. Raises StoreError if not."""

    def entries(self) -> AsyncIterator[tuple[Key, Found]]:
        """Every answer that a get would find, in no order. What comes or goes meanwhile may be missed. StoreError."""

    async def stats(self) -> Stats:
        """What the store holds. Raises StoreError."""

    async def close(self) -> None:
        """Lets go of what the store holds open."""
