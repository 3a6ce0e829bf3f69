"""``mux chat``: an answer as its tokens come, then one line on how it came about."""

from __future__ import annotations

import sys
import time
from contextlib import aclosing

import click
from modelmuxer.chat.v1 import chat_pb2
from modelmuxer.cli.connection import Connection
from modelmuxer.cli.running import connected, console, dollars, json_option, print_json
from modelmuxer.client import text_message
from rich.markup import escape


@click.command()
@click.argument("prompt", nargs=-1)
@click.option("-m", "--model", default="", help="An alias or a model; the default alias if left out.")
@click.option("-s", "--system", default="", help="A system prompt.")
@click.option("-n", "--max-tokens", type=click.IntRange(min=1), help="The most output tokens.")
@click.option("-t", "--temperature", type=float, help="Sampling temperature.")
@click.option("--strategy", default="", help="How the model is chosen (hybrid, cheapest, fastest, ordered).")
@click.option("--no-cache", is_flag=True, help="Neither look up nor store the answer.")
@json_option
@connected
async def chat(
    connection: Connection,
    prompt: tuple[str, ...],
    model: str,
    system: str,
    max_tokens: int | None,
    temperature: float | None,
    strategy: str,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Chat: `mux chat "Explain TCP slow start"`. Piped input is added to the prompt."""
    request = chat_pb2.ChatRequest(model=model, max_output_tokens=max_tokens, temperature=temperature)
    if system:
        request.messages.append(text_message(system, chat_pb2.ROLE_SYSTEM))
    request.messages.append(text_message(_prompt(prompt)))
    request.routing.strategy = strategy
    request.cache.no_store = no_cache
    answer = Answer()
    async with connection.client() as client, aclosing(client.stream_chat(request)) as events:
        async for event in events:
            answer.add(event)
            if not as_json:
                _show(event)
    if as_json:
        print_json(answer.as_json())
    else:
        console.print()
        console.print(f"[dim]{escape(answer.summary())}[/dim]", soft_wrap=True)


def _prompt(words: tuple[str, ...]) -> str:
    piped = "" if sys.stdin.isatty() else sys.stdin.read()
    prompt = "\n\n".join(part for part in (" ".join(words), piped.strip("\n")) if part.strip())
    if not prompt:
        raise click.UsageError('Say something: mux chat "Explain TCP slow start", or pipe text in.')
    return prompt


def _show(event: chat_pb2.ChatEvent) -> None:
    delta = event.delta
    match delta.WhichOneof("delta"):
        case "text" | "refusal":
            console.print(escape(delta.text or delta.refusal), end="", soft_wrap=True)
        case "reasoning":
            console.print(f"[dim italic]{escape(delta.reasoning)}[/]", end="", soft_wrap=True)
    start = event.block_start
    if event.HasField("block_start") and start.index > 0:
        console.print()


class Answer:
    """What an answer's events add up to, for the line below it and for machines."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._first_token_s: float | None = None
        self._texts: list[str] = []
        self._started = chat_pb2.Started()
        self._completed = chat_pb2.Completed()

    def add(self, event: chat_pb2.ChatEvent) -> None:
        """Takes the next event."""
        match event.WhichOneof("event"):
            case "started":
                self._started = event.started
            case "delta":
                if self._first_token_s is None:
                    self._first_token_s = time.monotonic() - self._began
                self._texts.append(event.delta.text)
            case "completed":
                self._completed = event.completed

    def summary(self) -> str:
        """Returns one line: model, why, tokens, cost, time to first token."""
        usage, cache = self._completed.usage, self._completed.cache
        parts = [self._started.model, self._started.decision.reason]
        if cache.status == chat_pb2.CacheInfo.STATUS_EXACT:
            parts.append(f"from the cache, saved {dollars(cache.saved_nanos)}")
        parts.append(f"{usage.input_tokens:,} in + {usage.output_tokens:,} out tokens")
        parts.append(dollars(self._completed.cost.nanos))
        if self._first_token_s is not None:
            parts.append(f"first token {self._first_token_s * 1000:.0f} ms")
        return " · ".join(part for part in parts if part)

    def as_json(self) -> dict[str, object]:
        """Returns everything that a script may want."""
        started, completed, usage = self._started, self._completed, self._completed.usage
        return {
            "id": started.id,
            "text": "".join(self._texts),
            "model": started.model,
            "provider": started.provider,
            "deployment": started.deployment,
            "reason": started.decision.reason,
            "finish_reason": chat_pb2.FinishReason.Name(completed.finish_reason).removeprefix("FINISH_REASON_").lower(),
            "usage": {
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "cached_input_tokens": usage.cached_input_tokens,
                "reasoning_tokens": usage.reasoning_tokens,
            },
            "cost_nanos": completed.cost.nanos,
            "cache": chat_pb2.CacheInfo.Status.Name(completed.cache.status).removeprefix("STATUS_").lower(),
            "first_token_ms": None if self._first_token_s is None else round(self._first_token_s * 1000, 1),
            "duration_ms": round((time.monotonic() - self._began) * 1000, 1),
            "attempts": [
                {
                    "id": a.id,
                    "model": a.model,
                    "deployment": a.deployment,
                    "status": a.status,
                    "cost_nanos": a.cost.nanos,
                }
                for a in completed.attempts
            ],
        }
