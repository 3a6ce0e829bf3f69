"""What becomes known of one request on its walk through the router: from what is asked for to every attempt made."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp
from modelmuxer.cache.v1.cache_pb2 import CacheKey, FindSimilarResponse, SemanticQuestion
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.chat.v1.chat_pb2 import (
    CacheInfo,
    Candidate,
    ChatRequest,
    Completed,
    RateLimit,
    RoutingDecision,
    Started,
    UsageSource,
)

from services.router.cacheability import CachePlan
from services.router.call import Call
from services.router.scoring import Scored, Size
from services.router.shortlist import Asked, Shortlist
from shared.catalogue import Model


@dataclass(frozen=True, slots=True)
class Similar:
    """What the cache found for a question."""

    found: FindSimilarResponse
    hit: str
    """What verdicts name the hit by."""


@dataclass(slots=True, kw_only=True)
class Walk:
    """One request. Fields are filled in the order in which they stand."""

    call: Call
    chat: ChatRequest
    catalogue_version: str
    asked: Asked
    shortlist: Shortlist
    size: Size
    caps: tuple[int | None, ...]
    plan: CachePlan
    begun_s: float = field(default_factory=time.monotonic)
    begun_ns: int = field(default_factory=time.time_ns)
    upstream: Call | None = None
    """The call as providers are called for it, where those who share its answer may wait longer than its caller."""

    key: CacheKey | None = None
    flight: bytes = b""
    """By which the cache knows when this request's own answer began, where nobody shares it."""
    cache: CacheInfo = field(default_factory=CacheInfo)
    strategy: str = ""
    reason: str = ""
    ranked: list[Scored] = field(default_factory=list)
    attempts: list[chat_pb2.Attempt] = field(default_factory=list)
    ready_s: dict[str, float] = field(default_factory=dict)
    """When a model that failed may be asked again; one that is missing here was not asked yet."""

    question: SemanticQuestion | None = None
    """What was asked, by meaning, where a like question's answer may do."""
    nearly: Similar | None = None
    """A like question whose answer was not like enough to serve."""
    look_ups: list[chat_pb2.Attempt] = field(default_factory=list)
    """Upstream calls that were made to look the answer up: embeddings."""
    rate_limits: list[RateLimit] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def models(self) -> list[Model]:
        """Candidates, best first."""
        return [scored.option.model for scored in self.ranked]

    def decision(self) -> RoutingDecision:
        """The choice, explained."""
        return RoutingDecision(
            requested=self.chat.model or self.asked.name,
            strategy=self.strategy,
            reason=self.reason + self._failures(),
            candidates=[
                Candidate(
                    model=scored.option.model.id,
                    score=scored.score,
                    parts=scored.parts,
                    estimated_cost_nanos=scored.option.cost_nanos,
                )
                for scored in self.ranked
            ],
            excluded=[each.to_proto() for each in self.shortlist.excluded],
            catalogue_version=self.catalogue_version,
        )

    def introduce(self, started: Started, attempt: chat_pb2.Attempt, max_output_tokens: int | None) -> None:
        """Adds to the proxy's `started` what only the router knows."""
        self._sign(started)
        started.model = attempt.model
        started.attempt_id = attempt.id
        started.rate_limits.extend(self.rate_limits)
        if max_output_tokens is not None:
            started.max_output_tokens = max_output_tokens

    def complete(self, completed: Completed) -> None:
        """Adds to the proxy's `completed` what only the router knows: all attempts, and their cost."""
        completed.attempts.extend((*self.look_ups, *self.attempts))
        completed.cost.nanos = sum(attempt.cost.nanos for attempt in completed.attempts)
        completed.cost.price_version = self.attempts[-1].cost.price_version
        completed.cache.CopyFrom(self.cache)
        completed.warnings.extend(self.warnings)

    def begin_shared(self, started: Started, reason: str) -> None:
        """Turns the beginning of an answer that was made for another into this request's."""
        self.reason = reason
        self._sign(started)
        started.ClearField("attempt_id")
        started.ClearField("rate_limits")

    def end_shared(self, completed: Completed) -> None:
        """Turns the end of such an answer into this request's: nothing was used, nothing is paid."""
        completed.usage.source = UsageSource.USAGE_SOURCE_CACHE
        completed.ClearField("attempts")
        completed.attempts.extend(self.look_ups)
        completed.cost.nanos = sum(attempt.cost.nanos for attempt in self.look_ups)
        completed.ClearField("warnings")
        completed.cache.CopyFrom(self.cache)

    def _sign(self, started: Started) -> None:
        started.id = self.call.request_id
        started.create_time.CopyFrom(_timestamp(self.begun_ns))
        started.decision.CopyFrom(self.decision())
        started.cache.CopyFrom(self.cache)

    def _failures(self) -> str:
        failed = [f"{attempt.model} ({attempt.reason})" for attempt in self.attempts if attempt.reason]
        return f" It answers after {', '.join(failed)} failed." if failed else ""


def _timestamp(nanoseconds: int) -> Timestamp:
    seconds, nanos = divmod(nanoseconds, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)
