"""The checker: holds what callers were told, and the ledger, against the bill. Pure; knows no processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelmuxer.accounting.v1 import accounting_pb2 as pb

_LISTED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a caller was told of an attempt that answered it whole, with the provider's own usage."""

    cost_nanos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """All that is known when the dust has settled, before the bill has corrected anything."""

    told: Mapping[str, Told]
    """By attempt id."""
    bill: Sequence[Mapping[str, Any]]
    """The simulator's lines."""
    entries: Sequence[pb.Entry]
    """The ledger's, without answers from the cache."""


def violations(history: History) -> list[str]:
    """Every promise that the history breaks, in sentences."""
    ids = Counter(entry.attempt_id for entry in history.entries)
    lines = Counter(str(line["client_id"]) for line in history.bill)
    entries = {entry.attempt_id: entry for entry in history.entries}
    bill = {str(line["client_id"]): int(line["cost_nanos"]) for line in history.bill}
    posted = {i: e for i, e in entries.items() if e.state == pb.ENTRY_STATE_POSTED and not e.billed}
    found: list[str] = []
    checks = {
        "has more than one entry": [i for i, count in ids.items() if count > 1],
        "was called more than once": [i for i, count in lines.items() if count > 1],
        "is on the bill and has no entry": [i for i in bill if i not in entries],
        "has not ended": [i for i, entry in entries.items() if entry.state == pb.ENTRY_STATE_PENDING],
        "is posted and not on the bill": [i for i in posted if i not in bill],
        "is posted at another amount than the bill's": [
            i for i, entry in posted.items() if bill.get(i, entry.cost_nanos) != entry.cost_nanos
        ],
        "is voided and on the bill": [
            i for i, entry in entries.items() if entry.state == pb.ENTRY_STATE_VOIDED and bill.get(i)
        ],
        "reached its caller with the provider's usage and is not posted": [i for i in history.told if i not in posted],
        "is posted at another amount than its caller was told": [
            i for i, told in history.told.items() if i in posted and posted[i].cost_nanos != told.cost_nanos
        ],
    }
    for what, attempts in checks.items():
        found += [f"attempt {attempt} {what}" for attempt in attempts[:_LISTED]]
        if len(attempts) > _LISTED:
            found.append(f"… and {len(attempts) - _LISTED} more attempts: {what}")
    return found
