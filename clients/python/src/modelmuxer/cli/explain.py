"""``mux explain``: which model a prompt would go to, and why, without calling it."""

from __future__ import annotations

import click
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.cli.connection import Connection
from modelmuxer.cli.running import connected, console, dollars, json_option, print_json
from modelmuxer.client import text_message
from modelmuxer.router.v1 import router_pb2
from rich.table import Table


@click.command()
@click.argument("prompt", nargs=-1, required=True)
@click.option("-m", "--model", default="", help="An alias or a model; the default alias if left out.")
@click.option("--strategy", default="", help="How the model is chosen (hybrid, cheapest, fastest, ordered).")
@json_option
@connected
async def explain(connection: Connection, prompt: tuple[str, ...], model: str, strategy: str, as_json: bool) -> None:
    """Explain which model a prompt would go to."""
    chat = chat_pb2.ChatRequest(model=model, messages=[text_message(" ".join(prompt))])
    chat.routing.strategy = strategy
    async with connection.client() as client:
        request = router_pb2.ExplainRequest(chat=chat)
        decision = (await client.router.Explain(request, metadata=client.metadata())).decision
    if as_json:
        print_json(_as_json(decision))
        return
    console.print(f"[bold]{decision.reason}[/bold]")
    table = Table("Model", "Score", "Parts", "Estimated cost", title=f"{decision.requested}, by {decision.strategy}")
    for candidate in decision.candidates:
        parts = ", ".join(f"{name} {value:.2f}" for name, value in sorted(candidate.parts.items()))
        table.add_row(candidate.model, f"{candidate.score:.3f}", parts, dollars(candidate.estimated_cost_nanos))
    console.print(table)
    for exclusion in decision.excluded:
        console.print(f"[dim]not {exclusion.model}: {exclusion.reason}[/dim]")


def _as_json(decision: chat_pb2.RoutingDecision) -> dict[str, object]:
    return {
        "requested": decision.requested,
        "strategy": decision.strategy,
        "reason": decision.reason,
        "catalogue_version": decision.catalogue_version,
        "candidates": [
            {
                "model": c.model,
                "score": c.score,
                "parts": dict(c.parts),
                "estimated_cost_nanos": c.estimated_cost_nanos,
            }
            for c in decision.candidates
        ],
        "excluded": [{"model": e.model, "reason": e.reason} for e in decision.excluded],
    }
