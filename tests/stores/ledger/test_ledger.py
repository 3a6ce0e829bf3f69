"""The ledger in a store: one entry for each attempt, and sums that are those of the entries, whatever comes in whatever
order, from however many clients."""

import asyncio
import random
import time
from collections import Counter, defaultdict

import pytest
from modelmuxer.accounting.v1 import accounting_pb2 as pb
from modelmuxer.chat.v1.chat_pb2 import USAGE_SOURCE_ESTIMATED

from services.accounting import ledger
from services.accounting.audit import Auditor
from services.accounting.ledger import Amounts
from services.accounting.lines import added
from services.accounting.stores import EntryQuery, Position, SpendQuery, Store
from shared.periods import UNLENT
from tests.stores.ledger.facts import HOUR_NS, MIDNIGHT_NS, announced, billed, context, outcome, story

DAY_NS = 24 * HOUR_NS


async def audit(store: Store) -> pb.AuditResponse:
    auditor = Auditor(now_ns=time.time_ns(), longest_call_ns=1 << 62)
    await store.audit(auditor)
    return auditor.report()


async def all_entries(store: Store) -> dict[str, pb.Entry]:
    return {entry.attempt_id: entry for entry in await store.entries(EntryQuery(limit=100_000))}


def expected(told: list[pb.JournalRecord]) -> dict[str, pb.Entry]:
    """What the ledger's own rules make of all that was told."""
    attempts = ledger.merge_all(map(ledger.attempt_of, told))
    return {attempt_id: ledger.entry(attempt) for attempt_id, attempt in attempts.items()}


@pytest.mark.parametrize("seed", [1, 2])
async def test_many_clients_telling_the_same_in_any_order_make_one_entry_each(clients: list[Store], seed: int) -> None:
    rng = random.Random(seed)
    told = story(rng, 120)
    batches = [told[start : start + 25] for start in range(0, len(told), 25)]

    async def tell(store: Store) -> None:
        for batch in rng.sample(batches, len(batches)):
            assert await store.record(batch, time.time_ns()) == [record.id for record in batch]

    await asyncio.gather(*(tell(store) for store in clients for _ in range(2)))
    assert await all_entries(clients[-1]) == expected(told)
    report = await audit(clients[0])
    assert report.ok, report.findings


async def test_spend_is_the_sum_of_the_entries_however_it_is_cut_before_and_after_hours_are_rolled_up(
    store: Store,
) -> None:
    told = story(random.Random(3), 150, hours=30)
    await store.record(told, time.time_ns())
    entries = expected(told).values()
    cuts = [
        (None, None),
        (MIDNIGHT_NS, MIDNIGHT_NS + DAY_NS),
        (MIDNIGHT_NS + HOUR_NS // 3, None),
        (None, MIDNIGHT_NS + 5 * HOUR_NS + 17),
        (MIDNIGHT_NS + 90, MIDNIGHT_NS + HOUR_NS // 2),
        (MIDNIGHT_NS + HOUR_NS // 2, MIDNIGHT_NS + 7 * HOUR_NS // 2),
    ]
    groups: list[tuple[pb.SpendDimension, ...]] = [
        (),
        (pb.SPEND_DIMENSION_MODEL,),
        (pb.SPEND_DIMENSION_DAY, pb.SPEND_DIMENSION_TENANT),
        (pb.SPEND_DIMENSION_USER, pb.SPEND_DIMENSION_KEY, pb.SPEND_DIMENSION_PROVIDER),
    ]
    for _ in range(2):
        for start_ns, end_ns in cuts:
            for group_by in groups:
                for tenant in ("", "acme"):
                    query = SpendQuery(group_by=group_by, start_ns=start_ns, end_ns=end_ns, tenant=tenant)
                    sums: defaultdict[tuple[str, ...], Amounts] = defaultdict(Amounts)
                    for entry in entries:
                        at_ns = entry.create_time.ToNanoseconds()
                        if (start_ns or 0) <= at_ns < (end_ns or 1 << 62) and tenant in ("", entry.principal.tenant):
                            group = tuple(_value(entry, dimension) for dimension in group_by)
                            sums[group] = added(sums[group], ledger.amounts(entry))
                    found = await store.spend(query)
                    assert {spend.group: spend.amounts for spend in found} == dict(sums)
                    assert [spend.amounts.cost_nanos for spend in found] == sorted(
                        (amounts.cost_nanos for amounts in sums.values()), reverse=True
                    )
        await store.tidy(time.time_ns())
        assert (await audit(store)).ok


def _value(entry: pb.Entry, dimension: pb.SpendDimension) -> str:
    day = ledger.day_of(ledger.hour_of(entry.create_time.ToNanoseconds()))
    return {
        pb.SPEND_DIMENSION_MODEL: entry.model,
        pb.SPEND_DIMENSION_DAY: day,
        pb.SPEND_DIMENSION_TENANT: entry.principal.tenant,
        pb.SPEND_DIMENSION_USER: entry.principal.user,
        pb.SPEND_DIMENSION_KEY: entry.principal.key_id,
        pb.SPEND_DIMENSION_PROVIDER: entry.provider,
    }[dimension]


async def test_what_comes_after_an_hour_was_summed_changes_its_sums(store: Store) -> None:
    await store.record([announced("a"), outcome("a", source=USAGE_SOURCE_ESTIMATED)], time.time_ns())
    await store.tidy(time.time_ns())
    await store.record([announced("b"), outcome("b", 1), billed("a", 77)], time.time_ns())
    for _ in range(2):
        (total,) = await store.spend(SpendQuery())
        assert (total.amounts.cost_nanos, total.amounts.attempts, total.amounts.estimated_nanos) == (77 + 12, 2, 0)
        await store.tidy(time.time_ns())
    report = await audit(store)
    assert report.ok
    assert report.counts["corrections"] == 1


async def test_an_announcement_that_comes_late_moves_the_entry_to_its_hour(store: Store) -> None:
    await store.record([outcome("a", time_ns=MIDNIGHT_NS + HOUR_NS + 5)], time.time_ns())
    await store.tidy(time.time_ns())
    await store.record([announced("a", MIDNIGHT_NS + HOUR_NS - 5)], time.time_ns())
    await store.tidy(time.time_ns())
    (first,) = await store.spend(SpendQuery(end_ns=MIDNIGHT_NS + HOUR_NS))
    assert first.amounts.cost_nanos == 120
    later = await store.spend(SpendQuery(start_ns=MIDNIGHT_NS + HOUR_NS, group_by=(pb.SPEND_DIMENSION_MODEL,)))
    assert later == []
    assert (await audit(store)).ok


async def test_sums_of_large_amounts_are_exact(store: Store) -> None:
    cost = ledger.MAX_NANOS - 1
    records = [record for n in range(20) for record in (announced(f"a{n}"), billed(f"a{n}", cost))]
    ended = [outcome(f"a{n}", source=USAGE_SOURCE_ESTIMATED) for n in range(20)]
    await store.record([*records, *ended], time.time_ns())
    for _ in range(2):
        (total,) = await store.spend(SpendQuery())
        assert total.amounts.cost_nanos == 20 * cost  # beyond 2^53, where floats lose a nano-dollar
        await store.tidy(time.time_ns())


async def test_what_was_announced_and_never_ended_becomes_an_estimate_once(clients: list[Store]) -> None:
    await clients[0].record([announced(f"a{n}") for n in range(30)], time.time_ns())
    await clients[0].record([announced("young", time.time_ns())], time.time_ns())
    before_ns = time.time_ns() - HOUR_NS
    abandoned = await asyncio.gather(*(store.abandon(before_ns, time.time_ns()) for store in clients))
    assert {attempt.id for found in abandoned for attempt in found} == {f"a{n}" for n in range(30)}
    states = Counter(entry.state for entry in (await all_entries(clients[0])).values())
    assert states == {pb.ENTRY_STATE_ESTIMATED: 30, pb.ENTRY_STATE_PENDING: 1}
    assert await clients[-1].abandon(before_ns, time.time_ns()) == []
    assert (await audit(clients[0])).ok


async def test_entries_are_listed_newest_first_and_found_by_what_they_are(store: Store) -> None:
    await store.record([announced(f"a{n}", MIDNIGHT_NS + n // 3) for n in range(10)], time.time_ns())
    await store.record([outcome("a3")], time.time_ns())
    order = [f"a{n}" for n in (9, 8, 7, 6, 5, 4, 3, 2, 1, 0)]
    seen: list[str] = []
    after: Position | None = None
    while page := await store.entries(EntryQuery(limit=4, after=after)):
        seen += [entry.attempt_id for entry in page]
        after = Position(page[-1].create_time.ToNanoseconds(), page[-1].attempt_id)
    assert seen == order
    (posted,) = await store.entries(EntryQuery(limit=5, state=pb.ENTRY_STATE_POSTED))
    assert posted.attempt_id == "a3"
    assert len(await store.entries(EntryQuery(limit=50, request_id="req_ann"))) == 10
    assert await store.entries(EntryQuery(limit=50, tenant="umbrella")) == []
    assert [each.attempt_id for each in await store.entries(EntryQuery(limit=5, attempt_id="a5"))] == ["a5"]


async def test_facts_that_cannot_be_are_set_aside_and_hold_up_nobody(store: Store) -> None:
    broken = pb.JournalRecord(id="x/announced", attempt_id="x", announced=pb.Announced(billing_context=b"\xff"))
    odd = announced("with\0zero and \U0001f600 in it")
    for _ in range(2):
        assert await store.record([broken, odd], 5) == ["x/announced", odd.id]
    assert list(await all_entries(store)) == [odd.attempt_id]
    assert (await audit(store)).counts["rejected"] >= 1


async def test_what_was_spent_on_a_lease_and_an_account_is_what_its_attempts_cost_or_hold(store: Store) -> None:
    one = context(holds={"budget|acme": ("lease-1", 500), "run|acme": ("run-1", 300)})
    two = context(holds={"budget|acme": ("lease-2", 70)})
    await store.record([announced("a", billing_context=one), announced("b", billing_context=two)], 5)
    assert await store.lease_spends({"budget|acme": ["lease-1"]}) == {("budget|acme", "lease-1"): 500}
    await store.record([outcome("a")], 5)
    spends = await store.lease_spends({"budget|acme": ["lease-1", "lease-2", "none"], "run|acme": {"run-1"}})
    assert spends == {
        ("budget|acme", "lease-1"): 120,
        ("budget|acme", "lease-2"): 70,
        ("budget|acme", "none"): 0,
        ("run|acme", "run-1"): 120,
    }
    assert await store.lease_spends({"run|acme": [], "budget|acme": []}) == {}
    assert await store.account_spend("budget|acme", besides=["lease-1", "none"]) == 70
    assert [await store.account_spend(each) for each in ("budget|acme", "run|acme", "none")] == [190, 120, 0]
    assert await store.settled(["a", "b", "c"]) == {"a": 120}


async def test_what_is_lent_nowhere_counts_on_every_account_that_it_names(store: Store) -> None:
    unlent = context(holds={"budget|acme": (UNLENT, 500), "run|acme": (UNLENT, 500)})
    await store.record([announced("a", billing_context=unlent), outcome("a")], 5)
    assert [await store.account_spend(each) for each in ("budget|acme", "run|acme")] == [120, 120]
    assert set((await store.lease_spends({"budget|acme": [UNLENT], "run|acme": [UNLENT]})).values()) == {120}
