"""The ledger: facts about an attempt, in whatever order and however often they come, become one entry.

What is known of an attempt only grows: `merge` is a join, so order and repetition cannot matter, and `entry` derives
the rest. Between witnesses of an attempt's end the better source wins (PROVIDER > PARTIAL > ESTIMATED), then the proxy
over the router; where both only estimate, whoever saw more. A provider's bill settles what is estimated or voided,
never what the provider itself had stated with the call. Keeping facts and sums is the store's business.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

from google.protobuf.message import DecodeError
from modelmuxer.accounting.v1.accounting_pb2 import (
    ENTRY_STATE_ESTIMATED,
    ENTRY_STATE_PENDING,
    ENTRY_STATE_POSTED,
    ENTRY_STATE_VOIDED,
    Billed,
    BillingContext,
    Entry,
    EntryState,
    JournalRecord,
    Outcome,
    Price,
)
from modelmuxer.chat.v1.chat_pb2 import (
    USAGE_SOURCE_CACHE,
    USAGE_SOURCE_ESTIMATED,
    USAGE_SOURCE_PARTIAL,
    USAGE_SOURCE_PROVIDER,
    Usage,
)

from shared.pricing import cost_nanos, estimate_nanos

OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
"""The reason of an entry whose end nobody told."""

MAX_TOKENS = 10**9  # of one call, far beyond any model's context
MAX_NANOS = 10**15  # of one call: a million dollars; sums have to stay within 64 bits
_RANKS = {USAGE_SOURCE_PROVIDER: 3, USAGE_SOURCE_PARTIAL: 2}
_COUNTS = (
    *("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "cache_write_1h_tokens"),
    *("reasoning_tokens", "input_audio_tokens", "output_audio_tokens"),
)
_counts = attrgetter(*_COUNTS)


class MalformedRecord(ValueError):
    """A record that can be no fact. The message says why."""


class Place(NamedTuple):
    """Where an attempt went."""

    provider: str = ""
    model: str = ""
    deployment: str = ""
    region: str = ""


NOWHERE = Place()


class Attempt(NamedTuple):
    """All that is known of one attempt, or of one answer from the cache. Times are nanoseconds since 1970."""

    id: str
    seen_ns: int
    """The earliest fact."""
    announced_ns: int | None = None
    estimated_input_tokens: int = 0
    context: bytes = b""
    """A serialised BillingContext."""
    place: Place = NOWHERE
    outcome: bytes = b""
    """How the proxy saw it end: a serialised Outcome without context and place, or nothing."""
    observed: bytes = b""
    """How the router saw it end."""
    saved_nanos: int | None = None
    """What a cache hit saved; None where there was none."""
    abandoned: bool = False
    """Nobody is expected to tell its end any more."""
    billed: bytes = b""
    """What the provider's bill says: a serialised Billed, or nothing."""

    @property
    def created_ns(self) -> int:
        return self.seen_ns if self.announced_ns is None else self.announced_ns


class Settlement(NamedTuple):
    """What an attempt came to."""

    state: EntryState
    usage: Usage
    cost_nanos: int = 0
    saved_nanos: int = 0
    status: str = ""
    reason: str = ""
    provider_request_id: str = ""
    billed: bool = False


class Amounts(NamedTuple):
    """What an entry adds to the sums of its hour."""

    cost_nanos: int = 0
    estimated_nanos: int = 0
    saved_nanos: int = 0
    attempts: int = 0
    cache_hits: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


def attempt_of(record: JournalRecord) -> Attempt:
    """What one record tells. Raises MalformedRecord."""
    kind = record.WhichOneof("fact")
    if not record.attempt_id or not record.id or kind is None:
        raise MalformedRecord("The record lacks its id, its attempt or its fact")
    time_ns = record.time.seconds * 1_000_000_000 + record.time.nanos
    if not 0 <= time_ns < 1 << 63:
        raise MalformedRecord("The record's time is out of range")
    if kind == "announced":
        told = record.announced
        _check("estimated_input_tokens", told.estimated_input_tokens, MAX_TOKENS)
        return Attempt(
            id=record.attempt_id,
            seen_ns=time_ns,
            announced_ns=time_ns,
            estimated_input_tokens=told.estimated_input_tokens,
            context=_checked_context(told.billing_context),
            place=Place(told.provider, told.model, told.deployment, told.region),
        )
    if kind == "cache_hit":
        hit = record.cache_hit
        _check("saved_nanos", hit.saved_nanos, MAX_NANOS)
        return Attempt(
            id=record.attempt_id,
            seen_ns=time_ns,
            saved_nanos=hit.saved_nanos,
            context=_checked_context(hit.billing_context),
            place=Place(hit.provider, hit.model),
        )
    if kind == "billed":
        return Attempt(id=record.attempt_id, seen_ns=time_ns, billed=_checked_bill(record.billed))
    ending = record.outcome if kind == "outcome" else record.observed
    bare = _bare(ending)
    return Attempt(
        id=record.attempt_id,
        seen_ns=time_ns,
        context=_checked_context(ending.billing_context),
        place=Place(ending.provider, ending.model, ending.deployment, ending.region),
        outcome=bare if kind == "outcome" else b"",
        observed=bare if kind == "observed" else b"",
    )


def merge(one: Attempt, other: Attempt) -> Attempt:
    """What both tell of the same attempt. Commutative, associative, idempotent."""
    return Attempt(
        id=one.id,
        seen_ns=min(one.seen_ns, other.seen_ns),
        announced_ns=_known(min, one.announced_ns, other.announced_ns),
        estimated_input_tokens=max(one.estimated_input_tokens, other.estimated_input_tokens),
        context=max(one.context, other.context),
        place=max(one.place, other.place),
        outcome=_better(one.outcome, other.outcome),
        observed=_better(one.observed, other.observed),
        saved_nanos=_known(max, one.saved_nanos, other.saved_nanos),
        abandoned=one.abandoned or other.abandoned,
        billed=max(one.billed, other.billed, key=_read_ns),
    )


def merge_all(attempts: Iterable[Attempt]) -> dict[str, Attempt]:
    """Attempts by id, what belongs together merged."""
    merged: dict[str, Attempt] = {}
    for attempt in attempts:
        known = merged.get(attempt.id)
        merged[attempt.id] = merge(known, attempt) if known else attempt
    return merged


@lru_cache(maxsize=1024)
def context_of(serialized: bytes) -> BillingContext:
    """A billing context, to be read only: each record of an attempt carries the same. Raises DecodeError."""
    return BillingContext.FromString(serialized)


def settlement(attempt: Attempt) -> Settlement:
    """What the attempt came to, priced at the prices that its billing context carries."""
    settled = _settlement(attempt)
    if attempt.billed and settled.state in (ENTRY_STATE_ESTIMATED, ENTRY_STATE_VOIDED):
        return _corrected(settled, Billed.FromString(attempt.billed))
    return settled


def entry(attempt: Attempt) -> Entry:
    """The attempt's one line in the ledger."""
    context, settled = context_of(attempt.context), settlement(attempt)
    line = Entry(
        attempt_id=attempt.id,
        principal=context.principal,
        provider=attempt.place.provider,
        model=attempt.place.model,
        deployment=attempt.place.deployment,
        region=attempt.place.region,
        price_version=context.price.version,
        request_id=context.request_id,
        attempt_number=context.attempt_number,
        operation_id=context.operation_id,
        run_id=context.run_id,
        tags=context.tags,
        requested_model=context.requested_model,
        holds=context.holds,
        **settled._asdict(),
    )
    if settled.state == ENTRY_STATE_PENDING:
        line.ClearField("usage")
    line.create_time.seconds, line.create_time.nanos = divmod(attempt.created_ns, 1_000_000_000)
    return line


def amounts(line: Entry | Settlement) -> Amounts:
    """What an entry adds to sums. A hit costs nothing and is no upstream call."""
    if line.usage.source == USAGE_SOURCE_CACHE:
        return Amounts(saved_nanos=line.saved_nanos, cache_hits=1)
    cost_nanos, usage = line.cost_nanos, line.usage
    estimated_nanos = cost_nanos if line.state == ENTRY_STATE_ESTIMATED else 0
    return Amounts(cost_nanos, estimated_nanos, 0, 1, 0, usage.input_tokens, usage.output_tokens)


def hour_of(time_ns: int) -> int:
    """The hour since 1970 in which a time lies."""
    return time_ns // 3_600_000_000_000


def day_of(hour: int) -> str:
    """The UTC day of an hour since 1970."""
    return datetime.fromtimestamp(hour * 3600, UTC).strftime("%Y-%m-%d")


def _settlement(attempt: Attempt) -> Settlement:
    ending, other = _endings(attempt)
    if ending is not None:
        request_id = ending.provider_request_id or (other.provider_request_id if other else "")
        state, cost_nanos = _settle(ending, attempt)
        return Settlement(state, ending.usage, cost_nanos, 0, ending.status, ending.reason, request_id)
    if attempt.saved_nanos is not None and attempt.announced_ns is None:
        return Settlement(ENTRY_STATE_POSTED, Usage(source=USAGE_SOURCE_CACHE), 0, attempt.saved_nanos, "OK")
    if not attempt.abandoned:
        return Settlement(ENTRY_STATE_PENDING, Usage())
    unknown = Outcome(status="UNKNOWN", reason=OUTCOME_UNKNOWN)
    state, cost_nanos = _settle(unknown, attempt)
    return Settlement(state, unknown.usage, cost_nanos, 0, unknown.status, unknown.reason)


def _settle(ending: Outcome, attempt: Attempt) -> tuple[EntryState, int]:
    """State and cost of how it ended, whose usage is completed by what is estimated of it."""
    if ending.unbilled:
        return ENTRY_STATE_VOIDED, 0
    usage = ending.usage
    source = usage.source
    if source != USAGE_SOURCE_PROVIDER and not usage.HasField("input_tokens"):
        parts = usage.cached_input_tokens + usage.cache_write_tokens
        usage.input_tokens = max(attempt.estimated_input_tokens, parts)
    if source not in _RANKS:
        usage.source = USAGE_SOURCE_ESTIMATED
    cost_nanos, sure = _cost_nanos(context_of(attempt.context).price, usage)
    posted = sure and source == USAGE_SOURCE_PROVIDER
    return ENTRY_STATE_POSTED if posted else ENTRY_STATE_ESTIMATED, cost_nanos


def _corrected(settled: Settlement, billed: Billed) -> Settlement:
    return settled._replace(
        billed=True,
        cost_nanos=billed.cost_nanos,
        state=ENTRY_STATE_VOIDED if billed.absent else ENTRY_STATE_POSTED,
        provider_request_id=billed.provider_request_id or settled.provider_request_id,
        usage=Usage(input_tokens=billed.input_tokens, output_tokens=billed.output_tokens, source=USAGE_SOURCE_PROVIDER),
    )


def _cost_nanos(price: Price, usage: Usage) -> tuple[int, bool]:
    """What the usage costs, and whether that is sure. Usage whose parts contradict each other counts by its totals."""
    for sure in (True, False):
        with suppress(ValueError, ArithmeticError):
            cost = cost_nanos(price, usage) if sure else estimate_nanos(price, usage.input_tokens, usage.output_tokens)
            if 0 <= cost <= MAX_NANOS:
                return cost, sure
    return 0, False  # no price, or none that applies


def _endings(attempt: Attempt) -> tuple[Outcome | None, Outcome | None]:
    """How the attempt ended, as the better witness says, and as the other does."""
    outcome = Outcome.FromString(attempt.outcome) if attempt.outcome else None
    observed = Outcome.FromString(attempt.observed) if attempt.observed else None
    if outcome is None or observed is None:
        return outcome or observed, None
    rank, seen = _rank(outcome), _tokens(outcome)
    observed_rank, observed_seen = _rank(observed), _tokens(observed)
    if observed_rank > rank or (observed_rank == rank == 1 and observed_seen > seen):
        return observed, outcome
    return outcome, observed


def _better(one: bytes, other: bytes) -> bytes:
    """The better of two endings by the same witness, who contradicts itself at most after having lost its memory."""
    if not one or not other or one == other:
        return one or other
    return max(one, other, key=_weight)


def _weight(ending: bytes) -> tuple[int, int, bytes]:
    outcome = Outcome.FromString(ending)
    return _rank(outcome), _tokens(outcome), ending


def _rank(ending: Outcome) -> int:
    """Trust in what is told. That nothing is billed is the provider's own word."""
    return 3 if ending.unbilled else _RANKS.get(ending.usage.source, 1)


def _tokens(ending: Outcome) -> int:
    return ending.usage.output_tokens + ending.usage.input_tokens


def _bare(ending: Outcome) -> bytes:
    """The ending without what the attempt keeps elsewhere; never empty, so that it differs from none."""
    _check_usage(ending.usage)
    bare = Outcome()
    bare.CopyFrom(ending)
    for field in ("billing_context", "provider", "model", "deployment", "region"):
        bare.ClearField(field)
    if not bare.usage.source:
        bare.usage.source = USAGE_SOURCE_ESTIMATED
    return bare.SerializeToString(deterministic=True)


def _checked_context(context: bytes) -> bytes:
    try:
        context_of(context)
    except DecodeError:
        raise MalformedRecord("The billing context cannot be read") from None
    return context


def _checked_bill(billed: Billed) -> bytes:
    _check("cost_nanos", billed.cost_nanos, 0 if billed.absent else MAX_NANOS)
    _check("input_tokens", billed.input_tokens, MAX_TOKENS)
    _check("output_tokens", billed.output_tokens, MAX_TOKENS)
    return billed.SerializeToString(deterministic=True)


def _read_ns(billed: bytes) -> tuple[int, bytes]:
    return (Billed.FromString(billed).read_time.ToNanoseconds() if billed else -1), billed


def _check_usage(usage: Usage) -> None:
    counts = _counts(usage)
    if min(counts) < 0 or max(counts) > MAX_TOKENS:
        for name, count in zip(_COUNTS, counts, strict=True):
            _check(name, count, MAX_TOKENS)
    for name, calls in usage.server_tool_calls.items():
        _check(name, calls, MAX_TOKENS)


def _check(name: str, count: int, most: int) -> None:
    if not 0 <= count <= most:
        raise MalformedRecord(f"{name} is out of range: {count}")


def _known(choose: Callable[[int, int], int], one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return one if other is None else other
    return choose(one, other)
