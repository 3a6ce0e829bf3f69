"""``mux cache``: what the response cache holds and saves, what it is to forget, and what it is to know beforehand."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, TextIO

import click
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from modelmuxer.cache.v1.cache_pb2 import GetStatsRequest, InvalidateRequest, TenantStats
from modelmuxer.chat.v1.chat_pb2 import CacheInfo, ChatRequest
from modelmuxer.cli.connection import Connection
from modelmuxer.cli.running import connected, console, dollars, json_option, print_json
from modelmuxer.client import CallError, Client
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


@click.group()
def cache() -> None:
    """Look into the response cache, empty it in part, fill it beforehand. Needs a key of admin scope, but for warm."""


@cache.command()
@json_option
@connected
async def stats(connection: Connection, as_json: bool) -> None:
    """Show what is kept, and what was asked and saved by each tenant."""
    async with connection.router_stub() as mesh:
        answer = await mesh.stub.GetCacheStats(GetStatsRequest(), metadata=mesh.metadata)
    if as_json:
        body = MessageToDict(answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
        whole = {name: value if name in ("tenants", "shared") else int(value) for name, value in body.items()}
        print_json({**whole, "tenants": [_plain(tenant) for tenant in answer.tenants]})
        return
    room = f" of {answer.max_bytes / 2**20:,.1f}" if answer.max_bytes else ""
    console.print(
        f"{answer.entries:,} answers, {answer.size_bytes / 2**20:,.1f}{room} MiB, {answer.evicted:,} made room, "
        f"{answer.flights:,} being made"
    )
    table = Table("Tenant", "Look-ups", "Hits", "Rate", "Shared", "Saved")
    for tenant in answer.tenants:
        row = _plain(tenant)
        table.add_row(
            tenant.tenant or "(others)",
            f"{row['lookups']:,}",
            f"{tenant.hits:,}",
            f"{row['hit_rate']:.0%}",
            f"{tenant.follows:,}",
            dollars(tenant.saved_nanos),
        )
    console.print(table)


@cache.command()
@click.option("--tenant", default="", help="Answers to this tenant.")
@click.option("--alias", default="", help="Answers to requests that named this alias.")
@click.option("--model", default="", help="Answers of this model.")
@click.option("--tag", default="", help='Answers to requests with this tag, "name=value".')
@click.option("--prefix", default="", help="Answers whose key begins so, in hex.")
@click.option("--all", "everything", is_flag=True, help="All answers of all tenants.")
@json_option
@connected
async def invalidate(
    connection: Connection, tenant: str, alias: str, model: str, tag: str, prefix: str, everything: bool, as_json: bool
) -> None:
    """Forget the answers that have everything that is given; answers that are being made, too."""
    request = InvalidateRequest(tenant=tenant, alias=alias, model=model, tag=tag, prefix=prefix, all=everything)
    async with connection.router_stub() as mesh:
        await mesh.stub.InvalidateCache(request, metadata=mesh.metadata)
    if as_json:
        print_json({"invalidated": MessageToDict(request, preserving_proto_field_name=True)})
    else:
        click.echo("They are forgotten.", err=True)


@cache.command()
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.option("--concurrency", type=click.IntRange(min=1, max=256), default=8, show_default=True, help="Asked at once.")
@click.option("--refresh", is_flag=True, help="Ask anew for what is there, too.")
@json_option
@connected
async def warm(connection: Connection, file: TextIO, concurrency: int, refresh: bool, as_json: bool) -> None:
    """Ask each request of FILE, so that its answer is there when it is wanted.

    FILE has one request a line, as JSON: {"messages": [{"role": "user", "content": "…"}], "model": "auto"}, or a
    ChatRequest. What is made is paid for like any call.
    """
    requests = [_request(line, number, refresh) for number, line in enumerate(file, 1) if line.strip()]
    result = Warming()
    columns = (TextColumn("Warming"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=as_json) as progress:
        task = progress.add_task("", total=len(requests))
        queue = iter(requests)

        async def work(client: Client) -> None:
            for number, request in queue:
                await result.ask(client, number, request)
                progress.advance(task)

        async with connection.client() as client:
            await asyncio.gather(*(work(client) for _ in range(concurrency)))
    if as_json:
        print_json(result.as_json())
    else:
        click.echo(result.sentence())
        for number, message in result.errors[:10]:
            click.echo(f"line {number}: {message}", err=True)
    if result.errors:
        raise SystemExit(1)


@dataclass
class Warming:
    """What became of the requests."""

    counts: Counter[str] = field(default_factory=Counter)
    cost_nanos: int = 0
    errors: list[tuple[int, str]] = field(default_factory=list)

    async def ask(self, client: Client, number: int, request: ChatRequest) -> None:
        """Asks one."""
        try:
            answer = await client.chat(request)
        except CallError as error:
            self.errors.append((number, error.message))
            return
        found = answer.completed.cache.status not in (CacheInfo.STATUS_MISS, CacheInfo.STATUS_BYPASS)
        self.counts["present" if found else "made"] += 1
        self.cost_nanos += answer.completed.cost.nanos

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        errors = [{"line": number, "message": message} for number, message in self.errors]
        return {
            "made": self.counts["made"],
            "present": self.counts["present"],
            "failed": len(errors),
            "cost_nanos": self.cost_nanos,
            "errors": errors,
        }

    def sentence(self) -> str:
        """For people."""
        made, present = self.counts["made"], self.counts["present"]
        return f"{made:,} made, {present:,} were there, {len(self.errors):,} failed; {dollars(self.cost_nanos)}."


def _request(line: str, number: int, refresh: bool) -> tuple[int, ChatRequest]:
    try:
        fields = json.loads(line)
        messages = [_message(message) for message in fields.get("messages", ())]
        request = ParseDict({**fields, "messages": messages}, ChatRequest())
    except (ValueError, AttributeError, TypeError, ParseError) as error:
        raise click.ClickException(f"Line {number} is no request: {error}") from None
    request.cache.no_cache = refresh
    return number, request


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """A message of OpenAI's short form, {"role": "user", "content": "…"}, as one of ours; ours as it is."""
    if not isinstance(message.get("content"), str):
        return message
    role = f"ROLE_{message.get('role', 'user').upper()}"
    return {**message, "role": role, "content": [{"text": {"text": message["content"]}}]}


def _plain(tenant: TenantStats) -> dict[str, Any]:
    lookups = tenant.hits + tenant.misses + tenant.follows
    return {
        "tenant": tenant.tenant,
        "lookups": lookups,
        "hits": tenant.hits,
        "misses": tenant.misses,
        "follows": tenant.follows,
        "hit_rate": tenant.hits / lookups if lookups else 0.0,
        "saved_nanos": tenant.saved_nanos,
    }
