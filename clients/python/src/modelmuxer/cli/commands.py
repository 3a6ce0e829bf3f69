"""The commands, and what they share: a connection, output for eyes or for machines, errors as sentences."""

from __future__ import annotations

import click
from modelmuxer.cli import (
    audit,
    cache,
    callers,
    ceilings,
    chat,
    explain,
    keys,
    ledger,
    models,
    reconcile,
    scale,
    spend,
    tune,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def mux() -> None:
    """ModelMuxer: chat through the mesh, see why a model was chosen, read the bill."""


@mux.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def up(arguments: tuple[str, ...]) -> None:
    """Serve the whole mesh on this machine until Ctrl-C."""
    ledger.run("services", *arguments)


cache.cache.add_command(tune.tune)
for command in (
    *(chat.chat, explain.explain, models.models, spend.spend, reconcile.reconcile, audit.audit),
    *(ledger.ledger, keys.keys, ceilings.budgets, ceilings.limits, cache.cache, scale.scale),
    *(callers.tenants, callers.teams, callers.users, callers.policies),
):
    mux.add_command(command)
