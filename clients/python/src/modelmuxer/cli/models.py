"""``mux models``: what may be named in a request, and what it costs."""

from __future__ import annotations

import click
from modelmuxer.cli.connection import Connection
from modelmuxer.cli.running import connected, console, dollars, json_option, print_json
from modelmuxer.router.v1 import router_pb2
from rich.table import Table


@click.command()
@click.option("--all", "show_all", is_flag=True, help="Models that cannot be called now, too.")
@json_option
@connected
async def models(connection: Connection, show_all: bool, as_json: bool) -> None:
    """List aliases and models, with prices per million tokens."""
    async with connection.client() as client:
        answer = await client.router.ListModels(router_pb2.ListModelsRequest(), metadata=client.metadata())
    listed = [model for model in answer.models if show_all or model.available]
    if as_json:
        print_json({"catalogue_version": answer.catalogue_version, "models": [_as_json(model) for model in listed]})
        return
    table = Table("Name", "In / M", "Out / M", "Context", "What it is")
    for model in listed:
        about = ", ".join(model.targets) or model.description or ", ".join(model.capabilities)
        if not model.available:
            about = f"[dim]{model.unavailable_reason}[/dim]"
        prices = ("", "") if model.targets else _prices(model)
        table.add_row(model.id, *prices, f"{model.context_tokens:,}" if model.context_tokens else "", about)
    console.print(table)


def _prices(model: router_pb2.Model) -> tuple[str, str]:
    return dollars(model.input_nanos_per_million), dollars(model.output_nanos_per_million)


def _as_json(model: router_pb2.Model) -> dict[str, object]:
    return {
        "id": model.id,
        "provider": model.provider,
        "targets": list(model.targets),
        "available": model.available,
        "unavailable_reason": model.unavailable_reason,
        "context_tokens": model.context_tokens,
        "max_output_tokens": model.max_output_tokens,
        "input_nanos_per_million": model.input_nanos_per_million,
        "output_nanos_per_million": model.output_nanos_per_million,
        "capabilities": list(model.capabilities),
    }
