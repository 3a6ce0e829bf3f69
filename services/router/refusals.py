"""Refusals that the same request would meet again, remembered for seconds: who repeats it is told so at once.

Off unless the operator says how long. What a model itself refuses is an answer, and is kept by the response cache.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from modelmuxer.cache.v1.cache_pb2 import CacheKey

from services.router import cacheability
from shared.errors import MeshError

MOST_REFUSALS = 10_000

_Place = tuple[str, bytes]


class Refusals:
    """Errors by cache key. ``clock`` returns monotonic seconds."""

    def __init__(self, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl_s = ttl_s
        self._clock = clock
        self._errors: OrderedDict[_Place, tuple[MeshError, float]] = OrderedDict()

    def note(self, key: CacheKey | None, error: MeshError) -> None:
        """Remembers an error, if it is one that would come again."""
        if key is None or self._ttl_s <= 0 or not cacheability.deterministic(error.reason):
            return
        place = key.tenant, key.digest
        self._errors[place] = error, self._clock() + self._ttl_s
        self._errors.move_to_end(place)
        if len(self._errors) > MOST_REFUSALS:
            self._errors.popitem(last=False)

    def check(self, key: CacheKey, request_id: str) -> None:
        """Raises what the same request was refused with, as this request's own."""
        found = self._errors.get((key.tenant, key.digest))
        if found is None:
            return
        error, until_s = found
        if self._clock() >= until_s:
            del self._errors[key.tenant, key.digest]
            return
        raise MeshError(
            error.reason,
            error.message,
            code=error.code,
            metadata={**error.metadata, "request_id": request_id},
            details=error.details,
            field=error.field,
        )
