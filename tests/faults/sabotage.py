"""Bugs made on purpose, to show that the nemesis finds them: ``python -m tests.faults.sabotage BUG,BUG services.X``."""

from __future__ import annotations

import itertools
import runpy
import sys
from collections.abc import Callable, Iterable

from modelmuxer.accounting.v1.accounting_pb2 import JournalRecord

from services.accounting import accounts, lines
from services.accounting.accounts import Account, Report, Terms
from services.accounting.ledger import Amounts
from services.accounting.stores import sqlite
from shared.journal import Journal

_EVERY = 5


def drop_outcomes() -> None:
    """A journal that forgets one settlement in five."""
    append, count = Journal.append, itertools.count(1)

    def forgetful(journal: Journal, record: JournalRecord) -> None:
        if record.HasField("outcome") and next(count) % _EVERY == 0:
            return
        append(journal, record)

    setattr(Journal, "append", forgetful)  # noqa: B010 mypy forbids what this file is for


def drop_attempts() -> None:
    """A journal that forgets one attempt in five altogether."""
    append = Journal.append

    def forgetful(journal: Journal, record: JournalRecord) -> None:
        if not record.HasField("cache_hit") and sum(record.attempt_id.encode()) % _EVERY == 0:
            return
        append(journal, record)

    setattr(Journal, "append", forgetful)  # noqa: B010 mypy forbids what this file is for


def count_twice() -> None:
    """A store that increments its sums where it should set them: what an entry was before is not taken back."""
    add = lines.added

    def increment(one: Amounts, other: Amounts, sign: int = 1) -> Amounts:
        return add(one, other, abs(sign))

    setattr(sqlite, "added", increment)  # noqa: B010 mypy forbids what this file is for


def lend_beyond() -> None:
    """An account that grants what is asked for, whether it is there or not."""

    def generous(account: Account, said: Report, terms: Terms) -> int:
        return max(said.want, said.need)

    setattr(accounts, "_grant", generous)  # noqa: B010 mypy forbids what this file is for


BUGS: dict[str, tuple[str, Callable[[], None]]] = {
    "drop-outcomes": ("provider_proxy", drop_outcomes),
    "drop-attempts": ("provider_proxy", drop_attempts),
    "count-twice": ("accounting", count_twice),
    "lend-beyond": ("accounting", lend_beyond),
}
"""By name: the service that has the bug, and how it gets it."""


def commands(bugs: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """How to start the services that have the bugs."""
    names: dict[str, list[str]] = {}
    for bug in bugs:
        names.setdefault(BUGS[bug][0], []).append(bug)
    return {
        service: ("tests.faults.sabotage", ",".join(found), f"services.{service}") for service, found in names.items()
    }


if __name__ == "__main__":
    chosen, module = sys.argv[1:]
    sys.argv = [module]
    for name in chosen.split(","):
        BUGS[name][1]()
    runpy.run_module(module, run_name="__main__")
