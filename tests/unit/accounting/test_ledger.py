"""Whatever order facts come in and however often, an attempt is one entry, and the best witness prices it."""

import random
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelmuxer.accounting.v1.accounting_pb2 import (
    ENTRY_STATE_ESTIMATED,
    ENTRY_STATE_PENDING,
    ENTRY_STATE_POSTED,
    ENTRY_STATE_VOIDED,
    Announced,
    Billed,
    BillingContext,
    CacheHit,
    Entry,
    JournalRecord,
    Outcome,
    Price,
    PriceRow,
    Principal,
)
from modelmuxer.chat.v1.chat_pb2 import (
    USAGE_SOURCE_CACHE,
    USAGE_SOURCE_ESTIMATED,
    USAGE_SOURCE_PARTIAL,
    USAGE_SOURCE_PROVIDER,
    USAGE_SOURCE_UNSPECIFIED,
    Usage,
    UsageSource,
)

from services.accounting import ledger
from services.accounting.ledger import Attempt, MalformedRecord

CONTEXT = BillingContext(
    principal=Principal(tenant="acme", user="ann", key_id="key_1"),
    price=Price(version="v1", rows=[PriceRow(input=2_000_000, output=10_000_000, cached_input=0)]),  # 2 and 10 a token
    request_id="req_1",
    attempt_number=2,
    operation_id="op",
    run_id="run",
    tags={"team": "search"},
    requested_model="fast",
).SerializeToString()
PLACE: dict[str, Any] = {"provider": "openai", "model": "openai/m", "deployment": "openai/m@openai", "region": "eu"}
SOURCES = [USAGE_SOURCE_UNSPECIFIED, USAGE_SOURCE_PROVIDER, USAGE_SOURCE_PARTIAL, USAGE_SOURCE_ESTIMATED]


def record(kind: str, fact: Announced | Outcome | CacheHit, seconds: int = 100) -> JournalRecord:
    told: dict[str, Any] = {kind: fact}
    made = JournalRecord(id=f"a/{kind}", attempt_id="a", witness="w", **told)
    made.time.seconds = seconds
    return made


def announced(estimate: int = 5) -> JournalRecord:
    fact = Announced(billing_context=CONTEXT, estimated_input_tokens=estimate, **PLACE)
    return record("announced", fact)


def ending(
    kind: str = "outcome",
    source: UsageSource = USAGE_SOURCE_PROVIDER,
    input_tokens: int | None = 10,
    output_tokens: int | None = 20,
    *,
    unbilled: bool = False,
    status: str = "OK",
) -> JournalRecord:
    usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens, source=source)
    fact = Outcome(
        usage=usage, status=status, unbilled=unbilled, provider_request_id=kind, billing_context=CONTEXT, **PLACE
    )
    return record(kind, fact, 101)


def entry_of(*records: JournalRecord) -> Entry:
    (attempt,) = ledger.merge_all(map(ledger.attempt_of, records)).values()
    return ledger.entry(attempt)


def test_an_attempt_is_pending_until_somebody_tells_its_end() -> None:
    entry = entry_of(announced())
    assert (entry.state, entry.cost_nanos) == (ENTRY_STATE_PENDING, 0)
    assert (entry.principal.tenant, entry.model, entry.request_id, entry.attempt_number) == (
        "acme",
        "openai/m",
        "req_1",
        2,
    )
    assert entry.create_time.seconds == 100


def test_what_the_provider_stated_is_posted_at_the_price_of_the_reservation() -> None:
    entry = entry_of(announced(), ending())
    assert (entry.state, entry.cost_nanos, entry.price_version) == (ENTRY_STATE_POSTED, 10 * 2 + 20 * 10, "v1")
    assert (entry.operation_id, entry.run_id, dict(entry.tags), entry.requested_model) == (
        *("op", "run", {"team": "search"}),
        "fast",
    )


@pytest.mark.parametrize("source", [USAGE_SOURCE_PARTIAL, USAGE_SOURCE_ESTIMATED])
def test_what_nobody_stated_in_whole_is_marked_as_an_estimate(source: UsageSource) -> None:
    entry = entry_of(announced(), ending(source=source, input_tokens=None))
    assert (entry.state, entry.usage.source) == (ENTRY_STATE_ESTIMATED, source)
    assert (entry.usage.input_tokens, entry.cost_nanos) == (5, 5 * 2 + 20 * 10)


def test_what_was_not_billed_is_voided() -> None:
    entry = entry_of(announced(), ending(unbilled=True, status="UNAVAILABLE"))
    assert (entry.state, entry.cost_nanos, entry.status) == (ENTRY_STATE_VOIDED, 0, "UNAVAILABLE")


def test_an_answer_from_the_cache_costs_nothing() -> None:
    hit = CacheHit(billing_context=CONTEXT, model="openai/m", provider="openai", saved_nanos=77)
    entry = entry_of(record("cache_hit", hit))
    assert (entry.state, entry.cost_nanos, entry.saved_nanos) == (ENTRY_STATE_POSTED, 0, 77)
    assert entry.usage.source == USAGE_SOURCE_CACHE
    assert ledger.amounts(entry) == ledger.Amounts(saved_nanos=77, cache_hits=1)


@pytest.mark.parametrize(
    ("outcome", "observed", "winner"),
    [
        (ending("outcome"), ending("observed", output_tokens=99), "outcome"),
        (
            ending("outcome", USAGE_SOURCE_PARTIAL),
            ending("observed", USAGE_SOURCE_PARTIAL, output_tokens=99),
            "outcome",
        ),
        (ending("outcome", USAGE_SOURCE_ESTIMATED), ending("observed", USAGE_SOURCE_PARTIAL), "observed"),
        (
            ending("outcome", USAGE_SOURCE_ESTIMATED, output_tokens=0),
            ending("observed", USAGE_SOURCE_ESTIMATED),
            "observed",
        ),
        (ending("outcome", USAGE_SOURCE_ESTIMATED), ending("observed", USAGE_SOURCE_ESTIMATED), "outcome"),
        (ending("outcome", unbilled=True), ending("observed", USAGE_SOURCE_PARTIAL), "outcome"),
    ],
)
def test_the_better_witness_wins(outcome: JournalRecord, observed: JournalRecord, winner: str) -> None:
    for order in permutations([announced(), outcome, observed]):
        assert entry_of(*order).provider_request_id == winner


def test_an_abandoned_attempt_is_an_estimate_until_its_outcome_comes_after_all() -> None:
    abandoned = ledger.attempt_of(announced())._replace(abandoned=True)
    entry = ledger.entry(abandoned)
    assert (entry.state, entry.cost_nanos, entry.reason) == (ENTRY_STATE_ESTIMATED, 5 * 2, "OUTCOME_UNKNOWN")
    late = ledger.entry(ledger.merge(abandoned, ledger.attempt_of(ending())))
    assert (late.state, late.cost_nanos, late.reason) == (ENTRY_STATE_POSTED, 220, "")


def test_contradictory_usage_is_priced_by_its_totals_and_marked() -> None:
    told = ending()
    told.outcome.usage.cached_input_tokens = 11
    entry = entry_of(announced(), told)
    assert (entry.state, entry.cost_nanos) == (ENTRY_STATE_ESTIMATED, 220)


@pytest.mark.parametrize("price", [Price(), Price(version="v", rows=[PriceRow(input=1, above_input_tokens=1000)])])
def test_what_has_no_price_that_applies_is_marked(price: Price) -> None:
    told = ending()
    told.outcome.billing_context = BillingContext(price=price).SerializeToString()
    entry = entry_of(told)
    assert (entry.state, entry.cost_nanos) == (ENTRY_STATE_ESTIMATED, 0)


@pytest.mark.parametrize(
    "broken",
    [
        JournalRecord(id="a/x", attempt_id="a"),
        JournalRecord(id="a/announced", announced=Announced()),
        record("announced", Announced(billing_context=b"\xff\xff")),
        record("announced", Announced(estimated_input_tokens=-1)),
        record("outcome", Outcome(usage=Usage(output_tokens=-1))),
        record("outcome", Outcome(usage=Usage(input_tokens=2**62))),
        record("observed", Outcome(usage=Usage(server_tool_calls={"web_search": -5}))),
        record("cache_hit", CacheHit(saved_nanos=-1)),
        record("announced", Announced(), -1),
    ],
)
def test_what_can_be_no_fact_is_refused(broken: JournalRecord) -> None:
    with pytest.raises(MalformedRecord):
        ledger.attempt_of(broken)


counts = st.integers(0, 1000)
endings = st.builds(
    lambda kind, source, tokens, unbilled, bare, status: _bared(
        ending(kind, source, tokens[0], tokens[1], unbilled=unbilled, status=status), bare
    ),
    st.sampled_from(["outcome", "observed"]),
    st.sampled_from(SOURCES),
    st.tuples(st.none() | counts, st.none() | counts),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["OK", "UNAVAILABLE", "CANCELLED"]),
)
facts = st.one_of(
    st.builds(announced, counts),
    endings,
    st.builds(lambda saved: record("cache_hit", CacheHit(billing_context=CONTEXT, saved_nanos=saved)), counts),
)


def _bared(told: JournalRecord, bare: bool) -> JournalRecord:
    if bare:
        getattr(told, told.WhichOneof("fact") or "").ClearField("billing_context")
    return told


def _fold(records: list[JournalRecord]) -> Attempt:
    (attempt,) = ledger.merge_all(map(ledger.attempt_of, records)).values()
    return attempt


@settings(max_examples=300)
@given(st.lists(facts, min_size=1, max_size=7), st.randoms(use_true_random=False))
def test_any_order_and_any_repetition_give_the_same_entry(records: list[JournalRecord], chance: random.Random) -> None:
    once = _fold(records)
    repeated = records + chance.choices(records, k=5)
    chance.shuffle(repeated)
    cut = chance.randrange(1, len(repeated))
    by_batches = ledger.merge(_fold(repeated[:cut]), _fold(repeated[cut:]))
    assert by_batches == once
    assert ledger.merge(once, once) == once
    assert ledger.entry(by_batches) == ledger.entry(once)


def billed(cost_nanos: int, *, absent: bool = False, seconds: int = 200) -> JournalRecord:
    fact = Billed(cost_nanos=cost_nanos, input_tokens=3, output_tokens=4, absent=absent)
    if absent:
        fact = Billed(absent=True)
    fact.read_time.seconds = seconds
    made = JournalRecord(id="a/billed", attempt_id="a", witness="key_1", billed=fact)
    made.time.seconds = seconds
    return made


def test_a_bill_settles_an_estimate() -> None:
    entry = entry_of(announced(), ending(source=USAGE_SOURCE_ESTIMATED), billed(999))
    assert (entry.state, entry.cost_nanos, entry.billed) == (ENTRY_STATE_POSTED, 999, True)
    assert (entry.usage.input_tokens, entry.usage.output_tokens, entry.create_time.seconds) == (3, 4, 100)


def test_an_estimate_that_is_not_on_the_bill_is_voided() -> None:
    entry = entry_of(announced(), ending(source=USAGE_SOURCE_PARTIAL), billed(0, absent=True))
    assert (entry.state, entry.cost_nanos, entry.usage.output_tokens) == (ENTRY_STATE_VOIDED, 0, 0)


def test_a_void_that_is_on_the_bill_is_posted() -> None:
    entry = entry_of(announced(), ending(unbilled=True), billed(999))
    assert (entry.state, entry.cost_nanos) == (ENTRY_STATE_POSTED, 999)


@pytest.mark.parametrize("records", list(permutations([announced(), ending(), billed(0, absent=True)])))
def test_what_the_provider_stated_with_the_call_outranks_its_bill(records: tuple[JournalRecord, ...]) -> None:
    entry = entry_of(*records)
    assert (entry.state, entry.cost_nanos, entry.billed) == (ENTRY_STATE_POSTED, 10 * 2 + 20 * 10, False)


@pytest.mark.parametrize("records", list(permutations([billed(5), billed(7, seconds=300), billed(6, seconds=250)])))
def test_of_two_bills_the_later_one_holds(records: tuple[JournalRecord, ...]) -> None:
    assert entry_of(announced(), ending(source=USAGE_SOURCE_ESTIMATED), *records).cost_nanos == 7


def test_a_bill_does_not_end_an_attempt_that_still_runs() -> None:
    assert entry_of(announced(), billed(5)).state == ENTRY_STATE_PENDING
