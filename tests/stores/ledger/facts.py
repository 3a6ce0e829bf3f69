"""Journal records for stores' tests: attempts of a few models, users and hours, told in any order."""

import random
from typing import Any

from modelmuxer.accounting.v1 import accounting_pb2 as pb
from modelmuxer.chat.v1.chat_pb2 import USAGE_SOURCE_ESTIMATED, USAGE_SOURCE_PARTIAL, USAGE_SOURCE_PROVIDER, Usage

HOUR_NS = 3_600_000_000_000
MIDNIGHT_NS = 1_700_006_400_000_000_000  # 2023-11-15 00:00 UTC
_PRICE = pb.Price(version="v1", rows=[pb.PriceRow(input=2_000_000, output=10_000_000)])
_SOURCES = (USAGE_SOURCE_PROVIDER, USAGE_SOURCE_PARTIAL, USAGE_SOURCE_ESTIMATED)


def context(user: str = "ann", tenant: str = "acme", holds: dict[str, tuple[str, int]] | None = None) -> bytes:
    """A billing context; `holds` are leases and amounts by account."""
    made = pb.BillingContext(
        principal=pb.Principal(tenant=tenant, user=user, key_id=f"key_{user}"), price=_PRICE, request_id=f"req_{user}"
    )
    for account, (lease_id, held_nanos) in (holds or {}).items():
        made.holds.add(lease_id=lease_id, account=account, held_nanos=held_nanos)
    return made.SerializeToString()


def record(attempt_id: str, kind: str, fact: Any, time_ns: int) -> pb.JournalRecord:
    """One record."""
    made = pb.JournalRecord(id=f"{attempt_id}/{kind}", attempt_id=attempt_id, witness="proxy/1", **{kind: fact})
    made.time.FromNanoseconds(time_ns)
    return made


def announced(
    attempt_id: str, time_ns: int = MIDNIGHT_NS, billing_context: bytes | None = None, model: str = "openai/m"
) -> pb.JournalRecord:
    """An attempt begins."""
    provider = model.partition("/")[0]
    told = context() if billing_context is None else billing_context
    fact = pb.Announced(billing_context=told, provider=provider, model=model, estimated_input_tokens=7)
    return record(attempt_id, "announced", fact, time_ns)


def outcome(
    attempt_id: str,
    tokens: int = 10,
    source: Any = USAGE_SOURCE_PROVIDER,
    kind: str = "outcome",
    *,
    time_ns: int = MIDNIGHT_NS + 1,
    unbilled: bool = False,
) -> pb.JournalRecord:
    """An attempt ends. A token costs 2 and 10."""
    usage = Usage(input_tokens=tokens, output_tokens=tokens, source=source)
    return record(attempt_id, kind, pb.Outcome(usage=usage, status="OK", unbilled=unbilled), time_ns)


def billed(attempt_id: str, cost_nanos: int, *, absent: bool = False, read_ns: int = MIDNIGHT_NS) -> pb.JournalRecord:
    """What the provider's bill says."""
    fact = pb.Billed(cost_nanos=cost_nanos, absent=absent, input_tokens=1, output_tokens=1)
    fact.read_time.FromNanoseconds(read_ns)
    return record(attempt_id, "billed", fact, read_ns)


def story(rng: random.Random, attempts: int, hours: int = 3) -> list[pb.JournalRecord]:
    """All that is told of some attempts, by one or two witnesses, with duplicates, in no order."""
    told: list[pb.JournalRecord] = []
    for number in range(attempts):
        attempt_id = f"attempt-{number:05}"
        began_ns = MIDNIGHT_NS + rng.randrange(hours * HOUR_NS)
        user, tenant = rng.choice(("ann", "bob")), rng.choice(("acme", "umbrella"))
        lease = f"lease-{rng.randrange(4)}"
        what = context(user, tenant, {f"budget|{tenant}": (lease, rng.randrange(1, 500))})
        told.append(announced(attempt_id, began_ns, what, rng.choice(("openai/m", "mistral/s"))))
        for kind in rng.sample(("outcome", "observed"), rng.randrange(3)):
            source = rng.choice(_SOURCES)
            ended_ns = began_ns + rng.randrange(HOUR_NS)
            told.append(
                outcome(
                    attempt_id,
                    rng.randrange(1000),
                    source,
                    kind,
                    time_ns=ended_ns,
                    unbilled=rng.random() < 0.1,
                )
            )
        if rng.random() < 0.1:
            told.append(billed(attempt_id, rng.randrange(10_000)))
    told += rng.sample(told, len(told) // 3)
    rng.shuffle(told)
    return told
