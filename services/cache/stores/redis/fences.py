"""Invalidation without a scan: fences that every look-up reads with the answer. Pure.

Each tenant has one hash in Redis, and one stands for all tenants. It holds a random `birth`, a random `version` that
changes with every invalidation, and one random id per selection that was invalidated. An answer is stored with a stamp
over the ids that are meant for it then; it is served only while the same stamp comes out. All comparisons are for
equality and all ids random: no clock and no order matters, and a hash that was evicted, flushed or lost is born anew,
with another birth, so that nothing which it had invalidated can come back.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

import orjson

from services.cache.stores import About, Key, Mark, Selection

BIRTH = b"birth"
VERSION = b"version"
MOST_FENCES = 2_000
_STAMP_BYTES = 16

_Handle = tuple[str, str]


def new_id() -> bytes:
    """An id that no other has."""
    return secrets.token_hex(8).encode()


@dataclass(frozen=True, slots=True)
class Fences:
    """One hash as it was read."""

    version: bytes
    birth: bytes
    _by_handle: Mapping[_Handle, list[tuple[Selection, bytes]]] = field(repr=False)
    _prefix_lengths: frozenset[int] = frozenset()

    @classmethod
    def read(cls, fields: Mapping[bytes, bytes]) -> Fences | None:
        """From the hash's fields; None if it has not been born, or is not of this form."""
        if BIRTH not in fields or VERSION not in fields:
            return None
        by_handle: dict[_Handle, list[tuple[Selection, bytes]]] = defaultdict(list)
        lengths = set()
        for name, value in fields.items():
            if name in (BIRTH, VERSION):
                continue
            try:
                selection = Selection(**orjson.loads(name))
            except (ValueError, TypeError):
                return None
            by_handle[_handle(selection)].append((selection, value))
            if selection.prefix:
                lengths.add(len(selection.prefix))
        return cls(fields[VERSION], fields[BIRTH], by_handle, frozenset(lengths))

    def meant_for(self, key: Key, about: About) -> Iterator[bytes]:
        """The ids of the fences that an answer falls under."""
        if self._by_handle:
            for handle in self._handles(key, about):
                for selection, value in self._by_handle.get(handle, ()):
                    if selection.covers(key, about):
                        yield value

    def _handles(self, key: Key, about: About) -> Iterator[_Handle]:
        yield "alias", about.alias
        yield "model", about.model
        for tag in set(about.tags):
            yield "tag", tag
        digest = key.digest.hex() if self._prefix_lengths else ""
        for length in self._prefix_lengths:
            yield "prefix", digest[:length]


@dataclass(frozen=True, slots=True)
class Seen(Mark):
    """The fences of a tenant and of all tenants, as of one moment."""

    tenant: Fences
    all_tenants: Fences

    def stamp(self, key: Key, about: About) -> bytes:
        """What an answer that has seen these bears."""
        digest = blake2b(self.tenant.birth + b"/" + self.all_tenants.birth, digest_size=_STAMP_BYTES)
        for fences in (self.tenant, self.all_tenants):
            for value in sorted(fences.meant_for(key, about)):
                digest.update(b"/" + value)
            digest.update(b"//")
        return digest.digest()


def field_of(selection: Selection) -> bytes:
    """A selection as the name of its field. The tenant is the hash's."""
    wanted = {name: getattr(selection, name) for name in ("alias", "model", "tag", "prefix")}
    return orjson.dumps({name: value for name, value in wanted.items() if value}, option=orjson.OPT_SORT_KEYS)


def fence(now_s: float) -> bytes:
    """A new fence: an id, and when it was set, by which it is known to be needed no more."""
    return new_id() + b"@%d" % now_s


def outlived(fields: Mapping[bytes, bytes], before_s: float) -> list[bytes]:
    """The fields of fences that were set before a moment."""
    return [
        name
        for name, value in fields.items()
        if name not in (BIRTH, VERSION) and float(value.rpartition(b"@")[2] or 0) < before_s
    ]


def _handle(selection: Selection) -> _Handle:
    """The one of a selection's conditions that it is filed under."""
    for name in ("tag", "alias", "model"):
        if value := getattr(selection, name):
            return name, value
    return "prefix", selection.prefix
