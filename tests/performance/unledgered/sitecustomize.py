"""Takes the ledger out of every Python process that has this folder on its PYTHONPATH: journals forget what they are
told, so nothing is written, shipped, merged or kept. For `make bench SUITE=money` alone, which says so.
"""

from __future__ import annotations

from modelmuxer.accounting.v1.accounting_pb2 import JournalRecord

from shared.journal import Journal


def _forget(journal: Journal, record: JournalRecord) -> None:
    return


setattr(Journal, "append", _forget)  # noqa: B010 mypy forbids what this file is for
