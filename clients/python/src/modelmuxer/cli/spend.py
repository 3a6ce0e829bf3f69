"""``mux spend``: what was spent, by model, user, day and the like."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
from google.protobuf.timestamp_pb2 import Timestamp
from modelmuxer.accounting.v1 import accounting_pb2
from modelmuxer.cli.connection import Connection
from modelmuxer.cli.running import connected, console, dollars, json_option, print_json
from rich.table import Table

_DIMENSIONS = ("model", "user", "day", "tenant", "key", "provider")


@click.command()
@click.option(
    "--by", "dimensions", multiple=True, type=click.Choice(_DIMENSIONS), help="Group by this; may be repeated."
)
@click.option("--days", type=click.IntRange(min=1), help="Only the last so many days.")
@click.option("--tenant", default="", help="Only this tenant.")
@json_option
@connected
async def spend(
    connection: Connection, dimensions: tuple[str, ...], days: int | None, tenant: str, as_json: bool
) -> None:
    """Show what was spent: by model unless told otherwise."""
    names = dimensions or ("model",)
    request = accounting_pb2.GetSpendRequest(
        group_by=[f"SPEND_DIMENSION_{name.upper()}" for name in names],
        tenant=tenant,
    )
    if days is not None:
        start = Timestamp()
        start.FromDatetime(datetime.now(UTC) - timedelta(days=days))
        request.start_time.CopyFrom(start)
    async with connection.admin() as admin:
        answer = await admin.accounting.GetSpend(request, metadata=admin.metadata)
    if as_json:
        print_json({"total_nanos": answer.total_nanos, "rows": [_as_json(row) for row in answer.rows]})
        return
    table = Table(
        *(name.capitalize() for name in names), "Calls", "Hits", "In", "Out", "Spent", "Of it estimated", "Saved"
    )
    for row in answer.rows:
        table.add_row(
            *(row.group.get(name, "") for name in names),
            f"{row.attempts:,}",
            f"{row.cache_hits:,}",
            f"{row.input_tokens:,}",
            f"{row.output_tokens:,}",
            dollars(row.cost_nanos),
            dollars(row.estimated_nanos) if row.estimated_nanos else "",
            dollars(row.saved_nanos) if row.saved_nanos else "",
        )
    console.print(table)
    console.print(f"[bold]{dollars(answer.total_nanos)}[/bold] in all")


def _as_json(row: accounting_pb2.SpendRow) -> dict[str, object]:
    return {
        **row.group,
        "cost_nanos": row.cost_nanos,
        "estimated_nanos": row.estimated_nanos,
        "saved_nanos": row.saved_nanos,
        "attempts": row.attempts,
        "cache_hits": row.cache_hits,
        "input_tokens": row.input_tokens,
        "output_tokens": row.output_tokens,
    }
