"""``mux keys``: makes, lists and revokes API keys."""

from __future__ import annotations

import click
from modelmuxer.accounting.v1 import accounting_pb2
from modelmuxer.cli.connection import Connection
from modelmuxer.cli.running import connected, console, json_option, print_json
from rich.table import Table


@click.group()
def keys() -> None:
    """Make, list and revoke API keys. Needs a key of admin scope, as a local mesh's first key is."""


@keys.command()
@click.argument("name")
@click.option("--tenant", default="", help="The tenant that pays; `default` if left out.")
@click.option("--team", default="", help="The team.")
@click.option("--user", default="", help="The user.")
@click.option("--admin", is_flag=True, help="May manage keys and read reports, too.")
@click.option("--model", "models", multiple=True, help="May name only this model or alias; may be repeated.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="The most output tokens of a call.")
@json_option
@connected
async def create(
    connection: Connection,
    name: str,
    tenant: str,
    team: str,
    user: str,
    admin: bool,
    models: tuple[str, ...],
    max_tokens: int | None,
    as_json: bool,
) -> None:
    """Make a key. Its secret is shown once."""
    scopes = [accounting_pb2.SCOPE_CHAT] + [accounting_pb2.SCOPE_ADMIN] * admin
    request = accounting_pb2.CreateKeyRequest(
        name=name, tenant=tenant, team=team, user=user, scopes=scopes, models=models, max_output_tokens=max_tokens
    )
    async with connection.admin() as accounting:
        made = await accounting.admin.CreateKey(request, metadata=accounting.metadata)
    if as_json:
        print_json({**_as_json(made.key), "secret": made.secret})
        return
    click.echo(made.secret)
    click.echo(f"{made.key.id}: keep the secret now, it is not shown again.", err=True)


@keys.command("list")
@click.option("--all", "include_revoked", is_flag=True, help="Revoked keys, too.")
@click.option("--tenant", default="", help="Only this tenant.")
@json_option
@connected
async def list_keys(connection: Connection, include_revoked: bool, tenant: str, as_json: bool) -> None:
    """List keys, newest first."""
    request = accounting_pb2.ListKeysRequest(tenant=tenant, include_revoked=include_revoked)
    async with connection.admin() as accounting:
        answer = await accounting.admin.ListKeys(request, metadata=accounting.metadata)
    if as_json:
        print_json({"keys": [_as_json(key) for key in answer.keys]})
        return
    table = Table("Id", "Name", "Begins", "Tenant", "User", "May", "Made", "Revoked")
    for key in answer.keys:
        table.add_row(key.id, key.name, f"{key.prefix}…", key.tenant, key.user, ", ".join(_scopes(key)), *_times(key))
    console.print(table)


@keys.command()
@click.argument("key_id")
@json_option
@connected
async def revoke(connection: Connection, key_id: str, as_json: bool) -> None:
    """Revoke a key, at once."""
    async with connection.admin() as accounting:
        request = accounting_pb2.RevokeKeyRequest(key_id=key_id)
        answer = await accounting.admin.RevokeKey(request, metadata=accounting.metadata)
    if as_json:
        print_json(_as_json(answer.key))
        return
    click.echo(f"{answer.key.id} ({answer.key.name}) is revoked.")


def _scopes(key: accounting_pb2.Key) -> list[str]:
    return [accounting_pb2.Scope.Name(scope).removeprefix("SCOPE_").lower() for scope in key.scopes]


def _times(key: accounting_pb2.Key) -> tuple[str, str]:
    made = key.create_time.ToJsonString()
    return made, key.revoke_time.ToJsonString() if key.HasField("revoke_time") else ""


def _as_json(key: accounting_pb2.Key) -> dict[str, object]:
    made, revoked = _times(key)
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "tenant": key.tenant,
        "team": key.team,
        "user": key.user,
        "scopes": _scopes(key),
        "models": list(key.models),
        "max_output_tokens": key.max_output_tokens if key.HasField("max_output_tokens") else None,
        "create_time": made,
        "revoke_time": revoked or None,
    }
