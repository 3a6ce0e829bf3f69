"""``mux reconcile``: holds the ledger against a provider's bill, lists what differs, and settles estimates by it.

A bill that names each call is compared attempt by attempt, and can settle estimates. One in buckets of time is compared
by the sums of each bucket and model, and cannot: it does not say which attempt was estimated wrongly.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import click
from google.protobuf.timestamp_pb2 import Timestamp
from modelmuxer.accounting.v1 import accounting_pb2 as pb
from modelmuxer.chat.v1.chat_pb2 import USAGE_SOURCE_CACHE
from modelmuxer.cli.bills import BillError, BucketBill, CallBill, Charge, bare_model, read
from modelmuxer.cli.connection import Admin, Connection
from modelmuxer.cli.running import connected, console, dollars, json_option, print_json
from rich.table import Table

_PAGE = 1000
_SECOND_LOOK_S = 1.0  # records are on their way for milliseconds; a cut call is billed when the provider notices
_LISTED = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One attempt, or one bucket's figure, on which ledger and bill do not agree."""

    kind: str
    """"missing" from the ledger, "extra" in it, "amount" differs, "pending" though billed; "bucket" for sums."""
    subject: str
    state: str = ""
    figure: str = "cost_nanos"
    ledger: int = 0
    bill: int = 0
    settles: bool = False
    """The bill's word can be posted: nobody had stated the usage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """What came of a comparison."""

    ledger_nanos: int
    bill_nanos: int
    differences: tuple[Difference, ...]
    corrections: tuple[pb.Correction, ...] = ()
    by_call: bool = True
    """The bill names each call."""

    def count(self, kind: str) -> int:
        """How many differences are of a kind."""
        return sum(difference.kind == kind for difference in self.differences)


@click.command()
@click.option(
    "--bill", "bills", multiple=True, metavar="FILE|URL", help="The bill; several make one. Simulator's if none."
)
@click.option(
    "--key", "keys", multiple=True, metavar="ID", help="Of an export, only what this key of the provider's was charged."
)
@click.option("--write", is_flag=True, help="Post what the bill says for entries that are estimated or voided.")
@json_option
@connected
async def reconcile(
    connection: Connection, bills: tuple[str, ...], keys: tuple[str, ...], write: bool, as_json: bool
) -> None:
    """Compare the ledger with a provider's bill, and list every difference."""
    sources = bills or (_simulated_bill(),)
    async with connection.admin() as admin:
        try:
            found = await _reconcile(admin, sources, keys)
        except BillError as error:
            raise click.ClickException(str(error)) from None
        if write and not found.by_call:
            raise click.ClickException("This bill names no calls, so it cannot say which entries to correct.")
        written = await _post(admin, found.corrections) if write else 0
    if as_json:
        print_json(_as_json(found, written))
    else:
        _show(found, written)


async def _reconcile(admin: Admin, sources: tuple[str, ...], keys: tuple[str, ...]) -> Reconciliation:
    """Looks again where anything differs: what differs only for a moment was on its way."""
    first = await _look(admin, sources, keys)
    if not first.differences:
        return first
    await asyncio.sleep(_SECOND_LOOK_S)
    second = await _look(admin, sources, keys)
    seen = {(difference.kind, difference.subject) for difference in first.differences}
    lasting = tuple(each for each in second.differences if (each.kind, each.subject) in seen)
    subjects = {each.subject for each in second.differences} - {each.subject for each in lasting}
    corrections = tuple(each for each in second.corrections if each.attempt_id not in subjects)
    return Reconciliation(
        ledger_nanos=second.ledger_nanos,
        bill_nanos=second.bill_nanos,
        differences=lasting,
        corrections=corrections,
        by_call=second.by_call,
    )


async def _look(admin: Admin, sources: tuple[str, ...], keys: tuple[str, ...]) -> Reconciliation:
    # The ledger first: what it has settled by then has ended, so it is on a bill that is read later.
    entries = [entry async for entry in _entries(admin)]
    bill = await asyncio.to_thread(read, sources, keys)
    return compare_calls(entries, bill) if isinstance(bill, CallBill) else await _compare_buckets(admin, bill)


def compare_calls(entries: list[pb.Entry], bill: CallBill) -> Reconciliation:
    """Compares attempt by attempt. Pending entries that are not on the bill are calls that still run."""
    now = Timestamp()
    now.GetCurrentTime()
    missing = dict(bill.charges)
    differences: list[Difference] = []
    corrections: list[pb.Correction] = []
    ledger_nanos = 0
    for entry in entries:
        if entry.create_time.ToNanoseconds() < bill.opened_ns and entry.attempt_id not in missing:
            continue
        ledger_nanos += entry.cost_nanos
        charge = missing.pop(entry.attempt_id, None)
        if difference := _difference(entry, charge):
            differences.append(difference)
        if _settles(entry, charge):
            corrections.append(_correction(entry, charge, now))
    differences += [
        Difference(kind="missing", subject=attempt_id, bill=charge.cost_nanos) for attempt_id, charge in missing.items()
    ]
    return Reconciliation(
        ledger_nanos=ledger_nanos,
        bill_nanos=sum(charge.cost_nanos for charge in bill.charges.values()),
        differences=tuple(differences),
        corrections=tuple(corrections),
    )


def _difference(entry: pb.Entry, charge: Charge | None) -> Difference | None:
    state = _state(entry)
    if charge is None:
        if entry.state in (pb.ENTRY_STATE_PENDING, pb.ENTRY_STATE_VOIDED):
            return None
        kind, nanos = "extra", 0
    elif entry.state == pb.ENTRY_STATE_PENDING:
        kind, nanos = "pending", charge.cost_nanos
    elif entry.cost_nanos != charge.cost_nanos:
        kind, nanos = "amount", charge.cost_nanos
    else:
        return None
    settles = _settles(entry, charge)
    return Difference(
        kind=kind, subject=entry.attempt_id, state=state, ledger=entry.cost_nanos, bill=nanos, settles=settles
    )


def _settles(entry: pb.Entry, charge: Charge | None) -> bool:
    """Whether the bill's word is to be posted: for every estimate, a void that is billed, a bill that changed."""
    if entry.state == pb.ENTRY_STATE_ESTIMATED:
        return True
    if charge is None:
        return entry.billed and entry.state == pb.ENTRY_STATE_POSTED
    changed = entry.cost_nanos != charge.cost_nanos
    return changed and (entry.billed or entry.state == pb.ENTRY_STATE_VOIDED)


def _correction(entry: pb.Entry, charge: Charge | None, now: Timestamp) -> pb.Correction:
    if charge is None:
        return pb.Correction(attempt_id=entry.attempt_id, billed=pb.Billed(absent=True, read_time=now))
    billed = pb.Billed(
        cost_nanos=charge.cost_nanos,
        input_tokens=charge.input_tokens,
        output_tokens=charge.output_tokens,
        provider_request_id=charge.request_id,
        read_time=now,
    )
    return pb.Correction(attempt_id=entry.attempt_id, billed=billed)


async def _compare_buckets(admin: Admin, bill: BucketBill) -> Reconciliation:
    differences: list[Difference] = []
    ledger_nanos = 0
    models: dict[tuple[int, int, str], set[str]] = {}
    for bucket in bill:
        models.setdefault((bucket.start_s, bucket.end_s, bucket.provider), set()).add(bucket.model)
    sums = {span: await _sums(admin, *span) for span in models}
    for bucket, figures in bill.items():
        span = (bucket.start_s, bucket.end_s, bucket.provider)
        ours = _total(row for row in sums[span] if not bucket.model or bare_model(row.group["model"]) == bucket.model)
        ledger_nanos += ours["cost_nanos"] if "cost_nanos" in figures else 0
        subject = _span(span, bucket.model or "all models")
        differences += _figures(subject, ours, figures)
    for span, named in models.items():
        for row in sums[span]:
            if "" not in named and bare_model(row.group["model"]) not in named and row.cost_nanos:
                subject = _span(span, row.group["model"])
                differences.append(Difference(kind="extra", subject=subject, ledger=row.cost_nanos))
    return Reconciliation(
        ledger_nanos=ledger_nanos,
        bill_nanos=sum(figures.get("cost_nanos", 0) for figures in bill.values()),
        differences=tuple(differences),
        by_call=False,
    )


def _figures(subject: str, ours: Mapping[str, int], figures: Mapping[str, int]) -> list[Difference]:
    known = any(ours[name] for name in figures)
    return [
        Difference(kind="bucket" if known else "missing", subject=subject, figure=name, ledger=ours[name], bill=value)
        for name, value in figures.items()
        if ours[name] != value
    ]


async def _sums(admin: Admin, start_s: int, end_s: int, provider: str) -> list[pb.SpendRow]:
    request = pb.GetSpendRequest(group_by=[pb.SPEND_DIMENSION_PROVIDER, pb.SPEND_DIMENSION_MODEL])
    request.start_time.seconds, request.end_time.seconds = start_s, end_s
    answer = await admin.accounting.GetSpend(request, metadata=admin.metadata)
    return [row for row in answer.rows if row.group["provider"] == provider]


def _total(rows: Any) -> dict[str, int]:
    total = {"input_tokens": 0, "output_tokens": 0, "cost_nanos": 0}
    for row in rows:
        for name in total:
            total[name] += getattr(row, name)
    return total


async def _entries(admin: Admin) -> AsyncIterator[pb.Entry]:
    """Every upstream call; answers from the cache are on nobody's bill."""
    request = pb.ListEntriesRequest(page_size=_PAGE)
    while True:
        page = await admin.accounting.ListEntries(request, metadata=admin.metadata)
        for entry in page.entries:
            if entry.usage.source != USAGE_SOURCE_CACHE:
                yield entry
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def _post(admin: Admin, corrections: tuple[pb.Correction, ...]) -> int:
    written = 0
    for start in range(0, len(corrections), _PAGE):
        request = pb.PostCorrectionsRequest(corrections=corrections[start : start + _PAGE])
        written += len((await admin.accounting.PostCorrections(request, metadata=admin.metadata)).entries)
    return written


def _simulated_bill() -> str:
    return os.environ.get("MODELMUXER_SIMULATOR_URL", "http://127.0.0.1:8090").rstrip("/") + "/bill"


def _state(entry: pb.Entry) -> str:
    return pb.EntryState.Name(entry.state).removeprefix("ENTRY_STATE_").lower()


def _span(span: tuple[int, int, str], model: str) -> str:
    start, end = Timestamp(seconds=span[0]), Timestamp(seconds=span[1])
    return f"{start.ToJsonString()}/{end.ToJsonString()} {span[2]} {model}"


def _as_json(found: Reconciliation, written: int) -> dict[str, Any]:
    return {
        "missing": found.count("missing"),
        "extra": found.count("extra"),
        "differences": [
            {
                "kind": each.kind,
                "subject": each.subject,
                "state": each.state or None,
                "figure": each.figure,
                "ledger": each.ledger,
                "bill": each.bill,
                "settles": each.settles,
            }
            for each in found.differences
        ],
        "ledger_nanos": found.ledger_nanos,
        "bill_nanos": found.bill_nanos,
        "unsettled": len(found.corrections) - written,
        "written": written,
    }


def _show(found: Reconciliation, written: int) -> None:
    if found.differences:
        table = Table("Difference", "Attempt or bucket", "State", "Figure", "Ledger", "Bill")
        for each in found.differences[:_LISTED]:
            table.add_row(each.kind, each.subject, each.state, each.figure, f"{each.ledger:,}", f"{each.bill:,}")
        console.print(table)
        if len(found.differences) > _LISTED:
            console.print(f"… and {len(found.differences) - _LISTED} more; --json lists all.")
    console.print(
        f"Ledger {dollars(found.ledger_nanos)}, bill {dollars(found.bill_nanos)}: "
        f"{len(found.differences)} differences ({found.count('missing')} missing, {found.count('extra')} extra)."
    )
    if written:
        console.print(f"{written} entries are settled by the bill.")
    elif found.corrections:
        console.print(f"The bill settles {len(found.corrections)} entries: --write posts that.")
