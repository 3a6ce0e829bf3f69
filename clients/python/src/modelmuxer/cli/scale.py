"""``mux scale``: how many replicas the scaler asks for, what it sees of each, and why."""

from __future__ import annotations

from typing import Any

import click
import grpc
from google.protobuf.json_format import MessageToDict
from modelmuxer.cli.connection import Connection
from modelmuxer.cli.running import connected, console, json_option, print_json
from modelmuxer.scaler.v1.scaler_pb2 import Demand, ExplainRequest
from modelmuxer.scaler.v1.scaler_pb2_grpc import ScalerServiceStub
from rich.table import Table

TIMEOUT_S = 15.0


@click.command()
@click.argument("service", default="")
@click.option("--explain", is_flag=True, help="Show each replica, what load asks for, and why.")
@json_option
@connected
async def scale(connection: Connection, service: str, explain: bool, as_json: bool) -> None:
    """Show how many replicas the scaler asks for, of one SERVICE or of all."""
    async with grpc.aio.insecure_channel(connection.scaler) as channel:
        answer = await ScalerServiceStub(channel).Explain(ExplainRequest(service=service), timeout=TIMEOUT_S)
    if as_json:
        print_json({"services": [_as_json(demand) for demand in answer.demands]})
        return
    summary = Table("Service", "Wanted", "Current", "Serving", "Sick", "Starting", "Draining")
    for demand in answer.demands:
        counts = (demand.wanted, demand.current, demand.serving, demand.sick, demand.starting, demand.draining)
        summary.add_row(demand.service, *map(str, counts))
    console.print(summary)
    for demand in answer.demands if explain else ():
        _explain(demand)


def _explain(demand: Demand) -> None:
    console.print(f"\n[bold]{demand.service}[/bold] at {demand.target}")
    for reason in demand.reasons:
        console.print(f"  {reason}")
    if demand.signals:
        signals = Table("Load", "Sum", "One replica should carry", "Asks for")
        for each in demand.signals:
            values = (f"{value:.1f} {each.unit}" for value in (each.value, each.target))
            signals.add_row(each.name, *values, str(each.replicas))
        console.print(signals)
    if demand.replicas:
        replicas = Table("Replica", "State", "CPU", "Memory", "Slots", "Queue", "Added", "Trouble")
        for replica in demand.replicas:
            percents = (replica.cpu_percent, replica.memory_percent, replica.slots_percent)
            times = (replica.queue_ms, replica.added_ms)
            figures = [*(f"{value:.0f} %" for value in percents), *(f"{value:.1f} ms" for value in times)]
            replicas.add_row(replica.address, replica.state, *figures, replica.trouble)
        console.print(replicas)
    for metric in demand.metrics:
        console.print(f"  [dim]{metric.name} = {metric.value:g}, target {metric.target:g}[/dim]")


def _as_json(demand: Demand) -> dict[str, Any]:
    return MessageToDict(demand, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
