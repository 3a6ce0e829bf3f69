"""`mux ledger`: moves and backs up the ledger where it is kept. The work is the mesh's own, and done by it."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import click

_AS_IT_IS = {"ignore_unknown_options": True, "help_option_names": []}


@click.group()
def ledger() -> None:
    """Copy the ledger to another store, or back it up."""


@ledger.command(context_settings=_AS_IT_IS)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def copy(arguments: tuple[str, ...]) -> None:
    """Copy a whole ledger into an empty store, and prove it (--help for more)."""
    run("services.accounting.copying", *arguments)


@ledger.command(context_settings=_AS_IT_IS)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def backup(arguments: tuple[str, ...]) -> None:
    """Copy the SQLite ledger to a file while it is in use (--help for more)."""
    run("services.accounting.backup", *arguments)


def run(module: str, *arguments: str) -> None:
    """Becomes a program of the mesh, if that is installed here."""
    if find_spec("services") is None:
        raise click.ClickException(
            "The mesh itself is not installed here, only its client. Run `make up` in a checkout."
        )
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 our own interpreter
