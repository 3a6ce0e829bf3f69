"""Ledger against bill: the simulated one call by call, OpenAI's and Anthropic's exports by bucket and model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from modelmuxer.accounting.v1 import accounting_pb2 as pb
from modelmuxer.cli.bills import BillError, Bucket, CallBill, read
from modelmuxer.cli.reconcile import Reconciliation, compare_calls


def entry(attempt: str, state: Any, cost_nanos: int, *, seconds: int = 100, billed: bool = False) -> pb.Entry:
    made = pb.Entry(attempt_id=attempt, state=state, cost_nanos=cost_nanos, billed=billed)
    made.create_time.seconds = seconds
    return made


def call(attempt: str | None, cost_nanos: int) -> dict[str, Any]:
    return {"id": "req", "client_id": attempt, "input_tokens": 3, "output_tokens": 4, "cost_nanos": cost_nanos}


def written(folder: Path, document: Any) -> tuple[str, ...]:
    path = folder / "bill.json"
    path.write_text(json.dumps(document))
    return (str(path),)


def compared(folder: Path, entries: list[pb.Entry], *calls: dict[str, Any], opened_at: float = 0.0) -> Reconciliation:
    bill = read(written(folder, {"total_nanos": 0, "calls": calls, "opened_at": opened_at}))
    assert isinstance(bill, CallBill)
    return compare_calls(entries, bill)


def test_a_ledger_that_is_the_bill_has_no_differences(tmp_path: Path) -> None:
    entries = [
        entry("a", pb.ENTRY_STATE_POSTED, 5),
        entry("v", pb.ENTRY_STATE_VOIDED, 0),
        entry("runs", pb.ENTRY_STATE_PENDING, 0),
    ]
    found = compared(tmp_path, entries, call("a", 5))
    assert (found.differences, found.corrections, found.ledger_nanos, found.bill_nanos) == ((), (), 5, 5)


def test_every_difference_is_listed_and_estimates_alone_are_settled(tmp_path: Path) -> None:
    entries = [
        entry("posted", pb.ENTRY_STATE_POSTED, 5),
        entry("estimated", pb.ENTRY_STATE_ESTIMATED, 5),
        entry("right", pb.ENTRY_STATE_ESTIMATED, 8),
        entry("unbilled", pb.ENTRY_STATE_ESTIMATED, 5),
        entry("voided", pb.ENTRY_STATE_VOIDED, 0),
        entry("extra", pb.ENTRY_STATE_POSTED, 5),
        entry("late", pb.ENTRY_STATE_PENDING, 0),
    ]
    billed = (*("posted", "estimated"), *("voided", "late", "missing"))
    found = compared(tmp_path, entries, *(call(attempt, 6) for attempt in billed), call("right", 8), call(None, 6))
    assert {(each.subject, each.kind, each.settles) for each in found.differences} == {
        ("posted", "amount", False),
        ("estimated", "amount", True),
        ("unbilled", "extra", True),
        ("voided", "amount", True),
        ("extra", "extra", False),
        ("late", "pending", False),
        ("missing", "missing", False),
        (":req", "missing", False),
    }
    settled = {each.attempt_id: (each.billed.cost_nanos, each.billed.absent) for each in found.corrections}
    assert settled == {"estimated": (6, False), "right": (8, False), "unbilled": (0, True), "voided": (6, False)}


def test_what_a_bill_had_settled_follows_when_the_bill_changes(tmp_path: Path) -> None:
    entries = [
        entry("a", pb.ENTRY_STATE_POSTED, 5, billed=True),
        entry("b", pb.ENTRY_STATE_VOIDED, 0, billed=True),
        entry("c", pb.ENTRY_STATE_POSTED, 5, billed=True),
    ]
    found = compared(tmp_path, entries, call("a", 6), call("b", 7))
    assert {each.attempt_id: each.billed.cost_nanos for each in found.corrections} == {"a": 6, "b": 7, "c": 0}


def test_lines_that_name_one_attempt_are_charged_together(tmp_path: Path) -> None:
    found = compared(tmp_path, [entry("a", pb.ENTRY_STATE_ESTIMATED, 5)], call("a", 5), call("a", 5))
    assert [(each.billed.cost_nanos, each.billed.output_tokens) for each in found.corrections] == [(10, 8)]


def test_what_was_called_before_the_bill_was_opened_is_not_compared(tmp_path: Path) -> None:
    entries = [entry("old", pb.ENTRY_STATE_ESTIMATED, 5, seconds=99), entry("a", pb.ENTRY_STATE_POSTED, 5, seconds=101)]
    found = compared(tmp_path, entries, call("a", 5), opened_at=100.5)
    assert (found.differences, found.corrections, found.ledger_nanos) == ((), (), 5)


DAY = {"start_time": 1730419200, "end_time": 1730505600}
ANTHROPIC_DAY = {"starting_at": "2024-11-01T00:00:00Z", "ending_at": "2024-11-02T00:00:00Z"}


def openai_page(*results: dict[str, Any]) -> dict[str, Any]:
    return {"object": "page", "data": [{"object": "bucket", **DAY, "results": results}], "has_more": False}


def anthropic_page(*results: dict[str, Any]) -> dict[str, Any]:
    return {"data": [{**ANTHROPIC_DAY, "results": results}], "has_more": False, "next_page": None}


def test_openais_usage_is_read_by_bucket_and_model_over_all_keys(tmp_path: Path) -> None:
    results = [
        {
            "object": "organization.usage.completions.result",
            "input_tokens": 1000,
            "output_tokens": 500,
            "input_cached_tokens": 800,
            "num_model_requests": 5,
            "api_key_id": key,
            "model": "gpt-4o-mini-2024-07-18",
        }
        for key in ("key_1", "key_2")
    ]
    bucket = Bucket(DAY["start_time"], DAY["end_time"], "openai", "gpt-4o-mini")
    assert read(written(tmp_path, openai_page(*results))) == {bucket: {"input_tokens": 2000, "output_tokens": 1000}}


def test_of_an_export_only_the_keys_that_the_mesh_uses_are_compared(tmp_path: Path) -> None:
    usage = {"input_tokens": 10, "output_tokens": 5, "model": "gpt-4o-mini"}
    page = openai_page({**usage, "api_key_id": "key_mesh"}, {**usage, "api_key_id": "key_of_a_notebook"})
    bucket = Bucket(DAY["start_time"], DAY["end_time"], "openai", "gpt-4o-mini")
    assert read(written(tmp_path, page), ("key_mesh",)) == {bucket: {"input_tokens": 10, "output_tokens": 5}}
    with pytest.raises(BillError, match="grouped by api_key_id"):
        read(written(tmp_path, openai_page(usage)), ("key_mesh",))


def test_openais_costs_are_read_to_the_nano_dollar(tmp_path: Path) -> None:
    amounts = [{"value": 0.06, "currency": "usd"}, {"value": "0.000000001", "currency": "usd"}]
    results = [{"object": "organization.costs.result", "amount": amount, "line_item": None} for amount in amounts]
    bucket = Bucket(DAY["start_time"], DAY["end_time"], "openai", "")
    assert read(written(tmp_path, openai_page(*results))) == {bucket: {"cost_nanos": 60_000_001}}


def test_anthropics_usage_counts_cached_and_written_input_as_input(tmp_path: Path) -> None:
    result = {
        "uncached_input_tokens": 1500,
        "cache_creation": {"ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 500},
        "cache_read_input_tokens": 200,
        "output_tokens": 500,
        "model": "claude-opus-4-20250514",
    }
    bucket = Bucket(DAY["start_time"], DAY["end_time"], "anthropic", "claude-opus-4")
    assert read(written(tmp_path, anthropic_page(result))) == {bucket: {"input_tokens": 3200, "output_tokens": 500}}


def test_anthropics_costs_are_cents_in_a_string(tmp_path: Path) -> None:
    result = {"currency": "USD", "amount": "123.78912", "model": "claude-sonnet-4-20250514", "cost_type": "tokens"}
    bucket = Bucket(DAY["start_time"], DAY["end_time"], "anthropic", "claude-sonnet-4")
    pages = [anthropic_page(result), anthropic_page(result)]
    assert read(written(tmp_path, pages)) == {bucket: {"cost_nanos": 2 * 1_237_891_200}}


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        [1],
        {"data": [{}]},
        {"calls": [{}]},
        openai_page({"amount": {"value": 1, "currency": "eur"}}),
    ],
)
def test_what_is_no_bill_is_refused_in_a_sentence(tmp_path: Path, document: Any) -> None:
    with pytest.raises(BillError):
        read(written(tmp_path, document))
    with pytest.raises(BillError):
        read((str(tmp_path / "nowhere.json"),))
