"""The commands, and what they share: a connection, output for eyes or for machines, errors as sentences."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import click
from modelmuxer.cli import audit, ceilings, chat, explain, keys, models, reconcile, spend, tune


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def mux() -> None:
    """ModelMuxer: chat through the mesh, see why a model was chosen, read the bill."""


@mux.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def up(arguments: tuple[str, ...]) -> None:
    """Serve the whole mesh on this machine until Ctrl-C."""
    if find_spec("services") is None:
        raise click.ClickException(
            "The mesh itself is not installed here, only its client. Run `make up` in a checkout."
        )
    os.execv(sys.executable, [sys.executable, "-m", "services", *arguments])  # noqa: S606 our own interpreter


@mux.group()
def cache() -> None:
    """Look into the response cache."""


cache.add_command(tune.tune)
for command in (
    *(chat.chat, explain.explain, models.models, spend.spend, reconcile.reconcile, audit.audit),
    *(keys.keys, ceilings.budgets, ceilings.limits, ceilings.tenants),
):
    mux.add_command(command)
