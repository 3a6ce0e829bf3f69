"""``mux budgets`` and ``mux limits``: what may be spent, and how fast."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import click
from google.protobuf.field_mask_pb2 import FieldMask
from modelmuxer.accounting.v1 import accounting_pb2 as pb
from modelmuxer.cli.connection import Connection
from modelmuxer.cli.resources import fields_set, plain, show, word
from modelmuxer.cli.running import connected, console, dollars, json_option, print_json
from rich.table import Table

_SCOPES = ("tenant", "team", "user", "key", "run", "tag", "model")
_PERIODS = ("forever", "hour", "day", "week", "month")
_MODES = ("hard", "soft", "advisory")
_THRESHOLD_HELP = "Percent of the limit at which an event is raised; may be repeated. 50, 80 and 100 if left out."


class Dollars(click.ParamType[int]):
    """An amount in dollars, kept as whole nano-dollars."""

    name = "dollars"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            nanos = Decimal(str(value).removeprefix("$")) * 10**9
        except InvalidOperation:
            self.fail(f"{value} is no amount in dollars.", param, ctx)
        if not nanos.is_finite() or nanos != int(nanos) or nanos < 0:
            self.fail(f"{value} is no amount of whole nano-dollars.", param, ctx)
        return int(nanos)


@click.group()
def budgets() -> None:
    """Make, list, change and delete budgets. Needs a key of admin scope."""


@budgets.command("create")
@click.argument("limit", type=Dollars())
@click.option("--scope", type=click.Choice(_SCOPES), default="tenant", show_default=True, help="What counts together.")
@click.option("--subject", default="", help='Whose: a user, key id, team, run, model, "name=value"; "*" for each one.')
@click.option("--tenant", default="", help="The tenant; each one by itself if left out.")
@click.option("--period", type=click.Choice(_PERIODS), default="forever", show_default=True)
@click.option("--time-zone", default="", help='Where days, weeks and months begin ("Europe/Berlin"); UTC if left out.')
@click.option("--mode", type=click.Choice(_MODES), default="hard", show_default=True, help="What happens at the limit.")
@click.option("--downgrade", is_flag=True, help="Send what does not fit to a cheaper model that does.")
@click.option("--threshold", "thresholds", type=click.IntRange(1, 1000), multiple=True, help=_THRESHOLD_HELP)
@click.option("--name", default="", help="A name for people.")
@json_option
@connected
async def create_budget(
    connection: Connection,
    limit: int,
    scope: str,
    subject: str,
    tenant: str,
    period: str,
    time_zone: str,
    mode: str,
    downgrade: bool,
    thresholds: tuple[int, ...],
    name: str,
    as_json: bool,
) -> None:
    """Make a budget of LIMIT dollars."""
    budget = pb.Budget(
        name=name,
        tenant=tenant,
        scope=f"CEILING_SCOPE_{scope.upper()}",
        subject=subject,
        limit_nanos=limit,
        period=f"BUDGET_PERIOD_{period.upper()}",
        time_zone=time_zone,
        mode=f"BUDGET_MODE_{mode.upper()}",
        on_exceed=pb.ON_EXCEED_DOWNGRADE if downgrade else pb.ON_EXCEED_REFUSE,
        threshold_percents=sorted(thresholds),
    )
    async with connection.admin() as mesh:
        request = pb.CreateBudgetRequest(budget=budget)
        made = await mesh.admin.CreateBudget(request, metadata=mesh.metadata)
    show(made.budget, as_json)


@budgets.command("list")
@click.option("--tenant", default="", help="Only this tenant's.")
@click.option("--past", is_flag=True, help="Past periods, too.")
@json_option
@connected
async def list_budgets(connection: Connection, tenant: str, past: bool, as_json: bool) -> None:
    """List budgets, and how they stand."""
    async with connection.admin() as mesh:
        request = pb.ListBudgetsRequest(tenant=tenant, include_past=past)
        answer = await mesh.accounting.ListBudgets(request, metadata=mesh.metadata)
    if as_json:
        print_json({"budgets": [_status(each) for each in answer.budgets]})
        return
    table = Table("Id", "Scope", "Tenant", "Subject", "Period", "Mode", "Limit", "Spent", "Held", "Lent")
    for each in answer.budgets:
        budget, standing = each.budget, each.standing
        table.add_row(
            budget.id,
            word(pb.CeilingScope.Name(budget.scope)),
            each.tenant or "(each)",
            each.subject,
            word(pb.BudgetPeriod.Name(budget.period)),
            word(pb.BudgetMode.Name(budget.mode)),
            *(dollars(nanos) for nanos in (standing.limit, standing.spent, standing.held, standing.leased)),
        )
    console.print(table)


@budgets.command("set")
@click.argument("budget_id")
@click.argument("limit", type=Dollars(), required=False)
@click.option("--mode", type=click.Choice(_MODES), help="What happens at the limit.")
@click.option("--downgrade/--refuse", default=None, help="What to do with calls that do not fit.")
@click.option("--threshold", "thresholds", type=click.IntRange(1, 1000), multiple=True, help=_THRESHOLD_HELP)
@click.option("--name", help="A name for people.")
@json_option
@connected
async def set_budget(
    connection: Connection,
    budget_id: str,
    limit: int | None,
    mode: str | None,
    downgrade: bool | None,
    thresholds: tuple[int, ...],
    name: str | None,
    as_json: bool,
) -> None:
    """Change a budget, to LIMIT dollars if one is given. What was spent stays spent."""
    exceeding = None
    if downgrade is not None:
        exceeding = pb.ON_EXCEED_DOWNGRADE if downgrade else pb.ON_EXCEED_REFUSE
    wanted = {
        "limit_nanos": limit,
        "mode": f"BUDGET_MODE_{mode.upper()}" if mode else None,
        "on_exceed": exceeding,
        "threshold_percents": sorted(thresholds) or None,
        "name": name,
    }
    changed = {field: value for field, value in wanted.items() if value is not None}
    if not changed:
        raise click.UsageError("There is nothing to change: give a limit, or an option.")
    budget = pb.Budget(id=budget_id, **changed)  # type: ignore[arg-type] # one dictionary of several types
    async with connection.admin() as mesh:
        request = pb.UpdateBudgetRequest(budget=budget, update_mask=FieldMask(paths=list(changed)))
        answer = await mesh.admin.UpdateBudget(request, metadata=mesh.metadata)
    show(answer.budget, as_json)


@budgets.command("delete")
@click.argument("budget_id")
@connected
async def delete_budget(connection: Connection, budget_id: str) -> None:
    """Delete a budget."""
    async with connection.admin() as mesh:
        await mesh.admin.DeleteBudget(pb.DeleteBudgetRequest(id=budget_id), metadata=mesh.metadata)
    click.echo(f"{budget_id} is deleted.", err=True)


@click.group()
def limits() -> None:
    """Make, list, change and delete rate limits. Needs a key of admin scope."""


@limits.command("create")
@click.option("--scope", type=click.Choice(("tenant", "team", "user", "key", "model")), default="tenant")
@click.option("--subject", default="", help='Whose: a user, key id, team or model; "*" for each one.')
@click.option("--tenant", default="", help="The tenant; each one by itself if left out.")
@click.option("--requests", type=click.IntRange(min=0), help="Calls begun in any minute.")
@click.option("--tokens", type=click.IntRange(min=0), help="Tokens of calls begun in any minute.")
@click.option("--concurrent", type=click.IntRange(min=0), help="Calls under way at once.")
@json_option
@connected
async def create_limit(
    connection: Connection,
    scope: str,
    subject: str,
    tenant: str,
    requests: int | None,
    tokens: int | None,
    concurrent: int | None,
    as_json: bool,
) -> None:
    """Make a limit of one rate or more."""
    limit = pb.Limit(
        tenant=tenant,
        scope=f"CEILING_SCOPE_{scope.upper()}",
        subject=subject,
        requests_per_minute=requests,
        tokens_per_minute=tokens,
        concurrent_calls=concurrent,
    )
    async with connection.admin() as mesh:
        made = await mesh.admin.CreateLimit(pb.CreateLimitRequest(limit=limit), metadata=mesh.metadata)
    show(made.limit, as_json)


@limits.command("list")
@click.option("--tenant", default="", help="Only this tenant's.")
@json_option
@connected
async def list_limits(connection: Connection, tenant: str, as_json: bool) -> None:
    """List rate limits."""
    async with connection.admin() as mesh:
        answer = await mesh.admin.ListLimits(pb.ListLimitsRequest(tenant=tenant), metadata=mesh.metadata)
    if as_json:
        print_json({"limits": [plain(limit) for limit in answer.limits]})
        return
    table = Table("Id", "Scope", "Tenant", "Subject", "Requests/min", "Tokens/min", "At once")
    for limit in answer.limits:
        rates = ("requests_per_minute", "tokens_per_minute", "concurrent_calls")
        table.add_row(
            limit.id,
            word(pb.CeilingScope.Name(limit.scope)),
            limit.tenant or "(each)",
            limit.subject,
            *(f"{getattr(limit, rate):,}" if rate in fields_set(limit) else "" for rate in rates),
        )
    console.print(table)


@limits.command("set")
@click.argument("limit_id")
@click.option("--requests", type=click.IntRange(min=0), help="Calls begun in any minute.")
@click.option("--tokens", type=click.IntRange(min=0), help="Tokens of calls begun in any minute.")
@click.option("--concurrent", type=click.IntRange(min=0), help="Calls under way at once.")
@json_option
@connected
async def set_limit(
    connection: Connection,
    limit_id: str,
    requests: int | None,
    tokens: int | None,
    concurrent: int | None,
    as_json: bool,
) -> None:
    """Change rates of a limit; those that are left out stay."""
    wanted = {"requests_per_minute": requests, "tokens_per_minute": tokens, "concurrent_calls": concurrent}
    changed = {rate: value for rate, value in wanted.items() if value is not None}
    if not changed:
        raise click.UsageError("There is nothing to change: give a rate.")
    async with connection.admin() as mesh:
        limit = pb.Limit(
            id=limit_id, requests_per_minute=requests, tokens_per_minute=tokens, concurrent_calls=concurrent
        )
        request = pb.UpdateLimitRequest(limit=limit, update_mask=FieldMask(paths=list(changed)))
        answer = await mesh.admin.UpdateLimit(request, metadata=mesh.metadata)
    show(answer.limit, as_json)


@limits.command("delete")
@click.argument("limit_id")
@connected
async def delete_limit(connection: Connection, limit_id: str) -> None:
    """Delete a rate limit."""
    async with connection.admin() as mesh:
        await mesh.admin.DeleteLimit(pb.DeleteLimitRequest(id=limit_id), metadata=mesh.metadata)
    click.echo(f"{limit_id} is deleted.", err=True)


def _status(each: pb.BudgetStatus) -> dict[str, object]:
    standing = each.standing
    return {
        **plain(each.budget),
        "tenant": each.tenant,
        "subject": each.subject,
        "limit_nanos": standing.limit,
        "spent_nanos": standing.spent,
        "held_nanos": standing.held,
        "leased_nanos": standing.leased,
        "start_time": standing.start_time.ToJsonString() if standing.HasField("start_time") else None,
        "end_time": standing.end_time.ToJsonString() if standing.HasField("end_time") else None,
    }
