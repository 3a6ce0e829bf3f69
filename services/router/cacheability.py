"""What may be looked up and what may be kept: pure rules of the response cache.

The cache service keeps what it is given; whether an answer may be cached at all is decided here.
"""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from modelmuxer.chat.v1.chat_pb2 import CacheControl, ChatRequest, Completed, FinishReason

from shared.catalogue import Alias

# A tool call asks for an act, which is not repeated by itself; what a cap or a filter cut is not the answer.
_WHOLE = frozenset({FinishReason.FINISH_REASON_STOP, FinishReason.FINISH_REASON_STOP_SEQUENCE})


@dataclass(frozen=True, slots=True)
class CachePlan:
    """What the cache may do for one request; `bypass` says why nothing is looked up."""

    look_up: bool
    store: bool
    bypass: str = ""
    max_age: Duration | None = None
    ttl: Duration | None = None
    stale: Duration | None = None
    """How much older than max_age it may be, if a new one is made meanwhile."""
    share: bool = False
    """Whether a request that asks the same at the same time may have the same answer."""


def plan(chat: ChatRequest, alias: Alias | None, *, enabled: bool) -> CachePlan:
    """What the request, the alias and the settings allow."""
    control = chat.cache
    if not enabled:
        return CachePlan(look_up=False, store=False, bypass="the cache is switched off")
    if control.no_store:
        return CachePlan(look_up=False, store=False, bypass="the request says no_store")
    if chat.temperature > 0 and not (control.cache_sampled or (alias is not None and alias.cache_sampled)):
        return CachePlan(look_up=False, store=False, bypass=f"the temperature is set to {chat.temperature:g}")
    ttl = _ttl(control, alias)
    if control.no_cache:
        return CachePlan(look_up=False, store=True, bypass="the request says no_cache", ttl=ttl)
    return CachePlan(
        look_up=True,
        store=True,
        max_age=_max_age(control, alias),
        ttl=ttl,
        stale=control.stale_while_revalidate if control.HasField("stale_while_revalidate") else None,
        # A tool's call is an act of one caller; who wants only what is kept does not wait for what is made.
        share=not chat.tools and not control.only_if_cached,
    )


def _max_age(control: CacheControl, alias: Alias | None) -> Duration | None:
    """The shorter of the request's and the alias's time to live, beyond which answers are kept for those who take them
    stale.
    """
    own = Duration(seconds=alias.cache_ttl_s) if alias is not None and alias.cache_ttl_s else None
    if not control.HasField("max_age"):
        return own
    return control.max_age if own is None or control.max_age.ToNanoseconds() < own.ToNanoseconds() else own


def _ttl(control: CacheControl, alias: Alias | None) -> Duration | None:
    """The shorter of the request's and the alias's."""
    own = None
    if alias is not None and alias.cache_ttl_s:
        own = Duration(seconds=alias.cache_ttl_s + control.stale_while_revalidate.seconds)
    if not control.HasField("ttl"):
        return own
    return control.ttl if own is None or control.ttl.ToNanoseconds() < own.ToNanoseconds() else own


def storable(completed: Completed) -> bool:
    """Whether an answer that ended so may be kept."""
    return completed.finish_reason in _WHOLE
