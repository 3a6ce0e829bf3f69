"""What was looked up and what it saved, by tenant. Bounded: tenants beyond the first thousand are counted together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from modelmuxer.cache.v1.cache_pb2 import TenantStats

MOST_TENANTS: Final = 1_000
_OTHERS: Final = ""


class Tally:
    """Counts since the process started."""

    def __init__(self) -> None:
        self._tenants: dict[str, TenantStats] = {}

    def of(self, tenant: str) -> TenantStats:
        """A tenant's counts, to be added to."""
        if (stats := self._tenants.get(tenant)) is None:
            name = tenant if len(self._tenants) < MOST_TENANTS else _OTHERS
            stats = self._tenants.setdefault(name, TenantStats(tenant=name))
        return stats

    def __iter__(self) -> Iterator[TenantStats]:
        """The counts, of the busiest first."""
        return iter(sorted(self._tenants.values(), key=lambda each: -(each.hits + each.misses + each.follows)))
