"""What may be looked up and what may be kept: pure rules of the response cache.

The cache service keeps what it is given; whether an answer may be cached at all is decided here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from google.protobuf.duration_pb2 import Duration
from modelmuxer.chat.v1.chat_pb2 import CacheControl, CacheScope, ChatRequest, Completed, FinishReason

from shared import catalogue
from shared.catalogue import Alias
from shared.errors import Reason

# What a cap or a filter cut is not the answer.
_WHOLE = frozenset({FinishReason.FINISH_REASON_STOP, FinishReason.FINISH_REASON_STOP_SEQUENCE})
# Refusals that the same request meets again: none of them has to do with the moment, the account or the load.
_DETERMINISTIC = frozenset({Reason.CONTENT_POLICY, Reason.CONTEXT_TOO_LONG, Reason.PROVIDER_INVALID_REQUEST})

_WIDTHS: dict[CacheScope, catalogue.CacheScope] = {
    CacheScope.CACHE_SCOPE_TENANT: "tenant",
    CacheScope.CACHE_SCOPE_USER: "user",
    CacheScope.CACHE_SCOPE_KEY: "key",
}
_NARROWEST_FIRST: tuple[catalogue.CacheScope, ...] = ("key", "user", "tenant")


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
    width: catalogue.CacheScope = "tenant"
    """Whom a kept answer may be given to."""
    tool_calls: bool = False
    """Whether an answer that calls tools may be kept."""
    refusal_ttl: Duration | None = None
    """How long a refusal may be kept, if it may."""


UNASKED = CachePlan(look_up=True, store=True)
"""What is allowed where nobody asks for more."""


def plan(
    chat: ChatRequest,
    alias: Alias | None,
    *,
    enabled: bool,
    widest: catalogue.CacheScope = "tenant",
    refusal_ttl_s: float = 0.0,
) -> CachePlan:
    """What the request, the alias and the settings allow."""
    control = chat.cache
    if not enabled:
        return CachePlan(look_up=False, store=False, bypass="the cache is switched off")
    if control.no_store:
        return CachePlan(look_up=False, store=False, bypass="the request says no_store")
    if chat.temperature > 0 and not (control.cache_sampled or (alias is not None and alias.cache_sampled)):
        return CachePlan(look_up=False, store=False, bypass=f"the temperature is set to {chat.temperature:g}")
    tool_calls = control.cache_tool_calls or (alias is not None and alias.cache_tool_calls)
    allowed = CachePlan(
        look_up=True,
        store=True,
        max_age=_max_age(control, alias),
        ttl=_ttl(control, alias),
        stale=control.stale_while_revalidate if control.HasField("stale_while_revalidate") else None,
        # A tool's call is an act of one caller; who wants only what is kept does not wait for what is made.
        share=(tool_calls or not chat.tools) and not control.only_if_cached,
        width=_narrowest(widest, alias.cache_scope if alias is not None else "tenant", _WIDTHS.get(control.scope)),
        refusal_ttl=_seconds(refusal_ttl_s) if refusal_ttl_s > 0 else None,
        tool_calls=tool_calls,
    )
    if control.no_cache:
        return replace(allowed, look_up=False, share=False, bypass="the request says no_cache")
    return allowed


def _narrowest(*widths: catalogue.CacheScope | None) -> catalogue.CacheScope:
    return next(width for width in _NARROWEST_FIRST if width in widths)


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


def _seconds(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def storable(completed: Completed, allowed: CachePlan) -> bool:
    """Whether an answer that ended so may be kept. One that calls tools, or whose provider ran some, has done or asks
    for an act, which is not repeated unless the request or the alias says so. A refusal is kept for its own short time.
    """
    if not allowed.store:
        return False
    reason = completed.finish_reason
    if reason == FinishReason.FINISH_REASON_REFUSAL:
        return allowed.refusal_ttl is not None and not completed.usage.server_tool_calls
    if reason == FinishReason.FINISH_REASON_TOOL_USE or completed.usage.server_tool_calls:
        return allowed.tool_calls and (reason in _WHOLE or reason == FinishReason.FINISH_REASON_TOOL_USE)
    return reason in _WHOLE


def deterministic(reason: str) -> bool:
    """Whether the same request would be refused again for this reason."""
    return reason in _DETERMINISTIC
