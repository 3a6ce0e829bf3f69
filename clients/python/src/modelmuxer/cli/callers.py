"""``mux tenants``, ``mux teams``, ``mux users``, ``mux policies``: who may call, and what they may do."""

from __future__ import annotations

import click
from google.protobuf.field_mask_pb2 import FieldMask
from modelmuxer.accounting.v1 import accounting_pb2 as pb
from modelmuxer.cli.connection import Connection
from modelmuxer.cli.resources import plain, show, word
from modelmuxer.cli.running import connected, console, json_option, print_json
from rich.table import Table

_SUSPENDED = FieldMask(paths=["suspended"])
_in_tenant = click.option("--tenant", default="default", show_default=True, help="The tenant.")


@click.group()
def tenants() -> None:
    """Register, list, suspend and forget tenants. Needs a key of admin scope."""


@tenants.command("create")
@click.argument("tenant_id")
@click.option("--name", default="", help="A name for people.")
@json_option
@connected
async def create_tenant(connection: Connection, tenant_id: str, name: str, as_json: bool) -> None:
    """Register a tenant."""
    async with connection.admin() as mesh:
        request = pb.CreateTenantRequest(tenant=pb.Tenant(id=tenant_id, name=name))
        made = await mesh.admin.CreateTenant(request, metadata=mesh.metadata)
    show(made.tenant, as_json)


@tenants.command("list")
@json_option
@connected
async def list_tenants(connection: Connection, as_json: bool) -> None:
    """List registered tenants."""
    async with connection.admin() as mesh:
        answer = await mesh.admin.ListTenants(pb.ListTenantsRequest(), metadata=mesh.metadata)
    if as_json:
        print_json({"tenants": [plain(tenant) for tenant in answer.tenants]})
        return
    table = Table("Id", "Name", "Suspended")
    for tenant in answer.tenants:
        table.add_row(tenant.id, tenant.name, "yes" if tenant.suspended else "")
    console.print(table)


@tenants.command("suspend")
@click.argument("tenant_id")
@click.option("--resume", is_flag=True, help="Take its keys again.")
@json_option
@connected
async def suspend_tenant(connection: Connection, tenant_id: str, resume: bool, as_json: bool) -> None:
    """Refuse a tenant's keys, at once."""
    async with connection.admin() as mesh:
        request = pb.UpdateTenantRequest(tenant=pb.Tenant(id=tenant_id, suspended=not resume), update_mask=_SUSPENDED)
        changed = await mesh.admin.UpdateTenant(request, metadata=mesh.metadata)
    show(changed.tenant, as_json)


@tenants.command("delete")
@click.argument("tenant_id")
@connected
async def delete_tenant(connection: Connection, tenant_id: str) -> None:
    """Forget a tenant's registration. Its keys, entries and budgets stay."""
    async with connection.admin() as mesh:
        await mesh.admin.DeleteTenant(pb.DeleteTenantRequest(id=tenant_id), metadata=mesh.metadata)
    click.echo(f"{tenant_id} is not registered any more.", err=True)


@click.group()
def teams() -> None:
    """Register, list, suspend and forget teams of a tenant. Needs a key of admin scope."""


@teams.command("create")
@click.argument("team_id")
@_in_tenant
@click.option("--name", default="", help="A name for people.")
@json_option
@connected
async def create_team(connection: Connection, team_id: str, tenant: str, name: str, as_json: bool) -> None:
    """Register a team."""
    async with connection.admin() as mesh:
        request = pb.CreateTeamRequest(team=pb.Team(id=team_id, tenant=tenant, name=name))
        made = await mesh.admin.CreateTeam(request, metadata=mesh.metadata)
    show(made.team, as_json)


@teams.command("list")
@click.option("--tenant", default="", help="Only this tenant's.")
@json_option
@connected
async def list_teams(connection: Connection, tenant: str, as_json: bool) -> None:
    """List registered teams."""
    async with connection.admin() as mesh:
        answer = await mesh.admin.ListTeams(pb.ListTeamsRequest(tenant=tenant), metadata=mesh.metadata)
    if as_json:
        print_json({"teams": [plain(team) for team in answer.teams]})
        return
    table = Table("Tenant", "Id", "Name", "Suspended")
    for team in answer.teams:
        table.add_row(team.tenant, team.id, team.name, "yes" if team.suspended else "")
    console.print(table)


@teams.command("suspend")
@click.argument("team_id")
@_in_tenant
@click.option("--resume", is_flag=True, help="Take its keys again.")
@json_option
@connected
async def suspend_team(connection: Connection, team_id: str, tenant: str, resume: bool, as_json: bool) -> None:
    """Refuse a team's keys, at once."""
    async with connection.admin() as mesh:
        wanted = pb.Team(id=team_id, tenant=tenant, suspended=not resume)
        request = pb.UpdateTeamRequest(team=wanted, update_mask=_SUSPENDED)
        changed = await mesh.admin.UpdateTeam(request, metadata=mesh.metadata)
    show(changed.team, as_json)


@teams.command("delete")
@click.argument("team_id")
@_in_tenant
@connected
async def delete_team(connection: Connection, team_id: str, tenant: str) -> None:
    """Forget a team's registration. Its keys, entries and budgets stay."""
    async with connection.admin() as mesh:
        await mesh.admin.DeleteTeam(pb.DeleteTeamRequest(id=team_id, tenant=tenant), metadata=mesh.metadata)
    click.echo(f"{team_id} is not registered any more.", err=True)


@click.group()
def users() -> None:
    """Register, list, suspend and forget users of a tenant. Needs a key of admin scope."""


@users.command("create")
@click.argument("user_id")
@_in_tenant
@click.option("--name", default="", help="A name for people.")
@json_option
@connected
async def create_user(connection: Connection, user_id: str, tenant: str, name: str, as_json: bool) -> None:
    """Register a user."""
    async with connection.admin() as mesh:
        request = pb.CreateUserRequest(user=pb.User(id=user_id, tenant=tenant, name=name))
        made = await mesh.admin.CreateUser(request, metadata=mesh.metadata)
    show(made.user, as_json)


@users.command("list")
@click.option("--tenant", default="", help="Only this tenant's.")
@json_option
@connected
async def list_users(connection: Connection, tenant: str, as_json: bool) -> None:
    """List registered users."""
    async with connection.admin() as mesh:
        answer = await mesh.admin.ListUsers(pb.ListUsersRequest(tenant=tenant), metadata=mesh.metadata)
    if as_json:
        print_json({"users": [plain(user) for user in answer.users]})
        return
    table = Table("Tenant", "Id", "Name", "Suspended")
    for user in answer.users:
        table.add_row(user.tenant, user.id, user.name, "yes" if user.suspended else "")
    console.print(table)


@users.command("suspend")
@click.argument("user_id")
@_in_tenant
@click.option("--resume", is_flag=True, help="Take its keys again.")
@json_option
@connected
async def suspend_user(connection: Connection, user_id: str, tenant: str, resume: bool, as_json: bool) -> None:
    """Refuse a user's keys, at once."""
    async with connection.admin() as mesh:
        wanted = pb.User(id=user_id, tenant=tenant, suspended=not resume)
        request = pb.UpdateUserRequest(user=wanted, update_mask=_SUSPENDED)
        changed = await mesh.admin.UpdateUser(request, metadata=mesh.metadata)
    show(changed.user, as_json)


@users.command("delete")
@click.argument("user_id")
@_in_tenant
@connected
async def delete_user(connection: Connection, user_id: str, tenant: str) -> None:
    """Forget a user's registration. Its keys, entries and budgets stay."""
    async with connection.admin() as mesh:
        await mesh.admin.DeleteUser(pb.DeleteUserRequest(id=user_id, tenant=tenant), metadata=mesh.metadata)
    click.echo(f"{user_id} is not registered any more.", err=True)


@click.group()
def policies() -> None:
    """Make, list and delete policies. Needs a key of admin scope."""


@policies.command("create")
@click.option("--scope", type=click.Choice(("tenant", "team", "user", "key")), default="tenant", show_default=True)
@click.option("--subject", default="", help='Whose: a team, user or key id; "*" for each one.')
@click.option("--tenant", default="", help="The tenant; every one if left out.")
@click.option("--model", "models", multiple=True, help="Only this model or alias may be named; may be repeated.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="The most output tokens of a call.")
@click.option(
    "--on-outage",
    type=click.Choice(("closed", "open")),
    help="While accounting cannot be asked: refuse calls (as without a policy), or make them beyond any limit.",
)
@click.option("--name", default="", help="A name for people.")
@json_option
@connected
async def create_policy(
    connection: Connection,
    scope: str,
    subject: str,
    tenant: str,
    models: tuple[str, ...],
    max_tokens: int | None,
    on_outage: str | None,
    name: str,
    as_json: bool,
) -> None:
    """Make a policy."""
    policy = pb.Policy(
        name=name,
        tenant=tenant,
        scope=f"CEILING_SCOPE_{scope.upper()}",
        subject=subject,
        models=models,
        max_output_tokens=max_tokens,
        on_outage=f"ON_OUTAGE_{on_outage.upper()}" if on_outage else None,
    )
    async with connection.admin() as mesh:
        made = await mesh.admin.CreatePolicy(pb.CreatePolicyRequest(policy=policy), metadata=mesh.metadata)
    show(made.policy, as_json)


@policies.command("list")
@click.option("--tenant", default="", help="Only this tenant's, and those for all.")
@json_option
@connected
async def list_policies(connection: Connection, tenant: str, as_json: bool) -> None:
    """List policies."""
    async with connection.admin() as mesh:
        answer = await mesh.admin.ListPolicies(pb.ListPoliciesRequest(tenant=tenant), metadata=mesh.metadata)
    if as_json:
        print_json({"policies": [plain(policy) for policy in answer.policies]})
        return
    table = Table("Id", "Scope", "Tenant", "Subject", "Models", "Most tokens", "In an outage")
    for policy in answer.policies:
        table.add_row(
            policy.id,
            word(pb.CeilingScope.Name(policy.scope)),
            policy.tenant or "(every)",
            policy.subject,
            ", ".join(policy.models) or "(all)",
            f"{policy.max_output_tokens:,}" if policy.HasField("max_output_tokens") else "",
            word(pb.OnOutage.Name(policy.on_outage)) if policy.on_outage else "",
        )
    console.print(table)


@policies.command("delete")
@click.argument("policy_id")
@connected
async def delete_policy(connection: Connection, policy_id: str) -> None:
    """Delete a policy."""
    async with connection.admin() as mesh:
        await mesh.admin.DeletePolicy(pb.DeletePolicyRequest(id=policy_id), metadata=mesh.metadata)
    click.echo(f"{policy_id} is deleted.", err=True)
