"""Bugs made on purpose, to show that the nemesis finds them: ``python -m tests.faults.sabotage BUG services.NAME``."""

from __future__ import annotations

import itertools
import runpy
import sys
from collections.abc import Callable

from modelmuxer.accounting.v1.accounting_pb2 import JournalRecord

from services.accounting import lines
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


BUGS: dict[str, tuple[str, Callable[[], None]]] = {
    "drop-outcomes": ("provider_proxy", drop_outcomes),
    "drop-attempts": ("provider_proxy", drop_attempts),
    "count-twice": ("accounting", count_twice),
}
"""By name: the service that has the bug, and how it gets it."""


def command(bug: str) -> dict[str, tuple[str, ...]]:
    """How to start the service that has the bug."""
    service, _ = BUGS[bug]
    return {service: ("tests.faults.sabotage", bug, f"services.{service}")}


if __name__ == "__main__":
    name, module = sys.argv[1:]
    sys.argv = [module]
    BUGS[name][1]()
    runpy.run_module(module, run_name="__main__")
