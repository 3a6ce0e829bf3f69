"""The decision cache: shortlists by catalogue version and request class, so that a class is sifted only now and then.

What it keeps depends on nothing but its key. Live state, length, scores and order are applied to each request afresh.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from modelmuxer.accounting.v1.accounting_pb2 import Principal
from modelmuxer.chat.v1.chat_pb2 import ChatRequest

from services.router.shortlist import Asked, Shortlist, needs, resolve, static_shortlist
from shared.catalogue import Catalogue

MAX_CLASSES = 4096

Decision = tuple[Asked, Shortlist]


class Decisions:
    """Resolves names and sifts models. A time to live of 0 keeps nothing."""

    def __init__(self, *, ttl_s: float, clock: Callable[[], float] = monotonic) -> None:
        self._ttl_s = ttl_s
        self._clock = clock
        self._kept: dict[tuple[object, ...], tuple[Decision, float]] = {}

    def static(self, catalogue: Catalogue, principal: Principal, chat: ChatRequest) -> Decision:
        """What is asked for, and which models may answer it. Raises UNKNOWN_MODEL."""
        needed, routing = needs(chat), chat.routing
        request_class = (
            catalogue.version,
            principal.tenant,
            *principal.models,
            None,
            chat.model,
            needed,
            tuple(routing.fallbacks),
            frozenset(routing.only_providers),
            frozenset(routing.exclude_providers),
        )
        now_s = self._clock()
        kept = self._kept.get(request_class)
        if kept is not None and now_s - kept[1] < self._ttl_s:
            return kept[0]
        asked = resolve(catalogue, chat.model, routing.fallbacks)
        decision = asked, static_shortlist(catalogue, asked, needed, routing, principal.models)
        if self._ttl_s:
            if len(self._kept) >= MAX_CLASSES:
                self._kept.clear()
            self._kept[request_class] = decision, now_s
        return decision
