"""``python -m services.accounting.backup FILE``, which `mux ledger backup` runs: a copy of the SQLite ledger as it
stands at one moment, made while accounting works on it.
"""

import argparse
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

_PAGES = 2000  # at a time, between which accounting writes


def backup(ledger: Path, target: Path) -> None:
    """Copies a ledger. Raises OSError and sqlite3.Error."""
    if not ledger.exists():
        raise FileNotFoundError(f"There is no ledger at {ledger}")
    if target.exists():
        raise FileExistsError(f"{target} is there already")
    draft = target.with_name(f"{target.name}.part")
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))  # it holds what keys are looked up by
    with (
        closing(sqlite3.connect(f"{ledger.absolute().as_uri()}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(draft)) as copy,
    ):
        source.backup(copy, pages=_PAGES)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, whole by itself
        problem = copy.execute("PRAGMA quick_check").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(problem)
    draft.rename(target)


def main() -> None:
    """Parses the command line and copies."""
    parser = argparse.ArgumentParser(prog="mux ledger backup", description="Copy the SQLite ledger while it is in use.")
    parser.add_argument("file", type=Path, metavar="FILE", help="where to; it must not exist yet")
    target: Path = parser.parse_args().file
    if os.environ.get("MODELMUXER_LEDGER_STORE") == "mongodb":
        sys.exit("The ledger is in MongoDB: back it up by its own means, or by `mux ledger copy mongodb FILE`.")
    try:
        backup(Path(os.environ.get("MODELMUXER_HOME", ".modelmuxer")) / "ledger.sqlite", target)
    except (OSError, sqlite3.Error) as error:
        sys.exit(f"Error: {error}.")
    print(f"{target} is a whole ledger: to restore it, stop the mesh and put it in place of ledger.sqlite.")


if __name__ == "__main__":
    main()
