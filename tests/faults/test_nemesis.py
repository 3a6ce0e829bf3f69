"""SIGKILL, SIGSTOP and cut connections under load: the ledger is the bill afterwards. And what is broken is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from modelmuxer.accounting.v1 import accounting_pb2 as pb

from tests.faults import nemesis, sabotage
from tests.faults.checker import History, Told, violations


@pytest.mark.timeout(400)
async def test_whatever_dies_stands_still_or_is_cut_every_call_on_the_bill_has_one_entry(tmp_path: Path) -> None:
    result = await nemesis.run(tmp_path / "home", seed=7, seconds=30)
    print(result.table())
    assert not result.failed, result.table()


BUGS = {
    "drop-attempts": "is on the bill and has no entry",
    "drop-outcomes": "has not ended",
    "count-twice": "audit: sums-are-those-of-entries",
    "lend-beyond": "nano-dollars are on the bill, of a budget of",
}


@pytest.mark.timeout(240)
async def test_bugs_made_on_purpose_are_found(tmp_path: Path) -> None:
    assert BUGS.keys() == sabotage.BUGS.keys()
    result = await nemesis.run(
        tmp_path / "home", seed=7, seconds=4, faults=False, bugs=sorted(BUGS), settle_s=2, routers=1, proxies=1
    )
    found = "\n".join(result.broken)
    assert [bug for bug, sentence in BUGS.items() if sentence not in found] == [], result.table()


async def test_a_run_that_puts_nothing_to_the_test_fails() -> None:
    empty = nemesis.Result(seed=1, store="sqlite")
    assert "not put to the test: no hard budget was used up" in nemesis.idle(empty, 30)
    assert nemesis.Result(seed=1, store="sqlite", idle=nemesis.idle(empty, 30)).failed


def entry(attempt: str, state: Any = pb.ENTRY_STATE_POSTED, cost_nanos: int = 10) -> pb.Entry:
    return pb.Entry(attempt_id=attempt, state=state, cost_nanos=cost_nanos, attempt_number=1)


def line(attempt: str, cost_nanos: int = 10) -> dict[str, Any]:
    return {"client_id": attempt, "cost_nanos": cost_nanos}


def honest() -> History:
    return History(
        told={"posted": Told(cost_nanos=10)},
        bill=[line("posted"), line("estimated", 7)],
        entries=[
            entry("posted"),
            entry("estimated", pb.ENTRY_STATE_ESTIMATED, 9),
            entry("voided", pb.ENTRY_STATE_VOIDED, 0),
        ],
    )


def tampered(change: Callable[[dict[str, pb.Entry], list[dict[str, Any]]], None]) -> list[str]:
    history = honest()
    entries, bill = {each.attempt_id: each for each in history.entries}, [dict(each) for each in history.bill]
    change(entries, bill)
    return violations(History(told=history.told, bill=bill, entries=list(entries.values())))


def test_an_honest_history_breaks_nothing() -> None:
    assert violations(honest()) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda entries, bill: entries.pop("estimated"), "attempt estimated is on the bill and has no entry"),
        (lambda entries, bill: entries.update(again=entry("posted")), "attempt posted has more than one entry"),
        (lambda entries, bill: bill.append(line("posted")), "attempt posted was called more than once"),
        (
            lambda entries, bill: entries.update(estimated=entry("estimated", pb.ENTRY_STATE_PENDING, 0)),
            "attempt estimated has not ended",
        ),
        (lambda entries, bill: bill.append(line("voided")), "attempt voided is voided and on the bill"),
        (
            lambda entries, bill: entries.update(posted=entry("posted", cost_nanos=11)),
            "attempt posted is posted at another amount than the bill's",
        ),
        (
            lambda entries, bill: entries.update(posted=entry("posted", pb.ENTRY_STATE_ESTIMATED)),
            "attempt posted reached its caller with the provider's usage and is not posted",
        ),
        (lambda entries, bill: bill.pop(0), "attempt posted is posted and not on the bill"),
    ],
)
def test_a_tampered_history_is_found(change: Callable[..., None], found: str) -> None:
    assert found in tampered(change)
